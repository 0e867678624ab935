"""Callbacks: what happens around the steps of a run; those of ``fit`` itself are here."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from pyro.optim.lr_scheduler import PyroLRScheduler
from torch import Tensor

from pyrovae.infer import SVI
from pyrovae.objectives import Objective, Schedule
from pyrovae.optim import Scheduled, follows_validation
from pyrovae.schema import check, whole
from pyrovae.train.trainer import Model, Optim

if TYPE_CHECKING:
    from pyrovae.train.run import History, Run

__all__ = ["BestWeights", "Callback", "CallbackError", "EarlyStopping", "Function", "Schedules"]


class CallbackError(RuntimeError):
    """A callback raised; the weights, the optimizer and the history are as the callback found them."""


class Callback:
    """Moments of a run of :func:`~pyrovae.fit`. A subclass overrides the ones that it needs.

    Each gets the :class:`Run`. Gradients are off and the model is in ``eval`` mode, except in ``on_step_end``, and
    torch's random state is put back afterwards, so that measuring changes no run.
    """

    def on_fit_start(self, run: Run) -> None:
        """Before the first epoch. A checkpoint is loaded here, by ``run.load_state_dict``."""

    def on_epoch_start(self, run: Run) -> None:
        """Before the first step of an epoch, or before the next step of an epoch that is resumed."""

    def on_step_end(self, run: Run) -> None:
        """After each training step, in ``train`` mode."""

    def on_epoch_end(self, run: Run) -> None:
        """After the validation; the history has a row for the epoch."""

    def on_fit_end(self, run: Run) -> None:
        """After the last epoch."""

    def on_error(self, run: Run, error: BaseException) -> None:
        """Instead of ``on_fit_end``, when an error or Ctrl-C (a ``KeyboardInterrupt``) ends the run."""

    def state_dict(self) -> dict[str, object]:
        """The part of a checkpoint that belongs to this callback."""
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Put back what :meth:`state_dict` returned."""
        vars(self).update(state)


class Function(Callback):
    """A function ``(vae, epoch, history)`` that is called at the end of each epoch."""

    def __init__(self, function: Callable[[Model, int, History], object]) -> None:
        if isinstance(function, type) or not callable(function):
            kind = "a class: call it" if isinstance(function, type) else "neither a Callback nor a function"
            raise TypeError(f"callbacks: {function!r} is {kind}")
        self.function, self.__name__ = function, getattr(function, "__name__", type(function).__name__)

    def on_epoch_end(self, run: Run) -> None:
        self.function(run.vae, run.epoch, run.history)

    def state_dict(self) -> dict[str, object]:
        return getattr(self.function, "state_dict", dict)()  # of a callable object

    def load_state_dict(self, state: dict[str, object]) -> None:
        getattr(self.function, "load_state_dict", dict)(state)


class Schedules(Callback):
    """Moves the schedules of the objective and of the learning rates, and steps Pyro's schedulers after each epoch."""

    def __init__(self, loss: object, optim: Optim) -> None:
        self.loss = loss
        self.of_loss = loss.schedules() if isinstance(loss, Objective) else {}
        self.optims = optim if isinstance(optim, tuple) else (optim,)
        self.rates = [each for each in self.optims if isinstance(each, Scheduled)]
        self.named = [(f"loss: the schedule of {name}", each) for name, each in self.of_loss.items()]
        self.named += [("optim: the schedule of the learning rate", each.schedule) for each in self.rates]

    def on_fit_start(self, run: Run) -> None:
        run.settled = max([0.0, *(self.end(each, run.steps_per_epoch) for each in self.of_loss.values())])

    def on_epoch_start(self, run: Run) -> None:
        if isinstance(run.trainer, SVI):
            run.trainer.epoch = run.epochs_done
        for optim in self.rates:
            optim.move(run.epochs_done if optim.schedule.unit == "epochs" else run.step)

    on_step_end = on_epoch_start

    def on_epoch_end(self, run: Run) -> None:
        for optim in self.optims:
            if isinstance(optim, PyroLRScheduler):
                optim.step(*(run.history["val_loss"][-1:] if follows_validation(optim) else []))

    def on_fit_end(self, run: Run) -> None:
        # of a stream the number of steps is known only now
        for what, schedule in self.named if math.isinf(run.steps_per_epoch) else ():
            if schedule.unit == "steps" and run.step < schedule.end < math.inf:
                warnings.warn(f"{what} ends after the run, which ended at step {run.step}", stacklevel=2)

    @staticmethod
    def end(schedule: Schedule, steps_per_epoch: float) -> float:
        """The epoch at which a schedule ends."""
        return schedule.end if schedule.unit == "epochs" else schedule.end / max(steps_per_epoch, 1)


class BestWeights(Callback):
    """Leaves the model with the weights of the epoch with the least validation loss, also after Ctrl-C.

    Attributes: ``weights``, ``loss`` and ``epoch`` of the best epoch so far, which is 0 before the first.
    """

    def __init__(self) -> None:
        self.loss, self.epoch = math.inf, 0
        self.weights: dict[str, Tensor] = {}

    def on_fit_start(self, run: Run) -> None:
        if run.step == 0:  # a run that is resumed has a best epoch already
            self.loss, self.epoch, self.weights = math.inf, 0, {}

    def on_epoch_end(self, run: Run) -> None:
        if run.history["val_loss"][-1] < self.loss and getattr(run.trainer, "comparable", True):
            self.loss, self.epoch = run.history["val_loss"][-1], run.epoch
            self.weights = {name: tensor.detach().clone() for name, tensor in run.weights().items()}

    def on_fit_end(self, run: Run) -> None:
        run.load_weights(self.weights)

    def on_error(self, run: Run, error: BaseException) -> None:
        if not isinstance(error, Exception):  # Ctrl-C, and what else is no failure
            run.load_weights(self.weights)

    def state_dict(self) -> dict[str, object]:
        return vars(self)


class EarlyStopping(Callback):
    """Stops a run after ``patience`` epochs without a better validation loss, counted from the end of the schedules."""

    def __init__(self, patience: int) -> None:
        check("patience", patience, whole(1))
        self.patience = int(patience)

    def on_epoch_end(self, run: Run) -> None:
        losses = run.history["val_loss"]
        if run.epoch - max(losses.index(min(losses)) + 1, run.settled) >= self.patience:
            run.stop(f"no better validation loss in {self.patience} epoch{'' if self.patience == 1 else 's'}")
