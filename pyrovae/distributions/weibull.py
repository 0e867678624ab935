"""The Weibull distribution, with draws that are positive and parameters that train."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from pyrovae.distributions.univariate import SCALAR, Shape, Univariate, exp_of_draw

__all__ = ["Weibull"]

EULER = 0.5772156649015329  # Euler's constant


class Weibull(Univariate):
    r"""Weibull distribution.

    .. math:: p(z) = \frac{k}{\lambda} \left(\frac{z}{\lambda}\right)^{k-1} e^{-(z/\lambda)^k} , \qquad
              \log z = \log\lambda + \frac{\log e}{k} , \quad e \sim Exp(1)

    torch's draws underflow to 0, which its own support excludes: 26 in a million at :math:`k = 0.1` in float32. torch's
    also keeps tensors computed from its parameters, so that a second backward pass through one instance fails.

    Args:
        scale: :math:`\lambda > 0`.
        concentration: :math:`k > 0`; 1 is the exponential distribution, below it the density has a pole at zero.
    """

    arg_constraints: ClassVar = {"scale": constraints.positive, "concentration": constraints.positive}
    support = constraints.positive
    scale: Tensor
    concentration: Tensor

    def __init__(self, scale: Tensor | float, concentration: Tensor | float, validate_args: bool | None = None) -> None:
        super().__init__(scale, concentration, validate_args=validate_args)

    def rsample(self, sample_shape: Shape = SCALAR) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        exponential = torch.empty(shape, dtype=self.scale.dtype, device=self.scale.device).exponential_()
        return exp_of_draw(self.scale.log() + exponential.log() / self.concentration)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        log_energy = self.concentration * (value.log() - self.scale.log())
        return self.concentration.log() + log_energy - value.log() - log_energy.exp()

    def cdf(self, value: Tensor) -> Tensor:
        return -torch.expm1(-((value / self.scale) ** self.concentration))

    def entropy(self) -> Tensor:
        return EULER * (1 - 1 / self.concentration) + self.scale.log() - self.concentration.log() + 1

    @property
    def mean(self) -> Tensor:
        return self.scale * torch.lgamma(1 + 1 / self.concentration).exp()

    @property
    def variance(self) -> Tensor:
        log_mean = torch.lgamma(1 + 1 / self.concentration)
        # as a product, which keeps its digits for large k: E z^2 - (E z)^2 = (E z)^2 (E z^2 / (E z)^2 - 1)
        return self.mean**2 * torch.expm1(torch.lgamma(1 + 2 / self.concentration) - 2 * log_mean)
