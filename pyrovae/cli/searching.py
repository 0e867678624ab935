"""``--lr search``: the learning rate of a model, found by short runs and shared by all of its seeds."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import click

import pyrovae as pv
from pyrovae import runs
from pyrovae.build import name_and_options
from pyrovae.cli.preparing import LENGTHS, SEARCH, count, optimizer, prepare, training
from pyrovae.train import LearningRate

__all__ = ["FILE", "SEARCH", "rate_to_begin", "search", "short_run"]

FILE = "searches.json"
UNSEARCHED = ("lr", "seed", "data_dir", "num_samples", "quiet", "log", "on_nan")  # options that no search depends on
SHARE = 1 / 5  # of the epochs of the run


def rate_to_begin(options: dict[str, Any]) -> dict[str, Any]:
    """The options with a number for a learning rate that is searched for: the middle of the grid."""
    if options["lr"] != SEARCH:
        return options
    return {**options, "lr": _grid(options)[2]}


def short_run(options: dict[str, Any], epochs: int, search_epochs: int | None) -> dict[str, Any]:
    """The options of a run of the search: those of the run, of so many epochs, but for what is as long as the run."""
    short = search_epochs or max(1, round(SHARE * epochs))
    if options["schedule"] is not None:
        schedule, lengths = name_and_options("schedule", options["schedule"])
        if schedule in LENGTHS and {"epochs", "steps"} & lengths.keys():
            raise ValueError(
                f"--lr search: its runs are shorter than the one that --schedule {options['schedule']} is for; leave "
                f"the length of the schedule out, or give --lr"
            )
    warmup = options["warmup"] and options["warmup"] * short / epochs
    return {**rate_to_begin(options), "epochs": short, "warmup": warmup, "patience": None}


def search(folder: Path, data: str, options: dict[str, Any], seeds: list[int]) -> dict[str, Any]:
    """Search with the options of a short run; what the folder of the comparison has already is not searched anew.

    Weights, order and draws have a seed that no run of the comparison has, the split of the data that of the first run.
    The test set is not looked at.
    """
    settings = {key: value for key, value in options.items() if key not in UNSEARCHED}
    seed = next(number for number in itertools.count(2**31) if number not in seeds)
    settings = json.loads(json.dumps({**settings, "data": data, "split_seed": seeds[0], "seed": seed}))
    path = folder / FILE
    done = json.loads(path.read_text()) if path.is_file() else []
    for found in done:
        if found["settings"] == settings:
            return dict(found)
    options = {**options, "seed": seeds[0]}
    prepared = prepare(data, options, weights_seed=seed)
    result = pv.train.search_lr(
        prepared.vae,
        prepared.dataset,
        lambda lr: optimizer({**options, "lr": lr}, prepared.dataset, prepared.epochs),
        _grid(options),
        prepared.epochs,
        seed=seed,
        **{**training(options, prepared), "progress": False},
    )
    found = {
        "settings": settings,
        "lr": result.lr,
        "losses": {f"{lr:g}": loss if math.isfinite(loss) else None for lr, loss in sorted(result.losses.items())},
        "unsteady": list(result.unsteady),
        "at_edge": result.at_edge,
        "epochs": result.epochs,
        "seconds": result.seconds,
    }
    runs.write_json(path, [*done, found])
    tried = ", ".join(f"{lr:g} {_told(lr, result)}" for lr in sorted(result.losses))
    click.echo(
        f"  learning rate {result.lr:g}, by the validation loss after {count(prepared.epochs, 'epoch')}: {tried}; "
        f"{result.seconds:.0f} s"
    )
    if result.at_edge:
        click.echo("  it is the last that was tried on its side: a better one may lie beyond")
    return found


def _told(lr: float, result: LearningRate) -> str:
    loss = result.losses[lr]
    if math.isinf(loss):
        return "diverged"
    return f"{loss:.2f}{', after it rose' if lr in result.unsteady else ''}"


def _grid(options: dict[str, Any]) -> list[float]:
    return pv.optim.usual_rates(options["optim"].partition(":")[0])
