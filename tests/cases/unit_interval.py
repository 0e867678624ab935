"""Rows of laws between 0 and 1."""

from __future__ import annotations

import itertools

import mpmath
import numpy as np
import scipy.stats as st

from cases.core import DensityCase, KLCase, double
from pyrovae import distributions

POINTS = (1e-30, 1e-8, 0.01, 0.3, 0.7, 0.99, 0.999)
BREAKS = (0.0, 0.01, 0.5, 0.99, 1.0)


class KumaraswamyLaw:
    def __init__(self, a, b):
        self.a, self.b = a, b

    def logpdf(self, v):
        log_v = np.log(v)
        return np.log(self.a * self.b) + (self.a - 1) * log_v + (self.b - 1) * np.log(-np.expm1(self.a * log_v))

    def cdf(self, v):
        return -np.expm1(self.b * np.log1p(-(v**self.a)))


DENSITIES = {
    f"beta {a} {b}": DensityCase(
        distributions.Beta,
        lambda a=a, b=b: distributions.Beta(double(a), double(b)),
        st.beta(a, b).logpdf,
        POINTS,
        st.beta(a, b).cdf,
        BREAKS,
    )
    for a, b in ((0.6, 0.8), (5.0, 1.0), (2.5, 7.0))
} | {
    f"kumaraswamy {a} {b}": DensityCase(
        distributions.Kumaraswamy,
        lambda a=a, b=b: distributions.Kumaraswamy(double(a), double(b)),
        KumaraswamyLaw(a, b).logpdf,
        POINTS,
        KumaraswamyLaw(a, b).cdf,
        BREAKS,
    )
    for a, b in ((0.6, 0.8), (5.0, 1.0), (2.5, 7.0), (1.0, 0.5))
}


def by_mpmath(q, p):
    """By quadrature over log(-log u), u the quantile; 25 digits."""
    mpmath.mp.dps = 25
    a, b, alpha, beta = (mpmath.mpf(v.item()) for d in (q, p) for v in (d.concentration1, d.concentration0))

    def log_rest(t):
        x = mpmath.exp(t) / b
        log_rest = -x - mpmath.log(a) if x > 60 else mpmath.log(-mpmath.expm1(mpmath.log(-mpmath.expm1(-x)) / a))
        return mpmath.exp(t - mpmath.exp(t)) * log_rest

    mean_log_rest = mpmath.quad(log_rest, [-150, -100, -60, -40, -20, -10, -5, -2, 0, 1, 2, 3, 4, 5])
    harmonic = mpmath.digamma(b + 1) + mpmath.euler
    entropy = 1 - 1 / b + (1 - 1 / a) * harmonic - mpmath.log(a * b)
    cross = -mpmath.log(mpmath.beta(alpha, beta)) - (alpha - 1) * harmonic / a + (beta - 1) * mean_log_rest
    return float(-entropy - cross)


def _pairs(*laws):
    return lambda: [(distributions.Kumaraswamy(*map(double, q)), distributions.Beta(*map(double, p))) for q, p in laws]


SIZES = (0.05, 0.7, 3.0, 50.0)
PRIOR_SIZES = ((1.0, 5.0), (0.05, 50.0), (50.0, 0.05), (50.0, 50.0), (0.05, 0.05))
MILD = (((1.0, 4.0), (1.0, 4.0)), ((3.0, 0.7), (1.0, 5.0)), ((5.0, 0.3), (1.0, 5.0)), ((0.6, 2.0), (10.0, 1.0)))

KLS = {
    "kumaraswamy from beta": KLCase(_pairs(*MILD), by_mpmath, rel=1e-8),
    "kumaraswamy from beta, wide": KLCase(
        _pairs(*zip(itertools.product(SIZES, SIZES), itertools.cycle(PRIOR_SIZES), strict=False)),
        by_mpmath,
        rel=1e-8,
        monte_carlo=False,  # a float64 draw next to 1 is too coarse for the smallest b
    ),
}
