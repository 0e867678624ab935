"""``pyrovae evaluate``: all that can be measured of a run, in one table, one file of numbers and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import torch

import pyrovae as pv
from pyrovae import runs
from pyrovae.cli.preparing import check_support, describe_standardization
from pyrovae.cli.reporting import SEED, describe, importance_samples, seen_by_the_model
from pyrovae.cli.sections import print_summary
from pyrovae.cli.using import device_option, run_argument, trust_option
from pyrovae.data import Data
from pyrovae.folders import locked
from pyrovae.metrics import Summary
from pyrovae.rows import Rows, each, num_rows
from pyrovae.train.signals import Signals
from pyrovae.vae import VAE

__all__ = ["evaluate", "run_data"]

CURVE = (1, 5, 50, 500, 5000)  # draws of the bounds that are drawn, up to those of the table
CURVE_DATA = 100


@click.command(short_help="All that can be measured of a run on its test set.")
@run_argument
@click.option("--num-samples", type=click.IntRange(1), help="Importance samples per test row.  [default: 100 to 5000]")
@click.option(
    "--codes",
    default="encode",
    show_default=True,
    type=click.Choice(["encode", "mean", "sample"]),
    help="Whose sparsity and use is measured: the deterministic code, the mean of q(z|x), or a draw from it.",
)
@click.option(
    "--ais",
    type=click.IntRange(1),
    metavar="TEMPERATURES",
    help="Bound log p(x) by annealing too, of 20 rows: minutes for 1000.",
)
@click.option("--seed", default=0, show_default=True, type=SEED, help="Of the draws.")
@trust_option
@device_option
def evaluate(
    run: Path, num_samples: int | None, codes: str, ais: int | None, seed: int, trust: bool, device: str
) -> None:
    """Measure the model of RUN on its held-out test set.

    The table is printed, its numbers are written to RUN/metrics.json, and pictures to RUN/figures. docs/units.md says
    what each number is.

    \b
    pyrovae evaluate runs/digits
    pyrovae evaluate runs/digits --codes sample --num-samples 10000
    pyrovae evaluate runs/digits --ais 1000
    """
    vae, config = runs.load_run(run, device, trust)
    dataset = run_data(run, config, vae)
    describe(dataset, vae, config["data"]["binarize"])
    describe_standardization(dataset)
    x = runs.held_out(vae, dataset)
    num_samples = num_samples or importance_samples(num_rows(x))
    labelled = {"train", "test"} <= set(dataset.labels)
    seen = seen_by_the_model(dataset, seed)
    train: Rows = (seen, dataset.labels["train"]) if vae.num_labels else seen
    torch.manual_seed(seed)
    measured = pv.metrics.summary(
        vae,
        x,
        num_samples,
        kind=codes,
        labels=dataset.labels["test"] if labelled else None,
        labelled=(train, dataset.labels["train"]) if labelled else None,
        num_temperatures=ais,
        seed=seed,
    )
    torch.manual_seed(seed)
    figures = _figures(vae, x, dataset, measured)
    print_summary(measured)
    pictures = {f"{name}.png": runs.picture(figure) for name, figure in figures.items()}
    with locked(run), Signals():  # the files belong together: a signal waits until all of them are written
        runs.write_json(run / "metrics.json", {**measured.numbers, "missing": measured.missing})
        (run / "figures").mkdir(exist_ok=True)
        for name, content in pictures.items():
            runs.save_bytes(run / "figures" / name, content)
    click.echo(f"written in {run}: metrics.json, and in figures/ {', '.join(f'{name}.png' for name in figures)}")


def run_data(run: Path, config: dict[str, Any], vae: VAE) -> Data:
    """The data that a run was trained on, as its model takes them; ValueError where they are others."""
    source = runs.source(run, config)
    dataset = pv.data.load(**source, dtype=None, on_disk=runs.on_disk(config))
    dataset = runs.with_statistics(dataset, config)
    runs.check_width(run, config, dataset.val)
    if (standardization := runs.standardization(config)) is not None:
        dataset = dataset.standardize(standardization)
    dataset = dataset.to(torch.float32)
    runs.check_data(run, config, dataset)
    dataset = dataset.reshape(tuple(config["model"]["event_shape"]))
    check_support(vae, dataset, lambda: pv.data.rows(**source))
    return dataset


def _figures(vae: VAE, x: Rows, dataset: Data, measured: Summary) -> dict[str, Any]:
    """The pictures that apply to the model, by name."""
    figures = {}
    if not isinstance(x, tuple):  # a decoder that reads labels too has atoms for each of them
        atoms, runs_of_codes = pv.metrics.decoder_atoms(vae, x, num=32), pv.metrics.traversals(vae, x)
        figures["decoder_atoms"] = pv.plots.decoder_atoms(atoms, dataset.image_shape)
        figures["traversals"] = pv.plots.traversals(runs_of_codes, dataset.image_shape)
    if measured.kl is not None:
        figures["kl_spectrum"] = pv.plots.kl_spectrum(measured.kl)
    if measured.occupancy is not None:
        figures["spike_occupancy"] = pv.plots.spike_occupancy(measured.occupancy)
    if measured.density is not None:
        figures["latent_density"] = pv.plots.latent_density(measured.density)
    if measured.ranks is not None:
        figures["sbc_ranks"] = pv.plots.sbc_ranks(measured.ranks)
    if measured.numbers["elbo"] is not None:
        some = torch.randperm(num_rows(x))[:CURVE_DATA]
        rows = each(lambda table: table[some.to(table.device)], x)
        most = measured.numbers["num_samples"]
        curve = pv.metrics.importance_curve(vae, rows, sorted({*(k for k in CURVE if k < most), most}))
        figures["importance_curve"] = pv.plots.importance_curve(curve, pv.metrics.elbo(vae, rows))
    return figures
