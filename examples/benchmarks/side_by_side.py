"""Seconds side by side: what the benchmarks here share, and the noise of the method itself.

Each contestant runs in a fresh process, all with the same number of threads, and waits until it is asked for a turn of
some steps. One runs at a time, in an order that is shuffled in each round, so that all meet the same load of the
machine. A ratio is taken within a round; what is reported is the median over the rounds with the quartiles. Threads are
set by ``OMP_NUM_THREADS`` and its like before anything is imported, and XLA's by the CPUs that the process may run on,
which bound those of all; the CPU seconds of each second are measured, and say what came of it.

    def by_hand(turns, width):         # a contestant: builds what it measures, then steps until it is stopped
        while True:
            turns(step())

    if __name__ == "__main__":
        serve(globals())               # this file is also what a contestant's process runs
        main()

Run by itself it measures one step against itself, in two processes: the last line is their ratio, 1 but for noise.

    python examples/benchmarks/side_by_side.py [--rounds 15] [--threads 1] [--smoke]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import json
import os
import platform
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")  # as Linux calls them
PACKAGES = ("torch", "pyro-ppl", "numpyro", "jax", "pythae")


class Contestant(NamedTuple):
    """A function of its file's globals, called as ``function(turns, **options)``, and the packages that it needs."""

    function: Callable[..., None]
    options: dict[str, Any]
    needs: tuple[str, ...] = ()


@dataclass
class Times:
    """What was measured of one contestant; the lists have one number for each round."""

    parameters: int  # trained numbers, 0 where it did not say
    loss: float  # mean of the last steps of the warm-up
    warm_up: tuple[int, float]  # its steps, and the seconds from the call of the function on
    seconds: list[float] = field(default_factory=list)  # of a step
    cores: list[float] = field(default_factory=list)  # CPU seconds of each second
    memory: list[float] = field(default_factory=list)  # resident after the round, in MB
    peak: float = 0.0  # the most that was resident in a round, in MB

    @classmethod
    def after(cls, warm_up: int, answer: dict[str, Any]) -> Times:
        """Before the first round."""
        return cls(answer["parameters"], answer["loss"], (warm_up, answer["seconds"]))

    def add(self, steps: int, answer: dict[str, Any]) -> None:
        """One round."""
        self.seconds.append(answer["seconds"] / steps)
        self.cores.append(answer["cpu"] / answer["seconds"])
        self.memory.append(answer["memory"])
        self.peak = max(self.peak, answer["peak"])

    @property
    def start_up(self) -> float:
        """Seconds of building, of first calls and of compilation: the warm-up less what as many later steps take."""
        steps, seconds = self.warm_up
        return max(0.0, seconds - steps * self.median)

    @property
    def median(self) -> float:
        """Seconds of a step."""
        return statistics.median(self.seconds)


class Turns:
    """What a contestant calls after each step, with the loss of the step: it counts, and waits for the next turn."""

    def __init__(self, requests: Any, answers: Any) -> None:
        self._requests, self._answers = requests, answers
        self._losses: deque[float] = deque(maxlen=20)
        self.parameters = 0
        self._wait()

    def __call__(self, loss: float = 0.0) -> None:
        self._losses.append(loss)
        self._left -= 1
        if not self._left:
            self.tell(
                seconds=time.perf_counter() - self._start,
                cpu=time.process_time() - self._cpu,
                loss=statistics.fmean(self._losses),
                parameters=self.parameters,
                memory=_status("VmRSS"),
                peak=_status("VmHWM"),
            )
            self._wait()

    def tell(self, **answer: Any) -> None:
        """Send one line to the parent."""
        print(json.dumps(answer), file=self._answers, flush=True)

    def _wait(self) -> None:
        request = self._requests.readline()
        if not request:
            raise SystemExit  # the parent has seen enough
        self._left = json.loads(request)
        _reset_peak()
        self._start, self._cpu = time.perf_counter(), time.process_time()


def serve(namespace: Mapping[str, Any]) -> None:
    """Be a contestant, where the command line says ``--contestant``; otherwise return."""
    if sys.argv[1:2] != ["--contestant"]:
        return
    name, options, needs = json.loads(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a framework prints goes to the error stream
    try:
        for package in needs:
            importlib.import_module(package)  # before the clock starts
        namespace[name](Turns(sys.stdin, answers), **options)
        raise RuntimeError(f"{name} ended before it was stopped")
    except Exception:  # whatever it is, the parent raises it
        print(json.dumps({"error": traceback.format_exc()}), file=answers, flush=True)
        sys.exit(1)


class Process:
    """A contestant in a process of its own."""

    def __init__(self, label: str, contestant: Contestant, threads: int) -> None:
        function, options, needs = contestant
        self.label = label
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed by close()
        self.popen = subprocess.Popen(
            [
                sys.executable,
                function.__code__.co_filename,
                "--contestant",
                json.dumps([function.__name__, options, needs]),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, **dict.fromkeys(THREADS, str(threads)), "JAX_PLATFORMS": "cpu", "TQDM_DISABLE": "1"},
        )

    def steps(self, num: int) -> dict[str, Any]:
        """A turn. Raises: RuntimeError with what the process says, or last said, when it failed."""
        with contextlib.suppress(BrokenPipeError):
            print(num, file=self.popen.stdin, flush=True)
        line = self.popen.stdout.readline()  # type: ignore[union-attr]  # it is a pipe
        if line:
            answer = json.loads(line)
        else:
            self.errors.seek(0)
            answer = {"error": f"the process ended with {self.popen.wait()}: {self.errors.read()[-2000:]}"}
        if "error" in answer:
            raise RuntimeError(f"{self.label}: {answer['error']}")
        return answer

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.popen.stdin.close()  # type: ignore[union-attr]  # it is a pipe
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self.popen.stdout.close()  # type: ignore[union-attr]  # it is a pipe
        self.errors.close()


def compare(
    contestants: Mapping[str, Contestant],
    rounds: int = 15,
    *,
    threads: int = 1,
    warm_up: int = 200,
    turn: float = 0.5,
    steps: int | None = None,
    smoke: bool = False,
) -> dict[str, Times]:
    """Seconds per step of each contestant, by turns.

    Args:
        contestants: By the name that tables and errors call them; those whose packages are missing are left out.
        rounds: Turns of each.
        threads: Of each; no more than the CPUs that this process may use.
        warm_up: Steps before the first turn, one contestant after the other.
        turn: Seconds of a turn, about.
        steps: Of a turn, in place of ``turn``.
        smoke: One contestant after the other in this process, with two rounds of one step: it runs, and times nothing.

    Raises: RuntimeError with the message of a contestant that failed.
    """
    entered = {}
    for label, contestant in contestants.items():
        absent = [
            package for package in contestant.needs if importlib.util.find_spec(package.partition(".")[0]) is None
        ]
        if absent:
            print(f"{label}: left out, {' and '.join(absent)} not installed")
        else:
            entered[label] = contestant
    if smoke:
        return {label: _alone(contestant, warm_up) for label, contestant in entered.items()}
    shuffled = random.Random(0)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_cpus(threads))
        processes, measured, num_steps = {}, {}, {}
        for label, contestant in entered.items():
            processes[label] = Process(label, contestant, threads)  # these import side by side, which is not timed
            stack.callback(processes[label].close)
        for label, process in processes.items():
            measured[label] = Times.after(warm_up, process.steps(warm_up))
            num_steps[label] = steps or _num_steps(process, turn)
        for _ in range(rounds):
            for label in shuffled.sample(list(processes), len(processes)):
                measured[label].add(num_steps[label], processes[label].steps(num_steps[label]))
    return measured


def _alone(contestant: Contestant, warm_up: int) -> Times:
    requests, answers = io.StringIO(f"{warm_up}\n1\n1\n"), io.StringIO()
    with contextlib.suppress(SystemExit):
        contestant.function(Turns(requests, answers), **json.loads(json.dumps(contestant.options)))
    first, *turns = [json.loads(line) for line in answers.getvalue().splitlines()]
    times = Times.after(warm_up, first)
    for answer in turns:
        times.add(1, answer)
    return times


def _num_steps(process: Process, turn: float) -> int:
    """How many steps fill a turn, from a trial of growing length."""
    num, seconds = 1, 0.0
    while (seconds := process.steps(num)["seconds"]) < turn / 4:
        num *= 2
    return max(1, round(num * turn / seconds))


@contextlib.contextmanager
def _cpus(num: int) -> Iterator[None]:
    """The first ``num`` CPUs alone, for the processes that start now; where the system cannot, all of them."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    if not 1 <= num <= len(allowed):
        raise ValueError(f"threads must be from 1 to {len(allowed)}, the CPUs here, got {num}")
    os.sched_setaffinity(0, sorted(allowed)[:num])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _status(name: str) -> float:
    """VmRSS or VmHWM of this process, in MB; where the system does not tell, the peak for both."""
    path = Path("/proc/self/status")
    if path.exists():  # ru_maxrss would count the parent's memory, from which a process starts
        return int(re.findall(rf"{name}:\s+(\d+) kB", path.read_text())[0]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _reset_peak() -> None:
    """VmHWM counts from now on, where the system can: data that were read and dropped are no part of a step."""
    path = Path("/proc/self/clear_refs")
    if path.exists():
        path.write_text("5")


class Band(NamedTuple):
    """The median over the rounds, and the quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Band:
        low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
        return cls(median, low, high)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratio(times: Times, others: Times) -> Band:
    """Seconds of one over those of another, round by round."""
    return Band.of([a / b for a, b in zip(times.seconds, others.seconds, strict=True)])


def check_same(measured: Mapping[str, Times], tolerance: float) -> None:
    """What is compared is the same: as many parameters, and the same loss but for the tolerance, a share of it.

    Raises: RuntimeError with both numbers of the first that differs.
    """
    (first, expected), *others = measured.items()
    for label, times in others:
        if times.parameters != expected.parameters or abs(times.loss / expected.loss - 1) > tolerance:
            raise RuntimeError(
                f"{first} and {label} are not the same: {expected.parameters:,} and {times.parameters:,} parameters, "
                f"losses of {expected.loss:.4g} and {times.loss:.4g} after {times.warm_up[0]} steps"
            )


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def machine(threads: int) -> str:
    """What it was measured on, in one paragraph."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    names, flags = re.findall(r"model name\s*:\s*(.+)", text), set(re.findall(r"\w+", text.partition("flags")[2]))
    model = "".join(f", model {number}" for number in re.findall(r"model\s*:\s*(\d+)", text)[:1])
    sets = " and ".join(name.upper() for name in INSTRUCTIONS if name in flags) or "vector instructions not known"
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = [package for package in PACKAGES if importlib.util.find_spec(package.removesuffix("-ppl")) is not None]
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in found)
    return (
        f"{names[0] if names else platform.machine()}{model} ({sets}), {os.cpu_count()} cores of which {threads} used, "
        f"{gigabytes:.0f} GiB; Python {platform.python_version()}, {versions}."
    )


def publish(name: str, title: str, tables: str, args: argparse.Namespace) -> None:
    """Print the tables; with ``--write`` also put them into docs/benchmarks.md, a table for each number of threads."""
    if args.threads > 1:
        name, title = f"{name}-{args.threads}", f"{title}, {args.threads} threads"
    rounds = f" {args.rounds} rounds." if args.rounds > 1 else ""
    print(text := f"## {title}\n\n{machine(args.threads)}{rounds}\n\n{tables}")
    if not args.write:
        return
    page, start, end = PAGE.read_text(), f"<!-- {name} -->", f"<!-- /{name} -->"
    if start not in page:
        page = f"{page.rstrip()}\n\n{start}\n{end}\n"
    before, _, rest = page.partition(start)
    PAGE.write_text(f"{before}{start}\n{text}\n{end}{rest.partition(end)[2]}")


def arguments(description: str, rounds: int = 15) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds, help="turns of each")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--write", action="store_true", help="also put the table into docs/benchmarks.md")
    parser.add_argument("--smoke", action="store_true", help="the least that there is, to see that it runs")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """A smoke run never writes."""
    args = parser.parse_args()
    args.write = args.write and not args.smoke
    return args


def matrix_product(turns: Turns, width: int) -> NoReturn:
    """What this file measures against itself."""
    import numpy as np

    x = np.eye(width, dtype=np.float32)
    while True:
        turns(float((x @ x).mean()))


def main() -> None:
    args = parse(arguments("A step against itself."))
    step = Contestant(matrix_product, {"width": 8 if args.smoke else 256}, ("numpy",))
    rounds, turn = (2, 0.02) if args.smoke else (args.rounds, 0.5)
    measured = compare({"one": step, "the other": step}, rounds, threads=args.threads, turn=turn)
    check_same(measured, tolerance=0.0)
    first, second = measured.values()
    noise = ratio(second, first)
    rows = [
        [label, f"{1e6 * times.median:.1f}", ratio(times, first), f"{statistics.median(times.cores):.2f}"]
        for label, times in measured.items()
    ]
    columns = ["process", "microseconds per step", "over the first (quartiles)", "CPU s per s"]
    publish("side_by_side", "A step against itself", markdown(columns, rows), args)
    print(f"seconds per step, one process over another: {noise.median:.2f}")


if __name__ == "__main__":
    serve(globals())
    main()
