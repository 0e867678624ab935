"""The command line: ``pyrovae fit DATA`` trains and leaves a run; ``evaluate``, ``encode`` and ``sample`` take a run.

A run is a folder of ``config.json``, ``model.safetensors``, ``history.csv``, ``metrics.json`` and ``figures/``.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import pyro
import torch
from torch import Tensor

import pyrovae as pv
from pyrovae import runs
from pyrovae.build import GUIDES, LIKELIHOODS, NETWORKS, PRIORS, by_name, by_name_or_path
from pyrovae.data import Data
from pyrovae.likelihoods import Likelihood
from pyrovae.vae import VAE

__all__ = ["main"]

OPTIMIZERS = {
    "adam": "Adam",
    "adamw": "AdamW",
    "nadam": "NAdam",
    "clipped-adam": "ClippedAdam",
    "sgd": "SGD",
    "rmsprop": "RMSprop",
    "adagrad": "Adagrad",
}
EPOCHS = {
    "digits": 200,
    "mnist": 20,
    "fashion-mnist": 20,
    "patches": 20,
}  # where --epochs is not given; 100 for other data
GREY = ("digits", "mnist", "fashion-mnist")  # built-in images in [0, 1]
WARMUP = {"spike-slab": 8.0}  # epochs, where --warmup is not given
SEED = click.IntRange(0, 2**63 - 1)
DRAWS = 1_000_000  # importance samples for a whole test set where --num-samples is not given


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; an error of the user's is one line on stderr and exit status 2."""
    try:
        sys.exit(cli(args, prog_name="pyrovae", standalone_mode=False))
    except (click.Abort, KeyboardInterrupt):
        click.echo("pyrovae: stopped; nothing was written", err=True)
        sys.exit(130)
    except click.ClickException as error:
        message = error.format_message()
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        message = str(error)
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in str(error)):
            raise  # a bug, and its traceback says where
        message = f"not enough memory for this model and these data: {error}"
    click.echo(f"pyrovae: error: {' '.join(message.split())}", err=True)
    sys.exit(2)


@click.group(
    invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(pv.__version__, prog_name="pyrovae")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Variational autoencoders as plain Pyro functions, with sparse and non-Gaussian priors.

    \b
    pyrovae fit digits --out runs/digits     train on handwritten digits, and see what was learned
    pyrovae evaluate runs/digits             its table again; --num-samples for a tighter bound
    pyrovae encode runs/digits               the code of every row
    pyrovae sample runs/digits               new data from the model
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _read_defaults(ctx: click.Context, _: click.Parameter, path: str | None) -> None:
    """``--config``: option values from a JSON file, below those of the command line."""
    if path is None:
        return
    try:
        values = json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(f"--config {path!r} is not JSON: {error}") from error
    values = values.get("fit", values) if isinstance(values, dict) else values
    known = {parameter.name for parameter in ctx.command.params} - {"data", "config"}
    if not isinstance(values, dict) or not set(values) <= known:
        raise ValueError(f"--config {path!r} must hold options of fit by name: {', '.join(sorted(known))}")
    ctx.default_map = {**(ctx.default_map or {}), **values}


def _widths(_: click.Context, __: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a list of widths such as 400 or 400,200") from error


@cli.command(short_help="Train a VAE on a data set.")
@click.argument("data")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the run, made by this command.")
@click.option("--overwrite", is_flag=True, help="Replace the run in --out.")
@click.option("--prior", default="normal", show_default=True, help=f"{', '.join(PRIORS)}; or mymodule.MyPrior.")
@click.option("--guide", help=f"{', '.join(GUIDES)}; or mymodule.MyGuide.  [default: the one of the prior's family]")
@click.option(
    "--likelihood",
    help=f"{', '.join(LIKELIHOODS)}; or mymodule.MyLikelihood.  [default: bernoulli for 0 and 1, continuous-bernoulli "
    f"for [0, 1], else normal]",
)
@click.option("--latent-dim", default=16, show_default=True, type=click.IntRange(1), help="Coordinates of the code.")
@click.option("--num-components", type=click.IntRange(1), help="Of the priors mixture and vamp.  [default: 10, 50]")
@click.option("--hidden", default="400", show_default=True, callback=_widths, help="Widths of the encoder: 400,200.")
@click.option("--network", default="mlp", show_default=True, help=f"{', '.join(NETWORKS)} (linear decoder).")
@click.option("--epochs", type=click.IntRange(1), help="[default: 200 for digits, 20 for mnist and patches, 100 else]")
@click.option("--patience", type=click.IntRange(1), help="Stop after so many epochs without a better validation loss.")
@click.option("--batch-size", default=128, show_default=True, type=click.IntRange(1), help="Data per step.")
@click.option("--optim", default="adam", show_default=True, help=f"{', '.join(OPTIMIZERS)}.")
@click.option("--lr", default=1e-3, show_default=True, type=click.FloatRange(0, min_open=True), help="Learning rate.")
@click.option("--beta", default=1.0, show_default=True, type=click.FloatRange(0), help="Weight of the KL.")
@click.option(
    "--warmup",
    type=click.FloatRange(0),
    help="Epochs over which beta rises from 0 in a straight line.  [default: 8 for spike-slab, else 0]",
)
@click.option(
    "--binarize",
    type=click.Choice(["static", "dynamic", "none"]),
    help="Draw each pixel from its grey value: once, or anew in each batch.  [default: dynamic for the built-in images "
    "under a Bernoulli likelihood, else none]",
)
@click.option("--num-samples", type=click.IntRange(1), help="Importance samples per test row.  [default: 100 to 5000]")
@click.option("--seed", default=0, show_default=True, type=SEED, help="Of split, weights, order and draws.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, mps.")
@click.option("--data-dir", type=click.Path(), help="Folder that holds MNIST/raw.  [default: PYROVAE_DATA, user cache]")
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False),
    callback=_read_defaults,
    is_eager=True,
    expose_value=False,
    help="JSON file of these options; a run's config.json repeats it.",
)
def fit(data: str, out: Path, overwrite: bool, **options: Any) -> None:
    """Train a VAE on DATA and leave a run in --out.

    DATA is digits, mnist, fashion-mnist or patches (of photographs), or a file of your own (.npy, .npz, .csv, .pt, one
    row per datum), or a folder of images.

    \b
    pyrovae fit digits --out runs/digits
    pyrovae fit mnist --prior laplace --latent-dim 50 --out runs/mnist-laplace
    pyrovae fit measurements.csv --likelihood normal --latent-dim 4 --out runs/mine
    """
    with runs.new_run(out, overwrite) as folder:
        torch.manual_seed(options["seed"])
        options["data_dir"] = options["data_dir"] and str(Path(options["data_dir"]).expanduser().resolve())
        device = runs.device(options["device"])
        dataset, likelihood, binarize = _load(data, options)
        optim_class = getattr(pyro.optim, by_name("optimizer", options["optim"], OPTIMIZERS))
        epochs = options["epochs"] or EPOCHS.get(data, 100)
        if options["network"] == "conv":
            if dataset.image_shape is None:
                raise ValueError("network: conv needs images, and the rows of the data are not")
            dataset = dataset.reshape(dataset.image_shape)
        with runs.importing_from_here():
            vae = pv.build_vae(
                dataset.event_shape,
                options["latent_dim"],
                prior=options["prior"],
                likelihood=likelihood,
                guide=options["guide"],
                hidden=options["hidden"],
                network=options["network"],
                num_classes=_num_classes(dataset, likelihood),
                num_components=options["num_components"],
                inputs=dataset.train,
            ).to(device)
        _check_support(vae, dataset, lambda: pv.data.rows(data, options["data_dir"], binarize, options["seed"]))
        _describe(dataset, vae, binarize)
        click.echo(
            f"training {epochs} epochs of batches of {options['batch_size']}, {options['optim']} at learning rate "
            f"{options['lr']:g}, seed {options['seed']}, on {device}"
        )
        history = pv.fit(
            vae,
            dataset,
            epochs=epochs,
            batch_size=options["batch_size"],
            optim=optim_class({"lr": options["lr"]}),
            loss=pv.ELBO(beta=_beta(options)),
            patience=options["patience"],
            seed=options["seed"],
        )
        numbers = _evaluate(vae, dataset, options["num_samples"], options["seed"])
        source = {"name": data if data in pv.data.NAMES else str(Path(data).resolve()), "binarize": binarize}
        pv.save(
            vae,
            folder,
            data={**source, "seed": options["seed"], "data_dir": options["data_dir"]},
            fit={
                **options,
                "hidden": ",".join(map(str, options["hidden"])),
                "epochs": epochs,
                "likelihood": likelihood,
            },
            versions={"pyrovae": pv.__version__, "torch": torch.__version__, "pyro": pyro.__version__},
        )
        pv.train.write_history(history, folder / "history.csv")
        runs.write_json(folder / "metrics.json", numbers)
        runs.write_figures(folder / "figures", vae, dataset, history)
    click.echo(f"run saved in {out}: config.json, model.safetensors, history.csv, metrics.json, figures/")


_run_argument = click.argument("run", type=click.Path(path_type=Path))
_out_option = click.option("--out", type=click.Path(path_type=Path), help="File to write.  [default: in the run]")
_overwrite_option = click.option("--overwrite", is_flag=True, help="Replace the file in --out.")
_device_option = click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, mps.")


@cli.command(short_help="The numbers of a run on its test set.")
@_run_argument
@click.option("--num-samples", type=click.IntRange(1), help="Importance samples per test row.  [default: 100 to 5000]")
@click.option("--seed", default=0, show_default=True, type=SEED, help="Of the draws.")
@_device_option
def evaluate(run: Path, num_samples: int | None, seed: int, device: str) -> None:
    """Measure the model of RUN on its held-out test set; print the table and write RUN/metrics.json."""
    vae, config = runs.load_run(run, device)
    source = runs.source(run, config)
    dataset = pv.data.load(source["name"], source["data_dir"], source["binarize"], source["seed"])
    runs.check_width(run, config, dataset.train)
    dataset = dataset.reshape(tuple(config["model"]["event_shape"]))
    _check_support(vae, dataset, lambda: pv.data.rows(*source.values()))
    _describe(dataset, vae, source["binarize"])
    runs.write_json(run / "metrics.json", _evaluate(vae, dataset, num_samples, seed))


@cli.command(short_help="The code of every row.")
@_run_argument
@click.argument("data", required=False)
@_out_option
@_overwrite_option
@_device_option
def encode(run: Path, data: str | None, out: Path | None, overwrite: bool, device: str) -> None:
    """Write the code of every row of DATA (default: the run's own data, in its own order) as a .npy of one row each."""
    vae, config = runs.load_run(run, device)
    source = runs.source(run, config)
    x = pv.data.rows(data or source["name"], source["data_dir"], source["binarize"], source["seed"])
    runs.check_width(run, config, x)
    if isinstance(vae.likelihood, Likelihood):
        vae.likelihood.check(x)
    x = x.reshape(-1, *config["model"]["event_shape"]).to(next(vae.parameters()))
    path = runs.new_file(out or run / "codes.npy", overwrite)
    codes = torch.cat([vae.encode(batch) for batch in x.split(4096)]).cpu()
    runs.save_array(path, codes)
    click.echo(
        f"{len(codes)} codes of {codes.shape[1]} coordinates, {(codes == 0).float().mean():.1%} exact zeros: {path}"
    )


@cli.command(short_help="New data from the model.")
@_run_argument
@click.option("-n", "--num", default=64, show_default=True, type=click.IntRange(1), help="How many.")
@click.option("--mean", is_flag=True, help="The mean of p(x|z) in place of a draw from it.")
@click.option("--seed", default=0, show_default=True, type=SEED, help="Of the draws.")
@_out_option
@_overwrite_option
@_device_option
def sample(run: Path, num: int, mean: bool, seed: int, out: Path | None, overwrite: bool, device: str) -> None:
    """Draw z from the prior of RUN and x from p(x|z); write a .npy of one row each."""
    vae, _ = runs.load_run(run, device)
    path = runs.new_file(out or run / "samples.npy", overwrite)
    torch.manual_seed(seed)
    x = vae.decode(vae.sample_prior(num)) if mean else vae.sample(num)
    runs.save_array(path, x.cpu())
    click.echo(f"{num} {'means' if mean else 'draws'} of shape {tuple(x.shape[1:])}: {path}")


def _load(name: str, options: dict[str, Any]) -> tuple[Data, str, str | None]:
    """The data, and what likelihood and binarisation stand for where they are not given."""
    likelihood, binarize = options["likelihood"], options["binarize"]
    if likelihood is not None:
        with runs.importing_from_here():
            by_name_or_path("likelihood", likelihood, LIKELIHOODS)
    if binarize is None and name in GREY and likelihood in (None, "bernoulli"):
        binarize = "dynamic"
    binarize = None if binarize == "none" else binarize
    dataset = pv.data.load(name, options["data_dir"], binarize, options["seed"])
    if likelihood is None:
        splits = (dataset.train, dataset.val, dataset.test)
        binary = all(bool(((x == 0) | (x == 1)).all()) for x in splits)
        unit = all(bool(((x >= 0) & (x <= 1)).all()) for x in splits)
        likelihood = "bernoulli" if binary or binarize else "continuous-bernoulli" if unit else "normal"
    return dataset, likelihood, binarize


def _beta(options: dict[str, Any]) -> Any:
    """The weight of the KL, as it rises."""
    epochs = options["warmup"] if options["warmup"] is not None else WARMUP.get(options["prior"], 0.0)
    rise = pv.warmup(epochs) if epochs else lambda _: 1.0
    return lambda epoch: options["beta"] * rise(epoch)


def _num_classes(dataset: Data, likelihood: str) -> int | None:
    if likelihood != "categorical":
        return None
    return 1 + int(max(part.max() for part in (dataset.train, dataset.val, dataset.test)))


def _check_support(vae: VAE, dataset: Data, rows: Callable[[], Tensor]) -> None:
    """Refuse data that the likelihood has no density for before any training; the index is that of the file's rows."""
    if not isinstance(vae.likelihood, Likelihood):
        return
    train = () if dataset.transform else (dataset.train,)  # what the transform draws fits
    try:
        for x in (*train, dataset.val, dataset.test):
            vae.likelihood.check(x)
    except ValueError:
        vae.likelihood.check(rows())
        raise


def _describe(dataset: Data, vae: VAE, binarize: str | None) -> None:
    config = vae.config or {}
    sizes = f"{len(dataset.train)} training, {len(dataset.val)} validation and {len(dataset.test)} test data"
    click.echo(f"{dataset.name}: {sizes} of shape {dataset.event_shape}, {binarize or 'no'} binarisation")
    parameters = sum(parameter.numel() for parameter in vae.parameters())
    hidden = "-".join(map(str, config["hidden"]))
    click.echo(
        f"VAE: {config['prior']} prior on {config['latent_dim']} coordinates, {config['guide']} guide, "
        f"{config['likelihood']} likelihood, {config['network']} of hidden {hidden}, {parameters:,} parameters"
    )


def _evaluate(vae: VAE, dataset: Data, num_samples: int | None, seed: int) -> dict[str, Any]:
    """Measure on the test set and print the table."""
    x = dataset.test.to(next(vae.parameters()))
    num_samples = num_samples or min(5000, max(100, DRAWS // len(x)))
    torch.manual_seed(seed)
    numbers = pv.metrics.evaluate(vae, x, num_samples)
    error = "" if math.isnan(numbers["standard_error"]) else f" ± {numbers['standard_error']:.2f}"
    kl = "KL of guide from prior" + ("" if numbers["kl_is_exact"] else ", sampled")
    rows: list[tuple[str, str, str]] = [
        ("ELBO", _nats(numbers["elbo"]), f"nats per datum{error}"),
        ("  reconstruction", _nats(numbers["reconstruction"]), "nats per datum"),
        (f"  {kl}", _nats(numbers["kl"]), "nats per datum"),
        (f"log-likelihood, {num_samples} draws", _nats(numbers["log_likelihood"]), "nats per datum, at least"),
        ("active units", str(numbers["active_units"]), f"of {numbers['latent_dim']}"),
        ("mean squared error", f"{numbers['mean_squared_error']:.4f}", "per data dimension"),
    ]
    click.echo(f"\nheld-out test set, {len(x)} data")
    for name, number, unit in rows:
        click.echo(f"  {name:<32} {number:>10}  {unit}")
    if numbers["elbo"] is None:
        click.echo("  A Delta guide gives no bound on log p(x); its KL stands for -log p(z).")
    click.echo()
    return numbers


def _nats(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
