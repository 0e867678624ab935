"""``pyrovae compare``: one model for each prior, or for each combination of lists, in one table and one picture.

The options are those of ``fit``, and eight of them take lists. Each model is trained as ``fit`` trains it, so that the
runs of a comparison are those that ``fit`` would leave. A learning rate that is searched for is that of all seeds.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

import pyrovae as pv
from pyrovae import runs
from pyrovae.cli.curves import Curve, optimizer_rows, print_optimizers
from pyrovae.cli.errors import explained
from pyrovae.cli.fitting import fit
from pyrovae.cli.models import LISTS, Model, all_models, is_list, leave_run
from pyrovae.cli.preparing import (
    check_same,
    count,
    describe_standardization,
    followed,
    prepare,
    rows_of_step,
    warn_of_few,
)
from pyrovae.cli.reporting import describe_data
from pyrovae.cli.searching import SEARCH, rate_to_begin, search, short_run
from pyrovae.cli.table import Row, as_text, print_rows, write_rows
from pyrovae.places import is_finished, new_place
from pyrovae.plots import Portrait

__all__ = ["compare"]

USUAL_LR = next(option.default for option in fit.params if option.name == "lr")


class Listed(click.ParamType):
    """Values of one type between commas, none of them twice."""

    def __init__(self, one: click.ParamType) -> None:
        self.one = one
        self.name = f"{one.name},..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[Any]:
        if isinstance(value, list):
            return value
        values = [self.one.convert(item.strip(), param, ctx) for item in str(value).split(",")]
        for place, item in enumerate(values):
            if item == "" or item in values[:place]:
                self.fail(f"{value!r} {'has an empty item' if item == '' else f'has {item} twice'}", param, ctx)
        return values


class Rate(click.ParamType):
    """A number above 0, or the word that stands for a search."""

    name = "number|search"
    number = click.FloatRange(0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return SEARCH if value == SEARCH else self.number.convert(value, param, ctx)


def _parameters() -> list[click.Parameter]:
    """Those of ``fit``, with lists where :data:`LISTS` says so, and two more."""
    helps = {
        "out": "Folder of the comparison, made by this command.",
        "overwrite": "Replace the comparison in --out, when the new one is there.",
        "resume": "Go on in --out: finished runs stay, and those that were cut short go on.",
        "lr": f"Learning rate, or search: by short runs, once for all seeds.  [default: search where --optim is a "
        f"list, else {USUAL_LR:g}]",
    }
    parameters = [copy.copy(parameter) for parameter in fit.params]
    for option in parameters:
        if not isinstance(option, click.Option):
            continue
        option.help = helps.get(str(option.name), option.help)
        if option.name == "lr":
            option.type, option.default, option.show_default = Rate(), None, False
        if option.name in LISTS:
            option.type = Listed(option.type)
            option.help = f"One, or a list: {option.help}"
    more = [
        click.Option(
            ["--search-epochs"],
            type=click.IntRange(1),
            help="Of each run of a search for a learning rate.  [default: a fifth of --epochs]",
        ),
    ]
    after = next(i for i, option in enumerate(parameters) if option.name == "overwrite") + 1
    return [*parameters[:after], *more, *parameters[after:]]


@click.command(short_help="One model for each prior, side by side.", params=_parameters())
@click.pass_context
def compare(
    ctx: click.Context,
    data: str,
    out: Path,
    overwrite: bool,
    resume: bool,
    search_epochs: int | None,
    **options: Any,
) -> None:
    """Train one model on DATA for each prior, or for each combination of lists, and compare them on the test set.

    The numbers are printed and written to table.csv and table.json; compare.png shows rate against distortion, the
    codes and the decoders, curves.png how fast each model learns. Each model is a run of its own in --out. A model that
    fails says why in its row, and the exit status is then 1. What was cut short goes on with --resume.

    \b
    pyrovae compare digits --prior normal,laplace,spike-slab --out runs/compare
    pyrovae compare mnist --prior spike-slab --latent-dim 16,64 --beta 1,4 --out runs/sparse
    pyrovae compare mnist --optim sgd,momentum,adam --seed 0,1,2 --out runs/optimizers
    pyrovae evaluate runs/compare/spike-slab
    """
    if overwrite and resume:
        raise click.UsageError("--overwrite and --resume exclude each other")
    if options["conditional"]:
        raise ValueError("--conditional: models of labelled data are not compared here; fit trains one")
    if options["lr"] is None:
        options["lr"] = [SEARCH if is_list(options["optim"]) else USUAL_LR]
    models = all_models(options)
    try:
        with new_place(out, overwrite, resume, "comparison", runs.read_comparison) as place:
            failed = _compare(place.folder, data, models, options, search_epochs)
            place.settle()
    except (KeyboardInterrupt, SystemExit) as stop:
        whole = sum(is_finished(place.folder / model.run) for model in models)
        if place.folder.exists():
            stop.said = f"{whole} of {count(len(models), 'model')} in {out}: --resume goes on"  # type: ignore[union-attr]  # for main
        raise
    click.echo(f"comparison saved in {out}: table.csv, table.json, compare.png, curves.png, and a run for each model")
    if failed:
        click.echo(
            f"pyrovae: error: {len(failed)} of {count(len(models), 'model')} failed: {', '.join(failed)}", err=True
        )
        ctx.exit(1)


def _compare(
    folder: Path, data: str, models: list[Model], options: dict[str, Any], search_epochs: int | None
) -> list[str]:
    """Train what is not there yet, and write the tables and the pictures; the runs that failed."""
    config = _config(data, options, search_epochs)
    if not (folder / "config.json").exists():  # by which the folder is known as a comparison from its first moment
        runs.write_json(folder / "config.json", config)
    varied = [name for name in LISTS if name == "prior" or is_list(options[name])]
    if SEARCH in options["lr"] and "lr" not in varied:
        varied.insert(varied.index("optim") + 1 if "optim" in varied else len(varied), "lr")
    short: dict[str, dict[str, Any]] = {}
    batches: dict[int, None] = {}
    for model in models:  # an unknown name, or a prior and a guide that do not fit, before any training
        begin = rate_to_begin(model.options)
        if model.curve not in short:  # not for each seed
            prepared = prepare(data, begin)
            searched = model.options["lr"] == SEARCH
            short[model.curve] = short_run(model.options, prepared.epochs, search_epochs) if searched else begin
            batches[rows_of_step(model.options, prepared.dataset)] = None
        if (folder / model.run).exists():
            check_same(folder / model.run, data, model.options, prepared)
    describe_data(prepared.dataset, prepared.binarize)
    describe_standardization(prepared.dataset)
    warn_of_few(prepared.dataset)
    click.echo(
        f"{count(len(models), 'model')}, {count(prepared.epochs, 'epoch')} of batches of {_several(batches)}, "
        f"{_several(options['optim'])} at {_rates(options['lr'])}{followed(options)}, "
        f"on {options['device']}"
    )
    runs.write_json(folder / "config.json", config)
    rows: list[Row] = []
    portraits: list[Portrait] = []
    curves: dict[str, Curve] = {}
    for number, model in enumerate(models, 1):
        click.echo(f"[{number}/{len(models)}] {model.label}")
        row: Row = {"run": model.run, **{name: model.options[name] for name in varied}}
        try:
            found = None
            if model.options["lr"] == SEARCH:
                found = search(folder, data, short[model.curve], options["seed"])
                model.options["lr"] = row["lr"] = found["lr"]
            measured, portrait, history = leave_run(folder / model.run, data, model)
        except Exception as error:  # the failure of one model must not lose the others
            message = explained(error)
            if message is None:
                traceback.print_exc()
            rows.append({**row, "error": message or f"{type(error).__name__}: {error}"})
            continue
        rows.append({**row, **measured, "error": None})
        portraits.append(portrait)
        shared = {name: row[name] for name in varied if name != "seed"}
        curve = curves.setdefault(model.curve, Curve(shared, {}, {}, found))
        curve.rows[model.options["seed"]], curve.histories[model.options["seed"]] = rows[-1], history
    failed = [row for row in rows if row["error"] is not None]
    if len(failed) == len(rows):
        raise ValueError(f"no model could be trained; {failed[0]['run']}: {failed[0]['error']}")
    print_rows(rows, varied, len(prepared.dataset.test))
    write_rows(folder, rows)
    if is_list(options["optim"]):
        compared = optimizer_rows(list(curves.values()))
        print_optimizers(
            compared, [name for name in varied if name != "seed" and (name != "prior" or is_list(options[name]))]
        )
        write_rows(folder, compared, "optimizers")
    figure = pv.plots.comparison(portraits, prepared.dataset.image_shape)
    runs.save_bytes(folder / "compare.png", runs.picture(figure))
    histories = {name: list(curve.histories.values()) for name, curve in curves.items()}
    runs.save_bytes(folder / "curves.png", runs.picture(pv.plots.learning_curves(histories)))
    return [row["run"] for row in failed]


def _config(data: str, options: dict[str, Any], search_epochs: int | None) -> dict[str, Any]:
    texts = {name: ",".join(map(as_text, options[name])) for name in LISTS if options[name] is not None}
    texts["hidden"] = ",".join(map(str, options["hidden"])) or "none"
    return {"data": data, "compare": {**options, **texts, "search_epochs": search_epochs}}


def _rates(rates: list[Any]) -> str:
    """Learning rates, or that there are none yet."""
    return "learning rates to be found" if rates == [SEARCH] else f"learning rate {_several(rates)}"


def _several(values: Iterable[Any]) -> str:
    """1, 2 and 3."""
    *first, last = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return f"{', '.join(first)} and {last}" if first else last
