r"""A variational autoencoder in plain Pyro: a model, a guide and SVI, with nothing of pyrovae but its data.

The model is :math:`p(z)\, p(x|z)` with a standard Normal prior over 16 coordinates; the guide is :math:`q(z|x)`, a
Normal whose mean and scale a network reads from x. Both stand in the plate ``"data"``, one row per datum. ``pv.VAE``
writes these two functions from a prior, a likelihood and a guide: ``01_vae_digits.py`` is the same model with it.

The last line is the held-out ELBO, a lower bound on the mean of log p(x) over the 180 test digits: near -23.3 nats per
datum after 200 epochs, from -44.4 (64 log 2, fair coins) before any training.

    python examples/00_plain_pyro.py [--smoke]
"""

from __future__ import annotations

import argparse

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn

from pyrovae import data

LATENT_DIM = 16


def main() -> None:
    parser = argparse.ArgumentParser(description="A VAE by hand, on 8x8 digits.")
    parser.add_argument("--smoke", action="store_true", help="two epochs, to see that it runs")
    args = parser.parse_args()
    epochs = 2 if args.smoke else 200

    torch.manual_seed(0)
    digits = data.digits("dynamic")  # the training pixels are drawn anew from their grey values in each batch
    encoder = nn.Sequential(nn.Linear(64, 400), nn.ReLU(), nn.Linear(400, 2 * LATENT_DIM))
    decoder = nn.Sequential(nn.Linear(LATENT_DIM, 400), nn.ReLU(), nn.Linear(400, 64))

    def model(x: Tensor) -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(LATENT_DIM), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    for epoch in range(1, epochs + 1):
        losses = [svi.step(x) for x in data.batches(digits.train, 128, transform=digits.transform)]
        if epoch % 20 == 0 or epoch <= 2:
            print(f"epoch {epoch:3d}: training loss {sum(losses) / len(digits.train):.2f} nats per datum")

    repeated = digits.test.repeat(20, 1)  # 20 draws of z for each datum
    print(f"held-out ELBO: {-svi.evaluate_loss(repeated) / len(repeated):.2f} nats per datum")


if __name__ == "__main__":
    main()
