"""What networks in bfloat16 cost in nats, and gain in seconds: ``pv.fit(precision=torch.bfloat16)``.

784-400-50 both ways on MNIST, Adam at 1e-3, batches of 128, the same seeds for both; densities, sums and parameters are
float32 in both. The ELBO is that of the test set, its networks in float32, the mean over the seeds with their range.
Seconds are of a training step, all but compilation. The last line is the difference of the means.

    PYROVAE_DATA=~/data python examples/benchmarks/precision.py [--epochs 10] [--seeds 3] [--write] [--smoke]
"""

from __future__ import annotations

import statistics
from itertools import pairwise

import pyro
import side_by_side as bench
import torch
from models import images

import pyrovae as pv


def run(seed: int, epochs: int, num_data: int, precision: torch.dtype | None) -> tuple[float, float]:
    """The test ELBO, nats per datum, and the seconds of the fastest epoch."""
    x = images(num_data + num_data // 5)
    torch.manual_seed(seed)
    vae = pv.build_vae((784,), 50, hidden=(400,))
    optim = pyro.optim.Adam({"lr": 1e-3})
    history = pv.fit(vae, x[:num_data], epochs, 128, optim, seed=seed, progress=False, precision=precision)
    torch.manual_seed(seed)
    elbo = pv.metrics.elbo(vae, x[num_data:], num_samples=10).elbo.mean().item()
    ends = [0.0, *history["seconds"]]
    return elbo, min(end - start for start, end in pairwise(ends))


def main() -> None:
    parser = bench.arguments("What bfloat16 costs and gains.", rounds=1)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    args = bench.parse(parser)
    if args.smoke:
        args.epochs, args.seeds = 1, 1
    torch.set_num_threads(args.threads)
    num_data = 300 if args.smoke else 50_000
    rows, means = [], []
    runs: dict[str, list[tuple[float, float]]] = {"float32": [], "bfloat16": []}
    for seed in range(args.seeds):
        for name, done in runs.items():
            done.append(run(seed, args.epochs, num_data, None if name == "float32" else torch.bfloat16))
    for name, done in runs.items():
        elbos, seconds = zip(*done, strict=True)
        means.append(statistics.fmean(elbos))
        span = f"{means[-1]:.2f} ({min(elbos):.2f} to {max(elbos):.2f})"
        rows.append([name, span, f"{1e3 * statistics.median(seconds) / -(-num_data // 128):.2f}"])
    table = bench.markdown(["networks in", "test ELBO, nats (range)", "ms per step"], rows)
    bench.publish("precision", f"bfloat16, {args.epochs} epochs", table, args)
    print(f"test ELBO, bfloat16 less float32: {means[1] - means[0]:.3f} nats")


if __name__ == "__main__":
    main()
