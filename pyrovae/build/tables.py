"""The names of the command line, and the parts that stand under them."""

from __future__ import annotations

import functools
from collections.abc import Callable

from torch import nn

from pyrovae import guides, likelihoods, priors
from pyrovae.nn import GaussianNoise, Masking, SaltAndPepper

__all__ = [
    "CORRUPTIONS",
    "GUIDES",
    "LIKELIHOODS",
    "MATCHING",
    "MATCHING_SLABS",
    "MODEL_GUIDES",
    "NETWORKS",
    "PRIORS",
    "usual_warmup",
]

PRIORS: dict[str, Callable[..., nn.Module]] = {
    "flat": priors.Flat,
    "normal": priors.Normal,
    "laplace": priors.Laplace,
    "student-t": priors.StudentT,
    "cauchy": priors.Cauchy,
    "logistic": priors.Logistic,
    "generalized-normal": priors.GeneralizedNormal,
    "spike-slab": functools.partial(priors.SpikeSlab, learned=("active", "scale")),
    "thresholded-laplace": functools.partial(priors.ThresholdedLaplace, learned=("threshold", "scale")),
    "thresholded-normal": functools.partial(priors.ThresholdedNormal, learned=("threshold", "scale")),
    "rectified-normal": functools.partial(priors.RectifiedNormal, learned=("loc", "scale")),
    "hard-concrete": functools.partial(priors.HardConcrete, learned=("active", "scale")),
    "bernoulli": functools.partial(priors.Bernoulli, learned=("probs",)),
    "poisson": functools.partial(priors.Poisson, learned=("rate",)),
    "categorical": functools.partial(priors.Categorical, learned=("logits",)),
    "relaxed-bernoulli": functools.partial(priors.RelaxedBernoulli, learned=("probs",)),
    "fan": priors.Fan,
    "mixture": priors.Mixture,
    "vamp": priors.Vamp,
    "flow": priors.Flow,
    "hyperspherical-uniform": priors.HypersphericalUniform,
    "dirichlet": priors.Dirichlet,
    "logistic-normal": priors.LogisticNormal,
    "stick-breaking": priors.StickBreaking,
    "beta-spike-slab": functools.partial(priors.BetaSpikeSlab, learned=("scale",)),
    "beta-bernoulli": functools.partial(priors.BetaBernoulli, learned=("scale",)),
    "gamma": priors.Gamma,
    "exponential": priors.Exponential,
    "half-normal": priors.HalfNormal,
    "horseshoe": priors.Horseshoe,
    "regularized-horseshoe": priors.RegularizedHorseshoe,
    "sparse-mixture": priors.SparseMixture,
}
GUIDES: dict[str, type[nn.Module]] = {
    "normal": guides.Normal,
    "multivariate-normal": guides.MultivariateNormal,
    "low-rank-normal": guides.LowRankMultivariateNormal,
    "laplace": guides.Laplace,
    "student-t": guides.StudentT,
    "generalized-normal": guides.GeneralizedNormal,
    "spike-slab": guides.SpikeSlab,
    "thresholded-laplace": guides.ThresholdedLaplace,
    "thresholded-normal": guides.ThresholdedNormal,
    "rectified-normal": guides.RectifiedNormal,
    "hard-concrete": guides.HardConcrete,
    "bernoulli": guides.Bernoulli,
    "poisson": guides.Poisson,
    "categorical": guides.Categorical,
    "relaxed-bernoulli": guides.RelaxedBernoulli,
    "delta": guides.Delta,
    "power-spherical": guides.PowerSpherical,
    "von-mises-fisher": guides.VonMisesFisher,
    "fan": guides.Fan,
    "dirichlet": guides.Dirichlet,
    "logistic-normal": guides.LogisticNormal,
    "stick-breaking": guides.StickBreaking,
    "beta-spike-slab": guides.BetaSpikeSlab,
    "weibull": guides.Weibull,
    "log-normal": guides.LogNormal,
    "gamma": guides.Gamma,
    "regularized-horseshoe": guides.RegularizedHorseshoe,
    "relu": guides.ReLU,
    "topk": guides.TopK,
    "batch-topk": guides.BatchTopK,
    "matryoshka": guides.Matryoshka,
    "jump-relu": guides.JumpReLU,
    "gated": guides.Gated,
    "vaease": guides.VAEase,
}
# Guides that are made of the prior and the likelihood, not of an encoder and a width.
MODEL_GUIDES: dict[str, type[nn.Module]] = {"coordinate-ascent": guides.CoordinateAscent}
# The guide of a prior whose own name is no guide's, where it is not the Normal.
MATCHING: dict[str, str] = {
    "flat": "delta",
    "hyperspherical-uniform": "power-spherical",
    "exponential": "gamma",
    "half-normal": "gamma",
    "beta-bernoulli": "beta-spike-slab",
}
# The slab of the guide of a prior with a positive slab.
MATCHING_SLABS: dict[str, str] = {
    "truncated-normal": "truncated-normal",
    "half-normal": "truncated-normal",
    "exponential": "truncated-normal",
    "gamma": "gamma",
}
LIKELIHOODS: dict[str, type[likelihoods.Likelihood]] = {
    "bernoulli": likelihoods.Bernoulli,
    "continuous-bernoulli": likelihoods.ContinuousBernoulli,
    "normal": likelihoods.Normal,
    "laplace": likelihoods.Laplace,
    "categorical": likelihoods.Categorical,
    "autoregressive": likelihoods.Autoregressive,
    "poisson": likelihoods.Poisson,
    "negative-binomial": likelihoods.NegativeBinomial,
}
NETWORKS = ("mlp", "conv", "dictionary", "gru")
CORRUPTIONS: dict[str, type[nn.Module]] = {
    "gaussian": GaussianNoise,
    "masking": Masking,
    "salt-and-pepper": SaltAndPepper,
}
# epochs that beta rises for, where gates shut for good if it does not
WARMUP = dict.fromkeys(("spike-slab", "beta-spike-slab", "beta-bernoulli"), 14.0)


def usual_warmup(prior: str, guide: nn.Module, epochs: float) -> float:
    """Epochs over which beta should rise from 0, in a run of so many: four fifths of it at most.

    It does not rise for :class:`~pyrovae.guides.CoordinateAscent`, whose gates are the best ones at beta 1.
    """
    if type(guide) is guides.CoordinateAscent:
        return 0.0
    return min(WARMUP.get(prior.partition(":")[0], 0.0), 0.8 * epochs)
