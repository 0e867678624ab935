"""Guides of bits, counts and categories, and of the relaxation of bits.

Bits, counts and categories have no path. Train them with :class:`pyrovae.ELBO`, unbiased unless told otherwise, or with
Pyro's ``Trace_ELBO``, ``TraceGraph_ELBO`` or ``TraceEnum_ELBO``; what would drop their gradient is refused.
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from pyrovae.distributions import Bernoulli as BernoulliDensity
from pyrovae.distributions import Categorical as CategoricalDensity
from pyrovae.distributions import Logistic, inside_unit_interval
from pyrovae.distributions import Poisson as PoissonDensity
from pyrovae.distributions.discrete import check_categories, one_hot_support
from pyrovae.guides.base import Guide, positive

__all__ = ["Bernoulli", "Categorical", "Poisson", "RelaxedBernoulli"]


class Bernoulli(Guide):
    r"""Independent bits: :math:`q(z_i = 1|x) = \sigma(\ell_i)`, the log-odds from the head.

    Args:
        network: The trunk of the encoder.
        dim: Number of latent coordinates :math:`D`.

    The code of x is the most probable one: 1 where :math:`\ell_i > 0`, exactly zero elsewhere.
    """

    support = constraints.boolean

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__(network, dim, dim)

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        return BernoulliDensity(self.head(self.network(x))).to_event(1)

    def encode(self, x: Tensor) -> Tensor:
        logits = self.head(self.network(x))
        return (logits > 0).to(logits)


class Poisson(Guide):
    r"""Independent counts: the rate of each from the head.

    .. math:: q(z|x) = \prod_i \frac{\lambda_i^{z_i} e^{-\lambda_i}}{z_i!}

    Args:
        network: The trunk of the encoder.
        dim: Number of latent coordinates :math:`D`.

    The code of x is the rates, E[z|x]. Their whole parts are the most probable counts, and lose what a rate below 1
    says.
    References: Vafaii, Galor and Yates (2024), "Poisson variational autoencoder", who write the rate as that of the
        prior times a factor from the head; here it stands by itself.
    """

    support = constraints.nonnegative_integer

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__(network, dim, dim)

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        return PoissonDensity(positive(self.head(self.network(x)))).to_event(1)


class Categorical(Guide):
    r"""Concatenated one-hot vectors: :math:`q(z_{bk} = 1|x) = softmax(\ell_b)_k`, with :math:`\ell` from the head.

    Args:
        network: The trunk of the encoder.
        dim: Number of coordinates :math:`D` that the decoder reads: D / K variables of K categories each.
        num_categories: :math:`K`, at least 2, which divides D; None is one variable of D categories.

    The code of x is the most probable category of each variable, one-hot.
    Raises: ValueError if ``num_categories`` is below 2 or does not divide D.
    """

    support: constraints.Constraint = constraints.one_hot

    def __init__(self, network: nn.Module, dim: int, num_categories: int | None = None) -> None:
        super().__init__(network, dim, dim)
        self.num_categories = check_categories(dim, num_categories)
        self.support = one_hot_support(dim, self.num_categories)

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        return CategoricalDensity(self.head(self.network(x)), self.num_categories)

    def encode(self, x: Tensor) -> Tensor:
        return CategoricalDensity(self.head(self.network(x)), self.num_categories).mode


class RelaxedBernoulli(Guide):
    r"""Independent relaxed bits (binary concrete): the log-odds :math:`\ell` from the head.

    .. math:: z_i = \sigma(y_i) , \qquad y_i \mid x \sim Logistic(\ell_i / T, 1 / T)

    The one site is ``"z_logit"``, y. Draws are reparametrised, and the KL from the prior is exact, by quadrature.

    Args:
        network: The trunk of the encoder.
        dim: Number of latent coordinates :math:`D`.
        temperature: :math:`T`, positive and fixed.

    The code of x is the median of z, :math:`\sigma(\ell_i / T)`.
    Raises: ValueError if ``temperature`` is not positive and finite.
    References: Maddison, Mnih and Teh (2017), "The concrete distribution", appendix C.3; 2/3 is what they take.
    """

    def __init__(self, network: nn.Module, dim: int, temperature: float = 2 / 3) -> None:
        super().__init__(network, dim, dim)
        if not 0.0 < temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite, got {temperature}")
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        loc = self.head(self.network(x)) / self.temperature
        logistic = Logistic(loc, torch.full_like(loc, 1 / self.temperature))
        return inside_unit_interval(pyro.sample("z_logit", logistic.to_event(1)))

    def encode(self, x: Tensor) -> Tensor:
        return inside_unit_interval(self.head(self.network(x)) / self.temperature)
