"""Runs that are killed at random moments and resumed: each must end as the run that nobody killed, bit for bit.

``python tests/kills.py 30`` kills 30 runs by SIGKILL, prints a line for each, and exits with 1 if one ends otherwise.
``--signal TERM`` and ``--signal INT`` send these signals, after which no step may be lost. Runs are commands ``pyrovae
fit``, and calls of ``pv.fit`` with a checkpoint every three steps; compiled and not; of three priors. ``--only fit``
leaves the commands out, ``--only eager`` the compiler.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

import pyrovae as pv
from pyrovae.cli import main as command_line
from pyrovae.train import Callback, Checkpoint
from pyrovae.train.checkpoints import CHECKPOINT, read_state

PRIORS = ("laplace", "spike-slab", "beta-bernoulli")  # a density, one with gates, one with a site that all data share
SIZES = "--epochs 4 --hidden 32 --latent-dim 4 --num-samples 5 --quiet"


def content(run: Path) -> tuple[object, ...]:
    """What must be equal of two runs: the weights, the history without its clock, the numbers, the options."""
    history = (run / "history.csv").read_text().splitlines()
    config = json.loads((run / "config.json").read_text())
    numbers = json.loads((run / "metrics.json").read_text()) if (run / "metrics.json").exists() else None
    return (
        (run / "model.safetensors").read_bytes(),
        [line.rpartition(",")[0] for line in history],
        numbers,
        {name: config.get(name) for name in ("data", "fit", "model")},
    )


class Counts(Callback):
    """Writes the number of steps done to a file, which outlives a kill."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_step_end(self, run: pv.train.Run) -> None:
        self.path.write_text(str(run.step))

    def state_dict(self) -> dict[str, object]:
        return {}


class Kind:
    """A kind of run: how it is begun, and resumed."""

    def __init__(self, prior: str, compiled: bool, command: bool, overwrites: bool = False) -> None:
        self.prior, self.compiled, self.command, self.overwrites = prior, compiled, command, overwrites

    def __str__(self) -> str:
        how = "pyrovae fit --overwrite" if self.overwrites else "pyrovae fit" if self.command else "pv.fit"
        return f"{how}, {self.prior}, {'compiled' if self.compiled else 'eager'}"

    def run(self, out: Path, resume: bool) -> None:
        """Train in this process."""
        if self.command:
            flag = "--resume" if resume else "--overwrite" if self.overwrites else ""
            compiled = "--compile" if self.compiled else "--no-compile"
            command_line(f"fit digits --prior {self.prior} {SIZES} {compiled} --out {out} {flag}".split())
        torch.manual_seed(0)
        data = pv.data.digits(seed=0)
        vae = pv.build_vae((64,), 4, prior=self.prior, hidden=(32,), num_data=len(data.train))
        pv.fit(
            vae,
            data,
            4,
            seed=0,
            progress=False,
            compile=self.compiled,
            callbacks=[Counts(out.with_suffix(".steps")), Checkpoint(out, every_steps=3, resume=True)],
        )

    def start(self, out: Path, resume: bool, cache: Path) -> int:
        """Train in a process of its own; its number."""
        number = os.fork()  # all is imported already
        if number:
            return number
        status = 1
        try:
            with out.with_suffix(".log").open("ab", 0) as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background may ignore it
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
            self.run(out, resume)
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        except KeyboardInterrupt:
            status = 130
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)


def seen(folder: Path, pattern: str) -> bool:
    return any(folder.glob(pattern))


def in_the_first_epoch(out: Path, cache: Path) -> bool:
    return (out / CHECKPOINT).exists()


def while_a_checkpoint_is_saved(out: Path, cache: Path) -> bool:
    return (out / CHECKPOINT).exists() and seen(out, f".{CHECKPOINT}.*.partial")


def while_the_model_is_saved(out: Path, cache: Path) -> bool:
    return seen(out, ".model.safetensors.*.partial") or (out / "model.safetensors").exists()


def while_it_is_measured(out: Path, cache: Path) -> bool:
    return (out / "model.safetensors").exists()


def while_it_compiles(out: Path, cache: Path) -> bool:
    return seen(cache, "*/*.cpp")


def between_two_renames(out: Path, cache: Path) -> bool:
    return (out.parent / f".{out.name}.new/.replaces").exists() or (out / ".replaces").exists()


Moment = Callable[[Path, Path], bool]
# moments to wait for, and the seconds after them within which the kill comes
MOMENTS: dict[Moment, float] = {
    in_the_first_epoch: 0.05,
    while_a_checkpoint_is_saved: 0.0,
    while_the_model_is_saved: 0.0,
    while_it_is_measured: 0.5,
    while_it_compiles: 3.0,
    between_two_renames: 0.005,
}


def moments_of(kind: Kind) -> list[Moment | None]:
    """Moments that a kind of run has; None, twice as often as each other one, is a random time of the whole run."""
    if kind.overwrites:
        return [between_two_renames]
    found: list[Moment | None] = [None, None, in_the_first_epoch, while_a_checkpoint_is_saved, while_the_model_is_saved]
    return found + [while_it_is_measured] * kind.command + [while_it_compiles] * 2 * kind.compiled


def wait(number: int, until: float = float("inf")) -> int | None:
    """The status of a process; None where it still runs."""
    while time.monotonic() < until:
        done, status = os.waitpid(number, 0 if until == float("inf") else os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.0005)
    return None


def killed(kind: Kind, out: Path, cache: Path, resume: bool, moment: Moment | None, after: float, what: int) -> bool:
    """Start a run and send it a signal so many seconds after a moment; whether that ended it."""
    number = kind.start(out, resume, cache)
    status = None
    while moment is not None and status is None and not moment(out, cache):
        status = wait(number, time.monotonic() + 0.0005)
    if status is None:
        status = wait(number, time.monotonic() + after)
    if status is None:
        os.kill(number, what)
        status = wait(number)
    if status not in (0, -what, 128 + what):
        raise RuntimeError(f"exit status {status}: {out.with_suffix('.log').read_text()[-2000:]}")
    return status != 0


def attempts(num: int, seed: int, folder: Path, what: int, only: str) -> Iterator[tuple[str, str]]:
    """So many runs that are killed: each in words, and ``equal`` or what is wrong with its end."""
    whole: dict[str, tuple[tuple[object, ...], float]] = {}
    os.chdir(folder)
    ended = count = 0
    while ended < num:
        count += 1
        random_ = random.Random(f"{seed} {count}")
        command = only != "fit" and random_.random() < 0.6
        compiled = "eager" not in only and only != "fit" and random_.random() < 0.5
        kind = Kind(PRIORS[ended % 3], compiled, command, command and not compiled and random_.random() < 0.3)
        plain = Kind(kind.prior, compiled, command)
        if str(plain) not in whole:
            path = folder / f"whole-{len(whole)}"
            for _ in range(1 + compiled):  # the second time with a full cache
                shutil.rmtree(path, ignore_errors=True)
                start = time.monotonic()
                if wait(plain.start(path, False, folder / f"cache-{kind.prior}-{command}")):
                    raise RuntimeError(f"{plain}: {path.with_suffix('.log').read_text()[-2000:]}")
            whole[str(plain)] = content(path), time.monotonic() - start
            shutil.copytree(path, folder / f"old-{plain}")
        expected, seconds = whole[str(plain)]
        out, cache = folder / f"run-{count}", folder / f"cache-{count}"
        if kind.overwrites:  # another run, whose place the killed one is to take
            other = next((name for name in whole if name != str(plain) and name.startswith("pyrovae")), str(plain))
            shutil.copytree(folder / f"old-{other}", out)
        moment = random_.choice(moments_of(kind))
        if compiled and moment is not while_it_compiles:  # which takes a minute with an empty cache
            shutil.copytree(folder / f"cache-{kind.prior}-{command}", cache)
        after = random_.random() * (seconds if moment is None else MOMENTS[moment])
        where = f"{after:.2f} s after its start" if moment is None else moment.__name__.replace("_", " ")
        if not killed(kind, out, cache, False, moment, after, what):
            shutil.rmtree(out, ignore_errors=True)
            continue  # it ended before
        ended += 1
        result = lost_step(out) if what != signal.SIGKILL and not command else ""
        text = f"{kind}: {where}"
        if random_.random() < 0.3:
            again = random_.random() * seconds
            if killed(kind, out, cache, True, None, again, what):
                text += f", and again {again:.2f} s after its resumption"
        status = wait(kind.start(out, True, cache))
        if status:
            result = f"exit status {status}: {out.with_suffix('.log').read_text()[-1000:]}"
        elif content(out) != expected:
            names = ("weights", "history", "numbers", "options")
            pairs = zip(names, content(out), expected, strict=True)
            result = result or f"other {', '.join(name for name, a, b in pairs if a != b)}"
        elif leftovers := [path.name for path in (*out.glob(".*"), *folder.glob(f".{out.name}*"))]:
            result = result or f"leftovers: {leftovers}"
        yield text, result or "equal"
        if not result:
            for path in (out, cache, out.with_suffix(".log")):
                shutil.rmtree(path, ignore_errors=True)


def lost_step(out: Path) -> str:
    """What is wrong where a signal cost a step: the checkpoint must have the last one."""
    steps = out.with_suffix(".steps")
    if not steps.exists() or not (out / CHECKPOINT).exists() or (out / "model.safetensors").exists():
        return ""
    kept, done = read_state(out / CHECKPOINT)["run"]["step"], int(steps.read_text())
    return "" if kept == done else f"the checkpoint has step {kept} of {done}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("num", type=int, nargs="?", default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", default="KILL", choices=["KILL", "TERM", "INT"])
    parser.add_argument("--only", default="", choices=["", "fit", "eager"])
    args = parser.parse_args()
    torch.set_num_threads(1)  # a sum then has one order
    equal = 0
    with tempfile.TemporaryDirectory() as folder:
        what = signal.Signals[f"SIG{args.signal}"]
        for text, result in attempts(args.num, args.seed, Path(folder), what, args.only):
            equal += result == "equal"
            print(f"{text}: {result}", flush=True)
    print(f"{args.num} runs ended by {what.name} and resumed: {equal} equal to the run that was not ended")
    return int(equal < args.num)


if __name__ == "__main__":
    sys.exit(main())
