"""Whether a compiled step stays as fast and as small as it began: ``pv.SVI`` after 10,000 more steps.

784-400-50, batches of 128. Two processes of the same compiled steps, one of them 10,000 steps ahead, by turns: the
machine drifts by more, over so many steps, than what is looked for. The last line is the ratio of their seconds.

    PYROVAE_DATA=~/data python examples/benchmarks/steady.py [--steps 10000] [--threads 1] [--write] [--smoke]
"""

from __future__ import annotations

import statistics
from typing import Any, NoReturn

import side_by_side as bench
from steps import pyrovae_svi


class Ahead:
    """Turns that begin after some steps."""

    def __init__(self, turns: bench.Turns, steps: int) -> None:
        self.turns, self.left, self.parameters = turns, steps, 0

    def __call__(self, loss: float) -> None:
        self.left -= 1
        if self.left < 0:
            self.turns(loss)


def ahead(turns: bench.Turns, steps: int, **size: Any) -> NoReturn:
    pyrovae_svi(Ahead(turns, steps), **size)  # type: ignore[arg-type]  # it is called as turns are


def main() -> None:
    parser = bench.arguments("Whether a step stays as fast.")
    parser.add_argument("--steps", type=int, default=10_000)
    args = bench.parse(parser)
    size = {"sizes": (784, 400, 50), "batch_size": 128, "compiled": not args.smoke}
    entered = {
        "compiled just now": bench.Contestant(ahead, {"steps": 0, **size}),
        f"after {args.steps:,} more steps": bench.Contestant(ahead, {"steps": 5 if args.smoke else args.steps, **size}),
    }
    warm_up = 5 if args.smoke else 100
    measured = bench.compare(entered, args.rounds, threads=args.threads, warm_up=warm_up, smoke=args.smoke)
    first, last = measured.values()
    rows = [
        [label, f"{1e3 * t.median:.3f}", bench.ratio(t, first), f"{statistics.median(t.memory):.0f}"]
        for label, t in measured.items()
    ]
    table = bench.markdown(["", "ms per step", "over the first (quartiles)", "resident memory, MB"], rows)
    bench.publish("steady", f"After {args.steps:,} compiled steps", table, args)
    print(f"seconds per step, last over first: {bench.ratio(last, first).median:.2f}")


if __name__ == "__main__":
    bench.serve(globals())
    main()
