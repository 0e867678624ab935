"""The adversarial autoencoder."""

from __future__ import annotations

import math
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from pyrovae import guards
from pyrovae.adversarial.updates import Game, check_game
from pyrovae.objectives import StraightThrough, draw_sites
from pyrovae.objectives.sites import has_path, log_likelihood
from pyrovae.vae import VAE

__all__ = ["AdversarialAutoencoder"]


class AdversarialAutoencoder(Game, VAE):
    r"""An autoencoder whose codes are matched to the prior by a critic in the place of the KL.

    .. math:: \min\; -E\left[\log p(x \mid z)\right] + \lambda\, D\left(q(z), p(z)\right) , \qquad
        q(z) = E_x\left[q(z \mid x)\right]

    with the divergence D of the game. The prior is only drawn, so that one without a density is a prior too:
    :class:`Sampler`. It is no bound on log p(x). Model and guide are those of a :class:`~pyrovae.VAE`, of which it is
    one: what asks for no density of the prior is measured and drawn as there.

    :func:`pyrovae.fit` trains it; its losses are the sum above, with D as far as the critic can tell, in nats per
    datum.

    Args:
        prior: p(z), without learned hyper-parameters.
        likelihood: p(x|z).
        guide: q(z|x), whose draws have a path: gates, bits and categories are drawn hard and pass their gradient
            straight through, which is biased; ``Delta`` is a deterministic encoder.
        critic: Maps codes ``(N, D)`` to one number for each row. Where z has several sites it reads them side by side,
            in the order of the prior.
        weight: :math:`\lambda > 0`, in nats for each datum.
        name: As of a :class:`~pyrovae.VAE`.

    Shape: x is ``(N, *event_shape)``, z ``(N, D)``.
    Raises: ValueError as of :class:`~pyrovae.VAE`, for a prior with learned or shared sites, and for a guide with a
        draw that no gradient passes.
    References: Makhzani, Shlens, Jaitly, Goodfellow and Frey (2016), "Adversarial autoencoders", section 2; Tolstikhin,
        Bousquet, Gelly and Schoelkopf (2018), "Wasserstein auto-encoders", algorithm 1: encoder and decoder take one
        step on the sum, as there, where the former take one for each of its terms.
    See also: :func:`pyrovae.metrics.mmd_test`, for whether codes follow the prior.
    """

    def __init__(
        self,
        prior: nn.Module,
        likelihood: nn.Module,
        guide: nn.Module,
        critic: nn.Module,
        weight: float = 1.0,
        name: str | None = None,
    ) -> None:
        guards.check_parts(prior=prior, critic=critic)
        check_game(prior, critic)
        if not 0 < weight < math.inf:
            raise ValueError(f"weight must be positive, got {weight}")
        super().__init__(prior, likelihood, guide, name=name)
        self.critic = critic
        self.weight = weight

    def draws(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        model, guide = draw_sites(self.model, self.guide, (x,), {}, 1, StraightThrough())
        for name, site in guide.items():
            if not has_path(site):
                raise ValueError(
                    f"site {name!r}: no gradient passes a draw of the guide {type(self.posterior).__name__}"
                )
        with torch.no_grad(), pyro.plate("data", len(x), dim=-1):
            prior: Any = poutine.trace(self.prior).get_trace().nodes
        names = [name for name in prior if name in guide]
        real, fake = (torch.cat([sites[name]["value"] for name in names], -1) for sites in (prior, guide))
        return real, fake, -log_likelihood(model).mean()
