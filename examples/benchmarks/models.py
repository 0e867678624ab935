"""The same VAE for each library that the benchmarks compare, as its own users write it, and the data.

One network for all: ReLU layers, or two convolutions of stride 2 each way; a Bernoulli likelihood of logits and a
Normal guide whose scale is the softplus of what the encoder gives, as in pyrovae; torch's default initialisation. That
of pythae differs, as its classes ask for: a log-variance in place of the scale, and probabilities in place of logits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, pairwise
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional

import pyrovae as pv

IMAGE = (1, 28, 28)
SCALE_FLOOR = 1e-5


def images(num: int, width: int = 784) -> Tensor:
    """``(num, width)`` of 0 and 1: MNIST where ``PYROVAE_DATA`` is set, else noisy copies of ten patterns."""
    if width == 784 and "PYROVAE_DATA" in os.environ:
        data = pv.data.mnist()
        return torch.cat([data.train, data.val, data.test])[:num].clone()  # the rest is not kept
    random = np.random.default_rng(0)
    patterns = np.where(random.random((10, width)) < 0.2, 0.9, 0.02)
    return torch.from_numpy(random.binomial(1, patterns[random.integers(10, size=num)])).float()


def batches(sizes: Sequence[int], batch_size: int, conv: bool = False) -> Iterator[Tensor]:
    """Twenty batches, over and over."""
    x = images(20 * batch_size, sizes[0])
    return cycle((x.reshape(-1, *IMAGE) if conv else x).split(batch_size))


def pyrovae(sizes: Sequence[int], prior: str = "normal", conv: bool = False, **options: Any) -> pv.VAE:
    """Sizes are those of the data, of the hidden layers and of the code."""
    torch.manual_seed(0)
    event_shape, network = (IMAGE, "conv") if conv else ((sizes[0],), "mlp")
    return pv.build_vae(event_shape, sizes[-1], prior, hidden=sizes[1:-1], network=network, **options)


def networks(sizes: Sequence[int], conv: bool = False) -> tuple[nn.Module, nn.Module]:
    """An encoder to means and what becomes scales, and a decoder to logits."""
    torch.manual_seed(0)
    *hidden, dim = sizes[1:]
    if not conv:
        return mlp([sizes[0], *hidden, 2 * dim]), mlp([dim, *hidden[::-1], sizes[0]])
    encoder = nn.Sequential(
        *[nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Flatten()],
        mlp([64 * 7 * 7, *hidden, 2 * dim]),
    )
    decoder = nn.Sequential(
        *[mlp([dim, *hidden, 64 * 7 * 7]), nn.Unflatten(1, (64, 7, 7)), nn.ReLU()],
        *[nn.ConvTranspose2d(64, 32, 3, 2, 1, 1), nn.ReLU(), nn.ConvTranspose2d(32, 1, 3, 2, 1, 1)],
    )
    return encoder, decoder


def mlp(widths: Sequence[int]) -> nn.Sequential:
    layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


class ByHand(nn.Module):
    """Plain PyTorch, without a distribution: the negative ELBO summed over the batch, the KL in closed form."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x: Tensor) -> Tensor:
        loc, raw = self.encoder(x).chunk(2, -1)
        scale = functional.softplus(raw) + SCALE_FLOOR
        z = loc + scale * torch.randn_like(loc)
        kl = (0.5 * (loc.square() + scale.square() - 1) - scale.log()).sum()
        return functional.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum") + kl


class Pyro(nn.Module):
    """As Pyro's own example: the KL at the draw of z, as ``Trace_ELBO`` has it."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        dim = next(self.decoder.parameters()).shape[1]
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), dim), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(x.dim() - 1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            loc, raw = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, functional.softplus(raw) + SCALE_FLOOR).to_event(1))


def pythae(encode: Callable[[Tensor], Sequence[Tensor]], decoder: nn.Module, sizes: Sequence[int]) -> Any:
    """pythae's VAE of a function that gives means and log-variances, and a decoder to logits.

    Modules that ``encode`` is made of must be its attributes, or itself, to be trained.
    """
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.encode = encode

        def forward(self, x: Tensor) -> ModelOutput:
            loc, log_var = self.encode(x)
            return ModelOutput(embedding=loc, log_covariance=log_var)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.decoder = decoder

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.decoder(z).sigmoid())

    config = VAEConfig(input_dim=(sizes[0],), latent_dim=sizes[-1], reconstruction_loss="bce")
    return VAE(config, Encoder(), Decoder())


class Halves(nn.Sequential):
    """A network whose output is cut in two, for pythae."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return super().forward(x).chunk(2, -1)
