"""Guides q(z|x), amortized, a file for each family of supports."""

from pyrovae.guides.base import SCALE_FLOOR, Guide
from pyrovae.guides.positive import Gamma, LogNormal, Weibull
from pyrovae.guides.real import (
    Delta,
    GeneralizedNormal,
    Laplace,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    StudentT,
)
from pyrovae.guides.shrinkage import RegularizedHorseshoe

__all__ = [
    "SCALE_FLOOR",
    "Delta",
    "Gamma",
    "GeneralizedNormal",
    "Guide",
    "Laplace",
    "LogNormal",
    "LowRankMultivariateNormal",
    "MultivariateNormal",
    "Normal",
    "RegularizedHorseshoe",
    "StudentT",
    "Weibull",
]
