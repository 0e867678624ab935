"""Matrix products of networks in a smaller float."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

__all__ = ["networks_in"]

# what a network spends its time in
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
    """Inside, the products of linear and convolutional layers take numbers of this type and give float32.

    All else, densities and sums among it, is as it was; None changes nothing.

    Raises: ValueError for another type than bfloat16, whose range is that of float32.
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
