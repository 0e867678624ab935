"""Guides whose codes hold exact zeros."""

from __future__ import annotations

import pyro.distributions as dist
from torch import Tensor, nn

from pyrovae.distributions import SpikeSlab as SpikeSlabDensity
from pyrovae.distributions.spike_slab import real_with_atom
from pyrovae.guides.base import Guide, positive

__all__ = ["SpikeSlab"]

SLABS = {"normal": dist.Normal, "laplace": dist.Laplace}


class SpikeSlab(Guide):
    r"""Independent spikes and slabs: :math:`q(z_i \ne 0|x) = \gamma_i(x)`, and then a Normal or Laplace.

    Train it with :class:`pyrovae.ELBO`, whose ``gates`` choose the gradient (antithetic pairs, unbiased, unless said
    otherwise), or with Pyro's ``Trace_ELBO`` (plain score function, unbiased, of more variance). Other objectives of
    Pyro's drop the gradient of the gates, and are refused.

    Args:
        network: The trunk of the encoder.
        dim: Number of latent coordinates :math:`D`.
        slab: ``"normal"`` or ``"laplace"``.

    The code of x is the mean of the slab where the gate is more likely open than shut, and exactly zero elsewhere.
    """

    support = real_with_atom

    def __init__(self, network: nn.Module, dim: int, slab: str = "normal") -> None:
        super().__init__(network, dim, 3 * dim)
        if slab not in SLABS:
            raise ValueError(f"slab must be one of {', '.join(SLABS)}, got {slab!r}")
        self.slab = slab

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        loc, raw, logits = self.head(self.network(x)).chunk(3, -1)
        return SpikeSlabDensity(logits, SLABS[self.slab](loc, positive(raw))).to_event(1)

    def encode(self, x: Tensor) -> Tensor:
        loc, _, logits = self.head(self.network(x)).chunk(3, -1)
        return loc * (logits > 0)
