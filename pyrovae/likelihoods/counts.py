"""Counts."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn import functional

from pyrovae.likelihoods.base import Likelihood, event_dim, learned_or_fixed

__all__ = ["NegativeBinomial", "Poisson"]

RATE_FLOOR = 1e-8


class Poisson(Likelihood):
    r"""Counts: :math:`p(x|z) = \prod_i r_i^{x_i} e^{-r_i} / x_i!` with rate
    :math:`r = softplus(f(z)) + 10^{-8}`.

    The softplus grows linearly where an exponential overflows; the constant keeps log r finite where it underflows.
    """

    support = constraints.nonnegative_integer
    hint = "it takes counts 0, 1, 2, …"

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        out = self.output(z)
        return dist.Poisson(functional.softplus(out) + RATE_FLOOR).to_event(event_dim(out, z))


class NegativeBinomial(Likelihood):
    r"""Counts more spread than Poisson's: mean :math:`m = softplus(f(z)) + 10^{-8}`, variance
    :math:`m + m^2 / k`.

    .. math:: p(x|z) = \prod_i \frac{\Gamma(x_i + k_i)}{x_i!\,\Gamma(k_i)}
              \left(\frac{k_i}{k_i + m_i}\right)^{k_i} \left(\frac{m_i}{k_i + m_i}\right)^{x_i}

    Args:
        network: Gives :math:`f`.
        total_count: :math:`k`: a number (fixed), ``"shared"`` or ``"per-pixel"`` (learned), as ``scale`` of
            :class:`Normal`.
        floor: Lower end of a learned ``total_count``.
    """

    support = constraints.nonnegative_integer
    hint = "it takes counts 0, 1, 2, …"

    def __init__(self, network: nn.Module, total_count: float | str = "shared", floor: float = 0.01) -> None:
        super().__init__(network)
        self.total_count = learned_or_fixed("total_count", total_count, floor, network)

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        out = self.output(z)
        k = self.total_count()
        logits = torch.log(functional.softplus(out) + RATE_FLOOR) - torch.log(k)  # torch: mean = k exp(logits)
        return dist.NegativeBinomial(k, logits=logits).to_event(event_dim(out, z))
