"""The commands that take a finished run and write an array: ``encode``, ``impute``, ``sample``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import torch
from torch import Tensor

import pyrovae as pv
from pyrovae import runs
from pyrovae.cli.reporting import SEED
from pyrovae.conditional import ConditionalVAE
from pyrovae.likelihoods import Likelihood

__all__ = [
    "device_option",
    "encode",
    "impute",
    "out_option",
    "overwrite_option",
    "run_argument",
    "sample",
    "trust_option",
]

run_argument = click.argument("run", type=click.Path(path_type=Path))
out_option = click.option("--out", type=click.Path(path_type=Path), help="File to write.  [default: in the run]")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace the file in --out.")
trust_option = click.option(
    "--trust",
    is_flag=True,
    help="Import parts of your own, such as mymodule.MyPrior, that RUN names; that runs their code.",
)
device_option = click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, mps.")


@click.command(short_help="The code of every row.")
@run_argument
@click.argument("data", required=False)
@out_option
@overwrite_option
@trust_option
@device_option
def encode(run: Path, data: str | None, out: Path | None, overwrite: bool, trust: bool, device: str) -> None:
    """Write the code of every row of DATA (default: the run's own data, in its own order) as a .npy of one row each."""
    vae, config = runs.load_run(run, device, trust)
    if vae.num_labels:
        raise ValueError(f"run {str(run)!r} is conditional: its codes need labels too, vae.encode(x, y) in Python")
    check = vae.likelihood.check if isinstance(vae.likelihood, Likelihood) else lambda x: None
    num, batches = runs.data_batches(run, config, data, 4096, check)
    path = runs.new_file(out or run / "codes.npy", overwrite, ".npy")
    zeros = torch.zeros(2, dtype=torch.float64)  # exact zeros, and coordinates in all

    def codes() -> Iterator[Tensor]:
        for x in batches:
            rows = x.reshape(-1, *config["model"]["event_shape"]).to(next(vae.parameters()))
            code = vae.encode(rows).cpu()
            zeros.add_(torch.tensor([(code == 0).sum(), code.numel()]))
            yield code

    runs.save_parts(path, num, codes())
    click.echo(f"{num} codes of {zeros[1] / num:.0f} coordinates, {zeros[0] / zeros[1]:.1%} exact zeros: {path}")


@click.command(short_help="What is missing, given what is observed.")
@run_argument
@click.argument("data", required=False)
@click.option("--num-samples", default=1000, show_default=True, type=click.IntRange(1), help="Weighted draws per row.")
@click.option("--seed", default=0, show_default=True, type=SEED, help="Of the draws.")
@out_option
@overwrite_option
@trust_option
@device_option
def impute(
    run: Path,
    data: str | None,
    num_samples: int,
    seed: int,
    out: Path | None,
    overwrite: bool,
    trust: bool,
    device: str,
) -> None:
    """Write DATA (default: the run's own data, in its own order) with each missing value at its mean given what is
    observed of its row, in the data's own units, as a .npy. RUN was trained with --missing."""
    vae, config = runs.load_run(run, device, trust)
    if not config["model"].get("missing"):
        raise ValueError(
            f"run {str(run)!r} has a model of whole data: pyrovae fit --missing trains one that fills them"
        )
    x = runs.data_rows(run, config, data)
    shape = x.shape
    if isinstance(vae.likelihood, Likelihood):
        vae.likelihood.check(x)
    path = runs.new_file(out or run / "imputed.npy", overwrite, ".npy")
    torch.manual_seed(seed)
    rows = x.reshape(-1, *config["model"]["event_shape"]).to(next(vae.parameters()))
    filled = pv.metrics.impute(vae, rows, num_samples).cpu().reshape(shape)
    holes = x.isnan()
    if (standardization := runs.standardization(config)) is not None:
        filled = standardization.inverse(filled)
    runs.save_array(path, filled)
    click.echo(f"{len(x)} rows, {int(holes.sum())} missing values filled, {holes.float().mean():.1%} of all: {path}")


@click.command(short_help="New data from the model.")
@run_argument
@click.option("-n", "--num", default=64, show_default=True, type=click.IntRange(1), help="How many.")
@click.option("--label", type=click.IntRange(0), help="Of a conditional run.  [default: each label in turn]")
@click.option("--mean", is_flag=True, help="The mean of p(x|z) in place of a draw from it.")
@click.option("--seed", default=0, show_default=True, type=SEED, help="Of the draws.")
@out_option
@overwrite_option
@trust_option
@device_option
def sample(
    run: Path,
    num: int,
    label: int | None,
    mean: bool,
    seed: int,
    out: Path | None,
    overwrite: bool,
    trust: bool,
    device: str,
) -> None:
    """Draw z from the prior of RUN and x from p(x|z); write a .npy of one row each."""
    vae, config = runs.load_run(run, device, trust)
    if label is not None and label >= vae.num_labels:
        whole = f"whole numbers from 0 to {vae.num_labels - 1}" if vae.num_labels else "none: it is not conditional"
        raise ValueError(f"--label {label}: the labels of run {str(run)!r} are {whole}")
    path = runs.new_file(out or run / "samples.npy", overwrite, ".npy")
    torch.manual_seed(seed)
    if isinstance(vae, ConditionalVAE):
        y = torch.arange(num, device=device) % vae.num_labels
        y = y if label is None else torch.full_like(y, label)
        x = vae.decode(vae.sample_prior(num), y) if mean else vae.sample(y)
    else:
        x = vae.decode(vae.sample_prior(num)) if mean else vae.sample(num)
    if (standardization := runs.standardization(config)) is not None:
        x = standardization.inverse(x.cpu())
    runs.save_array(path, x.cpu())
    click.echo(f"{num} {'means' if mean else 'draws'} of shape {tuple(x.shape[1:])}: {path}")
