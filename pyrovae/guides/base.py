"""What every guide is: a network reads x, one linear head gives the parameters of q(z|x).

A scale is ``softplus(head) + SCALE_FLOOR``: smooth, and never so small that its logarithm runs away.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn import functional

__all__ = ["SCALE_FLOOR", "Guide", "positive"]

SCALE_FLOOR = 1e-5


class Guide(nn.Module):
    """q(z|x): write ``distribution(x)``; override ``forward`` when the prior has sites other than ``"z"``.

    Args:
        network: Reads x ``(*batch, *event_shape)``, gives ``(*batch, out_features)`` and says its ``out_features``.
        dim: Number of latent coordinates.
        head_features: Number of parameters of q for each datum.

    ``support`` is the set that z lives in; None leaves the comparison with the prior's to the first step.
    ``is_point`` says that q is a point, whatever x is: it has no density, and gives no bound on log p(x).
    ``brings_prior`` says that q costs the KL from a prior of its own, so that the prior of the VAE must be improper.
    """

    support: constraints.Constraint | None = None
    is_point = False
    brings_prior = False

    def __init__(self, network: nn.Module, dim: int, head_features: int) -> None:
        super().__init__()
        if not isinstance(dim, int) or dim < 1:
            raise ValueError(f"dim must be a positive whole number, got {dim!r}")
        out_features = getattr(network, "out_features", None)
        if not isinstance(out_features, int):
            raise ValueError(f"network must say its out_features, {type(network).__name__} does not")
        self.network = network
        self.dim = dim
        self.head = nn.Linear(out_features, head_features)

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        """q(z|x), with ``batch_shape (N,)`` and ``event_shape (D,)``."""
        raise NotImplementedError(f"{type(self).__name__} must define distribution(x)")

    def forward(self, x: Tensor) -> Tensor:
        """Sample the sites of the prior inside the data plate."""
        return pyro.sample("z", self.distribution(x))

    def encode(self, x: Tensor) -> Tensor:
        """The code of x: E[z|x]."""
        return self.distribution(x).mean


def positive(raw: Tensor) -> Tensor:
    """A scale from a head's output."""
    return functional.softplus(raw) + SCALE_FLOOR
