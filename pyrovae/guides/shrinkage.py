"""Guides of hierarchical shrinkage priors."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

from pyrovae.distributions import LogNormal as LogNormalDensity
from pyrovae.guides.base import Guide, positive

__all__ = ["RegularizedHorseshoe"]


class RegularizedHorseshoe(Guide):
    r"""Guide of the regularised horseshoe: a log-Normal local scale, and a Normal code in its units.

    .. math:: \log\lambda_i \sim N(\mu_i, \sigma_i^2) , \; z_i \mid \lambda_i \sim N(\lambda_i m_i, \lambda_i^2 s_i^2)

    that is :math:`z_i = \lambda_i (m_i + s_i \epsilon_i)`, the non-centred form: z follows λ as it does under the
    prior, so that the two need not be narrow together. The four numbers of each coordinate come from the head.
    ``encode`` gives the mean, :math:`E[z_i|x] = m_i\, e^{\mu_i + \sigma_i^2/2}`.

    Args:
        network: The trunk of the encoder.
        dim: Number of latent coordinates :math:`D`.
    """

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__(network, dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        local, loc, scale = self._factors(x)
        unit = pyro.sample("z_scale", local.to_event(1))
        return pyro.sample("z", dist.Normal(unit * loc, unit * scale).to_event(1))

    def encode(self, x: Tensor) -> Tensor:
        local, loc, _ = self._factors(x)
        return local.mean * loc

    def _factors(self, x: Tensor) -> tuple[LogNormalDensity, Tensor, Tensor]:
        log_loc, log_scale, loc, scale = self.head(self.network(x)).chunk(4, -1)
        return LogNormalDensity(log_loc, positive(log_scale)), loc, positive(scale)
