r"""``pyrovae fit digits`` from its parts: a prior, a likelihood and a guide become a VAE, and ``pv.fit`` trains it.

With --out the picture of README.md is drawn: held-out digits, the binary pixels that the model sees of them, their
reconstructions :math:`E[x|z]` at the code of each, and below the line :math:`E[x|z]` at draws of z from the prior.

The last line is the log-likelihood of the 180 held-out digits, in nats per datum: the importance-weighted bound of
Burda et al. (2016) with 5,000 draws, which is at most log p(x) in expectation and above the ELBO. It comes near -22.7.
It is the model, the seed and the table of ``pyrovae fit digits``.

    python examples/01_vae_digits.py [--smoke] [--out docs/digits.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pyro
import torch

import pyrovae as pv


def main() -> None:
    parser = argparse.ArgumentParser(description="A VAE from its parts, on 8x8 digits.")
    parser.add_argument("--smoke", action="store_true", help="two epochs, to see that it runs")
    parser.add_argument("--out", type=Path, help="where to draw the picture, a .png")
    args = parser.parse_args()
    epochs, num_samples = (2, 50) if args.smoke else (200, 5000)

    torch.manual_seed(0)
    data = pv.data.digits("dynamic")
    encoder, decoder = pv.nn.MLP(64, [400]), pv.nn.MLP(16, [400], 64)
    vae = pv.VAE(
        prior=pv.priors.Normal(16),
        likelihood=pv.likelihoods.Bernoulli(decoder),
        guide=pv.guides.Normal(encoder, 16),
    )
    history = pv.fit(vae, data, epochs=epochs, batch_size=128, optim=pyro.optim.Adam({"lr": 1e-3}), seed=0)
    print(f"least validation loss {min(history['val_loss']):.2f} nats per datum")

    torch.manual_seed(0)
    numbers = pv.metrics.evaluate(vae, data.test, num_samples)
    print(f"reconstruction {numbers['reconstruction']:.2f}, KL {numbers['kl']:.2f}: ELBO {numbers['elbo']:.2f}")
    print(f"{numbers['active_units']} of 16 latent coordinates follow the data")
    if args.out is not None:
        draw(vae, data, args.out)
    print(f"held-out log-likelihood: {numbers['log_likelihood']:.2f} nats per datum")


def draw(vae: pv.VAE, data: pv.data.Data, path: Path, columns: int = 20) -> None:
    """Rows of 8×8 digits; every pixel is one square of the picture."""
    from matplotlib.figure import Figure

    two_of_each = torch.cat([(data.labels["test"] == label).nonzero()[: columns // 10, 0] for label in range(10)])
    x = data.test[two_of_each]
    grey = pv.data.digits(binarize=None).test[two_of_each]  # the same split, before its pixels were drawn
    torch.manual_seed(0)
    new = vae.decode(vae.sample_prior(4 * columns))
    rows = torch.cat([grey, x, vae.reconstruct(x), torch.zeros(columns, 64), new]).reshape(-1, columns, 8, 8)
    mosaic = torch.nn.functional.pad(rows, (1, 1, 1, 1)).permute(0, 2, 1, 3).reshape(-1, 10 * columns)
    mosaic = torch.cat([mosaic[:30], mosaic[36:]])  # less white between the two panels

    figure = Figure(figsize=(11.2, 3.9), dpi=100)
    axes = figure.add_axes((0.1, 0.01, 0.895, 0.98))
    axes.imshow(mosaic.numpy(), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    labels = {5: "held-out", 15: "as binary x", 25: "reconstruction", 54: "drawn from\nthe prior"}
    axes.set_yticks(list(labels), list(labels.values()), fontsize=9)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.axhline(31.5, color="0.75", linewidth=0.8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
