"""Checks of the arguments of a model: device and dtype of tensors, labels, and the number of tensors."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import nn

from pyrovae.guards.switch import checking

__all__ = ["check_arguments", "check_labels", "check_tensors", "signature"]


class ArgumentError(ValueError):
    """An argument of a model is wrong: an error without the table of shapes that Pyro appends to a model's errors."""

    def __init__(self, text: str) -> None:
        super().__init__(text.partition("\nTrace Shapes:")[0])


def check_tensors(module: nn.Module, x: torch.Tensor | None = None) -> None:
    """Refuse a module whose tensors have several devices or floating dtypes, and an x on another device or dtype."""
    if not checking():
        return
    if x is not None and not isinstance(x, torch.Tensor):
        got = type(x).__name__
        raise ArgumentError(f"x must be a torch tensor, got {got}: torch.as_tensor(x, dtype=torch.float32)")
    kinds: dict[tuple[torch.dtype, torch.device], str] = {}
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point():
            kinds.setdefault((tensor.dtype, tensor.device), name)
    if len(kinds) > 1:
        found = ", ".join(f"{name} is {dtype} on {device}" for (dtype, device), name in kinds.items())
        name = type(module).__name__
        raise ArgumentError(f"{name} has mixed dtypes or devices: {found}; move the whole module with .to(...)")
    for dtype, device in kinds:
        if x is not None and (x.device != device or (x.is_floating_point() and x.dtype != dtype)):
            raise ArgumentError(
                f"x is {x.dtype} on {x.device}, the {type(module).__name__} {dtype} on {device}: "
                f"x.to(next(vae.parameters()))"
            )


def check_labels(y: object, num_labels: int, num_rows: int | None = None, like: torch.Tensor | None = None) -> None:
    """Refuse labels that are not whole numbers below ``num_labels``, one for each row, on the device of ``like``."""
    if not checking():
        return
    rows = "one for each row" if num_rows is None else f"one for each of {num_rows} rows"
    expected = f"y must be labels, {rows}, whole numbers from 0 to {num_labels - 1}"
    if not isinstance(y, torch.Tensor):
        raise ArgumentError(f"{expected}, got {y!r}")
    whole = not (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool)
    if not whole or y.dim() != 1 or num_rows not in (None, len(y)):
        raise ArgumentError(f"{expected}, got {y.dtype} of shape {tuple(y.shape)}")
    if like is not None and y.device != like.device:
        raise ArgumentError(f"y is on {y.device}, the data or their code on {like.device}: use y.to(x.device)")
    bad = ((y < 0) | (y >= num_labels)).nonzero()
    if len(bad):
        raise ArgumentError(f"{expected}, got {y[bad[0, 0]].item()} at index {bad[0, 0].item()}")


def check_arguments(name: str, x: tuple[object, ...], **functions: Callable[..., object]) -> None:
    """Refuse another number of tensors for each datum than model and guide take."""
    for what, function in functions.items() if checking() else ():
        takes = signature(function)
        try:
            takes.bind(*x)
        except TypeError as error:
            count = f"{len(x)} tensors" if len(x) > 1 else "one tensor"
            raise ValueError(
                f"{name} has {count} for each datum, and the {what} takes ({', '.join(takes.parameters)})"
            ) from error


def signature(function: Callable[..., object]) -> inspect.Signature:
    """The signature of a function or a module; ``(*args)`` where it has none, as a function in a Pyro handler."""
    try:
        return inspect.signature(getattr(function, "forward", function))
    except ValueError:
        return inspect.signature(lambda *args: None)
