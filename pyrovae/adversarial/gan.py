"""The generative adversarial network."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyrovae import guards
from pyrovae.adversarial.updates import Game, check_game
from pyrovae.compilation import by_rows
from pyrovae.vae import evaluating

__all__ = ["GAN"]

OF_A_GUIDE = ("guide", "posterior", "likelihood", "encode", "reconstruct")


class GAN(Game):
    r"""Draws of a prior through a generator, matched to the data by a critic.

    .. math:: z \sim p(z) , \qquad \tilde x = g(z)

    ``model`` is a Pyro function that draws x; there is no guide, for x has no density. :func:`pyrovae.fit` trains it,
    by the two updates of :class:`Updates`; ``train_loss`` and ``val_loss`` are then the divergence of the draws from
    the training and from the validation data as far as the critic can tell. A critic that tells the training data
    alone from draws knows them by heart. What reads codes or densities of a model raises.

    Args:
        prior: p(z): any of :mod:`pyrovae.priors` without learned hyper-parameters, or a module of your own that samples
            sites and returns a code.
        generator: Maps codes ``(N, D)`` to data ``(N, *event_shape)``.
        critic: Maps data to one number for each row.
        name: As of a :class:`~pyrovae.VAE`.

    Shape: x is ``(N, *event_shape)``; the plate ``"data"`` is the first dimension.
    Raises: ValueError if a part is no instance of a module, or the prior has learned or shared sites.
    References: Goodfellow et al. (2014), "Generative adversarial nets".
    See also: :class:`Sampler`, for a prior that is a function which draws; :func:`pyrovae.metrics.class_coverage` and
        :func:`pyrovae.metrics.nearest_neighbors`, for whether it has collapsed.
    Example:
        >>> gan = GAN(pyrovae.priors.Normal(8), pyrovae.nn.MLP(8, [32], 64), pyrovae.nn.MLP(64, [32], 1))
        >>> gan.sample(5).shape
        torch.Size([5, 64])
    """

    def __init__(self, prior: nn.Module, generator: nn.Module, critic: nn.Module, name: str | None = None) -> None:
        super().__init__()
        guards.check_name(name)
        guards.check_parts(prior=prior, generator=generator, critic=critic)
        check_game(prior, critic)
        self.prior, self.generator, self.critic, self.name = prior, generator, critic, name

    def __getattr__(self, name: str) -> Any:
        if name in OF_A_GUIDE:  # what measures or draws a VAE asks for one of these
            raise AttributeError(
                f"a GAN has no {name!r}: it has draws, and neither a guide nor a density; "
                f"pyrovae.AdversarialAutoencoder has a guide"
            )
        return super().__getattr__(name)

    def model(self, num_samples: int = 1) -> Tensor:
        """p(z) and x = g(z), ``num_samples`` rows of the plate."""
        guards.register(self)
        with pyro.plate("data", num_samples, dim=-1):
            x = self.generator(self.prior())
            return pyro.deterministic("x", x, event_dim=x.dim() - 1)

    def draws(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x, self.model(len(x)), x.new_zeros(())

    def decode(self, z: Tensor) -> Tensor:
        """g(z), ``(N, *event_shape)``."""
        with evaluating(self):
            return by_rows(self.generator, z)

    def sample_prior(self, num_samples: int = 1) -> Tensor:
        """Draws of z, ``(num_samples, D)``."""
        with evaluating(self), pyro.plate("data", num_samples, dim=-1):
            return self.prior()

    def sample(self, num_samples: int = 1) -> Tensor:
        """Draws of x, ``(num_samples, *event_shape)``."""
        with evaluating(self):
            return by_rows(lambda rows: self.model(len(rows)), torch.empty(num_samples, 0))
