"""What a run is refused for before its first step."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro.optim.lr_scheduler import PyroLRScheduler
from torch import Tensor
from torch.utils.data import Dataset

from pyrovae import guards
from pyrovae.adversarial import Game
from pyrovae.likelihoods import Likelihood
from pyrovae.objectives import Objective, Schedule
from pyrovae.optim import Scheduled, follows_validation, takes_whole_set
from pyrovae.optim.numbers import positive
from pyrovae.rows import Rows, check_rows, is_rows, num_rows, tensors
from pyrovae.vae import VAE

__all__ = [
    "Pair",
    "check_data",
    "check_game",
    "check_num_data",
    "check_optim_and_loss",
    "check_pair",
    "check_rates",
    "check_support",
    "end_of_schedules",
    "length",
    "num_steps",
    "num_tensors",
    "optims_of",
    "rows_of_batch",
]

Pair = tuple[Callable[..., Any], Callable[..., Any]]


def check_pair(vae: Any) -> None:
    """Refuse what is neither a VAE, a game nor two functions."""
    if isinstance(vae, Game) or (isinstance(vae, tuple) and len(vae) == 2 and all(map(callable, vae))):
        return
    if not (callable(getattr(vae, "model", None)) and callable(getattr(vae, "guide", None))):
        raise TypeError(f"vae must be a VAE, or a pair (model, guide) of functions, got {type(vae).__name__}")


def check_game(optim: Any, compile: bool | None, precision: torch.dtype | None, patience: int | None) -> None:
    """Refuse what a game has not: it is not compiled, no epoch of it is the best, and no loss of it only falls."""
    if any(isinstance(each, PyroLRScheduler) for each in optims_of(optim)):
        raise ValueError(
            "optim: a plateau or a scheduler of Pyro's own is not for a GAN or an adversarial autoencoder: give the "
            "optimizer a schedule, such as pyrovae.optim.cosine"
        )
    for name, value in (("compile", compile or None), ("precision", precision), ("patience", patience)):
        if value is not None:
            raise ValueError(f"{name} is not for a GAN or an adversarial autoencoder, got {value}")


def optims_of(optim: Any) -> tuple[Any, ...]:
    """The optimizers of a run: one, or a game's pair."""
    return optim if isinstance(optim, tuple) else (optim,)


def check_rates(optim: Any) -> None:
    """Refuse a learning rate that moves nothing or uphill, of an optimizer or a scheduler, where it is said once."""
    for each in optims_of(optim):
        args = getattr(each, "pt_optim_args", None)
        if isinstance(each, Scheduled) or not isinstance(args, dict) or args.get("lr") is None:
            continue
        rate = args["lr"].item() if isinstance(args["lr"], Tensor) else args["lr"]
        positive(**{"optim: the learning rate": rate})


def check_optim_and_loss(optim: Any, validated: bool) -> None:
    """Refuse an optimizer that Pyro would use wrongly, or whose rate waits for a loss that nobody will tell."""
    guards.check_optim(optim)
    if follows_validation(optim) and not validated:
        raise ValueError("optim: its learning rate follows the validation loss, and there are no validation data")


def check_data(name: str, vae: VAE | Game | Pair, x: Any) -> None:
    """Refuse tensors of different lengths, and more or fewer of them than model and guide take."""
    if not is_rows(x):
        return
    check_rows(name, x)
    if isinstance(vae, Game):
        if len(tensors(x)) > 1:
            raise ValueError(f"{name}: a GAN or an adversarial autoencoder takes one tensor, got {len(tensors(x))}")
        return
    model, guide = vae if isinstance(vae, tuple) else (vae.model, vae.guide)
    guards.check_arguments(name, tensors(x), model=model, guide=guide)


def check_support(vae: VAE | Game | Pair, x: Rows) -> None:
    """Refuse no rows, data that the likelihood has no density for, and what is no label."""
    data, *others = tensors(x)
    if len(data) == 0:
        raise ValueError("data has no rows")
    likelihood = getattr(vae, "likelihood", None)
    if isinstance(likelihood, Likelihood):
        likelihood.check(data)
    if isinstance(vae, VAE) and vae.num_labels:
        guards.check_labels(next(iter(others), None), vae.num_labels, len(data))
    if isinstance(vae, VAE) and hasattr(vae.posterior, "encode") and bool(data.isnan().any()):
        with_holes = data.isnan().reshape(len(data), -1).any(1)  # which the likelihood takes
        with pyro.validation_enabled(False):
            code = vae.encode(*(rows[with_holes][:1] for rows in tensors(x)))
        if bool(code.isnan().any()):
            raise ValueError("guide: its code is NaN where the data are: nn.Filled(encoder) reads a constant there")


def check_num_data(vae: VAE | Game | Pair, train: Any) -> None:
    """What all data share has the weight that the VAE was told; a stream does not say how many rows it has."""
    if not isinstance(vae, VAE) or not hasattr(vae.prior, "shared"):
        return
    if math.isfinite(rows := length(train)) and rows != vae.num_data:
        raise ValueError(f"num_data of the VAE is {vae.num_data}, and the training data have {rows} rows: set it")


def num_tensors(vae: VAE | Game | Pair) -> int:
    """How many tensors of a datum model and guide are called with: x, or as many as one of two functions must have."""
    if isinstance(vae, VAE | Game):
        return 2 if getattr(vae, "num_labels", 0) else 1
    functions = vae if isinstance(vae, tuple) else (vae.model, vae.guide)
    return max(1, *map(_num_required, functions))


def _num_required(function: Any) -> int:
    """Its positional arguments without a default."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = guards.signature(function).parameters.values()
    return sum(p.kind in positional and p.default is p.empty for p in parameters)


def end_of_schedules(loss: Any, optim: Any, epochs: int, steps_per_epoch: float) -> float:
    """The epoch from which an objective is the same for good, its counts put back to the start of a run."""
    for each in optims_of(optim):
        if isinstance(each, Scheduled) and math.isfinite(each.schedule.end):
            _end("optim: the schedule of the learning rate", each.schedule, epochs, steps_per_epoch)
    if not isinstance(loss, Objective):
        return 0.0
    named = loss.schedules().items()
    return max([0.0, *(_end(f"loss: the schedule of {name}", each, epochs, steps_per_epoch) for name, each in named)])


def _end(what: str, schedule: Schedule, epochs: int, steps_per_epoch: float) -> float:
    end = schedule.end if schedule.unit == "epochs" else schedule.end / max(steps_per_epoch, 1)
    if end > epochs:
        raise ValueError(
            f"{what} ends at {schedule.end:g} {schedule.unit}, after the run, which has {epochs} epochs: shorten the "
            f"one or lengthen the other"
        )
    return end


def rows_of_batch(data: Any, batch_size: int | None, optim: Any) -> int:
    """The rows of a batch as they are given, or all that there are; gradient descent takes no fewer."""
    is_set = (is_rows(data) or isinstance(data, Dataset)) and math.isfinite(length(data))
    if batch_size is None:
        if not is_set:
            raise ValueError("batch_size=None is the whole set at each step, and data come in batches: use a tensor")
        return max(int(length(data)), 1)
    whole = any(map(takes_whole_set, optims_of(optim)))
    if whole and not is_set:
        raise ValueError("optim: gd takes the whole set at each step, and data come in batches: sgd takes these")
    if whole and num_steps(data, batch_size) > 1:
        raise ValueError(f"optim: gd takes the whole set at each step: batch_size=None, got {batch_size}")
    return batch_size


def length(data: Any) -> float:
    """Rows of tensors or a Dataset; infinite for a stream, whose schedule then moves once per epoch."""
    if is_rows(data):
        return num_rows(data)
    dataset = getattr(data, "dataset", data)
    return len(dataset) if hasattr(dataset, "__len__") else math.inf


def num_steps(data: Any, batch_size: int) -> float:
    """Steps per epoch; infinite for a stream."""
    if hasattr(data, "dataset"):
        return len(data)
    rows = length(data)
    return math.ceil(rows / max(batch_size, 1)) if math.isfinite(rows) else math.inf
