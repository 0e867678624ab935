r"""A horseshoe prior switches off the factors that the data do not have, and finds those that they have.

.. math:: x = \sum_{k=1}^{12} a_k z_k + 0.3\, \epsilon , \qquad |a_k| = 1

The data are made with four atoms a in 20 dimensions, each of them on in 30 % of the data, and the model has twelve. An
atom of unit length cannot shrink: what can is its code. Under the horseshoe (scale 0.1) a code is next to zero or free.

The table has, for each prior, the ELBO on 500 held-out data in nats per datum, how many of the twelve codes have a
standard deviation above 0.2, and for each true atom the largest cosine with one that is learned. The Normal spreads
four factors over twelve codes. With a learned scale for each code it keeps four and has the best ELBO, about -9.9, as
its posterior is Normal and so is the guide; but it sees of the atoms only the covariance of x, and finds none.
The horseshoe keeps four, and they are the true ones. With --out codes and cosines are drawn.

The last line is the least of the four cosines under the horseshoe, from 0 to 1: about 1.00, all four are found.

    python examples/06_horseshoe.py [--smoke] [--out horseshoe.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pyro
import torch
from torch import Tensor

import pyrovae as pv

NUM_TRUE, NUM_CODES, DATA_DIM, NOISE = 4, 12, 20, 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description="Normal and horseshoe priors on data of four factors.")
    parser.add_argument("--smoke", action="store_true", help="two epochs, to see that it runs")
    parser.add_argument("--out", type=Path, help="where to draw codes and atoms, a .png")
    args = parser.parse_args()
    epochs = 2 if args.smoke else 60

    true_atoms, data = make_data()
    deviations, cosines = {}, {}
    print(f"{'prior':<16} {'ELBO':>8} {'codes in use':>14}   cosine with each true atom")
    priors = {
        "normal": pv.priors.Normal(NUM_CODES),
        "normal, learned": pv.priors.Normal(NUM_CODES, learned=["scale"]),
        "horseshoe": pv.priors.Horseshoe(NUM_CODES, scale=0.1),
    }
    for name, prior in priors.items():
        torch.manual_seed(0)
        dictionary = pv.nn.Dictionary(NUM_CODES, DATA_DIM, bias=False, unit_norm=True)
        guide = pv.guides.Normal(pv.nn.MLP(DATA_DIM, [100]), NUM_CODES)
        vae = pv.VAE(prior, pv.likelihoods.Normal(dictionary, scale=NOISE), guide)
        optim = pyro.optim.Adam({"lr": 3e-3})
        pv.fit(vae, data, epochs=epochs, batch_size=100, optim=optim, seed=0, progress=False)
        torch.manual_seed(0)
        elbo = pv.metrics.elbo(vae, data.test).elbo.mean().item()
        deviations[name] = vae.encode(data.test).std(0).sort(descending=True).values
        cosines[name] = (true_atoms @ dictionary.atoms.detach().T).abs()
        best = " ".join(f"{cosine:.2f}" for cosine in cosines[name].max(1).values.tolist())
        print(f"{name:<16} {elbo:>8.2f} {(deviations[name] > 0.2).sum():>8} of {NUM_CODES}   {best}")
    if args.out is not None:
        draw(deviations, cosines, args.out)
    print(f"least cosine of a true atom, horseshoe: {cosines['horseshoe'].max(1).values.min():.3f}")


def make_data() -> tuple[Tensor, pv.data.Data]:
    """The true atoms, (4, 20), and 3,000 data: 2,000 to train, 500 to validate, 500 to test."""
    torch.manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(NUM_TRUE, DATA_DIM), dim=1)
    factors = (torch.rand(3000, NUM_TRUE) < 0.3) * 2.0 * torch.randn(3000, NUM_TRUE)
    x = factors @ atoms + NOISE * torch.randn(3000, DATA_DIM)
    return atoms, pv.data.Data("factors", x[:2000], x[2000:2500], x[2500:])


def draw(deviations: dict[str, Tensor], cosines: dict[str, Tensor], path: Path) -> None:
    """Left the standard deviation of each code; right the cosines of true and learned atoms, those in use first."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.6), dpi=100, layout="constrained")
    grid = figure.add_gridspec(3, 2, width_ratios=(1.0, 1.25))
    axes = figure.add_subplot(grid[:, 0])
    for (name, deviation), marker in zip(deviations.items(), "s^o", strict=True):
        axes.plot(range(1, NUM_CODES + 1), deviation.tolist(), marker=marker, linewidth=1.0, label=name)
    axes.axvline(NUM_TRUE + 0.5, color="0.7", linewidth=0.8, linestyle="--")
    axes.text(NUM_TRUE + 0.7, 1.2, "true number of factors", fontsize=8, color="0.4")
    axes.set(xlabel="code, in order", ylabel="standard deviation of E[z|x]", ylim=(0, None))
    axes.legend(frameon=False, fontsize=8, loc=(0.5, 0.6))
    axes.spines[["top", "right"]].set_visible(False)
    panels = [figure.add_subplot(grid[row, 1]) for row in range(3)]
    for axes, (name, cosine) in zip(panels, cosines.items(), strict=True):
        order = cosine.max(0).values.argsort(descending=True)
        image = axes.imshow(cosine[:, order].numpy(), cmap="gray_r", vmin=0, vmax=1, aspect="auto")
        axes.set_title(name, fontsize=9)
        axes.set(ylabel="true atom", xticks=[], yticks=range(NUM_TRUE), yticklabels=range(1, NUM_TRUE + 1))
    panels[-1].set(
        xlabel="learned atom, best match first", xticks=range(NUM_CODES), xticklabels=range(1, NUM_CODES + 1)
    )
    figure.colorbar(image, ax=panels, label="|cosine|")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
