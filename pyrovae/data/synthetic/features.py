"""Sparse features, in superposition or orthonormal: the benchmark data of sparse autoencoders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pyrovae.data.synthetic.generators import (
    FEATURES,
    LARGEST_SEED,
    Batch,
    Synthetic,
    check_scale,
    orthonormal_rows,
    seeded,
    unit_rows,
)
from pyrovae.schema import check, flag, number, optional, whole

__all__ = ["SparseFeatures", "linear_probabilities", "zipf_probabilities"]

SMALLEST = torch.finfo(torch.float32).tiny  # a feature that fires is never exactly zero
EIGENVALUE = 1e-6  # the least of a correlation matrix


@dataclass(frozen=True)
class SparseFeatures(Synthetic):
    r"""Few of many features are on, and their sum is seen.

    .. math:: x = \sum_j b_j m_j f_j + \sigma \varepsilon , \qquad P(b_j = 1) = p_j , \quad
              m_j \sim N(\mu, s^2) \text{ given } m_j > 0 , \quad \varepsilon \sim N(0, I)

    with features :math:`f_j` of norm 1, which are independent and uniform on the sphere, or orthonormal. The gates b
    are independent, or one of three:

    - ``correlation``: a Gaussian copula, :math:`b_j = 1[g_j < \Phi^{-1}(p_j)]` with :math:`g \sim N(0, R)`, which
      leaves every :math:`p_j` as it is. R is random: of the pairs a share ``uncorrelated`` has 0, the others a uniform
      strength, half of them negative; then eigenvalues are raised to at least 1e-6 and the diagonal is scaled to 1,
      which weakens large correlations.
    - ``parents``: feature j fires only where its parent does, with the probability ``active[j]`` there.
    - ``num_active``: exactly so many features fire, every set of them with the same probability.

    Args:
        num_features: F.
        dim: D.
        active: :math:`p_j`, a number or one for each feature. See :func:`linear_probabilities` and
            :func:`zipf_probabilities`.
        num_active: Number of features that fire, instead of ``active``.
        correlation: The strengths are uniform from 0 to this number, or between two numbers; below 1.
        uncorrelated: Share of pairs with correlation 0, before eigenvalues are raised.
        parents: For each feature the number of its parent, which must be smaller, or -1 for none.
        loc: :math:`\mu`.
        scale: :math:`s`; at 0 every magnitude is ``loc``. The half-normal :math:`|N(0, 1)|` is ``loc=0, scale=1``.
        noise: :math:`\sigma`, the standard deviation of every data dimension.
        orthonormal: Whether features are orthonormal, which needs F <= D.
        seed: Of the features and of R.

    Raises: ValueError if a number is out of range, or two of the three kinds of dependence are given.
    References: Chanin and Garriga-Alonso (2025), "Sparse but wrong: incorrect L0 leads to incorrect features in sparse
        autoencoders", whose copula this is; Elhage et al. (2022), "Toy models of superposition".
    """

    num_features: int
    dim: int
    active: float | Sequence[float] | Tensor = 0.1
    num_active: int | None = None
    correlation: float | tuple[float, float] = 0.0
    uncorrelated: float = 0.3
    parents: Sequence[int] | None = None
    loc: float = 1.0
    scale: float = 0.15
    noise: float = 0.0
    orthonormal: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check("num_features", self.num_features, whole(1))
        check("dim", self.dim, whole(1))
        check("seed", self.seed, whole(0, LARGEST_SEED))
        check("orthonormal", self.orthonormal, flag)
        check("loc", self.loc, number())
        for name in ("scale", "noise"):
            check_scale(name, getattr(self, name))
        if self.scale == 0 and self.loc <= 0:
            raise ValueError(f"loc must be positive where scale is 0, got {self.loc}: magnitudes are positive")
        if self.scale > 0 and self.loc < -30 * self.scale:
            raise ValueError(f"loc must be at least -30 scale, got {self.loc} and {self.scale}: no draw is positive")
        if self.orthonormal and self.num_features > self.dim:
            raise ValueError(
                f"orthonormal features must be at most dim={self.dim}, got num_features={self.num_features}"
            )
        low, high = self.correlation if isinstance(self.correlation, tuple) else (0.0, self.correlation)
        if not 0.0 <= low <= high < 1.0:
            raise ValueError(f"correlation must be a strength from 0 to below 1, or two, got {self.correlation}")
        check("uncorrelated", self.uncorrelated, number(0.0, math.nextafter(1.0, 2.0), "a share from 0 to 1"))
        check("num_active", self.num_active, optional(whole(1, self.num_features)))
        given = {
            "correlation": high > 0,
            "parents": self.parents is not None,
            "num_active": self.num_active is not None,
        }
        if sum(given.values()) > 1:
            names = " and ".join(name for name, is_given in given.items() if is_given)
            raise ValueError(f"{names} must not be given together: features depend on each other in one way")
        object.__setattr__(self, "active", _probabilities(self.active, self.num_features))
        if self.parents is not None:
            object.__setattr__(self, "parents", tuple(int(parent) for parent in self.parents))
            _check_parents(self.parents, self.num_features)

    @classmethod
    def sparse_but_wrong(cls, seed: int = 0) -> SparseFeatures:
        """50 orthonormal features in 100 dimensions, p from 0.388 to 0.05, correlations of 0.3 to 0.9, L0 10.95.

        The published experiment, whose features are orthonormal up to an optimisation and whose R has other random
        numbers.

        References: Chanin and Garriga-Alonso (2025), section 3; repository chanind/sparse-but-wrong-paper.
        """
        active = linear_probabilities(50, 0.345 * 49 / 50 + 0.05, 0.05)
        return cls(50, 100, active, correlation=(0.3, 0.9), orthonormal=True, seed=seed)

    @classmethod
    def sparse_inference(cls, seed: int = 0) -> SparseFeatures:
        """16 features in 8 dimensions, 3 of them on, magnitudes half-normal.

        References: O'Neill, Gumran and Klindt (2024), "Compute optimal inference and provable amortisation gap in
            sparse autoencoders".
        """
        return cls(16, 8, num_active=3, loc=0.0, scale=1.0, seed=seed)

    @classmethod
    def superposition(cls, num_features: int, dim: int, seed: int = 0) -> SparseFeatures:
        """Zipf probabilities of exponent 1/2, expected L0 6, correlations up to 0.3, magnitudes 1 ± 0.125."""
        active = zipf_probabilities(num_features, 0.5, 6.0)
        return cls(num_features, dim, active, correlation=0.3, scale=0.125, seed=seed)

    @cached_property
    def features(self) -> Tensor:
        """``(F, D)``, rows of norm 1."""
        if self.orthonormal:
            return orthonormal_rows(self.num_features, self.dim, seeded(self.seed, FEATURES)).float()
        return unit_rows(self.num_features, self.dim, self.seed)

    @cached_property
    def firing_probabilities(self) -> Tensor:
        """The share of data in which each feature fires, ``(F,)`` in float64: with parents, the product of a line."""
        if self.num_active is not None:
            return torch.full((self.num_features,), self.num_active / self.num_features, dtype=torch.float64)
        marginal = torch.tensor(self.active, dtype=torch.float64)
        for child, parent in enumerate(self.parents or ()):
            if parent >= 0:
                marginal[child] *= marginal[parent]
        return marginal

    @property
    def expected_l0(self) -> float:
        """The mean number of features that fire."""
        return self.firing_probabilities.sum().item()

    @cached_property
    def copula(self) -> Tensor:
        """The correlation matrix R of the copula, ``(F, F)`` in float64."""
        low, high = self.correlation if isinstance(self.correlation, tuple) else (0.0, self.correlation)
        generator = seeded(self.seed, FEATURES, 1)
        rows, columns = torch.triu_indices(self.num_features, self.num_features, 1)
        num = len(rows) - int(len(rows) * self.uncorrelated)
        pairs = torch.randperm(len(rows), generator=generator)[:num]
        strength = low + (high - low) * torch.rand(num, generator=generator, dtype=torch.float64)
        strength[num // 2 :] *= -1
        upper = torch.zeros(self.num_features, self.num_features, dtype=torch.float64)
        upper[rows[pairs], columns[pairs]] = strength
        values, vectors = torch.linalg.eigh(upper + upper.T + torch.eye(self.num_features, dtype=torch.float64))
        matrix = (vectors * values.clamp(min=EIGENVALUE)) @ vectors.T
        scale = matrix.diagonal().rsqrt()
        return (matrix * scale * scale[:, None]).fill_diagonal_(1.0)

    @cached_property
    def _factor(self) -> Tensor:
        return torch.linalg.cholesky(self.copula)

    def _draw(self, n: int, generator: torch.Generator | None) -> Batch:
        gates = self._gates(n, generator)
        codes = torch.zeros(n, self.num_features)
        codes[gates] = self._magnitudes(int(gates.sum()), generator)
        noise = self.noise * torch.randn(n, self.dim, generator=generator) if self.noise else 0.0
        return Batch(codes @ self.features + noise, codes, self.features, None)

    def _gates(self, n: int, generator: torch.Generator | None) -> Tensor:
        shape = n, self.num_features
        if self.num_active is not None:
            chosen = torch.rand(shape, generator=generator).topk(self.num_active).indices
            return torch.zeros(shape, dtype=torch.bool).scatter_(1, chosen, True)
        active = torch.tensor(self.active, dtype=torch.float64)
        if self.correlation not in (0, (0, 0)):
            normal = torch.randn(shape, generator=generator, dtype=torch.float64) @ self._factor.T
            return normal < torch.special.ndtri(active)
        gates = torch.rand(shape, generator=generator, dtype=torch.float64) < active
        for child, parent in enumerate(self.parents or ()):
            if parent >= 0:
                gates[:, child] &= gates[:, parent]
        return gates

    def _magnitudes(self, num: int, generator: torch.Generator | None) -> Tensor:
        """``(num,)``, by the inverse of the upper tail, which is exact wherever the Normal is cut."""
        if self.scale == 0:
            return torch.full((num,), float(self.loc))
        tail = 1 - torch.rand(num, generator=generator, dtype=torch.float64)
        tail *= torch.special.ndtr(torch.tensor(self.loc / self.scale, dtype=torch.float64))
        return (self.loc - self.scale * torch.special.ndtri(tail)).float().clamp(min=SMALLEST)


def linear_probabilities(num_features: int, first: float, last: float) -> Tensor:
    """Probabilities from ``first`` to ``last`` in equal steps, ``(num_features,)`` in float64."""
    check("num_features", num_features, whole(1))
    return torch.linspace(first, last, num_features, dtype=torch.float64)


def zipf_probabilities(num_features: int, exponent: float, expected_l0: float) -> Tensor:
    r"""Zipf's probabilities, :math:`p_j \propto j^{-a}` for j = 1 to F, that sum to ``expected_l0``.

    Args:
        num_features: F.
        exponent: :math:`a`.
        expected_l0: The mean number of features that fire.

    Returns: ``(F,)`` in float64.
    Raises: ValueError if a number is out of range or the first probability is above 1.
    """
    check("num_features", num_features, whole(1))
    check_scale("exponent", exponent)
    check("expected_l0", expected_l0, number(math.nextafter(0.0, 1.0), expected="a positive finite number"))
    weights = torch.arange(1, num_features + 1, dtype=torch.float64) ** -exponent
    active = expected_l0 * weights / weights.sum()
    if active[0] > 1:
        most = (weights.sum() / weights[0]).item()
        raise ValueError(f"expected_l0 must be at most {most:.3g} for these features and exponent, got {expected_l0}")
    return active


def _probabilities(active: float | Sequence[float] | Tensor, num: int) -> tuple[float, ...]:
    values = torch.as_tensor(active, dtype=torch.float64)
    if values.shape not in ((), (num,)) or not bool(((values > 0) & (values <= 1)).all()):
        raise ValueError(f"active must be one or {num} probabilities above 0, at most 1, got {active}")
    return tuple(values.expand(num).tolist())


def _check_parents(parents: Sequence[int] | None, num: int) -> None:
    if parents is None or len(parents) != num or any(not -1 <= parent < i for i, parent in enumerate(parents)):
        raise ValueError(f"parents must be {num} numbers, each -1 or that of an earlier feature, got {parents}")
