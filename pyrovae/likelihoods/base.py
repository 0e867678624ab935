"""What all likelihoods share."""

from __future__ import annotations

from typing import NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from pyrovae import private
from pyrovae.hyper import Constrained
from pyrovae.nn import Dictionary

__all__ = ["Likelihood", "LinearMap", "event_dim", "learned_or_fixed"]

MISSING = "where NaN stands for what is missing, likelihoods.Masked or build_vae(missing=True) takes it"


class LinearMap(NamedTuple):
    r""":math:`z \mapsto \Phi z + b`, in the shape of one datum."""

    weight: Tensor
    bias: Tensor | None
    out_shape: tuple[int, ...]


class Likelihood(nn.Module):
    """p(x|z): write ``forward(z)``, which returns the distribution of x with all data dimensions in the event.

    Args:
        network: Maps z ``(*batch, D)`` to ``(*batch, *event_shape)``.
    """

    support: constraints.Constraint = constraints.real
    hint: str = "the data must be finite numbers"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        raise NotImplementedError(f"{type(self).__name__} must define forward(z)")

    def output(self, z: Tensor) -> Tensor:
        """The network at z, whose batch dimensions it sees as one: some layers (BatchNorm) take no more than that."""
        out = self.network(z.reshape(-1, z.shape[-1]))
        return out.reshape(*z.shape[:-1], *out.shape[1:])

    def linear_map(self) -> LinearMap | None:
        """What :meth:`output` computes, if the network is a ``Dictionary`` or ``Linear`` and nothing else happens."""
        network, usual = self.network, type(self.network).forward
        if type(self).output is not Likelihood.output or "forward" in vars(network):
            return None
        if private.has_forward_hooks(network):
            return None
        if isinstance(network, Dictionary) and usual is Dictionary.forward:
            return LinearMap(network.weight, network.linear.bias, network.out_shape)
        if isinstance(network, nn.Linear) and usual is nn.Linear.forward:
            return LinearMap(network.weight, network.bias, (network.out_features,))
        return None

    def mean(self, z: Tensor) -> Tensor:
        """E[x|z], what a reconstruction shows."""
        return self(z).mean

    def check(self, x: Tensor) -> None:
        """Raise ValueError, naming the first bad value, unless all of x is where this likelihood has a density."""
        for bad, what in ((~torch.isfinite(x), ""), (~self.support.check(x), f" under {type(self).__name__}")):
            if bad.any():
                place = tuple(int(i) for i in bad.nonzero()[0])
                hint = f"{self.hint}; {MISSING}" if x[place].isnan() else self.hint
                raise ValueError(f"data: the value {x[place].item():.6g} at index {place} does not fit{what}: {hint}")


def learned_or_fixed(name: str, value: float | str, floor: float, network: nn.Module) -> Constrained:
    """A positive number: fixed, or learned from 1 on, one for all data dimensions or one for each."""
    if not isinstance(value, str):
        return Constrained(name, value, lower=0.0)
    if value not in ("shared", "per-pixel"):
        raise ValueError(f'{name} must be a number, "shared" or "per-pixel", got {value!r}')
    if not 0.0 < floor < 1.0:
        raise ValueError(f"floor must be between 0 and 1, got {floor}")
    shape = () if value == "shared" else getattr(network, "out_shape", None)
    if shape is None:
        raise ValueError(f'{name} "per-pixel" needs a network that says its out_shape')
    return Constrained(name, 1.0, shape, lower=floor, learned=True)


def event_dim(params: Tensor, z: Tensor) -> int:
    """All that the network added to z's batch dimensions."""
    return params.dim() - z.dim() + 1
