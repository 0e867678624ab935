"""A torch optimizer, its numbers and its learning rate as an optimizer of Pyro."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pyro.optim import PyroOptim
from pyro.optim.lr_scheduler import PyroLRScheduler
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pyrovae.objectives import Schedule
from pyrovae.optim.numbers import positive, whole
from pyrovae.optim.schedules import Plateau

__all__ = ["Rate", "Scheduled", "WholeSet", "follows_validation", "pyro_optim", "takes_whole_set"]

Rate = float | Schedule | Plateau


class Scheduled(PyroOptim):
    """An optimizer of Pyro whose learning rate follows a schedule.

    ``pyrovae.fit`` moves it before each step. In a loop of one's own ``optim.step()`` does, called after each
    ``svi.step`` where the schedule counts steps and after each epoch where it counts epochs.

    Args:
        constructor: Of a torch optimizer.
        options: What it takes beside ``lr``.
        schedule: The learning rate.
    """

    def __init__(self, constructor: Callable[..., Optimizer], options: dict[str, Any], schedule: Schedule) -> None:
        self._options = {**options, "lr": schedule(0.0)}  # read for each parameter that is met
        super().__init__(constructor, self._options)
        self.schedule = schedule
        self.done, self.scale = 0.0, 1.0  # of the schedule, below 1 after a rollback of pyrovae.fit

    def step(self) -> None:
        """One step or one epoch more, whatever the schedule counts."""
        self.move(self.done + 1)

    def move(self, done: float) -> None:
        """Set the learning rate to what it is after so many steps or epochs."""
        self.done, rate = done, self.scale * self.schedule(done)
        self._options["lr"] = rate
        for optimizer in self.optim_objs.values():
            for group in optimizer.param_groups:
                group["lr"] = rate


class WholeSet(SGD):
    """The steps of gradient descent: those of SGD, of batches that are the whole set."""


def pyro_optim(constructor: Callable[..., Optimizer], lr: Rate, batch_size: int = 1, **options: Any) -> PyroOptim:
    """An optimizer of Pyro with the learning rate divided by the rows of a batch, over which losses are summed.

    Raises: ValueError if ``lr`` is no schedule and not positive.
    """
    whole(batch_size=batch_size)
    if isinstance(lr, Schedule):
        return Scheduled(constructor, options, replace(lr, value=lambda done: lr(done) / batch_size))
    if isinstance(lr, Plateau):
        return PyroLRScheduler(
            ReduceLROnPlateau,
            {
                "optimizer": constructor,
                "optim_args": {**options, "lr": lr.lr / batch_size},
                "factor": lr.factor,
                "patience": lr.patience,
                "threshold": lr.threshold,
                "threshold_mode": "abs",  # a loss of reals may be negative, of which a share below is above
                "min_lr": lr.end / batch_size,
                "eps": 0.0,  # torch leaves out a smaller fall
            },
        )
    positive(lr=lr)
    return PyroOptim(constructor, {**options, "lr": float(lr) / batch_size})


def takes_whole_set(optim: Any) -> bool:
    """Whether it is gradient descent, whose steps are of the whole set."""
    return isinstance(optim, PyroOptim) and optim.pt_optim_constructor is WholeSet


def follows_validation(optim: Any) -> bool:
    """Whether its learning rate follows the validation loss."""
    return isinstance(optim, PyroLRScheduler) and optim.pt_scheduler_constructor is ReduceLROnPlateau
