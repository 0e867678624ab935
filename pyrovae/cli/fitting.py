"""``pyrovae fit``, and how one run is prepared and trained, which ``compare`` shares."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import pyro
import torch
from torch import Tensor
from torch.distributions import constraints

import pyrovae as pv
from pyrovae import runs
from pyrovae.build import (
    CORRUPTIONS,
    GUIDES,
    LIKELIHOODS,
    PRIORS,
    by_name_or_path,
    name_and_options,
    usual_warmup,
)
from pyrovae.cli.reporting import SEED, describe, measure, print_table
from pyrovae.data import Data
from pyrovae.likelihoods import Likelihood
from pyrovae.optim import OPTIMIZERS, SCHEDULES
from pyrovae.train import History
from pyrovae.vae import VAE

__all__ = [
    "Prepared",
    "check_support",
    "count",
    "describe_standardization",
    "fit",
    "followed",
    "prepare",
    "rows_of_step",
    "train_run",
    "warn_of_few",
]

# how long a schedule of the learning rate is, of the run, where it is not said
LENGTHS = {"step": 1 / 3, "cosine": 1.0, "one-cycle": 1.0, "warmup": 0.1}
# where --epochs is not given; 100 for other data
EPOCHS = {"digits": 200, "mnist": 20, "fashion-mnist": 20, "patches": 20}
GREY = ("digits", "mnist", "fashion-mnist")  # built-in images in [0, 1]
FEW = 10  # test data


def _read_defaults(ctx: click.Context, _: click.Parameter, path: str | None) -> None:
    """``--config``: option values from a JSON file, below those of the command line."""
    if path is None:
        return
    try:
        values = json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(f"--config {path!r} is not JSON: {error}") from error
    command = str(ctx.command.name)
    values = values.get(command, values.get("fit", values)) if isinstance(values, dict) else values
    known = {parameter.name for parameter in ctx.command.params} - {"data", "config"}
    if not isinstance(values, dict) or not set(values) <= known:
        raise ValueError(f"--config {path!r} must hold options of {command} by name: {', '.join(sorted(known))}")
    ctx.default_map = {**(ctx.default_map or {}), **values}


def _widths(_: click.Context, __: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a list of widths such as 400 or 400,200") from error


def _resolved(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """A folder that a run finds again from another working folder."""
    return value and str(Path(value).expanduser().resolve())


@click.command(short_help="Train a VAE on a data set.")
@click.argument("data")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the run, made by this command.")
@click.option("--overwrite", is_flag=True, help="Replace the run in --out.")
@click.option(
    "--prior",
    default="normal",
    show_default=True,
    help=f"{', '.join(sorted(PRIORS))}; or mymodule.MyPrior. Hyper-parameters follow, student-t:df=3:scale=0.5, as "
    "those of guide and likelihood do.",
)
@click.option(
    "--guide", help=f"{', '.join(sorted(GUIDES))}; or mymodule.MyGuide.  [default: the one of the prior's family]"
)
@click.option(
    "--likelihood",
    help=f"{', '.join(sorted(LIKELIHOODS))}; or mymodule.MyLikelihood.  [default: bernoulli for 0 and 1, "
    "continuous-bernoulli for [0, 1], else normal]",
)
@click.option("--latent-dim", default=16, show_default=True, type=click.IntRange(1), help="Coordinates of the code.")
@click.option("--num-components", type=click.IntRange(1), help="Of the priors mixture and vamp.  [default: 10, 50]")
@click.option("--hidden", default="400", show_default=True, callback=_widths, help="Widths of the encoder: 400,200.")
@click.option(
    "--network",
    default="mlp",
    show_default=True,
    help="mlp, conv (images), dictionary (linear decoder), gru (sequences).",
)
@click.option(
    "--norm",
    type=click.Choice(["batch", "layer", "group"]),
    help="Normalisation in mlp, conv and dictionary.  [default: none]",
)
@click.option(
    "--dropout", default=0.0, show_default=True, type=click.FloatRange(0, 1, max_open=True), help="In training."
)
@click.option(
    "--residual", default=0, show_default=True, type=click.IntRange(0), help="Residual blocks per size, in conv."
)
@click.option(
    "--corrupt",
    help=f"What the encoder sees in place of x while it trains: {', '.join(CORRUPTIONS)}; or mymodule.my_function. "
    "Hyper-parameters follow, gaussian:scale=0.5, masking:prob=0.3.",
)
@click.option(
    "--conditional", is_flag=True, help="A model of x given its label, of data with labels: digits and (fashion-)mnist."
)
@click.option("--epochs", type=click.IntRange(1), help="[default: 200 for digits, 20 for mnist and patches, 100 else]")
@click.option("--patience", type=click.IntRange(1), help="Stop after so many epochs without a better validation loss.")
@click.option(
    "--batch-size", default=128, show_default=True, type=click.IntRange(1), help="Data per step; gd takes all of them."
)
@click.option(
    "--optim",
    default="adam",
    show_default=True,
    help=f"{', '.join(OPTIMIZERS)}. What else they take follows, adam:eps=1e-6.",
)
@click.option("--lr", default=1e-3, show_default=True, type=click.FloatRange(0, min_open=True), help="Learning rate.")
@click.option(
    "--schedule",
    help=f"Of the learning rate: {', '.join(SCHEDULES)}. What they take follows, cosine:warmup=5.  [default: none; "
    "where its length is not given, cosine and one-cycle have that of the run, step a third of it, warmup a tenth]",
)
@click.option("--momentum", type=click.FloatRange(0, 1, True, True), help="Of momentum, nesterov, muon.")
@click.option("--weight-decay", type=click.FloatRange(0), help="Of adamw and muon, apart from the gradient.")
@click.option("--l1", type=click.FloatRange(0), help="Price of the absolute weights of the networks, per datum.")
@click.option("--l2", type=click.FloatRange(0), help="Price of half their squares, per datum.")
@click.option("--beta", default=1.0, show_default=True, type=click.FloatRange(0), help="Weight of the KL.")
@click.option(
    "--warmup",
    type=click.FloatRange(0),
    help="Epochs over which beta rises from 0 in a straight line.  [default: 14 for spike-slab and its kin, but four "
    "fifths of the run at most; else 0]",
)
@click.option(
    "--binarize",
    type=click.Choice(["static", "dynamic", "none"]),
    help="Draw each pixel from its grey value: once, or anew in each batch.  [default: dynamic for the built-in images "
    "under a Bernoulli likelihood, else none]",
)
@click.option(
    "--standardize/--no-standardize",
    default=None,
    help="Bring each column to mean 0 and standard deviation 1.  [default: for tables of reals under a normal or "
    "laplace likelihood]",
)
@click.option("--clip-norm", type=click.FloatRange(0, min_open=True), help="Largest norm of the gradient of a step.")
@click.option(
    "--compile/--no-compile",
    default=None,
    help="Compile the training step.  [default: where the run is long enough to earn it back]",
)
@click.option(
    "--precision",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "bfloat16"]),
    help="What the networks multiply in.",
)
@click.option("--num-samples", type=click.IntRange(1), help="Importance samples per test row.  [default: 100 to 5000]")
@click.option("--seed", default=0, show_default=True, type=SEED, help="Of split, weights, order and draws.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, mps.")
@click.option(
    "--data-dir",
    type=click.Path(),
    callback=_resolved,
    help="Folder that holds MNIST/raw.  [default: PYROVAE_DATA, user cache]",
)
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
        prepared = prepare(data, options)
        describe(prepared.dataset, prepared.vae, prepared.binarize)
        describe_standardization(prepared.dataset)
        warn_of_few(prepared.dataset)
        click.echo(
            f"training {count(prepared.epochs, 'epoch')} of batches of {rows_of_step(options, prepared.dataset)}, "
            f"{options['optim']} at learning rate {options['lr']:g}{followed(options)}, seed {options['seed']}, on "
            f"{options['device']}"
        )
        numbers, _ = train_run(folder, data, options, prepared)
        print_table(numbers)
    click.echo(f"run saved in {out}: config.json, model.safetensors, history.csv, metrics.json, figures/")


def count(number: int, noun: str) -> str:
    """1 epoch, 2 epochs."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


class Prepared(NamedTuple):
    """A model before its first step, its data, and what the options left open."""

    vae: VAE
    dataset: Data
    likelihood: str
    binarize: str | None
    epochs: int


def prepare(data: str, options: dict[str, Any]) -> Prepared:
    """Seed torch, read the data and build the model: whatever is wrong with the options is wrong here."""
    torch.manual_seed(options["seed"])
    device = runs.device(options["device"])
    dataset, likelihood, binarize = _load(data, options)
    epochs = options["epochs"] or EPOCHS.get(data, 100)
    _optim(options, dataset, epochs)
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
            num_data=len(dataset.train),
            norm=options["norm"],
            dropout=options["dropout"],
            residual=options["residual"],
            corrupt=options["corrupt"],
            num_labels=_num_labels(dataset) if options.get("conditional") else None,
        ).to(device)
    check_support(vae, dataset, lambda: pv.data.rows(data, options["data_dir"], binarize, options["seed"]))
    _penalties(options, vae)
    return Prepared(vae, dataset, likelihood, binarize, epochs)


def train_run(folder: Path, data: str, options: dict[str, Any], prepared: Prepared) -> tuple[dict[str, Any], History]:
    """Train what was prepared, measure it, and write the run into a folder that is there; its numbers and history."""
    vae, dataset, likelihood, binarize, epochs = prepared
    history = pv.fit(
        vae,
        dataset,
        epochs=epochs,
        batch_size=None if _takes_all(options) else options["batch_size"],
        optim=_optim(options, dataset, epochs),
        loss=pv.ELBO(beta=_beta(options, epochs), penalties=_penalties(options, vae)),
        patience=options["patience"],
        seed=options["seed"],
        compile=options["compile"],
        clip_norm=options["clip_norm"],
        precision=None if options["precision"] == "float32" else getattr(torch, options["precision"]),
    )
    numbers = measure(vae, dataset, options["num_samples"], options["seed"])
    source = {"name": data if data in pv.data.NAMES else str(Path(data).resolve()), "binarize": binarize}
    standardization = dataset.standardization
    pv.save(
        vae,
        folder,
        data={
            **source,
            "seed": options["seed"],
            "data_dir": options["data_dir"],
            "standardization": None if standardization is None else standardization.as_lists(),
        },
        fit={
            **options,
            "hidden": ",".join(map(str, options["hidden"])),
            "epochs": epochs,
            "likelihood": likelihood,
            "standardize": standardization is not None,
        },
        versions={"pyrovae": pv.__version__, "torch": torch.__version__, "pyro": pyro.__version__},
    )
    pv.train.write_history(history, folder / "history.csv")
    runs.write_json(folder / "metrics.json", numbers)
    runs.write_figures(folder / "figures", vae, dataset, history)
    return numbers, history


def _load(name: str, options: dict[str, Any]) -> tuple[Data, str, str | None]:
    """The data, and what likelihood and binarisation stand for where they are not given."""
    likelihood, binarize = options["likelihood"], options["binarize"]
    if likelihood is not None:
        with runs.importing_from_here():
            by_name_or_path("likelihood", name_and_options("likelihood", likelihood)[0], LIKELIHOODS)
    if binarize is None and name in GREY and likelihood in (None, "bernoulli"):
        binarize = "dynamic"
    binarize = None if binarize == "none" else binarize
    dataset = pv.data.load(name, options["data_dir"], binarize, options["seed"])
    if likelihood is None:
        splits = (dataset.train, dataset.val, dataset.test)
        binary = all(bool(((x == 0) | (x == 1)).all()) for x in splits)
        unit = all(bool(((x >= 0) & (x <= 1)).all()) for x in splits)
        likelihood = "bernoulli" if binary or binarize else "continuous-bernoulli" if unit else "normal"
    standardize = options["standardize"]
    if standardize and not _is_real(likelihood):
        raise ValueError(f"--standardize is of real data, got likelihood {likelihood!r}")
    if standardize is None:
        unit = bool(((dataset.train >= 0) & (dataset.train <= 1)).all())
        standardize = dataset.image_shape is None and not unit and likelihood.partition(":")[0] in ("normal", "laplace")
    return dataset.standardize() if standardize else dataset, likelihood, binarize


def _is_real(likelihood: str) -> bool:
    """Whether it is a likelihood of real numbers, or one of a user's own that may be."""
    with runs.importing_from_here():
        cls = by_name_or_path("likelihood", likelihood.partition(":")[0], LIKELIHOODS)
    return getattr(cls, "support", constraints.real) is constraints.real


def warn_of_few(dataset: Data) -> None:
    """One line where the test set says little."""
    if len(dataset.test) < FEW:
        sizes = f"{len(dataset.train)} to train and {len(dataset.test)} to test"
        click.echo(f"few data, {sizes}: the numbers below say little of other data")


def describe_standardization(dataset: Data) -> None:
    """One line that says what the numbers are of, where they are not of the data in their own units."""
    if dataset.standardization is None:
        return
    nats = dataset.standardization.log_scale
    click.echo(
        f"standardised: each column has mean 0 and standard deviation 1 in the training data; log-densities are of the "
        f"standardised data, those of the data are {abs(nats):.2f} nats {'lower' if nats >= 0 else 'higher'} per datum"
    )


def _beta(options: dict[str, Any], epochs: int) -> Any:
    """The weight of the KL, as it rises."""
    default = usual_warmup(options["prior"], epochs)
    warmup = default if options["warmup"] is None else options["warmup"]
    if warmup > epochs:
        raise ValueError(f"--warmup of {warmup:g} epochs ends after the run, of {epochs}: --epochs")
    return pv.warmup(warmup, end=options["beta"]) if warmup else options["beta"]


def _optim(options: dict[str, Any], dataset: Data, epochs: int) -> pyro.optim.PyroOptim:
    """The optimizer, with the schedule of its learning rate; whatever is wrong with either is wrong here."""
    name, given = name_and_options("optimizer", options["optim"])
    flags = {option: options[option] for option in ("lr", "batch_size", "momentum", "weight_decay")}
    for option, value in flags.items():
        if value is not None and option in given:
            raise ValueError(f"--optim {options['optim']}: {option} is given by --{option.replace('_', '-')}")
    given |= {option: flags[option] for option in ("momentum", "weight_decay") if flags[option] is not None}
    lr: pv.optim.Rate = options["lr"]
    if options["schedule"] is not None:
        schedule, lengths = name_and_options("schedule", options["schedule"])
        if schedule in LENGTHS and not {"epochs", "steps"} & lengths.keys():
            lengths["epochs"] = LENGTHS[schedule] * epochs
        lr = pv.optim.schedule_by_name(schedule, options["lr"], **lengths)
    return pv.optim.by_name(name, lr, rows_of_step(options, dataset), **given)


def rows_of_step(options: dict[str, Any], dataset: Data) -> int:
    """The data of a step: of a batch, or all."""
    return len(dataset.train) if _takes_all(options) else options["batch_size"]


def _takes_all(options: dict[str, Any]) -> bool:
    return options["optim"].partition(":")[0] == "gd"


def followed(options: dict[str, Any]) -> str:
    """What the learning rate does, for a line that says what it is."""
    return "" if options["schedule"] is None else f", {options['schedule']} schedule"


def _penalties(options: dict[str, Any], vae: VAE) -> list[Any]:
    """Those of the weights."""
    named = {"l1": pv.L1, "l2": pv.L2}
    return [penalty(options[name], vae) for name, penalty in named.items() if options[name]]


def _num_classes(dataset: Data, likelihood: str) -> int | None:
    if likelihood.partition(":")[0] not in ("categorical", "autoregressive"):
        return None
    return 1 + int(max(part.max() for part in (dataset.train, dataset.val, dataset.test)))


def _num_labels(dataset: Data) -> int:
    if not {"train", "val", "test"} <= set(dataset.labels):
        raise ValueError(
            f"--conditional needs the label of each datum, as digits, mnist and fashion-mnist have it; "
            f"{dataset.name} has none"
        )
    return 1 + int(max(labels.max() for labels in dataset.labels.values()))


def check_support(vae: VAE, dataset: Data, rows: Callable[[], Tensor]) -> None:
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
