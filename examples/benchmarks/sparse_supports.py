"""What supports that vary from datum to datum cost under a nonlinear decoder, on MNIST: nats against Jaccard distance.

Every model has the same networks (784-400-code and back), batches of 128, Adam at 2e-3 with a cosine to 0, dynamic
binarisation and number of epochs; only the prior, its guide and the number of latents differ. The table has

- ELBO: on the official test set, in nats per datum, the KL exact, ten draws of z;
- zeros: the share of numbers that are exactly zero, of the codes ``vae.encode(x)``, and of draws from q(z|x);
- Jaccard: the mean distance of the supports of two codes, of two draws, and of two codes with one label;
- most on: the share of data in which the coordinate that is on most is on, in codes;
- units: latents whose codes vary over the data, by more than 0.01 in variance.

The picture is the frontier: the ELBO against the Jaccard distance of codes. The last line is the ELBO of the Normal
less that of the fan of 12 rays, the first seed.

    PYROVAE_DATA=~/data python examples/benchmarks/sparse_supports.py [--epochs 30] [--seeds 1] [--out supports.png]
"""

from __future__ import annotations

import argparse
import statistics

import matplotlib.pyplot as plt
import torch

import pyrovae as pv

MODELS = {  # prior: latents
    "normal": 64,
    "fan:rays=12": 144,
    "spike-slab": 64,
    "rectified-normal:loc=0.0:scale=1.0": 64,
    "rectified-normal:loc=-1.28:scale=1.0": 256,
    "fan:rays=24": 288,
}
SMOKE = ("normal", "fan:rays=12", "rectified-normal:loc=0.0:scale=1.0")
COLUMNS = ("ELBO", "KL", "zeros", "of draws", "Jaccard", "of draws", "one label", "most on", "units", "seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description="ELBO against variety of supports, on MNIST.")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS), metavar="PRIOR")
    parser.add_argument("--out", help="the picture, a .png")
    parser.add_argument("--smoke", action="store_true", help="one epoch of digits, to see that it runs")
    args = parser.parse_args()
    name, epochs, models = ("digits", 1, SMOKE) if args.smoke else ("mnist", args.epochs, args.models)

    print(f"{name}, {epochs} epochs, {args.seeds} seeds\n{'prior':<38}" + "".join(f"{c:>11}" for c in COLUMNS))
    rows: dict[str, list[list[float]]] = {}
    for prior in models:
        rows[prior] = []
        for seed in range(args.seeds):
            rows[prior].append(train(name, prior, epochs, seed))
            print(f"{prior:<38}" + "".join(f"{number:>11.3f}" for number in rows[prior][-1]), flush=True)
    if args.out:
        frontier(rows, args.out)
    if {"normal", "fan:rays=12"} <= set(models):
        print(f"ELBO, Normal minus fan: {rows['normal'][0][0] - rows['fan:rays=12'][0][0]:.2f} nats per datum")


def train(name: str, prior: str, epochs: int, seed: int) -> list[float]:
    """One model, trained and measured."""
    data = pv.data.load(name, binarize="dynamic", seed=seed)
    torch.manual_seed(seed)
    vae = pv.build_vae(data.train.shape[1:], MODELS[prior], prior)
    beta = pv.warmup(min(14.0, 0.8 * epochs)) if prior == "spike-slab" else 1.0  # as the command line has it
    optim = pv.optim.adam(lr=pv.optim.cosine(2e-3, epochs))
    history = pv.fit(vae, data, epochs, optim=optim, loss=pv.ELBO(beta=beta), seed=seed, progress=False)

    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        bound = pv.metrics.elbo(vae, data.test, num_samples=10)
        codes = vae.encode(data.test)
        draws = torch.cat([vae.posterior.distribution(x).sample() for x in data.test.split(1000)])
    varied = pv.metrics.support_variety(codes, data.labels["test"])
    return [
        bound.elbo.mean().item(),
        bound.kl.mean().item(),
        pv.metrics.exact_zeros(codes).item(),
        pv.metrics.exact_zeros(draws).item(),
        varied.jaccard,
        pv.metrics.support_variety(draws).jaccard,
        varied.within or 0.0,
        pv.metrics.supports(codes).density.max().item(),
        int((codes.var(0) > 0.01).sum()),
        history["seconds"][-1],
    ]


def frontier(rows: dict[str, list[list[float]]], out: str) -> None:
    """The picture: a point for each model, the mean over its seeds."""
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for prior, seeds in rows.items():
        elbo, jaccard = (statistics.mean(row[i] for row in seeds) for i in (0, 4))
        axes.plot(jaccard, elbo, "o", color={"f": "C1", "n": "C0", "s": "C2", "r": "C3"}[prior[0]])
        axes.annotate(f"{prior.removesuffix(':scale=1.0')}, {MODELS[prior]}", (jaccard, elbo), (5, 5),
                      textcoords="offset points", fontsize=8, ha="left" if jaccard < 0.5 else "right")  # fmt: skip
    axes.set(xlabel="mean Jaccard distance of two supports", ylabel="test ELBO, nats per datum", xlim=(-0.05, 1.05))
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
