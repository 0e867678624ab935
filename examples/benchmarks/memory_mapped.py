"""Data that do not fit in memory: how soon a resumed run goes on, what memory it holds, and what an epoch costs.

A sparse file of 20 GB of zeros, which takes no space on the disk, is trained on until the middle of an epoch. Another
process resumes the run. Its seconds are those until the end of its first step: of the whole process, imports included,
and of reading the split and of ``fit`` alone, with their CPU seconds. Memory is the most that was resident, steps after
the first included, and the part of it that is not of files (RssAnon). Then epochs of 50,000 rows of 784 numbers
alternate between a tensor, a file of float32 and a file of uint8, in one process. The file of zeros needs no disk, so
that its seconds say nothing of a disk. The last line is the ratio of the seconds of float32 to those of the tensor.

    python examples/benchmarks/memory_mapped.py [--gigabytes 20] [--done 0.5] [--rounds 5] [--write] [--smoke]
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import side_by_side as bench
import torch

import pyrovae as pv

WIDTH = 784
BATCH, LARGE_BATCH = 128, 1024  # of the epochs, and of the run that is resumed


def sparse_file(path: Path, num_bytes: int) -> None:
    """A file of zeros."""
    num_rows = num_bytes // (4 * WIDTH)
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (num_rows, WIDTH)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + num_rows * 4 * WIDTH)


class Stop(pv.train.Callback):
    """Ends a run by SIGINT at a step, and keeps the time of the first step."""

    def __init__(self, step: int) -> None:
        self.step, self.first, self.cpu, self.first_step = step, 0.0, 0.0, 0

    def on_step_end(self, run: pv.train.Run) -> None:
        if not self.first:
            self.first, self.cpu, self.first_step = time.time(), time.process_time(), run.step
        if run.step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


class Memory(threading.Thread):
    """The most resident memory, in GB, looked at every 5 ms: all of it, and that which is not of files."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = {"VmRSS": 0.0, "RssAnon": 0.0}

    def run(self) -> None:
        while True:
            with open("/proc/self/status") as file:
                now = {name: text.split() for name, _, text in (line.partition(":") for line in file)}
            self.most = {name: max(most, int(now[name][0]) * 1024 / 1e9) for name, most in self.most.items()}
            time.sleep(0.005)


def train(path: str, out: str, until: int, began: float) -> None:
    """Train, or go on, until a step; print what was measured."""
    memory, stop, start, imported = Memory(), Stop(until), time.time(), time.process_time()
    memory.start()
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a process in the background ignores
    torch.manual_seed(0)
    data = pv.data.load(path, on_disk=True)
    vae = pv.build_vae((WIDTH,), 4, likelihood="normal", hidden=(16,))
    try:
        pv.fit(
            vae, data, 2, LARGE_BATCH, seed=0, progress=False, compile=False, out=out, resume=True, callbacks=[stop]
        )  # fmt: skip
    except KeyboardInterrupt:
        seconds = {"process": stop.first - began, "fit": stop.first - start, "cpu": stop.cpu - imported}
        print(json.dumps({**seconds, "at": stop.first_step, **memory.most}))


def in_process(*args: object) -> dict[str, float]:
    command = [sys.executable, __file__, "--train", *map(str, args), str(time.time())]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def resumed(folder: Path, num_bytes: int, done: float) -> tuple[int, dict[str, float], dict[str, float]]:
    """A run that is ended in the middle of an epoch, and what goes on with it."""
    path = folder / "zeros.npy"
    sparse_file(path, num_bytes)
    steps = len(pv.data.load(path, on_disk=True).train) // LARGE_BATCH
    until = int(done * steps)
    first = in_process(path, folder / "run", until)
    second = in_process(path, folder / "run", until + min(300, steps // 4))
    path.unlink()
    return steps, first, second


def seconds_of_an_epoch(data: torch.Tensor | pv.data.OnDisk, compiled: bool) -> float:
    torch.manual_seed(0)
    vae = pv.build_vae((WIDTH,), 16)
    history = pv.fit(vae, data, 4, BATCH, seed=0, progress=False, compile=compiled)
    return min(later - sooner for sooner, later in itertools.pairwise(history["seconds"]))


def main() -> None:
    parser = bench.arguments("Data that do not fit in memory.", rounds=5)
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument("--done", type=float, default=0.5, help="share of an epoch that is done before")
    args = bench.parse(parser)
    torch.set_num_threads(args.threads)
    num_bytes, num_rows = (20_000_000, 2000) if args.smoke else (int(args.gigabytes * 1e9), 50_000)
    with tempfile.TemporaryDirectory() as name:
        steps, first, second = resumed(Path(name), num_bytes, args.done)
        rows = [
            [f"begun, until step {int(args.done * steps):,} of {steps:,}", *_cells(first)],
            [f"resumed at step {second['at']:,.0f}", *_cells(second)],
        ]
        columns = ["run", "s to its first step", "without imports", "CPU s", "GB resident", "GB without files"]
        table = bench.markdown(columns, rows)
        x = (torch.rand(num_rows, WIDTH) < 0.2).float()
        np.save(Path(name) / "float32.npy", x.numpy())
        np.save(Path(name) / "uint8.npy", x.to(torch.uint8).numpy())
        sources = {"tensor": x} | {kind: pv.data.OnDisk(Path(name) / f"{kind}.npy") for kind in ("float32", "uint8")}
        seconds: dict[str, list[float]] = {kind: [] for kind in sources}
        for _ in range(args.rounds if not args.smoke else 1):
            for kind, source in sources.items():
                seconds[kind].append(seconds_of_an_epoch(source, compiled=not args.smoke))
    ratios = {k: bench.Band.of([a / b for a, b in zip(s, seconds["tensor"], strict=True)]) for k, s in seconds.items()}
    names = {"tensor": "a tensor in memory", "float32": "a file of float32", "uint8": "a file of uint8"}
    rows = [[names[k], f"{statistics.median(s):.3f}", str(ratios[k])] for k, s in seconds.items()]
    epochs = bench.markdown([f"{num_rows:,} rows of {WIDTH} in", "s per epoch", "over the tensor (quartiles)"], rows)
    title = f"Data that do not fit in memory, {num_bytes / 1e9:g} GB"
    bench.publish("memory_mapped", title, f"{table}\n\n{epochs}", args)
    print(f"seconds per epoch, on the disk over in memory: {ratios['float32'].median:.3f}")


def _cells(measured: dict[str, float]) -> list[str]:
    return [f"{measured[name]:.2f}" for name in ("process", "fit", "cpu", "VmRSS", "RssAnon")]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        path, out, until, began = sys.argv[2:]
        train(path, out, int(until), float(began))
    else:
        main()
