"""Priors p(z) over the latent code, a file for each family.

A prior is one class with one method, ``distribution()``; ``docs/write_a_prior.md`` writes three.
"""

from pyrovae.priors.base import Prior
from pyrovae.priors.heavy_tails import Cauchy, GeneralizedNormal, Laplace, Logistic, Normal, StudentT
from pyrovae.priors.nonnegative import Exponential, Gamma, HalfNormal
from pyrovae.priors.shrinkage import Horseshoe, RegularizedHorseshoe, SparseMixture

__all__ = [
    "Cauchy",
    "Exponential",
    "Gamma",
    "GeneralizedNormal",
    "HalfNormal",
    "Horseshoe",
    "Laplace",
    "Logistic",
    "Normal",
    "Prior",
    "RegularizedHorseshoe",
    "SparseMixture",
    "StudentT",
]
