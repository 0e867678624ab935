"""The guide of the fan prior."""

from __future__ import annotations

import pyro.distributions as dist
from torch import Tensor, nn

from pyrovae.distributions.fan import Fan as FanDensity
from pyrovae.distributions.fan import FanSupport, fan_code, planes_and_rays
from pyrovae.guides.base import Guide, positive

__all__ = ["Fan"]


class Fan(Guide):
    r"""Independent Normals of D / K planes, each seen along K rays: :class:`pyrovae.distributions.Fan`.

    Location and scale of the two numbers of each plane are the head's. The gradient of a draw is pathwise and the KL
    from the prior that of the Normals, with any objective.

    Args:
        network: The trunk of the encoder.
        dim: Number of latent coordinates :math:`D`, a multiple of ``rays``.
        rays: :math:`K \ge 3`, that of the prior; None is the divisor of D nearest to 12.

    The code of x is that of the locations: exactly two coordinates of each plane are not zero.
    """

    support = FanSupport()

    def __init__(self, network: nn.Module, dim: int, rays: int | None = None) -> None:
        num_planes, rays = planes_and_rays(dim, rays)
        super().__init__(network, dim, 4 * num_planes)
        self.rays, self.support = rays, FanSupport(rays)

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        loc, raw = self.head(self.network(x)).chunk(2, -1)
        return FanDensity(loc, positive(raw), self.rays)

    def encode(self, x: Tensor) -> Tensor:
        return fan_code(self.head(self.network(x)).chunk(2, -1)[0], self.rays)
