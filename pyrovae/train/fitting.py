"""``fit``: the training loop, on one page."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

from pyrovae.data import Data, OnDisk
from pyrovae.data.loading import Loader
from pyrovae.objectives import blame, is_divergence
from pyrovae.processes import Processes, StoppedElsewhere, agreed, told
from pyrovae.random_state import RandomState
from pyrovae.rows import Rows, is_rows, num_rows, tensors
from pyrovae.train.callbacks import BestWeights, Callback, EarlyStopping, Function, Schedules
from pyrovae.train.checkpoints import Checkpoint
from pyrovae.train.checks import (
    check_arguments,
    check_callbacks,
    check_data,
    check_model,
    check_optim,
    check_processes,
    check_values,
    num_tensors,
)
from pyrovae.train.faults import ABSURD, MovedError, Rollback, check_on_nan, check_weights, put_back
from pyrovae.train.identity import identity
from pyrovae.train.progress import Progress
from pyrovae.train.run import History, Run
from pyrovae.train.trainer import Model, Optim, functions_of, make_trainer
from pyrovae.vae import evaluating

__all__ = ["fit"]


def fit(
    vae: Model,
    data: Data | Rows | OnDisk | Dataset[object] | Iterable[object],
    epochs: int = 50,
    batch_size: int | None = 128,
    optim: Optim = None,
    loss: object = None,
    *,
    val: Rows | OnDisk | None = None,
    patience: int | None = None,
    callbacks: Sequence[Callback | Callable[[Model, int, History], object]] = (),
    seed: int | None = None,
    progress: bool = True,
    compile: bool | None = None,
    clip_norm: float | None = None,
    precision: torch.dtype | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    on_nan: str = "raise",
) -> History:
    """Train a model: one step of its trainer per batch, one validation per epoch.

    With validation data the weights of the epoch with the least validation loss are kept; without, the last ones. A
    GAN and an adversarial autoencoder keep the last weights, because the losses of two epochs cannot be compared.

    Args:
        vae: A VAE, a pair ``(model, guide)`` of Pyro functions of a batch, or a model with a method ``trainer(optim,
            loss, **options)`` that returns a :class:`~pyrovae.train.Trainer`, such as a GAN.
        data: A :class:`~pyrovae.data.Data`, with its validation set, a tensor, rows on the disk
            (:class:`~pyrovae.data.OnDisk`), a Dataset, or batches. A tuple of tensors with one row each for a datum is
            given as several arguments, ``model(x, y)``. From batches ``(x, y)`` a :class:`~pyrovae.ConditionalVAE`
            takes both, a pair as many as it requires, and a VAE x.
        epochs: Passes over the data.
        batch_size: Data per step, of all processes together; None is all data.
        optim: An optimizer of ``pyrovae.optim`` or ``pyro.optim``; None is Adam at 1e-3. Schedules of its learning rate
            are followed, Pyro's from epoch to epoch. For a game see :class:`~pyrovae.adversarial.Updates`.
        loss: An objective of ``pyrovae`` or of Pyro; None is ``pyrovae.ELBO()``. Its schedules must end within the run.
            The validation loss is that of ``loss.true_bound()``: no beta, no schedules, no penalties.
        val: Validation data, where ``data`` brings none.
        patience: Short for :class:`~pyrovae.train.EarlyStopping`; None runs all epochs.
        callbacks: Each a :class:`~pyrovae.train.Callback`, or a function ``(vae, epoch, history)`` that is called at
            the end of every epoch.
        seed: Of the order of the batches and of all draws; torch's random state then stays as it was.
        progress: Whether to show progress on standard error.
        compile: Whether the step is compiled: True, False, or None where the run is long enough to earn it back.
        clip_norm: Largest Euclidean norm of the gradient of all parameters together.
        precision: ``torch.bfloat16`` has the networks multiply in it, see :class:`~pyrovae.SVI`.
        out: Short for :class:`~pyrovae.train.Checkpoint`: the folder that keeps the run while it trains.
        resume: Whether to go on with the run in ``out``, if there is one, where its last checkpoint was.
        on_nan: When a loss becomes NaN or exceeds 1e30 nats per datum, or weights become infinite: ``"raise"`` ends the
            run; ``"skip"`` undoes the step, goes on with the next batch, and keeps a copy of weights and
            optimizer for that before each step; ``"rollback"`` goes back to the start of the epoch, or, where that
            epoch fails once more, to the start of the best epoch so far, each time with a tenth of the learning rate,
            five times at most. Both warn.

    In processes that ``torchrun`` has started, all train one VAE together, each on its share of every batch: see
    ``docs/training.md``.

    Runs in several threads take turns, epoch by epoch, by ``pyrovae.guards.pyro_lock``, which callbacks do not hold,
    except in ``on_step_end``. An epoch that fails has not happened: weights, optimizer and random state are those of
    its start. After Ctrl-C the best weights are in place. Every error has the history so far:
    ``except KeyboardInterrupt as stop: history = stop.history``.

    Returns: ``{"epoch", "train_loss", "val_loss", "seconds"}``, one number per epoch; losses in nats per datum, the
        seconds since the start. ``val_loss`` is NaN without validation data.
    Raises: ValueError or TypeError for arguments and data that cannot be trained with; FloatingPointError when the loss
        becomes NaN, with the epoch, the step, the site and the parameter that went wrong;
        :class:`~pyrovae.train.CallbackError` when a callback raises.
    """
    check_arguments(epochs=epochs, patience=patience, seed=seed, clip_norm=clip_norm, callbacks=callbacks, out=out)
    check_model(vae)
    takes, transform = num_tensors(vae), None
    if isinstance(data, Data):
        transform, parts = data.transform, data
        data = parts.train if takes == 1 else parts.labelled("train")
        val = (parts.val if takes == 1 else parts.labelled("val")) if val is None else val
    like = next(vae.parameters(), None) if isinstance(vae, nn.Module) else None
    device = torch.device("cpu") if like is None else like.device
    processes = Processes.found(device)
    train = Loader(data, batch_size, like, transform=transform, num_tensors=takes, processes=processes)
    check_processes(vae, train)
    held_out = None
    if val is not None:
        held_out = Loader(
            val, train.batch_size, like, shuffle=False, num_tensors=takes, name="val", processes=processes
        )
    check_optim(vae, optim, loss, train, validated=val is not None)
    trainer = make_trainer(vae, optim, loss, compile=compile, clip_norm=clip_norm, precision=precision)
    check_on_nan(on_nan, trainer)
    given = [each if isinstance(each, Callback) else Function(each) for each in callbacks]
    shows = progress and (processes is None or processes.rank == 0)
    own: list[Callback] = [Schedules(loss, optim), BestWeights(), *([Progress()] if shows else [])]
    own = [each for each in own if not any(isinstance(other, type(each)) for other in given)]
    own += [] if patience is None else [EarlyStopping(patience)]
    if resume and out is None:
        raise ValueError("resume needs out=, the folder of the run to go on with")
    given += [] if out is None else [Checkpoint(out, resume=resume)]
    given.sort(key=lambda each: isinstance(each, Checkpoint))  # last: it sees what the others made of a moment
    check_callbacks([*own, *given], trainer, epochs, train, validated=val is not None)
    run = Run(vae, trainer, train, held_out, epochs, RandomState(seed, device), [*own, *given], processes)
    with agreed(processes), run.all_or_nothing():
        check_data("data", vae, trainer, train)
        if held_out is not None:
            check_data("val", vae, trainer, held_out)
    kept = [each for each in given if isinstance(each, Checkpoint)]
    known = identity(run, optim, loss) if kept or processes is not None else {}
    run.join({**known, "number of epochs": str(epochs)})
    with ExitStack() as stack:
        for each in kept:
            stack.enter_context(each.opened(run, known))
        stack.enter_context(run.under_way())
        rollback = Rollback(run) if on_nan == "rollback" else None
        while run.stop_reason is None and len(run.history["epoch"]) < epochs:
            if rollback is not None:
                rollback.begin()
            run.start_epoch()
            try:
                with run.all_or_nothing(), divergence_named(run):
                    train_epoch(run, skips=on_nan == "skip")
                    val_loss = math.nan if held_out is None or run.stop_reason else evaluate(run, held_out)
            except StoppedElsewhere:
                break
            except FloatingPointError as error:
                if rollback is None:
                    raise
                rollback.go_back(error)
                continue
            if not run.stop_reason:
                run.finish_epoch(val_loss)
                if rollback is not None:
                    rollback.finish()
        if processes is not None and run.stop_reason is not None:
            processes.tell(None)
    return run.history


def train_epoch(run: Run, skips: bool) -> None:
    """The steps of an epoch, or those that are left of it in a run that is resumed."""
    if isinstance(run.vae, nn.Module):
        run.vae.train()
    run.skipped = []
    for batch in run.batches():
        if not is_rows(run.data.data):
            check_values(run.vae, batch)
        before, rows = run.snapshot() if skips else {}, run.rows_of(batch)
        try:
            loss = number(run, run.data, run.trainer.step, batch, f"step {run.step + 1}: the loss")
            if abs(loss) > ABSURD * rows:
                raise MovedError(f"step {run.step + 1}: the loss became {loss / rows:.3g} nats per datum")
            if skips:
                check_weights(run)
        except FloatingPointError as error:
            if not skips:
                raise
            put_back(run, before, error)
            continue
        run.finish_step(loss, rows)
        if run.stop_reason:
            return
    if run.skipped:
        count = f"{len(run.skipped)} step{'s were' if len(run.skipped) > 1 else ' was'} skipped"
        if run.rows_in_epoch == 0:
            raise FloatingPointError(f"all {count}, the first because of {run.skipped[0]}")
        warnings.warn(f"epoch {run.epoch}: {count}, the first because of {run.skipped[0]}", stacklevel=3)
    if run.rows_in_epoch == 0:
        raise ValueError("data gave no batch: it must be possible to iterate over it once per epoch")
    check_weights(run)


def evaluate(run: Run, held_out: Loader) -> float:
    """The validation loss in nats per datum, in ``eval`` mode."""
    total, rows = 0.0, 0.0
    with evaluating(run.vae) if isinstance(run.vae, nn.Module) else torch.no_grad():
        with told(run.processes):
            for batch in held_out.batches():
                if num_rows(batch) == 0:  # the share of this process of a last batch of few rows
                    continue
                total += number(run, held_out, run.trainer.evaluate, batch, "the validation loss")
                rows += num_rows(batch)
        if run.processes is not None:
            total, rows = run.processes.agree([total, rows])
    if rows == 0:
        raise ValueError("val gave no batch: it must be possible to iterate over it once per epoch")
    if math.isinf(total) and math.isfinite(run.loss_in_epoch):
        raise FloatingPointError(f"the validation loss became {total / rows}")
    return total / rows


def number(run: Run, source: Loader, call: Callable[..., object], batch: Rows, what: str) -> float:
    """The loss of a batch; one that is NaN, or met a NaN on its way, is an error that says where.

    An error about shapes is one line that names the data, without Pyro's table of shapes, which stays in its cause.
    """
    try:
        loss = call(*tensors(batch))
        value = float(loss[0] if isinstance(loss, tuple) else loss)  # type: ignore[arg-type]  # wake-sleep gives two
    except (ValueError, RuntimeError) as error:
        if not is_divergence(error):
            text, table, _ = str(error).partition("Trace Shapes:")
            if not table and "per datum, the likelihood" not in text:
                raise
            shapes = " and ".join(str(tuple(x.shape)) for x in tensors(batch))
            line = f"{source.name}: a batch of shape {shapes} fails: {' '.join(text.split())}"
            raise type(error)(line) from error
        value = math.nan
    if math.isnan(value):
        functions = functions_of(run.vae)
        where = "" if functions is None else f": {blame(*functions, tensors(batch))}"
        raise FloatingPointError(f"{what} became NaN{where}")
    return value


@contextmanager
def divergence_named(run: Run) -> Iterator[None]:
    """Add the epoch, and what was done about it, to the error of a loss that became NaN."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Encountered NaN")  # Pyro's warning; the error follows
            yield
    except FloatingPointError as error:
        raise FloatingPointError(
            f"epoch {run.epoch}: {error}; the weights are put back to the epoch's start; try a lower learning rate"
        ) from error
