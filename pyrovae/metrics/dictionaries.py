r"""Dictionaries against known features and against each other: rows are atoms, compared by the cosine of their angle.

scipy is imported when a measure runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyrovae.metrics.recovery import MCC

__all__ = ["Stability", "cosine_table", "decoder_mcc", "stability", "uniqueness"]

Array = np.ndarray[Any, Any]


class Stability(NamedTuple):
    """How alike the dictionaries of K seeds are.

    ``pw_mcc`` is the mean of ``pairwise`` ``(K, K)`` over pairs of different seeds. ``found`` ``(K,)`` is the share of
    latents that are found in at least 1, 2, ..., K seeds, their own included; its first entry is 1.
    """

    pw_mcc: float
    pairwise: Tensor
    found: Tensor


def decoder_mcc(dictionary: Tensor, features: Tensor, signed: bool = False) -> MCC:
    r"""Whether a dictionary has the known features: each with an atom of its own.

    .. math:: MCC = \frac1K \max_\pi \sum_{k=1}^K \left|\cos(w_{\pi(k)}, f_k)\right|

    over the matchings :math:`\pi`, by the Hungarian method. A feature without an atom counts as 0, and so does an atom
    of norm 0. In D dimensions the cosine of unrelated directions has a standard deviation of :math:`1 / \sqrt D`.

    Args:
        dictionary: Atoms, ``(J, D)``: the rows w of a decoder x = zw.
        features: ``(K, D)``, as of :mod:`pyrovae.data.synthetic`.
        signed: Whether the sign counts, as it does for codes that are never negative: cosines replace their absolute
            values, and a feature whose atom points away counts against the mean.

    Returns: An :class:`~pyrovae.metrics.MCC`, whose ``correlations`` are the cosines with their signs and whose
        ``dead`` counts atoms of norm 0.
    Raises: ValueError if a table is not finite, the dimensions differ, or a feature has norm 0.
    """
    cosines = cosine_table(dictionary, features)
    if not (length := features.detach().double().norm(dim=1)).all():
        raise ValueError(f"features must not be zero, row {int((length == 0).nonzero()[0])} is")
    matching, found = _matched(cosines, signed)
    dead = int((dictionary.detach() == 0).all(1).sum())
    return MCC(_mean(found, signed), torch.from_numpy(matching), torch.from_numpy(found), dead)


def uniqueness(dictionary: Tensor, features: Tensor) -> float:
    r"""The share of atoms whose best feature is no other atom's best feature.

    .. math:: U = \frac1J \#\{j : b_j \ne b_i \text{ for all } i \ne j\} , \qquad b_j = \arg\max_k |\cos(w_j, f_k)|

    1 where every atom has a feature of its own, which needs J <= K. Atoms of norm 0 are left out.

    Args:
        dictionary: Atoms ``(J, D)``.
        features: ``(K, D)``.

    Raises: ValueError as of :func:`decoder_mcc`, and if every atom has norm 0.
    """
    cosines = np.abs(cosine_table(dictionary, features))
    alive = (dictionary.detach() != 0).any(1).cpu().numpy()
    if not alive.any():
        raise ValueError("dictionary must have an atom that is not zero")
    best = cosines[alive].argmax(1)
    return float((np.bincount(best, minlength=cosines.shape[1])[best] == 1).mean())


def stability(dictionaries: Sequence[Tensor] | Tensor, threshold: float = 0.7, signed: bool = False) -> Stability:
    r"""Whether models trained from several seeds have the same latents.

    .. math:: PW\text{-}MCC = \frac{2}{K (K - 1)} \sum_{a < b} MCC(W_a, W_b)

    by :func:`decoder_mcc`. A latent is found in another seed if its cosine with the atom that it is matched with there
    is at least the threshold.

    Args:
        dictionaries: One ``(J, D)`` for each of K seeds, two or more, or ``(K, J, D)``.
        threshold: Of a cosine, in (0, 1].
        signed: As in :func:`decoder_mcc`.

    Raises: ValueError if there are fewer than two, their shapes differ, or ``threshold`` is out of range.
    References: Song et al. (2025), "Position: mechanistic interpretability should prioritize feature consistency in
        SAEs", for PW-MCC; Paulo and Belrose (2025), "Sparse autoencoders trained on the same data learn different
        features", for the threshold.
    """
    tables = list(dictionaries)
    if len(tables) < 2:
        raise ValueError(f"dictionaries must be two or more, got {len(tables)}")
    shapes = {tuple(table.shape) for table in tables}
    if len(shapes) > 1 or len(next(iter(shapes))) != 2:
        raise ValueError(f"dictionaries must be tables (J, D) of one shape, got {sorted(shapes)}")
    if not 0.0 < threshold <= 1.0:
        raise ValueError(f"threshold must be a cosine above 0, at most 1, got {threshold}")
    num = len(tables)
    pairwise = torch.eye(num, dtype=torch.float64)
    seeds = np.ones((num, len(tables[0])), dtype=int)  # in how many each latent is found
    for a, b in itertools.combinations(range(num), 2):
        matching, cosines = _matched(cosine_table(tables[a], tables[b]), signed)
        pairwise[a, b] = pairwise[b, a] = _mean(cosines, signed)
        same = (cosines if signed else np.abs(cosines)) >= threshold
        seeds[b] += same
        seeds[a, matching[same]] += 1
    found = torch.tensor([(seeds >= k).mean() for k in range(1, num + 1)], dtype=torch.float64)
    above = torch.triu_indices(num, num, 1)
    return Stability(pairwise[above[0], above[1]].mean().item(), pairwise, found)


def cosine_table(dictionary: Tensor, features: Tensor) -> Array:
    """``(J, K)`` in float64; 0 where a row is zero."""
    units = []
    for name, table in (("dictionary", dictionary), ("features", features)):
        if table.dim() != 2 or table.numel() == 0 or table.is_complex() or not bool(torch.isfinite(table).all()):
            raise ValueError(f"{name} must be a table of finite numbers, a row for each atom, got {_described(table)}")
        rows = table.detach().double().cpu()
        rows = rows / rows.abs().amax(1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
        units.append((rows / rows.norm(dim=1, keepdim=True).clamp(min=1.0)).numpy())  # the largest entry is 1, or all 0
    if units[0].shape[1] != units[1].shape[1]:
        raise ValueError(
            f"features must have the {units[0].shape[1]} dimensions of the dictionary, got {units[1].shape[1]}: atoms "
            f"are rows"
        )
    return np.asarray(units[0] @ units[1].T)


def _described(table: Tensor) -> str:
    return f"{table.dtype} of shape {tuple(table.shape)}" if table.dim() != 2 else "NaN, infinity or no numbers"


def _matched(cosines: Array, signed: bool) -> tuple[Array, Array]:
    """For each column a row of its own, -1 for none, and their cosine, 0 for none."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(cosines if signed else np.abs(cosines), maximize=True)
    matching, found = np.full(cosines.shape[1], -1), np.zeros(cosines.shape[1])
    matching[columns], found[columns] = rows, cosines[rows, columns]
    return matching, found


def _mean(cosines: Array, signed: bool) -> float:
    return float((cosines if signed else np.abs(cosines)).mean())
