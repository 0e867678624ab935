r"""Denoising: the encoder is trained on damaged digits, the likelihood on the digits as they are.

.. math:: \tilde x = x + \epsilon , \quad \epsilon_i \sim N(0, 0.5^2) , \qquad
          \text{autoencoder:}\ |x - f(\mu(\tilde x))|^2 , \qquad
          \text{VAE:}\ -E_{q(z|\tilde x)}[\log p(x|z)] + KL(q(z|\tilde x) \,\|\, p(z))

``pv.nn.Corrupted`` puts the noise in front of the encoder while it trains. A trained model reads what it is given:
``vae.reconstruct(noisy)`` restores a noisy digit. The VAE learns the variance of its likelihood, and its objective is a
bound on log p(x) still: whatever the guide reads, it is a guide.

784-512-256-64 and back, Adam at 1e-3, 20 epochs of batches of 128 of all 60,000 training digits of MNIST: a validation
loss, which is of data without noise, is not what a denoiser is for, and the last weights are kept. The table has the
mean squared error of a pixel against the digit without noise, of the 10,000 test digits and of the same with noise of
standard deviation 0.5. The plain autoencoder copies a part of the noise, 0.0486 against 0.0133 of the denoising one;
what the others pay for not doing so shows on clean digits.

With --out the picture shows test digits, the same with noise, and what each model makes of them.

The last line is the error of the plain autoencoder on noisy digits over that of the denoising one, 3.66.

    PYROVAE_DATA=~/data python examples/09_denoising.py [--smoke] [--out denoising.png]
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
NOISE = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description="Denoising autoencoder and VAE on MNIST.")
    parser.add_argument("--smoke", action="store_true", help="two epochs of 8x8 digits, to see that it runs")
    parser.add_argument("--out", type=Path, help="where to draw the restored digits, a .png")
    args = parser.parse_args()
    data = pv.data.digits(binarize=None) if args.smoke else pv.data.mnist(binarize=None)
    epochs = 2 if args.smoke else 20
    torch.manual_seed(0)
    noisy = pv.nn.GaussianNoise(NOISE)(data.test)
    train = torch.cat([data.train, data.val])

    models = {
        "autoencoder": autoencoder,
        "denoising autoencoder": denoising_autoencoder,
        "denoising VAE": denoising_vae,
    }
    vaes, errors = {}, {}
    print(f"{'squared error':<22} {'clean digits':>13} {'noisy digits':>13}")
    for name, made in models.items():
        torch.manual_seed(0)
        vaes[name] = vae = made(train.shape[1])
        optim = pyro.optim.Adam({"lr": 1e-3})
        pv.fit(vae, train, epochs=epochs, batch_size=128, optim=optim, seed=0, progress=False)
        clean, errors[name] = (squared_error(vae, x, data.test) for x in (data.test, noisy))
        print(f"{name:<22} {clean:>13.4f} {errors[name]:>13.4f}")
    if args.out is not None:
        draw(vaes, data, noisy, args.out)
    ratio = errors["autoencoder"] / errors["denoising autoencoder"]
    print(f"squared error on noisy digits, plain over denoising: {ratio:.2f}")


def decoder(pixels: int) -> nn.Module:
    return pv.nn.MLP(LATENT_DIM, HIDDEN[::-1], pixels)


def encoder(pixels: int) -> nn.Module:
    return pv.nn.MLP(pixels, HIDDEN)


def noisy_encoder(pixels: int) -> nn.Module:
    return pv.nn.Corrupted(encoder(pixels), pv.nn.GaussianNoise(NOISE))


def autoencoder(pixels: int) -> pv.VAE:
    """At variance 1/2 the objective is the squared error itself."""
    likelihood = pv.likelihoods.Normal(decoder(pixels), scale=math.sqrt(0.5))
    return pv.VAE(pv.priors.Flat(LATENT_DIM), likelihood, pv.guides.Delta(encoder(pixels), LATENT_DIM))


def denoising_autoencoder(pixels: int) -> pv.VAE:
    likelihood = pv.likelihoods.Normal(decoder(pixels), scale=math.sqrt(0.5))
    return pv.VAE(pv.priors.Flat(LATENT_DIM), likelihood, pv.guides.Delta(noisy_encoder(pixels), LATENT_DIM))


def denoising_vae(pixels: int) -> pv.VAE:
    likelihood = pv.likelihoods.Normal(decoder(pixels), scale="shared")
    return pv.VAE(pv.priors.Normal(LATENT_DIM), likelihood, pv.guides.Normal(noisy_encoder(pixels), LATENT_DIM))


def squared_error(vae: pv.VAE, x: Tensor, target: Tensor) -> float:
    """Of a pixel of what becomes of x."""
    return (vae.reconstruct(x) - target).square().mean().item()


def draw(vaes: dict[str, pv.VAE], data: pv.data.Data, noisy: Tensor, path: Path, columns: int = 20) -> None:
    """Rows of digits: clean, noisy, and restored by each model."""
    two_of_each = torch.cat([(data.labels["test"] == label).nonzero()[: columns // 10, 0] for label in range(10)])
    x, damaged = data.test[two_of_each], noisy[two_of_each]
    rows = {"clean": x, "noisy": damaged, **{name: vae.reconstruct(damaged) for name, vae in vaes.items()}}
    shown = {name.replace(" ", "\n"): images.clamp(0, 1) for name, images in rows.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    pv.plots.image_rows(shown, data.image_shape).savefig(path)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
