r"""Kullback–Leibler divergences that torch and Pyro lack or have wrong, registered with ``register_kl``.

Where no closed form is registered Pyro's ``TraceMeanField_ELBO`` falls back to sampling without a word.
"""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import (
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    StudentT,
    register_kl,
)

__all__: list[str] = []


@register_kl(MultivariateNormal, Independent)
@register_kl(LowRankMultivariateNormal, Independent)
def _kl_multivariate_normal_independent(q: MultivariateNormal, p: Independent) -> Tensor:
    r"""KL from a correlated Normal to independent Normals.

    .. math:: \tfrac12 \sum_i \left[\frac{\Sigma_{ii} + (\mu_i - m_i)^2}{s_i^2} + \log 2\pi s_i^2\right] - H(q)
    """
    if not (isinstance(p.base_dist, Normal) and p.reinterpreted_batch_ndims == 1):
        raise NotImplementedError
    precision = p.base_dist.scale**-2
    quadratic = ((q.variance + (q.loc - p.base_dist.loc) ** 2) * precision).sum(-1)
    log_norm = 2 * p.base_dist.scale.log() + math.log(2 * math.pi)
    return 0.5 * (quadratic + log_norm.sum(-1)) - q.entropy()


@register_kl(StudentT, Normal)
def _kl_student_t_normal(q: StudentT, p: Normal) -> Tensor:
    r"""KL from Student's t to a Normal: :math:`-H(q) + \tfrac12\log 2\pi s^2 + \frac{Var_q + (\mu - m)^2}{2 s^2}`.

    Infinite at two degrees of freedom and below, where the variance is.
    """
    second_moment = q.variance + (q.loc - p.loc) ** 2
    return 0.5 * torch.log(2 * torch.pi * p.scale**2) + second_moment / (2 * p.scale**2) - q.entropy()


@register_kl(dist.FoldedDistribution, dist.FoldedDistribution)
def _kl_folded_folded(q: dist.FoldedDistribution, p: dist.FoldedDistribution) -> Tensor:
    """torch gives the KL of the unfolded pair, which is too large: 2.0 for |N(1, 1)| against |N(-1, 1)|, truth 0."""
    raise NotImplementedError  # so that the caller samples
