r"""Soft thresholds of a Laplace and of a Normal draw: both are a spike and a slab.

.. math:: z = 0 \;\text{ if } |s - \mu| \le \lambda , \qquad z = s - \lambda\, sign(s - \mu) \;\text{ otherwise}

so that z is drawn towards :math:`\mu` by λ and is zero where it would pass it. A Laplace law has no memory: beyond the
threshold it is itself again. A Normal is not, and leaves :class:`~pyrovae.distributions.NormalTails`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Laplace

from pyrovae.distributions.normal_tails import NormalTails
from pyrovae.distributions.spike_slab import SpikeSlab

__all__ = ["thresholded_laplace", "thresholded_normal"]


def thresholded_laplace(loc: Tensor, scale: Tensor, threshold: Tensor) -> SpikeSlab:
    r"""The law of z for :math:`s \sim Laplace(\mu, b)`: a slab Laplace(μ, b), non-zero with :math:`e^{-\lambda/b}`.

    Args:
        loc: :math:`\mu`.
        scale: :math:`b > 0`.
        threshold: :math:`\lambda > 0`.

    References: Fallah and Rozell (2022), "Variational sparse coding with learned thresholding", section 3.
    """
    ratio = _ratio(threshold, scale)
    return SpikeSlab(-ratio - torch.log(-torch.expm1(-ratio)), Laplace(loc, scale))


def thresholded_normal(loc: Tensor, scale: Tensor, threshold: Tensor) -> SpikeSlab:
    r"""The law of z for :math:`s \sim N(\mu, \sigma^2)`: a slab of tails, non-zero with :math:`2\Phi(-\lambda/\sigma)`.

    Args:
        loc: :math:`\mu`.
        scale: :math:`\sigma > 0`.
        threshold: :math:`\lambda > 0`.

    References: Fallah and Rozell (2022), "Variational sparse coding with learned thresholding", section 3.
    """
    ratio = _ratio(threshold, scale)
    root = ratio / math.sqrt(2)
    logits = torch.special.erfcx(root).log() - root**2 - torch.erf(root).log()  # erfc, without its underflow
    return SpikeSlab(logits, NormalTails(loc, scale, threshold))


def _ratio(threshold: Tensor, scale: Tensor) -> Tensor:
    # at exactly 0, where a learned threshold can underflow to, the logits would be infinite
    return (threshold / scale).clamp(min=torch.finfo(scale.dtype).tiny)
