"""Guides q(z|x), amortized, a file for each family of supports."""

from pyrovae.guides.base import SCALE_FLOOR, Guide
from pyrovae.guides.exact_zeros import SpikeSlab
from pyrovae.guides.real import (
    Delta,
    GeneralizedNormal,
    Laplace,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    StudentT,
)

__all__ = [
    "SCALE_FLOOR",
    "Delta",
    "GeneralizedNormal",
    "Guide",
    "Laplace",
    "LowRankMultivariateNormal",
    "MultivariateNormal",
    "Normal",
    "SpikeSlab",
    "StudentT",
]
