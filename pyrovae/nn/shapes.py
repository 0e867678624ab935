"""Shapes of what networks read and give, checked where they are made and where they are called."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Shape", "batch_shape", "image_shape", "positive_shape", "widths_of"]

Shape = int | tuple[int, ...]


def positive_shape(name: str, shape: Shape) -> tuple[int, ...]:
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if not shape or min(shape) < 1:
        raise ValueError(f"{name} must be positive, got {shape}")
    return shape


def widths_of(name: str, widths: Sequence[int], example: str) -> tuple[int, ...]:
    if not isinstance(widths, Sequence):
        raise ValueError(f"{name} must be a sequence of widths such as {example}, got {widths!r}")
    return tuple(positive_shape(name, width)[0] for width in widths)


def image_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 3:
        raise ValueError(f"{name} must be (channels, height, width), got {tuple(shape)}")
    return positive_shape(name, shape)


def batch_shape(x: Tensor, event_shape: tuple[int, ...]) -> torch.Size:
    if not x.is_floating_point():
        raise ValueError(f"the network takes floating-point inputs, got {x.dtype}: x.float()")
    split = x.dim() - len(event_shape)
    if split < 0 or tuple(x.shape[split:]) != event_shape:
        raise ValueError(f"the network takes inputs of shape {event_shape}, got {tuple(x.shape)}")
    return x.shape[:split]
