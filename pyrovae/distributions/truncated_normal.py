"""The Normal restricted to the half line, and the KLs between it and other densities there."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Exponential, Gamma, constraints, register_kl
from torch.special import log_ndtr, ndtr, ndtri

from pyrovae.distributions.normal_tails import HALF_LOG_2_PI, draw_excess, hazard_slope, normal_tail
from pyrovae.distributions.univariate import SCALAR, Shape, Univariate

__all__ = ["TruncatedNormal"]


class TruncatedNormal(Univariate):
    r"""A Normal, given that it is positive.

    .. math:: p(z) = \frac{1}{\sigma\, \Phi(\mu/\sigma)}\, \phi\left(\frac{z - \mu}{\sigma}\right) \quad (z > 0)

    It is the half-Normal at μ = 0, and close to an exponential with mean σ²/|μ| for :math:`\mu \ll -\sigma`. Draws are
    by the inverse cdf, with the gradient of that map in both parameters; log-density, moments and entropy are right to
    rounding for any :math:`\mu/\sigma`.

    Args:
        loc: :math:`\mu`, any number: the mean only of the Normal that is restricted.
        scale: :math:`\sigma > 0`.

    Units: log_prob in nats.
    See also: :class:`pyrovae.distributions.RectifiedNormal`, which has an atom at zero instead.
    """

    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.positive
    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor | float, scale: Tensor | float, validate_args: bool | None = None) -> None:
        super().__init__(loc, scale, validate_args=validate_args)

    def rsample(self, sample_shape: Shape = SCALAR) -> Tensor:
        a = (-self.loc / self.scale).expand(self._extended_shape(torch.Size(sample_shape)))
        finfo = torch.finfo(a.dtype)
        with torch.no_grad():
            far = draw_excess(a.clamp(min=0.0))
            above = torch.rand_like(a) * ndtr(-a)  # the probability to be above the draw, of the whole Normal
            near = -ndtri(above.clamp(finfo.tiny, 1 - finfo.eps)) - a
            t = torch.where(a > 0, far, near)
        if torch.is_grad_enabled() and a.requires_grad:
            t = t + hazard_slope(a.detach(), t) * (a - a.detach())
        return (self.scale * t).clamp(min=finfo.tiny)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        a, t = -self.loc / self.scale, value / self.scale
        log_h, _, _ = normal_tail(a)
        near = -0.5 * (t + a).square() - HALF_LOG_2_PI - log_ndtr(-a)
        return torch.where(a > 0, log_h - t * (0.5 * t + a), near) - self.scale.log()

    @property
    def mean(self) -> Tensor:
        return self.scale * normal_tail(-self.loc / self.scale)[1]

    @property
    def variance(self) -> Tensor:
        a = -self.loc / self.scale
        log_h, first, second = normal_tail(a)
        return self.scale.square() * torch.where(a > 0, second - first.square(), 1 - log_h.exp() * first)

    def entropy(self) -> Tensor:
        a = -self.loc / self.scale
        log_h, first, _ = normal_tail(a)
        near = HALF_LOG_2_PI + log_ndtr(-a) + 0.5 + 0.5 * a * log_h.clamp(max=0.0).exp()
        return self.scale.log() + torch.where(a > 0, 0.5 + 0.5 * a * first - log_h, near)


@register_kl(TruncatedNormal, TruncatedNormal)
@register_kl(Gamma, TruncatedNormal)
def _kl_to_truncated_normal(q: Any, p: TruncatedNormal) -> Tensor:
    """-H(q) - E[log p], whose two forms are those of ``log_prob``."""
    a, mean, variance = -p.loc / p.scale, q.mean / p.scale, q.variance / p.scale.square()
    far = 0.5 * (variance + mean.square()) + a * mean - normal_tail(a)[0]
    near = 0.5 * (variance + (mean + a).square()) + HALF_LOG_2_PI + log_ndtr(-a)
    return torch.where(a > 0, far, near) + p.scale.log() - q.entropy()


@register_kl(TruncatedNormal, Exponential)
def _kl_truncated_normal_exponential(q: TruncatedNormal, p: Exponential) -> Tensor:
    return p.rate * q.mean - p.rate.log() - q.entropy()
