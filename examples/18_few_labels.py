r"""Few labels: a classifier reads codes that were learned from 50,000 digits without labels.

A VAE with a Normal prior and one with a spike-and-slab prior are trained on the bits of MNIST, 784-400-32 and back, 20
epochs. Then scikit-learn's logistic regression learns the ten classes from 10, 100 and 1,000 labelled digits: from the
784 pixels, from 32 principal components of all training digits, and from the codes. ``pv.metrics.probe_accuracy`` draws
the labelled rows 20 times, as many of each class as of the others.

The table has the share of the 10,000 test digits that is classified right, with its standard deviation over the draws.

With --out the picture shows it.

The last line is the accuracy with 100 labels, codes under the Normal prior minus pixels.

    PYROVAE_DATA=~/data python examples/18_few_labels.py [--smoke] [--out few_labels.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from sklearn.decomposition import PCA
from torch import Tensor

import pyrovae as pv

LATENT_DIM = 32
Table = dict[str, dict[int, tuple[float, float]]]  # of features and number of labels: mean and standard deviation


def main() -> None:
    parser = argparse.ArgumentParser(description="Logistic regression of few labels, on codes and on pixels of MNIST.")
    parser.add_argument("--smoke", action="store_true", help="two epochs of 8x8 digits, to see that it runs")
    parser.add_argument("--out", type=Path, help="where to draw the accuracies, a .png")
    args = parser.parse_args()
    data = pv.data.digits() if args.smoke else pv.data.mnist()
    epochs, draws, counts = (2, 2, (10, 100)) if args.smoke else (20, 20, (10, 100, 1000))

    pca = PCA(LATENT_DIM, random_state=0).fit(data.train)
    features = {
        f"{data.train.shape[1]} pixels": (data.train, data.test),
        f"{LATENT_DIM} principal components": tuple(torch.as_tensor(pca.transform(x)) for x in (data.train, data.test)),
    }
    for prior in ("normal", "spike-slab"):
        vae = trained(data, prior, epochs)
        features[f"{LATENT_DIM} codes, {prior}"] = (vae.encode(data.train), vae.encode(data.test))

    print(f"{'right, %':<26}" + "".join(f"{num:>11} labels" for num in counts))
    table: Table = {}
    for name, (train, test) in features.items():
        table[name] = {num: accuracy(data, train, test, num, draws) for num in counts}
        print(f"{name:<26}" + "".join(f"{100 * mean:>11.1f} ± {100 * sd:<4.1f}" for mean, sd in table[name].values()))
    if args.out is not None:
        draw(table, args.out)
    pixels, _, normal, _ = (row[100][0] for row in table.values())
    print(f"accuracy with 100 labels, codes minus pixels: {100 * (normal - pixels):.1f} points")


def trained(data: pv.data.Data, prior: str, epochs: int) -> pv.VAE:
    torch.manual_seed(0)
    vae = pv.build_vae(data.event_shape, LATENT_DIM, prior=prior, hidden=(400,))
    beta = pv.warmup(0.7 * epochs) if prior == "spike-slab" else 1.0
    pv.fit(vae, data, epochs=epochs, loss=pv.ELBO(beta=beta), seed=0, progress=False)
    return vae


def accuracy(data: pv.data.Data, train: Tensor, test: Tensor, num: int, draws: int) -> tuple[float, float]:
    """Mean and standard deviation over draws of the labelled rows."""
    labels = data.labels
    probe = pv.metrics.probe_accuracy(train, labels["train"], test, labels["test"], num, draws)
    return probe.accuracy, probe.standard_error * draws**0.5


def draw(table: Table, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), dpi=100, layout="constrained")
    axes = figure.subplots()
    for name, row in table.items():
        means, deviations = zip(*row.values(), strict=True)
        axes.errorbar(
            list(row), [100 * m for m in means], [100 * d for d in deviations], marker="o", capsize=3, label=name
        )
    axes.set_xscale("log")
    axes.set(xlabel="labelled digits", ylabel="right, % of the test digits")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
