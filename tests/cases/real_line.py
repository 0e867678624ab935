"""Rows on the real line: heavy tails and their guides."""

from __future__ import annotations

import itertools

import numpy as np
import pyro.distributions as dist
import scipy.stats as st
from scipy.integrate import quad
from scipy.special import expit

from cases.core import DensityCase, GuideCase, KLCase, Linear, PriorCase, double, scale
from pyrovae import distributions, guides, priors

POINTS = (-400.0, -30.0, -2.0, -0.3, 1e-8, 0.7, 5.0, 400.0)

DENSITIES = {
    "logistic": DensityCase(
        distributions.Logistic,
        lambda: distributions.Logistic(double(0.4), double(0.6)),
        st.logistic(0.4, 0.6).logpdf,
        (*POINTS, 0.4),
        st.logistic(0.4, 0.6).cdf,
    ),
    **{
        f"generalized-normal, power {power}": DensityCase(
            distributions.GeneralizedNormal,
            lambda power=power: distributions.GeneralizedNormal(double(-0.2), double(0.7), double(power)),
            st.gennorm(power, -0.2, 0.7).logpdf,
            (*POINTS, -0.2) if power < 3 else (-30.0, -2.0, -0.2, 0.0, 1.0, 40.0),
            st.gennorm(power, -0.2, 0.7).cdf,
            (-np.inf, -0.2, np.inf),
        )
        for power in (0.5, 1.0, 1.7, 2.0, 4.0)
    },
}

PRIORS = {
    "normal": PriorCase(priors.Normal, lambda d: priors.Normal(d, 0.5, 2.0), st.norm(0.5, 2.0)),
    "laplace": PriorCase(priors.Laplace, lambda d: priors.Laplace(d, -0.3, 0.7), st.laplace(-0.3, 0.7)),
    "student-t": PriorCase(priors.StudentT, lambda d: priors.StudentT(d, 2.5, 0.4, 0.6), st.t(2.5, 0.4, 0.6)),
    "student-t, df 0.6": PriorCase(priors.StudentT, lambda d: priors.StudentT(d, 0.6), st.t(0.6)),
    "cauchy": PriorCase(priors.Cauchy, lambda d: priors.Cauchy(d, 0.1, 0.3), st.cauchy(0.1, 0.3)),
    "logistic": PriorCase(priors.Logistic, lambda d: priors.Logistic(d, -0.1, 1.3), st.logistic(-0.1, 1.3)),
    "generalized-normal": PriorCase(
        priors.GeneralizedNormal, lambda d: priors.GeneralizedNormal(d, 0.6, 0.2, 0.5), st.gennorm(0.6, 0.2, 0.5)
    ),
}


def tril(out, d):
    matrix = np.diag(scale(out[d : 2 * d]))
    matrix[np.tril_indices(d, -1)] = out[2 * d :]
    return matrix


def low_rank_covariance(out, d):
    factor = out[2 * d :].reshape(d, -1)
    return factor @ factor.T + np.diag(scale(out[d : 2 * d]) ** 2)


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
    "generalized-normal": GuideCase(
        guides.GeneralizedNormal,
        lambda d: guides.GeneralizedNormal(Linear(3), d),
        _factorised(lambda m, s, p: st.gennorm(0.5 + 3.5 * expit(p), m, scale(s))),
    ),
    "delta": GuideCase(guides.Delta, lambda d: guides.Delta(Linear(3), d), None),
}


def by_quadrature(q, p):
    """E_q[log q - log p] in one dimension, cut where either density has a corner."""

    def integrand(t):  # z = loc + scale t / (1 - t^2)
        z = q.loc + q.scale * double(t / (1 - t * t))
        log_q = q.log_prob(z)
        value = (log_q.exp() * (log_q - p.log_prob(z)) * q.scale).item() * (1 + t * t) / (1 - t * t) ** 2
        return value if np.isfinite(value) else 0.0

    corner = ((p.loc - q.loc) / q.scale).item()  # where z = p.loc
    t = 0.0 if corner == 0 else (np.sqrt(1 + 4 * corner**2) - 1) / (2 * corner)
    cuts = sorted({-1.0, -0.6, 0.0, 0.6, 1.0, t})
    return sum(quad(integrand, a, b, epsabs=1e-12, epsrel=1e-11, limit=400)[0] for a, b in itertools.pairwise(cuts))


# location and scale of q and of p: alike, near, far, one a thousand times wider than the other
SETTINGS = [
    ((0.0, 1.0), (0.0, 1.0)),
    ((0.5, 0.3), (0.0, 1.0)),
    ((-3.0, 0.01), (2.0, 5.0)),
    ((2.0, 5.0), (1.0, 0.05)),
    ((10.0, 1.0), (0.5, 0.3)),
    ((0.0, 1.0), (10.0, 1.0)),
    ((2.0, 5.0), (2.0, 5.0)),
]
FAMILIES = {
    "normal": lambda loc, scale: dist.Normal(double(loc), double(scale)),
    "laplace": lambda loc, scale: dist.Laplace(double(loc), double(scale)),
    "student-t 2.5": lambda loc, scale: dist.StudentT(double(2.5), double(loc), double(scale)),
    "student-t 9": lambda loc, scale: dist.StudentT(double(9.0), double(loc), double(scale)),
    "cauchy": lambda loc, scale: dist.Cauchy(double(loc), double(scale)),
    "logistic": lambda loc, scale: distributions.Logistic(double(loc), double(scale)),
    **{
        f"generalized-normal {power}": lambda loc, scale, power=power: distributions.GeneralizedNormal(
            double(loc), double(scale), double(power)
        )
        for power in (0.5, 1.3, 4.0)
    },
}
# no guide of ours draws from a Cauchy, nor from a logistic but beside another; the KL of the last pair is infinite
NO_PAIR = {*itertools.product(("cauchy", "logistic"), FAMILIES), ("student-t 2.5", "generalized-normal 4.0")}
NO_PAIR -= {("logistic", "logistic")}
# log q - log p has no variance, or one that 100,000 draws do not show
NO_MONTE_CARLO = {("student-t 2.5", "normal"), ("student-t 2.5", "generalized-normal 1.3")} | {
    ("generalized-normal 0.5", p) for p in ("normal", "generalized-normal 4.0")
}


def _pairs(q, p):
    return lambda: [(FAMILIES[q](*a), FAMILIES[p](*b)) for a, b in SETTINGS]


KLS = {
    f"{q} from {p}": KLCase(_pairs(q, p), monte_carlo=(q, p) not in NO_MONTE_CARLO)
    for q, p in itertools.product(FAMILIES, FAMILIES)
    if (q, p) not in NO_PAIR
}
