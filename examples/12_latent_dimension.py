r"""How many latent coordinates? scikit-learn's cross-validation chooses, and a sparse prior needs no choice.

``VAETransformer`` is an estimator of scikit-learn, and its score a lower bound on log p(x), in nats per datum.
``GridSearchCV`` fits a VAE with a Normal prior for each number of coordinates, on four fifths of the digits, and scores
it on the fifth that was left out, five times. The smallest number is chosen whose score lies within one standard error
of the best.

A spike-and-slab prior is given 64 coordinates, far more than are needed. What coordinate j carries of a digit is
:math:`KL_j = KL(q(z_j|x) \,\|\, p(z_j))`; one whose mean over the digits is below 0.01 nats is off.

With --out the picture shows the scores, and what each of the 64 coordinates carries under both priors.

The last line is the held-out log-likelihood of the spike-and-slab VAE less that of the chosen one.

    python examples/12_latent_dimension.py [--smoke] [--out latent_dimension.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import GridSearchCV

import pyrovae as pv
from pyrovae.sklearn import VAETransformer

GENEROUS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description="The latent dimension of 8x8 digits, chosen by cross-validation.")
    parser.add_argument("--smoke", action="store_true", help="two epochs, to see that it runs")
    parser.add_argument("--out", type=Path, help="where to draw scores and coordinates, a .png")
    args = parser.parse_args()
    dims, folds, epochs = ([1, 2], 2, 2) if args.smoke else ([1, 2, 4, 8, 16, 32, GENEROUS], 5, 100)

    data = pv.data.digits()  # bits, drawn once
    x, held_out = torch.cat([data.train, data.val]).numpy(), data.test.numpy()
    vae = VAETransformer(likelihood="bernoulli", epochs=epochs, random_state=0)
    search = GridSearchCV(vae, {"latent_dim": dims}, cv=folds, refit=smallest_within_one_error).fit(x)
    scores, errors = means_and_errors(search.cv_results_)
    for dim, score, error in zip(dims, scores, errors, strict=True):
        print(f"{dim:>3} coordinates: cross-validated log-likelihood {score:.2f} ± {error:.2f} nats per datum")
    chosen = search.best_estimator_
    print(f"chosen: {chosen.latent_dim}")

    generous = [
        VAETransformer(GENEROUS, prior=prior, likelihood="bernoulli", epochs=epochs, random_state=0).fit(x)
        for prior in ("normal", "spike-slab")
    ]
    carried = [pv.metrics.kl_per_dimension(model.vae_, data.test).mean(0) for model in generous]
    for model, kl in zip(generous, carried, strict=True):
        active = int((kl > 0.01).sum())
        print(f"{model.prior}: {active} of {GENEROUS} coordinates are active, all of them carry {kl.sum():.2f} nats")
    if args.out is not None:
        draw(dims, scores, errors, chosen.latent_dim, carried, args.out)
    gain, dim = generous[1].score(held_out) - chosen.score(held_out), chosen.latent_dim
    print(f"held-out log-likelihood, spike-slab of {GENEROUS} minus normal of {dim}: {gain:.2f} nats per datum")


def means_and_errors(results: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The score of each candidate, and the standard error of its mean over the folds."""
    folds = np.stack([results[f"split{k}_test_score"] for k in range(sum("split" in key for key in results))])
    return folds.mean(0), folds.std(0, ddof=1) / np.sqrt(len(folds))


def smallest_within_one_error(results: dict[str, Any]) -> int:
    """The rule of one standard error, which ``GridSearchCV`` takes as ``refit``."""
    means, errors = means_and_errors(results)
    return int(np.argmax(means >= means.max() - errors[means.argmax()]))


def draw(
    dims: list[int], scores: np.ndarray, errors: np.ndarray, chosen: int, carried: list[torch.Tensor], path: Path
) -> None:
    """Scores against the number of coordinates; what each of many carries, the largest first."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.6), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.errorbar(dims, scores, errors, marker="o", color="C0")
    left.axvline(chosen, color="0.6", linestyle=":", label=f"chosen: {chosen}")
    left.set_xscale("log", base=2)
    left.set_xticks(dims, [str(dim) for dim in dims])
    left.set(xlabel="latent coordinates, Normal prior", ylabel="cross-validated log-likelihood, nats per datum")
    left.legend(frameon=False)
    for kl, label in zip(carried, ("Normal", "spike-and-slab"), strict=True):
        right.semilogy(range(1, len(kl) + 1), kl.sort(descending=True).values.clamp_min(1e-6), ".-", label=label)
    right.axhline(0.01, color="0.6", linestyle=":", label="0.01 nats")
    right.set(xlabel=f"coordinate, of {GENEROUS}", ylabel="mean KL of the coordinate, nats")
    right.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
