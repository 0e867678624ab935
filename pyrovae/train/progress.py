"""``Progress``: how far a run is, on standard error."""

from __future__ import annotations

import math
import shutil
import sys
import time
from typing import TYPE_CHECKING

from tqdm import tqdm

from pyrovae.infer import SVI
from pyrovae.train.callbacks import BestWeights, Callback

if TYPE_CHECKING:
    from pyrovae.train.run import Run

__all__ = ["Progress"]

LONG = 2.0  # seconds after which the batches of an epoch are shown too
EVERY = 5.0  # seconds between two lines of epochs where there is no terminal
REST = 30.0  # seconds between two lines within an epoch


class Progress(Callback):
    """A bar of epochs, with a bar of batches while an epoch is long; readable lines where there is no terminal."""

    _bar: tqdm | None = None
    _batches: tqdm | None = None

    def on_fit_start(self, run: Run) -> None:
        self._told = -math.inf
        if isinstance(run.trainer, SVI):
            run.trainer.on_compile = self._say
        if sys.stderr.isatty():
            self._bar = _new_bar(unit="epoch", total=run.num_epochs)

    def on_epoch_start(self, run: Run) -> None:
        self._start = time.monotonic()
        if self._bar is not None:
            self._bar.n = run.epoch - 1  # a resumed run has epochs behind it

    def on_step_end(self, run: Run) -> None:
        now = time.monotonic()
        if self._batches is not None:
            self._batches.update()
        elif self._bar is not None and now - self._start > LONG:
            total = run.steps_per_epoch if math.isfinite(run.steps_per_epoch) else None
            self._batches = _new_bar(
                f"epoch {run.epoch}", unit="batch", total=total, initial=run.step_in_epoch, leave=False
            )
        elif self._bar is None and now - max(self._start, self._told) > REST:
            of = f" of {run.steps_per_epoch:.0f}" if math.isfinite(run.steps_per_epoch) else ""
            self._say(f"epoch {run.epoch}: batch {run.step_in_epoch}{of}, loss {run.loss:.2f} nats per datum")

    def on_epoch_end(self, run: Run) -> None:
        self._close_batches()
        if self._bar is not None:
            self._bar.set_postfix_str(_losses(run), refresh=False)
            self._bar.update()
        elif time.monotonic() - self._told >= EVERY:
            self._say(f"epoch {run.epoch} of {run.num_epochs}: {_losses(run)} nats per datum")

    def on_fit_end(self, run: Run) -> None:
        best = max((each.epoch for each in run.callbacks if isinstance(each, BestWeights)), default=0)
        stopped = f"; stopped: {run.stop_reason}" if run.stop_reason else ""
        self._end(run, f"{stopped}{f'; the weights are those of epoch {best}' if best else ''}")

    def on_error(self, run: Run, error: BaseException) -> None:
        self._end(run, "" if isinstance(error, Exception) else f"; ended by {type(error).__name__}")

    def _end(self, run: Run, how: str) -> None:
        self._close_batches()
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if done := len(run.history["epoch"]):
            self._say(f"{done} of {run.num_epochs} epochs in {run.seconds:.1f} s, {_losses(run)} nats per datum{how}")

    def _close_batches(self) -> None:
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def _say(self, text: str) -> None:
        self._told = time.monotonic()
        tqdm.write(text, file=sys.stderr)


def _losses(run: Run) -> str:
    train, val = run.history["train_loss"][-1], run.history["val_loss"][-1]
    return f"loss {train:.2f}" if math.isnan(val) else f"loss {train:.2f}, validation {val:.2f}"


def _new_bar(text: str | None = None, **options: object) -> tqdm:
    size = shutil.get_terminal_size()  # 80 by 24 where the terminal does not say; tqdm would then show nothing
    return tqdm(desc=text, file=sys.stderr, ncols=size.columns, nrows=size.lines, **options)
