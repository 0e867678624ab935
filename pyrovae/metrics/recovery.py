r"""Whether codes recover factors that are known: each factor by a coordinate of its own, and where it is zero.

Both are tables, codes z ``(N, D)`` and factors v ``(N, K)``, of the same data in the same order; D and K may differ.
scipy is imported when a measure runs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["MCC", "SupportF1", "mcc", "paired", "support_f1"]

Array = np.ndarray[Any, Any]


class MCC(NamedTuple):
    """The mean correlation coefficient, and what it is the mean of.

    ``matching`` ``(K,)`` is the coordinate that each factor is matched with, -1 for a factor without one;
    ``correlations`` ``(K,)`` have their signs, and are 0 there. ``dead`` counts the coordinates that are constant.
    """

    score: float
    matching: Tensor
    correlations: Tensor
    dead: int


class SupportF1(NamedTuple):
    """Precision, recall and their harmonic mean, from three counts of entries.

    ``found`` are not zero in the matched codes, ``true`` not zero in the factors, ``both`` in both.
    """

    f1: float
    precision: float
    recall: float
    found: int
    true: int
    both: int


def mcc(z: Tensor, factors: Tensor, correlation: str = "pearson") -> MCC:
    r"""Mean correlation coefficient: each factor with the coordinate that recovers it, no two with the same.

    .. math:: MCC = \frac1K \max_\pi \sum_{k=1}^K \left|corr(z_{\pi(k)}, v_k)\right|

    over the matchings :math:`\pi`, by the Hungarian method. With D < K some factors have no coordinate, and count as 0;
    so does the correlation of a coordinate that is constant. The score of unrelated codes is not 0: the largest of many
    sample correlations is of the order :math:`\sqrt{2 \log D / N}`.

    Args:
        z: Codes ``(N, D)``.
        factors: ``(N, K)``, numbers of any kind.
        correlation: ``"pearson"``, for factors up to their scale; or ``"spearman"``, for factors up to a monotone
            function: Pearson's of the ranks, where equal numbers, as exact zeros are, share the mean of theirs.

    Raises: ValueError if a table is not finite, its rows do not match, a factor is constant or every coordinate is.
    References: Hyvärinen and Morioka (2016), "Unsupervised feature extraction by time-contrastive learning and
        nonlinear ICA"; Khemakhem, Kingma, Monti and Hyvärinen (2020), "Variational autoencoders and nonlinear ICA".
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.stats import rankdata

    if correlation not in ("pearson", "spearman"):
        raise ValueError(f'correlation must be "pearson" or "spearman", got {correlation!r}')
    codes, known = paired(z, factors)
    constant = codes.min(0) == codes.max(0)
    if constant.all():
        raise ValueError("z is constant in every coordinate: it has no correlation with anything")
    if correlation == "spearman":
        codes, known = rankdata(codes, axis=0), rankdata(known, axis=0)
    table = _unit(codes).T @ _unit(known)  # (D, K)
    rows, columns = linear_sum_assignment(np.abs(table), maximize=True)
    matching, correlations = np.full(known.shape[1], -1), np.zeros(known.shape[1])
    matching[columns], correlations[columns] = rows, table[rows, columns]
    score = float(np.abs(correlations).mean())
    return MCC(score, torch.from_numpy(matching), torch.from_numpy(correlations), int(constant.sum()))


def support_f1(z: Tensor, factors: Tensor, matching: Tensor | None = None) -> SupportF1:
    r"""How well codes are not zero where the factors are not zero.

    .. math:: F_1 = \frac{2 |A \cap B|}{|A| + |B|} , \quad A = \{(n, k) : z_{n \pi(k)} \ne 0\} , \quad
              B = \{(n, k) : v_{nk} \ne 0\}

    with precision :math:`|A \cap B| / |A|` and recall :math:`|A \cap B| / |B|` over the entries of all matched factors
    together. Only exact zeros count; coordinates that no factor is matched with do not. Codes that are never zero have
    recall 1 and, for a precision, the activity of the factors. Where A is empty precision and F1 are 0.

    Args:
        z: Codes ``(N, D)``.
        factors: ``(N, K)``, of which some are zero.
        matching: :math:`\pi`, a coordinate for each factor, -1 for none, as ``mcc(...).matching``, which it is by
            default.

    Raises: ValueError as of :func:`mcc`; if ``factors`` are all zero; if ``matching`` is not K coordinates of z.
    """
    codes, known = paired(z, factors, varies=matching is None)
    if not known.any():
        raise ValueError("factors are all zero: they have no support to recover")
    pi = mcc(z, factors).matching if matching is None else torch.as_tensor(matching)
    _check_matching(pi, codes.shape[1], known.shape[1])
    index = pi.cpu().numpy()
    on = (codes[:, index] != 0) & (index >= 0)
    found, true, both = (int(part.sum()) for part in (on, known != 0, on & (known != 0)))
    return SupportF1(2 * both / (found + true), both / max(found, 1), both / true, found, true, both)


def paired(z: Tensor, factors: Tensor, varies: bool = True) -> tuple[Array, Array]:
    """The two tables in float64, checked; with ``varies`` no factor may be constant."""
    tables = []
    for name, table in (("z", z), ("factors", factors)):
        if table.dim() != 2 or table.numel() == 0 or table.is_complex():
            raise ValueError(f"{name} must be a table (N, columns) of numbers, got shape {tuple(table.shape)}")
        tables.append(table.detach().double().cpu().numpy())
        if not np.isfinite(tables[-1]).all():
            raise ValueError(f"{name} must be finite, got NaN or infinity in row {_first_bad(tables[-1])}")
    codes, known = tables
    if len(codes) != len(known):
        raise ValueError(f"factors must be one row for each of the {len(codes)} codes, got {len(known)}")
    constant = np.flatnonzero(known.min(0) == known.max(0))
    if varies and len(constant):
        raise ValueError(f"factors must vary, column {constant[0]} is constant")
    return codes, known


def _first_bad(table: Array) -> int:
    return int(np.flatnonzero(~np.isfinite(table).all(1))[0])


def _unit(table: Array) -> Array:
    """Columns of mean 0 and length 1; zeros where a column is constant."""
    centred = np.where(table.min(0) == table.max(0), 0.0, table - table.mean(0))
    centred = centred / np.maximum(np.abs(centred).max(0), np.finfo(float).tiny)  # squares neither over- nor underflow
    return centred / np.maximum(np.linalg.norm(centred, axis=0), np.finfo(float).tiny)


def _check_matching(matching: Tensor, dim: int, num_factors: int) -> None:
    whole = not matching.is_floating_point() and matching.shape == (num_factors,)
    if not whole or bool(((matching < -1) | (matching >= dim)).any()):
        raise ValueError(
            f"matching must be a coordinate of z, below {dim}, or -1 for each of {num_factors} factors, got {matching}"
        )
