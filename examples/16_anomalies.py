r"""Anomalies: a VAE that has seen nine of the ten digits is to tell the tenth from them, by how likely it finds each.

For each of three held-out digits a VAE is trained on the bits of the other nine, 784-400-20 and back, 10 epochs. A test
digit is the more an anomaly the lower its score. The table has the area under the ROC curve: the probability that a
digit of the held-out class scores below one of the others; 1/2 is chance. Three scores:

- the bound on log p(x) of 50 importance samples;
- the reconstruction term :math:`E_{q(z|x)} \log p(x|z)` alone;
- the likelihood ratio :math:`\log p(x) - \log p_{local}(x)`, where the local model knows each pixel from four of its
  neighbours and was counted from the same nine digits.

A digit 1 has little ink. Few pixels are left to be wrong about, and a VAE that has never seen one finds it likelier
than the digits it was trained on: the log-likelihood has nearly every anomaly on the wrong side. Most of a
log-likelihood is of what all strokes have in common, and of how much of it there is; the ratio takes that off. It is no
remedy for all: an 8 has more ink than most, so that the log-likelihood alone is the better score of it.

With --out the picture shows the ROC curves.

The last line is the least area of the likelihood ratio over the three, 0.838; that of the log-likelihood is 0.058.

References: Nalisnick et al. (2019), "Do deep generative models know what they don't know?"; Serrà et al. (2020), "Input
complexity and out-of-distribution detection with likelihood-based generative models"; Ren et al. (2019), "Likelihood
ratios for out-of-distribution detection"; Zhang, Zhang and McDonagh (2021), "On the out-of-distribution generalization
of probabilistic image modelling", whose local model is a network.

    PYROVAE_DATA=~/data python examples/16_anomalies.py [--smoke] [--out anomalies.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor
from torch.nn import functional

import pyrovae as pv

HELD_OUT = (1, 4, 8)
NEIGHBOURS = ((0, -1), (-1, -1), (-1, 0), (-1, 1))  # rows and columns to those that come before a pixel
Scores = dict[str, Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description="A held-out class of MNIST among the others, by likelihood.")
    parser.add_argument("--smoke", action="store_true", help="two epochs of 8x8 digits, to see that it runs")
    parser.add_argument("--out", type=Path, help="where to draw the ROC curves, a .png")
    args = parser.parse_args()
    data = pv.data.digits() if args.smoke else pv.data.mnist()
    epochs, num_samples = (2, 10) if args.smoke else (10, 50)

    found: dict[int, Scores] = {}
    print("area under the ROC curve")
    print("held-out digit  log-likelihood  reconstruction  likelihood ratio")
    for held_out in HELD_OUT:
        found[held_out] = scores = scored(data, held_out, epochs, num_samples)
        areas = [area(data, held_out, score) for score in scores.values()]
        print(f"{held_out:<14}{areas[0]:>16.3f}{areas[1]:>16.3f}{areas[2]:>18.3f}")
    if args.out is not None:
        draw(data, found, args.out)
    least = min(area(data, held_out, scores["likelihood ratio"]) for held_out, scores in found.items())
    print(f"least area under the ROC curve, likelihood ratio: {least:.3f}")


def scored(data: pv.data.Data, held_out: int, epochs: int, num_samples: int) -> Scores:
    """What a VAE that has not seen one class thinks of each test digit."""
    train, val = (getattr(data, part)[data.labels[part] != held_out] for part in ("train", "val"))
    torch.manual_seed(0)
    vae = pv.build_vae(data.event_shape, 20, hidden=(400,))
    pv.fit(vae, train, epochs=epochs, val=val, seed=0, progress=False)
    torch.manual_seed(0)
    log_p = pv.metrics.log_likelihood(vae, data.test, num_samples)
    reconstruction = pv.metrics.elbo(vae, data.test, 10).reconstruction
    ratio = log_p - local_log_likelihood(data.test, train, data.image_shape)
    return {"log-likelihood": log_p, "reconstruction": reconstruction, "likelihood ratio": ratio}


def local_log_likelihood(x: Tensor, train: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
    """Each pixel given four before it: the share of ones after each of their 16 patterns in the training digits."""
    patterns = len(NEIGHBOURS)
    ones = torch.bincount(neighbours(train, image_shape).flatten(), train.flatten(), 2**patterns)
    all_of_them = torch.bincount(neighbours(train, image_shape).flatten(), minlength=2**patterns)
    logits = torch.log(ones + 0.5) - torch.log(all_of_them - ones + 0.5)
    return pv.likelihoods.Bernoulli(torch.nn.Identity())(logits[neighbours(x, image_shape)]).log_prob(x)


def neighbours(x: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
    """The pattern before each pixel as a number, ``(N, pixels)``; outside of the picture there is no ink."""
    _, height, width = image_shape
    padded = functional.pad(x.unflatten(-1, (height, width)), (1, 1, 1, 0)).long()
    before = [padded[:, 1 + row : 1 + row + height, 1 + column : 1 + column + width] for row, column in NEIGHBOURS]
    return sum(bit << place for place, bit in enumerate(before)).flatten(1)


def area(data: pv.data.Data, held_out: int, score: Tensor) -> float:
    return float(roc_auc_score(data.labels["test"] == held_out, -score))


def draw(data: pv.data.Data, found: dict[int, Scores], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.0), dpi=100, layout="constrained")
    for axes, (held_out, scores) in zip(figure.subplots(1, len(found), sharey=True), found.items(), strict=True):
        for name, score in scores.items():
            false, true, _ = roc_curve(data.labels["test"] == held_out, -score)
            axes.plot(false, true, label=f"{name}, {area(data, held_out, score):.3f}")
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
        axes.set_title(f"held out: {held_out}", fontsize=10)
        axes.set_xlabel("share of the others called an anomaly")
        axes.legend(frameon=False, fontsize=8, title="score, area", title_fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_aspect("equal")
    figure.axes[0].set_ylabel("share of the held-out digit called one")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
