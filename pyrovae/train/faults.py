"""What ``fit`` does about a loss or weights that are no numbers any more: raise, skip the step, or go back."""

from __future__ import annotations

import inspect
import math
import warnings
from typing import TYPE_CHECKING, Any

from pyro.optim import PyroOptim
from torch import nn

from pyrovae.infer import SVI
from pyrovae.optim import Scheduled

if TYPE_CHECKING:
    from pyrovae.train.run import Run

__all__ = ["ABSURD", "ON_NAN", "MovedError", "Rollback", "check_on_nan", "check_weights", "lower_rate", "put_back"]

ON_NAN = ("raise", "skip", "rollback")
ABSURD = 1e30  # nats per datum that no model of finite data has
LOWER = 0.1  # of the learning rate, after a rollback
MOST = 5  # rollbacks of a run


class MovedError(FloatingPointError):
    """A step that went wrong after it had moved the weights."""


def check_on_nan(on_nan: str, trainer: object) -> None:
    """Refuse an unknown policy, and a rollback where the learning rate is not known."""
    if on_nan not in ON_NAN:
        raise ValueError(f"on_nan must be one of {', '.join(ON_NAN)}, got {on_nan!r}")
    if on_nan == "rollback" and not isinstance(trainer, SVI):
        raise ValueError("on_nan='rollback' is not for a model with a trainer of its own: use 'raise' or 'skip'")


def check_weights(run: Run) -> None:
    """Refuse weights that the last step has made infinite or NaN: its loss is from before the step."""
    for name, tensor in run.weights().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            kind = "NaN" if bool(tensor.isnan().any()) else "infinite"
            raise MovedError(f"step {run.step}: parameter {name} became {kind}")


class Rollback:
    """The states that a run can go back to: the start of the epoch under way, and that of its best epoch.

    The best epoch has the least loss so far, of the validation data if there are any. Its start is taken where the
    epoch fails once more, because then the weights were beyond repair at its start already.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.least, self.has_failed = run, math.inf, False
        self.start = self.best = run.state_dict()

    def begin(self) -> None:
        """Before an epoch."""
        self.start = self.run.state_dict()

    def finish(self) -> None:
        """After an epoch that did not fail."""
        train, val = (self.run.history[name][-1] for name in ("train_loss", "val_loss"))
        loss = train if math.isnan(val) else val
        if loss < self.least:
            self.least, self.best = loss, self.start
        self.has_failed = False

    def go_back(self, error: FloatingPointError) -> None:
        """Take a state back, with a lower learning rate.

        Raises: The error itself after :data:`MOST` rollbacks.
        """
        run = self.run
        run.rollbacks += 1
        if run.rollbacks > MOST:
            raise error
        rate, state = run.rate * LOWER, self.best if self.has_failed else self.start
        where = f" from the start of epoch {len(state['history']['epoch']) + 1}" if self.has_failed else ""
        run.load_state_dict({**state, "seconds": run.seconds})
        assert isinstance(run.trainer, SVI)  # see check_on_nan
        lower_rate(run.trainer.optim, LOWER, rate / run.rate)
        run.rate, self.has_failed = rate, True
        warnings.warn(
            f"{error}; on_nan='rollback' tries again{where} with {rate:g} times the learning rate", stacklevel=3
        )


def lower_rate(optim: PyroOptim, factor: float, of_met: float) -> None:
    """Multiply the learning rate, by ``of_met`` for parameters that the optimizer has met, whose state was put back."""
    if isinstance(optim, Scheduled):
        optim.scale *= of_met
        return
    given = optim.pt_optim_args
    if callable(given):
        optim.pt_optim_args = lambda *names: _lowered(given(*names), optim, factor)
    else:
        optim.pt_optim_args = _lowered(given, optim, factor)
    for each in optim.optim_objs.values():
        for group in getattr(each, "optimizer", each).param_groups:
            group["lr"] = group["lr"] * of_met
        if hasattr(each, "base_lrs"):  # a scheduler
            each.base_lrs = [rate * of_met for rate in each.base_lrs]


def _lowered(options: dict[str, Any], optim: PyroOptim, factor: float) -> dict[str, Any]:
    constructor: Any = optim.pt_optim_constructor
    default = inspect.signature(constructor).parameters.get("lr")
    rate = options.get("lr", None if default is None else default.default)
    return options if rate is None else {**options, "lr": rate * factor}


def put_back(run: Run, before: dict[str, Any], error: FloatingPointError) -> None:
    """Undo a step that is skipped; the random state stays, so that the next step has other draws."""
    if isinstance(run.vae, nn.Module):
        run.load_weights(before["weights"])  # the running statistics of networks too
    if isinstance(error, MovedError) or not isinstance(run.trainer, SVI):
        run.load_weights(before["weights"])
        run.trainer.load_state_dict(before["trainer"])
    run.step_in_epoch += 1
    run.skipped.append(str(error))
    run.reach()
