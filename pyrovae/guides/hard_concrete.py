"""The guide of codes that hard-concrete gates multiply."""

from __future__ import annotations

import pyro
from torch import Tensor, nn

from pyrovae.distributions import HardConcrete as HardConcreteDensity
from pyrovae.distributions.hard_concrete import GatedNormal
from pyrovae.guides.base import Guide, positive

__all__ = ["HardConcrete"]


class HardConcrete(Guide):
    r"""Guide of the hard-concrete prior: a gate, and a Normal that it multiplies.

    .. math:: h_i \sim HardConcrete(\log\alpha_i(x), \tau) , \qquad z_i = h_i w_i , \qquad
              w_i \sim N(\mu_i(x), \sigma_i(x)^2)

    Train it with :class:`pyrovae.ELBO`, whose gradient is wholly pathwise, or with Pyro's ``Trace_ELBO``, which takes
    the score of the choice among 0, 1 and between: unbiased, of more variance. Other objectives of Pyro's drop that,
    and are refused.

    Args:
        network: The trunk of the encoder.
        dim: Number of latent coordinates :math:`D`.
        temperature: :math:`\tau > 0`, of every gate; it need not be the prior's.

    The code of x is the median of the gate times the mean of w: exactly zero where h is more likely 0 than not.
    """

    def __init__(self, network: nn.Module, dim: int, temperature: float = 0.3) -> None:
        super().__init__(network, dim, 3 * dim)
        if not 0.0 < temperature < float("inf"):
            raise ValueError(f"temperature must be positive and finite, got {temperature}")
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        law, loc, scale = self._factors(x)
        gate = pyro.sample("z_gate", law.to_event(1))
        return pyro.sample("z", GatedNormal(gate, loc, scale, law.active).to_event(1))

    def encode(self, x: Tensor) -> Tensor:
        law, loc, _ = self._factors(x)
        return law.median * loc

    def _factors(self, x: Tensor) -> tuple[HardConcreteDensity, Tensor, Tensor]:
        loc, raw, logits = self.head(self.network(x)).chunk(3, -1)
        return HardConcreteDensity(logits, self.temperature), loc, positive(raw)
