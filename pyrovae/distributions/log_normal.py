"""The log-Normal distribution, with draws that are positive."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from pyrovae.distributions.univariate import SCALAR, Shape, Univariate, exp_of_draw

__all__ = ["LogNormal"]


class LogNormal(Univariate):
    r"""Log-Normal distribution: log z is Normal.

    .. math:: p(z) = \frac{1}{z\, s\sqrt{2\pi}} \exp\left(-\frac{(\log z - m)^2}{2 s^2}\right)

    torch's draws underflow to 0, where its log_prob is -inf, once :math:`m - 5 s` comes near -100 in float32. That is
    where a posterior goes that follows a Gamma prior of small concentration.

    Args:
        loc: :math:`m`, the mean of log z.
        scale: :math:`s > 0`, the standard deviation of log z; the mean of z is :math:`e^{m + s^2/2}`.
    """

    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.positive
    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor | float, scale: Tensor | float, validate_args: bool | None = None) -> None:
        super().__init__(loc, scale, validate_args=validate_args)

    def rsample(self, sample_shape: Shape = SCALAR) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        return exp_of_draw(self.loc + self.scale * torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        log_z = value.log()
        return -0.5 * ((log_z - self.loc) / self.scale) ** 2 - log_z - self.scale.log() - 0.5 * math.log(2 * math.pi)

    def cdf(self, value: Tensor) -> Tensor:
        return torch.special.ndtr((value.log() - self.loc) / self.scale)

    def entropy(self) -> Tensor:
        return self.loc + self.scale.log() + 0.5 * math.log(2 * math.pi) + 0.5

    @property
    def mean(self) -> Tensor:
        return (self.loc + 0.5 * self.scale**2).exp()

    @property
    def variance(self) -> Tensor:
        return torch.expm1(self.scale**2) * self.mean**2
