"""The table of cases: every public prior, likelihood and guide has a row, which the generic tests run over.

A row names a way to make the object and an independent reference for its density: scipy, with the parameters worked
out anew from the formula of the docstring.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats as st
import torch
from scipy.special import expit, log_softmax
from torch import nn

from pyrovae import guides, likelihoods, priors


class Linear(nn.Module):
    """A network that returns its input: the rows then set a likelihood's or a guide's parameters by hand."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.out_features, self.out_shape = features, (features,)

    def forward(self, x):
        return x


@dataclass(frozen=True)
class PriorCase:
    cls: type
    make: Callable[[int], nn.Module]
    marginal: Any  # scipy's frozen distribution of one coordinate


PRIORS = {
    "normal": PriorCase(priors.Normal, lambda d: priors.Normal(d, 0.5, 2.0), st.norm(0.5, 2.0)),
    "laplace": PriorCase(priors.Laplace, lambda d: priors.Laplace(d, -0.3, 0.7), st.laplace(-0.3, 0.7)),
    "student-t": PriorCase(priors.StudentT, lambda d: priors.StudentT(d, 2.5, 0.4, 0.6), st.t(2.5, 0.4, 0.6)),
    "student-t, df 0.6": PriorCase(priors.StudentT, lambda d: priors.StudentT(d, 0.6), st.t(0.6)),
}


def softplus(x):
    return np.logaddexp(0.0, x)


def scale(raw):
    return softplus(raw) + 1e-5


def tril(out, d):
    matrix = np.diag(scale(out[d : 2 * d]))
    matrix[np.tril_indices(d, -1)] = out[2 * d :]
    return matrix


def low_rank_covariance(out, d):
    factor = out[2 * d :].reshape(d, -1)
    return factor @ factor.T + np.diag(scale(out[d : 2 * d]) ** 2)


@dataclass(frozen=True)
class GuideCase:
    cls: type
    make: Callable[[int], nn.Module]  # of three input features and d coordinates
    log_density: (
        Callable[[np.ndarray, np.ndarray, int], float] | None
    )  # of the head's output, z and d; None for a point


def _factorised(family):
    return lambda out, z, d: family(*np.split(out, len(out) // d)).logpdf(z).sum()


GUIDES = {
    "normal": GuideCase(
        guides.Normal, lambda d: guides.Normal(Linear(3), d), _factorised(lambda m, s: st.norm(m, scale(s)))
    ),
    "laplace": GuideCase(
        guides.Laplace, lambda d: guides.Laplace(Linear(3), d), _factorised(lambda m, s: st.laplace(m, scale(s)))
    ),
    "student-t": GuideCase(
        guides.StudentT,
        lambda d: guides.StudentT(Linear(3), d),
        _factorised(lambda m, s, df: st.t(2.0 + scale(df), m, scale(s))),
    ),
    "multivariate-normal": GuideCase(
        guides.MultivariateNormal,
        lambda d: guides.MultivariateNormal(Linear(3), d),
        lambda out, z, d: st.multivariate_normal(out[:d], tril(out, d) @ tril(out, d).T).logpdf(z),
    ),
    "low-rank-normal": GuideCase(
        guides.LowRankMultivariateNormal,
        lambda d: guides.LowRankMultivariateNormal(Linear(3), d, rank=min(2, d)),
        lambda out, z, d: st.multivariate_normal(out[:d], low_rank_covariance(out, d)).logpdf(z),
    ),
    "delta": GuideCase(guides.Delta, lambda d: guides.Delta(Linear(3), d), None),
}


@dataclass(frozen=True)
class LikelihoodCase:
    cls: type
    make: Callable[[], nn.Module]  # whose network returns z, three numbers per datum (six for two categories each)
    log_density: Callable[[np.ndarray, np.ndarray], float]  # of one datum: the network's output and x
    x: list[list[float]]  # data inside the support
    bad: float  # a value outside it


def _continuous_bernoulli(out, x):
    lam = expit(out)
    norm = 2 * np.arctanh(1 - 2 * lam) / (1 - 2 * lam)
    return (np.log(norm) + x * np.log(lam) + (1 - x) * np.log1p(-lam)).sum()


def _negative_binomial(k):
    def log_density(out, x):
        mean = softplus(out) + 1e-8
        return st.nbinom(k, k / (k + mean)).logpmf(x).sum()

    return log_density


REAL = [[0.3, -1.2, 4.0], [0.0, 0.0, 100.0]]
COUNTS = [[0.0, 3.0, 1.0], [7.0, 0.0, 250.0]]
LIKELIHOODS = {
    "bernoulli": LikelihoodCase(
        likelihoods.Bernoulli,
        lambda: likelihoods.Bernoulli(Linear(3)),
        lambda out, x: st.bernoulli(expit(out)).logpmf(x).sum(),
        [[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]],
        0.5,
    ),
    "continuous-bernoulli": LikelihoodCase(
        likelihoods.ContinuousBernoulli,
        lambda: likelihoods.ContinuousBernoulli(Linear(3)),
        _continuous_bernoulli,
        [[0.0, 1.0, 0.3], [0.5, 0.01, 0.99]],
        1.01,
    ),
    "normal, fixed": LikelihoodCase(
        likelihoods.Normal,
        lambda: likelihoods.Normal(Linear(3), scale=0.5),
        lambda out, x: st.norm(out, 0.5).logpdf(x).sum(),
        REAL,
        float("nan"),
    ),
    "normal, shared": LikelihoodCase(
        likelihoods.Normal,
        lambda: likelihoods.Normal(Linear(3)),
        lambda out, x: st.norm(out, 1.0).logpdf(x).sum(),
        REAL,
        float("inf"),
    ),
    "normal, per pixel": LikelihoodCase(
        likelihoods.Normal,
        lambda: likelihoods.Normal(Linear(3), scale="per-pixel"),
        lambda out, x: st.norm(out, 1.0).logpdf(x).sum(),
        REAL,
        float("-inf"),
    ),
    "laplace": LikelihoodCase(
        likelihoods.Laplace,
        lambda: likelihoods.Laplace(Linear(3), scale=0.3),
        lambda out, x: st.laplace(out, 0.3).logpdf(x).sum(),
        REAL,
        float("nan"),
    ),
    "categorical": LikelihoodCase(
        likelihoods.Categorical,
        lambda: likelihoods.Categorical(Linear(6), num_classes=2),
        lambda out, x: log_softmax(out.reshape(3, 2), 1)[np.arange(3), x.astype(int)].sum(),
        [[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]],
        2.0,
    ),
    "poisson": LikelihoodCase(
        likelihoods.Poisson,
        lambda: likelihoods.Poisson(Linear(3)),
        lambda out, x: st.poisson(softplus(out) + 1e-8).logpmf(x).sum(),
        COUNTS,
        -1.0,
    ),
    "negative-binomial, fixed": LikelihoodCase(
        likelihoods.NegativeBinomial,
        lambda: likelihoods.NegativeBinomial(Linear(3), total_count=2.5),
        _negative_binomial(2.5),
        COUNTS,
        0.5,
    ),
    "negative-binomial, per pixel": LikelihoodCase(
        likelihoods.NegativeBinomial,
        lambda: likelihoods.NegativeBinomial(Linear(3), total_count="per-pixel"),
        _negative_binomial(1.0),
        COUNTS,
        -3.0,
    ),
}


def double(value):
    return torch.tensor(value, dtype=torch.float64)
