"""Rows of the fan, whose reference goes by angles: arctan2 finds the sector, and a solve of two equations the code."""

from __future__ import annotations

import functools

import numpy as np
import scipy.stats as st
import torch

from cases.core import VectorDensityCase, VectorPriorCase
from pyrovae import distributions, priors


def directions(rays):
    angle = 2 * np.pi * np.arange(rays) / rays
    return np.stack([np.cos(angle), np.sin(angle)], -1)


def code(s, rays):
    """The code of one plane: the sector that holds s, then two equations."""
    u = directions(rays)
    k = int(np.arctan2(s[1], s[0]) % (2 * np.pi) // (2 * np.pi / rays)) % rays
    pair = [k, (k + 1) % rays]
    z = np.zeros(rays)
    z[pair] = np.linalg.solve(u[pair].T, s)
    return z


def normal(loc, scale):
    """Of one plane; of several that are standard Normal, plane by plane."""
    density = st.multivariate_normal(loc, np.diag(np.square(scale)))
    return lambda z: density.logpdf(z @ directions(len(z)))


@functools.lru_cache
def plane(rays, num=40):
    """Gauss-Legendre points of each sector, by angle and radius: no node lies on a ray, where the code has a kink."""
    x, weight = np.polynomial.legendre.leggauss(num)
    t, r = (x + 1) * np.pi / rays, (x + 1) * 5
    areas = (weight * np.pi / rays)[:, None] * weight * 5 * r
    points, weights = [], []
    for k in range(rays):
        angle = t + 2 * np.pi * k / rays
        points += [code(length * np.array([np.cos(a), np.sin(a)]), rays) for a in angle for length in r]
        weights.append(areas.reshape(-1))
    return np.stack(points), np.concatenate(weights)


def _wide(dtype):
    loc = torch.linspace(-3, 3, 64, dtype=dtype)
    return [distributions.Fan(loc, torch.logspace(-2, 1, 64, dtype=dtype), 8)]


POINTS = [(0.7, 0.2), (-1.0, 0.4), (-0.3, -2.0)]
DENSITIES = {
    f"fan, {rays} rays": VectorDensityCase(
        distributions.Fan,
        lambda loc, scale, rays=rays: distributions.Fan(loc, scale, rays),
        ((0.3, -0.5), (0.8, 0.6)),
        normal((0.3, -0.5), (0.8, 0.6)),
        [tuple(code(point, rays)) for point in POINTS],
        functools.partial(plane, rays),
        _wide,
    )
    for rays in (3, 4, 7)
}
PRIORS = {"fan": VectorPriorCase(priors.Fan, lambda d: priors.Fan(d), normal((0.0, 0.0), (1.0, 1.0)))}
