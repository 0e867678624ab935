"""Real numbers."""

from __future__ import annotations

import pyro.distributions as dist
from torch import Tensor, nn

from pyrovae.distributions import LinearNormal
from pyrovae.likelihoods.base import Likelihood, event_dim, learned_or_fixed

__all__ = ["Laplace", "Normal"]


class Normal(Likelihood):
    r"""Real data: :math:`p(x|z) = \prod_i N(x_i;\, f_i(z),\, s_i^2)`.

    With a :class:`~pyrovae.nn.Dictionary` or torch's ``Linear`` it is a :class:`~pyrovae.distributions.LinearNormal`,
    of which :class:`~pyrovae.ELBO` takes the expectation under the guide without a draw.

    Args:
        network: Gives the mean.
        scale: The standard deviation :math:`s`: a number (fixed), ``"shared"`` (one, learned) or ``"per-pixel"`` (one
            for each data dimension, learned; the network must say its ``out_shape``).
        floor: Lower end of a learned scale. Without it the likelihood of a constant pixel has no upper bound.
    """

    def __init__(self, network: nn.Module, scale: float | str = "shared", floor: float = 0.01) -> None:
        super().__init__(network)
        self.scale = learned_or_fixed("scale", scale, floor, network)

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        linear = self.linear_map()
        if linear is not None:
            return LinearNormal(z, linear.weight, linear.bias, self.scale(), linear.out_shape)
        loc = self.output(z)
        return dist.Normal(loc, self.scale()).to_event(event_dim(loc, z))


class Laplace(Likelihood):
    r"""Real data with outliers: :math:`p(x|z) = \prod_i \frac{1}{2 b_i} \exp(-|x_i - f_i(z)| / b_i)`.

    Args:
        network: Gives the median.
        scale: :math:`b`, as in :class:`Normal`.
        floor: Lower end of a learned scale.
    """

    def __init__(self, network: nn.Module, scale: float | str = "shared", floor: float = 0.01) -> None:
        super().__init__(network)
        self.scale = learned_or_fixed("scale", scale, floor, network)

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        loc = self.output(z)
        return dist.Laplace(loc, self.scale()).to_event(event_dim(loc, z))
