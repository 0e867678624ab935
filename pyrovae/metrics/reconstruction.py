"""How much of the data a reconstruction has, and whether it is too small: numbers of two tables, whatever made them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Shrinkage", "explained_variance", "shrinkage"]


class Shrinkage(NamedTuple):
    """``norm_ratio``, below 1 where reconstructions are too short; ``slope``, above 1 where they are too small."""

    norm_ratio: float
    slope: float


def explained_variance(x: Tensor, reconstruction: Tensor) -> float:
    r"""The share of the variance of the data that a reconstruction has.

    .. math:: 1 - \frac{\sum_n \|x_n - \hat x_n\|^2}{\sum_n \|x_n - \bar x\|^2}

    1 for the data themselves, 0 for their mean, below 0 for what is worse than the mean. Values that are missing in x,
    NaN, are left out of both sums and of the mean.

    Args:
        x: ``(N, *event_shape)``.
        reconstruction: The same shape, such as ``vae.reconstruct(x)``.

    Raises: ValueError if the shapes differ, ``reconstruction`` is not finite, or x does not vary.
    """
    rows, made = _pair(x, reconstruction)
    spread = (rows - rows.nanmean(0)).square().nansum()
    if not spread > 0:
        raise ValueError("x must vary over the data: every row is the same")
    return (1 - (rows - made).square().nansum() / spread).item()


def shrinkage(x: Tensor, reconstruction: Tensor) -> Shrinkage:
    r"""Whether a reconstruction is smaller than the data, as a penalty on magnitudes makes it.

    .. math:: \frac1N \sum_n \frac{\|\hat x_n\|}{\|x_n\|} , \qquad
              \frac{\sum_n \langle x_n, \hat x_n \rangle}{\sum_n \|\hat x_n\|^2}

    The second is the slope of the regression of x on :math:`\hat x` through the origin: what to multiply the
    reconstruction by for the least squared error. Both are 1 for the data themselves. Rows of zeros are left out of
    the first, missing values of both.

    Args:
        x: ``(N, *event_shape)``.
        reconstruction: The same shape.

    Raises: ValueError if the shapes differ, ``reconstruction`` is not finite, or x or ``reconstruction`` is all zero.
    References: Rajamanoharan et al. (2024), "Improving dictionary learning with gated sparse autoencoders", whose
        relative reconstruction bias is 1 / slope.
    """
    rows, made = _pair(x, reconstruction)
    made = torch.where(rows.isnan(), 0.0, made)
    rows = rows.nan_to_num(0.0)
    lengths, made_lengths = rows.norm(dim=1), made.norm(dim=1)
    for name, table in (("x", lengths), ("reconstruction", made_lengths)):
        if not table.any():
            raise ValueError(f"{name} must not be zero in every row")
    ratio = (made_lengths / lengths)[lengths > 0].mean().item()
    return Shrinkage(ratio, ((rows * made).sum() / made.square().sum()).item())


def _pair(x: Tensor, reconstruction: Tensor) -> tuple[Tensor, Tensor]:
    """Both as tables of rows in float64."""
    if x.shape != reconstruction.shape or x.dim() == 0 or x.numel() == 0:
        raise ValueError(
            f"reconstruction must be of the shape {tuple(x.shape)} of x, got {tuple(reconstruction.shape)}"
        )
    if not bool(torch.isfinite(reconstruction).all()):
        raise ValueError("reconstruction must be finite, got NaN or infinity")
    if bool(x.isinf().any()):
        raise ValueError("x must be finite or missing (NaN), got infinity")
    rows, made = (table.detach().double().reshape(len(x), -1) for table in (x, reconstruction))
    return rows, made
