"""Rows on the half line: non-negative priors and their guides."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pyro.distributions as dist
import scipy.stats as st
from scipy.special import gammaln, log_ndtr

from cases.core import DensityCase, GuideCase, KLCase, Linear, PriorCase, double, scale
from pyrovae import distributions, guides, priors

POINTS = (1e-30, 1e-8, 0.02, 0.3, 1.0, 5.0, 40.0)
CUTS = (0.0, 1e-12, 1e-6, 1e-3, 1.0, 10.0, np.inf)


def _density(cls, values, reference, points=POINTS):
    return DensityCase(cls, lambda: cls(*map(double, values)), reference.logpdf, points, reference.cdf, CUTS)


DENSITIES = {
    "gamma": _density(distributions.Gamma, (0.5, 1.3), st.gamma(0.5, scale=1 / 1.3)),
    "gamma, concentration 8": _density(distributions.Gamma, (8.0, 2.0), st.gamma(8.0, scale=0.5)),
    "weibull": _density(distributions.Weibull, (0.7, 1.8), st.weibull_min(1.8, scale=0.7)),
    "weibull, concentration 0.6": _density(
        distributions.Weibull, (0.7, 0.6), st.weibull_min(0.6, scale=0.7), (*POINTS, 1e4)
    ),
    **{
        f"truncated-normal, {loc} over {scale}": _density(
            distributions.TruncatedNormal, (loc, scale), st.truncnorm(-loc / scale, np.inf, loc, scale)
        )
        for loc, scale in ((0.4, 1.3), (-3.0, 0.7), (0.0, 2.0))
    },
    "log-normal": _density(distributions.LogNormal, (-0.4, 0.8), st.lognorm(0.8, scale=np.exp(-0.4)), (*POINTS, 1e10)),
}

PRIORS = {
    "gamma": PriorCase(priors.Gamma, lambda d: priors.Gamma(d, 0.4, 2.0), st.gamma(0.4, scale=0.5), lower=0.0),
    "gamma, concentration 3": PriorCase(
        priors.Gamma, lambda d: priors.Gamma(d, 3.0, 0.5), st.gamma(3.0, scale=2.0), lower=0.0
    ),
    "exponential": PriorCase(
        priors.Exponential, lambda d: priors.Exponential(d, 1.7), st.expon(scale=1 / 1.7), lower=0.0
    ),
    "half-normal": PriorCase(priors.HalfNormal, lambda d: priors.HalfNormal(d, 0.6), st.halfnorm(scale=0.6), lower=0.0),
}


def _factorised(family):
    return lambda out, z, d: family(*np.split(out, 2)).logpdf(z).sum()


GUIDES = {
    "weibull": GuideCase(
        guides.Weibull,
        lambda d: guides.Weibull(Linear(3), d),
        _factorised(lambda a, b: st.weibull_min(0.1 + scale(b), scale=scale(a))),
    ),
    "log-normal": GuideCase(
        guides.LogNormal,
        lambda d: guides.LogNormal(Linear(3), d),
        _factorised(lambda a, b: st.lognorm(scale(b), scale=np.exp(a))),
    ),
    "gamma": GuideCase(
        guides.Gamma,
        lambda d: guides.Gamma(Linear(3), d),
        _factorised(lambda a, b: st.gamma(0.1 + scale(a), scale=1 / scale(b))),
    ),
}


# log-density of y = log z, from the formulas of the docstrings; arguments in the order of each class
LOG_DENSITY = {
    "Weibull": lambda y, lam, k: np.log(k) + k * (y - np.log(lam)) - np.exp(k * (y - np.log(lam))),
    "LogNormal": lambda y, m, s: -((y - m) ** 2) / (2 * s**2) - np.log(s) - 0.5 * np.log(2 * np.pi),
    "Gamma": lambda y, a, b: a * (y + np.log(b)) - b * np.exp(y) - gammaln(a),
    "TruncatedNormal": lambda y, m, s: (
        y - 0.5 * ((np.exp(y) - m) / s) ** 2 - np.log(s) - 0.5 * np.log(2 * np.pi) - log_ndtr(m / s)
    ),
    "Exponential": lambda y, b: np.log(b) + y - b * np.exp(y),
    "HalfNormal": lambda y, s: 0.5 * np.log(2 / np.pi) - np.log(s) + y - np.exp(2 * y) / (2 * s**2),
    "HalfCauchy": lambda y, s: np.log(2 / np.pi) - np.log(s) + y - np.log1p(np.exp(2 * y) / s**2),
}


@functools.cache
def _nodes():
    """Of the trapezoidal rule in y = log z: it is spectrally accurate for laws at least 0.04 wide in y."""
    return np.linspace(-4000.0, 300.0, 215_001)


def by_quadrature(q, p):
    y = _nodes()
    with np.errstate(over="ignore"):
        log_q, log_p = (
            LOG_DENSITY[type(d).__name__](y, *(getattr(d, name).item() for name in d.arg_constraints)) for d in (q, p)
        )
    there = log_q > -700  # elsewhere q log(q / p) is below 1e-290
    return (np.exp(log_q[there]) * (log_q[there] - log_p[there])).sum() * (y[1] - y[0])


# concentrations 0.01 and 100 among them
GUIDE_LAWS = {
    "weibull": [(distributions.Weibull, v) for v in ((1.0, 1.0), (0.3, 0.6), (20.0, 10.0), (1e-3, 0.15), (0.5, 2.0))],
    "log-normal": [
        (distributions.LogNormal, v) for v in ((0.0, 1.0), (-2.0, 0.5), (3.0, 0.05), (-50.0, 6.0), (0.3, 2.0))
    ],
    "gamma": [(distributions.Gamma, v) for v in ((1.0, 1.0), (0.3, 0.6), (100.0, 3.0), (0.01, 2.0), (2.0, 30.0))],
    "torch's weibull": [(dist.Weibull, v) for v in ((1.0, 1.0), (0.3, 0.6), (20.0, 10.0), (1e-3, 0.15), (0.5, 2.0))],
    "torch's log-normal": [
        (dist.LogNormal, v) for v in ((0.0, 1.0), (-2.0, 0.5), (3.0, 0.05), (-50.0, 6.0), (0.3, 2.0))
    ],
}
TRUNCATED = [
    (distributions.TruncatedNormal, v) for v in ((0.4, 1.3), (-3.0, 0.7), (5.0, 0.3), (-40.0, 2.0), (0.0, 1.0))
]
TRUNCATED_PRIOR = [
    (distributions.TruncatedNormal, v) for v in ((0.0, 1.0), (1.0, 0.5), (-2.0, 1.0), (-30.0, 3.0), (4.0, 2.0))
]
PRIOR_LAWS = {
    "gamma": [(distributions.Gamma, v) for v in ((1.0, 1.0), (0.5, 2.0), (0.01, 0.1), (100.0, 20.0), (3.0, 1.0))],
    "exponential": [(dist.Exponential, (v,)) for v in (1.0, 0.3, 20.0, 100.0, 0.01)],
    "half-normal": [(dist.HalfNormal, (v,)) for v in (1.0, 0.3, 20.0, 100.0, 5.0)],
}


def _pairs(q_laws, p_laws):
    def pairs():
        both = [*zip(q_laws, p_laws, strict=True), (q_laws[3], p_laws[2])]
        return [(q(*map(double, a)), p(*map(double, b))) for (q, a), (p, b) in both]

    return pairs


KLS = {
    # log q - log p of the widest setting has no mean that 100,000 draws show where log p is as z^2
    f"{q} from {p}": KLCase(
        _pairs(GUIDE_LAWS[q], PRIOR_LAWS[p]), by_quadrature, rel=1e-9, monte_carlo=p != "half-normal"
    )
    for q, p in itertools.product(GUIDE_LAWS, PRIOR_LAWS)
}
KLS |= {
    "truncated-normal from truncated-normal": KLCase(_pairs(TRUNCATED, TRUNCATED_PRIOR), by_quadrature, rel=1e-9),
    "truncated-normal from exponential": KLCase(_pairs(TRUNCATED, PRIOR_LAWS["exponential"]), by_quadrature, rel=1e-9),
    "gamma from truncated-normal": KLCase(_pairs(GUIDE_LAWS["gamma"], TRUNCATED_PRIOR), by_quadrature, rel=1e-9),
}
