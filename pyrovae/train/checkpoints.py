"""``Checkpoint``: the folder of a run while it trains, from which a run that was ended goes on."""

from __future__ import annotations

import csv
import json
import os
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
from torch import Tensor, nn

from pyrovae.build import save
from pyrovae.files import write_whole
from pyrovae.folders import locked, made, remove_partial
from pyrovae.processes import LostProcessError, agreed
from pyrovae.train.callbacks import Callback
from pyrovae.train.identity import check_identity
from pyrovae.train.signals import Signals
from pyrovae.train.states import read_state, write_state

if TYPE_CHECKING:
    from pyrovae.train.run import History, Run

__all__ = ["CHECKPOINT", "Checkpoint", "write_history"]

CHECKPOINT = "checkpoint.safetensors"
FILES = ("config.json", "history.csv", CHECKPOINT, "model.safetensors")


class Checkpoint(Callback):
    """Keeps a run in a folder, so that the run can be resumed after any end, with the same numbers as without one.

    The folder has from the start ``config.json``, whose ``training`` says whether the run is finished, ``history.csv``
    with a row for each epoch, and ``checkpoint.safetensors``; and at the end ``model.safetensors``. A checkpoint is
    written every so many steps, every so many minutes and at the end of each epoch, beside the training; and after the
    step under way when SIGINT (Ctrl-C) or SIGTERM arrives. Then KeyboardInterrupt is raised, or the process exits with
    the status 143. A checkpoint that cannot be written is a warning, and the one before it stays.

    Args:
        folder: Made by the run, unless it is there and empty, or ``resume``.
        every_steps: Steps between two checkpoints; None writes none of these.
        every_minutes: Minutes between two checkpoints; None writes none of these.
        resume: Whether to go on with the run in the folder. A folder without a checkpoint gets a new run.
        sections: More to keep in ``config.json``, by name; JSON values.

    Raises: FileExistsError for a folder that is not empty, without ``resume``; BlockingIOError for one that another
        process writes in; ValueError for a checkpoint of another model, of other data or of another optimizer.
    """

    def __init__(
        self,
        folder: str | Path,
        every_steps: int | None = None,
        every_minutes: float | None = 10.0,
        *,
        resume: bool = False,
        sections: dict[str, Any] | None = None,
    ) -> None:
        for name, value in (("every_steps", every_steps), ("every_minutes", every_minutes)):
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive or None, got {value}")
        self.folder, self.resume, self.sections = Path(folder), resume, sections or {}
        self.every_steps, self.every_minutes = every_steps, every_minutes
        self._identity: dict[str, str] = {}
        self._written, self._rows = time.monotonic(), 0  # of history.csv
        self._signals = Signals()
        self._writer: ThreadPoolExecutor | None = None
        self._write: Future[None] | None = None

    @contextmanager
    def opened(self, run: Run, identity: dict[str, str]) -> Iterator[None]:
        """Hold the folder and both signals during a run, which is begun or resumed first and written at its end."""
        self._identity = identity
        is_first, state = run.processes is None or run.processes.rank == 0, None
        with Signals() as self._signals, ExitStack() as stack:
            with agreed(run.processes):
                if is_first:
                    self._make()
                    stack.enter_context(locked(self.folder))
                    state = self._read()
            if run.processes is not None:
                state = run.processes.object_of_first(state)
            if state is not None:
                with self._refusing_others():
                    run.load_state_dict(state)
            if is_first:
                self._begin(run)
                self._writer = stack.enter_context(ThreadPoolExecutor(1))
            try:
                yield
            finally:
                self._wait()
            if is_first:
                self._finish(run)

    def on_epoch_start(self, run: Run) -> None:
        if len(run.history["epoch"]) < self._rows:  # the run has gone back to an earlier epoch
            self._keep(run)
            self._write_history(run)

    def on_step_end(self, run: Run) -> None:
        due = self.every_steps is not None and run.step % self.every_steps == 0
        late = self.every_minutes is not None and time.monotonic() - self._written > 60 * self.every_minutes
        if due or late or run.stop_reason or self._signals.received is not None:
            self._keep(run)
        self._answer()

    def on_epoch_end(self, run: Run) -> None:
        self._keep(run)
        if self._writer is not None:
            with (self.folder / "history.csv").open("a", newline="") as file:
                csv.writer(file).writerow([column[-1] for column in run.history.values()])
            self._rows += 1
        self._answer()

    def on_error(self, run: Run, error: BaseException) -> None:
        if isinstance(error, LostProcessError):  # the weights are those of the last step that all have taken
            self._keep(run)

    def _make(self) -> None:
        if self.folder.is_dir():
            if not self.resume and any(self.folder.iterdir()):
                raise FileExistsError(f"out: {str(self.folder)!r} exists: choose another folder, or resume=True")
            return
        if os.path.lexists(self.folder):
            raise FileExistsError(f"out: {str(self.folder)!r} is not a folder: choose another name")
        try:
            made(self.folder.absolute())
        except OSError as error:
            raise type(error)(f"out: {error}") from error

    def _read(self) -> Any:
        """The state of the run in the folder; None where no run has begun."""
        path = self.folder / CHECKPOINT
        remove_partial(self.folder, FILES)
        if path.exists():
            state = read_state(path)
            with self._refusing_others():
                check_identity(state["identity"], self._identity, str(self.folder))
                return state["run"]
        if (self.folder / "model.safetensors").exists():
            raise FileExistsError(f"out: {str(self.folder)!r} has a model and no checkpoint to resume from")
        return None

    @contextmanager
    def _refusing_others(self) -> Iterator[None]:
        """One line for a checkpoint whose values are not those of a run."""
        try:
            yield
        except (KeyError, TypeError, AttributeError, IndexError, RuntimeError, AssertionError) as error:
            path = str(self.folder / CHECKPOINT)
            kind = type(error).__name__
            raise ValueError(f"{path!r} cannot be resumed from: it has no state of a run ({kind})") from error

    def _begin(self, run: Run) -> None:
        path, config = self.folder / CHECKPOINT, self.folder / "config.json"
        if not config.exists() or not self._is_finished(config):
            self._write_config(run, finished=False)
        if not path.exists():
            write_state(path, self._state(run))
        self._write_history(run)

    def _finish(self, run: Run) -> None:
        if isinstance(run.vae, nn.Module):
            save(run.vae, self.folder, **self.sections, training={"finished": True})
        else:
            tensors = {name: tensor.detach().contiguous() for name, tensor in run.weights().items()}
            write_whole(self.folder / "model.safetensors", safetensors.torch.save(tensors))
            self._write_config(run, finished=True)

    def _write_history(self, run: Run) -> None:
        write_history(run.history, self.folder / "history.csv")
        self._rows = len(run.history["epoch"])

    def _write_config(self, run: Run, finished: bool) -> None:
        config = {"model": getattr(run.vae, "config", None), **self.sections, "training": {"finished": finished}}
        write_whole(self.folder / "config.json", (json.dumps(config, indent=2) + "\n").encode())

    @staticmethod
    def _is_finished(path: Path) -> bool:
        try:
            return bool(json.loads(path.read_bytes())["training"]["finished"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return False

    def _state(self, run: Run) -> dict[str, Any]:
        return {"identity": self._identity, "run": run.state_dict()}

    def _keep(self, run: Run) -> None:
        """Write a checkpoint while the training goes on."""
        self._wait()
        self._written = time.monotonic()
        if self._writer is not None:
            self._write = self._writer.submit(_write_good, self.folder / CHECKPOINT, self._state(run))

    def _wait(self) -> None:
        """Until the last checkpoint is on the disk."""
        write, self._write = self._write, None
        if write is None:
            return
        try:
            write.result()
        except OSError as error:
            warnings.warn(f"no checkpoint was written, and the one before it stays: {error}", stacklevel=4)

    def _answer(self) -> None:
        if self._signals.received is not None:
            self._wait()
            self._signals.answer()


def _write_good(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, unless its weights are infinite: then it is none to go back to."""
    if all(_is_finite(weight) for weight in state["run"]["weights"].values()):
        write_state(path, state)


def _is_finite(x: Tensor) -> bool:
    return bool(x.sum().isfinite()) or bool(x.isfinite().all())  # the sum alone takes a fifth of the time


def write_history(history: History, path: str | Path) -> None:
    """Write a history as CSV, one row per epoch."""
    rows = zip(*history.values(), strict=True)
    lines = [",".join(map(str, row)) for row in (tuple(history), *rows)]
    write_whole(path, "".join(f"{line}\r\n" for line in lines).encode())
