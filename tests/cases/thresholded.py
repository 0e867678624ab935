"""Rows of thresholded laws: soft thresholds of a Laplace and of a Normal."""

from __future__ import annotations

import itertools

import numpy as np
import pyro.distributions as dist
import scipy.stats as st

from cases.core import DensityCase, GuideCase, KLCase, Linear, PriorCase, double, scale
from cases.exact_zeros import Mixed
from cases.exact_zeros import _reference as by_gates_and_slabs
from cases.real_line import by_quadrature
from pyrovae import distributions, guides, priors

POINTS = (-400.0, -30.0, -2.0, -0.3, 0.0, 1e-8, 0.7, 5.0, 400.0)


class Tails:
    """What is left of a Normal beyond ± threshold, moved together."""

    def __init__(self, loc, scale, threshold):
        self.loc, self.scale, self.threshold = loc, scale, threshold

    def _far(self, z):
        return (np.abs(np.asarray(z) - self.loc) + self.threshold) / self.scale

    def logpdf(self, z):
        log_mass = np.log(2) + st.norm.logsf(self.threshold / self.scale)
        return st.norm.logpdf(self._far(z)) - np.log(self.scale) - log_mass

    def cdf(self, z):
        half = 0.5 * np.exp(st.norm.logsf(self._far(z)) - st.norm.logsf(self.threshold / self.scale))
        return np.where(np.asarray(z) < self.loc, half, 1 - half)

    def median(self):
        return self.loc


def _tails(loc, scale, threshold):
    return distributions.NormalTails(double(loc), double(scale), double(threshold))


def _cuts(loc, width):
    steps = np.array([0.5, 2.0, 5.0, 20.0]) * width
    return (-np.inf, *(loc - steps[::-1]), loc, *(loc + steps), np.inf)


DENSITIES = {
    f"normal-tails, {threshold} over {scale}": DensityCase(
        distributions.NormalTails,
        lambda values=(loc, scale, threshold): _tails(*values),
        Tails(loc, scale, threshold).logpdf,
        (*POINTS, loc),
        Tails(loc, scale, threshold).cdf,
        _cuts(loc, np.exp(-Tails(loc, scale, threshold).logpdf(loc))),
    )
    for loc, scale, threshold in ((0.4, 1.3, 0.6), (-0.2, 0.5, 2.6), (0.1, 0.1, 3.0), (0.3, 2.0, 0.001))
}


def _thresholded_laplace(threshold, loc, scale):
    return Mixed(np.exp(-threshold / scale), st.laplace(loc, scale))


def _thresholded_normal(threshold, loc, scale):
    return Mixed(2 * st.norm.sf(threshold / scale), Tails(loc, scale, threshold))


PRIORS = {
    "thresholded-laplace": PriorCase(
        priors.ThresholdedLaplace,
        lambda d: priors.ThresholdedLaplace(d, 1.2, 0.7, 0.2, learned=["threshold", "scale"]),
        _thresholded_laplace(1.2, 0.2, 0.7),
        {0.0: 1 - np.exp(-1.2 / 0.7)},
    ),
    "thresholded-normal": PriorCase(
        priors.ThresholdedNormal,
        lambda d: priors.ThresholdedNormal(d, 0.4, 1.2, -0.3, learned=["loc"]),
        _thresholded_normal(0.4, -0.3, 1.2),
        {0.0: 1 - 2 * st.norm.sf(0.4 / 1.2)},
    ),
}


def _guide(cls, law, ratio):
    def log_density(out, z, d):
        loc, raw = np.split(out, 2)
        return sum(law(0.25, m, s).logpdf(v) for m, s, v in zip(loc, scale(raw), z, strict=True))

    def code(out, d):
        loc, raw = np.split(out, 2)
        return np.where(0.25 / scale(raw) < ratio, loc, 0.0)

    return GuideCase(cls, lambda d: cls(Linear(3), d, 0.25), log_density, code)


GUIDES = {
    "thresholded-laplace": _guide(guides.ThresholdedLaplace, _thresholded_laplace, np.log(2)),
    "thresholded-normal": _guide(guides.ThresholdedNormal, _thresholded_normal, st.norm.isf(0.25)),
}

# location, scale and threshold of q; location and scale of p: alike, near, far, wide, deep in the tail, a thin one
SETTINGS = [
    ((0.0, 1.0, 0.1), (0.0, 1.0)),
    ((0.5, 0.3, 0.3), (0.0, 1.0)),
    ((-3.0, 0.01, 0.05), (2.0, 5.0)),
    ((2.0, 5.0, 1.0), (1.0, 0.05)),
    ((4.0, 2.0, 60.0), (0.0, 0.5)),
    ((0.3, 0.1, 0.55), (0.3, 1.0)),
    ((10.0, 1.0, 0.2), (0.5, 0.3)),
]
SLABS = {
    "normal": lambda loc, scale: dist.Normal(double(loc), double(scale)),
    "laplace": lambda loc, scale: dist.Laplace(double(loc), double(scale)),
    "student-t": lambda loc, scale: dist.StudentT(double(3.0), double(loc), double(scale)),
    "cauchy-like student-t": lambda loc, scale: dist.StudentT(double(1.0), double(loc), double(scale)),
    "normal-tails": lambda loc, scale: _tails(loc, scale, 2.0 * scale),
}


def _from_tails(p):
    return lambda: [(_tails(*q), SLABS[p](*setting)) for q, setting in SETTINGS]


def _to_tails(q):
    return lambda: [(SLABS[q](*q_setting[:2]), _tails(*p_setting, 0.7)) for q_setting, p_setting in SETTINGS]


LAWS = {
    "thresholded-laplace": lambda *values: distributions.thresholded_laplace(*map(double, values)),
    "thresholded-normal": lambda *values: distributions.thresholded_normal(*map(double, values)),
    "spike-slab": lambda loc, scale, threshold: distributions.SpikeSlab(double(threshold), SLABS["normal"](loc, scale)),
}


def _thresholded(q, p, settings):
    return lambda: [(LAWS[q](*a), LAWS[p](*b, 1.3)) for a, b in settings]


# thresholds of 5, 5.5 and 30 scales open a gate too seldom for 100,000 draws to show it
SELDOM = [setting for setting in SETTINGS if setting[0][2] > 4 * setting[0][1]]
OFTEN = [setting for setting in SETTINGS if setting not in SELDOM]

KLS = {
    **{f"normal-tails from {p}": KLCase(_from_tails(p), by_quadrature) for p in SLABS},
    **{f"{q} from normal-tails": KLCase(_to_tails(q), by_quadrature) for q in ("normal", "laplace")},
    **{
        f"{q} from {p}, {name}": KLCase(_thresholded(q, p, settings), by_gates_and_slabs, monte_carlo=name == "often")
        for q, p in itertools.product(LAWS, LAWS)
        if (q, p) != ("spike-slab", "spike-slab")
        for name, settings in (("often", OFTEN), ("seldom", SELDOM))
    },
}
