"""Priors that are learned with the model: their density follows the codes of the data.

None has a KL in closed form, so each objective takes log q(z|x) - log p(z) at its draws: ``TraceMeanField_ELBO`` falls
back to that, and ``metrics.elbo`` says so by ``kl_is_exact=False``.
"""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import nn

from pyrovae.hyper import Constrained
from pyrovae.priors.base import Prior, check_dim

__all__ = ["Mixture"]


class Mixture(Prior):
    r"""Mixture of Normals over whole codes, all of it learned.

    .. math:: p(z) = \sum_{k=1}^K w_k \prod_{j=1}^D N(z_j;\, m_{kj},\, s_{kj}^2)

    One component is drawn for the whole code, so the coordinates are dependent: K clusters, where a mixture for each
    coordinate would have :math:`K^D`. The weights start equal, the scales at 1 and the means at draws from N(0, 1),
    which torch's generator gives, so that ``torch.manual_seed`` decides. The density costs ``(N, K, D)`` numbers.

    Args:
        dim: Number of latent coordinates :math:`D`.
        num_components: :math:`K`.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats; the KL of a guide from it is sampled.
    Raises: ValueError if ``dim < 1`` or ``num_components < 1``.
    Example:
        >>> Mixture(3, num_components=2).distribution().event_shape
        torch.Size([3])
    """

    def __init__(self, dim: int, num_components: int = 10) -> None:
        super().__init__()
        shape = (_check_num_components(num_components), check_dim(dim))
        self.logits = nn.Parameter(torch.zeros(num_components))
        self.loc = nn.Parameter(torch.randn(shape))
        self.scale = Constrained("scale", 1.0, shape, lower=0.0, learned=True)

    def distribution(self) -> dist.TorchDistribution:
        components = dist.Normal(self.loc, self.scale()).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), components)


def _check_num_components(num_components: int) -> int:
    if not isinstance(num_components, int) or num_components < 1:
        raise ValueError(f"num_components must be a positive whole number, got {num_components!r}")
    return num_components
