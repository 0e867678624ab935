"""``pyrovae compare``: one model for each prior, or for each combination of lists, in one table and one picture.

The options are those of ``fit``, and eight of them take lists. Each model is trained as ``fit`` trains it, so that the
runs of a comparison are those that ``fit`` would leave.
"""

from __future__ import annotations

import copy
import itertools
import re
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from torch import Tensor

import pyrovae as pv
from pyrovae import runs
from pyrovae.cli.errors import explained
from pyrovae.cli.fitting import (
    Prepared,
    count,
    describe_standardization,
    fit,
    followed,
    prepare,
    rows_of_step,
    train_run,
    warn_of_few,
)
from pyrovae.cli.reporting import describe_data, seen_by_the_model
from pyrovae.cli.table import Row, as_text, print_rows, write_rows
from pyrovae.plots import Portrait

__all__ = ["compare"]

LISTS = ("prior", "guide", "latent_dim", "beta", "optim", "lr", "batch_size", "seed")
WITH_COMPONENTS = {"mixture", "vamp"}  # priors that --num-components is of
LABELS_PER_CLASS = 10  # of the linear probe, or fewer where the training set has fewer
LABEL_DRAWS = 20


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


def _parameters() -> list[click.Parameter]:
    """Those of ``fit``, with lists where :data:`LISTS` says so."""
    helps = {"out": "Folder of the comparison, made by this command.", "overwrite": "Replace the comparison in --out."}
    parameters = [copy.copy(parameter) for parameter in fit.params]
    for option in parameters:
        if not isinstance(option, click.Option):
            continue
        option.help = helps.get(str(option.name), option.help)
        if option.name in LISTS:
            option.type = Listed(option.type)
            option.help = f"One, or a list: {option.help}"
    return parameters


@click.command(short_help="One model for each prior, side by side.", params=_parameters())
@click.pass_context
def compare(ctx: click.Context, data: str, out: Path, overwrite: bool, **options: Any) -> None:
    """Train one model on DATA for each prior, or for each combination of lists, and compare them on the test set.

    The numbers are printed and written to table.csv and table.json; compare.png shows rate against distortion, the
    codes and the decoders. Each model is a run of its own in --out. A model that fails says why in its row, and the
    exit status is then 1.

    \b
    pyrovae compare digits --prior normal,laplace,spike-slab --out runs/compare
    pyrovae compare mnist --prior spike-slab --latent-dim 16,64 --beta 1,4 --out runs/sparse
    pyrovae evaluate runs/compare/spike-slab
    """
    if options["conditional"]:
        raise ValueError("--conditional: models of labelled data are not compared here; fit trains one")
    models = _models(options)
    varied = [name for name in LISTS if name == "prior" or _is_list(options[name])]
    with runs.new_run(out, overwrite, "comparison", runs.read_comparison) as folder:
        batches: dict[int, None] = {}
        for model in models:  # an unknown name, or a prior and a guide that do not fit, before any training
            prepared = prepare(data, model.options)
            batches[rows_of_step(model.options, prepared.dataset)] = None
        describe_data(prepared.dataset, prepared.binarize)
        describe_standardization(prepared.dataset)
        warn_of_few(prepared.dataset)
        click.echo(
            f"{count(len(models), 'model')}, {count(prepared.epochs, 'epoch')} of batches of {_several(batches)}, "
            f"{_several(options['optim'])} at learning rate {_several(options['lr'])}{followed(options)}, "
            f"on {options['device']}"
        )
        rows: list[Row] = []
        portraits: list[Portrait] = []
        for number, model in enumerate(models, 1):
            click.echo(f"[{number}/{len(models)}] {model.label}")
            row: Row = {"run": model.run, **{name: model.options[name] for name in varied}}
            try:
                with runs.new_run(folder / model.run, overwrite=False) as run:
                    measured, portrait = _train(run, data, model)
                rows.append({**row, **measured, "error": None})
                portraits.append(portrait)
            except Exception as error:  # the failure of one model must not lose the others
                message = explained(error)
                if message is None:
                    traceback.print_exc()
                rows.append({**row, "error": message or f"{type(error).__name__}: {error}"})
        failed = [row for row in rows if row["error"] is not None]
        if len(failed) == len(rows):
            raise ValueError(f"no model could be trained; {failed[0]['run']}: {failed[0]['error']}")
        print_rows(rows, varied, len(prepared.dataset.test))
        write_rows(folder, rows)
        texts = {name: ",".join(map(as_text, options[name])) for name in LISTS if options[name] is not None}
        hidden = ",".join(map(str, options["hidden"]))
        runs.write_json(folder / "config.json", {"data": data, "compare": {**options, **texts, "hidden": hidden}})
        pv.plots.comparison(portraits, prepared.dataset.image_shape).savefig(folder / "compare.png")
    click.echo(f"comparison saved in {out}: table.csv, table.json, compare.png, and a run for each model")
    if failed:
        names = ", ".join(row["run"] for row in failed)
        click.echo(f"pyrovae: error: {len(failed)} of {count(len(rows), 'model')} failed: {names}", err=True)
        ctx.exit(1)


class Model(NamedTuple):
    """One model of a comparison: its folder, its name in the picture, and the options that ``fit`` takes."""

    run: str
    label: str
    options: dict[str, Any]


def _models(options: dict[str, Any]) -> list[Model]:
    """One model for each combination; it is named after its prior and whatever else varies."""
    lists = {name: [None] if options[name] is None else options[name] for name in LISTS}
    models = []
    for values in itertools.product(*lists.values()):
        single = {**options, **dict(zip(lists, values, strict=True))}
        names = [prior.partition(":")[0] for prior in (single["prior"], *lists["prior"])]
        if names[0] not in WITH_COMPONENTS and WITH_COMPONENTS & set(names):
            single["num_components"] = None
        others = {name: as_text(single[name]) for name in LISTS[1:] if _is_list(options[name])}
        run = "_".join([single["prior"], *(f"{name.replace('_', '-')}-{text}" for name, text in others.items())])
        label = ", ".join([single["prior"], *(f"{name.replace('_', ' ')} {text}" for name, text in others.items())])
        models.append(Model(_file_name(run), label, single))
    return models


def _file_name(run: str) -> str:
    """A folder for ``spike-slab:active=0.1`` on every system."""
    return re.sub(r"[^\w.+-]+", "-", run.replace(":", "_"))


def _several(values: Iterable[Any]) -> str:
    """1, 2 and 3."""
    *first, last = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return f"{', '.join(first)} and {last}" if first else last


def _is_list(values: list[Any] | None) -> bool:
    return values is not None and len(values) > 1


def _train(folder: Path, data: str, model: Model) -> tuple[Row, Portrait]:
    """Leave one run; its numbers of the table and its part of the picture."""
    prepared = prepare(data, model.options)
    numbers, history = train_run(folder, data, model.options, prepared)
    bounded = numbers["elbo"] is not None  # under a Delta guide the KL stands for -log p(z), and is no rate
    row = {
        "elbo": numbers["elbo"],
        "standard_error": numbers["standard_error"],
        "log_likelihood": numbers["log_likelihood"],
        "num_samples": numbers["num_samples"],
        "rate": numbers["kl"] if bounded else None,
        "rate_is_exact": numbers["kl_is_exact"],
        "distortion": -numbers["reconstruction"],
        "exact_zeros": numbers["exact_zeros"],
        "hoyer": numbers["hoyer"],
        "active_units": numbers["active_units"],
        "latent_dim": numbers["latent_dim"],
        **_probe(prepared, model.options["seed"]),
        "seconds": history["seconds"][-1],
    }
    x = prepared.dataset.test.to(next(prepared.vae.parameters()))
    codes, atoms = prepared.vae.encode(x), pv.metrics.decoder_atoms(prepared.vae, x)
    return row, Portrait(model.label, row["rate"], row["distortion"], codes, atoms)


def _probe(prepared: Prepared, seed: int) -> Row:
    """Few-label accuracy on the codes of the data as the model sees them: pixels drawn once, where they are drawn."""
    vae, dataset = prepared.vae, prepared.dataset
    labels = dataset.labels
    if not {"train", "test"} <= set(labels):
        return {"accuracy": None, "accuracy_standard_error": None, "num_labels": None, "num_label_draws": None}
    train = seen_by_the_model(dataset, seed)
    like = next(vae.parameters())
    codes, test_codes = (_codes(vae, x.to(like)) for x in (train, dataset.test))
    counts = labels["train"].unique(return_counts=True)[1]
    num_labels = len(counts) * min(LABELS_PER_CLASS, int(counts.min()))
    probe = pv.metrics.probe_accuracy(
        codes, labels["train"], test_codes, labels["test"], num_labels, repeats=LABEL_DRAWS, seed=seed
    )
    return {
        "accuracy": probe.accuracy,
        "accuracy_standard_error": probe.standard_error,
        "num_labels": num_labels,
        "num_label_draws": LABEL_DRAWS,
    }


def _codes(vae: pv.VAE, x: Tensor) -> Tensor:
    return torch.cat([vae.encode(batch) for batch in x.split(4096)])
