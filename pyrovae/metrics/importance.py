r"""Importance sampling from the guide: log p(x) with what says how far to trust it.

The weights are :math:`w_k = p(x, z_k) / q(z_k|x)` for :math:`z_k \sim q(z|x)`; see :mod:`pyrovae.metrics.likelihood`
for what stands for p where all data share sites.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.metrics.draws import Pair, chunks, measuring, weighing
from pyrovae.rows import Rows, num_rows
from pyrovae.vae import VAE

__all__ = ["ImportanceSampling", "importance_curve", "importance_sampling", "pareto_k"]

FEWEST = 5  # weights in a tail that is fitted


class ImportanceSampling(NamedTuple):
    """The bound on log p(x) in nats, the effective number of its draws and the tail index of its weights; ``(N,)``."""

    log_likelihood: Tensor
    effective_sample_size: Tensor
    pareto_k: Tensor


def importance_sampling(vae: VAE | Pair, x: Rows, num_samples: int = 5000) -> ImportanceSampling:
    r"""The importance-weighted bound on log p(x) of each datum, with its diagnostics.

    .. math::
        \log p(x) \ge E \log \frac{1}{K} \sum_k w_k , \qquad
        ESS = \frac{(\sum_k w_k)^2}{\sum_k w_k^2} \in [1, K] , \qquad
        P(w > u) \propto u^{-1/\hat k} \text{ for large } u

    The bound is trusted where :math:`\hat k < 0.7`. Above, the weights vary so much that the mean of K of them lies
    below p(x) as a rule, by an amount that neither it nor its spread tells: draw more, or use
    :func:`~pyrovae.metrics.annealed_importance_sampling`. ESS is itself an estimate, too large where the guide misses
    a part of the posterior; no diagnostic sees a part that no draw met.

    The draws pass in chunks: a datum's sums and its largest weights are all that is kept.

    Args:
        vae: A VAE or a pair ``(model, guide)``.
        x: ``(N, *event_shape)``.
        num_samples: :math:`K`; at least 21 for :math:`\hat k`, which is NaN below.

    Raises: ValueError when a guide's site is a point (Delta), whose weights are no density ratio.
    References: Burda, Grosse and Salakhutdinov (2016), eq. 8; Kong (1992), "A note on importance sampling using
        standardized weights"; Vehtari, Simpson, Gelman, Yao and Gabry (2024), "Pareto smoothed importance sampling",
        whose smoothing of the weights is not done here: the smoothed mean is no bound.
    See also: :func:`pareto_k`.
    """
    tail = _tail_length(num_samples)
    parts = []
    log_weights = weighing(vae, x, num_samples)
    with measuring(vae):
        for rows, draws in chunks(x, num_samples):
            sums: list[Tensor] = []
            squares: list[Tensor] = []
            kept: list[Tensor] = []
            for k in draws:
                log_w = log_weights(rows, k)
                sums.append(log_w.logsumexp(0))
                squares.append((2 * log_w).logsumexp(0))
                kept = [_largest(torch.cat([*kept, log_w]), tail + 1)]
            total, square = (torch.stack(logs).logsumexp(0) for logs in (sums, squares))
            ess = torch.where(total == -math.inf, 0.0, (2 * total - square).exp())
            parts.append((total - math.log(num_samples), ess, _fitted(kept[0], tail)))
    return ImportanceSampling(*map(torch.cat, zip(*parts, strict=True)))


def importance_curve(vae: VAE | Pair, x: Rows, num_samples: Sequence[int] = (1, 5, 50, 500, 5000)) -> dict[int, Tensor]:
    r"""The importance-weighted bound of each datum for several numbers of draws, ``(N,)`` each, from one set of draws.

    .. math:: L_K = \frac{1}{G} \sum_{g=1}^G \log \frac{1}{K} \sum_{k=1}^K w_{gk} , \qquad
              G = \lfloor K_{max} / K \rfloor

    :math:`L_1` is the ELBO, and :math:`L_{K_{max}} - L_1` estimates :math:`KL(q(z|x) \,\|\, p(z|x))` from below. The
    draws are cut into groups, so that each :math:`L_K` is unbiased for its bound; where each number divides the next,
    as it does unless said otherwise, the values of a datum grow with K without exception, by Jensen's inequality. A
    slope that has not ended says that more draws are needed.

    Args:
        vae: A VAE or a pair ``(model, guide)``.
        x: ``(N, *event_shape)``.
        num_samples: The numbers of draws :math:`K`.

    Units: nats.
    Raises: ValueError unless ``num_samples`` are whole numbers, one or more of them, each at least 1; when a guide's
        site is a point (Delta).
    References: Burda, Grosse and Salakhutdinov (2016), theorem 1.
    """
    if len(num_samples) == 0 or not all(isinstance(k, int) and k >= 1 for k in num_samples):
        raise ValueError(f"num_samples must be whole numbers of draws, each at least 1, got {num_samples!r}")
    curve: dict[int, list[Tensor]] = {k: [] for k in num_samples}
    log_weights = weighing(vae, x, max(num_samples))
    with measuring(vae):
        for rows, draws in chunks(x, max(num_samples)):
            log_w = torch.cat([log_weights(rows, k) for k in draws])
            for k, values in curve.items():
                groups = log_w[: len(log_w) // k * k].reshape(-1, k, num_rows(rows))
                values.append((groups.logsumexp(1) - math.log(k)).mean(0))
    return {k: torch.cat(values) for k, values in curve.items()}


def pareto_k(log_weights: Tensor) -> Tensor:
    r"""The tail index :math:`\hat k` of weights, ``(N,)``: they have :math:`1/k` finite moments.

    A generalised Pareto law is fitted to what the :math:`M = \lceil \min(K/5, 3\sqrt K) \rceil` largest weights exceed
    the next one by, by the estimator of Zhang and Stephens, with the weak prior of Vehtari et al.: ten observations of
    1/2, :math:`\hat k = (M k + 5) / (M + 10)`. Below 1/2 the weights have a variance; from 0.7 up the mean of any
    affordable number of them is not to be trusted.

    It is 0 where the tail's weights are all equal (to the square root of the precision), as at the exact posterior;
    infinite where fewer than five of them exceed the next at all, one weight having all of the mass; NaN where
    K < 21, whose tail is too short.

    Args:
        log_weights: ``(K, N)``, in nats.

    Raises: ValueError unless ``log_weights`` is ``(K, N)``.
    References: Zhang and Stephens (2009), "A new and efficient estimation method for the generalized Pareto
        distribution"; Vehtari, Simpson, Gelman, Yao and Gabry (2024), "Pareto smoothed importance sampling", section 3
        and appendix C.
    """
    if log_weights.dim() != 2 or not log_weights.is_floating_point():
        raise ValueError(
            f"log_weights must be (K, N) of real numbers, got {log_weights.dtype} of shape {tuple(log_weights.shape)}"
        )
    tail = _tail_length(len(log_weights))
    return _fitted(_largest(log_weights, tail + 1), tail)


def _largest(log_weights: Tensor, num: int) -> Tensor:
    return log_weights.topk(min(num, len(log_weights)), dim=0).values


def _tail_length(num_samples: int) -> int:
    return math.ceil(min(num_samples / 5, 3 * math.sqrt(num_samples)))


def _fitted(largest: Tensor, tail: int) -> Tensor:
    """k of the ``tail + 1`` largest log-weights, which come in falling order."""
    if tail < FEWEST:
        return torch.full_like(largest[0], math.nan)
    relative = (largest - largest[0]).double()
    excess = (relative[:-1].exp() - relative[-1].exp()).flip(0)  # rising
    n = (excess > 0).sum(0)
    fitted = (n * _generalized_pareto_k(excess, n) + 5) / (n + 10)
    even = -relative[-1] <= math.sqrt(torch.finfo(largest.dtype).eps)
    nothing = largest[0] == -math.inf
    k = torch.where(even, 0.0, torch.where((n < FEWEST) | nothing, math.inf, fitted))
    return k.to(largest.dtype)


def _generalized_pareto_k(excess: Tensor, n: Tensor) -> Tensor:
    """The estimator of Zhang and Stephens for the n positive numbers of each column, which rises."""
    zeros = len(excess) - n
    quartile = excess.gather(0, (zeros + torch.floor(n / 4 + 0.5).long() - 1).clamp(0, len(excess) - 1)[None])
    grid = 30 + n.sqrt().floor()
    i = torch.arange(1, 31 + math.isqrt(len(excess)), dtype=excess.dtype, device=excess.device)[:, None]
    theta = 1 / excess[-1:] + (1 - torch.sqrt(grid / (i - 0.5))) / (3 * quartile)
    k = torch.stack([torch.log1p(-t * excess).sum(0) / n for t in theta])  # zeros add nothing
    profile = n * (torch.log(-theta / k) - k - 1)
    weight = torch.softmax(torch.where(i <= grid, profile, -math.inf), 0)
    return torch.log1p(-(weight * theta).sum(0) * excess).sum(0) / n
