r"""Adversarial autoencoders on MNIST under two priors that need no density: spike-and-slab, and a spiral.

.. math:: -E\left[\log p(x \mid z)\right] + \lambda\, D\left(q(z), p(z)\right)

A critic of codes takes the place of the KL and only ever sees draws. The spike-and-slab prior has a density, which
is not used; the spiral of the plane is a function that draws, ``pv.adversarial.Sampler``, and nothing else.

Whether codes follow the prior is a two-sample test: codes of 500 test digits, one draw of q(z|x) each, against 500
draws of the prior, by the maximum mean discrepancy and 999 permutations, before training and after. The digits are
drawn at random, for the first half of the test set is the cleaner one. Then 10,000 draws of the prior are decoded, and
a classifier that is right about 98 % of real digits or more says which digits they are.

The weight of the critic grows over the run: at first the autoencoder finds digits, then its codes are laid along the
prior.

With --out the picture shows codes over draws of the prior, and decoded draws.

The last line is the p-value after training, the less of the two priors'; before, both are 0.001, the least there is.

    PYROVAE_DATA=~/data python examples/11_adversarial_autoencoder.py [--smoke] [--out adversarial_autoencoder.png]
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from digit_probe import print_shares, trained_probe
from torch import Tensor, nn

import pyrovae as pv
from pyrovae.adversarial import NonSaturating, Sampler, Shrunk
from pyrovae.optim import adam, cosine
from pyrovae.train import History

NUM_CODES = 500
FIRST, LAST = 2.0, 1000.0  # weight of the critic, in nats per datum


def spiral(num: int) -> Tensor:
    """Points about an arm that turns one and a half times, (num, 2); as many on each length of it."""
    angle = 3 * math.pi * torch.rand(num).sqrt()
    return torch.stack([angle.cos(), angle.sin()], 1) * angle[:, None] + torch.randn(num, 2)


def over_spike_slab(size: int) -> pv.AdversarialAutoencoder:
    return pv.AdversarialAutoencoder(
        prior=pv.priors.SpikeSlab(6, active=0.5, scale=3.0),
        likelihood=pv.likelihoods.Bernoulli(pv.nn.MLP(6, [256, 256, 256], size)),
        guide=Shrunk(pv.nn.MLP(size, [256, 256, 256]), 6, threshold=0.5),
        critic=pv.nn.MLP(6, [256, 256], 1),
    )


def over_spiral(size: int) -> pv.AdversarialAutoencoder:
    guide = pv.guides.Normal(pv.nn.MLP(size, [512, 256, 256]), 2)
    guide.head.bias.data[2:] = -1.0  # of scales, which start within the width of the arm
    return pv.AdversarialAutoencoder(
        prior=Sampler(spiral, 2),
        likelihood=pv.likelihoods.Bernoulli(pv.nn.MLP(2, [256, 256, 512], size)),
        guide=guide,
        critic=pv.nn.MLP(2, [256, 256], 1),
    )


MODELS = {"spike-and-slab": over_spike_slab, "spiral": over_spiral}
SLOPE_PENALTY = {"spike-and-slab": 0.1, "spiral": 0.5}
BATCH = 128


def train(name: str, model: pv.AdversarialAutoencoder, data: pv.data.Data, epochs: int, seed: int) -> float:
    """Seconds. The weight of the critic grows by one factor over four fifths of the run, the learning rates fall."""

    def grow(_: nn.Module, epoch: int, history: History) -> None:
        model.weight = FIRST * (LAST / FIRST) ** min(epoch / (0.8 * epochs), 1.0)

    model.weight = FIRST
    rest, critic = (adam(lr=cosine(lr, epochs), betas=(0.5, 0.99)) for lr in (1e-3, 2e-3))
    history = pv.fit(
        model,
        data,
        epochs=epochs,
        batch_size=BATCH,
        optim=(rest, critic),
        loss=NonSaturating(SLOPE_PENALTY[name]),
        callbacks=[grow],
        seed=seed,
        progress=False,
    )
    return history["seconds"][-1]


def main() -> None:
    parser = argparse.ArgumentParser(description="Adversarial autoencoders on MNIST.")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0, help="of the weights, the order and the draws of training")
    parser.add_argument("--smoke", action="store_true", help="one epoch of 8x8 digits, to see that it runs")
    parser.add_argument("--out", type=Path, help="where to draw the picture, a .png")
    args = parser.parse_args()
    load = pv.data.digits if args.smoke else pv.data.mnist
    data, grey = load(binarize="dynamic"), load(binarize=None)  # the same splits
    epochs, num_samples = (1, 500) if args.smoke else (args.epochs, 10_000)

    classify, accuracy = trained_probe(grey, 2 if args.smoke else 4)
    print(f"the probe is right about {accuracy:.1%} of {len(grey.test)} test digits")
    models, p_values, coverages = {}, [], {}
    for name, make in MODELS.items():
        torch.manual_seed(args.seed)
        models[name] = model = make(data.train.shape[1])
        before = compared(model, data.test)
        seconds = train(name, model, data, epochs, args.seed)
        after = compared(model, data.test)
        p_values.append(after.p_value)
        error = pv.metrics.mean_squared_error(model, data.test).mean()
        print(
            f"{name}: {seconds:.0f} seconds, squared error of a pixel {error:.4f}; squared MMD of codes "
            f"and prior {before.squared_mmd:.4f} (p = {before.p_value:.3f}) before, {after.squared_mmd:.4f} "
            f"(p = {after.p_value:.3f}) after"
        )
        torch.manual_seed(0)
        coverages[name] = pv.metrics.class_coverage(classify, model.decode(model.sample_prior(num_samples)))
    zeros = [pv.metrics.exact_zeros(z).item() for z in codes(models["spike-and-slab"], data.test)]
    print(f"exact zeros: {zeros[0]:.1%} of the codes, {zeros[1]:.1%} of the prior's draws")
    print(f"{'share of digit':<18}" + "".join(f"{digit:>7}" for digit in range(10)) + f"{'KL':>9}")
    for name, coverage in coverages.items():
        print_shares(name, coverage)
    if args.out is not None:
        draw(models, data, args.out)
    print(f"p-value of trained codes, the less: {min(p_values):.3f}")


def codes(model: pv.AdversarialAutoencoder, x: Tensor) -> tuple[Tensor, Tensor]:
    """One draw of q(z|x) for each row, and as many of p(z)."""
    torch.manual_seed(0)
    return pv.metrics.codes(model, x, "sample"), model.sample_prior(len(x))


def compared(model: pv.AdversarialAutoencoder, x: Tensor) -> pv.metrics.MMDTest:
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:NUM_CODES]
    return pv.metrics.mmd_test(*codes(model, x[rows]))


def draw(models: dict[str, pv.AdversarialAutoencoder], data: pv.data.Data, path: Path) -> None:
    """Codes of the plane over the prior; the shares and sizes of sparse ones; decoded draws of both."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 7.2), dpi=90, layout="constrained")
    axes = figure.subplots(2, 2, height_ratios=(1.6, 1.0))
    z, prior = codes(models["spiral"], data.test[:4000])
    axes[0, 0].plot(*prior.T, ".", color="0.8", markersize=2, label="draws of the prior")
    points = axes[0, 0].scatter(*z.T, c=data.labels["test"][: len(z)], cmap="tab10", s=2, vmin=-0.5, vmax=9.5)
    axes[0, 0].set(xlabel="first coordinate", ylabel="second coordinate", title="spiral: codes of test digits")
    axes[0, 0].legend(frameon=False, fontsize=8, loc="upper left")
    figure.colorbar(points, ax=axes[0, 0], label="digit", ticks=range(10))

    z, prior = codes(models["spike-and-slab"], data.test[:4000])
    for values, color, label in ((prior, "0.75", "prior"), (z, "C0", "codes")):
        shares = values[values != 0]
        bins = {"bins": 80, "range": (-10, 10), "density": True, "histtype": "step"}
        axes[0, 1].hist(shares.numpy(), color=color, label=label, **bins)
    axes[0, 1].set(
        xlabel="coordinate that is not zero", ylabel="density", title="spike-and-slab: what is not exactly zero"
    )
    axes[0, 1].legend(frameon=False, fontsize=8)
    for panel, name in zip(axes[1], ("spiral", "spike-and-slab"), strict=True):
        torch.manual_seed(0)
        x = models[name].decode(models[name].sample_prior(60)).reshape(5, 12, *data.image_shape[1:])
        mosaic = nn.functional.pad(x, (1, 1, 1, 1)).permute(0, 2, 1, 3).flatten(0, 1).flatten(1)
        panel.imshow(mosaic.numpy(), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        panel.set_title(f"{name}: decoded draws of the prior", fontsize=10)
        panel.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
