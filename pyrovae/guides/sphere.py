"""Guides on the unit sphere."""

from __future__ import annotations

import math

import pyro.distributions as dist
from pyro.distributions import constraints
from torch import Tensor, nn
from torch.nn import functional

from pyrovae.distributions import PowerSpherical as PowerSphericalDensity
from pyrovae.distributions import VonMisesFisher as VonMisesFisherDensity
from pyrovae.guides.base import Guide

__all__ = ["PowerSpherical", "VonMisesFisher"]


class _Spherical(Guide):
    """A direction and a concentration from the head."""

    def __init__(self, network: nn.Module, dim: int) -> None:
        if not isinstance(dim, int) or dim < 2:
            raise ValueError(f"dim must be 2 or more coordinates of a unit vector, got {dim!r}")
        super().__init__(network, dim, dim + 1)

    def parameters_of(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mean direction and the concentration of q(z|x)."""
        direction, raw = self.head(self.network(x)).split([self.dim, 1], -1)
        # without the floor q becomes uniform before the decoder has learned to read μ, and stays so
        concentration = math.sqrt(self.dim) + self.dim * functional.softplus(raw[..., 0])
        return functional.normalize(direction, dim=-1), concentration

    def encode(self, x: Tensor) -> Tensor:
        """The code of x: the mean direction, a unit vector as every z."""
        return self.parameters_of(x)[0]


class PowerSpherical(_Spherical):
    r"""Power spherical: :math:`q(z|x) \propto (1 + \mu(x)^T z)^{\kappa(x)}` on the unit sphere.

    :math:`\mu` is the normalised output of the head and :math:`\kappa = \sqrt D + D\,softplus(r)` that of one more
    number r: the mean of :math:`\mu^T z` depends on :math:`\kappa/D`, so that one r means one spread in every
    dimension. The floor :math:`\sqrt D` costs a third of a nat or more of KL from the uniform prior, at any D;
    without it the digits collapse onto the prior. The code is :math:`\mu`.

    Args:
        network: The trunk of the encoder.
        dim: Number of coordinates :math:`D \ge 2` of the unit vector z.

    Raises: ValueError if ``dim < 2``.
    References: De Cao and Aziz (2020), "The power spherical distribution".
    See also: :class:`pyrovae.priors.HypersphericalUniform`; the KL from it is exact.
    """

    support = constraints.sphere

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        return PowerSphericalDensity(*self.parameters_of(x))


class VonMisesFisher(_Spherical):
    r"""Von Mises-Fisher: :math:`q(z|x) \propto \exp(\kappa(x)\, \mu(x)^T z)` on the unit sphere.

    The head gives :math:`\mu` and :math:`\kappa` as that of :class:`PowerSpherical` does, whose draws cost less. The
    code is :math:`\mu`.

    Args:
        network: The trunk of the encoder.
        dim: Number of coordinates :math:`D \ge 2` of the unit vector z.

    Raises: ValueError if ``dim < 2``.
    References: Davidson, Falorsi, De Cao, Kipf and Tomczak (2018), "Hyperspherical variational auto-encoders", who keep
        :math:`\kappa` above 1 in every dimension.
    See also: :class:`pyrovae.priors.HypersphericalUniform`; the KL from it is exact.
    """

    support = constraints.sphere

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        return VonMisesFisherDensity(*self.parameters_of(x))
