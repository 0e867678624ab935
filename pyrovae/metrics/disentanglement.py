r"""Whether each known factor is in one coordinate of the codes, and each coordinate holds one factor.

Both are tables, codes z ``(N, D)`` and factors v ``(N, K)``, of the same data in the same order. Factors of a whole or
boolean type are discrete, of a floating type continuous. scikit-learn is imported when a measure runs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyrovae.metrics.recovery import Array, paired

__all__ = ["DCI", "Gap", "dci", "mig", "sap"]

EPSILON = 1e-12  # a code's importances below this are none


class Gap(NamedTuple):
    """The mean over the factors of the gap between the coordinate that tells most of each and the next.

    ``gaps`` ``(K,)`` are those of each factor, ``table`` ``(D, K)`` what each coordinate tells of each factor.
    """

    score: float
    gaps: Tensor
    table: Tensor


class DCI(NamedTuple):
    """Disentanglement, completeness and informativeness, the last on rows held out, and the importances, ``(D, K)``."""

    disentanglement: float
    completeness: float
    informativeness: float
    importances: Tensor


def mig(z: Tensor, factors: Tensor, num_bins: int = 20) -> Gap:
    r"""Mutual information gap: 1 where one coordinate tells all of each factor and no other tells anything.

    .. math:: MIG = \frac1K \sum_{k=1}^K \frac{I(z_{(1)}; v_k) - I(z_{(2)}; v_k)}{H(v_k)}

    with the coordinates in descending order of their mutual information with :math:`v_k`. Coordinates, and factors
    that are continuous, are cut in ``num_bins`` bins of equal width between their ends, and what is told is of the
    bins: their number changes the measure. With one coordinate the second information is 0.

    Args:
        z: Codes ``(N, D)``; where it is defined, the posterior mean.
        factors: ``(N, K)``.
        num_bins: At least 2.

    Units: ``table`` is I(z_j; v_k) in nats; from N data it is too large by about :math:`(B-1)(C-1)/2N` for B bins and C
        values of the factor. The gaps have no unit.
    Raises: ValueError if a table is not finite, its rows do not match, a factor is constant or ``num_bins < 2``.
    References: Chen, Li, Grosse and Duvenaud (2018), "Isolating sources of disentanglement in VAEs", eq. 6, with the
        bins of Locatello et al. (2019), "Challenging common assumptions", appendix B.
    """
    codes, known = paired(z, factors)
    if num_bins < 2:
        raise ValueError(f"num_bins must be at least 2, got {num_bins}")
    cut = [_labels(column, num_bins) for column in codes.T]
    values = [_labels(v, num_bins if factors.is_floating_point() else None) for v in known.T]
    table = np.array([[_information(a, b) for b in values] for a in cut])
    return _gap(table, np.array([_information(v, v) for v in values]))


def sap(z: Tensor, factors: Tensor, seed: int = 0) -> Gap:
    r"""Separated attribute predictability: how much better one coordinate predicts each factor than the next does.

    .. math:: SAP = \frac1K \sum_{k=1}^K \left(S_{(1)k} - S_{(2)k}\right)

    where :math:`S_{jk}` is what :math:`z_j` alone predicts of :math:`v_k`: of a continuous factor the share of its
    variance in a line, :math:`corr(z_j, v_k)^2`; of a discrete one the accuracy of a linear support vector machine, of
    C = 0.01 and balanced classes on coordinates of unit scale, trained on a half of the rows and tested on the other. A
    constant coordinate predicts nothing, S = 0. With one coordinate the second number is 0.

    Args:
        z: Codes ``(N, D)``; where it is defined, the posterior mean.
        factors: ``(N, K)``.
        seed: Of the halves, where factors are discrete.

    Raises: ValueError as of :func:`mig`; if the half to train on misses a value of a discrete factor.
    References: Kumar, Sattigeri and Balakrishnan (2018), "Variational inference of disentangled latent concepts",
        section 3; the machine is that of Locatello et al. (2019), the division by the scale ours.
    """
    codes, known = paired(z, factors)
    scale = codes.std(0)
    codes = np.divide(codes - codes.mean(0), scale, out=np.zeros_like(codes), where=codes.min(0) != codes.max(0))
    if factors.is_floating_point():
        table = (codes.T @ ((known - known.mean(0)) / known.std(0)) / len(codes)) ** 2
    else:
        halves = np.array_split(np.random.default_rng(seed).permutation(len(codes)), 2)
        table = np.array([[_svm_accuracy(c, v, k, *halves) for k, v in enumerate(known.T)] for c in codes.T])
    return _gap(table)


def dci(z: Tensor, factors: Tensor, test_share: float = 1 / 3, seed: int = 0) -> DCI:
    r"""Disentanglement, completeness and informativeness, from the importances of gradient-boosted trees.

    Trees predict each factor from the codes; :math:`R_{jk} \ge 0` is how much they use coordinate j for factor k.
    With :math:`p_{jk} = R_{jk} / \sum_k R_{jk}` and :math:`\tilde p_{jk} = R_{jk} / \sum_j R_{jk}`,

    .. math:: D = \sum_j \rho_j \left(1 + \sum_k p_{jk} \log_K p_{jk}\right) , \quad
              \rho_j = \frac{\sum_k R_{jk}}{\sum_{jk} R_{jk}} , \qquad
              C = \frac1K \sum_k \left(1 + \sum_j \tilde p_{jk} \log_D \tilde p_{jk}\right)

    D is 1 where no coordinate serves two factors, C where no factor needs two coordinates. Informativeness is the mean
    over the factors of what the trees predict of rows held out: the accuracy for a discrete factor, the share of
    variance :math:`R^2`, at most 1 and negative where they are worse than the mean, for a continuous one.

    Args:
        z: Codes ``(N, D)``, two columns or more.
        factors: ``(N, K)``, two columns or more.
        test_share: Share of the rows held out, in (0, 1).
        seed: Of the rows and of the trees.

    Raises: ValueError if a table has one column, is not finite, its rows do not match, a factor is constant, every
        coordinate of z is, or all rows of a value of a discrete factor are held out.
    References: Eastwood and Williams (2018), "A framework for the quantitative evaluation of disentangled
        representations", with the trees of Locatello et al. (2019), scikit-learn's at their defaults. There C is
        weighted by :math:`\sum_j R_{jk}`, which is 1 for these trees, and informativeness an error.
    """
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    codes, known = paired(z, factors)
    for name, table in (("z", codes), ("factors", known)):
        if table.shape[1] < 2:
            raise ValueError(f"{name} must have 2 columns or more, got {table.shape[1]}")
    if (codes.min(0) == codes.max(0)).all():
        raise ValueError("z is constant in every coordinate: none has an importance")
    if not 0.0 < test_share < 1.0:
        raise ValueError(f"test_share must be between 0 and 1, got {test_share}")
    num_test = max(1, round(test_share * len(codes)))
    test, train = np.split(np.random.default_rng(seed).permutation(len(codes)), [num_test])
    if len(train) < 2 or len(test) < 2:
        raise ValueError(
            f"z has too few rows, {len(codes)}, to hold {num_test} out: two or more are needed in each part"
        )
    trees = GradientBoostingRegressor if factors.is_floating_point() else GradientBoostingClassifier
    importances, scores = [], []
    for k, v in enumerate(known.T):
        _check_trained(v, k, train, not factors.is_floating_point())
        model = trees(random_state=seed).fit(codes[train], v[train])
        importances.append(np.abs(model.feature_importances_))
        scores.append(model.score(codes[test], v[test]))
    table = np.stack(importances, 1)
    weights = table.sum(1) / max(table.sum(), EPSILON)
    disentanglement = float(weights @ _concentration(table))
    return DCI(disentanglement, float(_concentration(table.T).mean()), float(np.mean(scores)), torch.from_numpy(table))


def _gap(table: Array, scale: Any = 1.0) -> Gap:
    first, second = -np.sort(-np.vstack([table, np.zeros(table.shape[1])]), 0)[:2]
    gaps = (first - second) / scale
    return Gap(float(gaps.mean()), torch.from_numpy(gaps), torch.from_numpy(table))


def _labels(column: Array, num_bins: int | None) -> Array:
    """The bins of a column as whole numbers from 0; None gives each value its own."""
    if num_bins is not None:
        low, high = column.min(), column.max()
        width = (high - low) / num_bins
        column = np.floor((column - low) / width).clip(max=num_bins - 1) if width > 0 else np.zeros_like(column)
    return np.unique(column, return_inverse=True)[1]


def _information(a: Array, b: Array) -> float:
    """I(a; b) of two columns of labels, in nats; that of a column with itself is its entropy."""
    joint = np.bincount(a * (b.max() + 1) + b, minlength=(a.max() + 1) * (b.max() + 1)) / len(a)
    joint = joint.reshape(a.max() + 1, b.max() + 1)
    product = joint.sum(1, keepdims=True) * joint.sum(0)
    seen = joint > 0
    return float(max(0.0, (joint[seen] * np.log(joint[seen] / product[seen])).sum()))


def _svm_accuracy(column: Array, factor: Array, k: int, train: Array, test: Array) -> float:
    from sklearn.svm import LinearSVC

    _check_trained(factor, k, train, discrete=True)
    if column.min() == column.max():
        return 0.0
    model = LinearSVC(C=0.01, class_weight="balanced", dual=False, max_iter=10_000)
    return float(model.fit(column[train, None], factor[train]).score(column[test, None], factor[test]))


def _check_trained(factor: Array, k: int, train: Array, discrete: bool) -> None:
    """ValueError unless a factor varies in the rows to train on and, if it is discrete, has its every value there."""
    if len(np.unique(factor[train])) < (len(np.unique(factor)) if discrete else 2):
        raise ValueError(f"factors: the rows to train on miss values of column {k}, which needs more rows of each")


def _concentration(table: Array) -> Array:
    """One less the entropy of each row's shares, in units of the largest that it can be; 0 of a row of zeros."""
    total = table.sum(1, keepdims=True)
    shares = np.divide(table, total, out=np.full_like(table, 1 / table.shape[1]), where=total > EPSILON)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return 1 + (shares * logs).sum(1) / np.log(table.shape[1])
