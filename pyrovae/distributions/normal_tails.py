r"""The two tails of a Normal, moved together: what a soft threshold leaves of it; and the KLs from and to them.

Everything here is in terms of a standard Normal's tail beyond a, with its hazard

.. math:: h(a) = \frac{\phi(a)}{\Phi(-a)} , \qquad a + \frac{1}{a +} \frac{2}{a +} \frac{3}{a +} \dots \quad (a > 0)

whose continued fraction (Laplace, 1805) has no cancellation where :math:`h(a) - a \approx 1/a` has.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Laplace, Normal, constraints, register_kl

from pyrovae.distributions.univariate import SCALAR, Shape, Symmetric

__all__ = ["NormalTails", "draw_excess", "hazard_slope", "log_hazard", "normal_tail"]

HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)
HALF_LOG_2_OVER_PI = 0.5 * math.log(2 / math.pi)
FAR = 5.0  # the continued fraction takes over from here, where TERMS of it leave an error of 1e-9
TERMS = 14
NEWTON_STEPS = 4  # the error is then 1e-14


def log_hazard(a: Tensor) -> Tensor:
    r"""log h(a) for any a; its gradient h - a has a relative error of a² roundings where a is large."""
    is_above = a >= 0
    above, below = torch.where(is_above, a, 0.0), torch.where(is_above, 0.0, a)
    return torch.where(
        is_above,
        HALF_LOG_2_OVER_PI - torch.special.erfcx(above / math.sqrt(2)).log(),
        -0.5 * below**2 - HALF_LOG_2_PI - torch.log1p(-0.5 * torch.erfc(-below / math.sqrt(2))),
    )


def normal_tail(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""log h(a), and E[t] = h - a and E[t²] = 1 - a(h - a) of the excess t = e - a of a Normal e > a; for any a."""
    is_far = a > FAR
    far, near = torch.where(is_far, a, FAR), torch.where(is_far, FAR, a)
    fraction = torch.zeros_like(a)
    for k in range(TERMS, 1, -1):
        fraction = k / (far + fraction)
    far_mean = 1 / (far + fraction)
    near_log = log_hazard(near)
    near_mean = near_log.exp() - near
    return (
        torch.where(is_far, (far + far_mean).log(), near_log),
        torch.where(is_far, far_mean, near_mean),
        torch.where(is_far, fraction * far_mean, 1 - near * near_mean),
    )


def hazard_slope(a: Tensor, t: Tensor) -> Tensor:
    r"""dt/da at a fixed probability to be beyond t: :math:`h(a)/h(a + t) - 1`, from -1 to 0."""
    return (log_hazard(a) - log_hazard(a + t)).expm1()


class NormalTails(Symmetric):
    r"""The tails of :math:`N(\mu, \sigma^2)` beyond :math:`\mu \pm \lambda`, each moved by λ to meet at μ.

    .. math:: p(z) = \frac{1}{2\sigma \Phi(-a)}\, \phi\left(\frac{|z - \mu|}{\sigma} + a\right) , \qquad
              a = \lambda/\sigma

    It is the Normal at λ = 0, and close to a Laplace with scale σ/a for large a. Draws are by the inverse cdf, with the
    gradient of that map in all three parameters.

    Args:
        loc: :math:`\mu`.
        scale: :math:`\sigma > 0`.
        threshold: :math:`\lambda \ge 0`.

    Units: log_prob in nats.
    References: Fallah and Rozell (2022), "Variational sparse coding with learned thresholding", whose thresholded
        Normal has this law where it is not zero.
    """

    arg_constraints: ClassVar = {
        "loc": constraints.real,
        "scale": constraints.positive,
        "threshold": constraints.nonnegative,
    }
    scale: Tensor
    threshold: Tensor

    def __init__(
        self,
        loc: Tensor | float,
        scale: Tensor | float,
        threshold: Tensor | float,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(loc, scale, threshold, validate_args=validate_args)

    def rsample(self, sample_shape: Shape = SCALAR) -> Tensor:
        a = (self.threshold / self.scale).expand(self._extended_shape(torch.Size(sample_shape)))
        with torch.no_grad():
            t = draw_excess(a)
            sign = torch.where(torch.rand_like(a) < 0.5, -1.0, 1.0).to(a)
        if torch.is_grad_enabled() and a.requires_grad:
            t = t + hazard_slope(a.detach(), t) * (a - a.detach())
        return self.loc + sign * self.scale * t

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        a, t = self.threshold / self.scale, (value - self.loc).abs() / self.scale
        return normal_tail(a)[0] - (2 * self.scale).log() - t * (0.5 * t + a)

    @property
    def variance(self) -> Tensor:
        return self.scale**2 * normal_tail(self.threshold / self.scale)[2]

    def entropy(self) -> Tensor:
        log_h, _, second = normal_tail(self.threshold / self.scale)
        return self._entropy(log_h, second)

    def _entropy(self, log_h: Tensor, second: Tensor) -> Tensor:
        return (2 * self.scale).log() - log_h + 1 - 0.5 * second


def draw_excess(a: Tensor) -> Tensor:
    r"""t with :math:`-\log P(e > a + t \mid e > a)` exponential, for a ≥ 0, by Newton's method.

    The function is convex, so from an upper bound of its root the steps come down to it.
    """
    tiny = torch.finfo(a.dtype).tiny
    e = -torch.rand_like(a).clamp(min=tiny).log()
    at_a = torch.special.erfcx(a / math.sqrt(2))
    t = torch.minimum(2 * e / (a + (a**2 + 2 * e).sqrt()), e * at_a * math.sqrt(math.pi / 2))
    for _ in range(NEWTON_STEPS):
        at_t = torch.special.erfcx((a + t) / math.sqrt(2))
        beyond = t * (0.5 * t + a) + (at_a / at_t).log()
        t = (t - (beyond - e) * at_t * math.sqrt(math.pi / 2)).clamp(min=0.0)
    return t


@register_kl(NormalTails, Normal)
def _kl_tails_normal(q: NormalTails, p: Normal) -> Tensor:
    entropy, square, _ = _moments(q, p.loc)
    return HALF_LOG_2_PI + p.scale.log() + square / (2 * p.scale**2) - entropy


@register_kl(NormalTails, Laplace)
def _kl_tails_laplace(q: NormalTails, p: Laplace) -> Tensor:
    entropy, _, distance = _moments(q, p.loc)
    return (2 * p.scale).log() + distance / p.scale - entropy


@register_kl(NormalTails, NormalTails)
@register_kl(Normal, NormalTails)
@register_kl(Laplace, NormalTails)
def _kl_to_tails(q: Any, p: NormalTails) -> Tensor:
    a = p.threshold / p.scale
    entropy, square, distance = _moments(q, p.loc)
    return (2 * p.scale).log() - log_hazard(a) + square / (2 * p.scale**2) + a * distance / p.scale - entropy


def _moments(q: Any, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Entropy, :math:`E(z - m)^2` and :math:`E|z - m|`.

    The last is, with :math:`c = |d|/\sigma` and :math:`d = \mu - m`, for the tails
    :math:`|d| + \sigma\, P(t > c)\, (h(a + c) - a - c)`.
    """
    d = (q.loc - m).abs()
    c = d / q.scale
    if isinstance(q, Normal):
        normal = q.scale * math.sqrt(2 / math.pi) * torch.exp(-0.5 * c**2)
        return q.entropy(), q.variance + d**2, normal + d * torch.erf(c / math.sqrt(2))
    if isinstance(q, Laplace):
        return q.entropy(), q.variance + d**2, d + q.scale * torch.exp(-c)
    a = q.threshold / q.scale
    log_h, mean, second = normal_tail(torch.stack(torch.broadcast_tensors(a + c, a)))
    entropy, square = q._entropy(log_h[1], second[1]), q.scale**2 * second[1] + d**2
    beyond = torch.exp(log_h[1] - log_h[0] - c * (0.5 * c + a))
    return entropy, square, d + q.scale * mean[0] * beyond
