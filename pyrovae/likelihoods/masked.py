"""Data with holes, which are NaN."""

from __future__ import annotations

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from pyrovae.hyper import all_true
from pyrovae.likelihoods.base import Likelihood
from pyrovae.likelihoods.symbols import Autoregressive

__all__ = ["Masked"]


class Masked(Likelihood):
    r"""Data with holes, which are NaN: what is observed is scored, and what is missing is integrated out.

    .. math:: p(x_{obs}|z) = \prod_{i \text{ observed}} p(x_i|z)

    The dimensions of x are independent given z, so that this is exact, and every objective with it is a bound on
    :math:`\log p(x_{obs})`: what it would be if the model had no other dimensions for this datum. Where values are
    missing for reasons that what is missing has a part in, such a model is of the observed values alone. The encoder is
    to read holes too: :class:`~pyrovae.nn.Filled`.

    Args:
        likelihood: That of whole data, any whose dimensions are independent given z.
        fill: A value that the density is taken at in the place of NaN, and then left out; any of its support.

    Shape: x is ``(N, *event_shape)``, NaN where it is missing; draws and means have no holes.
    Raises: ValueError if ``likelihood`` is none, is autoregressive or masked already, or has no density at ``fill``; in
        ``forward``, if its dimensions are not independent.
    References: Mattei and Frellsen (2019), "MIWAE: deep generative modelling and imputation of incomplete data sets";
        Nazabal, Olmos, Ghahramani and Valera (2020), "Handling incomplete heterogeneous data using VAEs".
    See also: metrics.impute.
    """

    def __init__(self, likelihood: Likelihood, fill: float = 0.0) -> None:
        nn.Module.__init__(self)  # the network is the likelihood's
        if not isinstance(likelihood, Likelihood) or isinstance(likelihood, Masked):
            raise ValueError(f"likelihood must be a Likelihood of whole data, got {likelihood!r}")
        if isinstance(likelihood, Autoregressive):
            raise ValueError("likelihood Autoregressive gives each symbol those before it, and none may be missing")
        if not all_true(likelihood.support.check(torch.tensor(float(fill)))):
            raise ValueError(f"fill must be a value that {type(likelihood).__name__} has a density at, got {fill}")
        self.likelihood = likelihood
        self.fill = float(fill)
        self.support = _OrMissing(likelihood.support)

    @property
    def network(self) -> nn.Module:  # type: ignore[override]  # of the likelihood, registered there
        return self.likelihood.network

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        return _Observed(self.likelihood(z), self.fill)

    def mean(self, z: Tensor) -> Tensor:
        """E[x|z] of all of x, missing or not."""
        return self.likelihood.mean(z)

    def check(self, x: Tensor) -> None:
        """Raise ValueError, naming the first bad value, unless all that is observed fits."""
        self.likelihood.check(torch.where(x.isnan(), self.fill, x))


class _OrMissing(constraints.Constraint):
    """What a constraint of single numbers allows, or NaN."""

    def __init__(self, observed: constraints.Constraint) -> None:
        self.observed = observed
        self.is_discrete = observed.is_discrete
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return self.observed.check(value) | value.isnan()

    def __repr__(self) -> str:
        return f"{self.observed} or NaN"


class _Observed(dist.TorchDistribution):
    """What :class:`Masked` returns: a law of independent dimensions, of which the density leaves out those at NaN."""

    arg_constraints: ClassVar = {}

    def __init__(self, whole: Any, fill: float, validate_args: bool | None = None) -> None:
        self.whole, self.fill, self.each = whole, fill, getattr(whole, "each", whole)
        while isinstance(self.each, torch.distributions.Independent):
            self.each = self.each.base_dist
        if self.each.event_shape:
            raise ValueError(f"likelihood: the dimensions of {type(self.each).__name__} are not independent given z")
        super().__init__(whole.batch_shape, whole.event_shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> _Observed:
        return _Observed(self.whole.expand(torch.Size(batch_shape)), self.fill, self._validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]  # a property of it, as of torch's Independent
        return self.whole.has_rsample

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(_OrMissing(self.each.support), len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        return self.whole.mean

    @property
    def variance(self) -> Tensor:
        return self.whole.variance

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.whole.sample(sample_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.whole.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        observed = ~value.isnan()
        # filled before the density: the gradient of one at NaN is NaN, which a where after it would keep
        return self._summed(observed, self.each.log_prob(torch.where(observed, value, self.fill)))

    @property
    def reads(self) -> Tensor | None:
        """The code that a LinearNormal reads."""
        return getattr(self.whole, "reads", None)

    def has_expectation(self, q: Any) -> bool:
        """Whether that of whole data has one."""
        return self.whole.has_expectation(q)

    def expected_log_prob(self, q: Any, value: Tensor) -> Tensor | None:
        """The expected log-density of the observed values, as in :class:`~pyrovae.distributions.LinearNormal`."""
        observed = ~value.isnan()
        each = self.whole.expected_log_probs(q, torch.where(observed, value, self.fill))
        return None if each is None else self._summed(observed, each)

    def _summed(self, observed: Tensor, each: Tensor) -> Tensor:
        return torch.where(observed, each, 0.0).flatten(-len(self.event_shape)).sum(-1)
