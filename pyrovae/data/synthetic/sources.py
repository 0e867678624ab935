"""Independent sparse sources times a dictionary: the generative model of sparse coding and of ICA."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pyrovae.data.synthetic.generators import LARGEST_SEED, Batch, Synthetic, check_scale, unit_rows
from pyrovae.schema import check, number, one_of, whole

__all__ = ["SparseSources"]


@dataclass(frozen=True)
class SparseSources(Synthetic):
    r"""x = zF + noise with independent sources z of one sparse distribution.

    .. math:: x = \sum_j z_j f_j + \sigma \varepsilon

    - ``"laplace"``: density :math:`\tfrac12 e^{-|z|}`, variance 2;
    - ``"student-t"``: ``df`` degrees of freedom, variance :math:`\nu / (\nu - 2)` above 2;
    - ``"spike-slab"``: N(0, 1) with probability ``active``, and otherwise exactly zero.

    Args:
        num_sources: F.
        dim: D; directions :math:`f_j` are independent and uniform on the sphere.
        family: One of the three.
        active: Of spike and slab.
        df: Degrees of freedom :math:`\nu` of Student's t.
        noise: :math:`\sigma`.
        seed: Of the directions.

    Raises: ValueError if a number is out of range.
    References: Olshausen and Field (1996), "Emergence of simple-cell receptive field properties by learning a sparse
        code for natural images"; Bailey (1994), "Polar generation of random variates with the t-distribution".
    """

    num_sources: int
    dim: int
    family: str = "laplace"
    active: float = 0.1
    df: float = 3.0
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check("num_sources", self.num_sources, whole(1))
        check("dim", self.dim, whole(1))
        check("seed", self.seed, whole(0, LARGEST_SEED))
        check("family", self.family, one_of("laplace", "student-t", "spike-slab"))
        check("active", self.active, number(0.0, math.nextafter(1.0, 2.0), "a probability"))
        check("df", self.df, number(math.nextafter(0.0, 1.0), expected="a positive finite number"))
        check_scale("noise", self.noise)

    @cached_property
    def features(self) -> Tensor:
        """``(F, D)``, rows of norm 1."""
        return unit_rows(self.num_sources, self.dim, self.seed)

    def _draw(self, n: int, generator: torch.Generator | None) -> Batch:
        codes = self._sources(n, generator).float()
        noise = self.noise * torch.randn(n, self.dim, generator=generator) if self.noise else 0.0
        return Batch(codes @ self.features + noise, codes, self.features, None)

    def _sources(self, n: int, generator: torch.Generator | None) -> Tensor:
        first, second = torch.rand(2, n, self.num_sources, generator=generator, dtype=torch.float64)
        first = 1 - first  # in (0, 1]
        if self.family == "laplace":
            return -first.log() * (second - 0.5).sign()
        if self.family == "student-t":
            radius = (self.df * torch.expm1(-2 / self.df * first.log())).sqrt()
            return radius * torch.cos(2 * math.pi * second)
        normal = torch.randn(n, self.num_sources, generator=generator, dtype=torch.float64)
        return torch.where(second < self.active, normal, 0.0)
