"""Bits, and grey values in [0, 1]."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from pyrovae.likelihoods.base import Likelihood, event_dim

__all__ = ["Bernoulli", "ContinuousBernoulli"]


class Bernoulli(Likelihood):
    r"""Binary data: :math:`p(x|z) = \prod_i \sigma(l_i)^{x_i} (1-\sigma(l_i))^{1-x_i}` with logits :math:`l = f(z)`."""

    support = constraints.boolean
    hint = "it takes 0 and 1; binarise grey values, or use ContinuousBernoulli"

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        logits = self.output(z)
        return _Bits(logits=logits).to_event(event_dim(logits, z))


class ContinuousBernoulli(Likelihood):
    r"""Grey values in [0, 1]: :math:`p(x|z) = \prod_i C(\lambda_i) \lambda_i^{x_i} (1-\lambda_i)^{1-x_i}`,
    :math:`\lambda = \sigma(f(z))`, where :math:`C` makes it a density, which the cross-entropy of grey values is not.

    References: Loaiza-Ganem and Cunningham (2019), "The continuous Bernoulli: fixing a pervasive error in variational
    autoencoders", eq. 4.
    """

    support = constraints.unit_interval
    hint = "it takes values in [0, 1]; rescale the data, or use Normal"

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        logits = self.output(z)
        return dist.ContinuousBernoulli(logits=logits).to_event(event_dim(logits, z))


class _Bits(dist.Bernoulli):
    r"""Pyro's Bernoulli with a density of its own: torch's takes four times as long and loses the small ones' digits.

    .. math:: x l - \log(1 + e^l) = x l - l_+ - \log(1 + u) , \qquad u = e^{-|l|}
    """

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        above = self.logits.relu()  # and |l| by it, so that the slope at 0 is right too
        u = torch.add(self.logits, above, alpha=-2).exp()
        total = 1 + u
        # log1p by log, which torch computes ten times as fast, and the first order of what 1 + u rounded off
        lost = (u - (total - 1)).detach()
        return value * self.logits - above - torch.addcdiv(total.log(), lost, total.detach())
