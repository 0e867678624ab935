"""The numbers of an optimizer, checked before it meets a parameter; torch checks some, at the first step."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

__all__ = ["at_least_zero", "coefficients", "positive", "share", "whole"]


def positive(**named: Any) -> None:
    """Refuse what is not above 0 and finite."""
    for name, number in named.items():
        if not 0 < _number(number) < math.inf:
            raise ValueError(f"{name} must be positive, got {number!r}")


def at_least_zero(**named: Any) -> None:
    """Refuse what is below 0 or infinite."""
    for name, number in named.items():
        if not 0 <= _number(number) < math.inf:
            raise ValueError(f"{name} must be at least 0, got {number!r}")


def share(**named: Any) -> None:
    """Refuse what is outside [0, 1)."""
    for name, number in named.items():
        if not 0 <= _number(number) < 1:
            raise ValueError(f"{name} must be in [0, 1), got {number!r}")


def coefficients(betas: Any) -> None:
    """Refuse what is no pair of numbers in [0, 1)."""
    if not (isinstance(betas, tuple | list) and len(betas) == 2):
        raise ValueError(f"betas must be two numbers in [0, 1), got {betas!r}")
    for beta in betas:
        share(betas=beta)


def whole(**named: Any) -> None:
    """Refuse what is no whole number from 1 up."""
    for name, number in named.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"{name} must be a whole number, at least 1, got {number!r}")


def _number(number: Any) -> float:
    return float(number) if isinstance(number, Real) and not isinstance(number, bool) else math.nan
