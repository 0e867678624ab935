"""The rectified Normal: a Normal draw, or zero where that is negative."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pyro.distributions.score_parts import ScoreParts
from torch import Tensor
from torch.distributions import constraints, register_kl
from torch.special import log_ndtr, ndtr

from pyrovae.distributions.draws import OtherDraws
from pyrovae.distributions.normal_tails import HALF_LOG_2_PI, hazard_slope, normal_tail
from pyrovae.distributions.spike_slab import nonnegative_with_atom
from pyrovae.distributions.univariate import SCALAR, Shape, Univariate

__all__ = ["RectifiedNormal"]


class RectifiedNormal(OtherDraws, Univariate):
    r"""max(0, s) for :math:`s \sim N(\mu, \sigma^2)`.

    .. math:: P(z = 0) = \Phi(-\mu/\sigma) , \qquad p(z) = N(z; \mu, \sigma^2) \quad (z > 0)

    a density with respect to Lebesgue measure plus a unit atom at zero. It is a spike, and a slab that is the Normal
    cut off at zero.

    Gradients: those of ``rsample`` are the slab's, at a fixed gate :math:`z > 0`, whose score ``score_parts`` gives to
    Pyro: ``Trace_ELBO`` is unbiased, and the guards refuse the objectives that would drop it. :class:`pyrovae.ELBO`
    uses ``rsample_pathwise``: z is continuous in :math:`(\mu, \sigma)` and in the noise, so no score is needed beside
    the exact KL.

    Args:
        loc: :math:`\mu`.
        scale: :math:`\sigma > 0`.

    Units: log_prob in nats, with respect to the measure above.
    References: Socci, Lee and Seung (1997), "The rectified Gaussian distribution", name another law so: a Normal
        restricted to the half line, without an atom.
    """

    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive}
    support = nonnegative_with_atom
    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor | float, scale: Tensor | float, validate_args: bool | None = None) -> None:
        super().__init__(loc, scale, validate_args=validate_args)

    def rsample_pathwise(self, sample_shape: Shape = SCALAR) -> Tensor:
        """A draw of this density, continuous in the noise and in both parameters."""
        shape = self._extended_shape(torch.Size(sample_shape))
        return torch.relu(self.loc + self.scale * torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device))

    def rsample(self, sample_shape: Shape = SCALAR) -> Tensor:
        with torch.no_grad():
            z = self.rsample_pathwise(sample_shape)
        a = -self.loc / self.scale
        if not (torch.is_grad_enabled() and a.requires_grad):
            return z
        t = z / self.scale.detach()
        moved = t + hazard_slope(a.detach(), t) * (a - a.detach())
        return torch.where(z > 0, self.scale * moved, z)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        normal = -0.5 * ((value - self.loc) / self.scale) ** 2 - self.scale.log() - HALF_LOG_2_PI
        return torch.where(value == 0, log_ndtr(-self.loc / self.scale), normal)

    def score_parts(self, x: Tensor, *args: Any, **kwargs: Any) -> ScoreParts:
        """The score function is that of the gate alone."""
        log_prob, standard = self.log_prob(x), self.loc / self.scale
        return ScoreParts(log_prob, torch.where(x == 0, log_ndtr(-standard), log_ndtr(standard)), log_prob)

    @property
    def mean(self) -> Tensor:
        standard = self.loc / self.scale
        return self.scale * ndtr(standard) * normal_tail(-standard)[1]

    @property
    def variance(self) -> Tensor:
        standard = self.loc / self.scale
        return self.scale**2 * ndtr(standard) * normal_tail(-standard)[2] - self.mean**2

    def entropy(self) -> Tensor:
        """With respect to Lebesgue measure plus the atom."""
        m = self.loc / self.scale
        on, _, square = _moments(m)
        return on * (self.scale.log() + HALF_LOG_2_PI) + 0.5 * square - ndtr(-m) * log_ndtr(-m)


@register_kl(RectifiedNormal, RectifiedNormal)
def _kl_rectified_normal(q: RectifiedNormal, p: RectifiedNormal) -> Tensor:
    r"""With e standard Normal, :math:`m = \mu_q/\sigma_q`, :math:`r = \sigma_q/\sigma_p` and
    :math:`d = (\mu_q - \mu_p)/\sigma_p`:

    .. math:: \Phi(-m) \log\frac{\Phi(-m)}{\Phi(-\mu_p/\sigma_p)}
              + E\left[1_{e > -m} \left(\tfrac12 (r e + d)^2 - \tfrac12 e^2 - \log r\right)\right]
    """
    m, ratio, shift = q.loc / q.scale, q.scale / p.scale, (q.loc - p.loc) / p.scale
    on, first, square = _moments(m)
    atom = ndtr(-m) * (log_ndtr(-m) - log_ndtr(-p.loc / p.scale))
    quadratic = (ratio - 1) * (ratio + 1) * square + 2 * ratio * shift * first + shift**2 * on
    return atom + 0.5 * quadratic - on * ratio.log()


def _moments(m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """E[1], E[e] and E[e²] of a standard Normal e over e > -m."""
    on, density = ndtr(m), torch.exp(-0.5 * m**2) / math.sqrt(2 * math.pi)
    return on, density, on - m * density
