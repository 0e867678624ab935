r"""Supports of codes: which coordinates are not exactly zero, how often each is, and how supports vary over the data.

A code is sparse per datum if different data have different supports. Codes in which the same coordinates are on for
all data have exact zeros too: such a code chooses dimensions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "ActiveDimension",
    "SupportVariety",
    "Supports",
    "active_dimension",
    "check_probabilities",
    "on_table",
    "support_variety",
    "supports",
    "variety_if_sparse",
]

DEAD, DENSE, ALWAYS = 1e-6, 0.5, 0.95  # shares of the data in which a latent is on
CHUNK = 2**24  # numbers of one table
BITS = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)  # of each byte


class Supports(NamedTuple):
    """How many coordinates of each code are on, and how often each coordinate is.

    ``l0`` ``(N,)`` counts the coordinates of a code that are not zero: ``l0.bincount(minlength=D + 1)`` is their
    distribution. ``density`` ``(D,)`` is the share of data in which a coordinate is on. ``dead`` counts the coordinates
    with a density below 1e-6, ``dense`` those above 0.5, and ``always_on`` is the share of coordinates above 0.95.
    """

    l0: Tensor
    density: Tensor
    dead: int
    dense: int
    always_on: float


class SupportVariety(NamedTuple):
    """The mean Jaccard distance of two supports; that of two data of one label, and of two labels; None without pairs.

    ``num_supports`` counts the different supports of all codes, ``num_pairs`` the pairs of the means; ``exact`` says
    whether these are all pairs.
    """

    jaccard: float
    within: float | None
    between: float | None
    num_supports: int
    num_pairs: int
    exact: bool


class ActiveDimension(NamedTuple):
    """Of each datum, ``(N,)``: ``num_active`` coordinates are more likely on than off; and how many are on.

    The number that is on has the posterior ``mean``, and lies between ``low`` and ``high``, both included, with a
    probability of ``level`` or more.
    """

    num_active: Tensor
    mean: Tensor
    low: Tensor
    high: Tensor
    level: float


def supports(z: Tensor) -> Supports:
    r"""The number of coordinates that are on in each code, and the share of codes in which each coordinate is.

    .. math:: L_0(z_n) = \#\{j : z_{nj} \ne 0\} , \qquad d_j = \frac1N \#\{n : z_{nj} \ne 0\}

    Only an exact zero is off. :func:`~pyrovae.metrics.l0` counts with a threshold instead, and leaves out coordinates
    that do not vary.

    Args:
        z: Codes ``(N, D)``.

    Raises: ValueError if z is no table of codes, or has a NaN.
    """
    on = on_table(z)
    density = on.double().mean(0)
    dead, dense = int((density < DEAD).sum()), int((density > DENSE).sum())
    return Supports(on.sum(1), density, dead, dense, (density > ALWAYS).double().mean().item())


def support_variety(z: Tensor, labels: Tensor | None = None, num_pairs: int = 100_000, seed: int = 0) -> SupportVariety:
    r"""How different the supports of two data are.

    .. math:: J = E_{n \ne m} \left[1 - \frac{|S_n \cap S_m|}{|S_n \cup S_m|}\right] , \qquad S_n = \{j : z_{nj} \ne 0\}

    0 where all data share one support, as two empty supports do; 1 where no two data share a coordinate. All pairs are
    taken if there are at most ``num_pairs``; otherwise so many at random, whose mean has a standard error of
    :math:`1 / (2 \sqrt{num\_pairs})` at most.

    Args:
        z: Codes ``(N, D)``, N at least 2.
        labels: ``(N,)``; with them the mean is also that of pairs of one label, and of two.
        num_pairs: The most pairs.
        seed: Of the pairs.

    Raises: ValueError if z is no table of codes or has one row, ``labels`` are not one for each row, or
        ``num_pairs < 1``.
    """
    on = on_table(z)
    num = len(on)
    if num < 2:
        raise ValueError(f"z must be two codes or more to compare, got {num}")
    if labels is not None and labels.shape != (num,):
        raise ValueError(f"labels must be one for each of {num} codes, got shape {tuple(labels.shape)}")
    if num_pairs < 1:
        raise ValueError(f"num_pairs must be at least 1, got {num_pairs}")
    exact = num * (num - 1) // 2 <= num_pairs
    first, second = _pairs(num, None if exact else num_pairs, seed)
    packed = np.packbits(on.cpu().numpy(), axis=1)
    rows = max(1, CHUNK // packed.shape[1])
    parts = zip(first.split(rows), second.split(rows), strict=True)
    shared = np.concatenate([BITS[packed[a] & packed[b]].sum(1, dtype=np.int64) for a, b in parts])
    sizes = on.sum(1).cpu()
    both = torch.from_numpy(shared).double()
    union = sizes[first] + sizes[second] - both
    distance = 1 - torch.where(union > 0, both / union, 1.0)
    within = between = None
    if labels is not None:
        same = labels.cpu()[first] == labels.cpu()[second]
        within, between = (distance[mask].mean().item() if mask.any() else None for mask in (same, ~same))
    num_supports = len(np.unique(packed, axis=0))
    return SupportVariety(distance.mean().item(), within, between, num_supports, len(first), exact)


def variety_if_sparse(z: Tensor, labels: Tensor | None = None) -> SupportVariety | None:
    """The variety of supports; None for fewer than two codes and for codes without an exact zero."""
    return support_variety(z, labels) if len(z) > 1 and bool((z == 0).any()) else None


def active_dimension(probability: Tensor, level: float = 0.9) -> ActiveDimension:
    r"""How many coordinates each datum uses, with a posterior interval.

    .. math:: a_n = \sum_j 1[\gamma_{nj} > \tfrac12] , \qquad \gamma_{nj} = P(z_j \ne 0 | x_n)

    With independent gates their number has a Poisson-binomial distribution, which is computed exactly, by convolution.
    The interval goes from its quantile of :math:`(1 - level) / 2` to that of :math:`(1 + level) / 2`.

    Args:
        probability: :math:`\gamma`, ``(N, D)``, such as :func:`~pyrovae.metrics.nonzero_probability` gives.
        level: In (0, 1).

    Raises: ValueError if ``probability`` is no table of probabilities or ``level`` is out of range.
    References: Wang (1993), "On the number of successes in independent trials".
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    check_probabilities(probability)
    gamma = probability.detach().double()
    bounds = [_quantiles(part, level) for part in gamma.split(max(1, CHUNK // (8 * gamma.shape[1])))]
    low, high = (torch.cat(part) for part in zip(*bounds, strict=True))
    return ActiveDimension((gamma > 0.5).sum(1), gamma.sum(1), low, high, level)


def check_probabilities(probability: Tensor) -> None:
    """Refuse what is no table of probabilities."""
    if probability.dim() != 2 or probability.numel() == 0 or not probability.is_floating_point():
        raise ValueError(
            f"probability must be a table (N, D) of real numbers, got {probability.dtype} of shape "
            f"{tuple(probability.shape)}"
        )
    if not bool(((probability >= 0) & (probability <= 1)).all()):
        raise ValueError("probability must be between 0 and 1, got NaN or a number outside")


def on_table(z: Tensor) -> Tensor:
    if z.dim() != 2 or z.numel() == 0 or z.is_complex():
        raise ValueError(f"z must be codes (N, D) of real numbers, got {z.dtype} of shape {tuple(z.shape)}")
    if bool(z.isnan().any()):
        raise ValueError("z must be numbers, got NaN")
    return z.detach() != 0


def _pairs(num: int, most: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """Two different rows for each pair: all pairs, or ``most`` at random."""
    if most is None:
        first, second = torch.triu_indices(num, num, 1)
        return first, second
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(num, (most,), generator=generator)
    return first, (first + torch.randint(1, num, (most,), generator=generator)) % num


def _quantiles(gamma: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """Of the number of successes, the smallest counts whose distribution function reaches each end of the interval."""
    below = _masses(gamma).cumsum(1)
    low, high = ((below < end).sum(1).clamp(max=gamma.shape[1]) for end in ((1 - level) / 2, (1 + level) / 2))
    return low, high


def _masses(gamma: Tensor) -> Tensor:
    """P(k successes), ``(N, D + 1)``: distributions of halves are convolved by FFT, from single gates upwards."""
    mass = torch.stack([1 - gamma, gamma], dim=2)  # (N, number of distributions, counts)
    while mass.shape[1] > 1:
        if mass.shape[1] % 2:
            never = torch.zeros_like(mass[:, :1])
            never[..., 0] = 1.0
            mass = torch.cat([mass, never], dim=1)
        size = 2 * mass.shape[2] - 1
        transformed = torch.fft.rfft(mass, size)
        mass = torch.fft.irfft(transformed[:, ::2] * transformed[:, 1::2], size)
    return mass[:, 0, : gamma.shape[1] + 1]
