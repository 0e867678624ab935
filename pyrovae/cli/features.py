"""``pyrovae report``: what each latent of a run stands for, as one HTML page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

import pyrovae as pv
from pyrovae import runs
from pyrovae.cli.evaluating import run_data
from pyrovae.cli.reporting import SEED
from pyrovae.cli.using import device_option, out_option, overwrite_option, run_argument, trust_option
from pyrovae.likelihoods import Likelihood
from pyrovae.metrics import LatentFeatures
from pyrovae.vae import VAE

__all__ = ["report"]

NUM_DATA = 10_000  # rows of DATA at most: codes of all latents are in memory


@click.command(short_help="What each latent stands for, as one HTML page.")
@run_argument
@click.argument("data", required=False)
@click.option(
    "--atoms",
    default="dictionary",
    show_default=True,
    type=click.Choice(["dictionary", "response"]),
    help="The columns of a linear decoder, or the response of any decoder around the mean code.",
)
@click.option(
    "--num-latents",
    default=2048,
    show_default=True,
    type=click.IntRange(1),
    help="The most latents, those that are on in most data.",
)
@click.option("--seed", default=0, show_default=True, type=SEED, help="Of the data that the model makes.")
@out_option
@overwrite_option
@trust_option
@device_option
def report(
    run: Path,
    data: str | None,
    atoms: str,
    num_latents: int,
    seed: int,
    out: Path | None,
    overwrite: bool,
    trust: bool,
    device: str,
) -> None:
    """Write a page about the latents of RUN, with their codes of DATA (default: its held-out test set), at most 10,000
    rows. It shows the atom of each latent, its density, codes, strongest data, neighbours and the calibration of P(on),
    and is sorted, filtered and searched in a browser, without a server.

    \b
    pyrovae fit digits --prior spike-slab --network dictionary --likelihood normal --out runs/features
    pyrovae report runs/features
    pyrovae report runs/features --out page.html
    """
    vae, config = runs.load_run(run, device, trust)
    if atoms == "dictionary":
        pv.metrics.dictionary(vae)  # before the data are read
    path = runs.new_file(out or run / "report.html", overwrite, ".html")
    x, labels, image_shape, columns, name = _data(run, config, vae, data)
    torch.manual_seed(seed)
    features = pv.metrics.latent_features(vae, x.to(next(vae.parameters())), atoms)
    facts = {"Run": str(run), "Data": name, "Model": _model(config), **_explained(vae, features)}
    if (standardization := runs.standardization(config)) is not None:
        features = features._replace(data=standardization.inverse(features.data))
        facts["Units"] = "data in their own; weights in standard deviations of each column"
    page = pv.plots.feature_report(
        features,
        image_shape,
        title=f"Features of {run.name or run}",
        facts=facts,
        columns=columns,
        labels=labels,
        num_latents=num_latents,
    )
    runs.save_bytes(path, page.encode())
    num, dim = features.codes.shape
    click.echo(f"{min(dim, num_latents)} of {dim} latents, codes of {num} data, {len(page) / 1e6:.1f} MB: {path}")


Shown = tuple[Tensor, Tensor | None, tuple[int, int, int] | None, list[str] | None, str]


def _data(run: Path, config: dict[str, Any], vae: VAE, data: str | None) -> Shown:
    """Rows as the model takes them, their labels, how they are shown, and what they are called."""
    own = runs.source(run, config)
    if data is None:
        dataset = run_data(run, config, vae)
        name, labels = f"{dataset.name}, {len(dataset.test):,} held-out test data", dataset.labels.get("test")
        return dataset.test, labels, dataset.image_shape, _columns(own["name"], dataset.event_shape), name
    event_shape = tuple(config["model"]["event_shape"])
    x = runs.data_rows(run, config, data).reshape(-1, *event_shape)
    some = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:NUM_DATA].sort().values
    if isinstance(vae.likelihood, Likelihood):
        vae.likelihood.check(x)
    name = f"{Path(data).name}, {len(some):,} of {len(x):,} rows"
    return x[some], None, pv.data.image_shape(data, own["data_dir"], own["missing"]), _columns(data, event_shape), name


def _columns(name: str, event_shape: tuple[int, ...]) -> list[str] | None:
    columns = pv.data.column_names(name)
    return columns if columns is not None and len(columns) == math.prod(event_shape) else None


def _model(config: dict[str, Any]) -> str:
    model = config["model"]
    return (
        f"{model['prior']} prior, {model['guide']} guide, {model['likelihood']} likelihood, {model['network']} on "
        f"{model['latent_dim']} coordinates"
    )


def _explained(vae: VAE, features: LatentFeatures) -> dict[str, str]:
    """The explained variance of data that vary, by means of their shape."""
    x, decoded = features.data, vae.decode(features.codes.to(next(vae.parameters()))).cpu()
    if x.shape != decoded.shape or bool(((x == x[:1]) | x.isnan()).all()):
        return {}
    return {"Explained variance": f"{pv.metrics.explained_variance(x, decoded):.1%}"}
