"""Whether a compiled step stays as fast and as small as it began: ``pv.SVI`` over 10,000 steps.

784-400-50, batches of 128. The first turn begins where the warm-up of 100 steps, compilation included, has ended. Each
turn is a fiftieth of the steps; the first five and the last five are compared, in seconds per step and in resident
memory. The last line is the ratio of their medians.

    PYROVAE_DATA=~/data python examples/benchmarks/steady.py [--steps 10000] [--threads 1] [--write] [--smoke]
"""

from __future__ import annotations

import statistics

import side_by_side as bench
from steps import pyrovae_svi

TURNS = 50


def main() -> None:
    parser = bench.arguments("Whether a step stays as fast.", rounds=TURNS)
    parser.add_argument("--steps", type=int, default=10_000)
    args = bench.parse(parser)
    size = {"sizes": (784, 400, 50), "batch_size": 128, "compiled": not args.smoke}
    steps, warm_up = args.steps // args.rounds, 5 if args.smoke else 100
    one = {"pyrovae": bench.Contestant(pyrovae_svi, size)}
    measured = bench.compare(one, args.rounds, threads=args.threads, warm_up=warm_up, steps=steps, smoke=args.smoke)
    times = measured["pyrovae"]
    first, last = (statistics.median(turns) for turns in (times.seconds[:5], times.seconds[-5:]))
    rows = [
        ["ms per step", f"{1e3 * first:.3f}", f"{1e3 * last:.3f}"],
        ["resident memory, MB", *(f"{statistics.median(m):.0f}" for m in (times.memory[:5], times.memory[-5:]))],
    ]
    table = bench.markdown(["", "first five turns", "last five turns"], rows)
    bench.publish("steady", f"After {args.steps:,} compiled steps", table, args)
    print(f"seconds per step, last over first: {last / first:.2f}")


if __name__ == "__main__":
    bench.serve(globals())
    main()
