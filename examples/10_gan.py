r"""A generative adversarial network on MNIST, and whether it has collapsed: measured, not guessed.

.. math:: z \sim N(0, I) , \qquad \tilde x = g(z)

The sampling side is a Pyro function, ``gan.model(num_samples)``; a critic takes the place of a likelihood, which x has
not. ``pv.fit`` trains both players.

Three things are then measured. A classifier that is right about 98 % of real digits or more says which digits 10,000
draws are: each should have its tenth, and a collapsed generator misses some; here they have from 7 to 14 %. The
distance of draws from the nearest training digit, beside that of test digits, says whether they are copies. And the
divergence of draws from the training data as far as the critic can tell, beside that from the validation data, says
whether the critic knows the former by heart.

With --out the picture shows draws.

The last line is the share of the digit that draws show least, about 0.07; a tenth would be even.

    PYROVAE_DATA=~/data python examples/10_gan.py [--network mlp] [--loss non-saturating] [--smoke] [--out gan.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pyro
import torch
from digit_probe import print_shares, trained_probe
from torch import nn

import pyrovae as pv
from pyrovae.adversarial import Minimax, NonSaturating, Wasserstein

LATENT_DIM = 64
LOSSES = {
    "minimax": lambda: Minimax(slope_penalty=1.0),
    "non-saturating": lambda: NonSaturating(slope_penalty=1.0),
    "wasserstein": lambda: Wasserstein(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="A GAN on MNIST.")
    parser.add_argument("--network", choices=("mlp", "conv"), default="mlp")
    parser.add_argument("--loss", choices=tuple(LOSSES), default="non-saturating")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--smoke", action="store_true", help="one epoch of 8x8 digits, to see that it runs")
    parser.add_argument("--out", type=Path, help="where to draw the picture, a .png")
    args = parser.parse_args()
    data = pv.data.digits(binarize=None) if args.smoke else pv.data.mnist(binarize=None)
    epochs, num_samples = (1, 500) if args.smoke else (args.epochs, 10_000)

    classify, accuracy = trained_probe(data, 2 if args.smoke else 4)
    print(f"the probe is right about {accuracy:.1%} of {len(data.test)} test digits")

    torch.manual_seed(0)
    generator, critic = networks(args.network, data)
    gan = pv.GAN(pv.priors.Normal(LATENT_DIM), generator, critic)
    optim = pyro.optim.Adam({"lr": 3e-4, "betas": (0.5, 0.99)})
    print(f"{'epoch':>5} {'seconds':>8}   divergence from training and validation data, as far as the critic can tell")
    pv.fit(
        gan, data, epochs, optim=optim, loss=LOSSES[args.loss](), seed=0, progress=False, callbacks=[print_divergence]
    )

    torch.manual_seed(0)
    x = gan.sample(num_samples)
    coverage = pv.metrics.class_coverage(classify, x)
    print(f"{'share of digit':<18}" + "".join(f"{digit:>7}" for digit in range(10)) + f"{'KL':>9}")
    print_shares("test set", pv.metrics.class_coverage(classify, data.test))
    print_shares("draws", coverage)
    near = pv.metrics.nearest_neighbors(x[:1000], data.train, data.test[:1000])
    print(
        f"median distance from the nearest training digit: draws {near.samples.median():.2f}, test digits "
        f"{near.held_out.median():.2f}; a draw is the nearer with probability {near.nearer:.2f}"
    )
    if args.out is not None:
        figure = pv.plots.image_grid(x[:120], data.image_shape, columns=20)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(args.out, dpi=90)
        print(f"picture: {args.out}")
    print(f"least share of a digit: {coverage.share.min():.3f} of 1")


def print_divergence(gan: pv.GAN, epoch: int, history: dict[str, list[float]]) -> None:
    seconds, train, val = (history[column][-1] for column in ("seconds", "train_loss", "val_loss"))
    print(f"{epoch:>5} {seconds:>8.0f} {train:>10.3f} {val:>10.3f}")


def networks(kind: str, data: pv.data.Data) -> tuple[nn.Module, nn.Module]:
    """A generator of grey values in [0, 1], and a critic."""
    shape, size = data.image_shape, data.train.shape[1]
    if kind == "mlp":
        generator = pv.nn.MLP(LATENT_DIM, [256, 512], size, activation=nn.LeakyReLU)
        critic = pv.nn.MLP(size, [512, 256], 1, activation=nn.LeakyReLU)
        return nn.Sequential(generator, nn.Sigmoid()), critic
    generator = nn.Sequential(pv.nn.ConvDecoder(LATENT_DIM, shape, [64, 32]), nn.Sigmoid(), nn.Flatten())
    critic = nn.Sequential(nn.Unflatten(1, shape), pv.nn.ConvEncoder(shape, [32, 64]), nn.Linear(256, 1))
    return generator, critic


if __name__ == "__main__":
    main()
