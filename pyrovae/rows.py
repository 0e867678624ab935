"""Data as rows: of one tensor, or of several that belong together, such as x and its label.

Model and guide are called with the tensors, ``model(x)`` or ``model(x, y)``; whatever cuts rows cuts all of them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeGuard

import torch
from torch import Tensor

__all__ = [
    "Rows",
    "check_dense",
    "check_rows",
    "cut",
    "data_of",
    "each",
    "is_rows",
    "joined",
    "moved",
    "num_rows",
    "tensors",
]

Rows = Tensor | tuple[Tensor, ...]


def is_rows(x: object) -> TypeGuard[Rows]:
    """Whether it is a tensor or a tuple of tensors; a list of tensors is one of batches."""
    return isinstance(x, Tensor) or (isinstance(x, tuple) and len(x) > 0 and all(isinstance(t, Tensor) for t in x))


def tensors(x: Rows) -> tuple[Tensor, ...]:
    """What model and guide are called with."""
    return x if isinstance(x, tuple) else (x,)


def joined(x: tuple[Tensor, ...]) -> Rows:
    """What :func:`tensors` was of: a tensor alone is no tuple."""
    return x if len(x) > 1 else x[0]


def data_of(x: Rows) -> Tensor:
    """The first of the tensors: the data, and not what stands beside them."""
    return x[0] if isinstance(x, tuple) else x


def num_rows(x: Rows) -> int:
    """N."""
    return len(data_of(x))


def each(function: Callable[[Tensor], Tensor], x: Rows) -> Rows:
    """``function`` of every tensor."""
    return tuple(map(function, x)) if isinstance(x, tuple) else function(x)


def cut(x: Rows, size: int) -> Iterator[Rows]:
    """Parts of at most so many rows, in their order."""
    if isinstance(x, tuple):
        return zip(*(tensor.split(size) for tensor in x), strict=True)
    return iter(x.split(size))


def moved(x: Rows, like: Tensor, **options: Any) -> Rows:
    """x in the dtype and on the device of ``like``; of several tensors those after the first keep whole numbers."""
    if isinstance(x, Tensor):
        return x.to(like, **options)
    others = (t.to(like, **options) if t.is_floating_point() else t.to(like.device, **options) for t in x[1:])
    return (x[0].to(like, **options), *others)


def check_dense(name: str, x: Tensor) -> None:
    """Refuse tensors without an entry of real numbers for each index; ``name`` is what the error calls it."""
    kinds = {
        "is on the meta device, which has no values": x.is_meta,
        f"is quantised ({x.dtype}): x.dequantize()": x.is_quantized,
        f"has the layout {x.layout}: x.to_dense()": x.layout != torch.strided or x.is_nested,
        f"has complex numbers ({x.dtype}): torch.view_as_real(x)": x.is_complex(),
    }
    for kind, found in kinds.items():
        if found:
            raise ValueError(f"{name} must be a dense tensor of real numbers, and {kind}")


def check_rows(name: str, x: Any) -> None:
    """Refuse tensors of no real numbers, or of different numbers of rows; ``name`` is what the error calls them."""
    if not is_rows(x):
        return
    for tensor in tensors(x):
        check_dense(name, tensor)
    if isinstance(x, Tensor):
        return
    if any(tensor.dim() == 0 or len(tensor) != len(x[0]) for tensor in x):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in x)
        raise ValueError(f"{name} must be tensors of equal numbers of rows, got shapes {shapes}")
