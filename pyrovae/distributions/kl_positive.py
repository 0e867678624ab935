r"""KL divergences on the half line, all in closed form.

.. math:: KL(q \,\|\, p) = -H(q) - E_q[\log p(z)]

:math:`\log p` of a Gamma, an exponential and a half-Normal is linear in :math:`\log z`, :math:`z` and :math:`z^2`, and
every q here has the three moments:

======================  ======================================  =====================  =============================
q                       :math:`E\,\log z`                       :math:`E\,z`           :math:`E\,z^2`
======================  ======================================  =====================  =============================
Weibull(λ, k)           :math:`\log\lambda - \gamma/k`          λ Γ(1 + 1/k)           λ² Γ(1 + 2/k)
log-Normal(m, s)        m                                       exp(m + s²/2)          exp(2m + 2s²)
Gamma(α, β)             ψ(α) - log β                            α/β                    α(α + 1)/β²
======================  ======================================  =====================  =============================

torch has Gamma from Gamma and from exponential; Weibull from Gamma is eq. 7 of Zhang, Chen, Guo and Zhou (2018), "WHAI:
Weibull hybrid autoencoding inference for deep topic modeling".
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Exponential, HalfNormal, register_kl
from torch.distributions import Gamma as TorchGamma
from torch.distributions import LogNormal as TorchLogNormal
from torch.distributions import Weibull as TorchWeibull

from pyrovae.distributions.log_normal import LogNormal
from pyrovae.distributions.weibull import EULER, Weibull

__all__: list[str] = []


@register_kl(Weibull, TorchGamma)
@register_kl(TorchWeibull, TorchGamma)
@register_kl(LogNormal, TorchGamma)
@register_kl(TorchLogNormal, TorchGamma)
def _kl_gamma(q: Any, p: TorchGamma) -> Tensor:
    log_z, z = _mean_of_log(q), q.mean
    log_normalizer = torch.lgamma(p.concentration) - p.concentration * p.rate.log()
    return log_normalizer - (p.concentration - 1) * log_z + p.rate * z - q.entropy()


@register_kl(Weibull, Exponential)
@register_kl(TorchWeibull, Exponential)
@register_kl(LogNormal, Exponential)
@register_kl(TorchLogNormal, Exponential)
def _kl_exponential(q: Any, p: Exponential) -> Tensor:
    return p.rate * q.mean - p.rate.log() - q.entropy()


@register_kl(Weibull, HalfNormal)
@register_kl(TorchWeibull, HalfNormal)
@register_kl(LogNormal, HalfNormal)
@register_kl(TorchLogNormal, HalfNormal)
@register_kl(TorchGamma, HalfNormal)
def _kl_half_normal(q: Any, p: HalfNormal) -> Tensor:
    return 0.5 * math.log(math.pi / 2) + p.scale.log() + _second_moment(q) / (2 * p.scale**2) - q.entropy()


def _mean_of_log(q: Any) -> Tensor:
    return q.scale.log() - EULER / q.concentration if isinstance(q, (Weibull, TorchWeibull)) else q.loc


def _second_moment(q: Any) -> Tensor:
    if isinstance(q, (Weibull, TorchWeibull)):
        return q.scale**2 * torch.lgamma(1 + 2 / q.concentration).exp()
    return q.variance + q.mean**2
