"""Matrix products and convolutions of networks in bfloat16."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

__all__ = ["networks_in"]

# the operations that take most of a network's time
_PRODUCTS = {
    functional.linear,
    functional.bilinear,
    *(getattr(torch, f"conv{d}d") for d in (1, 2, 3)),
    *(getattr(torch, f"conv_transpose{d}d") for d in (1, 2, 3)),
    torch.matmul,
    torch.mm,
    torch.bmm,
    torch.addmm,
}


def networks_in(dtype: torch.dtype | None) -> Any:
    """A context in which linear and convolutional layers multiply in ``dtype`` and return the dtype of their input.

    Other operations, such as densities and sums, are not changed. None changes nothing.

    Raises: ValueError for a dtype other than bfloat16, which is the one with the range of float32.
    """
    if dtype is None:
        return nullcontext()
    if dtype != torch.bfloat16:
        raise ValueError(f"precision must be torch.bfloat16 or None, got {dtype}")
    return _Products(dtype)


class _Products(TorchFunctionMode):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _PRODUCTS:
            return func(*args, **(kwargs or {}))
        tensor = next(x for x in args if isinstance(x, torch.Tensor))
        with torch.autocast(tensor.device.type, self.dtype, cache_enabled=False):
            return func(*args, **(kwargs or {})).to(tensor.dtype)
