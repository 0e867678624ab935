r"""Three autoencoders as special cases of a VAE: a point for a guide, and a prior for a penalty on the code.

.. math::
    -\log p(x|z) - \log p(z) = |x - f(z)|^2 + \lambda\, r(z) + \text{const} , \qquad z = \mu(x)

under a Normal likelihood of variance 1/2: the flat prior has r = 0 and is the plain autoencoder; a Laplace prior of
scale :math:`1/\lambda` has :math:`r = \sum_i |z_i|`, L1; a Normal one of variance :math:`1/(2\lambda)` has
:math:`r = \sum_i z_i^2`, L2.

784-512-256-64 and back to grey values in [0, 1], Adam at 1e-3, 20 epochs of batches of 128 of the 50,000 training
digits of MNIST. The table has the mean squared error of a pixel of the 10,000 test digits, and the share of the numbers
of their codes that are near zero, within a twentieth of the standard deviation of all numbers; of Normal codes that
would be 4 %. It is 4.2 % for the plain autoencoder, 11.3 % under L1 at nearly twice the error, and 4.1 % under L2.
Exact zeros are not to be had so: a gradient step on |z| goes past it.

With --out the picture shows test digits over their reconstructions by each.

The last line is the squared error per pixel of the plain autoencoder, 0.0049.

    PYROVAE_DATA=~/data python examples/08_autoencoders.py [--smoke] [--out autoencoders.png]
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pyro
import torch
from torch import Tensor, nn

import pyrovae as pv

LATENT_DIM, HIDDEN = 64, (512, 256)
L1, L2 = 1.0, 0.1  # weights of the penalties
PRIORS = {
    "plain": pv.priors.Flat(LATENT_DIM),
    "L1": pv.priors.Laplace(LATENT_DIM, scale=1 / L1),
    "L2": pv.priors.Normal(LATENT_DIM, scale=math.sqrt(1 / (2 * L2))),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Plain, L1 and L2 autoencoders on MNIST.")
    parser.add_argument("--smoke", action="store_true", help="two epochs of 8x8 digits, to see that it runs")
    parser.add_argument("--out", type=Path, help="where to draw the reconstructions, a .png")
    args = parser.parse_args()
    data = pv.data.digits(binarize=None) if args.smoke else pv.data.mnist(binarize=None)
    epochs = 2 if args.smoke else 20

    vaes, errors = {}, {}
    print(f"{'autoencoder':<12} {'squared error':>14} {'near zero':>10}")
    for name, prior in PRIORS.items():
        torch.manual_seed(0)
        vaes[name] = vae = autoencoder(prior, pixels=data.train[0].numel())
        optim = pyro.optim.Adam({"lr": 1e-3})
        pv.fit(vae, data, epochs=epochs, batch_size=128, optim=optim, seed=0, progress=False)
        errors[name] = pv.metrics.mean_squared_error(vae, data.test).mean().item()
        print(f"{name:<12} {errors[name]:>14.4f} {near_zero(vae.encode(data.test)):>10.1%}")
    if args.out is not None:
        draw(vaes, data, args.out)
    print(f"squared error per pixel, plain autoencoder: {errors['plain']:.4f}")


def autoencoder(prior: pv.priors.Prior, pixels: int) -> pv.VAE:
    decoder = nn.Sequential(pv.nn.MLP(LATENT_DIM, HIDDEN[::-1], pixels), nn.Sigmoid())
    likelihood = pv.likelihoods.Normal(decoder, scale=math.sqrt(0.5))
    return pv.VAE(prior, likelihood, pv.guides.Delta(pv.nn.MLP(pixels, HIDDEN), LATENT_DIM))


def near_zero(z: Tensor) -> float:
    """Share of the numbers within a twentieth of their common standard deviation."""
    return (z.abs() < z.std() / 20).float().mean().item()


def draw(vaes: dict[str, pv.VAE], data: pv.data.Data, path: Path, columns: int = 20) -> None:
    """Rows of digits: the originals, and under them what each autoencoder makes of them."""
    two_of_each = torch.cat([(data.labels["test"] == label).nonzero()[: columns // 10, 0] for label in range(10)])
    x = data.test[two_of_each]
    rows = {"original": x, **{name: vae.reconstruct(x) for name, vae in vaes.items()}}
    path.parent.mkdir(parents=True, exist_ok=True)
    pv.plots.image_rows(rows, data.image_shape).savefig(path)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
