"""The prior of codes that hard-concrete gates multiply."""

from __future__ import annotations

from collections.abc import Collection

import pyro
import torch
from torch import Tensor

from pyrovae.distributions import HardConcrete as HardConcreteDensity
from pyrovae.distributions.hard_concrete import EDGE, GatedNormal
from pyrovae.hyper import Constrained
from pyrovae.priors.base import Prior, check_dim, check_learned

__all__ = ["HardConcrete"]


class HardConcrete(Prior):
    r"""Hard-concrete prior: a Normal times a gate that is 0, 1 or between, and moves from 0 to 1 without a jump.

    .. math:: z_i = h_i w_i , \qquad h_i \sim HardConcrete(\log\alpha, \tau) , \qquad w_i \sim N(0, s^2)

    Two sites: ``"z_gate"`` is h, and ``"z"``, given it, is what the decoder reads. z is a continuous function of noise
    and parameters, so :class:`pyrovae.ELBO` trains the gates by pathwise gradients alone, without bias; those of a
    spike-and-slab prior are hard, and their gradients vary more. Between 0 and 1 a gate is a scale of its own.

    Args:
        dim: Number of latent coordinates :math:`D`.
        active: :math:`P(h_i \ne 0) = \sigma(\log\alpha + \tau \log 11)`, in (0, 1).
        scale: :math:`s > 0`.
        temperature: :math:`\tau > 0`; small, gates are seldom between 0 and 1. At the 2/3 of the paper a prior with 0.1
            for ``active`` has :math:`P(h_i = 1) = 0.005`, at 0.3 it has 0.026: 150 epochs on the digits end 1.5 nats
            better.
        learned: Which of ``"active"`` and ``"scale"`` are learned, one value for each coordinate.

    Shape: both sites have event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats; of h with respect to Lebesgue measure plus unit atoms at 0 and 1, of z plus one at 0.
    Raises: ValueError if ``dim < 1``, ``active`` is not in (0, 1), ``scale <= 0`` or ``temperature <= 0``.
    References: Louizos, Welling and Kingma (2018), "Learning sparse neural networks through L0 regularization", whose
        gates are on weights.
    See also: :class:`pyrovae.guides.HardConcrete`, :class:`pyrovae.distributions.HardConcrete`.
    """

    def __init__(
        self,
        dim: int,
        active: float = 0.1,
        scale: float = 1.0,
        temperature: float = 0.3,
        learned: Collection[str] = (),
    ) -> None:
        super().__init__()
        check_learned(learned, ("active", "scale"))
        shape = (check_dim(dim),)
        self.active = Constrained("active", active, shape, lower=0.0, upper=1.0, learned="active" in learned)
        self.scale = Constrained("scale", scale, shape, lower=0.0, learned="scale" in learned)
        self.temperature = Constrained("temperature", temperature, lower=0.0)

    def forward(self) -> Tensor:
        active, scale, temperature = self.active(), self.scale(), self.temperature()
        gate = pyro.sample("z_gate", HardConcreteDensity(active.logit() - temperature * EDGE, temperature).to_event(1))
        return pyro.sample("z", GatedNormal(gate, torch.zeros_like(scale), scale, active).to_event(1))
