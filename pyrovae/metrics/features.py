r"""What each latent stands for: its atom, the data in which it is strongest, and the latents that are like it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.metrics.atoms import decoder_atoms
from pyrovae.metrics.calibration import Reliability, gate_reliability
from pyrovae.metrics.dictionaries import cosine_table
from pyrovae.metrics.supports import on_table
from pyrovae.vae import VAE, evaluating

__all__ = ["LatentFeatures", "Neighbors", "co_firing", "dictionary", "latent_features", "similar_atoms"]

ATOMS = ("dictionary", "response")


class LatentFeatures(NamedTuple):
    r"""Data with their codes, and an atom for each latent: what :func:`pyrovae.plots.feature_report` shows.

    Any sparse autoencoder has the first three, one of another library too: ``LatentFeatures(x, z, decoder_rows)``.

    Args:
        data: ``(N, *event_shape)``, NaN where a value is missing.
        codes: ``(N, D)``; a latent is on where its code is not exactly zero.
        atoms: ``(D, *event_shape)``, the change of the decoder's output for one unit of each latent.
        reliability: Of P(on), for each latent; None where the model has no such probability.
        why_not: The reason why ``reliability`` is None.
        response: Whether atoms are those of :func:`~pyrovae.metrics.decoder_atoms`, around the mean code.
    """

    data: Tensor
    codes: Tensor
    atoms: Tensor
    reliability: Reliability | None = None
    why_not: str = "none was measured"
    response: bool = False

    @property
    def strength(self) -> Tensor:
        r"""How much a latent adds to the decoder's output where it is on, ``(D,)``; 0 for one that never is.

        .. math:: \|w_j\| \, \frac{\sum_n |z_{nj}|}{\#\{n : z_{nj} \ne 0\}}
        """
        size = self.codes.abs().double().sum(0) / (self.codes != 0).sum(0).clamp(min=1)
        return size * self.atoms.flatten(1).double().norm(dim=1)


class Neighbors(NamedTuple):
    """The latents nearest to each latent, nearest first, ``latents`` ``(D, K)``, and how near they are, ``score``."""

    latents: Tensor
    score: Tensor


def latent_features(vae: VAE, x: Tensor, atoms: str = "dictionary", num_simulated: int = 1000) -> LatentFeatures:
    r"""The codes of x, the atom of each latent, and how reliable P(on) is.

    Atoms are the columns of a linear decoder :math:`f(z) = \Phi z + b`, which gives the mean of x, or its logit under
    a Bernoulli likelihood. Of another decoder the ``"response"`` is
    :math:`(E[x | \bar z + s_j e_j] - E[x | \bar z]) / s_j`, by :func:`~pyrovae.metrics.decoder_atoms`. Codes are
    ``vae.encode(x)``. The reliability is that of :func:`~pyrovae.metrics.gate_reliability`, on data that the model
    makes.

    Args:
        vae: A VAE without labels.
        x: ``(N, *event_shape)``.
        atoms: ``"dictionary"``, which needs a linear decoder, or ``"response"``.
        num_simulated: Data that the model makes, at least 1.

    Returns: :class:`LatentFeatures`, on the CPU.
    Raises: ValueError if ``atoms`` is neither, ``num_simulated < 1``, the decoder is not linear under
        ``"dictionary"``, or the model is conditional.
    """
    if atoms not in ATOMS:
        raise ValueError(f"atoms must be one of {', '.join(ATOMS)}, got {atoms!r}")
    if num_simulated < 1:
        raise ValueError(f"num_simulated must be at least 1, got {num_simulated}")
    table = dictionary(vae) if atoms == "dictionary" else _response(vae, x)
    z = vae.encode(x).cpu()
    reliability, why_not = _reliability(vae, num_simulated)
    return LatentFeatures(x.cpu(), z, table.cpu(), reliability, why_not, atoms == "response")


def dictionary(vae: VAE) -> Tensor:
    """The atoms of a linear decoder, ``(D, *event_shape)``: the columns of its weight.

    Raises: ValueError if the decoder is not linear, or the model is conditional.
    """
    _check_unlabelled(vae)
    likelihood: Any = vae.likelihood
    with evaluating(vae):
        linear = likelihood.linear_map() if hasattr(likelihood, "linear_map") else None
    if linear is None:
        kind = type(getattr(likelihood, "network", likelihood)).__name__
        raise ValueError(
            f"the model has no dictionary: its decoder {kind} is not linear. build_vae(network='dictionary'), or "
            f"--network dictionary, makes one; atoms='response', or --atoms response, shows this decoder"
        )
    return linear.weight.detach().T.reshape(-1, *linear.out_shape)


def _response(vae: VAE, x: Tensor) -> Tensor:
    """The response to one unit of each latent, in their own order; 0 where codes do not vary."""
    _check_unlabelled(vae)
    found = decoder_atoms(vae, x, num=vae.encode(x[:1]).shape[1])
    steps = found.steps.reshape(-1, *[1] * (x.dim() - 1))
    per_unit = torch.where(steps > 0, found.response / steps, 0.0)
    return torch.zeros_like(per_unit).index_copy(0, found.coordinates, per_unit)


def _check_unlabelled(vae: VAE) -> None:
    if vae.num_labels:
        raise ValueError("the model must be one without labels: its decoder has other atoms for each of them")


def _reliability(vae: VAE, num_simulated: int) -> tuple[Reliability | None, str]:
    """That of P(on), or the reason why there is none."""
    try:
        found = gate_reliability(vae, num_simulated)
    except ValueError as error:  # no exact zeros, or a prior without draws
        return None, str(error)
    return Reliability(*(table.cpu() for table in found)), ""


def similar_atoms(atoms: Tensor, num: int = 4, signed: bool = False) -> Neighbors:
    r"""The atoms nearest to each atom, by the cosine of their angle, ``score``, with its sign.

    Args:
        atoms: ``(D, *event_shape)``.
        num: How many, the other atoms at most.
        signed: Whether an opposite atom is far, and not as near as an equal one.

    Raises: ValueError if ``num < 1`` or atoms are not finite.
    """
    angles = torch.from_numpy(cosine_table(atoms.flatten(1), atoms.flatten(1)))
    return _nearest(angles if signed else angles.abs(), angles, num)


def co_firing(z: Tensor, num: int = 4) -> Neighbors:
    r"""The latents that are on in the same data as each latent: the Jaccard similarity of their sets of data.

    .. math:: J_{ij} = \frac{\#\{n : z_{ni} \ne 0 , z_{nj} \ne 0\}}{\#\{n : z_{ni} \ne 0 \text{ or } z_{nj} \ne 0\}}

    0 where neither is ever on.

    Args:
        z: Codes ``(N, D)``.
        num: How many, the other latents at most.

    Raises: ValueError if ``num < 1``, or z is no table of codes or has a NaN.
    """
    on = on_table(z).float()
    both = on.T @ on  # exact: whole numbers below 2^24
    times = on.sum(0)
    similarity = both / (times[:, None] + times - both).clamp(min=1)
    return _nearest(similarity, similarity, num)


def _nearest(near: Tensor, score: Tensor, num: int) -> Neighbors:
    if num < 1:
        raise ValueError(f"num must be at least 1, got {num}")
    others = near.clone().fill_diagonal_(-torch.inf)
    index = others.argsort(dim=1, descending=True, stable=True)[:, : min(num, len(near) - 1)]
    return Neighbors(index, score.gather(1, index))
