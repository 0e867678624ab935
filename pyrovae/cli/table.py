"""The table of ``pyrovae compare``: printed, and written as CSV and JSON."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pyrovae import runs
from pyrovae.cli.reporting import LESS_SHARED, nats, shared_support

__all__ = ["Row", "as_text", "print_rows", "write_rows"]

Row = dict[str, Any]

NUMBERS: dict[str, Callable[[Row], str]] = {
    "ELBO": lambda row: _with_error(nats(row["elbo"]), row["elbo"] and row["standard_error"]),
    "log-lik.": lambda row: nats(row["log_likelihood"]),
    "rate": lambda row: nats(row["rate"]),
    "distortion": lambda row: nats(row["distortion"]),
    "zeros": lambda row: f"{row['exact_zeros']:.1%}",
    "Hoyer": lambda row: nats(row["hoyer"]),
    "active": lambda row: f"{row['active_units']} of {row['latent_dim']}",
    "accuracy, %": lambda row: _percent(row["accuracy"], row["accuracy_standard_error"]),
    "seconds": lambda row: f"{row['seconds']:.0f}",
}


def print_rows(rows: list[Row], varied: list[str], num_data: int) -> None:
    """A column for whatever varies and one for each number; a model that failed has its error in their place."""
    done = [row for row in rows if row["error"] is None]
    heads = [*(name.replace("_", " ") for name in varied), *NUMBERS]
    cells = {row["run"]: [as_text(row[name]) for name in varied] for row in rows}
    for row in done:
        cells[row["run"]] += [number(row) for number in NUMBERS.values()]
    lines = [heads, *cells.values()]
    widths = [max(len(line[i]) for line in lines if i < len(line)) for i in range(len(heads))]
    click.echo(f"\nheld-out test set, {num_data} data\n")
    for row, line in zip([{"error": None}, *rows], lines, strict=True):
        names = [text.ljust(width) for text, width in zip(line, widths[: len(varied)], strict=False)]
        numbers = [text.rjust(width) for text, width in zip(line[len(varied) :], widths[len(varied) :], strict=False)]
        failure = [] if row["error"] is None else [f"failed: {row['error']}"]
        click.echo("  " + "  ".join([*names, *numbers, *failure]).rstrip())
    click.echo("\n  ELBO, log-likelihood (at least), rate (KL of guide from prior) and distortion in nats per datum.")
    click.echo("  zeros, Hoyer: exact zeros and sparsity, from 0 to 1, of the deterministic codes.")
    told = {row["run"]: text for row in done if (text := shared_support(row)) is not None}
    for run, text in told.items():
        click.echo(f"  {run}: {text}")
    if told:
        click.echo(f"  {LESS_SHARED}")
    if done and done[0]["accuracy"] is not None:
        labels, draws = done[0]["num_labels"], done[0]["num_label_draws"]
        click.echo(f"  accuracy: of a linear probe on the codes with {labels} labels, mean ± error over {draws} draws.")
    if "seed" not in varied:
        click.echo("  No error has the seed of the training in it: --seed 0,1,2 trains each model three times.")
    click.echo()


def write_rows(folder: Path, rows: list[Row], name: str = "table") -> None:
    """``table.json`` and ``table.csv``: the same keys; what is not known is null, or an empty cell."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    rows = [{key: row.get(key) for key in keys} for row in rows]
    runs.write_json(folder / f"{name}.json", rows)
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, keys)
        writer.writeheader()
        writer.writerows(rows)


def as_text(value: Any) -> str:
    """A value of an option as the command line takes it."""
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _with_error(text: str, error: float | None) -> str:
    return text if error is None or error != error else f"{text} ± {error:.2f}"


def _percent(share: float | None, error: float | None) -> str:
    return "-" if share is None or error is None else f"{100 * share:.1f} ± {100 * error:.1f}"
