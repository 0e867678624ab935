"""The variational autoencoder: three parts, two Pyro functions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyrovae import guards

__all__ = ["VAE", "evaluating"]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """``eval`` mode and no gradients; each submodule's mode is put back after."""
    modes = [(submodule, submodule.training) for submodule in module.modules()]
    try:
        module.eval()
        with torch.no_grad():
            yield
    finally:
        for submodule, training in modes:
            submodule.training = training


class VAE(nn.Module):
    r"""A prior, a likelihood and a guide as one Pyro model and one Pyro guide.

    .. math::
        p(x, z) = p(z)\, p(x \mid z), \qquad
        \log p(x) \ge E_{q(z \mid x)}\left[\log p(x \mid z)\right] - KL\left(q(z \mid x) \,\|\, p(z)\right)

    ``model`` and ``guide`` are what ``pyro.infer.SVI`` takes, with any Pyro objective and optimizer.

    Args:
        prior: p(z): called with no argument, it samples the latent sites and returns what the decoder reads.
        likelihood: p(x|z): called with z, it returns the distribution of x.
        guide: q(z|x): called with x, it samples the sites that the prior samples. Kept as ``vae.posterior``.

    Shape: x is ``(N, *event_shape)``, z ``(N, D)``; the plate ``"data"`` is the first dimension.
    Raises: ValueError if prior and guide have different supports.
    References: Kingma and Welling (2014), "Auto-Encoding Variational Bayes", eq. 3.
    """

    config: dict[str, Any] | None = None  # what build_vae was called with, from which load() builds it again

    def __init__(self, prior: nn.Module, likelihood: nn.Module, guide: nn.Module) -> None:
        super().__init__()
        guards.check_support(prior, guide)
        self.prior = prior
        self.likelihood = likelihood
        self.posterior = guide

    def model(self, x: Tensor | None = None, num_samples: int = 1) -> Tensor:
        """p(x, z): with x, one row of the plate per datum; without, ``num_samples`` draws."""
        guards.check_tensors(self, x)
        guards.register(self)
        with pyro.plate("data", num_samples if x is None else len(x), dim=-1), guards.ModelSites():
            z = self.prior()
            return pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """q(z|x), one row of the plate per datum."""
        guards.check_tensors(self, x)
        guards.register(self)
        with pyro.plate("data", len(x), dim=-1), guards.GuideSites():
            return self.posterior(x)

    def encode(self, x: Tensor) -> Tensor:
        """The code of x, ``(N, D)``: the guide's mean unless it says otherwise, and the same at every call."""
        guards.check_tensors(self, x)
        with evaluating(self):
            return self.posterior.encode(x)  # type: ignore[operator]  # torch types attributes as tensors

    def decode(self, z: Tensor) -> Tensor:
        """The mean of p(x|z), ``(N, *event_shape)``."""
        with evaluating(self):
            return self.likelihood.mean(z)  # type: ignore[operator]  # torch types attributes as tensors

    def reconstruct(self, x: Tensor) -> Tensor:
        """x through its code and back: ``decode(encode(x))``."""
        return self.decode(self.encode(x))

    def sample_prior(self, num_samples: int = 1) -> Tensor:
        """Draws of what the decoder reads, ``(num_samples, D)``."""
        with evaluating(self), pyro.plate("data", num_samples, dim=-1):
            return self.prior()

    def sample(self, num_samples: int = 1) -> Tensor:
        """Draws from p(x), ``(num_samples, *event_shape)``."""
        with evaluating(self):
            return self.model(num_samples=num_samples)
