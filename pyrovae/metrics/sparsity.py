r"""How sparse codes are: numbers of a table of codes (N, D), whatever the model that gave them.

Say which codes they are: the deterministic code ``vae.encode(x)`` and a draw from q(z|x) differ a lot.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Hoyer", "exact_zeros", "hoyer"]

DEAD = 1e-6  # standard deviation over the data below which a dimension is dropped


class Hoyer(NamedTuple):
    """Hoyer's measure of each code, ``(N,)``, and what it leaves out.

    ``dead`` counts the dimensions that were dropped, ``empty`` the codes of all zeros in those that were kept.
    """

    value: Tensor
    dead: int
    empty: int

    @property
    def mean(self) -> float | None:
        """The mean over the codes that have a value; None where none has."""
        mean = self.value.nanmean().item()
        return None if math.isnan(mean) else mean


def exact_zeros(z: Tensor) -> Tensor:
    """The share of codes' coordinates that are exactly zero, ``()``; no small number counts as one.

    Args:
        z: Codes ``(N, D)``.
    """
    return (_checked(z) == 0).to(z.dtype).mean()


def hoyer(z: Tensor) -> Hoyer:
    r"""Hoyer's measure of each code: 1 for a code with one coordinate that is not zero, 0 for equal magnitudes.

    .. math:: H(z) = \frac{\sqrt D - \|y\|_1 / \|y\|_2}{\sqrt D - 1} , \qquad y_j = z_j / s_j

    where :math:`s_j` is the standard deviation of coordinate j over the data. Without the division a coordinate that
    no longer follows the data, and stays near zero, would look sparse. A dimension with :math:`s_j < 10^{-6}` is dead:
    it is dropped, :math:`D` counts the others, and ``dead`` says how many were dropped.

    A code of all zeros has no value: it is NaN, and ``empty`` counts such codes. With fewer than two dimensions alive
    every value is NaN, since magnitudes are not compared then.

    Args:
        z: Codes ``(N, D)``.

    References: Hoyer (2004), section 3.1; Mathieu, Rainforth, Siddharth and Teh (2019), "Disentangling disentanglement
    in variational autoencoders", section 6, whose normalisation this is. Dropping dead dimensions is ours.
    """
    scale = _checked(z).std(0, correction=0)
    alive = scale >= DEAD
    y = (z[:, alive] / scale[alive]).abs()
    y = y / y.amax(1, keepdim=True) if y.shape[1] else y  # squares neither overflow nor underflow; 0 / 0 is NaN
    root, l1, l2 = math.sqrt(y.shape[1]), y.sum(1), y.square().sum(1).sqrt()
    value = (root - l1 / l2) / (root - 1) if root > 1 else torch.full_like(l1, math.nan)
    empty = int((z[:, alive] == 0).all(1).sum()) if y.shape[1] else 0
    return Hoyer(value, int((~alive).sum()), empty)


def _checked(z: Tensor) -> Tensor:
    if z.dim() != 2 or z.numel() == 0 or not z.is_floating_point():
        raise ValueError(f"z must be codes (N, D) of real numbers, got {z.dtype} of shape {tuple(z.shape)}")
    return z
