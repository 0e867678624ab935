"""Rows on the unit sphere."""

from __future__ import annotations

import functools

import numpy as np
import scipy.stats as st
import torch
from scipy.special import gammaln

from cases.core import KLCase, Linear, VectorDensityCase, VectorGuideCase, VectorPriorCase, double, softplus
from pyrovae import distributions, guides, priors


@functools.lru_cache
def circle(num=20_000):
    angle = 2 * np.pi * np.arange(num) / num
    return np.stack([np.cos(angle), np.sin(angle)], -1), np.full(num, 2 * np.pi / num)


@functools.lru_cache
def sphere(num=300):
    cos, weight = np.polynomial.legendre.leggauss(num)
    xy, turn = circle(num)
    sin = np.sqrt(1 - cos**2)
    flat = sin[:, None, None] * xy
    points = np.concatenate([flat, np.broadcast_to(cos[:, None, None], (num, num, 1))], -1)
    return points.reshape(-1, 3), (weight[:, None] * turn).reshape(-1)


GRIDS = {2: circle, 3: sphere}


def unit(values):
    return tuple(np.asarray(values) / np.linalg.norm(values))


def log_area(d):
    return np.log(2) + d / 2 * np.log(np.pi) - gammaln(d / 2)


def uniform(z):
    return -log_area(len(z))


def power_spherical(loc, kappa):
    beta = (len(loc) - 1) / 2
    alpha = beta + kappa
    log_norm = (alpha + beta) * np.log(2) + beta * np.log(np.pi) + gammaln(alpha) - gammaln(alpha + beta)
    return lambda z: kappa * np.log1p(unit(loc) @ z) - log_norm


def von_mises_fisher(loc, kappa):
    return st.vonmises_fisher(unit(loc), kappa).logpdf


def _made(cls):
    return lambda loc, kappa: cls(loc / loc.norm(dim=-1, keepdim=True), kappa)


def _wide(cls):
    def wide(dtype):
        generator = torch.Generator().manual_seed(3)
        loc = torch.randn(6, 256, generator=generator, dtype=torch.float64)
        loc[1], loc[2] = 0.0, 0.0
        loc[1, 0], loc[2, 0] = 1.0, -1.0  # the poles of the reflection
        kappa = torch.tensor([0.0, 5.0, 5.0, 100.0, 1e4, 1e5], dtype=dtype)
        return [_made(cls)(loc.to(dtype), kappa)]

    return wide


LOCS = {2: (0.6, -1.1), 3: (-0.4, 0.8, 0.5)}
POINTS = {
    2: [(1.0, 0.0), (0.0, -1.0), unit((0.6, -1.1)), unit((-0.6, 1.09)), unit((0.61, -1.1))],
    3: [(0.0, 0.0, 1.0), (-1.0, 0.0, 0.0), unit((0.41, -0.8, -0.5)), unit((-0.4, 0.8, 0.51))],
}
FAMILIES = {
    "power-spherical": (distributions.PowerSpherical, power_spherical),
    "von-mises-fisher": (distributions.VonMisesFisher, von_mises_fisher),
}

DENSITIES = {
    **{
        f"hyperspherical-uniform, {d} coordinates": VectorDensityCase(
            distributions.HypersphericalUniform,
            lambda d=d: distributions.HypersphericalUniform(d, dtype=torch.float64),
            (),
            uniform,
            POINTS[d],
            GRIDS[d],
            lambda dtype: [distributions.HypersphericalUniform(256, dtype=dtype)],
        )
        for d in (2, 3)
    },
    **{
        f"{name}, {d} coordinates, concentration {kappa}": VectorDensityCase(
            cls, _made(cls), (LOCS[d], kappa), reference(LOCS[d], kappa), POINTS[d], GRIDS[d], _wide(cls)
        )
        for name, (cls, reference) in FAMILIES.items()
        for d in (2, 3)
        for kappa in (1.2, 4.0, 60.0)
    },
}

PRIORS = {
    "hyperspherical-uniform": VectorPriorCase(
        priors.HypersphericalUniform, lambda d: priors.HypersphericalUniform(d), uniform
    )
}


def _guide(cls, reference):
    return VectorGuideCase(
        cls,
        lambda d: cls(Linear(3), d),
        lambda out, z, d: reference(unit(out[:d]), np.sqrt(d) + d * softplus(out[d]))(z),
        lambda out, mean, d: unit(mean),
    )


GUIDES = {
    "power-spherical": _guide(guides.PowerSpherical, power_spherical),
    "von-mises-fisher": _guide(guides.VonMisesFisher, von_mises_fisher),
}


def _kl_to_uniform(reference):
    def kl(q, p):
        points, weights = GRIDS[q.event_shape[0]]()
        log_q = reference(q.loc.numpy(), q.concentration.item())(points.T if reference is power_spherical else points)
        return (weights * np.exp(log_q) * (log_q + log_area(q.event_shape[0]))).sum()

    return kl


def _pairs(cls):
    settings = [(d, kappa) for kappa in (1.0, 3.0, 20.0, 200.0) for d in (2, 3)]
    return lambda: [
        (cls(double(unit(LOCS[d])), double(kappa)), distributions.HypersphericalUniform(d, dtype=torch.float64))
        for d, kappa in settings
    ]


KLS = {
    f"{name} from hyperspherical-uniform": KLCase(_pairs(cls), _kl_to_uniform(reference))
    for name, (cls, reference) in FAMILIES.items()
}
