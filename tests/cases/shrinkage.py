"""Rows of the shrinkage priors."""

from __future__ import annotations

import itertools

import numpy as np
import pyro.distributions as dist
import scipy.stats as st

from cases.core import DensityCase, HierarchyCase, KLCase, Linear, PriorCase, double, scale
from cases.half_line import by_quadrature as by_half_line_quadrature
from pyrovae import distributions, guides, priors

POINTS = (-400.0, -30.0, -2.0, -0.3, 1e-8, 0.7, 5.0, 400.0)


class ScaleMixture:
    """z ~ N(0, s(λ)²), λ half-Cauchy: the density of t = log λ is sech(t)/π, and the trapezoidal rule sums over t."""

    def __init__(self, deviation):
        self.deviation = deviation

    def logpdf(self, z):
        t = np.arange(-80.0, 40.0, 0.05)
        s = self.deviation(np.exp(t))
        normal = st.norm(0.0, s).pdf(np.asarray(z)[..., None])
        return np.log((normal / np.cosh(t)).sum(-1) * 0.05 / np.pi)

    def cdf(self, z):
        t = np.arange(-40.0, 40.0, 0.2)
        grid = np.sinh(np.linspace(-40.0, 40.0, 8001)) * 1e-9  # dense around 0, out to 1e8
        values = (st.norm.cdf(grid[:, None] / self.deviation(np.exp(t))) / np.cosh(t)).sum(-1) * 0.2 / np.pi
        return np.interp(np.arcsinh(z / 1e-9), np.arcsinh(grid / 1e-9), values)

    def median(self):
        return 0.0


class TwoNormals:
    def __init__(self, active, narrow, wide):
        self.active, self.narrow, self.wide = active, st.norm(0.0, narrow), st.norm(0.0, wide)

    def logpdf(self, z):
        return np.logaddexp(np.log(1 - self.active) + self.narrow.logpdf(z), np.log(self.active) + self.wide.logpdf(z))

    def cdf(self, z):
        return (1 - self.active) * self.narrow.cdf(z) + self.active * self.wide.cdf(z)

    def median(self):
        return 0.0


DENSITIES = {
    f"horseshoe, scale {tau}": DensityCase(
        distributions.Horseshoe,
        lambda tau=tau: distributions.Horseshoe(double(tau)),
        ScaleMixture(lambda lam, tau=tau: tau * lam).logpdf,
        (*POINTS, 1e-25),
        ScaleMixture(lambda lam, tau=tau: tau * lam).cdf,
        (-np.inf, -1.0, 0.0, 1.0, np.inf),
        moments=False,
    )
    for tau in (0.3, 1.0)
} | {
    "sparse-mixture": DensityCase(
        distributions.SparseMixture,
        lambda: distributions.SparseMixture(double(0.3), double(0.05), double(1.5)),
        TwoNormals(0.3, 0.05, 1.5).logpdf,
        POINTS,
        TwoNormals(0.3, 0.05, 1.5).cdf,
        (-np.inf, -0.5, 0.0, 0.5, np.inf),
    )
}

PRIORS = {
    "horseshoe": PriorCase(
        priors.Horseshoe, lambda d: priors.Horseshoe(d, 0.4), ScaleMixture(lambda lam: 0.4 * lam), pole=0.0
    ),
    "sparse-mixture": PriorCase(
        priors.SparseMixture, lambda d: priors.SparseMixture(d, 0.3, 0.1, 2.0), TwoNormals(0.3, 0.1, 2.0)
    ),
}


def _deviation(lam):
    return 0.2 * lam * 1.5 / np.sqrt(1.5**2 + (0.2 * lam) ** 2)


def _prior_log_density(sites):
    lam, z = sites["z_scale"], sites["z"]
    return {
        "z_scale": st.halfcauchy.logpdf(lam).sum(-1),
        "z": st.norm(0.0, _deviation(lam)).logpdf(z).sum(-1),
    }


def _guide_log_density(out, sites):
    log_loc, log_scale, loc, raw = np.split(out, 4, axis=-1)
    lam, z = sites["z_scale"], sites["z"]
    return {
        "z_scale": st.lognorm(scale(log_scale), scale=np.exp(log_loc)).logpdf(lam).sum(-1),
        "z": st.norm(lam * loc, lam * scale(raw)).logpdf(z).sum(-1),
    }


HIERARCHIES = {
    "regularized-horseshoe": HierarchyCase(
        priors.RegularizedHorseshoe,
        lambda d: priors.RegularizedHorseshoe(d, 0.2, 1.5),
        _prior_log_density,
        ScaleMixture(_deviation).cdf,
        guides.RegularizedHorseshoe,
        lambda d: guides.RegularizedHorseshoe(Linear(3), d),
        _guide_log_density,
    ),
}

# location and scale of q: at the pole, near it, far away, narrow, wide
SETTINGS = [(0.0, 1.0), (0.5, 0.3), (-3.0, 0.01), (0.0, 1e-3), (2.0, 5.0), (1e-3, 0.02), (30.0, 0.1)]
GUIDE_LAWS = {
    "normal": lambda loc, scale: dist.Normal(double(loc), double(scale)),
    "laplace": lambda loc, scale: dist.Laplace(double(loc), double(scale)),
    "student-t 2.5": lambda loc, scale: dist.StudentT(double(2.5), double(loc), double(scale)),
    "student-t 9": lambda loc, scale: dist.StudentT(double(9.0), double(loc), double(scale)),
    **{
        f"generalized-normal {power}": lambda loc, scale, power=power: distributions.GeneralizedNormal(
            double(loc), double(scale), double(power)
        )
        for power in (0.5, 1.3, 4.0)
    },
}
PRIOR_LAWS = {
    "horseshoe": lambda: distributions.Horseshoe(double(1.0)),
    "narrow horseshoe": lambda: distributions.Horseshoe(double(0.01)),
    "sparse-mixture": lambda: distributions.SparseMixture(double(0.2), double(0.05), double(1.0)),
    "narrower sparse-mixture": lambda: distributions.SparseMixture(double(0.05), double(0.02), double(1.0)),
}


def _pairs(q, p):
    return lambda: [(GUIDE_LAWS[q](*setting), PRIOR_LAWS[p]()) for setting in SETTINGS]


def _has_variance(q, p):
    return "mixture" not in p or q not in ("student-t 2.5", "generalized-normal 0.5")


KLS = {
    f"{q} from {p}": KLCase(
        _pairs(q, p), rel=1e-5 if p.startswith("narrower") else 1e-6, monte_carlo=_has_variance(q, p)
    )
    for q, p in itertools.product(GUIDE_LAWS, PRIOR_LAWS)
} | {
    "log-normal from half-cauchy": KLCase(
        lambda: [
            (distributions.LogNormal(*map(double, q)), dist.HalfCauchy(double(p)))
            for q, p in [
                ((0.0, 1.0), 1.0),
                ((-2.0, 0.5), 0.3),
                ((3.0, 0.05), 1.0),
                ((-50.0, 6.0), 1e-3),
                ((5.0, 10.0), 2.0),
                ((0.3, 2.0), 100.0),
            ]
        ],
        by_half_line_quadrature,
    )
}
