"""``fit``: the loop around SVI."""

from __future__ import annotations

import csv
import itertools
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.optim.lr_scheduler import PyroLRScheduler
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from pyrovae import guards
from pyrovae.adversarial import Game
from pyrovae.data import Data, batches
from pyrovae.data.placement import placed, sent
from pyrovae.infer import SVI
from pyrovae.objectives import ELBO, Objective, blame, is_divergence
from pyrovae.optim import Scheduled, follows_validation
from pyrovae.rows import Rows, data_of, is_rows, num_rows, tensors
from pyrovae.train.checks import (
    Pair,
    check_data,
    check_game,
    check_num_data,
    check_optim_and_loss,
    check_pair,
    check_rates,
    check_support,
    end_of_schedules,
    length,
    num_steps,
    num_tensors,
    optims_of,
    rows_of_batch,
)
from pyrovae.vae import VAE, evaluating

__all__ = ["History", "fit", "write_history"]

History = dict[str, list[float]]


def fit(
    vae: VAE | Game | Pair,
    data: Data | Rows | Dataset[Any] | Iterable[Any],
    epochs: int = 50,
    batch_size: int | None = 128,
    optim: pyro.optim.PyroOptim | tuple[pyro.optim.PyroOptim, pyro.optim.PyroOptim] | None = None,
    loss: Any = None,
    *,
    val: Rows | None = None,
    patience: int | None = None,
    callbacks: Sequence[Callable[[Any, int, History], None]] = (),
    seed: int | None = None,
    progress: bool = True,
    compile: bool | None = None,
    clip_norm: float | None = None,
    precision: torch.dtype | None = None,
) -> History:
    """Train by :class:`~pyrovae.SVI`, one ``svi.step`` per batch.

    With validation data the weights of the epoch with the least validation loss are kept; without, the last ones. A
    :class:`~pyrovae.adversarial.Game` has an update for each of its players in the place of ``svi.step``, and keeps the
    last weights: what its critic says of two epochs cannot be compared.

    Args:
        vae: A VAE, a GAN, an adversarial autoencoder, or a pair ``(model, guide)`` of Pyro functions of a batch.
        data: A :class:`~pyrovae.data.Data` (its validation set is used), a tensor, a Dataset, or batches. A tuple of
            tensors, of one row each for a datum, is given as several arguments, ``model(x, y)``; so are x and its label
            in a Data, a Dataset or batches ``(x, y)`` to a :class:`~pyrovae.ConditionalVAE`, and to two functions as
            many as have no default. A VAE of x takes the first alone.
        epochs: Passes over the data.
        batch_size: Data per step; None is all of them.
        optim: Any optimizer of ``pyrovae.optim`` or ``pyro.optim``; None is Adam at a learning rate of 1e-3. A schedule
            of its learning rate is followed from step to step; a scheduler of Pyro's own is stepped here at the end
            of each epoch, with the validation loss where it waits for one to fall.
            Of a game it is as of :class:`~pyrovae.adversarial.Updates`, and so is ``loss``.
        loss: An objective of ``pyrovae`` or of Pyro; None is ``pyrovae.ELBO()``. Its schedules follow the epochs or the
            steps and must end within the run. The validation loss is the bound itself, with hard gates, from the first
            epoch on: of ELBO the one with beta 1 and nothing else.
        val: Validation data, where ``data`` brings none.
        patience: Stop after this many epochs without a better validation loss, counted from the end of the schedules;
            None runs all epochs.
        callbacks: Each is called as ``callback(vae, epoch, history)`` at the end of every epoch, in ``eval`` mode.
        seed: Of the order and the draws, which then leave torch's own random state as it was; None goes on from there.
        progress: Whether to show a bar, and what was compiled.
        compile: Whether the step is compiled: True, False, or None where the run is long enough to earn it back.
        clip_norm: Largest Euclidean norm of the gradient of all parameters together.
        precision: ``torch.bfloat16`` has the networks multiply in it, see :class:`~pyrovae.SVI`.

    Returns: ``{"epoch", "train_loss", "val_loss", "seconds"}``, one number per epoch; losses in nats per datum, the
        seconds since the start. ``val_loss`` is NaN without validation data.
    Raises: ValueError for data outside the likelihood's support, an optimizer or loss that Pyro gets wrong, a learning
        rate that is not positive, or a schedule longer than the run; FloatingPointError when the loss becomes NaN, with
        the step, the site and the parameter that went wrong. After any error the weights are those of the epoch's
        start.
    """
    check_pair(vae)
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    if isinstance(vae, Game):
        check_game(optim, compile, precision, patience)
    else:
        optim = pyro.optim.PyroOptim(torch.optim.Adam, {"lr": 1e-3}) if optim is None else optim
        loss = ELBO() if loss is None else loss
    train: Any = data
    transform, takes = None, num_tensors(vae)
    if isinstance(data, Data):
        train, transform = _split(data, "train", takes), data.transform
        val = _split(data, "val", takes) if val is None else val
    if patience is not None and (val is None or patience < 1):
        raise ValueError(f"patience must be at least 1, with validation data, got {patience}")
    if not isinstance(vae, Game):
        check_optim_and_loss(optim, validated=val is not None)
    check_rates(optim)
    parameter = next(vae.parameters(), None) if isinstance(vae, nn.Module) else None
    check_data("data", vae, train)
    check_data("val", vae, val)
    train, val = placed(train, parameter), placed(val, parameter)
    check_num_data(vae, train)
    batch_size = rows_of_batch(train, batch_size, optim)

    steps_per_epoch = num_steps(train, batch_size)
    if isinstance(vae, Game):
        svi: Any = vae.updates(optim, loss, clip_norm)
        bound = svi
    else:
        model, guide = vae if isinstance(vae, tuple) else (vae.model, vae.guide)
        alone: Any = optim  # no pair of them, checked above
        svi = SVI(model, guide, alone, loss, compile=compile, clip_norm=clip_norm, precision=precision)
        svi.num_calls = epochs * steps_per_epoch if math.isfinite(steps_per_epoch) else None
        true_bound = loss.true_bound() if isinstance(loss, Objective) else loss
        bound = SVI(model, guide, alone, true_bound, compile=compile, precision=precision)
        bound.num_calls = 0 if val is None else epochs * num_steps(val, batch_size)
    rest = end_of_schedules(loss, optim, epochs, steps_per_epoch)
    history: History = {"epoch": [], "train_loss": [], "val_loss": [], "seconds": []}
    best_loss, best_weights, best_epoch = math.inf, _weights(vae), 0
    steps, taken, told = itertools.count(1), itertools.count(), [0, 0]
    start = time.perf_counter()
    with _seeded(vae, seed) as generator, tqdm(total=epochs, unit="epoch", disable=not progress) as bar:
        for rows in (train, val):
            if is_rows(rows):
                check_support(vae, rows if transform is None else (transform(data_of(rows)), *tensors(rows)[1:]))
        for epoch in range(1, epochs + 1):
            before = _weights(vae)
            try:
                passes = batches(train, batch_size, transform=transform, generator=generator, num_tensors=takes)
                passes = sent(passes, parameter)
                with _divergence(epoch):
                    passes = _scheduled(loss, svi, optim, epoch - 1, taken, passes, length(train))
                    train_loss = _train_epoch(vae, svi, passes, steps, checked=is_rows(train))
                    val_loss = math.nan
                    if val is not None:
                        passes = batches(val, batch_size, shuffle=False, num_tensors=takes)
                        val_loss = _evaluate(vae, bound, sent(passes, parameter))
                        if math.isinf(val_loss) and math.isfinite(train_loss):
                            raise FloatingPointError(f"the validation loss became {val_loss}")
            except BaseException:
                _restore(before)
                raise
            row = (epoch, train_loss, val_loss, time.perf_counter() - start)
            for column, number in zip(history.values(), row, strict=True):
                column.append(number)
            if isinstance(optim, PyroLRScheduler):
                optim.step(*([val_loss] if follows_validation(optim) else []))
            if val_loss < best_loss:
                best_loss, best_weights, best_epoch = val_loss, _weights(vae), epoch
            bar.set_postfix_str(f"loss {train_loss:.2f}, validation {val_loss:.2f} nats per datum", refresh=False)
            bar.update()
            if progress and (counts := [svi.compilations, bound.compilations]) != told:
                new = [name for name, a, b in zip(("step", "validation"), told, counts, strict=True) if a != b]
                told, cost = counts, svi.compile_seconds + bound.compile_seconds
                bar.write(f"epoch {epoch}: compiled the {' and the '.join(new)}, {cost:.0f} s so far", file=sys.stderr)
            with _eval_mode(vae), torch.random.fork_rng(devices=_devices(vae)):  # measuring changes no training
                for callback in callbacks:
                    callback(vae, epoch, history)
            if patience is not None and epoch - max(best_epoch, rest) >= patience:
                break
    if val is not None and not isinstance(vae, Game):
        _restore(best_weights)
    schedules = [*loss.schedules().items()] if isinstance(loss, Objective) else []
    schedules += [("the learning rate", each.schedule) for each in optims_of(optim) if isinstance(each, Scheduled)]
    done = next(steps) - 1
    for name, schedule in schedules if math.isinf(steps_per_epoch) else ():  # known only now, of a stream
        if schedule.unit == "steps" and done < schedule.end < math.inf:
            warnings.warn(f"the run ended at step {done}, before the schedule of {name} did", stacklevel=2)
    return history


def _split(data: Data, part: str, takes: int) -> Rows:
    """The rows of a split, with their labels where these are asked for."""
    return getattr(data, part) if takes == 1 else data.labelled(part)


def write_history(history: History, path: str | Path) -> None:
    """Write a history as CSV, one row per epoch."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(history)
        writer.writerows(zip(*history.values(), strict=True))


def _train_epoch(
    vae: VAE | Game | Pair, svi: Any, passes: Iterable[Rows], steps: Iterator[int], checked: bool
) -> float:
    """One step per batch; the loss in nats per datum."""
    if isinstance(vae, nn.Module):
        vae.train()
    total, count = 0.0, 0
    for batch, step in zip(passes, steps, strict=False):
        if not checked:
            check_support(vae, batch)
        total, count = total + _number(svi.step, svi, batch, f"step {step}: the loss"), count + num_rows(batch)
    if count == 0:
        raise ValueError("data gave no batch: it must be possible to iterate over it once per epoch")
    return total / count


def _number(call: Callable[..., Any], svi: Any, batch: Rows, what: str) -> float:
    """A loss of a batch; one that is NaN, or met a NaN on its way, is an error that says where."""
    try:
        loss = call(*tensors(batch))
        value = float(loss[0] if isinstance(loss, tuple) else loss)  # ReweightedWakeSleep gives two
    except (ValueError, RuntimeError) as error:
        if not is_divergence(error):
            raise
        value = math.nan
    if math.isnan(value):
        raise FloatingPointError(f"{what} became NaN: {blame(svi.model, svi.guide, tensors(batch))}")
    return value


def _scheduled(
    loss: Any, svi: Any, optim: Any, epochs_done: int, taken: Iterator[int], passes: Iterable[Rows], length: float
) -> Iterator[Rows]:
    """The batches of an epoch, with the objective and the optimizer told how far the run is, in epochs and in steps."""
    count = 0
    for batch, steps_done in zip(passes, taken, strict=False):
        done = epochs_done + count / length
        if isinstance(loss, Objective):
            svi.epoch = done
        for each in optims_of(optim):
            if isinstance(each, Scheduled):
                each.move(done if each.schedule.unit == "epochs" else steps_done)
        yield batch
        count += num_rows(batch)


@contextmanager
def _divergence(epoch: int) -> Iterator[None]:
    """What became NaN, with the epoch and what was done about it."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Encountered NaN")  # Pyro's own word for what is raised here
            yield
    except FloatingPointError as error:
        raise FloatingPointError(
            f"epoch {epoch}: {error}; the weights are put back to the epoch's start; try a lower learning rate"
        ) from error


def _evaluate(vae: VAE | Game | Pair, svi: Any, passes: Iterable[Rows]) -> float:
    """The loss in nats per datum, with no step taken and no running statistic moved."""
    with _eval_mode(vae):
        losses = [(_number(svi.evaluate_loss, svi, batch, "the validation loss"), num_rows(batch)) for batch in passes]
    return sum(loss for loss, _ in losses) / sum(count for _, count in losses)


def _eval_mode(vae: VAE | Game | Pair) -> Any:
    return evaluating(vae) if isinstance(vae, nn.Module) else nullcontext()


def _devices(vae: VAE | Game | Pair) -> list[torch.device]:
    """Those whose random state is not the CPU's."""
    parameter = next(vae.parameters(), None) if isinstance(vae, nn.Module) else None
    return [parameter.device] if parameter is not None and parameter.is_cuda else []


def _weights(vae: VAE | Game | Pair) -> list[tuple[Tensor, Tensor]]:
    """Each trained tensor with a copy: those of the VAE, or for two functions all that Pyro's store holds."""
    if isinstance(vae, nn.Module):
        tensors = list(vae.state_dict(keep_vars=True).values())
    else:
        tensors = list(guards.stored().values())
    return [(tensor, tensor.detach().clone()) for tensor in tensors]


def _restore(weights: list[tuple[Tensor, Tensor]]) -> None:
    with torch.no_grad():
        for tensor, copy in weights:
            tensor.copy_(copy)


@contextmanager
def _seeded(vae: VAE | Game | Pair, seed: int | None) -> Iterator[torch.Generator | None]:
    """Draws from a seed of one's own, with torch's random state put back after; None changes nothing."""
    if seed is None:
        yield None
        return
    with torch.random.fork_rng(devices=_devices(vae)):
        torch.manual_seed(seed)
        yield torch.Generator().manual_seed(seed)
