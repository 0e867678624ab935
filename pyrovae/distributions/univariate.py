"""What the univariate densities share: parameters that broadcast, ``expand``, and positive draws that stay positive."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

__all__ = ["SCALAR", "Shape", "Univariate", "exp_of_draw"]

Shape = Size | list[int] | tuple[int, ...]
SCALAR = Size()


class Univariate(TorchDistribution):
    """A density of one number whose parameters are those that ``arg_constraints`` names, in that order."""

    arg_constraints: ClassVar[dict[str, Any]]
    support: Any = constraints.real
    has_rsample = True

    def __init__(self, *parameters: Tensor | float, validate_args: bool | None = None) -> None:
        for name, value in zip(self.arg_constraints, broadcast_all(*parameters), strict=True):
            setattr(self, name, value)
        super().__init__(getattr(self, next(iter(self.arg_constraints))).shape, validate_args=validate_args)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Any:
        new = self._get_checked_instance(type(self), _instance)
        for name in self.arg_constraints:
            setattr(new, name, getattr(self, name).expand(batch_shape))
        TorchDistribution.__init__(new, Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new


def exp_of_draw(log_z: Tensor) -> Tensor:
    """exp(log z) of a draw, at least the smallest normal float (1.2e-38 in float32), where the log-density is finite.

    A draw below it stands there, with no gradient: so much mass sits on that one float as the law has below it.
    """
    return log_z.exp().clamp(min=torch.finfo(log_z.dtype).tiny)


class Symmetric(Univariate):
    """A univariate density with its one peak and its mean at ``loc``."""

    loc: Tensor

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc
