"""``Run``: the state of a run of ``fit``, as callbacks see it and as a checkpoint keeps it."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pyrovae import guards
from pyrovae.data.loading import Loader
from pyrovae.infer import SVI
from pyrovae.optim import Scheduled
from pyrovae.processes import LostProcessError, Processes, StoppedElsewhere, agreed
from pyrovae.random_state import RandomState
from pyrovae.rows import Rows, num_rows
from pyrovae.train.callbacks import Callback, CallbackError, Schedules
from pyrovae.train.checkpoints import Checkpoint
from pyrovae.train.loggers import Logger
from pyrovae.train.progress import Progress
from pyrovae.train.state_kinds import check_state
from pyrovae.train.trainer import Model, Trainer
from pyrovae.vae import eval_mode

__all__ = ["History", "Run"]

History = dict[str, list[float]]
State = dict[str, Any]  # numbers, texts and tensors, in lists and dictionaries
COUNTS = ("history", "step", "step_in_epoch", "rows_in_epoch", "loss_in_epoch", "seconds", "stop_reason", "rate")
UNSEEN = (Progress, Checkpoint, Logger)  # callbacks that a run is the same with and without


@dataclass
class Run:
    """A run of :func:`~pyrovae.fit`, as its callbacks see it."""

    vae: Model
    trainer: Trainer
    data: Loader
    val: Loader | None
    num_epochs: int
    random: RandomState
    callbacks: list[Callback]
    processes: Processes | None = None
    history: History = field(default_factory=lambda: {"epoch": [], "train_loss": [], "val_loss": [], "seconds": []})
    epoch: int = 0  # the one under way, from 1
    step: int = 0  # steps taken
    step_in_epoch: int = 0
    rows_in_epoch: int = 0
    loss_in_epoch: float = 0.0  # their sum
    loss: float = math.nan  # of the last step, in nats per datum
    settled: float = 0.0  # the epoch from which on the objective stays the same
    stop_reason: str | None = None
    rate: float = 1.0  # of the learning rate, after rollbacks
    rollbacks: int = 0
    skipped: list[str] = field(default_factory=list)  # why steps of this epoch were skipped
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self._epoch_start = self._reached = self.random.state_dict()
        self._at_step_end = [each for each in self.callbacks if type(each).on_step_end is not Callback.on_step_end]
        # the callbacks of fit itself draw nothing, and putting the random state back at each step takes time
        draws = not all(isinstance(each, Checkpoint | Logger | Progress | Schedules) for each in self._at_step_end)
        self._after_draws = self.random.put_back if draws else nullcontext

    @property
    def steps_per_epoch(self) -> float:
        """Batches of an epoch; infinite for a stream."""
        return self.data.num_batches

    @property
    def epochs_done(self) -> float:
        """Epochs done, with the fraction of the one under way, which is 0 for a stream."""
        return len(self.history["epoch"]) + self.rows_in_epoch / self.data.num_rows

    @property
    def seconds(self) -> float:
        """Seconds since the start, without those between the end of a run and its resumption."""
        return time.perf_counter() - self.started

    def stop(self, reason: str) -> None:
        """End the run after this epoch, or after this step: an epoch that is cut short has no row in the history."""
        self.stop_reason = reason

    def weights(self) -> dict[str, Tensor]:
        """The tensors themselves by name: the state of a module, or the parameters of a pair that have been trained."""
        if isinstance(self.vae, nn.Module):
            return {n: t for n, t in self.vae.state_dict(keep_vars=True).items() if isinstance(t, Tensor)}
        stored = guards.stored()  # has those of all models; before the first step nobody knows which are the pair's
        known: Container[Tensor] = self.trainer.optim.optim_objs if isinstance(self.trainer, SVI) else ()
        return {name: param for name, param in stored.items() if param in known} or stored

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Copy tensors into those of the same names."""
        with torch.no_grad():
            for name, tensor in self.weights().items():
                if name in weights:
                    tensor.copy_(weights[name])

    def state_dict(self) -> State:
        """A copy of all that a run goes on from. Callbacks after the one that asks have not seen the epoch yet."""
        counts = {name: getattr(self, name) for name in COUNTS}
        states = [[type(each).__name__, each.state_dict()] for each in self._kept()]
        logged = [[type(each).__name__, each.state_dict()] for each in self._loggers()]
        state = {**self._state(), **counts, "epoch_start": self._epoch_start, "callbacks": states, "loggers": logged}
        return _copied(state)

    def load_state_dict(self, state: State) -> None:
        """Go on from the state of another run; to be called before the first epoch, as in ``on_fit_start``.

        Raises: ValueError where the callbacks, the parameters or the seed are not those of that run.
        """
        check_state(state)
        state, names = _copied(state), [type(each).__name__ for each in self._kept()]
        if names != (saved := [name for name, _ in state["callbacks"]]):
            raise ValueError(f"callbacks: the state is of a run with {saved}, and this one has {names}")
        own = self.weights() if isinstance(self.vae, nn.Module) else state["weights"]
        if differ := sorted(state["weights"].keys() ^ own.keys()):
            raise ValueError(f"vae: the state is of a model with other parameters: {', '.join(differ[:3])}")
        for name, tensor in state["weights"].items():
            if tensor.shape != own[name].shape:
                raise ValueError(
                    f"vae: the state has {name} of shape {tuple(tensor.shape)}, not {tuple(own[name].shape)}"
                )
        self._restore(state)
        for callback, (_, saved) in zip(self._kept(), state["callbacks"], strict=True):
            callback.load_state_dict(saved)
        for logger in self._loggers():
            same = next((each for each in state["loggers"] if each[0] == type(logger).__name__), None)
            if same is not None:
                logger.load_state_dict(same[1])
                state["loggers"].remove(same)  # of two of a kind, the second is the next one's
        self.history.update(state.pop("history"))
        self.started, self._epoch_start = time.perf_counter() - state.pop("seconds"), state["epoch_start"]
        vars(self).update({name: state[name] for name in COUNTS if name in state})
        if isinstance(self.trainer, SVI) and isinstance(self.trainer.optim, Scheduled):
            self.trainer.optim.scale = self.rate

    def join(self, identity: dict[str, str]) -> None:
        """Begin with the weights of the first process, and refuse to train something else than it does."""
        if self.processes is None:
            return
        first = self.processes.object_of_first(identity)
        with agreed(self.processes):
            for name, text in identity.items():
                if text != first[name]:
                    raise ValueError(
                        f"process {self.processes.rank} differs from process 0 in its {name}, {text} and "
                        f"{first[name]}: give all processes the same"
                    )
        self.processes.copy_first(list(self.weights().values()))
        assert isinstance(self.trainer, SVI)  # see check_processes
        self.trainer.processes = self.processes

    def reach(self) -> None:
        """Keep the random state of the end of a step, to be put back where another process ends during the next."""
        if self.processes is not None:
            self._reached = self.random.state_dict()

    def start_epoch(self) -> None:
        """Begin the next epoch, or go on with the one that a resumed run was in."""
        self.epoch = len(self.history["epoch"]) + 1
        self.call("on_epoch_start")

    def batches(self) -> Iterator[Rows]:
        """The batches of the epoch that are still to come, in their order also where the run is resumed."""
        now = self.random.state_dict()
        if self.processes is not None:
            self.processes.agree([])
            now = self.processes.object_of_first(now)
        self._epoch_start = self._epoch_start if self.step_in_epoch else now
        self.random.load_state_dict(self._epoch_start)
        self._reached = now
        passes = self.data.batches(self.random.order, self.step_in_epoch)
        if self.step_in_epoch:
            self.random.load_state_dict(now)
        return passes if self.processes is None or self.processes.rank == 0 else self._apart(passes, self.processes)

    def _apart(self, passes: Iterator[Rows], processes: Processes) -> Iterator[Rows]:
        """Batches before each of which the draws are set apart from those of other processes and steps."""
        while True:
            self.random.apart(self._epoch_start, processes.rank, self.step_in_epoch)
            batch = next(passes, None)
            if batch is None:
                return
            yield batch

    def rows_of(self, batch: Rows) -> int:
        """The number of rows of the batch of this step, in all processes together."""
        return num_rows(batch) if self.processes is None else self.data.size_of(self.step_in_epoch)

    def finish_step(self, loss: float, rows: int) -> None:
        """Count a step and call ``on_step_end``."""
        self.step, self.step_in_epoch, self.loss = self.step + 1, self.step_in_epoch + 1, loss / rows
        self.rows_in_epoch, self.loss_in_epoch = self.rows_in_epoch + rows, self.loss_in_epoch + loss
        with self._after_draws():
            for callback in self._at_step_end:
                self._call(callback, "on_step_end")
        self.reach()

    def finish_epoch(self, val_loss: float) -> None:
        """Write a row of the history and call ``on_epoch_end``."""
        row = (self.epoch, self.loss_in_epoch / self.rows_in_epoch, val_loss, self.seconds)
        for column, number in zip(self.history.values(), row, strict=True):
            column.append(number)
        self.step_in_epoch, self.rows_in_epoch, self.loss_in_epoch = 0, 0, 0.0
        self.call("on_epoch_end")

    def call(self, moment: str) -> None:
        """Call a method of every callback, in ``eval`` mode and without gradients."""
        with self.random.put_back(), eval_mode(self.vae) if isinstance(self.vae, nn.Module) else torch.no_grad():
            for callback in self.callbacks:
                self._call(callback, moment)

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """From ``on_fit_start`` to ``on_fit_end``, or to ``on_error`` of an error, which takes the history along."""
        try:
            self.call("on_fit_start")
            if isinstance(self.trainer, SVI):
                epochs, val = self.num_epochs - len(self.history["epoch"]), self.val.num_batches if self.val else 0
                calls = {"step": epochs * self.steps_per_epoch - self.step_in_epoch, "evaluate": epochs * val}
                self.trainer.expected_calls = {name: number for name, number in calls.items() if number < math.inf}
            yield
            self.call("on_fit_end")
        except BaseException as error:
            error.history = self.history  # type: ignore[attr-defined]  # for whoever catches it
            for callback in self.callbacks:
                try:
                    callback.on_error(self, error)
                except Exception as another:  # must not hide the first error
                    warnings.warn(f"callback {type(callback).__name__}, in on_error: {another!r}", stacklevel=3)
            raise

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Hold Pyro's lock; weights, optimizer and random state of a block that fails are put back to its start."""
        with self.random.in_place():
            before = _copied(self._state())
            try:
                yield
            except CallbackError:
                raise
            except (LostProcessError, StoppedElsewhere):  # the steps that all processes have taken stay
                self.random.load_state_dict(self._reached)
                raise
            except BaseException:
                self._restore(before)
                raise

    def _kept(self) -> list[Callback]:
        return [each for each in self.callbacks if not isinstance(each, UNSEEN)]

    def _loggers(self) -> list[Logger]:
        return [each for each in self.callbacks if isinstance(each, Logger)]

    def snapshot(self) -> State:
        """A copy of weights and optimizer, and of no random state."""
        return _copied({"weights": self.weights(), "trainer": self._of_trainer()})

    def _state(self) -> State:
        return {"weights": self.weights(), "trainer": self._of_trainer(), "random": self.random.state_dict()}

    def _of_trainer(self) -> Mapping[str, object]:
        """The state of the trainer, whose tensors may be those of the weights, so that they are copied once."""
        return self.trainer.state_dict(copied=False) if isinstance(self.trainer, SVI) else self.trainer.state_dict()

    def _restore(self, state: State) -> None:
        self.load_weights(state["weights"])
        self.trainer.load_state_dict(state["trainer"])
        self.random.load_state_dict(state["random"])

    def _call(self, callback: Callback, moment: str) -> None:
        try:
            getattr(callback, moment)(self)
        except Exception as error:
            name = getattr(callback, "__name__", type(callback).__name__)
            where = f"{moment}, epoch {self.epoch}, step {self.step}"
            raise CallbackError(f"callbacks: {name} raised {type(error).__name__} in {where}: {error}") from error


def _copied(state: Any, copies: dict[int, Tensor] | None = None) -> Any:
    """A copy of tensors in dictionaries and lists, each once; ``copy.deepcopy`` takes five times as long."""
    copies = {} if copies is None else copies  # by the identity of a tensor
    if isinstance(state, Tensor):
        if id(state) not in copies:
            copies[id(state)] = state.detach().clone()
        return copies[id(state)]
    if isinstance(state, dict):
        return {key: _copied(value, copies) for key, value in state.items()}
    if type(state) in (list, tuple):
        return type(state)(_copied(value, copies) for value in state)
    return state if isinstance(state, (int, float, str, type(None))) else copy.deepcopy(state)
