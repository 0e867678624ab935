r"""Adversarial autoencoders on MNIST under two priors that need no density: spike-and-slab, and a spiral.

.. math:: -E\left[\log p(x \mid z)\right] + \lambda\, D\left(q(z), p(z)\right)

A critic of codes takes the place of the KL and only ever sees draws. The spike-and-slab prior has a density, which
is not used; the spiral of the plane is a function that draws, ``pv.adversarial.Sampler``, and nothing else.

Whether codes follow the prior is a two-sample test: 500 codes of test digits, one draw of q(z|x) each, against 500
draws of the prior, by the maximum mean discrepancy and 999 permutations, before training and after. Then 10,000 draws
of the prior are decoded, and a classifier that is right about 98 % of real digits or more says which digits they are.

With --out the picture shows codes over draws of the prior, and decoded draws.

The last line is the p-value after training, the less of the two priors'; before, both are 0.001, the least there is.

    PYROVAE_DATA=~/data python examples/11_adversarial_autoencoder.py [--smoke] [--out adversarial_autoencoder.png]
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pyro
import torch
from digit_probe import print_shares, trained_probe
from torch import Tensor, nn

import pyrovae as pv
from pyrovae.adversarial import NonSaturating, Shrunk

NUM_CODES = 500
WEIGHTS = {"spike-and-slab": 1000.0, "spiral": 300.0}  # in nats per datum


def spiral(num: int) -> Tensor:
    """Points about an arm that turns one and a half times, (num, 2); as many on each length of it."""
    angle = 3 * math.pi * torch.rand(num).sqrt()
    arm = torch.stack([angle.cos(), angle.sin()], 1) * angle[:, None] / math.pi
    return arm + 0.1 * torch.randn(num, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description="Adversarial autoencoders on MNIST.")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--smoke", action="store_true", help="one epoch of 8x8 digits, to see that it runs")
    parser.add_argument("--out", type=Path, help="where to draw the picture, a .png")
    args = parser.parse_args()
    load = pv.data.digits if args.smoke else pv.data.mnist
    data, grey = load(binarize="dynamic"), load(binarize=None)  # the same splits
    epochs, num_samples = (1, 500) if args.smoke else (args.epochs, 10_000)

    classify, accuracy = trained_probe(grey, 2 if args.smoke else 4)
    print(f"the probe is right about {accuracy:.1%} of {len(grey.test)} test digits")
    torch.manual_seed(0)
    size = data.train.shape[1]
    models = {
        "spike-and-slab": pv.AdversarialAutoencoder(
            prior=pv.priors.SpikeSlab(8, active=0.5),
            likelihood=pv.likelihoods.Bernoulli(pv.nn.MLP(8, [256, 256], size)),
            guide=Shrunk(pv.nn.MLP(size, [256, 256]), 8),
            critic=pv.nn.MLP(8, [256, 256], 1),
            weight=WEIGHTS["spike-and-slab"],
        ),
        "spiral": pv.AdversarialAutoencoder(
            prior=pv.adversarial.Sampler(spiral, 2),
            likelihood=pv.likelihoods.Bernoulli(pv.nn.MLP(2, [256, 256], size)),
            guide=pv.guides.Normal(pv.nn.MLP(size, [256, 256]), 2),
            critic=pv.nn.MLP(2, [256, 256], 1),
            weight=WEIGHTS["spiral"],
        ),
    }
    decay = 0.05 ** (1 / (epochs * math.ceil(len(data.train) / 128)))  # to a twentieth over the run

    def options(parameter: str) -> dict[str, object]:
        rate = 1e-3 if "critic" in parameter else 5e-4
        return {"lr": rate, "lrd": decay, "betas": (0.5, 0.99), "clip_norm": math.inf}

    p_values, coverages = [], {}
    for name, model in models.items():
        before = compared(model, data.test)
        optim, loss = pyro.optim.ClippedAdam(options), NonSaturating(slope_penalty=0.3)
        history = pv.fit(model, data, epochs=epochs, optim=optim, loss=loss, seed=0, progress=False)
        after = compared(model, data.test)
        p_values.append(after.p_value)
        error = pv.metrics.mean_squared_error(model, data.test).mean()
        print(
            f"{name}: {history['seconds'][-1]:.0f} seconds, squared error of a pixel {error:.4f}; squared MMD of codes "
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
    return pv.metrics.mmd_test(*codes(model, x[:NUM_CODES]))


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
        axes[0, 1].hist(shares.numpy(), bins=80, range=(-4, 4), density=True, histtype="step", color=color, label=label)
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
