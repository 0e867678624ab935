"""Numbers of a prior or a likelihood that stay in an interval: fixed buffers, or parameters that are learned."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Constrained", "all_true"]


class Constrained(nn.Module):
    r"""A hyper-parameter: called, it gives its value.

    Learned, it is a parameter :math:`r` without bounds that starts at ``value``:

    .. math:: lower + softplus(r), \qquad lower + (upper - lower)\, \sigma(r), \qquad r

    for a half line, an interval and the whole line.

    Args:
        name: What an error calls it.
        value: The value, or where it starts; a number or a tensor that expands to ``shape``.
        shape: One value for each coordinate, or ``()`` for one that all share.
        lower: The value is above this.
        upper: The value is below this.
        learned: Whether it is an ``nn.Parameter``.

    Raises: ValueError if ``value`` is not strictly between the bounds.
    """

    value: Tensor

    def __init__(
        self,
        name: str,
        value: float | Tensor,
        shape: tuple[int, ...] = (),
        lower: float = -math.inf,
        upper: float = math.inf,
        learned: bool = False,
    ) -> None:
        super().__init__()
        start = torch.as_tensor(value, dtype=torch.get_default_dtype()).detach().clone()
        if not all_true((start > lower) & (start < upper)):
            raise ValueError(f"{name} must be {_interval(lower, upper)}, got {value}")
        self.lower, self.upper = lower, upper
        if learned:
            self.raw = nn.Parameter(self._inverse(start).expand(shape).clone())
        else:
            self.register_buffer("value", start.expand(shape).clone())

    def forward(self) -> Tensor:
        raw = getattr(self, "raw", None)
        if raw is None:
            return self.value
        if math.isinf(self.lower):
            return raw
        if math.isinf(self.upper):
            return self.lower + functional.softplus(raw)
        return self.lower + (self.upper - self.lower) * torch.sigmoid(raw)

    @torch.no_grad()
    def start_at(self, value: Tensor) -> None:
        """Start a learned value here; a fixed value does not change."""
        if hasattr(self, "raw"):
            self.raw.copy_(self._inverse(value.to(self.raw)).expand_as(self.raw))

    def _inverse(self, value: Tensor) -> Tensor:
        if math.isinf(self.lower):
            return value
        if math.isinf(self.upper):
            y = value - self.lower
            return y + torch.log(-torch.expm1(-y))
        return torch.logit((value - self.lower) / (self.upper - self.lower))


def all_true(mask: Tensor) -> bool:
    """Whether all entries are true; on the meta device, where tensors have sizes without values, True."""
    return mask.is_meta or bool(mask.all())


def _interval(lower: float, upper: float) -> str:
    if math.isinf(lower):
        return "finite"
    return "positive and finite" if (lower, upper) == (0.0, math.inf) else f"between {lower:g} and {upper:g}"
