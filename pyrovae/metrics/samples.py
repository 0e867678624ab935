"""What draws are like: which classes they cover, how near they come to the data, and whether two laws are one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["ClassCoverage", "MMDTest", "NearestNeighbors", "class_coverage", "mmd_test", "nearest_neighbors"]

ROWS = 1024  # of one pass
AT_ONCE = 256  # permutations of one product


class ClassCoverage(NamedTuple):
    """``share`` of each class, ``(C,)``; how many are ``missing``; and the ``kl`` from classes of equal share, in nats,
    which is 0 where all are equal and log C where there is one."""

    share: Tensor
    missing: int
    kl: float


def class_coverage(classify: Callable[[Tensor], Tensor], x: Tensor, num_classes: int = 10) -> ClassCoverage:
    r"""The share of each class among draws, as a classifier of data sees them: has a generator collapsed onto some?

    .. math:: KL(s \,\|\, u) = \sum_c s_c \log(C s_c)

    A draw that is like no class is counted in one all the same, and draws of one class may be copies of each other.

    Args:
        classify: Maps data to the label of each row, whole numbers from 0 to C - 1. Its accuracy on real data is what
            the shares are worth.
        x: Draws, ``(N, *event_shape)``.
        num_classes: :math:`C`.

    Raises: ValueError when labels are of another shape or out of range.
    """
    if len(x) == 0:
        raise ValueError("x has no rows")
    with torch.no_grad():
        labels = torch.cat([classify(rows) for rows in x.split(ROWS)])
    if labels.shape != (len(x),) or labels.is_floating_point() or not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(
            f"classify must return whole numbers from 0 to {num_classes - 1}, one for each of {len(x)} rows, got "
            f"{labels.dtype} of shape {tuple(labels.shape)}"
        )
    share = torch.bincount(labels, minlength=num_classes).double() / len(x)
    return ClassCoverage(share, int((share == 0).sum()), float(torch.special.xlogy(share, num_classes * share).sum()))


class NearestNeighbors(NamedTuple):
    """The distance of each draw, and of each held-out datum, from the nearest training datum; and ``nearer``, how often
    a draw is the nearer one of the two: 1/2 where draws are like new data, near 1 where they are copies."""

    samples: Tensor
    held_out: Tensor
    nearer: float


def nearest_neighbors(samples: Tensor, train: Tensor, held_out: Tensor) -> NearestNeighbors:
    r"""How near draws come to the training data, beside how near new data come to them.

    .. math:: \min_n \|\tilde x - x_n\| , \qquad \text{nearer} = P(\tilde d < d) + \tfrac12 P(\tilde d = d)

    over pairs of a draw and a held-out datum. Copies of the training data are nearer than new data; blurred draws are
    too, since a mean is near to all, and pictures tell the two apart.

    Args:
        samples: Draws, ``(N, *event_shape)``.
        train: What the model was trained on.
        held_out: What it was not.

    Units: Euclidean distances, in those of the data.
    """
    for name, x in (("samples", samples), ("held_out", held_out), ("train", train)):
        if x.shape[1:] != train.shape[1:] or len(x) == 0:
            raise ValueError(f"{name} must have rows of shape {tuple(train.shape[1:])}, got {tuple(x.shape)}")
    ours, new = (_nearest(x.flatten(1), train.flatten(1)) for x in (samples, held_out))
    ordered = new.sort().values
    below, up_to = (torch.searchsorted(ordered, ours, right=right) for right in (False, True))
    nearer = 1 - (below + up_to).double().mean() / (2 * len(new))
    return NearestNeighbors(ours, new, float(nearer))


class MMDTest(NamedTuple):
    """The unbiased squared discrepancy, its p-value, and the bandwidth of the kernel."""

    squared_mmd: float
    p_value: float
    bandwidth: float


def mmd_test(
    a: Tensor, b: Tensor, bandwidth: float | None = None, num_permutations: int = 999, seed: int = 0
) -> MMDTest:
    r"""Whether two sets of draws are of one law: a permutation test of the maximum mean discrepancy.

    .. math::
        \widehat{MMD}^2 = \frac{1}{M(M-1)} \sum_{i \ne j} k(a_i, a_j) + \frac{1}{N(N-1)} \sum_{i \ne j} k(b_i, b_j)
        - \frac{2}{MN} \sum_{i,j} k(a_i, b_j) , \qquad k(a, b) = e^{-\|a - b\|^2 / 2 h^2}

    unbiased, and so below zero as often as above where the laws are one. The p-value is the rank of it among those of
    random divisions of all the rows into M and N; under one law it is at most p with probability p, for any M and N.
    The test sees what the kernel sees: an exact zero is to it what a number much smaller than h is.

    Args:
        a: ``(M, *event_shape)``, independent rows.
        b: ``(N, *event_shape)``, independent rows.
        bandwidth: :math:`h`; None is the median distance between any two rows that differ.
        num_permutations: The least p-value is one over one more.
        seed: Of the divisions.

    References: Gretton, Borgwardt, Rasch, Schoelkopf and Smola (2012), "A kernel two-sample test", eq. 3 and section 8
        for the median; Phipson and Smyth (2010), "Permutation p-values should never be zero".
    See also: :class:`pyrovae.MMD`, the same number as a penalty.
    """
    if a.shape[1:] != b.shape[1:] or min(len(a), len(b)) < 2:
        raise ValueError(f"a and b must have 2 or more rows of one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    if num_permutations < 1:
        raise ValueError(f"num_permutations must be at least 1, got {num_permutations}")
    if bandwidth is not None and not bandwidth > 0:
        raise ValueError(f"bandwidth must be positive, got {bandwidth}")
    rows = torch.cat([a, b]).flatten(1).double()
    if not bool(torch.isfinite(rows).all()):
        raise ValueError("a and b must be finite, got NaN or infinity")
    distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    if bandwidth is None:
        apart = distances[distances > 0]
        bandwidth = float(apart.median()) if len(apart) else 1.0
    kernel = torch.exp(-distances.square() / (2 * bandwidth**2)).fill_diagonal_(0)
    generator = torch.Generator().manual_seed(seed)
    order = torch.arange(len(rows))
    divisions = [order, *(torch.randperm(len(rows), generator=generator) for _ in range(num_permutations))]
    found = torch.cat(
        [_squared_mmd(kernel, divisions[i : i + AT_ONCE], len(a)) for i in range(0, len(divisions), AT_ONCE)]
    )
    # a division that is the given one but for its order must count as equal, whatever its sums were rounded to
    as_large = found[1:] >= found[0] - 1e-12
    return MMDTest(float(found[0]), (1 + int(as_large.sum())) / (1 + num_permutations), bandwidth)


def _squared_mmd(kernel: Tensor, divisions: list[Tensor], m: int) -> Tensor:
    """Of each division of the rows into the first m and the others, from a kernel whose diagonal is 0."""
    n = len(kernel) - m
    first = torch.zeros(len(kernel), len(divisions), dtype=kernel.dtype, device=kernel.device)
    for column, order in enumerate(divisions):
        first[order[:m], column] = 1
    within = (first * (kernel @ first)).sum(0)
    across = (first * kernel.sum(1, keepdim=True)).sum(0) - within
    others = kernel.sum() - within - 2 * across
    return within / (m * (m - 1)) + others / (n * (n - 1)) - 2 * across / (m * n)


def _nearest(x: Tensor, to: Tensor) -> Tensor:
    """By products of x and ``to``, whose rounding moves a distance near zero by some 1e-3 of their norms in float32."""
    return torch.cat([torch.cdist(rows, to).amin(1) for rows in x.split(ROWS // 4)])
