"""How a run is prepared from the options of ``fit``, trained and written; ``compare`` shares it."""

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
from pyrovae.build import LIKELIHOODS, by_name_or_path, name_and_options, usual_warmup
from pyrovae.cli.errors import explained
from pyrovae.cli.loggers import loggers
from pyrovae.cli.reporting import measure
from pyrovae.data import Data, OnDisk
from pyrovae.features import Moves, TargetL0
from pyrovae.likelihoods import Likelihood
from pyrovae.places import Place
from pyrovae.train import History
from pyrovae.vae import VAE

__all__ = [
    "LENGTHS",
    "Prepared",
    "check_same",
    "check_support",
    "count",
    "describe_standardization",
    "followed",
    "measure_run",
    "optimizer",
    "prepare",
    "rows_of_step",
    "run_config",
    "train_run",
    "training",
    "warn_of_few",
]

# how long a schedule of the learning rate is, of the run, where it is not said
LENGTHS = {"step": 1 / 3, "cosine": 1.0, "one-cycle": 1.0, "warmup": 0.1}
# where --epochs is not given; 100 for other data
EPOCHS = {"digits": 200, "mnist": 20, "fashion-mnist": 20, "patches": 20}
UNCOMPARED = ("data_dir", "on_nan")  # options that a run may be resumed with others of
SEARCH = "search"  # what --lr is where it is searched for
GREY = ("digits", "mnist", "fashion-mnist")  # built-in images in [0, 1]
DOWNLOADED = ("mnist", "fashion-mnist")  # data that --data-dir is read for
FEW = 10  # test data


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


def prepare(
    data: str, options: dict[str, Any], weights_seed: int | None = None, folder: Path | None = None
) -> Prepared:
    """Seed torch, read the data and build the model: whatever is wrong with the options is wrong here.

    ``weights_seed`` is that of the weights where they are not to be those of the run. A run that was begun in
    ``folder`` has the statistics of data on the disk, which are then not measured again.
    """
    torch.manual_seed(options["seed"])
    device = runs.device(options["device"])
    dataset, likelihood, binarize = _load(data, options, folder)
    epochs = options["epochs"] or EPOCHS.get(data, 100)
    optimizer(options, dataset, epochs)
    if weights_seed is not None:
        torch.manual_seed(weights_seed)
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
            inputs=dataset.in_memory,
            num_data=len(dataset.train),
            norm=options["norm"],
            dropout=options["dropout"],
            residual=options["residual"],
            refine=options["refine"],
            corrupt=options["corrupt"],
            missing=options["missing"],
            num_labels=_num_labels(dataset) if options["conditional"] else None,
        ).to(device)
    asked = (data, options["data_dir"], binarize, options["seed"], options["missing"])
    check_support(vae, dataset, lambda: pv.data.rows(*asked))
    _check_corruption(options["corrupt"], vae, dataset)
    _penalties(options, vae)
    for target in _targets(options, dataset):
        try:
            target.check(vae)
        except (TypeError, ValueError) as error:
            raise ValueError(f"--target-l0: {error}") from error
    return Prepared(vae, dataset, likelihood, binarize, epochs)


def train_run(place: Place, data: str, options: dict[str, Any], prepared: Prepared) -> History:
    """Train what was prepared, or what is left of it, in the folder of the run; its weights are then on the disk."""
    vae, dataset, _, _, epochs = prepared
    versions = {"pyrovae": pv.__version__, "torch": torch.__version__, "pyro": pyro.__version__}
    config = run_config(data, options, prepared)
    sections = {**config, "versions": versions}
    settings = {"data": config["data"]["name"], **config["fit"]}
    moves = [Moves(dataset.in_memory)] if Moves.are_possible(vae) else []
    said: list[Moves | TargetL0] = [*moves, *_targets(options, dataset)]
    history = pv.fit(
        vae,
        dataset,
        epochs=epochs,
        optim=optimizer(options, dataset, epochs),
        seed=options["seed"],
        callbacks=[
            *said,
            *loggers(options["log"], place.folder, place.out.name, settings),
            pv.train.Checkpoint(place.folder, resume=True, sections=sections),
        ],
        on_nan=options["on_nan"],
        **training(options, prepared),
    )
    place.settle()
    for each in said:
        if not options["quiet"]:
            click.echo(f"dictionary: {each.summary()}", err=True)
    return history


def _targets(options: dict[str, Any], dataset: Data) -> list[TargetL0]:
    target = options.get("target_l0")
    return [] if target is None else [TargetL0(dataset.in_memory, target)]


def measure_run(
    folder: Path, options: dict[str, Any], prepared: Prepared, history: History
) -> tuple[dict[str, Any], str | None]:
    """Measure a run that was trained, and draw its pictures; the numbers, and why there are no pictures."""
    numbers = measure(prepared.vae, prepared.dataset, options["num_samples"], options["seed"])
    runs.write_json(folder / "metrics.json", numbers)
    try:
        runs.write_figures(folder / "figures", prepared.vae, prepared.dataset, history)
    except Exception as error:  # of a picture: it costs nothing else
        return numbers, f"not all pictures could be drawn: {explained(error) or repr(error)}"
    return numbers, None


def training(options: dict[str, Any], prepared: Prepared) -> dict[str, Any]:
    """What ``fit`` takes beside the optimizer, the seed and the number of epochs."""
    return {
        "batch_size": None if _takes_all(options) else options["batch_size"],
        "loss": pv.ELBO(beta=_beta(options, prepared), penalties=_penalties(options, prepared.vae)),
        "patience": options["patience"],
        "progress": not options["quiet"],
        "compile": options["compile"],
        "clip_norm": options["clip_norm"],
        "precision": None if options["precision"] == "float32" else getattr(torch, options["precision"]),
    }


def run_config(data: str, options: dict[str, Any], prepared: Prepared) -> dict[str, Any]:
    """What a run says of itself: its data, and the options that repeat it."""
    standardization = prepared.dataset.standardization
    return {
        "data": {
            "name": data if data in pv.data.NAMES else str(Path(data).resolve()),
            "binarize": prepared.binarize,
            "seed": options["seed"],
            "data_dir": options["data_dir"],
            "standardization": None if standardization is None else standardization.as_lists(),
            "sha256": prepared.dataset.sha256(),
            **runs.on_disk_section(prepared.dataset),
        },
        "fit": {
            **{name: value for name, value in options.items() if name not in ("quiet", "log")},
            "hidden": ",".join(map(str, options["hidden"])) or "none",
            "epochs": prepared.epochs,
            "likelihood": prepared.likelihood,
            "standardize": standardization is not None,
            "on_disk": isinstance(prepared.dataset.train, OnDisk),
        },
    }


def check_same(folder: Path, data: str, options: dict[str, Any], prepared: Prepared) -> None:
    """Refuse a run that was begun with other options or on other data; where a learning rate is searched for, any."""
    if not (folder / "config.json").exists():
        return
    was, now = runs.read_run(folder), json.loads(json.dumps(run_config(data, options, prepared)))
    if not {"data", "fit"} <= was.keys():
        raise ValueError(f"--resume: {str(folder)!r} is not a run of pyrovae fit: choose another --out")
    pairs = {"data": (was["data"]["name"], now["data"]["name"])}
    pairs |= {name: (was["fit"].get(name), value) for name, value in now["fit"].items()}
    for name, (old, new) in pairs.items():
        if old != new and name not in UNCOMPARED and new != SEARCH:
            raise ValueError(
                f"--resume: the run in {str(folder)!r} has {name.replace('_', ' ')} {old}, not {new}: another --out, "
                f"or --overwrite"
            )


def _load(name: str, options: dict[str, Any], folder: Path | None) -> tuple[Data, str, str | None]:
    """The data, and what likelihood and binarisation stand for where they are not given."""
    likelihood, binarize, on_disk = options["likelihood"], options["binarize"], options["on_disk"]
    if options["data_dir"] is not None and name not in DOWNLOADED:
        raise ValueError(f"--data-dir is for {' and '.join(DOWNLOADED)}, and the data are {name}: leave it out")
    if likelihood is not None:
        with runs.importing_from_here():
            by_name_or_path("likelihood", name_and_options("likelihood", likelihood)[0], LIKELIHOODS)
    if binarize is None and name in GREY and likelihood in (None, "bernoulli"):
        binarize = "dynamic"
    binarize = None if binarize == "none" else binarize
    missing, data_dir = options["missing"], options["data_dir"]
    on_disk = pv.data.exceeds_memory(Path(name)) if on_disk is None and name not in pv.data.NAMES else bool(on_disk)
    dataset = pv.data.load(name, data_dir, binarize, options["seed"], missing=missing, dtype=None, on_disk=on_disk)
    dataset = _measured(dataset, folder, options["quiet"])
    values = [_values(x) for x in (dataset.train, dataset.val, dataset.test)]
    if likelihood is None:
        binary, unit = all(each.binary for each in values), all(each.unit for each in values)
        likelihood = "bernoulli" if binary or binarize else "continuous-bernoulli" if unit else "normal"
    standardize = options["standardize"]
    if standardize and not _is_real(likelihood):
        raise ValueError(f"--standardize is of real data, got likelihood {likelihood!r}")
    if standardize is None:
        is_real = likelihood.partition(":")[0] in ("normal", "laplace")
        standardize = dataset.image_shape is None and not values[0].unit and is_real
    dataset = dataset.standardize() if standardize else dataset  # before the rows are rounded
    return dataset.to(torch.float32), likelihood, binarize


class _Values(NamedTuple):
    """Whether all values that are not missing are 0 or 1, and whether all are in [0, 1]."""

    binary: bool
    unit: bool


def _values(x: Tensor | OnDisk) -> _Values:
    if isinstance(x, OnDisk):
        low, high, binary, *_ = x.statistics()
        return _Values(binary, low >= 0 and high <= 1)
    x = x[~x.isnan()]
    return _Values(bool(((x == 0) | (x == 1)).all()), bool(((x >= 0) & (x <= 1)).all()))


def _measured(dataset: Data, folder: Path | None, quiet: bool) -> Data:
    """The data with the statistics of rows on the disk, measured now or before the run in ``folder`` was cut short."""
    if not isinstance(dataset.train, OnDisk):
        return dataset
    if folder is not None and (folder / "config.json").exists():
        return runs.with_statistics(dataset, runs.read_run(folder))
    if not quiet:
        click.echo(f"reading {len(dataset.train):,} rows of {dataset.name} once: their range and standard deviations")
    dataset.train.statistics()
    return dataset


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


def _check_corruption(corrupt: str | None, vae: VAE, dataset: Data) -> None:
    """Refuse a function of the user's own that does not give a tensor of the shape of a row, before any training."""
    if corrupt is None:
        return
    row = dataset.in_memory[:1].to(next(vae.parameters()))
    function = next(module.corrupt for module in vae.modules() if hasattr(module, "corrupt"))
    try:
        with torch.random.fork_rng():
            damaged = function(row)  # type: ignore[operator]  # torch types attributes as tensors
    except Exception as error:  # a user's function may fail in any way
        raise ValueError(
            f"--corrupt {corrupt!r} fails on a row of the data: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(damaged, Tensor) or damaged.shape != row.shape:
        got = tuple(damaged.shape) if isinstance(damaged, Tensor) else type(damaged).__name__
        raise ValueError(f"--corrupt {corrupt!r} must give a tensor of shape {tuple(row.shape)}, got {got}")


def _beta(options: dict[str, Any], prepared: Prepared) -> Any:
    """The weight of the KL, as it rises."""
    epochs = prepared.epochs
    default = usual_warmup(options["prior"], prepared.vae.posterior, epochs)
    warmup = default if options["warmup"] is None else options["warmup"]
    if warmup > epochs:
        raise ValueError(f"--warmup of {warmup:g} epochs ends after the run, of {epochs}: --epochs")
    return pv.warmup(warmup, end=options["beta"]) if warmup else options["beta"]


def optimizer(options: dict[str, Any], dataset: Data, epochs: int) -> pyro.optim.PyroOptim:
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
    high = dataset.train.statistics().high if isinstance(dataset.train, OnDisk) else _high(dataset.train)
    return 1 + int(max(high, _high(dataset.val), _high(dataset.test)))


def _high(x: Tensor) -> float:
    return float(x.nan_to_num().max())


def _num_labels(dataset: Data) -> int:
    if not {"train", "val", "test"} <= set(dataset.labels):
        raise ValueError(
            f"--conditional needs the label of each datum, as digits, mnist and fashion-mnist have it; "
            f"{dataset.name} has none"
        )
    return 1 + int(max(labels.max() for labels in dataset.labels.values()))


def check_support(vae: VAE, dataset: Data, rows: Callable[[], Tensor]) -> None:
    """Refuse data that the likelihood has no density for before any training; the index is that of the file's rows.

    Of rows on the disk only some are checked here; the others are when they are read.
    """
    if not isinstance(vae.likelihood, Likelihood):
        return
    train = () if dataset.transform else (dataset.in_memory,)  # what the transform draws fits
    try:
        for x in (*train, dataset.val, dataset.test):
            vae.likelihood.check(x)
    except ValueError:
        if not isinstance(dataset.train, OnDisk):
            vae.likelihood.check(rows())
        raise
