r"""How sparse codes are: numbers of a table of codes (N, D), whatever the model that gave them.

Say which codes they are: the deterministic code ``vae.encode(x)`` and a draw from q(z|x) differ a lot, and
:func:`~pyrovae.metrics.codes` gives either. All measures but :func:`exact_zeros` are of

.. math:: y_{nj} = z_{nj} / s_j

where :math:`s_j` is the standard deviation of coordinate j over the data. Without the division a coordinate that no
longer follows the data, and stays near zero, would look sparse. A dimension with :math:`s_j < 10^{-6}` is dead: it is
dropped, :math:`D` counts the others, and ``dead`` says how many were dropped.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Sparsity", "exact_zeros", "gini", "hoyer", "l0", "treves_rolls"]

DEAD = 1e-6  # standard deviation over the data below which a dimension is dropped


class Sparsity(NamedTuple):
    """A measure of each code, ``(N,)``, or of each dimension, its mean, and what it leaves out.

    ``dead`` counts the dimensions that were dropped, ``empty`` the codes of all zeros in those that were kept. What has
    no value is 0 and not in the mean, which is 0 where nothing has one.
    """

    value: Tensor
    mean: float
    dead: int
    empty: int

    @classmethod
    def of(cls, value: Tensor, dead: int, empty: int) -> Sparsity:
        """With the values that are NaN as what has none."""
        mean = value.nanmean().item() if not value.isnan().all() else 0.0
        return cls(value.nan_to_num(0.0), mean, dead, empty)


def exact_zeros(z: Tensor) -> Tensor:
    """The share of codes' coordinates that are exactly zero, ``()``; no small number counts as one.

    Args:
        z: Codes ``(N, D)``.
    """
    return (_checked(z) == 0).to(z.dtype).mean()


def l0(z: Tensor, threshold: float = 0.01) -> Sparsity:
    r"""How many coordinates of each code are away from zero.

    .. math:: L_0(z_n) = \#\{j : |y_{nj}| > \tau\}

    A code of all zeros has 0 and is counted in ``empty``. No dead dimension is counted, not even one that stays at a
    number other than zero.

    Args:
        z: Codes ``(N, D)``.
        threshold: :math:`\tau \ge 0`, in standard deviations of each coordinate; at 0 only exact zeros are away.

    Returns: the number of coordinates, of which there are D - ``dead``.
    Raises: ValueError if ``threshold`` is negative or not finite.
    """
    if not 0.0 <= threshold < math.inf:
        raise ValueError(f"threshold must be at least 0 and finite, got {threshold}")
    y, dead, empty = _relative(z)
    return Sparsity.of((y > threshold).to(z.dtype).sum(1), dead, empty)


def hoyer(z: Tensor) -> Sparsity:
    r"""Hoyer's measure of each code: 1 for a code with one coordinate that is not zero, 0 for equal magnitudes.

    .. math:: H(z_n) = \frac{\sqrt D - \|y_n\|_1 / \|y_n\|_2}{\sqrt D - 1}

    A code of all zeros has no value: it is 0, out of the mean, and ``empty`` counts such codes. With fewer than two
    dimensions alive no code has one, since magnitudes are not compared then.

    Args:
        z: Codes ``(N, D)``.

    References: Hoyer (2004), section 3.1; Mathieu, Rainforth, Siddharth and Teh (2019), "Disentangling disentanglement
    in variational autoencoders", section 6, whose normalisation this is. Dropping dead dimensions is ours.
    """
    y, dead, empty = _relative(z)
    y = _unit_peak(y)
    root, l1, l2 = math.sqrt(y.shape[1]), y.sum(1), y.square().sum(1).sqrt()
    return Sparsity.of((root - l1 / l2) / (root - 1) if root > 1 else torch.full_like(l1, math.nan), dead, empty)


def gini(z: Tensor) -> Sparsity:
    r"""Gini's index of the magnitudes of each code: 0 where all are equal, :math:`1 - 1/D` where one is not zero.

    .. math:: G(z_n) = 1 - 2 \sum_{k=1}^D \frac{|y_n|_{(k)}}{\|y_n\|_1} \, \frac{D - k + \tfrac12}{D}

    with the magnitudes in ascending order. It does not change when a code is concatenated with itself. What has no
    value is 0 and counted as in :func:`hoyer`.

    Args:
        z: Codes ``(N, D)``.

    References: Hurley and Rickard (2009), "Comparing measures of sparsity", table I. The division by :math:`s_j` is
    that of :func:`hoyer`.
    """
    y, dead, empty = _relative(z)
    y, dim = _unit_peak(y).sort(1).values, y.shape[1]
    weights = (dim + 0.5 - torch.arange(1, dim + 1).to(y)) / max(dim, 1)
    value = 1 - 2 * (y * weights).sum(1) / y.sum(1)
    return Sparsity.of(value if dim > 1 else torch.full_like(value, math.nan), dead, empty)


def treves_rolls(z: Tensor, over: str = "population") -> Sparsity:
    r"""The sparseness of Treves and Rolls, from 0 for equal magnitudes to 1 for a single one that is not zero.

    .. math:: S = \frac{1 - \left(\sum_i r_i\right)^2 / \left(m \sum_i r_i^2\right)}{1 - 1/m} , \qquad r_i = |y_i|

    Over the ``"population"`` the sums are over the m = D coordinates of one code: a value for each code. Over the
    ``"lifetime"`` they are over the m = N data at one coordinate, where :math:`s_j` cancels: a value for each dimension
    that is not dead, in order. What has no value is 0 and counted as in :func:`hoyer`.

    Args:
        z: Codes ``(N, D)``.
        over: ``"population"`` or ``"lifetime"``.

    Raises: ValueError if ``over`` is neither.
    References: Treves and Rolls (1991); Vinje and Gallant (2000), "Sparse coding and decorrelation in primary visual
    cortex during natural vision", whose rescaling to [0, 1] this is. Rates are not negative; of codes with signs it is
    the magnitudes, and the division by :math:`s_j` is that of :func:`hoyer`.
    """
    if over not in ("population", "lifetime"):
        raise ValueError(f'over must be "population" or "lifetime", got {over!r}')
    y, dead, empty = _relative(z)
    r = _unit_peak(y if over == "population" else y.T)
    num = r.shape[1]
    value = (1 - r.sum(1) ** 2 / (num * r.square().sum(1))) / (1 - 1 / max(num, 2))
    return Sparsity.of(value if num > 1 else torch.full_like(value, math.nan), dead, empty)


def _relative(z: Tensor) -> tuple[Tensor, int, int]:
    """|z| in standard deviations of the dimensions that are alive; how many are dead, and how many codes are empty."""
    scale = _checked(z).std(0, correction=0)
    alive = scale >= DEAD
    y = (z[:, alive] / scale[alive]).abs()
    kept = z[:, alive] if alive.any() else z
    return y, int((~alive).sum()), int((kept == 0).all(1).sum())


def _unit_peak(y: Tensor) -> Tensor:
    """Each row over its largest number: squares neither overflow nor underflow then; a row of zeros is NaN, 0 / 0."""
    return y / y.amax(1, keepdim=True) if y.shape[1] else y


def _checked(z: Tensor) -> Tensor:
    if z.dim() != 2 or z.numel() == 0 or not z.is_floating_point():
        raise ValueError(f"z must be codes (N, D) of real numbers, got {z.dtype} of shape {tuple(z.shape)}")
    if not bool(torch.isfinite(z).all()):
        row, column = (int(i) for i in (~torch.isfinite(z)).nonzero()[0])
        raise ValueError(f"z must be finite, got {z[row, column].item()} at ({row}, {column})")
    return z
