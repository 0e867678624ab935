"""Guides on the simplex."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from pyrovae.distributions import Dirichlet as DirichletDensity
from pyrovae.distributions import Kumaraswamy
from pyrovae.distributions import LogisticNormal as LogisticNormalDensity
from pyrovae.distributions import StickBreaking as StickBreakingDensity
from pyrovae.guides.base import Guide, positive

__all__ = ["Dirichlet", "LogisticNormal", "StickBreaking"]


class Dirichlet(Guide):
    r"""Dirichlet: :math:`q(z|x) \propto \prod_i z_i^{a_i(x) - 1}`, its concentrations from the head.

    The code is :math:`E[z|x] = a / \sum_i a_i`.

    Args:
        network: The trunk of the encoder.
        dim: Number of proportions :math:`D`.

    See also: :class:`pyrovae.priors.Dirichlet`, :class:`pyrovae.priors.LogisticNormal`; both KLs are exact.
    """

    support = constraints.simplex

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__(network, dim, dim)

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        return DirichletDensity(positive(self.head(self.network(x))))


class LogisticNormal(Guide):
    r"""Logistic-normal: z is the softmax of independent :math:`N(\mu_i(x), \sigma_i(x)^2)`.

    The code is :math:`softmax(\mu)`, the centre of q in log-ratios: the mean of z has no closed form.

    Args:
        network: The trunk of the encoder.
        dim: Number of proportions :math:`D`.

    See also: :class:`pyrovae.priors.LogisticNormal`, whose KL is exact; under :class:`pyrovae.priors.Dirichlet` it is
        sampled, since :math:`E \log\sum_i e^{\eta_i}` has no closed form.
    """

    support = constraints.simplex

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__(network, dim, 2 * dim)

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        loc, raw = self.head(self.network(x)).chunk(2, -1)
        return LogisticNormalDensity(loc, positive(raw))

    def encode(self, x: Tensor) -> Tensor:
        return torch.softmax(self.head(self.network(x)).chunk(2, -1)[0], -1)


class StickBreaking(Guide):
    r"""Stick breaking: :math:`z_k = v_k \prod_{j<k} (1 - v_j)`, each :math:`v_k` a Kumaraswamy law from the head.

    The code is :math:`E[z|x] = E v_k \prod_{j<k} (1 - E v_j)`.

    Args:
        network: The trunk of the encoder.
        dim: Number of proportions :math:`D \ge 2`.

    References: Nalisnick and Smyth (2017), "Stick-breaking variational autoencoders", section 4.1.
    See also: :class:`pyrovae.priors.StickBreaking`, whose KL is exact, as is that of
        :class:`pyrovae.priors.Dirichlet`.
    """

    support = constraints.simplex

    def __init__(self, network: nn.Module, dim: int) -> None:
        if not isinstance(dim, int) or dim < 2:
            raise ValueError(f"dim must be 2 or more proportions, got {dim!r}")
        super().__init__(network, dim, 2 * (dim - 1))

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        a, b = positive(self.head(self.network(x))).chunk(2, -1)
        return StickBreakingDensity(Kumaraswamy(a, b))
