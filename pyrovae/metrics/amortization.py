"""How far the guide is from the best q(z|x) of each datum."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from pyrovae.distributions import SpikeSlab
from pyrovae.guides import CoordinateAscent
from pyrovae.vae import VAE, evaluating

__all__ = ["AmortizationGap", "amortization_gap"]


class AmortizationGap(NamedTuple):
    """The bound of each datum under the guide, after refinement, and the gap between them; each ``(N,)``, in nats."""

    bound: Tensor
    refined: Tensor
    gap: Tensor


@torch.no_grad()
def amortization_gap(vae: VAE, x: Tensor, steps: int = 100) -> AmortizationGap:
    r"""How much the bound of each datum rises when q(z|x) is refined for that datum.

    .. math:: \max_q L(q, x) - L(q(\cdot|x), x) , \qquad
              L(q, x) = E_q[\log p(x|z)] - KL(q(z) \,\|\, p(z)) \le \log p(x)

    where the maximum is over independent spikes and slabs. It is found by sweeps of coordinate ascent from the answer
    of the guide, as :class:`~pyrovae.guides.Refined` does; both bounds are in closed form. Sweeps may end in a local
    optimum, so that the gap is a lower bound of the one above. It is never negative.

    Args:
        vae: With a spike-and-slab prior, a likelihood Normal with a linear decoder, and a guide of spikes and slabs:
            :class:`~pyrovae.guides.SpikeSlab`, :class:`~pyrovae.guides.Refined` or
            :class:`~pyrovae.guides.CoordinateAscent`.
        x: Data, ``(N, *event_shape)``.
        steps: Number of sweeps.

    Shape: a :class:`AmortizationGap` of three tensors ``(N,)``.
    Units: nats per datum.
    Raises: ValueError for another model or guide, or ``steps < 1``.
    References: Cremer, Li and Duvenaud (2018), "Inference suboptimality in variational autoencoders".
    """
    ascent = CoordinateAscent(vae.prior, vae.likelihood, steps)
    with evaluating(vae):
        distribution = getattr(vae.posterior, "distribution", None)
        q = None if distribution is None else distribution(x)
        each = getattr(q, "base_dist", None)
        if not isinstance(each, SpikeSlab) or each.support is not ascent.support:
            raise ValueError(
                f"vae must have a guide of spikes and slabs with the support of its prior, got "
                f"{type(vae.posterior).__name__}"
            )
        before, after = (_bound(vae, q, x) for q in (each, ascent.refined(each.to_event(1), x, steps)))
    return AmortizationGap(before, after, after - before)


def _bound(vae: Any, q: SpikeSlab, x: Tensor) -> Tensor:
    kl = kl_divergence(q, vae.prior.distribution().base_dist).sum(-1)
    return vae.likelihood(q.mean).expected_log_prob(q.to_event(1), x) - kl
