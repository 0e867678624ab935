r"""A spike-and-slab prior beside the Normal: each coordinate of a code is exactly zero, or drawn from a slab.

.. math:: P(z_i \ne 0) = \gamma_i , \qquad z_i \mid z_i \ne 0 \sim N(0, s_i^2)

Both γ and s are learned. The guide has gates of its own, :math:`q(z_i \ne 0 | x)`, and the code of x is zero wherever a
gate is more likely shut than open. Gates shut for good when the KL weighs on them before the decoder can use them: its
weight rises from 0 to 1 over the first 20 of 200 epochs.

The table compares it with the Normal prior on 180 held-out digits, 32 coordinates each and everything else the same:
the ELBO in nats per datum, the share of the code that is exactly zero, and the mean squared error of a pixel.

Of the 32 coordinates seven are ever open, and a digit opens one or two of them, some none, some three: one in every 0,
another in every 3 and nearly every 4, a third in every 6. It costs 0.4 nats of the ELBO (-23.4 without), and half as
much squared error again.

With --out the picture shows held-out digits over their reconstructions, what each of those coordinates adds to the mean
image, and how often it is open in each class of digits.

The last line is the share of the codes of the held-out digits that is exactly zero, about 0.95.

    python examples/03_spike_slab_digits.py [--smoke] [--out spike_slab.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

import pyrovae as pv

LATENT_DIM = 32


def main() -> None:
    parser = argparse.ArgumentParser(description="Spike-and-slab and Normal priors on 8x8 digits.")
    parser.add_argument("--smoke", action="store_true", help="two epochs, to see that it runs")
    parser.add_argument("--out", type=Path, help="where to draw codes and atoms, a .png")
    args = parser.parse_args()
    epochs, warmup = (2, 1) if args.smoke else (200, 20)

    data = pv.data.digits("dynamic")
    print(f"{'prior':<12} {'ELBO':>8} {'exact zeros':>12} {'squared error':>14}")
    for prior in ("normal", "spike-slab"):
        torch.manual_seed(0)
        vae = pv.build_vae(data.event_shape, LATENT_DIM, prior=prior)
        pv.fit(vae, data, epochs=epochs, loss=pv.ELBO(beta=pv.warmup(warmup)), seed=0, progress=False)
        torch.manual_seed(0)
        elbo = pv.metrics.elbo(vae, data.test).elbo.mean().item()
        zeros = (vae.encode(data.test) == 0).float().mean().item()
        error = pv.metrics.mean_squared_error(vae, data.test).mean().item()
        print(f"{prior:<12} {elbo:>8.2f} {zeros:>12.0%} {error:>14.4f}")
    share = open_share(vae, data)
    print(f"open gates per digit, by class: {', '.join(f'{k}: {n:.1f}' for k, n in enumerate(share.sum(1).tolist()))}")
    if args.out is not None:
        draw(vae, data, share, args.out)
    print(f"codes that are exactly zero: {zeros:.3f} of 1")


def open_share(vae: pv.VAE, data: pv.data.Data) -> Tensor:
    """How often the gate of each coordinate is open, by class of digit: (10, 32)."""
    gates = (vae.encode(data.test) != 0).float()
    return torch.stack([gates[data.labels["test"] == label].mean(0) for label in range(10)])


def draw(vae: pv.VAE, data: pv.data.Data, share: Tensor, path: Path) -> None:
    """Digits over reconstructions; for each coordinate that is ever open what it adds, and in which classes."""
    from matplotlib.figure import Figure

    one_of_each = torch.stack([(data.labels["test"] == label).nonzero()[0, 0] for label in range(10)])
    x = data.test[one_of_each]
    num_open = (vae.encode(x) != 0).sum(1).tolist()
    used = share.sum(0).argsort(descending=True)[: max(2, int((share.sum(0) > 0).sum()))]
    slab = torch.diag(vae.prior.scale().detach())[used]
    added = vae.decode(slab) - vae.decode(torch.zeros_like(slab))

    figure = Figure(figsize=(9.0, 6.2), dpi=100, layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.0, 2.2))
    top.suptitle(
        f"held-out digits over their reconstructions, and how many of {LATENT_DIM} gates are open", fontsize=10
    )
    for columns, images, labels in zip(
        top.subplots(2, 10), (x, vae.reconstruct(x)), ([""] * 10, num_open), strict=True
    ):
        for axes, image, label in zip(columns, images, labels, strict=True):
            axes.imshow(image.reshape(8, 8).numpy(), cmap="gray_r", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[], xlabel=label)
    bottom.suptitle(
        "coordinates that are ever open: what one slab scale adds to E[x|z], and in which digits", fontsize=10
    )
    grid = bottom.add_gridspec(2, len(used), height_ratios=(1.0, 2.0))
    atoms = [bottom.add_subplot(grid[0, column]) for column in range(len(used))]
    for axes, image in zip(atoms, added, strict=True):
        picture = axes.imshow(image.reshape(8, 8).numpy(), cmap="RdBu_r", vmin=-0.8, vmax=0.8)
        axes.set(xticks=[], yticks=[])
    bottom.colorbar(picture, ax=atoms, label="change of a pixel")
    axes = bottom.add_subplot(grid[1, :])
    picture = axes.imshow(share[:, used].numpy(), cmap="gray_r", vmin=0, vmax=1, aspect="auto")
    axes.set(xlabel="coordinate", ylabel="digit", yticks=range(10))
    axes.set_xticks(range(len(used)), [str(j + 1) for j in used.tolist()])
    bottom.colorbar(picture, ax=axes, label="share of open gates")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
