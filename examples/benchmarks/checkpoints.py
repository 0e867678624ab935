"""What a checkpoint every 100 steps costs: the default model on images of MNIST's size, in milliseconds per step.

    python examples/benchmarks/checkpoints.py --steps 600

Runs with and without checkpoints take turns. Each epoch is so many steps; the first of each run is not counted. The
last line is the share that checkpoints add to the time of a step, with the one at the end of each epoch.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from pathlib import Path

import torch

import pyrovae as pv


def seconds_of_an_epoch(x: torch.Tensor, epochs: int, folder: Path | None, compiled: bool) -> float:
    torch.manual_seed(0)
    vae = pv.build_vae((784,), 16)
    callbacks = [] if folder is None else [pv.train.Checkpoint(folder, every_steps=100, every_minutes=None)]
    history = pv.fit(vae, x, epochs, seed=0, progress=False, compile=compiled, callbacks=callbacks)
    ends = history["seconds"]
    return min(later - sooner for sooner, later in itertools.pairwise(ends))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    steps, rounds = (100, 1) if args.smoke else (args.steps, args.rounds)
    x = torch.bernoulli(torch.full((steps * 128, 784), 0.2))
    without, having = [], []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            without.append(seconds_of_an_epoch(x, 4, None, not args.no_compile and not args.smoke) / steps)
            path = Path(folder) / str(number)
            having.append(seconds_of_an_epoch(x, 4, path, not args.no_compile and not args.smoke) / steps)
    a, b = 1e3 * statistics.median(without), 1e3 * statistics.median(having)
    print(f"without checkpoints {a:.3f} ms per step, with them {b:.3f} ms")
    print(f"cost of a checkpoint every 100 steps: {100 * (b / a - 1):.1f} %")


if __name__ == "__main__":
    main()
