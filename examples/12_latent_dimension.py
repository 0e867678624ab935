r"""How many latent coordinates? scikit-learn's cross-validation chooses, and a sparse prior needs no choice.

``VAETransformer`` is an estimator of scikit-learn, and its score a lower bound on log p(x), in nats per datum.
``GridSearchCV`` fits a VAE with a Normal prior for each number of coordinates, on four fifths of the digits, and scores
it on the fifth that was left out, five times. The smallest number is chosen whose score lies within one standard error
of the best: 8.

A spike-and-slab prior is given 64 coordinates, far more than are needed, and switches off what it does not use: 8 are
kept, and the others are exactly zero for every digit. Of 64 under the Normal prior 63 follow the data,
:math:`Var_x(E[z_j|x]) > 0.01`. These models are trained for 200 epochs, those of the search for 100. Gates
shut for good when the KL weighs on them too early, so beta rises over the first 60.

With --out the picture shows the scores, and the variance over the digits of each of the 64 coordinates of a code.

The last line is the held-out log-likelihood of the spike-and-slab VAE less that of the chosen one: what the zeros cost,
some 0.3 nats.

    python examples/12_latent_dimension.py [--smoke] [--out latent_dimension.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import GridSearchCV

import pyrovae as pv
from pyrovae.sklearn import VAETransformer

GENEROUS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description="The latent dimension of 8x8 digits, chosen by cross-validation.")
    parser.add_argument("--smoke", action="store_true", help="a few epochs, to see that it runs")
    parser.add_argument("--out", type=Path, help="where to draw scores and coordinates, a .png")
    args = parser.parse_args()
    dims, folds, epochs, longer = ([1, 2], 2, 1, 2) if args.smoke else ([2, 4, 8, 16, 32, GENEROUS], 5, 100, 200)

    data = pv.data.digits()  # bits, drawn once
    x, held_out = np.concatenate([data.train, data.val]), data.test.numpy()
    vae = VAETransformer(likelihood="bernoulli", epochs=epochs, random_state=0)
    search = GridSearchCV(vae, {"latent_dim": dims}, cv=folds, refit=False).fit(x)
    scores, errors = means_and_errors(search.cv_results_)
    for dim, score, error in zip(dims, scores, errors, strict=True):
        print(f"{dim:>2} coordinates: cross-validated log-likelihood {score:.2f} ± {error:.2f} nats per datum")
    chosen = dims[int(np.argmax(scores >= scores.max() - errors[scores.argmax()]))]  # the first that is good enough
    print(f"chosen: {chosen}")

    models = [
        VAETransformer(chosen, likelihood="bernoulli", epochs=longer, random_state=0),
        VAETransformer(GENEROUS, likelihood="bernoulli", epochs=longer, random_state=0),
        VAETransformer(
            GENEROUS, prior="spike-slab", likelihood="bernoulli", epochs=longer, warmup=0.3 * longer, random_state=0
        ),
    ]
    print(f"{'prior':<10} {'coordinates':>11} {'in use':>7} {'always zero':>12} {'held-out log-likelihood':>24}")
    for model in models:
        z = model.fit(x).transform(x)
        in_use, zero = int((z.var(0) > 0.01).sum()), int((z == 0).all(0).sum())
        print(f"{model.prior:<10} {model.latent_dim:>11} {in_use:>7} {zero:>12} {model.score(held_out):>24.2f}")
    if args.out is not None:
        variances = {model.prior: model.transform(x).var(0) for model in models[1:]}
        draw(dims, scores, errors, chosen, variances, args.out)
    gain = models[2].score(held_out) - models[0].score(held_out)
    print(f"held-out log-likelihood, spike-slab of {GENEROUS} minus normal of {chosen}: {gain:.2f} nats per datum")


def means_and_errors(results: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The score of each candidate, and the standard error of its mean over the folds."""
    folds = np.stack([values for key, values in results.items() if key.startswith("split")])
    return folds.mean(0), folds.std(0, ddof=1) / np.sqrt(len(folds))


def draw(
    dims: list[int],
    scores: np.ndarray,
    errors: np.ndarray,
    chosen: int,
    variances: dict[str, np.ndarray],
    path: Path,
) -> None:
    """Scores against the number of coordinates; the variance of each coordinate of a code, the largest first."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.9), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.errorbar(dims, scores, errors, marker="o", capsize=3, label="mean of the folds\n± its standard error")
    left.axvline(chosen, color="0.6", linestyle=":", label=f"chosen: {chosen}")
    left.set_xscale("log", base=2)
    left.set_xticks(dims, [str(dim) for dim in dims])
    left.set(xlabel="latent coordinates, Normal prior", ylabel="log-likelihood, nats per datum")
    left.legend(frameon=False, loc="lower right")
    for prior, variance in variances.items():
        used = np.sort(variance[variance > 0])[::-1]
        label = f"{prior}: {len(variance) - len(used)} are exactly zero"
        right.semilogy(range(1, len(used) + 1), used, "o-", markersize=4, label=label)
    right.axhline(0.01, color="0.6", linestyle=":", label="in use above")
    right.set(
        xlabel=f"coordinate, of {GENEROUS}", ylabel="variance of its code over the digits", xlim=(0, GENEROUS + 1)
    )
    right.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
