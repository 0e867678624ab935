"""Labels beside what an encoder sees."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pyrovae.nn.shapes import Shape, positive_shape

__all__ = ["Labelled"]


class Labelled(nn.Module):
    """An encoder of x and its label, which come as one row: the numbers of x, and after them the label one-hot.

    An image network reads the label as planes, one for each label, that are 1 or 0 all over, as more channels of x; any
    other one reads the row as it is.

    Args:
        network: The encoder. It says its ``in_shape``, ``(C + num_labels, H, W)`` or the width of the row, and its
            ``out_features``.
        in_shape: Shape of x.
        num_labels: Columns of the label.
        corrupt: A function of x, as of :class:`Corrupted`, applied in ``train`` mode; the label stays as it is.

    Shape: ``(*batch, prod(in_shape) + num_labels)`` to that of the network.
    Raises: ValueError if the network reads something else.
    Example:
        >>> from pyrovae.nn import ConvEncoder
        >>> Labelled(ConvEncoder((11, 8, 8), hidden=32), (1, 8, 8), 10).out_features
        32
    """

    def __init__(
        self,
        network: nn.Module,
        in_shape: Shape,
        num_labels: int,
        corrupt: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.x_shape, self.num_labels = positive_shape("in_shape", in_shape), num_labels
        self.in_shape = (math.prod(self.x_shape) + num_labels,)
        planes = (self.x_shape[0] + num_labels, *self.x_shape[1:])
        reads = getattr(network, "in_shape", None)
        if reads not in (self.in_shape, planes):
            raise ValueError(f"network must say an in_shape of {self.in_shape} or {planes}, got {reads}")
        self.network, self.corrupt = network, corrupt
        self.as_planes = reads != self.in_shape
        self.out_features = network.out_features

    def forward(self, row: Tensor) -> Tensor:
        x, label = row.split((self.in_shape[0] - self.num_labels, self.num_labels), -1)
        x = x.reshape(*row.shape[:-1], *self.x_shape)
        if self.training and self.corrupt is not None:
            x = self.corrupt(x)
        if not self.as_planes:
            return self.network(torch.cat([x.reshape(*row.shape[:-1], -1), label], -1))
        planes = label[..., None, None].expand(*label.shape, *self.x_shape[1:])
        return self.network(torch.cat([x, planes], -3))
