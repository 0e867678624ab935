"""Rows of the likelihoods."""

from __future__ import annotations

import numpy as np
import scipy.stats as st
import torch
from scipy.special import expit, log_softmax

from cases.core import LikelihoodCase, Linear, softplus
from pyrovae import likelihoods


def _continuous_bernoulli(out, x):
    lam = expit(out)
    norm = 2 * np.arctanh(1 - 2 * lam) / (1 - 2 * lam)
    return (np.log(norm) + x * np.log(lam) + (1 - x) * np.log1p(-lam)).sum()


def _negative_binomial(k):
    def log_density(out, x):
        mean = softplus(out) + 1e-8
        return st.nbinom(k, k / (k + mean)).logpmf(x).sum()

    return log_density


class Chain(Linear):
    """Three bits, whose logits are z and after a 1 those of a 1 higher by 1.5."""

    def forward(self, z, x):
        after_one = torch.nn.functional.pad(x[..., :-1], (1, 0)).to(z)
        return (z.unflatten(-1, (3, 2)) + 1.5 * torch.stack([torch.zeros_like(after_one), after_one], -1)).flatten(-2)

    def generate(self, z, choose):
        x = torch.zeros(len(z), 3, dtype=torch.long)
        for t in range(3):
            x[:, t] = choose(self(z, x).unflatten(-1, (3, 2))[:, t])
        return x


def _chain(out, x):
    logits = out.reshape(3, 2) + 1.5 * np.outer([0, *x[:2]], [0, 1])
    return log_softmax(logits, 1)[np.arange(3), x.astype(int)].sum()


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
    "autoregressive": LikelihoodCase(
        likelihoods.Autoregressive,
        lambda: likelihoods.Autoregressive(Chain(6), num_classes=2),
        _chain,
        [[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]],
        2.0,
    ),
    "masked": LikelihoodCase(
        likelihoods.Masked,
        lambda: likelihoods.Masked(likelihoods.Laplace(Linear(3), scale=0.3)),
        lambda out, x: np.nansum(st.laplace(out, 0.3).logpdf(x)),
        [[0.3, np.nan, 4.0], [0.0, 0.0, 100.0]],
        float("inf"),
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
