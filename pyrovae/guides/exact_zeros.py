"""Guides whose codes hold exact zeros."""

from __future__ import annotations

from collections.abc import Callable

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from pyrovae.distributions import Gamma, TruncatedNormal, thresholded_laplace, thresholded_normal
from pyrovae.distributions import RectifiedNormal as RectifiedNormalDensity
from pyrovae.distributions import SpikeSlab as SpikeSlabDensity
from pyrovae.distributions.spike_slab import nonnegative_with_atom, real_with_atom
from pyrovae.guides.base import Guide, positive
from pyrovae.guides.positive import CONCENTRATION_FLOOR
from pyrovae.hyper import Constrained

__all__ = ["RectifiedNormal", "SpikeSlab", "ThresholdedLaplace", "ThresholdedNormal"]


class SpikeSlab(Guide):
    r"""Independent spikes and slabs: :math:`q(z_i \ne 0|x) = \gamma_i(x)`, and then a draw of a slab.

    Train it with :class:`pyrovae.ELBO`, whose ``gates`` choose the gradient (antithetic pairs, unbiased, unless said
    otherwise), or with Pyro's ``Trace_ELBO`` (plain score function, unbiased, of more variance). Other objectives of
    Pyro's drop the gradient of the gates, and are refused.

    Args:
        network: The trunk of the encoder.
        dim: Number of latent coordinates :math:`D`.
        slab: ``"normal"`` or ``"laplace"`` for a prior whose slab is real; ``"truncated-normal"`` or ``"gamma"`` for
            one whose slab is positive. The KL between slabs is exact, except from a truncated Normal to a Gamma.

    The code of x is the mean of the slab where the gate is more likely open than shut, and exactly zero elsewhere.
    """

    support: constraints.Constraint = real_with_atom

    def __init__(self, network: nn.Module, dim: int, slab: str = "normal") -> None:
        super().__init__(network, dim, 3 * dim)
        if slab not in SLABS:
            raise ValueError(f"slab must be one of {', '.join(SLABS)}, got {slab!r}")
        self.slab = slab
        if slab in POSITIVE:
            self.support = nonnegative_with_atom

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        loc, raw, logits = self.head(self.network(x)).chunk(3, -1)
        return SpikeSlabDensity(logits, SLABS[self.slab](loc, positive(raw))).to_event(1)

    def encode(self, x: Tensor) -> Tensor:
        q = self.distribution(x).base_dist
        return q.slab.mean * (q.logits > 0)


def _gamma(raw_concentration: Tensor, rate: Tensor) -> Gamma:
    return Gamma(CONCENTRATION_FLOOR + positive(raw_concentration), rate)


SLABS: dict[str, Callable[[Tensor, Tensor], dist.TorchDistribution]] = {
    "normal": dist.Normal,
    "laplace": dist.Laplace,
    "truncated-normal": TruncatedNormal,
    "gamma": _gamma,
}
POSITIVE = ("truncated-normal", "gamma")


class _Thresholded(Guide):
    """Soft thresholds: a subclass only chooses the law that they cut."""

    support = real_with_atom
    law: Callable[..., SpikeSlabDensity]

    def __init__(self, network: nn.Module, dim: int, threshold: float = 0.5) -> None:
        super().__init__(network, dim, 2 * dim)
        self.threshold = Constrained("threshold", threshold, (dim,), lower=0.0, learned=True)

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        loc, raw = self.head(self.network(x)).chunk(2, -1)
        return type(self).law(loc, positive(raw), self.threshold()).to_event(1)

    def encode(self, x: Tensor) -> Tensor:
        q = self.distribution(x).base_dist
        return q.slab.loc * (q.logits > 0)


class ThresholdedLaplace(_Thresholded):
    r"""A Laplace draw around :math:`\mu_i(x)`, drawn to it by a threshold, and zero within that.

    .. math:: q(z_i \ne 0|x) = e^{-\lambda_i/b_i(x)} , \qquad \text{and then } Laplace(\mu_i(x), b_i(x))

    Location and scale are the head's and the threshold is a parameter of each coordinate. Were it the head's too, the
    guide would be :class:`SpikeSlab` with a Laplace slab: the one threshold of all data is what makes the scale a gate.
    A coordinate that is more likely active than not then has :math:`b_i(x) > 1.44\, \lambda_i`, so that the threshold
    is also the finest that an active coordinate can say, and must be learned.

    Args:
        network: The trunk of the encoder.
        dim: Number of latent coordinates :math:`D`.
        threshold: Where :math:`\lambda_i > 0` starts.

    The code of x is the location where z is more likely not zero than zero, and exactly zero elsewhere. Train it as
    :class:`SpikeSlab`.

    References: Fallah and Rozell (2022), "Variational sparse coding with learned thresholding".
    """

    law = staticmethod(thresholded_laplace)


class ThresholdedNormal(_Thresholded):
    r"""A Normal draw around :math:`\mu_i(x)`, drawn to it by a threshold, and zero within that.

    .. math:: q(z_i \ne 0|x) = 2\Phi(-a) , \qquad a = \lambda_i/\sigma_i(x) ,

    and then :class:`~pyrovae.distributions.NormalTails`. A coordinate that is more likely active than not has
    :math:`\sigma_i(x) > 1.48\, \lambda_i`; the threshold is learned for the reason of :class:`ThresholdedLaplace`.

    Args:
        network: The trunk of the encoder.
        dim: Number of latent coordinates :math:`D`.
        threshold: Where :math:`\lambda_i > 0` starts.

    The code of x is the location where z is more likely not zero than zero, and exactly zero elsewhere. Train it as
    :class:`SpikeSlab`.

    References: Fallah and Rozell (2022), "Variational sparse coding with learned thresholding".
    """

    law = staticmethod(thresholded_normal)


class RectifiedNormal(Guide):
    r"""Independent rectified Normals: :math:`z_i = \max(0, s_i)` with :math:`s_i \sim N(\mu_i(x), \sigma_i(x)^2)`.

    Train it with :class:`pyrovae.ELBO`, whose gradient is wholly pathwise, or with Pyro's ``Trace_ELBO``, which takes
    the score of the gates: unbiased, of more variance. Other objectives of Pyro's drop that, and are refused.

    Args:
        network: The trunk of the encoder.
        dim: Number of latent coordinates :math:`D`.

    The code of x is the median, :math:`\max(0, \mu_i(x))`: exactly zero where z is more likely zero than not, as the
    mean never is.
    """

    support = nonnegative_with_atom

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__(network, dim, 2 * dim)

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        loc, raw = self.head(self.network(x)).chunk(2, -1)
        return RectifiedNormalDensity(loc, positive(raw)).to_event(1)

    def encode(self, x: Tensor) -> Tensor:
        return torch.relu(self.head(self.network(x)).chunk(2, -1)[0])
