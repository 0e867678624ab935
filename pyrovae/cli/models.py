"""The models of a comparison: their names, the run of each, and what is measured of it."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from torch import Tensor

import pyrovae as pv
from pyrovae import runs
from pyrovae.build import name_and_options, read_config
from pyrovae.cli.preparing import Prepared, check_same, measure_run, prepare, train_run
from pyrovae.cli.reporting import seen_by_the_model
from pyrovae.cli.searching import SEARCH
from pyrovae.cli.table import Row, as_text
from pyrovae.files import read_json
from pyrovae.places import is_finished, new_place
from pyrovae.plots import Portrait
from pyrovae.train import History

__all__ = ["LISTS", "Model", "all_models", "is_list", "leave_run"]

LISTS = ("prior", "guide", "latent_dim", "beta", "optim", "lr", "batch_size", "seed")
WITH_COMPONENTS = {"mixture", "vamp"}  # priors that --num-components is of
LABELS_PER_CLASS = 10  # of the linear probe, or fewer where the training set has fewer
LABEL_DRAWS = 20


class Model(NamedTuple):
    """One model of a comparison: its folder, its name in the picture, that without its seed, the options of ``fit``."""

    run: str
    label: str
    curve: str
    options: dict[str, Any]


def all_models(options: dict[str, Any]) -> list[Model]:
    """One model for each combination; it is named after its prior and whatever else varies."""
    lists = {name: [None] if options[name] is None else options[name] for name in LISTS}
    models = []
    for values in itertools.product(*lists.values()):
        single = {**options, **dict(zip(lists, values, strict=True))}
        names = [prior.partition(":")[0] for prior in (single["prior"], *lists["prior"])]
        if names[0] not in WITH_COMPONENTS and WITH_COMPONENTS & set(names):
            single["num_components"] = None
        others = {name: as_text(single[name]) for name in LISTS[1:] if is_list(options[name])}
        if single["lr"] == SEARCH:
            single |= _own_rate(single["optim"])
        run = "_".join([single["prior"], *(f"{name.replace('_', '-')}-{text}" for name, text in others.items())])
        label = ", ".join([single["prior"], *(f"{name.replace('_', ' ')} {text}" for name, text in others.items())])
        models.append(Model(_file_name(run), label, _curve_name(single, options, others), single))
    return models


def _own_rate(optim: str) -> dict[str, Any]:
    """``sgd:lr=0.1`` has a learning rate that is not searched for."""
    given = name_and_options("optimizer", optim)[1]
    return {"optim": re.sub(r":\s*lr\s*=[^:]*", "", optim), "lr": given["lr"]} if "lr" in given else {}


def _curve_name(single: dict[str, Any], options: dict[str, Any], others: dict[str, str]) -> str:
    """What sets a model apart from the others, but for its seed: what varies, an optimizer by its name alone."""
    words = {name: f"{'' if name == 'optim' else name.replace('_', ' ') + ' '}{text}" for name, text in others.items()}
    words.pop("seed", None)
    return ", ".join([*([single["prior"]] if is_list(options["prior"]) or not words else []), *words.values()])


def leave_run(folder: Path, data: str, model: Model) -> tuple[Row, Portrait, History]:
    """Leave one run, or finish or read the one that is there: its numbers, its part of the picture, its history."""
    prepared = prepare(data, model.options)
    check_same(folder, data, model.options, prepared)
    if is_finished(folder):
        vae = pv.load(folder, prepared.vae)  # its parts are those of the options, not of the file
        prepared = prepared._replace(vae=vae)
        history = runs.read_history(folder / "history.csv")
        if (folder / "metrics.json").exists():
            numbers = read_json(folder / "metrics.json")
            return *_measured(model, prepared, numbers, history["seconds"][-1]), history
        numbers, problem = measure_run(folder, model.options, prepared, history)
    else:
        with new_place(folder, False, folder.exists(), "run", read_config) as place:
            history = train_run(place, data, model.options, prepared)
        numbers, problem = measure_run(folder, model.options, prepared, history)
    if problem is not None:
        click.echo(f"pyrovae: warning: {model.run}: {problem}", err=True)
    return *_measured(model, prepared, numbers, history["seconds"][-1]), history


def _measured(model: Model, prepared: Prepared, numbers: dict[str, Any], seconds: float) -> tuple[Row, Portrait]:
    """The numbers of the table, and the part of the picture."""
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
        "support_jaccard": numbers.get("support_jaccard"),  # a run of an earlier version has none
        "num_supports": numbers.get("num_supports"),
        "active_units": numbers["active_units"],
        "latent_dim": numbers["latent_dim"],
        **_probe(prepared, model.options["seed"]),
        "seconds": seconds,
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


def _file_name(run: str) -> str:
    """A folder for ``spike-slab:active=0.1`` on every system."""
    return re.sub(r"[^\w.+-]+", "-", run.replace(":", "_"))


def is_list(values: list[Any] | None) -> bool:
    return values is not None and len(values) > 1
