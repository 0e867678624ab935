"""A guide whose answer is improved for each datum, by coordinate ascent on the bound of that datum."""

from __future__ import annotations

import pyro.distributions as dist
from torch import Tensor, nn

from pyrovae.guides.coordinate_ascent import CoordinateAscent
from pyrovae.guides.exact_zeros import SpikeSlab

__all__ = ["Refined"]


class Refined(CoordinateAscent):
    r"""A spike-and-slab guide under a linear decoder, followed by sweeps of :class:`CoordinateAscent`.

    All coordinates move at once, half of the way. The bound of no datum is below that of ``guide``.

    Args:
        guide: A :class:`~pyrovae.guides.SpikeSlab` with Normal or truncated Normal slabs, where the sweeps
            start.
        prior: As of :class:`CoordinateAscent`.
        likelihood: As of :class:`CoordinateAscent`.
        steps: Number of sweeps.
        train: Whether the sweeps are part of training, too, and gradients go through them; or of ``eval`` mode alone.

    Raises: ValueError if ``steps < 1``, or for parts of other kinds, which have no such update.
    References: Kim et al. (2018), "Semi-amortized variational autoencoders".
    """

    blocks, damping = 1, 0.5  # it starts near, and gradients of many blocks take long to compile

    def __init__(
        self, guide: nn.Module, prior: nn.Module, likelihood: nn.Module, steps: int = 5, train: bool = True
    ) -> None:
        if not isinstance(guide, SpikeSlab) or guide.slab not in ("normal", "truncated-normal"):
            raise ValueError(
                f"guide must be a spike-and-slab guide with Normal or truncated Normal slabs, whose update is known, "
                f"got {type(guide).__name__}"
            )
        super().__init__(prior, likelihood, steps)
        if guide.support is not self.support:
            raise ValueError(
                f"guide must have slabs with the support of those of the prior, {self.support!r}, got {guide.slab!r}: "
                f"take slab='normal' for real and slab='truncated-normal' for positive slabs"
            )
        self.guide, self.refines_training = guide, train

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        start = self.guide.distribution(x)
        if self.training and not self.refines_training:
            return start
        return self.refined(start, x, self.steps).to_event(1)
