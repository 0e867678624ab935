"""Guides q(z|x), a file for each family of supports; amortised, except for coordinate ascent."""

from pyrovae.guides.base import SCALE_FLOOR, Guide
from pyrovae.guides.coordinate_ascent import CoordinateAscent
from pyrovae.guides.discrete import Bernoulli, Categorical, Poisson, RelaxedBernoulli
from pyrovae.guides.exact_zeros import RectifiedNormal, SpikeSlab, ThresholdedLaplace, ThresholdedNormal
from pyrovae.guides.fan import Fan
from pyrovae.guides.feature_allocation import BetaSpikeSlab
from pyrovae.guides.hard_concrete import HardConcrete
from pyrovae.guides.points import Delta, Gated, JumpReLU, ReLU, SparsePoint, VAEase
from pyrovae.guides.positive import Gamma, LogNormal, Weibull
from pyrovae.guides.real import (
    GeneralizedNormal,
    Laplace,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    StudentT,
)
from pyrovae.guides.refined import Refined
from pyrovae.guides.shrinkage import RegularizedHorseshoe
from pyrovae.guides.simplex import Dirichlet, LogisticNormal, StickBreaking
from pyrovae.guides.sphere import PowerSpherical, VonMisesFisher
from pyrovae.guides.top_k import BatchTopK, Matryoshka, TopK

__all__ = [
    "SCALE_FLOOR",
    "BatchTopK",
    "Bernoulli",
    "BetaSpikeSlab",
    "Categorical",
    "CoordinateAscent",
    "Delta",
    "Dirichlet",
    "Fan",
    "Gamma",
    "Gated",
    "GeneralizedNormal",
    "Guide",
    "HardConcrete",
    "JumpReLU",
    "Laplace",
    "LogNormal",
    "LogisticNormal",
    "LowRankMultivariateNormal",
    "Matryoshka",
    "MultivariateNormal",
    "Normal",
    "Poisson",
    "PowerSpherical",
    "ReLU",
    "RectifiedNormal",
    "Refined",
    "RegularizedHorseshoe",
    "RelaxedBernoulli",
    "SparsePoint",
    "SpikeSlab",
    "StickBreaking",
    "StudentT",
    "ThresholdedLaplace",
    "ThresholdedNormal",
    "TopK",
    "VAEase",
    "VonMisesFisher",
    "Weibull",
]
