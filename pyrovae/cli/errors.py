"""What an error says to the user, on one line."""

from __future__ import annotations

import re

import click
import torch

from pyrovae.processes import LostProcessError

__all__ = ["explained"]

NUMBERS = {"integer": "is not a whole number", "float": "is not a number"}


def explained(error: Exception) -> str | None:
    """The one line of an error of the user's; None for a bug, whose traceback says where it is."""
    if isinstance(error, click.ClickException):
        return _one_line(error.format_message())
    if isinstance(error, (ValueError, OSError, ImportError, FloatingPointError, LostProcessError)):
        return _one_line(str(error))
    out_of_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    if out_of_memory or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)):
        return _one_line(f"not enough memory for this model and these data: {error}")
    return None


def _one_line(text: str) -> str:
    """Without Pyro's table of shapes, which ends its errors, and with words of our own for click's kinds of numbers."""
    text = " ".join(text.partition("Trace Shapes:")[0].split())
    return re.sub(r"is not a valid (integer|float)( range)?", lambda kind: NUMBERS[kind[1]], text)
