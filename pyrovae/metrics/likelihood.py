r"""Bounds on log p(x), one value per datum, in nats, and the scales on which they are reported.

Each function takes a VAE or a pair ``(model, guide)`` of Pyro functions whose data plate is the rightmost dimension.
Where they are called with several tensors, ``model(x, y)``, x is the tuple ``(x, y)`` of them, with a row of each for a
datum; p(x) is then of all that the model observes, given the rest.
Nothing here trains: no gradient is taken and a VAE is put in ``eval`` mode. The scale of a subsampled plate is left
out: a datum's value does not depend on how many others there are.

Where all data share sites s, the guide's q(s) is what was learned of them: p(x) stands for :math:`E_{q(s)}\, p(x|s)`,
the predictive density of a new datum, and p(x, z) for p(x, z|s), with a new s for each draw of z. The KL of s is not in
it: it belongs to the training set, which paid it once. The data of one pass have their draws of s in common.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.metrics.draws import Pair, check_points, chunks, drawn, local, measuring
from pyrovae.metrics.importance import importance_sampling
from pyrovae.objectives import site_kl
from pyrovae.rows import Rows, data_of, num_rows, tensors
from pyrovae.vae import VAE

__all__ = [
    "Elbo",
    "RateDistortion",
    "bits_per_dimension",
    "elbo",
    "log_likelihood",
    "mean_squared_error",
    "rate_distortion",
]


class Elbo(NamedTuple):
    """The evidence lower bound and its two terms, each ``(N,)``, in nats.

    ``kl_is_exact`` says whether each site's KL came from a closed form; otherwise it is log q - log p at the draws.
    """

    reconstruction: Tensor
    kl: Tensor
    kl_is_exact: bool

    @property
    def elbo(self) -> Tensor:
        """``reconstruction - kl``."""
        return self.reconstruction - self.kl


def elbo(vae: VAE | Pair, x: Rows, num_samples: int = 100) -> Elbo:
    r"""The evidence lower bound of each datum.

    .. math:: E_{q(z|x)}[\log p(x|z)] - KL(q(z|x) \,\|\, p(z)) = E_{q(z|x)}[\log p(x, z) - \log q(z|x)] \le \log p(x)

    The bound is averaged in its second form, which does not vary where q is the posterior; the KL is exact where a
    closed form is registered, and the reconstruction is the bound plus the KL.

    Args:
        vae: A VAE or a pair ``(model, guide)``.
        x: ``(N, *event_shape)``.
        num_samples: Draws of z over which each datum's terms are averaged.

    References: Kingma and Welling (2014), eq. 3.
    """
    return _elbo(vae, x, num_samples, points=True)


def log_likelihood(vae: VAE | Pair, x: Rows, num_samples: int = 5000) -> Tensor:
    r"""The importance-weighted bound on log p(x) of each datum, ``(N,)``.

    .. math:: \log \frac{1}{K} \sum_{k=1}^K \frac{p(x, z_k)}{q(z_k|x)} , \qquad z_k \sim q(z|x)

    In expectation it is at most log p(x) and grows with K. With sites s that all data share so it is too: the weight of
    the pair :math:`(s_k, z_k)` is :math:`p(x, z_k|s_k) / q(z_k|x, s_k)`, whose mean is :math:`E_{q(s)}\, p(x|s)`. The
    weights are averaged for each datum by itself, in chunks of bounded memory;
    :func:`~pyrovae.metrics.importance_sampling` gives the same numbers with what says how far to trust them.

    Args:
        vae: A VAE or a pair ``(model, guide)``.
        x: ``(N, *event_shape)``.
        num_samples: :math:`K`.

    Raises: ValueError when a guide's site is a point (Delta), whose weights are no density ratio.
    References: Burda, Grosse and Salakhutdinov (2016), "Importance weighted autoencoders", eq. 8.
    """
    return importance_sampling(vae, x, num_samples).log_likelihood


class RateDistortion(NamedTuple):
    """Rate and distortion of each datum, ``(N,)``, in nats; the ELBO is minus their sum."""

    rate: Tensor
    distortion: Tensor


def rate_distortion(vae: VAE | Pair, x: Rows, num_samples: int = 100) -> RateDistortion:
    r"""What a code costs and what it leaves unsaid, of each datum.

    .. math:: R = KL(q(z|x) \,\|\, p(z)) , \qquad D = -E_{q(z|x)} \log p(x|z) , \qquad ELBO = -(R + D)

    Models of different priors lie on one plane only with the same likelihood, its noise included: D of a Normal falls
    without limit as its scale does.

    Args:
        vae: A VAE or a pair ``(model, guide)``.
        x: ``(N, *event_shape)``.
        num_samples: Draws of z over which the terms are averaged.

    Raises: ValueError when a guide's site is a point (Delta), whose rate is infinite.
    References: Alemi, Poole, Fischer, Dillon, Saurous and Murphy (2018), "Fixing a broken ELBO", section 2.
    """
    terms = _elbo(vae, x, num_samples, points=False)
    return RateDistortion(terms.kl, -terms.reconstruction)


def bits_per_dimension(log_likelihood: Tensor, num_dimensions: int, levels: int = 1) -> Tensor:
    r"""A log-likelihood in nats per datum as bits per dimension, of which fewer are better.

    .. math:: -\frac{\log_2 p(x)}{D} + \log_2 L

    With L = 1 it is the first term. Grey values y of L levels that became x = (y + u) / L in [0, 1], with u uniform in
    [0, 1) (dequantisation), are told in the units of y by the second: :math:`p_y = p_x / L^D`. The result then bounds
    the bits of the discrete value from above. For discrete data, and for data in their own units, L is 1.

    Args:
        log_likelihood: In nats per datum, of any shape.
        num_dimensions: :math:`D`, the numbers of one datum, such as 784.
        levels: :math:`L`, such as 256.

    Units: bits per dimension.
    Raises: ValueError if ``num_dimensions`` or ``levels`` is not a positive whole number.
    References: Theis, van den Oord and Bethge (2016), "A note on the evaluation of generative models", section 3.1.
    """
    for name, number in (("num_dimensions", num_dimensions), ("levels", levels)):
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"{name} must be a positive whole number, got {number!r}")
    return -log_likelihood / (num_dimensions * math.log(2)) + math.log2(levels)


def mean_squared_error(vae: VAE, x: Rows) -> Tensor:
    """Squared error of the reconstruction of each datum, averaged over its dimensions that are observed; ``(N,)``."""
    return ((vae.reconstruct(*tensors(x)) - data_of(x)) ** 2).flatten(1).nanmean(1)


def _elbo(vae: VAE | Pair, x: Rows, num_samples: int, points: bool) -> Elbo:
    reconstruction, kl, exact = [], [], True
    with measuring(vae):
        for rows, draws in chunks(x, num_samples):
            terms = [_elbo_terms(vae, rows, k, points) for k in draws]
            weights = [k / num_samples for k in draws]
            bound = torch.stack([w * t.elbo for w, t in zip(weights, terms, strict=True)]).sum(0)
            kl.append(torch.stack([w * t.kl for w, t in zip(weights, terms, strict=True)]).sum(0))
            reconstruction.append(bound + kl[-1])
            exact = exact and all(t.kl_is_exact for t in terms)
    return Elbo(torch.cat(reconstruction), torch.cat(kl), exact)


def _elbo_terms(vae: VAE | Pair, x: Rows, num_draws: int, points: bool) -> Elbo:
    model, guide = drawn(vae, x, num_draws)
    if not points:
        check_points(local(guide))
    # the KL of an only site is the same at each draw, and quadrature is not to be repeated
    alone = drawn(vae, x, 1) if len(guide) == 1 else (model, guide)
    kl, exact = data_of(x).new_zeros(num_rows(x)), True
    for name in local(guide):
        term, is_exact = site_kl(name, *alone)
        kl = kl + (term if is_exact else site_kl(name, model, guide)[0]).mean(0)
        exact = exact and is_exact
    log_p, log_q = (sum(site["log_prob"] for site in local(sites).values()) for sites in (model, guide))
    return Elbo((log_p - log_q).mean(0) + kl, kl, exact)
