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
        """Open the bar, and have the trainer say that it is going to compile."""
        self._told = -math.inf
        if isinstance(run.trainer, SVI):
            run.trainer.on_compile = self._say
        if sys.stderr.isatty():
            self._bar = _new_bar("epoch", run.num_epochs)

    def on_epoch_start(self, run: Run) -> None:
        """Start the clock of the epoch."""
        self._start = time.monotonic()
        if self._bar is not None:
            self._bar.n = run.epoch - 1  # a resumed run has epochs behind it

    def on_step_end(self, run: Run) -> None:
        """Count the batches of a long epoch."""
        now, total = time.monotonic(), run.steps_per_epoch if math.isfinite(run.steps_per_epoch) else None
        if self._batches is not None:
            self._batches.update()
        elif self._bar is not None and now - self._start > LONG:
            done = {"desc": f"epoch {run.epoch}", "initial": run.step_in_epoch, "leave": False}
            self._batches = _new_bar("batch", total, **done)
        elif self._bar is None and now - max(self._start, self._told) > REST:
            of = "" if total is None else f" of {total:.0f}"
            self._say(f"epoch {run.epoch}: batch {run.step_in_epoch}{of}, loss {run.loss:.2f}")

    def on_epoch_end(self, run: Run) -> None:
        """Show the losses."""
        self._close_batches()
        if self._bar is not None:
            self._bar.set_postfix_str(_losses(run, unit=""), refresh=False)
            self._bar.update()
        elif time.monotonic() - self._told >= EVERY:
            self._say(f"epoch {run.epoch} of {run.num_epochs}: {_losses(run)}")

    def on_fit_end(self, run: Run) -> None:
        """The last line is the final state."""
        best = max((each.epoch for each in run.callbacks if isinstance(each, BestWeights)), default=0)
        stopped = f"; stopped: {run.stop_reason}" if run.stop_reason else ""
        self._end(run, f"{stopped}{f'; the weights are those of epoch {best}' if best else ''}")

    def on_error(self, run: Run, error: BaseException) -> None:
        """The last line says what ended the run."""
        self._end(run, f"; ended by {type(error).__name__}")

    def _end(self, run: Run, how: str) -> None:
        self._close_batches()
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._say(
            f"{len(run.history['epoch'])} of {run.num_epochs} epochs in {run.seconds:.1f} s{_losses(run, ', ')}{how}"
        )

    def _close_batches(self) -> None:
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def _say(self, text: str) -> None:
        self._told = time.monotonic()
        tqdm.write(text, file=sys.stderr)


def _losses(run: Run, before: str = "", unit: str = " nats per datum") -> str:
    train, val = (run.history[name][-1:] or [math.nan] for name in ("train_loss", "val_loss"))
    shown = [f"{name} {loss:.2f}" for name, (loss,) in (("loss", train), ("validation", val)) if not math.isnan(loss)]
    return f"{before}{', '.join(shown)}{unit}" if shown else ""


def _new_bar(unit: str, total: float | None, **options: object) -> tqdm:
    size = shutil.get_terminal_size()  # 80 by 24 where the terminal does not say; tqdm would then show nothing
    return tqdm(total=total, unit=unit, file=sys.stderr, ncols=size.columns, nrows=size.lines, **options)
