"""Guides on the real line."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from pyrovae.distributions import GeneralizedNormal as GeneralizedNormalDensity
from pyrovae.guides.base import Guide, positive

__all__ = [
    "GeneralizedNormal",
    "Laplace",
    "LowRankMultivariateNormal",
    "MultivariateNormal",
    "Normal",
    "StudentT",
]


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
        return dist.Normal(loc, positive(raw)).to_event(1)


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
        scale_tril = torch.diag_embed(positive(raw))
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
        return dist.LowRankMultivariateNormal(loc, factor.unflatten(-1, (self.dim, -1)), positive(raw) ** 2)


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
        return dist.Laplace(loc, positive(raw)).to_event(1)


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
        return dist.StudentT(2.0 + positive(df), loc, positive(raw)).to_event(1)


class GeneralizedNormal(Guide):
    r"""Independent generalised Normals: location, scale and power from the head, the power between 0.5 and 4.

    Args:
        network: The trunk of the encoder.
        dim: Number of latent coordinates :math:`D`.
    """

    support = constraints.real

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__(network, dim, 3 * dim)

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        loc, raw, power = self.head(self.network(x)).chunk(3, -1)
        return GeneralizedNormalDensity(loc, positive(raw), 0.5 + 3.5 * torch.sigmoid(power)).to_event(1)
