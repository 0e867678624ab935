r"""A VampPrior beside the Normal prior: the model learns which codes are likely, from pseudo-inputs that it learns too.

.. math:: p(z) = \sum_{k=1}^{50} w_k\, q(z \mid u_k)

The prior is a mixture of the guide's own posteriors at 50 pseudo-inputs u, which start at rows of the training data
(Tomczak and Welling, 2018). It shares the guide: the same module is given to the prior and to the VAE.

The table has the numbers of both on 180 held-out digits, everything else the same: the ELBO and the log-likelihood
(importance-weighted, 1,000 draws), both in nats per datum. With --out the 50 pseudo-inputs are drawn, the ones of most
weight first.

The last line is what the learned prior gives: its log-likelihood minus the Normal's, about +0.2 nats per datum.

    python examples/05_vamp_prior.py [--smoke] [--out pseudo_inputs.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import pyrovae as pv


def main() -> None:
    parser = argparse.ArgumentParser(description="A VampPrior beside the Normal, on 8x8 digits.")
    parser.add_argument("--smoke", action="store_true", help="two epochs, to see that it runs")
    parser.add_argument("--out", type=Path, help="where to draw the pseudo-inputs, a .png")
    args = parser.parse_args()
    epochs, num_samples = (2, 50) if args.smoke else (200, 1000)

    data = pv.data.digits("dynamic")
    log_likelihood = {}
    print(f"{'prior':<8} {'ELBO':>8} {'log-likelihood':>16}")
    for name in ("normal", "vamp"):
        torch.manual_seed(0)
        decoder, guide = pv.nn.MLP(16, [400], 64), pv.guides.Normal(pv.nn.MLP(64, [400]), 16)
        prior = pv.priors.Normal(16)
        if name == "vamp":
            prior = pv.priors.Vamp(guide, 50, inputs=data.train, bounds=(0.0, 1.0))
        vae = pv.VAE(prior, pv.likelihoods.Bernoulli(decoder), guide)
        pv.fit(vae, data, epochs=epochs, seed=0, progress=False)
        torch.manual_seed(0)
        elbo = pv.metrics.elbo(vae, data.test).elbo.mean().item()
        log_likelihood[name] = pv.metrics.log_likelihood(vae, data.test, num_samples).mean().item()
        print(f"{name:<8} {elbo:>8.2f} {log_likelihood[name]:>16.2f}")
    if args.out is not None:
        draw(vae.prior, args.out)
    print(f"log-likelihood, vamp minus normal: {log_likelihood['vamp'] - log_likelihood['normal']:+.2f} nats per datum")


def draw(prior: pv.priors.Vamp, path: Path) -> None:
    """Five rows of ten 8×8 pseudo-inputs, in the order of their weight; every pixel is one square of the picture."""
    from matplotlib.figure import Figure

    weights, order = prior.logits.detach().softmax(0).sort(descending=True)
    u = prior.inputs().detach()[order].reshape(5, 10, 8, 8)
    mosaic = torch.nn.functional.pad(u, (1, 1, 1, 1)).permute(0, 2, 1, 3).reshape(50, 100)
    figure = Figure(figsize=(7.2, 3.3), dpi=100)
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.91))
    image = axes.imshow(mosaic.numpy(), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(f"pseudo-inputs, weights from {weights[0]:.3f} to {weights[-1]:.3f}", fontsize=10)
    axes.set_axis_off()
    figure.colorbar(image, ax=axes, label="pixel, from 0 to 1", shrink=0.8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
