"""The horseshoe: a Normal whose standard deviation is half-Cauchy, with that integrated out."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from pyrovae.distributions.expint import log_scaled_e1
from pyrovae.distributions.univariate import SCALAR, Shape, Univariate

__all__ = ["Horseshoe"]


class Horseshoe(Univariate):
    r"""Horseshoe distribution: a pole at zero and the tails of a Cauchy.

    .. math:: z \mid \lambda \sim N(0, \tau^2\lambda^2) , \quad \lambda \sim C^+(0, 1) , \qquad
              p(z) = \frac{1}{\sqrt{2\pi^3}\, \tau}\, e^r E_1(r) , \quad r = \frac{z^2}{2\tau^2}

    The density is infinite at zero, where it grows as :math:`-2 \log|z|`. So slow a pole has no mass to speak of in a
    float's width: a value of exactly 0, which a Normal guide draws once in 2^24 times in float32, stands for every
    number that rounds to it and has the log-density of the smallest normal float, about 3.1 - log τ in float32, with a
    gradient of zero. No moment exists.

    Args:
        scale: :math:`\tau > 0`; half of the mass lies within about 0.6 τ of zero.

    References: Carvalho, Polson and Scott (2010), "The horseshoe estimator for sparse signals", whose bounds on the
        marginal, at τ = 1, are K/2 log(1 + 4/z²) < p(z) < K log(1 + 2/z²) with K = 1/sqrt(2π³).
    """

    arg_constraints: ClassVar = {"scale": constraints.positive}
    scale: Tensor

    def __init__(self, scale: Tensor | float, validate_args: bool | None = None) -> None:
        super().__init__(scale, validate_args=validate_args)

    def rsample(self, sample_shape: Shape = SCALAR) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        normal = torch.randn(shape, dtype=self.scale.dtype, device=self.scale.device)
        # tan(u π / 2), u < 1, is at most 3e7 in float32 and 1e16 in float64
        local = torch.tan(torch.rand_like(normal) * (math.pi / 2)).abs()
        return self.scale * local * normal

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        log_y = value.abs().clamp(min=torch.finfo(value.dtype).tiny).log() - self.scale.log()
        return log_scaled_e1(2 * log_y - math.log(2)) - self.scale.log() - 0.5 * math.log(2 * math.pi**3)

    @property
    def loc(self) -> Tensor:
        return torch.zeros_like(self.scale)

    @property
    def mean(self) -> Tensor:
        return torch.full_like(self.scale, torch.nan)

    @property
    def variance(self) -> Tensor:
        return torch.full_like(self.scale, torch.inf)
