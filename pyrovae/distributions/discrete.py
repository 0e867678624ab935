r"""Bits, counts and categories: the laws of Pyro, with the draws that give their parameters a gradient.

Plain draws have no path. Pyro's ``Trace_ELBO``, ``TraceGraph_ELBO`` and ``TraceEnum_ELBO`` take the score function, and
:class:`pyrovae.ELBO` one of the draws of :mod:`pyrovae.distributions.draws`:

=========== ======= ================ ==============
law         pair    straight-through relaxed
=========== ======= ================ ==============
Bernoulli   DisARM  yes              concrete
Categorical no      yes              Gumbel-softmax
Poisson     no      no               arrival times
=========== ======= ================ ==============

The pair is unbiased, the last two are biased. No density here scores a relaxed draw: beside one, the KL must be exact.
The KLs below are finite in float32, where torch's own are infinite once a probability rounds to 0 or 1, and keep the
digits of two nearly equal laws.
"""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions import constraints, register_kl
from torch.nn.functional import logsigmoid, one_hot

from pyrovae.distributions.draws import OtherDraws, antithetic_bits, concrete_bits
from pyrovae.distributions.univariate import SCALAR, Shape, Univariate

__all__ = ["Bernoulli", "Categorical", "OneHotBlocks", "Poisson", "check_categories", "one_hot_support"]

MAX_ENUMERATED = 2**16
NEAR = 0.05  # log-ratio of two rates below which their KL is summed as a series
SERIES_TERMS = 10


class Bernoulli(OtherDraws, Univariate):
    r"""Bernoulli distribution of a bit.

    .. math:: P(z = 1) = \sigma(\ell) , \qquad P(z = 0) = \sigma(-\ell)

    Args:
        logits: :math:`\ell`, the log-odds of 1.

    References: Dong, Mnih and Tucker (2020), "DisARM"; Maddison, Mnih and Teh (2017), "The concrete distribution".
    """

    arg_constraints: ClassVar = {"logits": constraints.real}
    support = constraints.boolean
    has_rsample = False
    has_enumerate_support = True
    logits: Tensor

    def __init__(self, logits: Tensor | float, validate_args: bool | None = None) -> None:
        super().__init__(logits, validate_args=validate_args)

    @property
    def probs(self) -> Tensor:
        """:math:`\\sigma(\\ell)`, the probability of 1."""
        return torch.sigmoid(self.logits)

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def mode(self) -> Tensor:
        return (self.logits > 0).to(self.logits)

    @property
    def variance(self) -> Tensor:
        return torch.sigmoid(self.logits) * torch.sigmoid(-self.logits)

    def entropy(self) -> Tensor:
        size = self.logits.abs()
        return -logsigmoid(size) + size * torch.sigmoid(-size)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return logsigmoid((2 * value - 1) * self.logits)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """0 and 1, along a new dimension on the left."""
        values = torch.arange(2, dtype=self.logits.dtype, device=self.logits.device)
        values = values.reshape(-1, *[1] * len(self.batch_shape))
        return values.expand(-1, *self.batch_shape) if expand else values

    def sample(self, sample_shape: Shape = SCALAR) -> Tensor:
        return torch.bernoulli(self.probs.detach().expand(self._extended_shape(Size(sample_shape))))

    def rsample_pair(self) -> tuple[Tensor, Tensor, Tensor]:
        """Two antithetic draws, and the score of the first against the second (DisARM). Unbiased."""
        return antithetic_bits(self.logits)

    def rsample_straight_through(self) -> Tensor:
        """A draw with the gradient of its mean. Biased."""
        return self.sample() + self.probs - self.probs.detach()

    def rsample_relaxed(self, temperature: float = 0.5) -> Tensor:
        """A draw of the binary concrete law, in [0, 1]. Biased."""
        return concrete_bits(self.logits, temperature)


class Poisson(OtherDraws, Univariate):
    r"""Poisson distribution of a count.

    .. math:: P(z = k) = \frac{\lambda^k e^{-\lambda}}{k!}

    Args:
        rate: :math:`\lambda > 0`, mean and variance.

    References: Vafaii, Galor and Yates (2024), "Poisson variational autoencoder".
    """

    arg_constraints: ClassVar = {"rate": constraints.positive}
    support = constraints.nonnegative_integer
    has_rsample = False
    rate: Tensor

    def __init__(self, rate: Tensor | float, validate_args: bool | None = None) -> None:
        super().__init__(rate, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.rate

    @property
    def mode(self) -> Tensor:
        return self.rate.floor()

    @property
    def variance(self) -> Tensor:
        return self.rate

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return torch.xlogy(value, self.rate) - self.rate - torch.lgamma(value + 1)

    def sample(self, sample_shape: Shape = SCALAR) -> Tensor:
        return torch.poisson(self.rate.detach().expand(self._extended_shape(Size(sample_shape))))

    def rsample_relaxed(self, temperature: float = 0.1) -> Tensor:
        r"""A soft count of the arrivals of a Poisson process in the unit interval. Biased.

        .. math:: z = \sum_{m=1}^M \sigma\left(\frac{1 - t_m}{T}\right) , \qquad
                  t_m = \frac{1}{\lambda} \sum_{j \le m} e_j , \quad e_j \sim Exponential(1)

        A positive number, not a whole one, of mean :math:`\lambda T \log(1 + e^{1/T})` and of variance T σ(1/T) times λ
        below that mean: at T = 0.1 the mean is λ and the variance 0.9 λ. M is the number of arrivals until 1 + 5 T that
        the largest rate of the batch exceeds once in a million draws: what is left out counts for less than 1 % of an
        arrival each. Time and memory grow with that rate.
        """
        num = _most_arrivals(self.rate.max().item() * (1 + 5 * temperature))
        gaps = torch.empty(num, *self.rate.shape, dtype=self.rate.dtype, device=self.rate.device).exponential_()
        return torch.sigmoid((1 - gaps.cumsum(0) / self.rate) / temperature).sum(0)


def _most_arrivals(rate: float, tail: float = 1e-6) -> int:
    """The least m with P(N > m) <= tail for a Poisson N; the search ends at Bernstein's bound of it."""
    c = -torch.log(torch.tensor(tail, dtype=torch.float64)).item()
    bound = rate + c / 3 + (c**2 / 9 + 2 * c * rate) ** 0.5
    counts = torch.arange(int(bound) + 2, dtype=torch.float64)
    above = torch.special.gammainc(counts + 1, torch.full_like(counts, rate))  # P(N > count)
    return max(1, int((above > tail).sum()))


class OneHotBlocks(constraints.Constraint):
    """Vectors of blocks of ``num_categories`` coordinates, in each of which one is 1 and the others are 0."""

    is_discrete = True
    event_dim = 1

    def __init__(self, num_categories: int) -> None:
        self.num_categories = num_categories
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return constraints.one_hot.check(value.unflatten(-1, (-1, self.num_categories))).all(-1)

    def __repr__(self) -> str:
        return f"OneHot({self.num_categories})"


def one_hot_support(dim: int, num_categories: int) -> constraints.Constraint:
    """That of torch's own one-hot law where there is one variable."""
    return constraints.one_hot if dim == num_categories else OneHotBlocks(num_categories)


class Categorical(OtherDraws):
    r"""Categories as concatenated one-hot vectors: D coordinates are D / K independent variables of K categories each.

    .. math:: P(z) = \prod_b \prod_k \pi_{bk}^{z_{bk}} , \qquad \pi_b = softmax(\ell_b) , \quad
              z_{bk} \in \{0, 1\} , \; \sum_k z_{bk} = 1

    Args:
        logits: :math:`\ell`, of shape ``(..., D)``, the K of the first variable before those of the second; a constant
            added to those of one variable changes nothing.
        num_categories: :math:`K`, at least 2, which divides D; None is one variable of D categories.

    Shape: event_shape ``(D,)``.
    Raises: ValueError if ``num_categories`` is below 2 or does not divide D.
    References: Jang, Gu and Poole (2017), "Categorical reparameterization with Gumbel-softmax".
    """

    arg_constraints: ClassVar = {"logits": constraints.real_vector}
    has_rsample = False
    has_enumerate_support = True

    def __init__(self, logits: Tensor, num_categories: int | None = None, validate_args: bool | None = None) -> None:
        self.logits = logits
        self.num_categories = check_categories(logits.shape[-1], num_categories)
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Any:
        new = self._get_checked_instance(type(self), _instance)
        new.logits, new.num_categories = self.logits.expand(*batch_shape, -1), self.num_categories
        super(Categorical, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def support(self) -> constraints.Constraint:
        return one_hot_support(self.event_shape[0], self.num_categories)

    @property
    def probs(self) -> Tensor:
        """:math:`\\pi`, ``(..., D)``."""
        return self._blocks().softmax(-1).flatten(-2)

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def mode(self) -> Tensor:
        return self._one_hot(self._blocks().argmax(-1))

    @property
    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs)

    def entropy(self) -> Tensor:
        return -(self.probs * self._log_probs()).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return (value * self._log_probs()).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Every value, along a new dimension on the left: the K^(D / K) of all variables together."""
        num_variables = self.event_shape[0] // self.num_categories
        if self.num_categories**num_variables > MAX_ENUMERATED:
            raise NotImplementedError(f"{self.num_categories}^{num_variables} values are too many to enumerate")
        indices = list(itertools.product(range(self.num_categories), repeat=num_variables))
        values = self._one_hot(torch.tensor(indices, device=self.logits.device))
        values = values.reshape(-1, *[1] * len(self.batch_shape), *self.event_shape)
        return values.expand(-1, *self.batch_shape, -1) if expand else values

    def sample(self, sample_shape: Shape = SCALAR) -> Tensor:
        blocks = dist.Categorical(logits=self._blocks().detach(), validate_args=False)
        return self._one_hot(blocks.sample(Size(sample_shape)))

    def rsample_straight_through(self) -> Tensor:
        """A draw with the gradient of its mean. Biased."""
        return self.sample() + self.probs - self.probs.detach()

    def rsample_relaxed(self, temperature: float = 0.5) -> Tensor:
        """A draw of the Gumbel-softmax law: each variable is a point of the simplex. Biased."""
        noise = torch.empty_like(self.logits).exponential_().clamp(min=torch.finfo(self.logits.dtype).tiny)
        blocks = ((self.logits - noise.log()) / temperature).unflatten(-1, (-1, self.num_categories))
        return blocks.softmax(-1).flatten(-2)

    def _blocks(self) -> Tensor:
        return self.logits.unflatten(-1, (-1, self.num_categories))

    def _log_probs(self) -> Tensor:
        return self._blocks().log_softmax(-1).flatten(-2)

    def _one_hot(self, index: Tensor) -> Tensor:
        return one_hot(index, self.num_categories).flatten(-2).to(self.logits.dtype)


def check_categories(dim: int, num_categories: int | None) -> int:
    """The number of categories of each variable, or ValueError."""
    num = dim if num_categories is None else num_categories
    if not isinstance(num, int) or num < 2:
        raise ValueError(f"num_categories must be a whole number of at least 2, got {num!r}")
    if dim % num:
        raise ValueError(f"num_categories must divide the number of coordinates, {num} does not divide {dim}")
    return num


@register_kl(Bernoulli, Bernoulli)
@register_kl(Bernoulli, torch.distributions.Bernoulli)
@register_kl(torch.distributions.Bernoulli, Bernoulli)
def _kl_bernoulli(q: Any, p: Any) -> Tensor:
    r""":math:`\sigma(a)(a - b) + \log\sigma(-a) - \log\sigma(-b)` of logits a and b.

    Both are mirrored where q leans to 1, so that what is small is not a difference of what is large.
    """
    mirror = torch.where(q.logits > 0, -1.0, 1.0).to(q.logits.dtype)
    a, b = mirror * q.logits, mirror * p.logits
    return torch.sigmoid(a) * (a - b) + logsigmoid(-a) - logsigmoid(-b)


@register_kl(Poisson, Poisson)
@register_kl(Poisson, torch.distributions.Poisson)
@register_kl(torch.distributions.Poisson, Poisson)
def _kl_poisson(q: Any, p: Any) -> Tensor:
    r""":math:`s\,(e^u (u - 1) + 1)` of the log-ratio u of the rates r and s, or its series

    .. math:: s \sum_{k \ge 2} \frac{k - 1}{k!}\, u^k

    where u is so small that the closed form, r log(r/s) - r + s, is a difference of nearly equal numbers.
    """
    r, s = q.rate, p.rate
    closed = r * (r / s).log() - r + s
    u = torch.log1p(((r - s) / s).clamp(-2 * NEAR, 2 * NEAR))
    term, series = u, torch.zeros_like(u)
    for k in range(2, 2 + SERIES_TERMS):
        term = term * u / k
        series = series + (k - 1) * term
    return torch.where(u.abs() < NEAR, s * series, closed)


@register_kl(Categorical, Categorical)
@register_kl(Categorical, torch.distributions.OneHotCategorical)
@register_kl(torch.distributions.OneHotCategorical, Categorical)
def _kl_categorical(q: Any, p: Any) -> Tensor:
    """The sum over categories of :math:`\\pi_q (\\log \\pi_q - \\log \\pi_p)`, variable by variable."""
    num, other = (getattr(d, "num_categories", d.event_shape[-1]) for d in (q, p))
    if num != other:
        raise ValueError(f"a law of {num} categories has no KL from one of {other}")
    log_q, log_p = (d._log_probs() if isinstance(d, Categorical) else d.logits for d in (q, p))
    return (log_q.exp() * (log_q - log_p)).sum(-1)
