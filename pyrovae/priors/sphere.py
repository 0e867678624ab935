"""The prior on the unit sphere."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor

from pyrovae.distributions import HypersphericalUniform as HypersphericalUniformDensity
from pyrovae.priors.base import Prior

__all__ = ["HypersphericalUniform"]


class HypersphericalUniform(Prior):
    r"""Uniform prior on the unit sphere: a code is a direction, and none is preferred.

    .. math:: p(z) = \frac{\Gamma(D/2)}{2\pi^{D/2}} , \qquad |z| = 1

    Args:
        dim: Number of coordinates :math:`D \ge 2` of the unit vector z; the sphere has one dimension less.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats, with respect to the area of the sphere.
    Raises: ValueError if ``dim < 2``.
    References: Davidson, Falorsi, De Cao, Kipf and Tomczak (2018), "Hyperspherical variational auto-encoders".
    See also: :class:`pyrovae.guides.PowerSpherical`, :class:`pyrovae.guides.VonMisesFisher`; both KLs are exact.
    """

    like: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        if not isinstance(dim, int) or dim < 2:
            raise ValueError(f"dim must be 2 or more coordinates of a unit vector, got {dim!r}")
        self.dim = dim
        self.register_buffer("like", torch.zeros(()), persistent=False)  # follows .to(device) and .double()

    def distribution(self) -> dist.TorchDistribution:
        return HypersphericalUniformDensity(self.dim, self.like.dtype, self.like.device)
