"""What is missing, given what is observed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyrovae.metrics.draws import Pair, check_points, chunks, drawn, local, measuring, passing
from pyrovae.rows import Rows, data_of, joined
from pyrovae.vae import VAE

__all__ = ["impute"]


def impute(vae: VAE | Pair, x: Rows, num_samples: int = 1000) -> Tensor:
    r"""x with each hole filled by its mean given what is observed of that datum, :math:`E[x_{mis}|x_{obs}]`.

    .. math::
        E[x_{mis}|x_{obs}] \approx \sum_k \frac{w_k}{\sum_j w_j}\, E[x_{mis}|z_k] , \qquad
        w_k = \frac{p(x_{obs}|z_k)\, p(z_k)}{q(z_k|x_{obs})} , \qquad z_k \sim q(z|x_{obs})

    which is self-normalised importance sampling, whose bias is of order 1/K. With one draw it is the decoder's mean at
    a draw from the guide. Dimensions are independent given z, so that the mean given z needs no more than z.
    :func:`~pyrovae.metrics.importance_sampling` of the same data says how far the weights are to be trusted.

    Args:
        vae: A VAE with a :class:`~pyrovae.likelihoods.Masked` likelihood, or a pair ``(model, guide)`` that takes
            holes.
        x: ``(N, *event_shape)``, NaN where it is missing; with labels ``(x, y)``.
        num_samples: :math:`K`.

    Shape: that of x, which is kept where it is observed.
    Units: those of the data; of bits the probability of a 1.
    Raises: ValueError if the likelihood takes no NaN or has no mean (Categorical), or the guide is a point (Delta).
    References: Mattei and Frellsen (2019), "MIWAE: deep generative modelling and imputation of incomplete data sets",
        on single imputation.
    """
    check: Any = getattr(getattr(vae, "likelihood", None), "check", None)
    if check is not None:
        check(data_of(x))
    each = passing(_weighted_mean, vae, x, num_samples)
    filled = []
    with measuring(vae):
        for rows, draws in chunks(x, num_samples):
            log_weights, means = zip(*(each(rows, k) for k in draws), strict=True)
            mean = _averaged(torch.stack(log_weights), torch.stack(means))
            filled.append(torch.where(data_of(rows).isnan(), mean, data_of(rows)))
    table = torch.cat(filled)
    if bool(table.isnan().any()):
        raise ValueError("likelihood: it gives NaN for the mean of what is missing, as one of categories does")
    return table


def _weighted_mean(vae: VAE | Pair, num_draws: int, *x: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithm of the sum of the weights, ``(N,)``, and the weighted mean of E[x|z], ``(N, *event_shape)``."""
    model, guide = map(local, drawn(vae, joined(x), num_draws))
    check_points(guide)
    log_w = sum(site["log_prob"] for site in model.values()) - sum(site["log_prob"] for site in guide.values())
    (data,) = (site["fn"] for site in model.values() if site["is_observed"])
    return log_w.logsumexp(0), _averaged(log_w, data.mean)


def _averaged(log_weights: Tensor, values: Tensor) -> Tensor:
    """The mean of values ``(K, N, ...)`` under weights ``(K, N)``."""
    return torch.einsum("kn,kn...->n...", log_weights.softmax(0), values)
