"""Rows on the simplex."""

from __future__ import annotations

import functools

import numpy as np
import scipy.stats as st
import torch
from scipy.special import betaln, digamma, expit, polygamma, softmax

from cases.core import KLCase, Linear, VectorDensityCase, VectorGuideCase, VectorPriorCase, double, scale
from pyrovae import distributions, guides, priors


def _unit_interval(num):
    """Tanh-sinh nodes u, 1 - u without cancellation, and weights: poles at both ends do no harm."""
    t = np.linspace(-4.5, 4.5, num)
    s = np.pi * np.sinh(t)
    return expit(s), expit(-s), (t[1] - t[0]) * np.pi * np.cosh(t) * expit(s) * expit(-s)


@functools.lru_cache
def segment():
    u, rest, weights = _unit_interval(400)
    return np.stack([u, rest], -1), weights


@functools.lru_cache
def triangle():
    u, rest, weights = _unit_interval(250)
    z = [np.broadcast_to(u[:, None], (250, 250)), rest[:, None] * u, rest[:, None] * rest]
    return np.stack(z, -1).reshape(-1, 3), (weights[:, None] * rest[:, None] * weights).reshape(-1)


GRIDS = {2: segment, 3: triangle}


def dirichlet(a):
    return lambda z: st.dirichlet(a).logpdf(z / z.sum())


def logistic_normal(loc, scale):
    """By log-ratios to the last coordinate."""
    loc, scale = np.broadcast_arrays(np.asarray(loc, float), np.asarray(scale, float))
    normal = st.multivariate_normal(loc[:-1] - loc[-1], np.diag(scale[:-1] ** 2) + scale[-1] ** 2)
    return lambda z: normal.logpdf(np.log(z[..., :-1] / z[..., -1:])) - np.log(z).sum(-1)


def beta_sticks(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return stick_breaking(lambda log_v, log_rest: (a - 1) * log_v + (b - 1) * log_rest - betaln(a, b))


def kumaraswamy_sticks(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return stick_breaking(lambda log_v, _: np.log(a * b) + (a - 1) * log_v + (b - 1) * np.log(-np.expm1(a * log_v)))


def stick_breaking(log_density):
    """From the law of the fractions and the Jacobian of z."""

    def log_prob(z):
        left = np.cumsum(z[..., ::-1], -1)[..., ::-1]
        v, rest = z[..., :-1] / left[..., :-1], left[..., 1:] / left[..., :-1]
        with np.errstate(divide="ignore"):
            log_v, log_rest = (np.where(u < 0.5, np.log(u), np.log1p(-w)) for u, w in ((v, rest), (rest, v)))
        return (log_density(log_v, log_rest) - np.log(left[..., :-1])).sum(-1)

    return log_prob


def _wide_dirichlet(dtype):
    a = torch.tensor([0.01, 0.1, 1.0, 30.0], dtype=torch.float64)[:, None].expand(4, 256)
    mixed = torch.linspace(0.01, 20.0, 256, dtype=torch.float64)[None]
    return [distributions.Dirichlet(torch.cat([a, mixed]).to(dtype))]


def _wide_logistic_normal(dtype):
    generator = torch.Generator().manual_seed(3)
    loc = torch.randn(4, 256, generator=generator, dtype=torch.float64)
    sizes = torch.tensor([0.01, 1.0, 5.0, 30.0], dtype=torch.float64)[:, None].expand(4, 256)
    return [distributions.LogisticNormal((loc * sizes).to(dtype), sizes.to(dtype))]


def _wide_sticks(family):
    def wide(dtype):
        a = torch.tensor([1.0, 0.3, 30.0], dtype=torch.float64)[:, None].expand(3, 255)
        b = torch.tensor([5.0, 20.0, 60.0], dtype=torch.float64)[:, None].expand(3, 255)
        return [distributions.StickBreaking(family(a.to(dtype), b.to(dtype)))]

    return wide


POINTS = {
    2: [(0.3, 0.7), (0.99, 0.01), (0.5, 0.5), (1e-9, 1 - 1e-9)],
    3: [(0.2, 0.3, 0.5), (0.9, 0.06, 0.04), (0.05, 0.9, 0.05), (1e-7, 0.5, 0.5 - 1e-7), (1e-5, 2e-6, 1 - 1.2e-5)],
}
CONCENTRATIONS = ((0.4, 0.7), (3.0, 1.5), (0.5, 1.0, 0.8), (8.0, 2.0, 5.0))
NORMALS = (
    ((0.3, -0.5), (0.7, 1.5)),
    ((0.3, -0.2, 0.5), (0.6, 1.2, 0.3)),
    ((-1.0, 0.0, 0.4), (2.0, 1.0, 1.5)),
)
STICKS = (((0.6,), (1.7,)), ((1.0, 3.0), (5.0, 0.7)), ((0.5, 1.2), (0.4, 2.0)))

DENSITIES = {
    **{
        f"dirichlet {a}": VectorDensityCase(
            distributions.Dirichlet,
            distributions.Dirichlet,
            (a,),
            dirichlet(a),
            POINTS[len(a)],
            GRIDS[len(a)],
            _wide_dirichlet,
        )
        for a in CONCENTRATIONS
    },
    **{
        f"logistic-normal {loc} {scale}": VectorDensityCase(
            distributions.LogisticNormal,
            distributions.LogisticNormal,
            (loc, scale),
            logistic_normal(loc, scale),
            POINTS[len(loc)],
            GRIDS[len(loc)],
            _wide_logistic_normal,
        )
        for loc, scale in NORMALS
    },
    **{
        f"stick-breaking, {family.__name__} {a} {b}": VectorDensityCase(
            distributions.StickBreaking,
            lambda a, b, family=family: distributions.StickBreaking(family(a, b)),
            (a, b),
            reference(a, b),
            POINTS[len(a) + 1],
            GRIDS[len(a) + 1],
            _wide_sticks(family),
        )
        for family, reference in (
            (distributions.Beta, beta_sticks),
            (distributions.Kumaraswamy, kumaraswamy_sticks),
        )
        for a, b in STICKS
    },
}

PRIORS = {
    "dirichlet": VectorPriorCase(
        priors.Dirichlet, lambda d: priors.Dirichlet(d, 0.7), lambda z: dirichlet(np.full(len(z), 0.7))(z)
    ),
    "dirichlet, learned": VectorPriorCase(
        priors.Dirichlet,
        lambda d: priors.Dirichlet(d, 1.3, learned=["concentration"]),
        lambda z: dirichlet(np.full(len(z), 1.3))(z),
    ),
    "logistic-normal": VectorPriorCase(
        priors.LogisticNormal,
        lambda d: priors.LogisticNormal(d, 0.4, 1.7),
        lambda z: logistic_normal(np.zeros(len(z)), 1.7)(z),
    ),
    "logistic-normal, from a dirichlet": VectorPriorCase(
        priors.LogisticNormal,
        lambda d: priors.LogisticNormal.from_dirichlet(d, double([0.5, 1.0, 2.0, 4.0])[:d]),
        lambda z: logistic_normal(digamma([0.5, 1.0, 2.0, 4.0]), np.sqrt(polygamma(1, [0.5, 1.0, 2.0, 4.0])))(z),
    ),
    "stick-breaking": VectorPriorCase(
        priors.StickBreaking, lambda d: priors.StickBreaking(d, 3.0), beta_sticks(1.0, 3.0)
    ),
    "stick-breaking, learned": VectorPriorCase(
        priors.StickBreaking, lambda d: priors.StickBreaking(d, 0.8, learned=["concentration"]), beta_sticks(1.0, 0.8)
    ),
}

GUIDES = {
    "dirichlet": VectorGuideCase(
        guides.Dirichlet,
        lambda d: guides.Dirichlet(Linear(3), d),
        lambda out, z, d: dirichlet(scale(out))(z),
        lambda out, mean, d: mean,
    ),
    "logistic-normal": VectorGuideCase(
        guides.LogisticNormal,
        lambda d: guides.LogisticNormal(Linear(3), d),
        lambda out, z, d: logistic_normal(out[:d], scale(out[d:]))(z),
        lambda out, mean, d: softmax(out[:d]),
    ),
    "stick-breaking": VectorGuideCase(
        guides.StickBreaking,
        lambda d: guides.StickBreaking(Linear(3), d),
        lambda out, z, d: kumaraswamy_sticks(*scale(out).reshape(2, d - 1))(z),
        lambda out, mean, d: mean,
    ),
}

LAWS = [distributions.Dirichlet(double(a)) for a in ((0.6, 0.9, 2.0), (3.0, 1.0, 0.5), (20.0, 4.0, 9.0))]
NORMAL_LAWS = [
    distributions.LogisticNormal(double(loc), double(size))
    for loc, size in (((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), ((0.5, -1.0, 0.2), (0.4, 2.0, 1.1)), NORMALS[1])
]

STICK_LAWS = [distributions.StickBreaking(distributions.Kumaraswamy(double(a), double(b))) for a, b in STICKS[1:]]
BETA_STICK_LAWS = [distributions.StickBreaking(distributions.Beta(double(a), double(b))) for a, b in STICKS[1:]]


def _reference(d):
    if isinstance(d, distributions.StickBreaking):
        a, b = d.sticks.concentration1.numpy(), d.sticks.concentration0.numpy()
        return (beta_sticks if isinstance(d.sticks, distributions.Beta) else kumaraswamy_sticks)(a, b)
    if isinstance(d, distributions.Dirichlet):
        a = d.concentration.numpy()
        constant = dirichlet(a)(np.full(3, 1 / 3)) + (a - 1).sum() * np.log(3)
        return lambda z: constant + ((a - 1) * np.log(z)).sum(-1)
    return logistic_normal(d.loc.numpy(), d.scale.numpy())


def _kl(q, p):
    points, weights = triangle()
    log_q, log_p = _reference(q)(points), _reference(p)(points)
    with np.errstate(under="ignore"):
        return (weights * np.exp(log_q) * (log_q - log_p)).sum()


def _pairs(qs, ps):
    return lambda: [(q, p) for q in qs for p in ps]


KLS = {
    "dirichlet from dirichlet": KLCase(_pairs(LAWS, LAWS), _kl),
    "logistic-normal from logistic-normal": KLCase(_pairs(NORMAL_LAWS, NORMAL_LAWS), _kl),
    "dirichlet from logistic-normal": KLCase(_pairs(LAWS, NORMAL_LAWS), _kl),
    "stick-breaking from stick-breaking": KLCase(_pairs(STICK_LAWS, BETA_STICK_LAWS), _kl),
    "stick-breaking from dirichlet": KLCase(_pairs(STICK_LAWS, LAWS), _kl),
    "dirichlet from stick-breaking": KLCase(_pairs(LAWS, BETA_STICK_LAWS), _kl),
}
