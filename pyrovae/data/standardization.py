"""Columns of different units brought to one scale, and back."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Standardization"]


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
        rows = x.flatten(1).double()
        mean = rows.nanmean(0).nan_to_num()  # of a column that is never observed 0
        deviation = (rows - mean).square().nanmean(0).nan_to_num().sqrt()
        whole = torch.where(rows.isnan(), mean, rows)
        varies = whole.amax(0) > whole.amin(0)
        scale = torch.where(varies, deviation, 1.0)
        return cls(mean, torch.where(scale > 0, scale, 1.0))

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
