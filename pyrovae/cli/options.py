"""Values of options from a JSON file: each is read as if it had been typed."""

from __future__ import annotations

import reprlib
from typing import Any

import click

from pyrovae.build import CORRUPTIONS, GUIDES, LIKELIHOODS, PRIORS

__all__ = ["as_typed", "refuse_imports", "trust_config_option"]

TABLES: dict[str, Any] = {"prior": PRIORS, "likelihood": LIKELIHOODS, "guide": GUIDES, "corrupt": CORRUPTIONS}


def as_typed(name: str, parameter: click.Parameter, value: Any) -> Any:
    """A value as the command line has it, text or a flag, which click converts; None is an option that is not given.

    Raises: ValueError for a value that could not be typed.
    """
    if value is None:
        if isinstance(parameter.default, bool) or not isinstance(parameter.default, str | int | float):
            return None
        raise ValueError(f"{name} must have a value, such as {parameter.default}, got null")
    if isinstance(parameter, click.Option) and parameter.is_flag:
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false, got {reprlib.repr(value)}")
        return value
    values = value if isinstance(value, list) and value else [value]
    if isinstance(parameter, click.Option) and parameter.multiple and value == []:
        return []
    if any(isinstance(item, bool) or not isinstance(item, str | int | float) for item in values):
        raise ValueError(f"{name} must be a number or a text, got {reprlib.repr(value)}")
    if isinstance(parameter, click.Option) and parameter.multiple:
        return [str(item) for item in values]
    return ",".join(map(str, values))


def refuse_imports(ctx: click.Context, path: str, values: dict[str, Any]) -> None:
    """Keep the parts of the user's own that a file names, which ``--trust`` or an error is about."""
    for name, table in TABLES.items():
        for text in str(values.get(name) or "").split(","):
            part = text.partition(":")[0].strip()
            if part not in table and "." in part:
                ctx.meta[__name__] = (
                    f"--config {path!r} names {name} {part!r}, which is not of pyrovae: --trust imports it"
                )


def _check_trust(ctx: click.Context, _: click.Parameter, trust: bool) -> None:
    """Called after ``--config``, which is eager."""
    if __name__ in ctx.meta and not trust:
        raise ValueError(ctx.meta[__name__])


trust_config_option = click.option(
    "--trust",
    is_flag=True,
    expose_value=False,
    callback=_check_trust,
    help="Import parts of your own that --config names; that runs their code.",
)
