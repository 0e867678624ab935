"""Guides q(z|x), amortized, a file for each family of supports."""

from pyrovae.guides.base import SCALE_FLOOR, Guide
from pyrovae.guides.real import (
    Delta,
    GeneralizedNormal,
    Laplace,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    StudentT,
)
from pyrovae.guides.sphere import PowerSpherical, VonMisesFisher

__all__ = [
    "SCALE_FLOOR",
    "Delta",
    "GeneralizedNormal",
    "Guide",
    "Laplace",
    "LowRankMultivariateNormal",
    "MultivariateNormal",
    "Normal",
    "PowerSpherical",
    "StudentT",
    "VonMisesFisher",
]
