"""The Normal around a linear function of a code, whose expected log-density is known for codes with two moments."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints
from torch.nn import functional

from pyrovae.distributions.discrete import Bernoulli, Categorical, Poisson
from pyrovae.distributions.generalized_normal import GeneralizedNormal
from pyrovae.distributions.hard_concrete import GatedNormal, HardConcrete
from pyrovae.distributions.log_normal import LogNormal
from pyrovae.distributions.logistic import Logistic
from pyrovae.distributions.normal_tails import NormalTails
from pyrovae.distributions.rectified_normal import RectifiedNormal
from pyrovae.distributions.sparse_mixture import SparseMixture
from pyrovae.distributions.spike_slab import SpikeSlab
from pyrovae.distributions.truncated_normal import TruncatedNormal
from pyrovae.distributions.unit_interval import Kumaraswamy
from pyrovae.distributions.univariate import SCALAR, Shape
from pyrovae.distributions.weibull import Weibull

__all__ = ["LinearNormal", "has_linear_moments", "linear_moments"]

_torch = torch.distributions  # Pyro's distributions derive from torch's
TWO_MOMENTS = (  # distributions of one number that have a mean and a variance for all their parameters, exactly
    *(_torch.Normal, _torch.Laplace, _torch.Gamma, _torch.Exponential, _torch.HalfNormal, _torch.LogNormal),
    *(_torch.Gumbel, _torch.Bernoulli, _torch.Poisson, _torch.Geometric, _torch.Beta, _torch.Uniform, dist.Delta),
    *(Bernoulli, GatedNormal, GeneralizedNormal, HardConcrete, Kumaraswamy, LogNormal, Logistic, NormalTails, Poisson),
    *(RectifiedNormal, SparseMixture, TruncatedNormal, Weibull),
)
ONE_HOT = (Categorical, _torch.OneHotCategorical)


def linear_moments(q: Any, weight: Tensor) -> tuple[Tensor, Tensor] | None:
    r"""Mean and variance of each coordinate of :math:`\Phi z`, or None where they are not known exactly.

    .. math:: E[\Phi z]_i = \sum_j m_j \Phi_{ij} , \qquad Var[\Phi z]_i = \sum_j v_j \Phi_{ij}^2

    for independent coordinates with means m and variances v. For a one-hot block of probabilities :math:`\pi` the
    variance is :math:`\sum_k \pi_k \Phi_{ik}^2 - (\sum_k \pi_k \Phi_{ik})^2`, summed over blocks.

    Args:
        q: The distribution of z, with event_shape ``(D,)``.
        weight: :math:`\Phi`, ``(I, D)``.
    """
    if not has_linear_moments(q, weight):
        return None
    each = _base(q)
    if isinstance(each, ONE_HOT):
        num = getattr(each, "num_categories", weight.shape[1])
        blocks, atoms = each.probs.unflatten(-1, (-1, num)), weight.unflatten(-1, (-1, num))
        means = torch.einsum("...bk,ibk->...ib", blocks, atoms)
        return means.sum(-1), functional.linear(each.probs, weight**2) - means.square().sum(-1)
    return functional.linear(each.mean, weight), functional.linear(each.variance, weight**2)


def has_linear_moments(q: Any, weight: Tensor) -> bool:
    """Whether :func:`linear_moments` knows them; nothing is computed."""
    each = _base(q)
    independent = not each.event_shape and _has_two_moments(each)
    return tuple(q.event_shape) == weight.shape[1:] and (independent or isinstance(each, ONE_HOT))


def _base(q: Any) -> Any:
    while isinstance(q, torch.distributions.Independent):
        q = q.base_dist
    return q


def _has_two_moments(q: Any) -> bool:
    return _has_two_moments(q.slab) if isinstance(q, SpikeSlab) else isinstance(q, TWO_MOMENTS)


class LinearNormal(TorchDistribution):
    r"""Independent Normals around a linear function of a code: :math:`x \sim N(\Phi z + b, diag(\sigma^2))`.

    .. math::
        E_{q(z)}[\log p(x|z)] = -\frac12 \sum_i \frac{(x_i - E[\Phi z]_i - b_i)^2 + Var[\Phi z]_i}{\sigma_i^2}
            - \sum_i \log \sigma_i - \frac{I}{2} \log 2\pi

    which :class:`~pyrovae.ELBO` uses where it knows both moments of the code under the guide: no draw is needed, and no
    gradient of a gate is estimated.

    Args:
        reads: z, ``(*batch, D)``: the value of a sample site itself, so that its guide is known.
        weight: :math:`\Phi`, ``(I, D)``.
        bias: b, ``(I,)``, or None for 0.
        scale: :math:`\sigma > 0`, a number or of the shape of one datum. Like weight and bias it is the same for all
            data, so that it is no function of z.
        out_shape: The shape of one datum, of I numbers; None is ``(I,)``.

    Shape: batch_shape ``(*batch,)``, event_shape ``out_shape``.
    Raises: ValueError for other shapes, and for a scale that is not positive, if arguments are validated.
    """

    arg_constraints: ClassVar = {"scale": constraints.positive}
    has_rsample = True

    def __init__(
        self,
        reads: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scale: Tensor | float,
        out_shape: Shape | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.reads, self.weight, self.bias = reads, weight, bias
        self.scale = torch.as_tensor(scale, dtype=weight.dtype, device=weight.device)
        shape = Size(weight.shape[:1] if out_shape is None else out_shape)
        if weight.dim() != 2 or reads.shape[-1:] != weight.shape[1:]:
            raise ValueError(f"weight must be (I, {reads.shape[-1]}) for this z, got shape {tuple(weight.shape)}")
        if not shape or shape.numel() != len(weight):
            raise ValueError(f"out_shape must be the shape of {len(weight)} numbers, got {tuple(shape)}")
        if bias is not None and bias.shape != weight.shape[:1]:
            raise ValueError(f"bias must be ({len(weight)},), the same for all data, got shape {tuple(bias.shape)}")
        if self.scale.shape not in (Size(), shape):
            raise ValueError(
                f"scale must be a number or of shape {tuple(shape)}, the same for all data, got shape "
                f"{tuple(self.scale.shape)}"
            )
        self._normal: dist.Normal | None = None
        super().__init__(reads.shape[:-1], shape, validate_args=validate_args)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> LinearNormal:
        new = self._get_checked_instance(LinearNormal, _instance)
        new.reads, new.weight, new.bias, new.scale = self.reads, self.weight, self.bias, self.scale
        new._normal = None
        super(LinearNormal, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def each(self) -> dist.Normal:
        """The Normals, of batch shape ``(*batch, *out_shape)``; computed where they are needed."""
        if self._normal is None:
            mean = functional.linear(self.reads, self.weight, self.bias)
            loc = mean.reshape(*mean.shape[:-1], *self.event_shape).expand(*self.batch_shape, *self.event_shape)
            self._normal = dist.Normal(loc, self.scale, validate_args=self._validate_args)
        return self._normal

    @property
    def mean(self) -> Tensor:
        return self.each.mean

    @property
    def variance(self) -> Tensor:
        return self.each.variance

    def sample(self, sample_shape: Shape = SCALAR) -> Tensor:
        return self.each.sample(Size(sample_shape))

    def rsample(self, sample_shape: Shape = SCALAR) -> Tensor:
        return self.each.rsample(Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        return self._summed(self.each.log_prob(value))

    def entropy(self) -> Tensor:
        return self._summed(self.each.entropy())

    def has_expectation(self, q: Any) -> bool:
        """Whether the moments of q are known exactly; nothing is computed."""
        return has_linear_moments(q, self.weight)

    def expected_log_prob(self, q: Any, value: Tensor) -> Tensor | None:
        """E_q log p(value|z) for z ~ q, ``(*batch,)`` in nats; None where the moments of q are not known exactly."""
        each = self.expected_log_probs(q, value)
        return None if each is None else self._summed(each)

    def expected_log_probs(self, q: Any, value: Tensor) -> Tensor | None:
        """As :meth:`expected_log_prob`, of each dimension of x by itself, ``(*batch, *out_shape)``."""
        moments = linear_moments(q, self.weight)
        if moments is None:
            return None
        mean, variance = (x.reshape(*x.shape[:-1], *self.event_shape) for x in moments)
        if self.bias is not None:
            mean = mean + self.bias.reshape(self.event_shape)
        square = ((value - mean).square() + variance) / self.scale.square()
        return -0.5 * square - self.scale.log() - 0.5 * math.log(2 * math.pi)

    def _summed(self, each: Tensor) -> Tensor:
        return each.flatten(-len(self.event_shape)).sum(-1)
