"""The models of a comparison over their seeds: how fast they learn, and the table of the optimizers."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

import click

from pyrovae.cli.reporting import nats
from pyrovae.cli.table import Row, as_text
from pyrovae.train import History

__all__ = ["Curve", "optimizer_rows", "print_optimizers"]


class Curve(NamedTuple):
    """One model over its seeds: what sets it apart from the others, its rows and histories by seed, its search."""

    varied: dict[str, Any]
    rows: dict[int, Row]
    histories: dict[int, History]
    search: dict[str, Any] | None


def optimizer_rows(curves: list[Curve]) -> list[Row]:
    """A row for each curve: its last loss, how soon it had the last loss of SGD, and what its search cost.

    SGD is the one of the same model, at its best learning rate where it has several; without it the first optimizer is
    in its place. Epochs and seconds are means over the seeds, and None where a seed never gets there.
    """
    rows = []
    for curve in curves:
        rivals = [other for other in curves if _model(other) == _model(curve)]
        named = [other for other in rivals if _name(other) == "sgd"] or rivals[:1]
        reference = min(named, key=lambda other: statistics.mean(h["val_loss"][-1] for h in other.histories.values()))
        losses = [-row["elbo"] for row in curve.rows.values() if row["elbo"] is not None]
        epochs, seconds = _reached(curve, reference)
        search = curve.search or {}
        rows.append(
            {
                **curve.varied,
                "loss": statistics.mean(losses) if losses else None,
                "loss_sd": statistics.stdev(losses) if len(losses) > 1 else None,
                "num_seeds": len(curve.rows),
                "seconds": statistics.mean(h["seconds"][-1] for h in curve.histories.values()),
                "reference": reference.varied["optim"],
                "epochs_to_reference": epochs,
                "seconds_to_reference": seconds,
                "search_rates": len(search["losses"]) if search else None,
                "search_epochs": search.get("epochs"),
                "search_seconds": search.get("seconds"),
                "search_at_edge": search.get("at_edge"),
            }
        )
    return rows


def print_optimizers(rows: list[Row], varied: list[str]) -> None:
    """The table of :func:`optimizer_rows`."""
    seeds = max(row["num_seeds"] for row in rows)
    references = dict.fromkeys(row["reference"] for row in rows)
    to = f"to {next(iter(references))}'s" if len(references) == 1 else "to the first's"
    heads = [*(name.replace("_", " ") for name in varied), "-ELBO", f"epochs {to}", f"seconds {to}", "seconds in all",
             "search"]  # fmt: skip
    lines = [heads]
    for row in rows:
        sd = "" if row["loss_sd"] is None else f" ± {row['loss_sd']:.2f}"
        edge = ", at its edge" if row["search_at_edge"] else ""
        lines.append(
            [
                *(as_text(row[name]) for name in varied),
                f"{nats(row['loss'])}{sd}",
                "-" if row["epochs_to_reference"] is None else f"{row['epochs_to_reference']:.1f}",
                "-" if row["seconds_to_reference"] is None else f"{row['seconds_to_reference']:.0f}",
                f"{row['seconds']:.0f}",
                "-"
                if row["search_rates"] is None
                else f"{row['search_rates']} rates, {row['search_epochs']} epochs, {row['search_seconds']:.0f} s{edge}",
            ]
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    click.echo("\nhow fast the optimizers are\n")
    for line in lines:
        cells = [
            text.ljust(width) if i < len(varied) or i == len(heads) - 1 else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        click.echo("  " + "  ".join(cells).rstrip())
    over = f", mean ± standard deviation over {seeds} seeds" if seeds > 1 else ""
    click.echo(f"\n  -ELBO: of the test set, nats per datum{over}.")
    click.echo(f"  {to}: until the validation loss is that of {', '.join(references)} after its last epoch.")
    click.echo("  seconds: by the clock of the training, the time to compile the step in it, the search not.")
    click.echo()


def _model(curve: Curve) -> dict[str, Any]:
    return {name: value for name, value in curve.varied.items() if name not in ("optim", "lr")}


def _name(curve: Curve) -> str:
    return str(curve.varied["optim"]).partition(":")[0]


def _reached(curve: Curve, reference: Curve) -> tuple[float | None, float | None]:
    """Epochs and seconds until each seed of a curve has the last loss that the reference has with this seed."""
    reached: list[tuple[float, float]] = []
    for seed, history in curve.histories.items():
        if seed not in reference.histories:
            continue
        target = reference.histories[seed]["val_loss"][-1]
        first = next((i for i, loss in enumerate(history["val_loss"]) if loss <= target), None)
        if first is None:
            return None, None
        reached.append((history["epoch"][first], history["seconds"][first]))
    if not reached:
        return None, None
    return statistics.mean(epoch for epoch, _ in reached), statistics.mean(second for _, second in reached)
