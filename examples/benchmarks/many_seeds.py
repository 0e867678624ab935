"""Seconds of ten models from ten seeds: ``pv.fit`` ten times beside ``pv.fit_many``, which compiles once.

Two models: a spike-and-slab dictionary of 50 atoms for 100 features (the data of "Sparse but Wrong", an MLP of 128-128
in front, batches of 512, closed form), and a Bernoulli VAE of the digits (64-400-16, batches of 128). Everything is
counted: building, recording and compiling; there is no validation. The runs alone are pv.fit in one process, one after
the other, so that all but the first find compiled kernels in the cache of the compiler on the disk.

The last column is the largest difference of a weight between the two ways; 0 where both were compiled, or neither.

    python examples/benchmarks/many_seeds.py [--only dictionary] [--steps 1000,4000] [--seeds 10] [--alone 10]
        [--threads 1] [--compile] [--smoke]

``--alone 3`` trains three alone and multiplies their mean by the number of seeds. The last line is of the last row.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import pyrovae as pv

STEPS_PER_EPOCH = 10


def dictionary(seed: int) -> pv.VAE:
    return pv.build_vae((100,), 50, prior="spike-slab", likelihood="normal", network="dictionary", hidden=(128, 128))


def digits(seed: int) -> pv.VAE:
    return pv.build_vae((64,), 16, hidden=(400,))


def data_of(name: str) -> tuple[Callable[[int], pv.VAE], Tensor, int]:
    """A function that builds a model, its data and the rows of a batch."""
    if name == "digits":
        return digits, pv.data.digits().train.repeat(2, 1)[: 128 * STEPS_PER_EPOCH], 128
    source = pv.data.synthetic.SparseFeatures.sparse_but_wrong(seed=0)
    return dictionary, source.sample(512 * STEPS_PER_EPOCH, 1).data, 512


def settings_of(steps: int, batch_size: int, compile: bool | None) -> dict[str, Any]:
    return {
        "epochs": -(-steps // STEPS_PER_EPOCH),
        "batch_size": batch_size,
        "optim": pv.optim.adam(lr=1e-3),
        "compile": compile,
        "progress": False,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=("dictionary", "digits"))
    parser.add_argument("--steps", default="1000,4000", help="of each model")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--alone", type=int, default=10, help="models that are trained alone")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile", action="store_const", const=True, help="both from the third step on")
    parser.add_argument("--smoke", action="store_true", help="a test that all of it runs")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    steps = [20] if args.smoke else [int(number) for number in args.steps.split(",")]
    seeds, num_alone = (range(2), 1) if args.smoke else (range(args.seeds), args.alone)
    print(f"{len(seeds)} seeds, threads: {args.threads}")
    print(f"{'model':12} {'steps':>6} {'alone, s':>9} {'fit_many, s':>12} {'ratio':>6} {'difference':>11}")
    for name in [args.only] if args.only else ["dictionary", "digits"]:
        make, x, batch_size = data_of(name)
        for number in steps:
            start = time.perf_counter()
            many = pv.fit_many(make, x, seeds, **settings_of(number, batch_size, args.compile))
            together, difference = time.perf_counter() - start, 0.0
            start = time.perf_counter()
            for seed in range(num_alone):
                torch.manual_seed(seed)
                vae = make(seed)
                pv.fit(vae, x, seed=seed, **settings_of(number, batch_size, args.compile))
                pairs = zip(vae.parameters(), many.vaes[seed].parameters(), strict=True)
                difference = max(difference, *((a - b).abs().max().item() for a, b in pairs))
            alone = (time.perf_counter() - start) * len(seeds) / num_alone
            ratio = together / alone
            print(f"{name:12} {number:6} {alone:9.1f} {together:12.1f} {ratio:6.2f} {difference:11.2g}", flush=True)
    print(f"seconds, fit_many over as many runs of fit: {ratio:.2f}")


if __name__ == "__main__":
    main()
