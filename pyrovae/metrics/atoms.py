"""What each latent coordinate does to the data."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.nn import functional

from pyrovae.guards import same_support
from pyrovae.vae import VAE

__all__ = ["Atoms", "Traversals", "decoder_atoms", "lives_on", "traversals"]


class Atoms(NamedTuple):
    """The decoder's response, ``(K, *event_shape)``, to a step along each of K ``coordinates``, the most active first.

    ``steps`` ``(K,)`` are their lengths, one standard deviation of each coordinate over the data.
    """

    coordinates: Tensor
    steps: Tensor
    response: Tensor


class Traversals(NamedTuple):
    """E[x|z], ``(K, S, *event_shape)``, as each of K ``coordinates`` takes the S ``values`` ``(K, S)`` that it has.

    The most active coordinate is the first.
    """

    coordinates: Tensor
    values: Tensor
    decoded: Tensor


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
    order, scale = _most_active(z, num)
    centre, steps = z.mean(0), scale[order]
    moved = _moved(vae, centre, order, centre[order] + steps)
    decoded = vae.decode(torch.cat([_placed(vae, centre)[None], moved]))
    return Atoms(order, steps, decoded[1:] - decoded[0])


def traversals(vae: VAE, x: Tensor, num: int = 8, num_values: int = 9, centre: Tensor | None = None) -> Traversals:
    r"""E[x|z] as one coordinate runs over its codes and the others stay at the mean code :math:`\bar z`.

    .. math:: E[x | \bar z + (v - \bar z_j) e_j] , \qquad v \text{ from } a_j \text{ to } b_j

    in equal steps, where 98 % of the codes of x that are not zero at j lie between :math:`a_j` and :math:`b_j`, which
    are moved to include 0 where some code is zero. On the simplex the other coordinates keep their proportions; on
    the sphere the point that has these values is put back on it.

    Args:
        vae: A VAE.
        x: ``(N, *event_shape)``.
        num: How many coordinates, those whose codes vary most.
        num_values: How many values of each, at least 2.
        centre: A code ``(D,)`` in the place of the mean code, such as ``vae.encode(x)[0]``. The coordinates are then
            those in which it is farthest from zero, in standard deviations over the codes of x.

    Units: those of the data.
    Raises: ValueError if ``num_values < 2`` or ``centre`` is no code.
    """
    if num_values < 2:
        raise ValueError(f"num_values must be at least 2, got {num_values}")
    z = vae.encode(x)
    order, scale = _most_active(z, num)
    if centre is None:
        centre = z.mean(0)
    elif centre.shape != z[0].shape:
        raise ValueError(f"centre must be a code of shape {tuple(z[0].shape)}, got {tuple(centre.shape)}")
    else:
        order = torch.where(scale > 0, centre.abs() / scale, 0.0).argsort(descending=True)[:num]
    values = torch.stack([_run(z[:, j], num_values) for j in order.tolist()])
    moved = _moved(vae, centre, order.repeat_interleave(num_values), values.flatten())
    return Traversals(order, values, vae.decode(moved).unflatten(0, values.shape))


def _most_active(z: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """The coordinates whose codes vary most, and the standard deviation of all."""
    scale = z.std(0, correction=0)
    return scale.argsort(descending=True)[:num], scale


def _run(codes: Tensor, num_values: int) -> Tensor:
    """Equal steps over most of the codes of one coordinate."""
    away = codes[codes != 0]
    ends = away.quantile(away.new_tensor([0.01, 0.99])) if len(away) else codes.new_zeros(2)
    if len(away) < len(codes):
        ends = torch.stack([ends[0].clamp(max=0), ends[1].clamp(min=0)])
    share = torch.linspace(0, 1, num_values, dtype=codes.dtype, device=codes.device)
    return ends[0] + share * (ends[1] - ends[0])


def _moved(vae: VAE, centre: Tensor, coordinates: Tensor, values: Tensor) -> Tensor:
    """The centre with each coordinate in turn at a value, put where codes live."""
    corners = torch.eye(len(centre)).to(centre)[coordinates]
    change = values - centre[coordinates]
    if lives_on(vae, constraints.simplex):
        share = (change / (1 - centre[coordinates]).clamp(min=1e-6)).clamp(max=1.0)[:, None]
        return (1 - share) * centre + share * corners
    return _placed(vae, centre + change[:, None] * corners)


def _placed(vae: VAE, z: Tensor) -> Tensor:
    return functional.normalize(z, dim=-1) if lives_on(vae, constraints.sphere) else z


def lives_on(vae: VAE, support: Any) -> bool:
    own = getattr(vae.prior, "support", None) or getattr(vae.posterior, "support", None)
    return own is not None and same_support(own, support)
