"""A point with a cost: what the guide of a sparse autoencoder samples."""

from __future__ import annotations

import pyro.distributions as dist
from torch import Tensor
from torch.distributions import register_kl

__all__ = ["Point"]


class Point(dist.Delta):
    r"""A point :math:`v` at which :math:`\log q(v)` is a cost :math:`c` in nats, which a loss then pays.

    .. math:: KL(q \,\|\, p) = c - \log p(v)

    Pyro's KL from a ``Delta`` leaves its ``log_density`` out, so that ``TraceMeanField_ELBO`` would drop the cost.

    Args:
        v: The point, ``(*batch, *event)``.
        log_density: :math:`c`, ``(*batch,)`` in nats, or a number.
        event_dim: Number of event dimensions of ``v``.

    Shape: batch_shape ``(*batch,)``, event_shape ``(*event,)``.
    """


@register_kl(Point, dist.Distribution)
def _kl_point(q: Point, p: dist.TorchDistribution) -> Tensor:
    return q.log_density - p.log_prob(q.v)
