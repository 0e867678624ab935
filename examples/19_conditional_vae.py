r"""A conditional VAE of MNIST: the label says which digit, so that z is left with how it is written.

.. math:: p(x, z|y) = p(z)\, p(x|z, y) , \qquad p(x) = \sum_y p(y)\, p(x|y) , \qquad p(y|x) \propto p(x|y)\, p(y)

``pv.build_vae(..., num_labels=10)`` makes ``model(x, y)`` and ``guide(x, y)``; ``pv.fit`` takes the labels of the data.
784-400-20 and back, binarised digits, Adam at 1e-3, 20 epochs of batches of 128; a VAE without labels is trained alike.

Both are measured on 1,000 test digits by importance sampling with 200 draws. log p(x|y) is what a digit costs whose
label is known; log p(x), of all ten labels by Bayes's rule, is the number that can be set beside that of the VAE. By
the same rule the model is a classifier that was never trained to be one: the label of the largest log p(x|y). Last, of
digits that were asked for by their label, 100 of each, a classifier of grey digits says how many are what was asked.

With --out the picture has a column for each of 16 test digits: the digit, and its style z under each of ten labels.

The last line is the share of test digits whose own label has the largest log p(x|y), 0.914. log p(x) is -95.55 nats of
the VAE and -93.66 of the conditional one, log p(x|y) -91.71; 74.8 % of the digits are found to be what was asked.

    PYROVAE_DATA=~/data python examples/19_conditional_vae.py [--smoke] [--out conditional.png]
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pyro
import torch
from digit_probe import trained_probe
from torch import Tensor

import pyrovae as pv

LATENT_DIM, HIDDEN, LABELS = 20, (400,), 10


def main() -> None:
    parser = argparse.ArgumentParser(description="A conditional VAE of MNIST: labels given, styles learned.")
    parser.add_argument("--smoke", action="store_true", help="two epochs of 8x8 digits, to see that it runs")
    parser.add_argument("--out", type=Path, help="where to draw styles under ten labels, a .png")
    args = parser.parse_args()
    load = pv.data.digits if args.smoke else pv.data.mnist
    epochs, num_test, num_draws = (2, 20, 5) if args.smoke else (20, 1000, 200)
    data, grey = load(binarize="dynamic"), load(binarize=None)
    x, y = data.test[:num_test], data.labels["test"][:num_test]

    models = {}
    for name, num_labels in (("VAE", None), ("conditional VAE", LABELS)):
        torch.manual_seed(0)
        models[name] = vae = pv.build_vae(data.event_shape, LATENT_DIM, hidden=HIDDEN, num_labels=num_labels)
        pv.fit(vae, data, epochs=epochs, optim=pyro.optim.Adam({"lr": 1e-3}), seed=0, progress=False)
    vae, conditional = models.values()
    torch.manual_seed(0)
    scores = log_p_of_x_given_each_label(conditional, x, num_draws)
    numbers = {
        "VAE, log p(x)": pv.metrics.log_likelihood(vae, x, num_draws),
        "conditional VAE, log p(x)": scores.logsumexp(1) - math.log(LABELS),
        "conditional VAE, log p(x|y)": scores.gather(1, y[:, None])[:, 0],
    }
    for name, values in numbers.items():
        print(f"{name:<28} {values.mean():>8.2f} ± {values.std() / math.sqrt(len(x)):.2f} nats per digit")

    asked = torch.arange(LABELS).repeat(100)
    classify, accuracy = trained_probe(grey, 1 if args.smoke else 3)
    with torch.no_grad():
        found = classify(conditional.decode(conditional.sample_prior(len(asked)), asked))
    print(f"a classifier, right on {accuracy:.1%} of test digits, finds what was asked: {agreement(found, asked):.1%}")
    if args.out is not None:
        draw(conditional, x, y, data.image_shape, args.out)
    print(f"test digits named rightly by the largest log p(x|y): {agreement(scores.argmax(1), y):.3f} of 1")


def log_p_of_x_given_each_label(vae: pv.ConditionalVAE, x: Tensor, num_draws: int) -> Tensor:
    """Bounds on log p(x|y), ``(N, C)``."""
    labels = torch.arange(vae.num_labels).repeat_interleave(len(x))
    pairs = x.repeat(vae.num_labels, 1), labels
    return pv.metrics.log_likelihood(vae, pairs, num_draws).reshape(vae.num_labels, len(x)).T


def agreement(found: Tensor, expected: Tensor) -> float:
    return (found == expected).double().mean().item()


def draw(vae: pv.ConditionalVAE, x: Tensor, y: Tensor, image_shape: tuple[int, int, int], path: Path) -> None:
    """Test digits over E[x|z, y] at their z under each label."""
    x, y = x[:16], y[:16]
    z = vae.encode(x, y)
    restyled = {f"y = {label}": vae.decode(z, torch.full_like(y, label)) for label in range(LABELS)}
    path.parent.mkdir(parents=True, exist_ok=True)
    pv.plots.image_rows({"test digits": x, **restyled}, image_shape).savefig(path)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
