"""The prior whose codes are sparse and lose nothing of a Normal's."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor

from pyrovae.distributions.fan import Fan as FanDensity
from pyrovae.distributions.fan import planes_and_rays
from pyrovae.priors.base import Prior

__all__ = ["Fan"]


class Fan(Prior):
    r"""Fan prior: a standard Normal of D / K planes, each seen along K rays, of which two are on.

    .. math:: p(z) = \prod_{i} \frac{1}{2\pi} \exp\left(-\tfrac12 |s_i|^2\right) , \qquad
              s_i = \sum_k z_{ik} u_k , \qquad z_{ik} \ge 0

    as of :class:`pyrovae.distributions.Fan`. The share :math:`1 - 2/K` of every code is exactly zero, and each
    coordinate is on with probability 2/K, so that none can be on for all data. Which two rays are on is the angle of
    :math:`s_i`, one of K sectors, each of probability 1/K. The number of coordinates that are on is that of the prior
    and not one that is learned.

    Args:
        dim: Number of latent coordinates :math:`D`, a multiple of ``rays``.
        rays: :math:`K \ge 3`; None is the divisor of D nearest to 12.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats, with respect to the area of the planes.
    Raises: ValueError if ``dim < 3``, ``rays < 3`` or ``dim`` is not a multiple of ``rays``.
    See also: :class:`pyrovae.guides.Fan`.
    """

    like: Tensor

    def __init__(self, dim: int, rays: int | None = None) -> None:
        super().__init__()
        self.num_planes, self.rays = planes_and_rays(dim, rays)
        self.register_buffer("like", torch.zeros(()), persistent=False)  # follows .to(device) and .double()

    def distribution(self) -> dist.TorchDistribution:
        loc = self.like.new_zeros(2 * self.num_planes)
        return FanDensity(loc, torch.ones_like(loc), self.rays)
