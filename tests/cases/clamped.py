"""Rows of clamped laws: a rectified Normal, and hard-concrete gates."""

from __future__ import annotations

import itertools

import numpy as np
import scipy.stats as st
from scipy.integrate import quad
from scipy.special import logit

import pyrovae as pv
from cases.core import DensityCase, GuideCase, HierarchyCase, KLCase, Linear, PriorCase, double, scale
from pyrovae import distributions, guides, priors


class Rectified:
    """max(0, s) of a Normal s: ``logpdf`` is of all of it, ``cdf`` of the part that is not zero."""

    def __init__(self, loc, scale):
        self.normal = st.norm(loc, scale)

    def logpdf(self, z):
        return np.where(z == 0, self.normal.logcdf(0.0), self.normal.logpdf(z))

    def cdf(self, z):
        return (self.normal.cdf(z) - self.normal.cdf(0.0)) / self.normal.sf(0.0)

    def median(self):
        return self.normal.isf(0.5 * self.normal.sf(0.0))


class HardConcrete:
    """From the logistic law of v, where h = min(1, max(0, 1.2 / (1 + exp(-v)) - 0.1))."""

    def __init__(self, logits, temperature):
        self.v = st.logistic(logits / temperature, 1 / temperature)
        self.end = np.log(11.0)

    def logpdf(self, h):
        inside = np.where((h == 0) | (h == 1), 0.5, h)
        between = self.v.logpdf(logit((inside + 0.1) / 1.2)) + np.log(1.2 / ((inside + 0.1) * (1.1 - inside)))
        return np.where(h == 0, self.v.logcdf(-self.end), np.where(h == 1, self.v.logsf(self.end), between))

    def cdf(self, h):
        below, above = self.v.cdf(-self.end), self.v.cdf(self.end)
        return (self.v.cdf(logit((np.asarray(h) + 0.1) / 1.2)) - below) / (above - below)

    def atoms(self):
        return {0.0: self.v.cdf(-self.end), 1.0: self.v.sf(self.end)}

    def expectation(self, f):
        between, _ = quad(
            lambda h: np.exp(self.logpdf(h)) * f(h), 0.0, 1.0, epsabs=1e-12, epsrel=1e-11, points=(0.1, 0.5, 0.9)
        )
        return between + sum(mass * f(atom) for atom, mass in self.atoms().items())


DENSITIES = {
    **{
        f"rectified-normal, {loc} over {scale}": DensityCase(
            distributions.RectifiedNormal,
            lambda values=(loc, scale): distributions.RectifiedNormal(*map(double, values)),
            Rectified(loc, scale).logpdf,
            (0.0, 1e-8, 0.02, 0.3, 1.0, 5.0, 40.0),
            Rectified(loc, scale).cdf,
            (0.0, 0.5, 3.0, np.inf),
            {0.0: st.norm.cdf(-loc / scale)},
            reparametrised=False,
        )
        for loc, scale in ((0.4, 0.8), (-1.5, 1.1), (2.0, 0.5), (0.0, 1.0))
    },
    **{
        f"hard-concrete, {logits} at {temperature}": DensityCase(
            distributions.HardConcrete,
            lambda values=(logits, temperature): distributions.HardConcrete(*map(double, values)),
            HardConcrete(logits, temperature).logpdf,
            (0.0, 1e-8, 0.02, 0.3, 0.5, 0.9, 1 - 1e-8, 1.0),
            HardConcrete(logits, temperature).cdf,
            (0.0, 0.1, 0.5, 0.95, 1.0),
            HardConcrete(logits, temperature).atoms(),
            reparametrised=False,
        )
        for logits, temperature in ((0.3, 2 / 3), (-2.0, 0.3), (1.5, 2.0))
    },
}

PRIORS = {
    f"rectified-normal, {loc}": PriorCase(
        priors.RectifiedNormal,
        lambda d, loc=loc: priors.RectifiedNormal(d, loc, 0.8, learned=["loc"]),
        Rectified(loc, 0.8),
        {0.0: st.norm.cdf(-loc / 0.8)},
        lower=0.0,
    )
    for loc in (-0.7, 0.5)
}


GUIDES = {
    "rectified-normal": GuideCase(
        guides.RectifiedNormal,
        lambda d: guides.RectifiedNormal(Linear(3), d),
        lambda out, z, d: Rectified(out[:d], scale(out[d:])).logpdf(z).sum(),
        lambda out, d: np.maximum(out[:d], 0.0),
    )
}


def _rectified_reference(q, p):
    """The atom, and quadrature where q is, cut where either density has its peak."""
    q, p = (Rectified(d.loc.item(), d.scale.item()) for d in (q, p))
    mean, deviation = q.normal.mean(), q.normal.std()
    lower, upper = max(0.0, mean - 40 * deviation), max(0.0, mean) + 40 * deviation
    steps = (0.0, 1e-2, 0.1, 0.5, 1.0, 3.0, 8.0, 40.0)
    cuts = {c for k in steps for c in (mean - k * deviation, mean + k * deviation, k * deviation)}
    cuts = [lower, *sorted(c for c in cuts if lower < c < upper), upper]

    def integrand(z):
        return q.normal.pdf(z) * (q.normal.logpdf(z) - p.normal.logpdf(z))

    between = sum(quad(integrand, a, b, epsabs=1e-14)[0] for a, b in itertools.pairwise(cuts))
    return between + q.normal.cdf(0.0) * (q.normal.logcdf(0.0) - p.normal.logcdf(0.0))


def _rectified_pairs():
    settings = [
        ((0.0, 1.0), (0.0, 1.0)),
        ((0.5, 0.3), (-1.0, 1.0)),
        ((-3.0, 0.3), (2.0, 5.0)),
        ((-1.0, 0.1), (-0.5, 1.0)),
        ((10.0, 1.0), (-2.0, 0.5)),
        ((2.0, 5.0), (1.0, 0.2)),
        ((3.0, 1e-3), (0.0, 2.0)),
    ]
    return [tuple(distributions.RectifiedNormal(*map(double, v)) for v in pair) for pair in settings]


def _gate_reference(q, p):
    q, p = (HardConcrete(d.logits.item(), d.temperature.item()) for d in (q, p))
    return q.expectation(lambda h: q.logpdf(h) - p.logpdf(h))


def _gate_pairs():
    settings = [
        ((0.0, 2 / 3), (0.0, 2 / 3)),
        ((1.5, 2 / 3), (-3.8, 2 / 3)),
        ((-6.0, 2 / 3), (2.0, 2 / 3)),
        ((8.0, 0.5), (-4.0, 1.0)),
        ((0.5, 0.1), (-2.0, 2 / 3)),
        ((-1.0, 2.0), (0.3, 0.2)),
        ((2.0, 1.5), (-2.0, 2.0)),
    ]
    return [tuple(distributions.HardConcrete(*map(double, v)) for v in pair) for pair in settings]


KLS = {
    "rectified-normal": KLCase(_rectified_pairs, _rectified_reference),
    "hard-concrete": KLCase(_gate_pairs, _gate_reference),
}


def _gated(loc, deviation, gate):
    """log-density of z = h w: exactly zero where h is."""
    open_gate = np.where(gate == 0, 1.0, gate)
    return lambda z: np.where(
        gate == 0, np.where(z == 0, 0.0, -np.inf), st.norm(open_gate * loc, open_gate * deviation).logpdf(z)
    )


PRIOR_GATE = HardConcrete(logit(0.3) - 0.5 * np.log(11.0), 0.5)


def _prior_log_density(sites):
    gate, z = sites["z_gate"], sites["z"]
    return {"z_gate": PRIOR_GATE.logpdf(gate).sum(-1), "z": _gated(0.0, 1.5, gate)(z).sum(-1)}


def _guide_log_density(out, sites):
    loc, raw, logits = np.split(out, 3, axis=-1)
    gate, z = sites["z_gate"], sites["z"]
    return {
        "z_gate": HardConcrete(logits, 2 / 3).logpdf(gate).sum(-1),
        "z": _gated(loc, scale(raw), gate)(z).sum(-1),
    }


def _cdf_where_not_zero(z):
    """The trapezoidal rule over v between the ends; P(h = 1) is what is above."""
    v = np.linspace(-PRIOR_GATE.end, PRIOR_GATE.end, 801)[1:-1]
    h = 1.2 / (1 + np.exp(-v)) - 0.1
    weight = PRIOR_GATE.v.pdf(v) * (v[1] - v[0])
    grid = np.linspace(-12.0, 12.0, 2001)
    between = (weight * st.norm.cdf(grid[:, None] / (1.5 * h))).sum(-1)
    values = (between + PRIOR_GATE.v.sf(PRIOR_GATE.end) * st.norm.cdf(grid / 1.5)) / PRIOR_GATE.v.sf(-PRIOR_GATE.end)
    return np.interp(z, grid, values)


def _code(out, d):
    loc, _, logits = np.split(out, 3, axis=-1)
    return loc * np.clip(1.2 / (1 + np.exp(-logits * 1.5)) - 0.1, 0.0, 1.0)


HIERARCHIES = {
    "hard-concrete": HierarchyCase(
        priors.HardConcrete,
        lambda d: priors.HardConcrete(d, 0.3, 1.5, 0.5),
        _prior_log_density,
        _cdf_where_not_zero,
        guides.HardConcrete,
        lambda d: guides.HardConcrete(Linear(3), d, 2 / 3),
        _guide_log_density,
        atoms={0.0: 0.7},
        code=_code,
        exact=(pv.ELBO,),  # Pyro's is refused,
    ),
}
