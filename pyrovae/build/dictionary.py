"""The usual spike-and-slab dictionary: its hyper-parameters, and where they start."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyrovae import likelihoods, priors
from pyrovae.nn import Dictionary

__all__ = ["GUIDE", "START", "start_at_data"]

GUIDE = "coordinate-ascent"
NUM_ROWS = 10_000  # that are enough
SPREAD = 0.3  # of a slab at the start, by its location: slabs around zero would be rotations of each other
START = {"active": 0.2, "loc": 1.0, "scale": SPREAD}  # of the prior, all learned


@torch.no_grad()
def start_at_data(prior: nn.Module, likelihood: nn.Module, x: Tensor) -> None:
    r"""Let what is learned start at the size of the data: bias, noise and slabs of a spike-and-slab dictionary.

    The bias starts at the mean, the noise at the standard deviation of the data, so that atoms are found from coarse to
    fine, and the slabs :math:`N(m, (0.3\, m)^2)` where the code has the energy of the data:

    .. math:: \sum_j \pi_j (1 + 0.3^2) m^2 = \sum_i Var[x_i]

    Args:
        prior: A :class:`~pyrovae.priors.SpikeSlab`.
        likelihood: A Normal one with a :class:`~pyrovae.nn.Dictionary`.
        x: Data, ``(N, *event_shape)``.

    Raises: ValueError if no column of x varies.
    """
    assert isinstance(prior, priors.SpikeSlab)
    assert isinstance(likelihood, likelihoods.Normal)
    assert isinstance(likelihood.network, Dictionary)
    x = x[:NUM_ROWS].flatten(1).double()
    variance = x.var(0, correction=0)
    if not bool((variance > 0).any()):
        raise ValueError(f"inputs must be finite and vary, got {len(x)} rows that are all equal or not finite")
    if likelihood.network.linear.bias is not None:
        likelihood.network.linear.bias.copy_(x.mean(0))
    scale = likelihood.scale
    each = variance.view(likelihood.network.out_shape) if scale().dim() else variance.mean()
    scale.start_at(each.sqrt().clamp(min=1.01 * scale.lower or 1e-6))
    loc = (variance.sum() / (prior.active().sum() * (1 + SPREAD**2))).sqrt()
    prior.loc.start_at(loc)
    prior.scale.start_at(SPREAD * loc)
