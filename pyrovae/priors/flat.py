"""The flat prior: with a point for a guide, the plain autoencoder."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from pyrovae.priors.base import Prior, check_dim

__all__ = ["Flat"]


class Flat(Prior):
    r"""No prior preference: every code has the density 1.

    .. math:: p(z) = 1 , \qquad \log p(z) = 0 , \qquad z \in R^D

    It is improper: its integral is infinite, so that nothing can be drawn from it, no KL from it and no bound on log
    p(x) has a meaning, and what needs one raises. Its guide is a point, :class:`pyrovae.guides.Delta`, and what is
    maximised is :math:`\log p(x|\mu(x))` alone: the plain autoencoder.

    Args:
        dim: Number of latent coordinates :math:`D`.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats, with respect to Lebesgue measure.
    Raises: ValueError where a draw of it is asked for.
    See also: :class:`pyrovae.priors.Laplace` and :class:`pyrovae.priors.Normal`, with which the autoencoder has a
        penalty on the size of its codes.
    """

    improper = True

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = check_dim(dim)

    def distribution(self) -> dist.TorchDistribution:
        return ImproperUniform(constraints.real, (self.dim,), ()).to_event(1)


class ImproperUniform(dist.ImproperUniform):
    """Pyro's of one number, with zeros of the value's own dtype and device, and an error of one line."""

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return value.new_zeros(torch.broadcast_shapes(value.shape, self.batch_shape))

    def sample(self, *args: Any, **kwargs: Any) -> Tensor:
        raise ValueError("prior Flat is improper, its density is 1 everywhere: it has no draws")
