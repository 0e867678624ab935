"""Priors p(z) over the latent code, a file for each family.

A prior is one class with one method, ``distribution()``; ``docs/write_a_prior.md`` writes three.
"""

from pyrovae.priors.base import Prior
from pyrovae.priors.discrete import Bernoulli, Categorical, Poisson, RelaxedBernoulli
from pyrovae.priors.exact_zeros import RectifiedNormal, SpikeSlab, ThresholdedLaplace, ThresholdedNormal
from pyrovae.priors.fan import Fan
from pyrovae.priors.feature_allocation import BetaBernoulli, BetaSpikeSlab
from pyrovae.priors.flat import Flat
from pyrovae.priors.flows import Flow, ZukoFlow
from pyrovae.priors.hard_concrete import HardConcrete
from pyrovae.priors.heavy_tails import Cauchy, GeneralizedNormal, Laplace, Logistic, Normal, StudentT
from pyrovae.priors.learned import Mixture, Vamp
from pyrovae.priors.nonnegative import Exponential, Gamma, HalfNormal
from pyrovae.priors.shrinkage import Horseshoe, RegularizedHorseshoe, SparseMixture
from pyrovae.priors.simplex import Dirichlet, LogisticNormal, StickBreaking
from pyrovae.priors.sphere import HypersphericalUniform

__all__ = [
    "Bernoulli",
    "BetaBernoulli",
    "BetaSpikeSlab",
    "Categorical",
    "Cauchy",
    "Dirichlet",
    "Exponential",
    "Fan",
    "Flat",
    "Flow",
    "Gamma",
    "GeneralizedNormal",
    "HalfNormal",
    "HardConcrete",
    "Horseshoe",
    "HypersphericalUniform",
    "Laplace",
    "Logistic",
    "LogisticNormal",
    "Mixture",
    "Normal",
    "Poisson",
    "Prior",
    "RectifiedNormal",
    "RegularizedHorseshoe",
    "RelaxedBernoulli",
    "SparseMixture",
    "SpikeSlab",
    "StickBreaking",
    "StudentT",
    "ThresholdedLaplace",
    "ThresholdedNormal",
    "Vamp",
    "ZukoFlow",
]
