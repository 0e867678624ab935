"""What a value must be, in words: checks of arguments and of what a file holds.

A ``Kind`` returns None for a value that it accepts, and otherwise the words for what it expected.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Collection, Mapping
from numbers import Integral, Real
from typing import Any

import torch

__all__ = [
    "Kind",
    "anything",
    "check",
    "check_section",
    "flag",
    "listed",
    "mapping",
    "number",
    "one_of",
    "optional",
    "real",
    "record",
    "tensor",
    "text",
    "whole",
]

Kind = Callable[[Any], str | None]
LARGEST = 2**31 - 1


def check(name: str, value: object, kind: Kind) -> None:
    """ValueError of one line, unless ``kind`` accepts the value."""
    if (expected := kind(value)) is not None:
        raise ValueError(f"{name} must be {expected}, got {reprlib.repr(value)}")


def check_section(name: str, section: object, kinds: Mapping[str, Kind], required: Collection[str]) -> None:
    """ValueError of one line, unless a section of a file is a dictionary of these names with values of these kinds."""
    if not isinstance(section, dict):
        raise ValueError(f"{name} must be a dictionary, got {reprlib.repr(section)}")
    missing = [key for key in required if key not in section]
    unknown = [key for key in section if key not in kinds]
    if missing or unknown:
        problem = f"lacks {missing[0]!r}" if missing else f"has {reprlib.repr(unknown[0])}, which is unknown here"
        raise ValueError(f"{name} {problem}: it holds {', '.join(kinds)}")
    for key, value in section.items():
        check(f"{name}: {key}", value, kinds[key])


def whole(low: int = 0, high: int = LARGEST) -> Kind:
    """A whole number from ``low`` to ``high``; True and False are none."""
    expected = "a positive whole number" if low == 1 else f"a whole number, at least {low}"

    def kind(value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < low:  # NumPy's too
            return expected
        return f"at most {high}" if int(value) > high else None

    return kind


def number(low: float = -math.inf, high: float = math.inf, expected: str = "a finite number") -> Kind:
    """A finite number, at least ``low`` and below ``high``."""

    def kind(value: Any) -> str | None:
        return None if real(value) is None and math.isfinite(value) and low <= value < high else expected

    return kind


def anything(value: Any) -> str | None:
    return None


def real(value: Any) -> str | None:
    """Any number, infinity and NaN too; True and False are none."""
    return None if isinstance(value, Real) and not isinstance(value, bool) else "a number"


def tensor(value: Any) -> str | None:
    return None if isinstance(value, torch.Tensor) else "a tensor"


def mapping(kind: Kind) -> Kind:
    """A dictionary from texts to values of one kind."""

    def each(value: Any) -> str | None:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            return "a dictionary by names"
        problem = next((words for words in map(kind, value.values()) if words is not None), None)
        return problem and f"a dictionary, each value {problem}"

    return each


def record(kinds: Mapping[str, Kind], rest: Kind | None = None) -> Kind:
    """A dictionary that has all of these names with values of these kinds; other names are of the kind ``rest``."""

    def each(value: Any) -> str | None:
        if not isinstance(value, dict) or not kinds.keys() <= value.keys():
            return f"a dictionary of {', '.join(kinds)}"
        if rest is None and value.keys() != kinds.keys():
            return f"a dictionary of {', '.join(kinds)}"
        for key, item in value.items():
            if (expected := kinds.get(key, rest or text)(item)) is not None:
                return f"a dictionary whose {key} is {expected}"
        return None

    return each


def text(value: Any) -> str | None:
    return None if isinstance(value, str) and 0 < len(value) <= 100_000 else "a text"


def flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "True or False"


def one_of(*values: str) -> Kind:
    words = ", ".join(map(repr, values))
    return lambda value: None if isinstance(value, str) and value in values else f"one of {words}"


def optional(kind: Kind) -> Kind:
    """None, or a value of this kind."""
    return lambda value: None if value is None else kind(value)


def listed(kind: Kind, expected: str, most: int, least: int = 1) -> Kind:
    """A list or tuple of ``least`` to ``most`` values of one kind."""

    def each(value: Any) -> str | None:
        if not isinstance(value, list | tuple) or len(value) < least:
            return expected
        problem = next((words for words in map(kind, value) if words is not None), None)
        if problem is not None:
            return f"{expected}, each {problem}" if problem.startswith("at most") else expected
        return None if len(value) <= most else f"{expected}, at most {most} of them"

    return each
