"""Rows of laws with exact zeros."""

from __future__ import annotations

import itertools

import numpy as np
import pyro.distributions as dist
import scipy.stats as st
from scipy.special import log_expit, xlogy

from cases.core import DensityCase, GuideCase, KLCase, Linear, PriorCase, double, scale
from cases.real_line import by_quadrature
from pyrovae import distributions, guides, priors

POINTS = (-400.0, -30.0, -2.0, -0.3, 0.0, 1e-8, 0.7, 5.0, 400.0)


class Mixed:
    """An atom at zero beside a scipy law; ``cdf`` and ``median`` are of the law."""

    def __init__(self, active, slab):
        self.active, self.slab, self.cdf, self.median = active, slab, slab.cdf, slab.median

    def logpdf(self, z):
        return np.where(z == 0, np.log1p(-self.active), np.log(self.active) + self.slab.logpdf(z))


def _density(active, slab, reference):
    return DensityCase(
        distributions.SpikeSlab,
        lambda: distributions.SpikeSlab(double(np.log(active / (1 - active))), slab(double(0.0))),
        Mixed(active, reference).logpdf,
        POINTS,
        reference.cdf,
        atoms={0.0: 1 - active},
        reparametrised=False,
        rebuild=lambda logits: distributions.SpikeSlab(logits, slab(logits)),
    )


DENSITIES = {
    "spike-slab, normal": _density(0.2, lambda t: dist.Normal(t.new_tensor(0.4), t.new_tensor(1.3)), st.norm(0.4, 1.3)),
    "spike-slab, laplace": _density(
        0.02, lambda t: dist.Laplace(t.new_tensor(-0.1), t.new_tensor(0.7)), st.laplace(-0.1, 0.7)
    ),
    "spike-slab, student-t": _density(
        0.999, lambda t: dist.StudentT(t.new_tensor(3.0), t.new_tensor(0.0), t.new_tensor(2.0)), st.t(3.0, 0.0, 2.0)
    ),
}

PRIORS = {
    "spike-slab": PriorCase(priors.SpikeSlab, lambda d: priors.SpikeSlab(d, 0.1), Mixed(0.1, st.norm()), {0.0: 0.9}),
    "spike-slab, laplace": PriorCase(
        priors.SpikeSlab,
        lambda d: priors.SpikeSlab(d, 0.7, slab="laplace", scale=0.7, learned=["active", "scale"]),
        Mixed(0.7, st.laplace(0, 0.7)),
        {0.0: 0.3},
    ),
    "spike-slab, student-t": PriorCase(
        priors.SpikeSlab,
        lambda d: priors.SpikeSlab(d, 0.3, slab="student-t", df=2.5, loc=0.2),
        Mixed(0.3, st.t(2.5, 0.2)),
        {0.0: 0.7},
    ),
}


# slabs of non-negative codes
PRIORS |= {
    f"spike-slab, {slab}": PriorCase(
        priors.SpikeSlab,
        lambda d, slab=slab, values=values: priors.SpikeSlab(d, 0.3, slab=slab, **values),
        Mixed(0.3, reference),
        {0.0: 0.7},
        lower=0.0,
    )
    for slab, values, reference in (
        ("truncated-normal", {"loc": 0.5, "scale": 0.8}, st.truncnorm(-0.5 / 0.8, np.inf, 0.5, 0.8)),
        ("half-normal", {"scale": 0.6}, st.halfnorm(scale=0.6)),
        ("exponential", {"scale": 1.7}, st.expon(scale=1.7)),
        ("gamma", {"scale": 0.5, "concentration": 3.0}, st.gamma(3.0, scale=0.5)),
    )
}


def _guide(slab, reference):
    def log_density(out, z, d):
        first, second, logits = np.split(out, 3)
        slab = reference(first, scale(second)).logpdf(np.where(z == 0, 1.0, z))
        return np.where(z == 0, log_expit(-logits), log_expit(logits) + slab).sum()

    def code(out, d):
        first, second, logits = np.split(out, 3)
        return np.where(logits > 0, reference(first, scale(second)).mean(), 0.0)

    return GuideCase(guides.SpikeSlab, lambda d: guides.SpikeSlab(Linear(3), d, slab), log_density, code)


GUIDES = {
    "spike-slab": _guide("normal", st.norm),
    "spike-slab, laplace": _guide("laplace", st.laplace),
    "spike-slab, truncated-normal": _guide(
        "truncated-normal", lambda loc, scale: st.truncnorm(-loc / scale, np.inf, loc, scale)
    ),
    "spike-slab, gamma": _guide("gamma", lambda raw, rate: st.gamma(0.1 + scale(raw), scale=1 / rate)),
}


def _reference(q, p):
    """The gates' KL from probabilities, the slabs' by quadrature."""
    a, b = q.probs.item(), p.probs.item()
    return xlogy(a, a / b) + xlogy(1 - a, (1 - a) / (1 - b)) + a * by_quadrature(q.slab, p.slab)


def _pairs(q_slab, p_slab):
    logits = [(0.0, 0.0), (-2.0, -1.0), (3.0, -3.0), (-6.0, 2.0), (6.0, -5.0)]
    slabs = [((0.0, 1.0), (0.0, 1.0)), ((0.5, 0.3), (0.0, 1.0)), ((-3.0, 0.01), (2.0, 5.0)), ((4.0, 2.0), (0.0, 0.5))]
    return lambda: [
        (
            distributions.SpikeSlab(double(a), q_slab(*map(double, s))),
            distributions.SpikeSlab(double(b), p_slab(*map(double, t))),
        )
        for (a, b), (s, t) in zip(logits, itertools.cycle(slabs), strict=False)
    ]


KLS = {
    "spike-slab, normal from normal": KLCase(_pairs(dist.Normal, dist.Normal), _reference),
    "spike-slab, laplace from normal": KLCase(_pairs(dist.Laplace, dist.Normal), _reference),
    "spike-slab, normal from student-t": KLCase(
        _pairs(dist.Normal, lambda loc, scale: dist.StudentT(3.0, loc, scale)), _reference
    ),
}
