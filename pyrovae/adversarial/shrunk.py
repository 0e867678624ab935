"""A guide of exact zeros whose draws have a path."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Size, Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import softshrink

from pyrovae.distributions.spike_slab import real_with_atom
from pyrovae.guides import Guide
from pyrovae.guides.base import positive

__all__ = ["Shrunk"]


class Shrunk(Guide):
    r"""A Normal draw, drawn to zero by a threshold, and exactly zero within it.

    .. math:: z_i = sign(s_i) \max(|s_i| - \lambda, 0) , \qquad s_i \sim N(\mu_i(x), \sigma_i(x)^2)

    z is continuous in s, so that the gradient of what reads z is wholly pathwise and unbiased, where the gates of
    :class:`pyrovae.guides.SpikeSlab` pass theirs straight through. It is drawn and not evaluated: for
    :class:`~pyrovae.AdversarialAutoencoder`, under a prior with exact zeros.

    Args:
        network: The trunk of the encoder.
        dim: Number of latent coordinates :math:`D`.
        threshold: :math:`\lambda > 0`.

    The code of x is the median, :math:`\mu` so shrunk.

    Raises: ValueError if ``threshold <= 0``; NotImplementedError where a density is asked for.
    """

    support = real_with_atom

    def __init__(self, network: nn.Module, dim: int, threshold: float = 0.5) -> None:
        super().__init__(network, dim, 2 * dim)
        if not 0 < threshold < math.inf:
            raise ValueError(f"threshold must be positive, got {threshold}")
        self.threshold = threshold

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        loc, raw = self.head(self.network(x)).chunk(2, -1)
        return _ShrunkNormal(loc, positive(raw), self.threshold)

    def encode(self, x: Tensor) -> Tensor:
        return softshrink(self.head(self.network(x)).chunk(2, -1)[0], self.threshold)


class _ShrunkNormal(dist.TorchDistribution):
    """Vectors of it."""

    arg_constraints = {"loc": constraints.real_vector, "scale": constraints.independent(constraints.positive, 1)}  # noqa: RUF012  # torch's own type
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, threshold: float, validate_args: bool | None = None) -> None:
        self.loc, self.scale, self.threshold = loc, scale, threshold
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(real_with_atom, 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> _ShrunkNormal:
        shape = (*batch_shape, *self.event_shape)
        return _ShrunkNormal(self.loc.expand(shape), self.scale.expand(shape), self.threshold, validate_args=False)

    def rsample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008  # as torch's own
        noise = torch.randn(self._extended_shape(Size(sample_shape)), dtype=self.loc.dtype, device=self.loc.device)
        return softshrink(self.loc + self.scale * noise, self.threshold)

    def log_prob(self, value: Tensor) -> Tensor:
        raise NotImplementedError("the guide Shrunk has draws and no density: it is for pyrovae.AdversarialAutoencoder")
