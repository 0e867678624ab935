"""The sparse mixture: a narrow and a wide Normal around zero."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from pyrovae.distributions.univariate import SCALAR, Shape, Univariate

__all__ = ["SparseMixture"]


class SparseMixture(Univariate):
    r"""Mixture of a narrow and a wide Normal: a continuous spike and slab.

    .. math:: p(z) = (1 - a)\, N(z; 0, s_0^2) + a\, N(z; 0, s_1^2)

    Draws are reparametrised implicitly, in every parameter: :math:`dz/d\theta = -\partial_\theta F(z) / p(z)`. torch's
    ``MixtureSameFamily`` has no ``rsample``.

    Args:
        active: :math:`a`, the probability of the wide Normal, between 0 and 1.
        narrow: :math:`s_0 > 0`.
        wide: :math:`s_1 > 0`.

    References: Figurnov, Mohamed and Mnih (2018), "Implicit reparameterization gradients", section 4.
    """

    arg_constraints: ClassVar = {
        "active": constraints.unit_interval,
        "narrow": constraints.positive,
        "wide": constraints.positive,
    }
    active: Tensor
    narrow: Tensor
    wide: Tensor

    def __init__(
        self,
        active: Tensor | float,
        narrow: Tensor | float,
        wide: Tensor | float,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(active, narrow, wide, validate_args=validate_args)

    def rsample(self, sample_shape: Shape = SCALAR) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            scale = torch.where(torch.rand(shape, device=self.active.device) < self.active, self.wide, self.narrow)
            z = scale * torch.randn(shape, dtype=scale.dtype, device=scale.device)
        if not (torch.is_grad_enabled() and any(v.requires_grad for v in (self.active, self.narrow, self.wide))):
            return z
        below, density = self.cdf(z), self.log_prob(z).exp().detach()
        return z - (below - below.detach()) / density

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return torch.logaddexp(
            torch.log1p(-self.active) + _log_normal(value, self.narrow),
            self.active.log() + _log_normal(value, self.wide),
        )

    def cdf(self, value: Tensor) -> Tensor:
        narrow, wide = (torch.special.ndtr(value / scale) for scale in (self.narrow, self.wide))
        return (1 - self.active) * narrow + self.active * wide

    @property
    def loc(self) -> Tensor:
        return torch.zeros_like(self.active)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return (1 - self.active) * self.narrow**2 + self.active * self.wide**2


def _log_normal(value: Tensor, scale: Tensor) -> Tensor:
    return -0.5 * (value / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)
