"""Optimizers by name, as optimizers of Pyro on torch's own classes, and schedules of their learning rates."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from pyro.optim import PyroOptim

from pyrovae import names
from pyrovae.objectives import Schedule
from pyrovae.optim.adaptive import adagrad, adam, adamw, clipped_adam, nadam, rmsprop
from pyrovae.optim.base import Rate, Scheduled, follows_validation, takes_whole_set
from pyrovae.optim.descent import gd, momentum, nesterov, sgd
from pyrovae.optim.orthogonal import muon
from pyrovae.optim.schedules import Plateau, cosine, one_cycle, plateau, step_decay, warmup

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Plateau",
    "Rate",
    "Scheduled",
    "adagrad",
    "adam",
    "adamw",
    "by_name",
    "clipped_adam",
    "cosine",
    "follows_validation",
    "gd",
    "momentum",
    "muon",
    "nadam",
    "nesterov",
    "one_cycle",
    "plateau",
    "rmsprop",
    "schedule_by_name",
    "sgd",
    "step_decay",
    "takes_whole_set",
    "usual_rates",
    "warmup",
]

OPTIMIZERS: dict[str, Callable[..., PyroOptim]] = {
    "gd": gd,
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adamw,
    "nadam": nadam,
    "clipped-adam": clipped_adam,
    "muon": muon,
}
SCHEDULES: dict[str, Callable[..., Schedule | Plateau]] = {
    "step": step_decay,
    "cosine": cosine,
    "one-cycle": one_cycle,
    "plateau": plateau,
    "warmup": warmup,
}


def by_name(name: str, /, lr: Rate = 1e-3, batch_size: int = 1, **options: Any) -> PyroOptim:
    """The optimizer of a name of ``OPTIMIZERS``.

    Args:
        name: Such as ``"clipped-adam"``.
        lr: Learning rate, or a schedule of it.
        batch_size: Rows of a batch, for those whose learning rate is per datum.
        options: What else it takes by name.

    Raises: ValueError for an unknown name, with the nearest known one, and for an option that it does not have.
    """
    make = names.by_name("optimizer", name, OPTIMIZERS)
    own = names.own_options(make, 1) or []
    own_names = [option for option in own if option != "batch_size"]
    names.check_options(f"optimizer {name!r}", options, own_names, OPTIMIZERS)
    return make(lr, **options, **({"batch_size": batch_size} if "batch_size" in own else {}))


def usual_rates(name: str) -> list[float]:
    """Five learning rates to try: the default of an optimizer, times 0.1, 0.3, 1, 3 and 10.

    Raises: ValueError for an unknown name, with the nearest known one.
    """
    make = names.by_name("optimizer", name, OPTIMIZERS)
    centre = inspect.signature(make).parameters["lr"].default
    return [float(f"{factor * centre:.1g}") for factor in (0.1, 0.3, 1, 3, 10)]


def schedule_by_name(name: str, lr: float, /, **options: Any) -> Schedule | Plateau:
    """The schedule of a name of ``SCHEDULES``, with its largest learning rate and what else it takes by name.

    Raises: ValueError for an unknown name, with the nearest known one, and for an option that it does not have.
    """
    make = names.by_name("schedule", name, SCHEDULES)
    names.check_options(f"schedule {name!r}", options, names.own_options(make, 1))
    return make(lr, **options)
