"""Guides q(z|x), amortized: a network reads x, one linear head gives the parameters of q.

A scale is ``softplus(head) + SCALE_FLOOR``: smooth, and never so small that its logarithm runs away.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn import functional

__all__ = ["Delta", "Guide", "Laplace", "LowRankMultivariateNormal", "MultivariateNormal", "Normal", "StudentT"]

SCALE_FLOOR = 1e-5


class Guide(nn.Module):
    """q(z|x): write ``distribution(x)``; override ``forward`` when the prior has sites other than ``"z"``.

    Args:
        network: Reads x ``(*batch, *event_shape)``, gives ``(*batch, out_features)`` and says its ``out_features``.
        dim: Number of latent coordinates.
        head_features: Number of parameters of q for each datum.

    ``support`` is the set that z lives in; None leaves the comparison with the prior's to the first step.
    """

    support: constraints.Constraint | None = None

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


class Normal(Guide):
    r"""Independent Normals: :math:`q(z|x) = \prod_i N(z_i;\, \mu_i(x),\, \sigma_i(x)^2)`.

    Args:
        network: The trunk of the encoder.
        dim: Number of latent coordinates :math:`D`.
    """

    support = constraints.real

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__(network, dim, 2 * dim)

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        loc, raw = self.head(self.network(x)).chunk(2, -1)
        return dist.Normal(loc, _scale(raw)).to_event(1)


class MultivariateNormal(Guide):
    r"""Normal with a full covariance: :math:`q(z|x) = N(z;\, \mu(x),\, L(x) L(x)^T)`, :math:`L` lower triangular.

    Args:
        network: The trunk of the encoder.
        dim: Number of latent coordinates :math:`D`; the head gives :math:`D + D(D+1)/2` numbers for each datum.
    """

    support = constraints.real
    index: Tensor

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__(network, dim, dim + dim * (dim + 1) // 2)
        self.register_buffer("index", torch.tril_indices(dim, dim, -1), persistent=False)

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        loc, raw, below = self.head(self.network(x)).split([self.dim, self.dim, self.index.shape[1]], -1)
        scale_tril = torch.diag_embed(_scale(raw))
        scale_tril[..., self.index[0], self.index[1]] = below
        return dist.MultivariateNormal(loc, scale_tril=scale_tril)


class LowRankMultivariateNormal(Guide):
    r"""Normal with covariance :math:`W(x) W(x)^T + diag(\sigma(x)^2)`, :math:`W` of a few columns.

    Args:
        network: The trunk of the encoder.
        dim: Number of latent coordinates :math:`D`.
        rank: Columns of :math:`W`.
    """

    support = constraints.real

    def __init__(self, network: nn.Module, dim: int, rank: int = 2) -> None:
        if not 1 <= rank <= dim:
            raise ValueError(f"rank must be between 1 and dim = {dim}, got {rank}")
        super().__init__(network, dim, (2 + rank) * dim)

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        loc, raw, factor = self.head(self.network(x)).tensor_split((self.dim, 2 * self.dim), -1)
        return dist.LowRankMultivariateNormal(loc, factor.unflatten(-1, (self.dim, -1)), _scale(raw) ** 2)


class Laplace(Guide):
    r"""Independent Laplaces: :math:`q(z|x) = \prod_i \frac{1}{2 b_i(x)} \exp(-|z_i - \mu_i(x)| / b_i(x))`.

    Args:
        network: The trunk of the encoder.
        dim: Number of latent coordinates :math:`D`.
    """

    support = constraints.real

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__(network, dim, 2 * dim)

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        loc, raw = self.head(self.network(x)).chunk(2, -1)
        return dist.Laplace(loc, _scale(raw)).to_event(1)


class StudentT(Guide):
    r"""Independent Student's t: location, scale and degrees of freedom :math:`\nu_i(x) > 2` from the head.

    The code is the location, which is the mean; above two degrees of freedom the variance is finite, and so is the
    variance of the gradient under a prior with a variance.

    Args:
        network: The trunk of the encoder.
        dim: Number of latent coordinates :math:`D`.
    """

    support = constraints.real

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__(network, dim, 3 * dim)

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        loc, raw, df = self.head(self.network(x)).chunk(3, -1)
        return dist.StudentT(2.0 + _scale(df), loc, _scale(raw)).to_event(1)


class Delta(Guide):
    r"""A point: :math:`q(z|x) = \delta(z - \mu(x))`, so that the objective is :math:`\log p(x|\mu) + \log p(\mu)`.

    With a Laplace prior this is the L1 sparse autoencoder, with a Normal one the L2 autoencoder. It is no bound on
    log p(x): the metrics that need one refuse it.

    Args:
        network: The trunk of the encoder.
        dim: Number of latent coordinates :math:`D`.
    """

    support = constraints.real

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__(network, dim, dim)

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        return dist.Delta(self.head(self.network(x)), event_dim=1)

    def encode(self, x: Tensor) -> Tensor:
        return self.head(self.network(x))


def _scale(raw: Tensor) -> Tensor:
    return functional.softplus(raw) + SCALE_FLOOR
