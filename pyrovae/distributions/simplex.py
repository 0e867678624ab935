r"""Densities on the simplex: the Dirichlet, the Normal sent there by softmax, and the stick broken in turn.

All draw log z and raise every coordinate to at least ``FLOOR`` times the smallest normal number of the dtype, 1e-32 in
float32 and 1e-302 in float64: log_prob and its gradient are finite at every draw, and the sum of z stays one to
rounding. The density is left as it is. A Dirichlet coordinate of concentration a lies below the floor about once in
floor^-a draws: 1 in 1600 in float32 at a = 0.1, half of them at 0.01, where float64 has one in a thousand. There a mean
of log_prob over draws is off, and the KLs in closed form are not.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints, kl_divergence, register_kl

from pyrovae.distributions.unit_interval import Beta, Kumaraswamy
from pyrovae.distributions.univariate import SCALAR, Shape

__all__ = ["FLOOR", "Dirichlet", "LogisticNormal", "StickBreaking", "shift_free"]

FLOOR = 1e6  # above 1, so that (a - 1) / z does not overflow either


class Dirichlet(dist.Dirichlet):
    r"""Dirichlet distribution, whose draws never reach the boundary.

    .. math:: p(z) = \frac{\Gamma(\sum_i a_i)}{\prod_i \Gamma(a_i)} \prod_i z_i^{a_i - 1} ,
              \qquad z_i > 0 , \quad \sum_i z_i = 1

    torch's own draws are exactly zero at small concentrations, where log_prob is infinite. Here

    .. math:: \log z = \log g - \log \textstyle\sum_i g_i , \qquad
              \log g_i = \log G_i + \tfrac{1}{a_i} \log u_i , \quad G_i \sim Gamma(a_i + 1, 1) , \; u_i \in (0, 1]

    Args:
        concentration: :math:`a_i > 0`, of shape ``(..., D)``; below 1 the density grows without bound at the boundary.

    Shape: event_shape ``(D,)``.
    Units: log_prob in nats, with respect to Lebesgue measure on the first D - 1 coordinates.
    """

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Any:
        return super().expand(batch_shape, self._get_checked_instance(type(self), _instance))

    def rsample(self, sample_shape: Shape = SCALAR) -> Tensor:
        concentration = self.concentration.expand(self._extended_shape(torch.Size(sample_shape)))
        u = 1 - torch.rand_like(concentration)
        return _above_floor(torch._standard_gamma(concentration + 1).log() + u.log() / concentration)


class LogisticNormal(TorchDistribution):
    r"""Logistic-normal distribution: independent Normals through softmax.

    .. math:: z = softmax(\eta) , \qquad \eta_i \sim N(\mu_i, \sigma_i^2) , \quad i = 1 \dots D

    softmax forgets a shift of :math:`\eta`. The integral over it is closed, and no coordinate stands apart, as the last
    does in torch's stick-breaking and in the additive log-ratio:

    .. math:: p(z) = \prod_i \frac{1}{z_i} \frac{1}{\sqrt{2\pi}\,\sigma_i} \cdot \sqrt{\frac{2\pi}{W}}
              \exp\left(-\tfrac12 \sum_i w_i (r_i - \bar r)^2\right) , \qquad
              r_i = \log z_i - \mu_i , \quad w_i = \sigma_i^{-2} , \quad W = \sum_i w_i , \quad
              \bar r = \sum_i w_i r_i / W

    The moments of z and the entropy have no closed form.

    Args:
        loc: :math:`\mu`, of shape ``(..., D)``; a shift of all of it changes nothing.
        scale: :math:`\sigma_i > 0`.

    Shape: event_shape ``(D,)``.
    Units: log_prob in nats, with respect to Lebesgue measure on the first D - 1 coordinates.
    References: Aitchison and Shen (1980), "Logistic-normal distributions: some properties and uses", define the family
        by log-ratios to the last coordinate, with any covariance; ours are those of covariance
        :math:`diag(\sigma_1^2 \dots \sigma_{D-1}^2) + \sigma_D^2`.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "loc": constraints.real_vector,
        "scale": constraints.independent(constraints.positive, 1),
    }
    support = constraints.simplex
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        super().__init__(self.loc.shape[:-1], self.loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Any:
        new = self._get_checked_instance(type(self), _instance)
        new.loc, new.scale = (v.expand(*batch_shape, -1) for v in (self.loc, self.scale))
        TorchDistribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: Shape = SCALAR) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        return _above_floor(self.loc + self.scale * torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        log_z = value.log()
        quadratic, log_norm = shift_free(log_z - self.loc, self.scale)
        return -0.5 * quadratic - log_norm - log_z.sum(-1)


class StickBreaking(TorchDistribution):
    r"""A stick of length one, broken D - 1 times: each time the fraction :math:`v_k` of what is left.

    .. math:: z_k = v_k\, r_k , \quad r_k = \prod_{j<k} (1 - v_j) = \sum_{j \ge k} z_j , \quad z_D = r_D , \qquad
              \log p(z) = \sum_{k<D} \left[\log p_k(v_k) - \log r_k\right]

    The first coordinates have most of the stick. Its logarithms, not the fractions, are drawn and read back from z.

    Args:
        sticks: The laws of the D - 1 fractions, :class:`~pyrovae.distributions.Beta` or
            :class:`~pyrovae.distributions.Kumaraswamy` of batch shape ``(..., D - 1)``.

    Shape: event_shape ``(D,)``.
    Units: log_prob in nats, with respect to Lebesgue measure on the first D - 1 coordinates.
    References: Sethuraman (1994), "A constructive definition of Dirichlet priors"; Nalisnick and Smyth (2017),
        "Stick-breaking variational autoencoders", eq. 5.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.simplex
    has_rsample = True

    def __init__(self, sticks: Beta | Kumaraswamy, validate_args: bool | None = None) -> None:
        if not isinstance(sticks, Beta | Kumaraswamy) or not sticks.batch_shape:
            raise ValueError(f"sticks must be a Beta or Kumaraswamy of this library, one law for each, got {sticks!r}")
        self.sticks = sticks
        *batch_shape, num = sticks.batch_shape
        super().__init__(torch.Size(batch_shape), torch.Size([num + 1]), validate_args=validate_args)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Any:
        new = self._get_checked_instance(type(self), _instance)
        new.sticks = self.sticks.expand(torch.Size([*batch_shape, self.sticks.batch_shape[-1]]))
        TorchDistribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        return self._broken(self.sticks.mean, 1 - self.sticks.mean)

    @property
    def variance(self) -> Tensor:
        mean, variance = self.sticks.mean, self.sticks.variance
        return self._broken(mean**2 + variance, (1 - mean) ** 2 + variance) - self.mean**2

    @staticmethod
    def _broken(fraction: Tensor, rest: Tensor) -> Tensor:
        ones = torch.ones_like(rest[..., :1])
        return torch.cat([fraction, ones], -1) * torch.cat([ones, rest.cumprod(-1)], -1)

    def rsample(self, sample_shape: Shape = SCALAR) -> Tensor:
        log_v, log_rest = self.sticks.rsample_logs(torch.Size(sample_shape))
        zero = torch.zeros_like(log_v[..., :1])
        return _above_floor(torch.cat([log_v, zero], -1) + torch.cat([zero, log_rest.cumsum(-1)], -1))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        left = value.flip(-1).cumsum(-1).flip(-1)  # r, summed from its small end
        before = left[..., :-1]
        v, rest = value[..., :-1] / before, left[..., 1:] / before
        small = torch.where(v < rest, v, rest)
        logs = small.log(), torch.log1p(-small)
        log_v, log_rest = torch.where(v < rest, *logs), torch.where(v < rest, *logs[::-1])
        return (self.sticks.log_prob_of_logs(log_v, log_rest) - before.log()).sum(-1)


@register_kl(StickBreaking, StickBreaking)
def _kl_stick_breaking_stick_breaking(q: StickBreaking, p: StickBreaking) -> Tensor:
    """That of the sticks, since they are broken alike in both."""
    return kl_divergence(q.sticks, p.sticks).sum(-1)


@register_kl(StickBreaking, torch.distributions.Dirichlet)
def _kl_stick_breaking_dirichlet(q: StickBreaking, p: dist.Dirichlet) -> Tensor:
    return kl_divergence(q, _broken(p))


@register_kl(torch.distributions.Dirichlet, StickBreaking)
def _kl_dirichlet_stick_breaking(q: dist.Dirichlet, p: StickBreaking) -> Tensor:
    return kl_divergence(_broken(q), p)


def _broken(d: dist.Dirichlet) -> StickBreaking:
    r"""A Dirichlet is a stick broken by :math:`Beta(a_k, \sum_{j>k} a_j)`."""
    left = d.concentration.flip(-1).cumsum(-1).flip(-1)
    return StickBreaking(Beta(d.concentration[..., :-1], left[..., 1:]))


def shift_free(r: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    r""":math:`\sum_i w_i (r_i - \bar r)^2`, and the log of the normaliser that belongs to it."""
    weight = scale**-2
    total = weight.sum(-1)
    centre = (weight * r).sum(-1, keepdim=True) / total[..., None]
    dim = scale.shape[-1]
    return (weight * (r - centre) ** 2).sum(-1), (
        0.5 * (dim - 1) * math.log(2 * math.pi) + scale.log().sum(-1) + 0.5 * total.log()
    )


def _above_floor(logits: Tensor) -> Tensor:
    return torch.softmax(logits, -1).clamp(min=FLOOR * torch.finfo(logits.dtype).tiny)
