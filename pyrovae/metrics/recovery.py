r"""Whether codes recover factors that are known: each factor by a coordinate of its own, and where it is zero.

Both are tables, codes z ``(N, D)`` and factors v ``(N, K)``, of the same data in the same order; D and K may differ.
scipy is imported when a measure runs.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "MCC",
    "FiringScores",
    "SupportF1",
    "firing_scores",
    "matched",
    "mcc",
    "paired",
    "support_auprc",
    "support_f1",
]

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


class FiringScores(NamedTuple):
    """Of each factor and its coordinate, ``(K,)``, and ``mean_f1`` of the factors that fire.

    Precision and F1 are 0 for a factor whose coordinate is never on, as for one without a coordinate. All are NaN for a
    factor that is never on in these data.
    """

    f1: Tensor
    precision: Tensor
    recall: Tensor
    mean_f1: float


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
    on, true = _supports(z, factors, matching)
    num_on, num_true, both = (int(part.sum()) for part in (on, true, on & true))
    return SupportF1(2 * both / (num_on + num_true), both / max(num_on, 1), both / num_true, num_on, num_true, both)


def firing_scores(z: Tensor, factors: Tensor, matching: Tensor | None = None) -> FiringScores:
    r"""How well each factor's coordinate fires with it, one score for each factor; :func:`support_f1` pools them.

    .. math:: P_k = \frac{n_k^{both}}{n_k^{found}} , \quad R_k = \frac{n_k^{both}}{n_k^{true}} , \quad
              F_k = \frac{2 n_k^{both}}{n_k^{found} + n_k^{true}}

    where n counts the data in which coordinate :math:`\pi(k)` is not zero, factor k is not zero, or both are not zero.

    Args:
        z: Codes ``(N, D)``.
        factors: ``(N, K)``, of which some are zero.
        matching: As in :func:`support_f1`; of :func:`~pyrovae.metrics.decoder_mcc` it is that of the dictionary.

    Raises: ValueError as of :func:`support_f1`.
    """
    on, true = _supports(z, factors, matching)
    both, found, known = (torch.from_numpy(part.sum(0)).double() for part in (on & true, on, true))
    fires = known > 0
    recall = both / known  # 0 / 0 for a factor that never fires
    precision = torch.where(fires, both / found.clamp(min=1), math.nan)
    f1 = torch.where(fires, 2 * both / (found + known), math.nan)
    return FiringScores(f1, precision, recall, f1.nanmean().item())


def support_auprc(score: Tensor, factors: Tensor, matching: Tensor | None = None) -> float:
    r"""Area under the curve of precision against recall as the threshold of being on falls: no threshold is chosen.

    .. math:: AP = \sum_t (R_t - R_{t-1}) P_t

    over the different scores t from the largest, where precision and recall are those of the entries of all factors
    with a score of t or more. Scores in random order have the share of entries that are on.

    Args:
        score: ``(N, D)``: the larger, the more likely a coordinate is on. P(on), as of
            :func:`~pyrovae.metrics.nonzero_probability`, or the magnitudes of codes.
        factors: ``(N, K)``, on where not zero.
        matching: A coordinate for each factor, -1 for none, whose entries come last; None takes them in order, with
            K = D.

    Raises: ValueError if the tables do not fit each other, are not finite, or the factors are all zero.
    References: scikit-learn's ``average_precision_score``, of which this is the micro average.
    """
    values, known = paired(score, factors, varies=False)
    true = known != 0
    if not true.any():
        raise ValueError("factors are all zero: they have no support to recover")
    if matching is not None:
        table = torch.from_numpy(values)
        values = matched(table, matching, known.shape[1], fill=-math.inf).numpy()
    if values.shape != known.shape:
        raise ValueError(f"factors must be {values.shape[1]} columns as score, got {known.shape[1]}: give matching")
    order = np.argsort(-values.ravel(), kind="stable")
    ordered = values.ravel()[order]
    last = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(order) - 1)  # of each group of equal scores
    found = np.cumsum(true.ravel()[order])[last]
    recall = found / found[-1]
    return float((np.diff(recall, prepend=0.0) * found / (last + 1)).sum())


def matched(table: Tensor, matching: Tensor, num_factors: int, fill: float = 0.0) -> Tensor:
    """The column of each factor, ``(N, K)``; ``fill`` where a factor has none."""
    pi = torch.as_tensor(matching)
    _check_matching(pi, table.shape[1], num_factors)
    pi = pi.to(table.device)
    return torch.where(pi >= 0, table[:, pi], fill)


def _supports(z: Tensor, factors: Tensor, matching: Tensor | None) -> tuple[Array, Array]:
    """Where matched coordinates and factors are not zero, ``(N, K)`` each."""
    codes, known = paired(z, factors, varies=matching is None)
    if not known.any():
        raise ValueError("factors are all zero: they have no support to recover")
    pi = mcc(z, factors).matching if matching is None else matching
    return matched(torch.from_numpy(codes), pi, known.shape[1]).numpy() != 0, known != 0


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
