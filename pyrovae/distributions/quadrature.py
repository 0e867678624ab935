r"""KL divergences of one-dimensional families by quadrature, where no closed form is known.

.. math:: KL(q \,\|\, p) = \int q \log\frac{q}{p}\, dz
          = \int_0^1 \frac{q(z)}{r(z)} \log\frac{q(z)}{p(z)}\, du , \qquad z = F_r^{-1}(u)

with a reference law :math:`r` of q's location and scale and of tails at least as heavy: the Normal's own, a two-sided
Weibull for Laplaces, logistics and generalised Normals, a Laplace of the same peak for the tails of a Normal, Student's
t at two degrees of freedom for the rest. The unit interval is cut where z is the location of q and where it is that of
p, since either density may have a corner or a pole there, and tanh-sinh quadrature (Takahasi and Mori, 1974) sums each
piece: its nodes crowd doubly exponentially at both ends, so corners, poles, and a scale of p a thousand times smaller
than q's cost no accuracy. With ``NODES`` nodes per piece the relative error is below 1e-6 in float64 for KLs up to 1e4
nats.

The nodes z are constants: gradients flow through both log-densities, not through z, since p may have a pole, next to
which the derivative of log p in z is noise.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Laplace, Normal

from pyrovae.distributions.generalized_normal import GeneralizedNormal
from pyrovae.distributions.logistic import Logistic
from pyrovae.distributions.normal_tails import NormalTails

__all__ = ["kl_by_quadrature"]

NODES = 45  # per piece
NODES_GENERALIZED = 91  # for a generalised Normal q, whose reference is not of its own shape
EDGE = 3.05  # the tanh-sinh sum runs from -EDGE to EDGE, 4e-15 away from the ends of a piece
MAX_POWER = 1.0  # above 1 the Weibull is zero at its centre, where q is not, and float32 has no nodes that bear it


class _NormalReference:
    cdf = staticmethod(torch.special.ndtr)
    quantile = staticmethod(torch.special.ndtri)

    @staticmethod
    def log_prob(e: Tensor) -> Tensor:
        return -0.5 * e**2 - 0.5 * math.log(2 * math.pi)


class _StudentT2Reference:
    @staticmethod
    def cdf(e: Tensor) -> Tensor:
        lower = 1 / (torch.sqrt(2 + e**2) * (torch.sqrt(2 + e**2) + e.abs()))  # no cancellation in the tail
        return torch.where(e < 0, lower, 1 - lower)

    @staticmethod
    def quantile(u: Tensor) -> Tensor:
        return (2 * u - 1) / torch.sqrt(2 * u * (1 - u))

    @staticmethod
    def log_prob(e: Tensor) -> Tensor:
        return -1.5 * torch.log(2 + e**2)


class _WeibullReference:
    """Two-sided Weibull: |e|^c is exponential, so that c is the power of the tail. At 1 it is Laplace's law."""

    def __init__(self, power: Tensor | float) -> None:
        self.power = power

    def cdf(self, e: Tensor) -> Tensor:
        lower = 0.5 * torch.exp(-(e.abs() ** self.power))
        return torch.where(e < 0, lower, 1 - lower)

    def quantile(self, u: Tensor) -> Tensor:
        tiny = torch.finfo(u.dtype).tiny
        return -((-torch.log(2 * u)).clamp(min=tiny) ** (1 / self.power))

    def log_prob(self, e: Tensor) -> Tensor:
        magnitude = e.abs()
        return math.log(0.5) + (self.power * magnitude ** (self.power - 1)).log() - magnitude**self.power


def kl_by_quadrature(q: Any, p: Any, nodes: int = NODES) -> Tensor:
    """KL(q || p) for q with ``loc`` and ``scale`` and p with ``loc``, on the real line; batch shapes broadcast.

    ``nodes`` is the least number of nodes per piece: a p with more structure than a corner or a pole needs more.

    Units: nats. See the head of this file for the formula and the error.
    """
    reference = _reference(q)
    width = 0.5 * torch.exp(-q.log_prob(q.loc)) if isinstance(q, NormalTails) else q.scale
    loc, scale, corner = torch.broadcast_tensors(q.loc, width, p.loc)
    if isinstance(q, GeneralizedNormal):
        nodes = max(nodes, NODES_GENERALIZED)
    abscissae, weights = (v.to(loc).reshape(-1, *[1] * loc.dim()) for v in _tanh_sinh(nodes, EDGE))
    with torch.no_grad():
        e = (corner - loc) / scale
        below, above = (reference.cdf(v).clamp(max=0.5) for v in (e, -e))  # mass outside each location
        between = 1 - below - above
        tiny = torch.finfo(loc.dtype).tiny
        u, v = below + between * abscissae, above + between * abscissae.flip(0)  # u + v = 1
        node = torch.cat(
            [
                reference.quantile((below * abscissae).clamp(min=tiny)),
                torch.where(u <= v, reference.quantile(u.clamp(tiny, 0.5)), -reference.quantile(v.clamp(tiny, 0.5))),
                -reference.quantile((above * abscissae).clamp(min=tiny)),
            ]
        )
        weight = torch.cat([below * weights, between * weights, above * weights])
        z = loc + scale * node
        log_reference = reference.log_prob(node) - scale.log()
    log_q = q.log_prob(z)
    ratio = torch.exp(log_q - log_reference)
    return (weight * ratio * (log_q - p.log_prob(z))).sum(0)


def _reference(q: Any) -> Any:
    if isinstance(q, Normal):
        return _NormalReference
    if isinstance(q, (Laplace, Logistic, NormalTails)):
        return _WeibullReference(1.0)
    if isinstance(q, GeneralizedNormal):
        return _WeibullReference(q.power.detach().clamp(max=MAX_POWER))
    return _StudentT2Reference


@functools.lru_cache
def _tanh_sinh(num: int, edge: float) -> tuple[Tensor, Tensor]:
    """Nodes in (0, 1), symmetric about 1/2, and their weights."""
    t = torch.linspace(-edge, edge, num, dtype=torch.float64)
    s = math.pi * torch.sinh(t)
    weights = (t[1] - t[0]) * math.pi * torch.cosh(t) * torch.sigmoid(s) * torch.sigmoid(-s)
    return torch.sigmoid(s), weights
