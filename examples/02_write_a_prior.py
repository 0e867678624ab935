r"""A prior that pyrovae does not have: each coordinate is near zero or far from it, a mixture of two Laplaces.

.. math:: p(z) = \prod_i \left[(1 - a)\, Laplace(z_i;\, 0, b_0) + a\, Laplace(z_i;\, 0, b_1)\right]

It is one class with one method, ``distribution()``. Nothing has to be sampled through it with gradients: the guide is
the one that is reparametrised. With a = 0.2, narrow scale 0.15 and wide scale 1.5 the variance is 0.94, the Normal's 1.

The table compares it with the Normal prior on 180 held-out digits, everything else the same: the ELBO, the
log-likelihood (importance-weighted, 1,000 draws), both in nats per datum, and how many coordinates of the code lie
within 0.1 of zero. The mixture's codes are the sparser, 71 % near zero where the Normal has 16 %; the model is the
worse one.

The last line is what that costs: the ELBO under the mixture minus the ELBO under the Normal, about -2.9 nats per datum.
The log-likelihoods differ by less, about -1.8: the rest is a Normal guide that fits a posterior of two peaks less well.

    python examples/02_write_a_prior.py [--smoke]
"""

from __future__ import annotations

import argparse

import pyro.distributions as dist
import torch
from torch import Tensor

import pyrovae as pv


class TwoLaplaces(pv.priors.Prior):
    """With probability ``active`` a coordinate has scale ``wide``, else ``narrow``."""

    weights: Tensor
    scales: Tensor

    def __init__(self, dim: int, active: float = 0.2, narrow: float = 0.15, wide: float = 1.5) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor([1 - active, active]).repeat(dim, 1))
        self.register_buffer("scales", torch.tensor([narrow, wide]).repeat(dim, 1))

    def distribution(self) -> dist.TorchDistribution:
        components = dist.Laplace(torch.zeros_like(self.scales), self.scales)
        return dist.MixtureSameFamily(dist.Categorical(self.weights), components).to_event(1)


def main() -> None:
    parser = argparse.ArgumentParser(description="A prior of one's own beside the Normal, on 8x8 digits.")
    parser.add_argument("--smoke", action="store_true", help="two epochs, to see that it runs")
    args = parser.parse_args()
    epochs, num_samples = (2, 50) if args.smoke else (200, 1000)

    data = pv.data.digits("dynamic")
    elbo = {}
    print(f"{'prior':<16} {'ELBO':>8} {'log-likelihood':>16} {'near zero':>10}")
    for name, prior in {"normal": pv.priors.Normal(16), "two Laplaces": TwoLaplaces(16)}.items():
        torch.manual_seed(0)
        encoder, decoder = pv.nn.MLP(64, [400]), pv.nn.MLP(16, [400], 64)
        vae = pv.VAE(prior, pv.likelihoods.Bernoulli(decoder), pv.guides.Normal(encoder, 16))
        pv.fit(vae, data, epochs=epochs, seed=0, progress=False)
        torch.manual_seed(0)
        elbo[name] = pv.metrics.elbo(vae, data.test).elbo.mean().item()
        log_likelihood = pv.metrics.log_likelihood(vae, data.test, num_samples).mean().item()
        near_zero = (vae.encode(data.test).abs() < 0.1).float().mean().item()
        print(f"{name:<16} {elbo[name]:>8.2f} {log_likelihood:>16.2f} {near_zero:>10.0%}")
    print(f"ELBO, two Laplaces minus normal: {elbo['two Laplaces'] - elbo['normal']:+.2f} nats per datum")


if __name__ == "__main__":
    main()
