"""Columns of different units brought to one scale, and back."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Moments", "Standardization"]


class Standardization(NamedTuple):
    r"""Each column by itself: :math:`y = (x - m) / s`.

    .. math:: \log p(x) = \log p(y) - \sum_i \log s_i

    NaN stands for what is missing, and stays; columns are measured by what is observed of them.

    Args:
        loc: :math:`m`, the mean of each column, ``(D,)``, in float64.
        scale: :math:`s`, its standard deviation, ``(D,)``; 1 where the column is constant.

    Shape: rows ``(N, *event_shape)`` of D values in all, to rows of the same shape.
    """

    loc: Tensor
    scale: Tensor

    @classmethod
    def of(cls, x: Tensor) -> Standardization:
        """That of the rows of x."""
        moments = Moments()
        moments.add(x)
        return moments.standardization()

    @property
    def log_scale(self) -> float:
        """The nats per datum by which log p(x) is lower than log p(y)."""
        return float(self.scale.double().log().sum())

    def as_lists(self) -> dict[str, list[float]]:
        """Both as JSON keeps them."""
        return {"loc": self.loc.tolist(), "scale": self.scale.tolist()}

    def __call__(self, x: Tensor) -> Tensor:
        """Rows in the data's own units, standardised: in the wider dtype of the rows and ``loc``, then rounded."""
        wide = torch.promote_types(x.dtype, self.loc.dtype)
        loc, scale = self.loc.to(x.device, wide), self.scale.to(x.device, wide)
        return ((x.flatten(1).to(wide) - loc) / scale).reshape(x.shape).to(x.dtype)

    def inverse(self, y: Tensor) -> Tensor:
        """Standardised rows, in the data's own units and in the wider dtype of the rows and ``loc``."""
        wide = torch.promote_types(y.dtype, self.loc.dtype)
        return (y.flatten(1) * self.scale.to(y.device, wide) + self.loc.to(y.device, wide)).reshape(y.shape)


class Moments:
    """Mean, sum of squared deviations, least and largest value of each column, in one pass over blocks of rows.

    They are in float64, of the values that are not NaN, and combined as in Chan, Golub and LeVeque (1979), "Updating
    formulae and a pairwise algorithm for computing sample variances".
    """

    def __init__(self) -> None:
        zero = torch.zeros((), dtype=torch.float64)
        self.count = self.mean = self.squares = zero
        self.low, self.high = zero + torch.inf, zero - torch.inf

    def add(self, x: Tensor) -> None:
        """Count the rows ``(N, *event_shape)`` of a block."""
        rows = x.flatten(1).double()
        count = (~rows.isnan()).sum(0)
        mean = rows.nanmean(0).nan_to_num()  # of a column that is never observed 0
        squares = (rows - mean).square().nansum(0)
        total = self.count + count
        share, delta = (count / total).nan_to_num(), mean - self.mean
        self.mean = self.mean + delta * share
        self.squares = self.squares + squares + delta.square() * self.count * share
        self.count = total
        self.low = torch.minimum(self.low, rows.nan_to_num(torch.inf, torch.inf, -torch.inf).amin(0))
        self.high = torch.maximum(self.high, rows.nan_to_num(-torch.inf, torch.inf, -torch.inf).amax(0))

    def standardization(self) -> Standardization:
        """Mean and standard deviation of each column; the deviation of a constant column is taken as 1."""
        deviation = (self.squares / self.count).nan_to_num().sqrt()
        scale = torch.where(self.high > self.low, deviation, 1.0)
        return Standardization(self.mean, torch.where(scale > 0, scale, 1.0))
