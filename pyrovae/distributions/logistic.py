"""The logistic distribution, with draws that are finite."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn import functional

from pyrovae.distributions.univariate import SCALAR, Shape, Symmetric

__all__ = ["Logistic", "inside_unit_interval"]


class Logistic(Symmetric):
    r"""Logistic distribution: a Normal's shape with a Laplace's tails.

    .. math:: p(z) = \frac{e^{-y}}{s\,(1 + e^{-y})^2} , \qquad y = \frac{z-\mu}{s}

    Pyro's own draws :math:`\log u - \log(1-u)`, which is -inf once in :math:`2^{24}` float32 draws. Here the sign and
    the magnitude :math:`|y| = \log(2/u - 1)`, :math:`u \in (0, 1]`, are drawn apart, so every draw is finite and the
    two tails are equally fine.

    Args:
        loc: :math:`\mu`, the mean and median.
        scale: :math:`s > 0`; the standard deviation is :math:`\pi s / \sqrt 3`.
    """

    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive}
    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor | float, scale: Tensor | float, validate_args: bool | None = None) -> None:
        super().__init__(loc, scale, validate_args=validate_args)

    def rsample(self, sample_shape: Shape = SCALAR) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        u = 1 - torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
        sign = torch.randint(0, 2, shape, dtype=self.loc.dtype, device=self.loc.device) * 2 - 1
        return self.loc + self.scale * sign * torch.log(2 / u - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        y = ((value - self.loc) / self.scale).abs()
        return -y - 2 * functional.softplus(-y) - torch.log(self.scale)

    def cdf(self, value: Tensor) -> Tensor:
        return torch.sigmoid((value - self.loc) / self.scale)

    def icdf(self, value: Tensor) -> Tensor:
        return self.loc + self.scale * torch.logit(value)

    def entropy(self) -> Tensor:
        return torch.log(self.scale) + 2

    @property
    def variance(self) -> Tensor:
        return (math.pi * self.scale) ** 2 / 3


def inside_unit_interval(logit: Tensor) -> Tensor:
    """The logistic function, and where it rounds to 0 or 1 the float next to that, without gradient."""
    info = torch.finfo(logit.dtype)
    return torch.sigmoid(logit).clamp(info.tiny, 1 - info.eps / 2)
