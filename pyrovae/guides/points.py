r"""Guides that are a point: autoencoders, and sparse ones, whose codes hold exact zeros.

A sparse autoencoder minimises a squared error, a penalty and what else helps it to train:

.. math:: \|x - \hat x(z)\|^2 + \lambda\, r(x) , \qquad \hat x(z) = \Phi z + b

With a Normal likelihood of scale s this is :math:`-2 s^2 \log p(x|z)`, up to a constant, so that a penalty of
:math:`\lambda / 2 s^2` nats is the same objective in nats. It is the ``log_density`` of a
:class:`~pyrovae.distributions.Point`: every objective pays it with -log p(z), and ``ELBO(beta=...)`` weighs both.
"""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.func import functional_call
from torch.nn import functional

from pyrovae.distributions import Point
from pyrovae.guides.base import Guide
from pyrovae.hyper import Constrained
from pyrovae.nn import Centred

__all__ = ["Delta", "Gated", "JumpReLU", "ReLU", "SparsePoint", "VAEase", "checked_penalty"]


class Delta(Guide):
    r"""A point: :math:`q(z|x) = \delta(z - \mu(x))`, so that the objective is :math:`\log p(x|\mu) + \log p(\mu)`.

    With the prior :class:`pyrovae.priors.Flat` this is the plain autoencoder, with a Laplace prior the L1 sparse one,
    with a Normal prior the L2 one. It is no bound on log p(x): the metrics that need one refuse it.

    Args:
        network: The trunk of the encoder.
        dim: Number of latent coordinates :math:`D`.
    """

    support = constraints.real
    is_point = True

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__(network, dim, dim)

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        return dist.Delta(self.head(self.network(x)), event_dim=1)

    def encode(self, x: Tensor) -> Tensor:
        return self.head(self.network(x))


class SparsePoint(Guide):
    r"""A point of exact zeros, :math:`z = a(\pi)` with pre-activations :math:`\pi = W h(x) + c` from network and head.

    A subclass writes :meth:`code`, and :meth:`cost` where there is one. After :class:`~pyrovae.nn.Centred` the encoder
    is the linear one of a sparse autoencoder, :math:`\pi = W (x - b) + c`, and starts at :math:`W = \Phi^T, c = 0`.
    """

    support = constraints.real
    is_point = True

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__(network, dim, dim)
        if isinstance(network, Centred):
            with torch.no_grad():
                self.head.weight.copy_(network.dictionary.weight.T)
                self.head.bias.zero_()

    def code(self, pre: Tensor) -> Tensor:
        """z, from pre-activations of the same shape ``(N, D)``."""
        raise NotImplementedError(f"{type(self).__name__} must define code(pre)")

    def cost(self, x: Tensor, pre: Tensor, z: Tensor) -> Tensor | float:
        """The cost of the code of each datum, ``(N,)`` in nats; auxiliary losses count in ``train`` mode alone."""
        return 0.0

    def observe(self, z: Tensor) -> None:
        """Count what a training step sees, in buffers."""

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        pre = self.head(self.network(x))
        z = self.code(pre)
        if self.training:
            with torch.no_grad():
                self.observe(z)
        return Point(z, self.cost(x, pre, z), event_dim=1)

    def encode(self, x: Tensor) -> Tensor:
        return self.code(self.head(self.network(x)))


class ReLU(SparsePoint):
    r"""The L1 sparse autoencoder, with a Laplace prior: :math:`z = \max(0, \pi)`.

    With the prior ``Laplace(dim, scale)`` the code costs :math:`\sum_j z_j / scale` nats; :class:`pyrovae.priors.Flat`
    has no penalty. The atoms must be of unit norm, or longer atoms undo the penalty.

    Args:
        network: The trunk of the encoder, such as :class:`~pyrovae.nn.Centred`.
        dim: Number of latent coordinates :math:`D`.

    References: Bricken et al. (2023), "Towards monosemanticity"; Cunningham et al. (2024), "Sparse autoencoders find
        highly interpretable features in language models".
    """

    def code(self, pre: Tensor) -> Tensor:
        return pre.relu()


class JumpReLU(SparsePoint):
    r"""Thresholds that are learned, and a penalty on the number of active latents.

    .. math:: z_j = \pi_j\, 1[\pi_j > \theta_j] , \qquad
        \frac{\partial z_j}{\partial \theta_j} := -\frac{\theta_j}{\epsilon} K_j , \qquad
        \frac{\partial\, 1[\pi_j > \theta_j]}{\partial \theta_j} := -\frac1\epsilon K_j , \qquad
        K_j = 1\left[|\pi_j - \theta_j| < \frac{\epsilon}{2}\right]

    The threshold jumps, so that its gradient is replaced by these pseudo-derivatives; that of :math:`\pi` is exact for
    z, and zero for the penalty :math:`\lambda \sum_j 1[\pi_j > \theta_j]`.

    Args:
        network: The trunk of the encoder, such as :class:`~pyrovae.nn.Centred`.
        dim: Number of latent coordinates :math:`D`.
        penalty: :math:`\lambda`, nats for each active latent, at least 0.
        threshold: Where :math:`\theta_j > 0` starts.
        bandwidth: :math:`\epsilon > 0`, in the unit of the codes.

    Raises: ValueError for an argument out of its range.
    References: Rajamanoharan et al. (2024), "Jumping ahead: improving reconstruction fidelity with JumpReLU sparse
        autoencoders".
    """

    def __init__(
        self, network: nn.Module, dim: int, penalty: float = 0.1, threshold: float = 0.1, bandwidth: float = 0.1
    ) -> None:
        super().__init__(network, dim)
        if not 0 < bandwidth < math.inf:
            raise ValueError(f"bandwidth must be positive and finite, got {bandwidth}")
        self.penalty, self.bandwidth = checked_penalty("penalty", penalty), bandwidth
        self.threshold = Constrained("threshold", threshold, (dim,), lower=0.0, learned=True)

    def code(self, pre: Tensor) -> Tensor:
        gates, shift = self._gates(pre)
        return pre.relu() * gates - self.threshold().detach() * shift

    def cost(self, x: Tensor, pre: Tensor, z: Tensor) -> Tensor | float:
        gates, shift = self._gates(pre)
        return self.penalty * (gates - shift).sum(-1)

    def _gates(self, pre: Tensor) -> tuple[Tensor, Tensor]:
        """The gates without a gradient; and zeros, which have the negative gradient of a gate in its threshold."""
        threshold = self.threshold()
        distance = (pre - threshold).detach()
        kernel = (distance.abs() < self.bandwidth / 2).to(pre) / self.bandwidth
        return (distance > 0).to(pre), kernel * (threshold - threshold.detach())


class Gated(SparsePoint):
    r"""A gate chooses the active latents, and a magnitude of the same direction says how active they are.

    .. math:: z_j = 1[\pi_j > 0] \max(0, m_j) , \qquad m_j = e^{r_j} (\pi_j - c_j) + b_j

    The gate costs :math:`\lambda \sum_j \max(0, \pi_j)` nats. It jumps, so that it is trained by a reconstruction from
    the gate's own rectified pre-activations, :math:`-\log \bar p(x|\max(0, \pi))`, in ``train`` mode; the decoder
    :math:`\bar p` is frozen there.

    Args:
        network: The trunk of the encoder, such as :class:`~pyrovae.nn.Centred`.
        dim: Number of latent coordinates :math:`D`.
        likelihood: The likelihood of the VAE. It stays a module of the VAE alone.
        penalty: :math:`\lambda`, nats for each unit of :math:`\max(0, \pi_j)`, at least 0.

    Raises: ValueError without a likelihood, and for a penalty below 0.
    References: Rajamanoharan et al. (2024), "Improving dictionary learning with gated sparse autoencoders".
    """

    def __init__(
        self, network: nn.Module, dim: int, likelihood: nn.Module | None = None, *, penalty: float = 0.1
    ) -> None:
        super().__init__(network, dim)
        self.model_parts = (given(likelihood, "Gated"),)  # a tuple, whose module is not registered here
        self.penalty = checked_penalty("penalty", penalty)
        self.log_ratio, self.bias = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))

    def code(self, pre: Tensor) -> Tensor:
        magnitude = self.log_ratio.exp() * (pre - self.head.bias) + self.bias
        return magnitude.relu() * (pre > 0)

    def cost(self, x: Tensor, pre: Tensor, z: Tensor) -> Tensor | float:
        active, (likelihood,) = pre.relu(), self.model_parts
        sparsity = self.penalty * active.sum(-1)
        if not self.training:
            return sparsity
        frozen = {name: parameter.detach() for name, parameter in likelihood.named_parameters()}
        return sparsity - functional_call(likelihood, frozen, (active,)).log_prob(x)


class VAEase(Guide):
    r"""A VAE with a Normal prior whose decoder reads :math:`u = (1 - \sigma(x)) \odot z`.

    .. math:: z \sim N(\mu(x),\, \sigma(x)^2) , \qquad
        loss = -\log p(x|u) + KL\left(N(\mu, \sigma^2) \,\|\, N(0, 1)\right) , \qquad \sigma_j(x) < 1

    Each datum has dimensions of its own, those with :math:`\sigma_j(x)` near 0. The model has no decoder without the
    encoder's :math:`\sigma(x)`, so that the loss is no bound on log p(x) and nothing can be sampled. The draw u
    therefore counts as a point under :class:`pyrovae.priors.Flat` that costs the KL, and measurements of log p(x)
    refuse it. The code is :math:`(1 - \sigma) \odot \mu`, and exactly zero where :math:`\sigma_j^2 \ge \frac12`.

    Args:
        network: The trunk of the encoder.
        dim: Number of latent coordinates :math:`D`.

    References: Lu, Zhu, He and Wipf (2025), "Sparse autoencoders, again?", and the code that they published.
    """

    support = constraints.real
    is_point = True
    brings_prior = True

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__(network, dim, 2 * dim)

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        loc, log_variance = self._moments(x)
        scale = (0.5 * log_variance).exp()
        z = loc + scale * torch.randn_like(scale)
        kl = 0.5 * (scale.square() + loc.square() - log_variance - 1).sum(-1)
        return Point((1 - scale) * z, kl, event_dim=1)

    def encode(self, x: Tensor) -> Tensor:
        loc, log_variance = self._moments(x)
        return (1 - (0.5 * log_variance).exp()) * loc * (log_variance < -math.log(2))

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        loc, raw = self.head(self.network(x)).chunk(2, -1)
        return loc, functional.logsigmoid(raw)


def checked_penalty(name: str, value: float) -> float:
    """The weight of a penalty, or ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a number, at least 0, got {value!r}")
    return float(value)


def given(likelihood: nn.Module | None, guide: str) -> nn.Module:
    """The likelihood that a guide scores reconstructions of its own with, or ValueError."""
    if not isinstance(likelihood, nn.Module):
        raise ValueError(
            f"likelihood must be that of the VAE for guide {guide}, which scores reconstructions by it, got "
            f"{likelihood!r}: guides.{guide}(network, dim, likelihood)"
        )
    return likelihood
