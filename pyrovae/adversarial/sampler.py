"""A prior that can be drawn and has no density."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions import constraints

from pyrovae.priors import Prior

__all__ = ["Sampler"]

SCALAR = Size()
Draw = Callable[[int], Tensor]


class Sampler(Prior):
    """p(z) given by its draws alone.

    :class:`~pyrovae.AdversarialAutoencoder` and :class:`~pyrovae.GAN` take it, and so does every Pyro model that only
    draws; what asks for its density raises.

    Args:
        draw: Given a number of rows N, returns N independent codes ``(N, D)``, by torch's own random state.
        dim: :math:`D`.
        support: Where each coordinate lies; the guide's must be the same.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Raises: ValueError if ``dim < 1``; when it draws, if what ``draw`` returned has another shape; NotImplementedError
        where a density is asked for.
    Example:
        >>> circle = Sampler(lambda n: torch.nn.functional.normalize(torch.randn(n, 2)), 2)
        >>> circle.distribution().sample((3,)).shape
        torch.Size([3, 2])
    """

    def __init__(self, draw: Draw, dim: int, support: constraints.Constraint = constraints.real) -> None:
        super().__init__()
        if not callable(draw):
            raise ValueError(f"draw must be a function of a number of rows, got {draw!r}")
        if not isinstance(dim, int) or dim < 1:
            raise ValueError(f"dim must be a positive whole number, got {dim!r}")
        self.draw, self.dim, self.where = draw, dim, support
        self.register_buffer("like", torch.zeros(()), persistent=False)  # draws follow its device and dtype

    def distribution(self) -> dist.TorchDistribution:
        like: Any = self.like
        return _Drawn(lambda n: self.draw(n).to(like), self.dim, self.where)


class _Drawn(dist.TorchDistribution):
    """Rows of a function."""

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012  # torch's own type
    has_rsample = False

    def __init__(self, draw: Draw, dim: int, support: constraints.Constraint, batch_shape: Size = SCALAR) -> None:
        self._draw, self._where = draw, support
        super().__init__(batch_shape, Size((dim,)), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(self._where, 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> _Drawn:
        return _Drawn(self._draw, self.event_shape[0], self._where, Size(batch_shape))

    def sample(self, sample_shape: Any = SCALAR) -> Tensor:
        shape = self._extended_shape(Size(sample_shape))
        with torch.no_grad():
            z = self._draw(shape[:-1].numel())
        if z.shape != (shape[:-1].numel(), shape[-1]):
            expected = (shape[:-1].numel(), shape[-1])
            raise ValueError(f"draw must return codes of shape {expected}, got {tuple(z.shape)}")
        return z.reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        raise NotImplementedError(
            "the prior is a Sampler, which has draws and no density: pyrovae.AdversarialAutoencoder matches codes to it"
        )
