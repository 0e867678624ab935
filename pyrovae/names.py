"""Names of the command line: what stands under one in a table, and the options that it takes."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["by_name", "check_options", "own_options"]


def by_name(what: str, name: str, table: Mapping[str, Any]) -> Any:
    """The entry of a table; an error that suggests the nearest name."""
    if name in table:
        return table[name]
    nearest = difflib.get_close_matches(name.lower().replace("_", "-"), table, n=1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"one of {', '.join(table)}"
    raise ValueError(f"unknown {what} {name!r}: {hint}")


def own_options(cls: Callable[..., Any], num_args: int) -> list[str] | None:
    """What a class takes by name after its first arguments; None where it takes any name, or does not say."""
    try:
        parameters = list(inspect.signature(cls).parameters.values())[num_args:]
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_POSITIONAL]


def check_options(
    what: str, options: Mapping[str, Any], own: list[str] | None, others: Mapping[str, Any] | None = None
) -> None:
    """Refuse options that are not among its own; ``others`` are names that one of them may be."""
    unknown = [key for key in options if own is not None and key not in own]
    if unknown:
        has = f"its options are {', '.join(own)}" if own else "it has none"
        hint = f"; see {what.partition(' ')[0]} {unknown[0]!r}" if unknown[0] in (others or ()) else ""
        raise ValueError(f"{what} has no option {unknown[0]!r}: {has}{hint}")
