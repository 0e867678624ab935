"""Unions of linear subspaces and of curved manifolds, each datum on one of them."""

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
)
from pyrovae.schema import check, flag, number, whole

__all__ = ["Manifolds", "Subspaces"]


@dataclass(frozen=True)
class Subspaces(Synthetic):
    r"""Each datum lies on one of several linear subspaces, which may share coordinates.

    .. math:: k \sim U\{1, \dots, K\} , \qquad x = \sum_{j \in C_k} z_j f_j + \sigma \varepsilon , \quad
              z_j \sim N(0, s_j^2)

    with directions :math:`f_j` of norm 1, independent and uniform. The label is k, and the code has :math:`|C_k|`
    entries that are not zero.

    Args:
        coordinates: :math:`C_k` of each subspace, numbers from 0. :meth:`of_dimensions` takes dimensions instead.
        dim: D.
        num_features: F, width of the code; None is one more than the largest coordinate.
        noise: :math:`\sigma`.
        normalized: Whether :math:`s_j = 1`. Otherwise x = zA with standard Normal z and a standard Normal matrix A,
            so that :math:`s_j` is the norm of row j of A.
        seed: Of the directions.

    Raises: ValueError if a number is out of range, a subspace is empty, has a coordinate twice or more than D.
    """

    coordinates: Sequence[Sequence[int]]
    dim: int
    num_features: int | None = None
    noise: float = 0.0
    normalized: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check("dim", self.dim, whole(1))
        check("seed", self.seed, whole(0, LARGEST_SEED))
        check("normalized", self.normalized, flag)
        check_scale("noise", self.noise)
        sets = tuple(tuple(int(j) for j in each) for each in self.coordinates)
        if not sets or any(not each or len(set(each)) < len(each) or min(each) < 0 for each in sets):
            raise ValueError(
                f"coordinates must be one or more sets of different numbers from 0, got {self.coordinates}"
            )
        if (most := max(map(len, sets))) > self.dim:
            raise ValueError(f"coordinates must be at most dim={self.dim} of each subspace, got {most}")
        least = 1 + max(map(max, sets))
        width = least if self.num_features is None else self.num_features
        check("num_features", width, whole(1))
        if width < least:
            raise ValueError(f"num_features must be above every coordinate, {least} or more, got {width}")
        object.__setattr__(self, "coordinates", sets)
        object.__setattr__(self, "num_features", int(width))

    @classmethod
    def of_dimensions(cls, dimensions: Sequence[int], dim: int, noise: float = 0.0, seed: int = 0) -> Subspaces:
        """Subspaces of these dimensions that share no coordinate, such as ``of_dimensions((2, 4, 6, 8, 10), 30)``."""
        for value in dimensions:
            check("dimensions", value, whole(1))
        ends = [sum(dimensions[: k + 1]) for k in range(len(dimensions))]
        sets = [tuple(range(end - size, end)) for end, size in zip(ends, dimensions, strict=True)]
        return cls(sets, dim, noise=noise, seed=seed)

    @classmethod
    def vaease(cls, seed: int = 0) -> Subspaces:
        """Three subspaces of dimension 4 in 40 dimensions, x = zA without noise; 12 coordinates in all.

        References: the linear experiment of "VAEase" (2025), arXiv 2506.04859; repository vegetablest-dog/VAEase.
        """
        sets = (14, 6, 13, 10), (36, 33, 18, 17), (32, 8, 28, 9)
        return cls(sets, 40, num_features=40, normalized=False, seed=seed)

    @property
    def dimensions(self) -> tuple[int, ...]:
        """The dimension of each subspace: the number of entries of a code on it that are not zero."""
        return tuple(map(len, self.coordinates))

    @cached_property
    def features(self) -> Tensor:
        """The directions, ``(F, D)``, rows of norm 1."""
        return (self._matrix / self._matrix.norm(dim=1, keepdim=True)).float()

    @cached_property
    def _matrix(self) -> Tensor:
        shape = int(self.num_features or 0), self.dim
        return torch.randn(shape, generator=seeded(self.seed, FEATURES), dtype=torch.float64)

    @cached_property
    def _scales(self) -> Tensor:
        """The standard deviation of each coordinate on each subspace, ``(K, F)``; 0 where it is off."""
        scales = torch.zeros(len(self.coordinates), len(self._matrix))
        norms = torch.ones(len(self._matrix)) if self.normalized else self._matrix.norm(dim=1).float()
        for k, each in enumerate(self.coordinates):
            scales[k, list(each)] = norms[list(each)]
        return scales

    def _draw(self, n: int, generator: torch.Generator | None) -> Batch:
        labels = torch.randint(len(self.coordinates), (n,), generator=generator)
        codes = self._scales[labels] * torch.randn(n, len(self._matrix), generator=generator)
        noise = self.noise * torch.randn(n, self.dim, generator=generator) if self.noise else 0.0
        return Batch(codes @ self.features + noise, codes, self.features, labels)


@dataclass(frozen=True)
class Manifolds(Synthetic):
    r"""Curved manifolds: data of subspaces moved by a fixed smooth map that is one-to-one.

    .. math:: g(x) = x + \frac{c}{\omega} \tanh(\omega x Q_1 + b) \, Q_2

    with random orthogonal matrices and a Normal shift b. The second term changes by at most c < 1 times a change of x,
    so that g has a smooth inverse and each manifold has the dimension of its subspace. Codes and labels are those of
    the subspaces; ``features`` is None.

    Args:
        subspaces: The subspaces; their noise is added before the map.
        curvature: :math:`c`, from 0 to below 1.
        frequency: :math:`\omega`.
        noise: Standard deviation of what is added after the map.
        seed: Of the map.

    Raises: ValueError if a number is out of range.
    References: Behrmann, Grathwohl, Chen, Duvenaud and Jacobsen (2019), "Invertible residual networks", theorem 1.
    """

    subspaces: Subspaces
    curvature: float = 0.9
    frequency: float = 2.0
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.subspaces, Subspaces):
            raise ValueError(f"subspaces must be Subspaces, got {type(self.subspaces).__name__}")
        check("curvature", self.curvature, number(0.0, 1.0, "a number from 0 to below 1"))
        check("frequency", self.frequency, number(math.nextafter(0.0, 1.0), expected="a positive finite number"))
        check_scale("noise", self.noise)
        check("seed", self.seed, whole(0, LARGEST_SEED))

    @property
    def dimensions(self) -> tuple[int, ...]:
        """The dimension of each manifold."""
        return self.subspaces.dimensions

    def curved(self, x: Tensor) -> Tensor:
        """The map g, ``(n, D)`` to ``(n, D)``."""
        first, shift, second = (part.to(x) for part in self._map)
        return x + self.curvature / self.frequency * torch.tanh(self.frequency * x @ first + shift) @ second

    @cached_property
    def _map(self) -> tuple[Tensor, Tensor, Tensor]:
        generator, dim = seeded(self.seed, FEATURES), self.subspaces.dim
        first, second = (orthonormal_rows(dim, dim, generator) for _ in range(2))
        return first, torch.randn(dim, generator=generator, dtype=torch.float64), second

    def _draw(self, n: int, generator: torch.Generator | None) -> Batch:
        flat = self.subspaces._draw(n, generator)
        data = self.curved(flat.data)
        if self.noise:
            data = data + self.noise * torch.randn(data.shape, generator=generator)
        return Batch(data, flat.codes, None, flat.labels)
