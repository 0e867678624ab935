"""What a command prints of a model: its parts and its numbers."""

from __future__ import annotations

import math
from typing import Any

import click
import torch
from torch import Tensor

import pyrovae as pv
from pyrovae import runs
from pyrovae.data import Data, OnDisk
from pyrovae.rows import num_rows
from pyrovae.vae import VAE

__all__ = [
    "LESS_SHARED",
    "SEED",
    "describe",
    "describe_data",
    "importance_samples",
    "measure",
    "nats",
    "print_table",
    "seen_by_the_model",
    "shared_support",
]

SEED = click.IntRange(0, 2**63 - 1)
LITTLE = 1.0  # nats of a datum in its code, below which a model without active units is said to have collapsed
VARIED = 0.05  # mean Jaccard distance of supports below which all data are said to share one
LESS_SHARED = (
    "Try --network dictionary, a fixed activity such as --prior spike-slab:active=0.1, or --prior "
    "rectified-normal:loc=-1.3:scale=1."
)
DRAWS = 1_000_000  # importance samples for a whole test set where --num-samples is not given


def describe(dataset: Data, vae: VAE, binarize: str | None) -> None:
    config = vae.config or {}
    describe_data(dataset, binarize)
    parameters = sum(parameter.numel() for parameter in vae.parameters())
    hidden = f"of hidden {'-'.join(map(str, config['hidden']))}" if config["hidden"] else "with a linear encoder"
    hidden = hidden if any(True for _ in vae.posterior.parameters()) else "without an encoder"
    damage = f", corruption {config['corrupt']}" if config.get("corrupt") else ""
    what = f"VAE given one of {vae.num_labels} labels" if vae.num_labels else "VAE"
    click.echo(
        f"{what}: {config['prior']} prior on {config['latent_dim']} coordinates, {config['guide']} guide, "
        f"{config['likelihood']} likelihood, {config['network']} {hidden}, {parameters:,} parameters{damage}"
    )


def describe_data(dataset: Data, binarize: str | None) -> None:
    train, held_out = dataset.train, (dataset.val, dataset.test)
    holes = train.statistics().num_missing if isinstance(train, OnDisk) else int(train.isnan().sum())
    holes += sum(int(x.isnan().sum()) for x in held_out)
    sizes = f"{len(dataset.train)} training, {len(dataset.val)} validation and {len(dataset.test)} test data"
    where = ", training data on the disk" if isinstance(train, OnDisk) else ""
    click.echo(f"{dataset.name}: {sizes} of shape {dataset.event_shape}, {binarize or 'no'} binarisation{where}")
    if share := holes / (sum(len(x) for x in (train, *held_out)) * math.prod(dataset.event_shape)):
        click.echo(f"missing: {share:.1%} of the values, which no number below is of")


def measure(vae: VAE, dataset: Data, num_samples: int | None, seed: int) -> dict[str, Any]:
    """The numbers of the test set: those of :func:`pyrovae.metrics.evaluate`."""
    x = runs.held_out(vae, dataset)
    torch.manual_seed(seed)
    return pv.metrics.evaluate(vae, x, num_samples or importance_samples(num_rows(x)))


def importance_samples(num_data: int) -> int:
    """Draws for each datum of a test set where --num-samples is not given."""
    return min(5000, max(100, DRAWS // num_data))


def seen_by_the_model(dataset: Data, seed: int) -> Tensor:
    """The training data with their pixels drawn once, where they are drawn."""
    torch.manual_seed(seed)
    return dataset.in_memory if dataset.transform is None else dataset.transform(dataset.in_memory)


def print_table(numbers: dict[str, Any]) -> None:
    if numbers["elbo"] is None:  # the guide is a point
        terms = [
            ("log p(x|z) at the code", nats(numbers["reconstruction"]), "nats per datum"),
            ("-log p(z)", nats(numbers["kl"]), "nats per datum"),
        ]
    else:
        error = "" if math.isnan(numbers["standard_error"]) else f" ± {numbers['standard_error']:.2f}"
        kl = "KL of guide from prior" + ("" if numbers["kl_is_exact"] else ", sampled")
        draws = numbers["num_samples"]
        terms = [
            ("ELBO", nats(numbers["elbo"]), f"nats per datum{error}"),
            ("  reconstruction", nats(numbers["reconstruction"]), "nats per datum"),
            (f"  {kl}", nats(numbers["kl"]), "nats per datum"),
            (f"log-likelihood, {draws} draws", nats(numbers["log_likelihood"]), "nats per datum, at least"),
        ]
    rows: list[tuple[str, str, str]] = [
        *terms,
        ("active units", str(numbers["active_units"]), f"of {numbers['latent_dim']}"),
        ("exact zeros in the codes", f"{numbers['exact_zeros']:.1%}", "of their coordinates"),
        ("Hoyer sparsity of the codes", nats(numbers["hoyer"]), _hoyer_unit(numbers)),
        ("mean squared error", f"{numbers['mean_squared_error']:.4f}", "per data dimension"),
    ]
    click.echo(f"\nheld-out test set, {numbers['num_data']} data")
    for name, number, unit in rows:
        click.echo(f"  {name:<32} {number:>10}  {unit}")
    if numbers["elbo"] is None:
        click.echo(
            "  A guide that is a point gives no bound on log p(x): the first two are the terms of its objective."
        )
    elif numbers["active_units"] == 0 and numbers["kl"] < LITTLE:
        click.echo(
            f"  The code carries less than {LITTLE:g} nat of a datum: the decoder hardly reads it. A longer --warmup, "
            f"more --epochs or another --lr may open it."
        )
    if (shared := shared_support(numbers)) is not None:
        click.echo(f"  {shared} {LESS_SHARED}")
    click.echo()


def shared_support(numbers: dict[str, Any]) -> str | None:
    """A sentence about codes that are sparse, but not per datum; None about others."""
    distance, on = numbers["support_jaccard"], (1 - numbers["exact_zeros"]) * numbers["latent_dim"]
    if distance is None or distance >= VARIED or on == 0:
        return None
    share = "All" if numbers["num_supports"] == 1 else "Nearly all"
    return (
        f"{share} data share one support, {on:.1f} of {numbers['latent_dim']} coordinates (mean Jaccard distance "
        f"{distance:.2f}): the code chooses dimensions and is not sparse per datum."
    )


def _hoyer_unit(numbers: dict[str, Any]) -> str:
    """The scale of the number, and what was left out."""
    left_out = {"dead units": numbers["dead_units"], "empty codes": numbers["empty_codes"]}
    without = " and ".join(f"{count} {what}" for what, count in left_out.items() if count)
    return "from 0, even, to 1, one-hot" + (f"; without {without}" if without else "")


def nats(value: float | None) -> str:
    """Two decimals, or a dash for what is not known."""
    return "-" if value is None else f"{value:.2f}"
