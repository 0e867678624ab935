"""``pyrovae fit``: its options, and what it prints."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import click

from pyrovae import runs
from pyrovae.build import CORRUPTIONS, GUIDES, LIKELIHOODS, PRIORS, read_config
from pyrovae.cli.errors import explained
from pyrovae.cli.loggers import log_option
from pyrovae.cli.options import as_typed, refuse_imports, trust_config_option
from pyrovae.cli.preparing import (
    check_same,
    count,
    describe_standardization,
    followed,
    measure_run,
    prepare,
    rows_of_step,
    train_run,
    warn_of_few,
)
from pyrovae.cli.reporting import SEED, describe, print_table
from pyrovae.files import read_json
from pyrovae.optim import OPTIMIZERS, SCHEDULES
from pyrovae.places import Place, is_finished, new_place
from pyrovae.processes import Processes, StoppedElsewhere, agreed
from pyrovae.train.faults import ON_NAN

__all__ = ["fit"]


def _read_defaults(ctx: click.Context, _: click.Parameter, path: str | None) -> None:
    """``--config``: option values from a JSON file, below those of the command line."""
    if path is None:
        return
    try:
        values = read_json(path)
    except ValueError as error:
        raise ValueError(f"--config {error}") from error
    command = str(ctx.command.name)
    values = values.get(command, values.get("fit", values)) if isinstance(values, dict) else values
    known = {parameter.name for parameter in ctx.command.params} - {"data", "config"}
    if not isinstance(values, dict) or not set(values) <= known:
        raise ValueError(f"--config {path!r} must hold options of {command} by name: {', '.join(sorted(known))}")
    given = {parameter.name: parameter for parameter in ctx.command.params}
    typed = {name: as_typed(f"--config {path!r}: {name}", given[name], value) for name, value in values.items()}
    ctx.default_map = {**(ctx.default_map or {}), **{name: text for name, text in typed.items() if text is not None}}
    refuse_imports(ctx, path, typed)


def _widths(_: click.Context, __: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        return () if value == "none" else tuple(int(width) for width in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a list of widths such as 400 or 400,200, or none") from error


def _resolved(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """A folder that a run finds again from another working folder."""
    return value and str(Path(value).expanduser().resolve())


@click.command(short_help="Train a VAE on a data set.")
@click.argument("data")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the run, made by this command.")
@click.option("--overwrite", is_flag=True, help="Replace the run in --out, when the new one is trained.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out, where it was cut short.")
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
@click.option(
    "--hidden",
    default="400",
    show_default=True,
    callback=_widths,
    help="Widths of the encoder, 400,200; none is linear.",
)
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
    "--refine",
    default=0,
    show_default=True,
    type=click.IntRange(0, 1000),
    help="Sweeps of coordinate ascent after the encoder, for spike-slab with --network dictionary --likelihood normal.",
)
@click.option(
    "--target-l0",
    type=click.FloatRange(0, min_open=True),
    help="Active latents per datum: the noise scale of a normal or laplace likelihood moves until it has so many.",
)
@click.option(
    "--corrupt",
    help=f"What the encoder sees in place of x while it trains: {', '.join(CORRUPTIONS)}; or mymodule.my_function. "
    "Hyper-parameters follow, gaussian:scale=0.5, masking:prob=0.3.",
)
@click.option(
    "--missing", is_flag=True, help="Take NaN, and empty cells of a .csv, for values that are missing; model the rest."
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
    "fifths of the run at most; else 0, and for the guide coordinate-ascent]",
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
@click.option(
    "--on-disk/--in-memory",
    default=None,
    help="Read the rows of a .npy file, or of a folder of them, in blocks while training.  [default: where they take "
    "more than half of the machine's memory]",
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
@click.option(
    "--on-nan",
    default="raise",
    show_default=True,
    type=click.Choice(ON_NAN),
    help="What happens when the loss becomes NaN: an error, the step is skipped, or the run goes back and lowers the "
    "learning rate.",
)
@log_option
@click.option("--quiet", is_flag=True, help="Show no progress while training.")
@click.option("--seed", default=0, show_default=True, type=SEED, help="Of split, weights, order and draws.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, mps.")
@click.option(
    "--data-dir",
    type=click.Path(),
    callback=_resolved,
    help="Folder that holds MNIST/raw, for mnist and fashion-mnist.  [default: PYROVAE_DATA, user cache]",
)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False),
    callback=_read_defaults,
    is_eager=True,
    expose_value=False,
    help="JSON file of these options; a run's config.json repeats it.",
)
@trust_config_option
@click.pass_context
def fit(ctx: click.Context, data: str, out: Path, overwrite: bool, resume: bool, **options: Any) -> None:
    """Train a VAE on DATA and leave a run in --out.

    DATA is digits, mnist, fashion-mnist or patches (of photographs), or a file of your own (.npy, .npz, .csv, .pt, one
    row per datum), or a folder of images or of .npy files. What was cut short goes on with the same command and
    --resume.

    \b
    pyrovae fit digits --out runs/digits
    pyrovae fit mnist --prior laplace --latent-dim 50 --out runs/mnist-laplace
    pyrovae fit measurements.csv --likelihood normal --latent-dim 4 --out runs/mine
    """
    if overwrite and resume:
        raise click.UsageError("--overwrite and --resume exclude each other")
    processes = Processes.found(runs.device(options["device"]))
    if processes is not None and processes.rank > 0:
        _train_with_first(processes, data, {**options, "quiet": True}, out)
        return
    with ExitStack() as stack:
        with agreed(processes):
            place = stack.enter_context(new_place(out, overwrite, resume, "run", read_config))
            prepared = prepare(data, options, folder=place.folder)
            finished = is_finished(place.folder) and (place.folder / "metrics.json").exists()
            check_same(place.folder, data, options, prepared)
        if finished:
            if processes is not None:
                processes.tell(None)
            place.settle()
            click.echo(f"the run in {out} is finished")
            return
        describe(prepared.dataset, prepared.vae, prepared.binarize)
        describe_standardization(prepared.dataset)
        warn_of_few(prepared.dataset)
        together = "" if processes is None else f" in {processes.size} processes"
        click.echo(
            f"training {count(prepared.epochs, 'epoch')} of batches of {rows_of_step(options, prepared.dataset)}, "
            f"{options['optim']} at learning rate {options['lr']:g}{followed(options)}, seed {options['seed']}, on "
            f"{options['device']}{together}"
        )
        history = train_run(place, data, options, prepared)
        try:
            numbers, problem = measure_run(place.folder, options, prepared, history)
        except Exception as error:  # the model is on the disk
            problem = f"the run could not be measured: {explained(error) or repr(error)}"
        else:
            print_table(numbers)
    if problem is not None:
        click.echo(f"pyrovae: error: {problem}; the trained model is saved in {out}", err=True)
        ctx.exit(1)
    click.echo(f"run saved in {out}: config.json, model.safetensors, history.csv, metrics.json, figures/")


def _train_with_first(processes: Processes, data: str, options: dict[str, Any], out: Path) -> None:
    """Train in a process of torchrun that neither writes nor prints, unless the first process finds a finished run."""
    with agreed(processes):
        prepared = prepare(data, options)
    with suppress(StoppedElsewhere):
        train_run(Place(out, out), data, options, prepared)
