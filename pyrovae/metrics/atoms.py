"""What each latent coordinate does to the data."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.nn import functional

from pyrovae.guards import same_support
from pyrovae.vae import VAE

__all__ = ["Atoms", "decoder_atoms"]


class Atoms(NamedTuple):
    """The decoder's response, ``(K, *event_shape)``, to a step along each of K ``coordinates``, the most active first.

    ``steps`` ``(K,)`` are their lengths, one standard deviation of each coordinate over the data.
    """

    coordinates: Tensor
    steps: Tensor
    response: Tensor


def decoder_atoms(vae: VAE, x: Tensor, num: int = 8) -> Atoms:
    r"""How E[x|z] changes as one coordinate leaves the mean code: the decoder's answer to its most active coordinates.

    .. math:: a_j = E[x | \bar z + s_j e_j] - E[x | \bar z]

    with the mean :math:`\bar z` and the standard deviation :math:`s_j` of the codes of x. With a linear decoder
    :math:`a_j` is :math:`s_j` times the atom j of its dictionary. On the simplex the step goes towards the corner
    :math:`e_j`, so that the other coordinates shrink in proportion; on the sphere both points are put back on it.

    Args:
        vae: A VAE.
        x: ``(N, *event_shape)``.
        num: How many coordinates, those of the largest :math:`s_j`.

    Units: those of the data.
    """
    z = vae.encode(x)
    scale = z.std(0, correction=0)
    order = scale.argsort(descending=True)[:num]
    centre, steps, corners = z.mean(0), scale[order], torch.eye(z.shape[1]).to(z)[order]
    moved = centre + steps[:, None] * corners
    if _lives_on(vae, constraints.simplex):
        share = (steps / (1 - centre[order]).clamp(min=1e-6)).clamp(max=1.0)[:, None]
        moved = (1 - share) * centre + share * corners
    elif _lives_on(vae, constraints.sphere):
        centre, moved = functional.normalize(centre, dim=0), functional.normalize(moved, dim=1)
    decoded = vae.decode(torch.cat([centre[None], moved]))
    return Atoms(order, steps, decoded[1:] - decoded[0])


def _lives_on(vae: VAE, support: Any) -> bool:
    own = getattr(vae.prior, "support", None) or getattr(vae.posterior, "support", None)
    return own is not None and same_support(own, support)
