"""What a checkpoint every 100 steps costs: the default model on images of MNIST's size, in milliseconds per step.

    python examples/benchmarks/checkpoints.py --pairs 10

One run takes turns: 400 steps without checkpoints, then 400 steps with four of them, each written well before the turn
ends. The last lines are the share that checkpoints add to the time of a step: the median over the pairs, and the
quartiles. Processor time is that of all threads: it is the cost where no core is idle, and other processes hardly
change it.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path

import torch

import pyrovae as pv

EVERY, TURN = 100, 400  # steps


class Turns(pv.train.Checkpoint):
    """Writes checkpoints in every other turn; ``seconds`` has those of each turn, by the clock and of the processor."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, every_minutes=None)
        self.seconds: list[tuple[float, float]] = []
        self.start = math.nan, math.nan

    def on_step_end(self, run: pv.train.Run) -> None:
        turn, place = divmod(run.step, TURN)
        if place == 0:
            now = time.perf_counter(), time.process_time()
            self.seconds.append((now[0] - self.start[0], now[1] - self.start[1]))
            self.start = now
        self.every_steps = 1 if turn % 2 and place % EVERY == EVERY // 2 else None
        super().on_step_end(run)

    def on_epoch_end(self, run: pv.train.Run) -> None:
        """The checkpoint of the end of an epoch would be written in the turn that has none."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    pairs = 1 if args.smoke else args.pairs
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    vae = pv.build_vae((784,), 16)
    x = torch.bernoulli(torch.full((TURN * 128, 784), 0.2))
    with tempfile.TemporaryDirectory() as folder:
        turns = Turns(Path(folder) / "run")
        compiled = not (args.no_compile or args.smoke)
        pv.fit(vae, x, 2 * pairs + 2, seed=0, progress=False, compile=compiled, callbacks=[turns])
    without, having = turns.seconds[2::2], turns.seconds[3::2]  # the first two warm up
    for i, what in enumerate(("by the clock", "in processor time")):
        a, b = (1e3 * statistics.median(each[i] for each in seconds) / TURN for seconds in (without, having))
        print(f"{what}, {args.threads} threads: {a:.3f} ms per step without checkpoints, {b:.3f} ms with them")
        costs = [100 * (b[i] / a[i] - 1) for a, b in zip(without, having, strict=True)]
        low, middle, high = statistics.quantiles(costs, n=4) if len(costs) > 1 else costs * 3
        print(f"cost of a checkpoint every {EVERY} steps, {what}: {middle:.1f} % ({low:.1f} to {high:.1f} %)")


if __name__ == "__main__":
    main()
