"""The usual spike-and-slab dictionary: its hyper-parameters, and where they start."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyrovae import likelihoods, priors
from pyrovae.nn import Dictionary
from pyrovae.priors.slabs import SLABS as HYPER

__all__ = ["GUIDE", "SLABS", "start", "start_at_data"]

GUIDE = "coordinate-ascent"
SLABS = ("normal", "truncated-normal", "half-normal", "exponential")  # whose best q is known
NUM_ROWS = 10_000  # that are enough
SPREAD = 0.3  # of a slab at the start, by its location: slabs around zero would be rotations of each other
ACTIVE = 0.2  # share of the latents that are on at the start; at most one latent for each PER_ACTIVE pixels
PER_ACTIVE = 4


def start(slab: str, num_pixels: int, latent_dim: int) -> dict[str, float]:
    """The hyper-parameters of the prior that are learned, and where they start.

    More latents than a quarter of the pixels cannot be told apart where atoms are not orthogonal, and start as noise.
    """
    active = min(ACTIVE, num_pixels / (PER_ACTIVE * latent_dim))
    return {"active": active} | ({"loc": 1.0, "scale": SPREAD} if "loc" in HYPER[slab] else {"scale": 1.0})


@torch.no_grad()
def start_at_data(prior: nn.Module, likelihood: nn.Module, x: Tensor) -> None:
    r"""Let what is learned start at the size of the data: bias, noise and slabs of a spike-and-slab dictionary.

    The bias starts at the mean, the noise at the standard deviation of the data, so that atoms are found from coarse to
    fine, and the slabs where the code has the energy of the data:

    .. math:: \sum_j \pi_j E[z_j^2 | z_j \ne 0] = \sum_i Var[x_i]

    Args:
        prior: A :class:`~pyrovae.priors.SpikeSlab`.
        likelihood: A Normal one with a :class:`~pyrovae.nn.Dictionary`.
        x: Data, ``(N, *event_shape)``.

    Raises: ValueError if x has fewer rows than there are latents, or no column of x varies.
    """
    assert isinstance(prior, priors.SpikeSlab)
    assert isinstance(likelihood, likelihoods.Normal)
    assert isinstance(likelihood.network, Dictionary)
    dim = likelihood.network.linear.in_features
    if len(x) < dim:
        raise ValueError(
            f"latent_dim must be at most the number of rows of inputs, {len(x)}, got {dim}: each datum could be an atom"
        )
    x = x[:NUM_ROWS].flatten(1).double()
    variance = x.var(0, correction=0)
    if not bool((variance > 0).any()):
        raise ValueError(f"inputs must be finite and vary, got {len(x)} rows that are all equal or not finite")
    if likelihood.network.linear.bias is not None:
        likelihood.network.linear.bias.copy_(x.mean(0))
    scale = likelihood.scale
    each = variance.view(likelihood.network.out_shape) if scale().dim() else variance.mean()
    scale.start_at(each.sqrt().clamp(min=1.01 * scale.lower or 1e-6))
    energy = variance.sum() / prior.active().sum()
    slab = prior.slab_distribution()
    ratio = (energy / (slab.variance + slab.mean.square()).mean()).sqrt()
    for name in ("loc", "scale"):
        if hasattr(prior, name):
            getattr(prior, name).start_at(ratio * getattr(prior, name)())
