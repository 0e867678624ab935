"""The generalised Normal: Laplace at power 1, Normal at power 2, and whatever lies between and beyond."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from pyrovae.distributions.univariate import SCALAR, Shape, Symmetric

__all__ = ["GeneralizedNormal"]


class GeneralizedNormal(Symmetric):
    r"""Generalised Normal (exponential power) distribution.

    .. math:: p(z) = \frac{p}{2\alpha\,\Gamma(1/p)} \exp\left(-\left|\frac{z-\mu}{\alpha}\right|^p\right)

    Args:
        loc: :math:`\mu`, the mean and median.
        scale: :math:`\alpha > 0`; the variance is :math:`\alpha^2\,\Gamma(3/p) / \Gamma(1/p)`, so that power 2 is the
            Normal of standard deviation :math:`\alpha/\sqrt 2`.
        power: :math:`p > 0`; below 1 the density has a cusp at the mean and heavy tails.

    References: Nadarajah (2005), "A generalized normal distribution", eqs. 1, 9 and 13; draws as in Nardon and Pianca
        (2009), :math:`|z-\mu| = \alpha\, G^{1/p}` with :math:`G \sim Gamma(1/p, 1)`, whose implicit gradient torch has.
    """

    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive, "power": constraints.positive}
    loc: Tensor
    scale: Tensor
    power: Tensor

    def __init__(
        self, loc: Tensor | float, scale: Tensor | float, power: Tensor | float, validate_args: bool | None = None
    ) -> None:
        super().__init__(loc, scale, power, validate_args=validate_args)

    def rsample(self, sample_shape: Shape = SCALAR) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        concentration = (1 / self.power).expand(shape)
        magnitude = torch._standard_gamma(concentration) ** concentration
        sign = torch.randint(0, 2, shape, device=self.loc.device, dtype=self.loc.dtype) * 2 - 1
        return self.loc + self.scale * sign * magnitude

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        magnitude = ((value - self.loc) / self.scale).abs()
        at_loc = magnitude == 0  # where d|y|^p/dy has no value for p <= 1: its symmetric mean, 0
        energy = torch.where(at_loc, 0.0, torch.where(at_loc, 1.0, magnitude) ** self.power)
        return -energy - self._log_normalizer()

    def cdf(self, value: Tensor) -> Tensor:
        y = (value - self.loc) / self.scale
        return 0.5 + 0.5 * y.sign() * torch.special.gammainc(1 / self.power, y.abs() ** self.power)

    def entropy(self) -> Tensor:
        return 1 / self.power + self._log_normalizer()

    def _log_normalizer(self) -> Tensor:
        return torch.lgamma(1 + 1 / self.power) + torch.log(2 * self.scale)

    @property
    def variance(self) -> Tensor:
        return self.scale**2 * torch.exp(torch.lgamma(3 / self.power) - torch.lgamma(1 / self.power))
