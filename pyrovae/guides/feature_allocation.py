"""The guide of priors whose activities are shared by all data."""

from __future__ import annotations

import math

import pyro
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from pyrovae.distributions import Kumaraswamy
from pyrovae.distributions.unit_interval import log1mexp
from pyrovae.guides.exact_zeros import SpikeSlab

__all__ = ["BetaSpikeSlab"]

PACE = 10.0  # Adam moves all parameters at one pace, and these have further to go than weights
NARROWEST = 80.0  # b is finite in float32


class BetaSpikeSlab(SpikeSlab):
    r"""Spikes and slabs from the head, and a Kumaraswamy law of each coordinate of ``"z_active"`` for all data.

    .. math:: q(v, z|x) = \prod_k Kumaraswamy(v_k; a_k, b_k) \; q(z_k|x) , \qquad
              b_k = \frac{\log 2}{-\log(1 - m_k^{a_k})}

    The factors are parameters of the guide: the median :math:`m`, and :math:`a`, which narrows them about it.
    The class serves :class:`pyrovae.priors.BetaSpikeSlab`, where v is the activity, and
    :class:`pyrovae.priors.BetaBernoulli`, where the activity is the product of v up to k.

    Args:
        network: The trunk of the encoder.
        dim: Number of latent coordinates :math:`D`.
        slab: As of :class:`SpikeSlab`.
        median: :math:`m` at the start, in (0, 1): all coordinates in use, from which training takes away.

    The code of x is that of :class:`SpikeSlab`.
    """

    def __init__(self, network: nn.Module, dim: int, slab: str = "normal", median: float = 0.9) -> None:
        super().__init__(network, dim, slab)
        if not 0.0 < median < 1.0:
            raise ValueError(f"median must be between 0 and 1, got {median}")
        self.raw_median = nn.Parameter(torch.full((dim,), math.log(median / (1 - median)) / PACE))
        self.raw_concentration = nn.Parameter(torch.zeros(dim))

    def active(self) -> Kumaraswamy:
        """The law of ``"z_active"``, of batch shape ``(D,)``."""
        log_median = logsigmoid(PACE * self.raw_median)
        a = torch.minimum(PACE * self.raw_concentration, math.log(NARROWEST) - (-log_median).log()).exp()
        return Kumaraswamy(a, -math.log(2) / log1mexp(a * log_median))

    def shared(self) -> Tensor:
        """Sample ``"z_active"``, once for all data."""
        return pyro.sample("z_active", self.active().to_event(1))

    def forward(self, x: Tensor, shared: Tensor) -> Tensor:  # type: ignore[override]  # as of every guide with shared()
        """Sample ``"z"`` inside the data plate; it does not look at what :meth:`shared` returned."""
        del shared
        return super().forward(x)
