"""Spike-and-slab beside the Normal on MNIST: what sparsity costs, in nats and in seconds, over several seeds.

Each model is what the command line makes of ``--prior``, 784-400-400-64 both ways, batches of 128, Adam at 1e-3,
dynamic binarisation. A fresh process trains each, the two priors in turn, so that both meet the same load of the
machine. The table has, for each prior, the mean over seeds and the range from least to most:

- ELBO: on the official test set, gates hard, in nats per datum;
- zeros: the share of the numbers of a draw z ~ q(z|x) that are exactly zero;
- in use: how many of the 64 coordinates are not zero in at least one code in 200;
- seconds: of an epoch, validation included.

The last line is the seconds of the spike-and-slab over those of the Normal, the median over the seeds.

    PYROVAE_DATA=~/data python examples/benchmarks/spike_slab_mnist.py [--epochs 10] [--seeds 3] [--smoke]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import pyrovae as pv

PRIORS = ("normal", "spike-slab")


def main() -> None:
    parser = argparse.ArgumentParser(description="Spike-and-slab and Normal priors on MNIST over seeds.")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--smoke", action="store_true", help="one epoch of digits, to see that it runs")
    args = parser.parse_args()
    data, epochs, seeds = ("digits", 1, 1) if args.smoke else ("mnist", args.epochs, args.seeds)

    rows: dict[str, list[dict[str, float]]] = {prior: [] for prior in PRIORS}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            for prior in PRIORS:
                rows[prior].append(train(data, prior, epochs, seed, Path(folder) / f"{prior}-{seed}"))
    print(f"{data}, {epochs} epochs, {seeds} seeds, {torch.get_num_threads()} threads")
    print(f"{'prior':<12}" + "".join(f"{column:>28}" for column in rows["normal"][0]))
    for prior, measured in rows.items():
        print(f"{prior:<12}" + "".join(f"{band([row[column] for row in measured]):>28}" for column in measured[0]))
    pairs = zip(rows["spike-slab"], rows["normal"], strict=True)
    ratio = statistics.median(sparse["seconds"] / normal["seconds"] for sparse, normal in pairs)
    print(f"seconds per epoch, spike-slab over normal: {ratio:.2f}")


def train(data: str, prior: str, epochs: int, seed: int, run: Path) -> dict[str, float]:
    """One run of the command line, measured."""
    options = {"prior": prior, "epochs": epochs, "seed": seed, "hidden": "400,400", "latent-dim": 64, "num-samples": 10}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "pyrovae", "fit", data, *words, "--out", str(run)]
    subprocess.run(command, check=True, capture_output=True)
    numbers = json.loads((run / "metrics.json").read_text())
    seconds = float((run / "history.csv").read_text().split()[-1].split(",")[-1]) / epochs
    vae, test = pv.load(run), pv.data.load(data, binarize="dynamic", seed=seed).test
    torch.manual_seed(seed)
    with torch.no_grad():
        zeros = torch.cat([(vae.posterior.distribution(x).sample() == 0).float() for x in test.split(1000)])
    return {
        "ELBO": numbers["elbo"],
        "zeros": zeros.mean().item(),
        "in use": int((zeros.mean(0) < 0.995).sum()),
        "seconds": seconds,
    }


def band(values: list[float]) -> str:
    """Mean, least and most."""
    return f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
