r"""Likelihoods p(x|z): a network that maps z to one tensor of the shape of x, and the distribution around it.

Every data dimension is in the event: ``log_prob`` is one number per datum, in nats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn import functional

from pyrovae.hyper import Constrained

__all__ = [
    "Autoregressive",
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "Laplace",
    "Likelihood",
    "Masked",
    "NegativeBinomial",
    "Normal",
    "Poisson",
]

RATE_FLOOR = 1e-8
MISSING = "where NaN stands for what is missing, likelihoods.Masked or build_vae(missing=True) takes it"


class Likelihood(nn.Module):
    """p(x|z): write ``forward(z)``, which returns the distribution of x with all data dimensions in the event.

    Args:
        network: Maps z ``(*batch, D)`` to ``(*batch, *event_shape)``.
    """

    support: constraints.Constraint = constraints.real
    hint: str = "the data must be finite numbers"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        raise NotImplementedError(f"{type(self).__name__} must define forward(z)")

    def output(self, z: Tensor) -> Tensor:
        """The network at z, whose batch dimensions it sees as one: some layers (BatchNorm) take no more than that."""
        out = self.network(z.reshape(-1, z.shape[-1]))
        return out.reshape(*z.shape[:-1], *out.shape[1:])

    def mean(self, z: Tensor) -> Tensor:
        """E[x|z], what a reconstruction shows."""
        return self(z).mean

    def check(self, x: Tensor) -> None:
        """Raise ValueError, naming the first bad value, unless all of x is where this likelihood has a density."""
        for bad, what in ((~torch.isfinite(x), ""), (~self.support.check(x), f" under {type(self).__name__}")):
            if bad.any():
                place = tuple(int(i) for i in bad.nonzero()[0])
                hint = f"{self.hint}; {MISSING}" if x[place].isnan() else self.hint
                raise ValueError(f"data: the value {x[place].item():.6g} at index {place} does not fit{what}: {hint}")


class Bernoulli(Likelihood):
    r"""Binary data: :math:`p(x|z) = \prod_i \sigma(l_i)^{x_i} (1-\sigma(l_i))^{1-x_i}` with logits :math:`l = f(z)`."""

    support = constraints.boolean
    hint = "it takes 0 and 1; binarise grey values, or use ContinuousBernoulli"

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        logits = self.output(z)
        return _Bits(logits=logits).to_event(_event_dim(logits, z))


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
        return dist.ContinuousBernoulli(logits=logits).to_event(_event_dim(logits, z))


class Normal(Likelihood):
    r"""Real data: :math:`p(x|z) = \prod_i N(x_i;\, f_i(z),\, s_i^2)`.

    Args:
        network: Gives the mean.
        scale: The standard deviation :math:`s`: a number (fixed), ``"shared"`` (one, learned) or ``"per-pixel"`` (one
            for each data dimension, learned; the network must say its ``out_shape``).
        floor: Lower end of a learned scale. Without it the likelihood of a constant pixel has no upper bound.
    """

    def __init__(self, network: nn.Module, scale: float | str = "shared", floor: float = 0.01) -> None:
        super().__init__(network)
        self.scale = _hyper("scale", scale, floor, network)

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        loc = self.output(z)
        return dist.Normal(loc, self.scale()).to_event(_event_dim(loc, z))


class Laplace(Likelihood):
    r"""Real data with outliers: :math:`p(x|z) = \prod_i \frac{1}{2 b_i} \exp(-|x_i - f_i(z)| / b_i)`.

    Args:
        network: Gives the median.
        scale: :math:`b`, as in :class:`Normal`.
        floor: Lower end of a learned scale.
    """

    def __init__(self, network: nn.Module, scale: float | str = "shared", floor: float = 0.01) -> None:
        super().__init__(network)
        self.scale = _hyper("scale", scale, floor, network)

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        loc = self.output(z)
        return dist.Laplace(loc, self.scale()).to_event(_event_dim(loc, z))


class Categorical(Likelihood):
    r"""Each data dimension one of ``num_classes``: :math:`p(x_i = c|z) = softmax(f_i(z))_c`.

    Args:
        network: Gives ``num_classes`` logits for each data dimension, those of the first dimension first:
            ``(*batch, D * num_classes)``.
        num_classes: Number of classes :math:`C`; x holds 0 … C-1.
    """

    hint = "it takes whole numbers from 0 to num_classes - 1"

    def __init__(self, network: nn.Module, num_classes: int) -> None:
        super().__init__(network)
        self.num_classes = _check_classes(network, num_classes)
        self.support = constraints.integer_interval(0, num_classes - 1)

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        return dist.Categorical(logits=self.output(z).unflatten(-1, (-1, self.num_classes))).to_event(1)

    def mean(self, z: Tensor) -> Tensor:
        """The most probable class: a category has no mean."""
        return self(z).base_dist.logits.argmax(-1).to(z.dtype)


class Autoregressive(Likelihood):
    r"""Sequences such as text, each symbol given those before it:
    :math:`p(x|z) = \prod_t softmax(f_t(z, x_1 \dots x_{t-1}))_{x_t}`.

    ``log_prob`` sees all of x at once; ``sample`` draws symbol by symbol. Such a decoder may model x alone and leave z
    unread: ``word_dropout`` of :class:`~pyrovae.nn.GRUDecoder`, free bits and a warm-up of beta are against that.

    Args:
        network: Called with z ``(N, D)`` and x ``(N, L)`` it gives ``(N, L * num_classes)`` logits, those of the first
            symbol first, each of what is before it in x; ``generate(z, choose)`` gives x, as that of
            :class:`~pyrovae.nn.GRUDecoder` does. It says its ``out_features``.
        num_classes: Number of symbols :math:`C`; x holds 0 … C-1.

    References: Bowman et al. (2016), "Generating sentences from a continuous space".
    """

    hint = Categorical.hint

    def __init__(self, network: nn.Module, num_classes: int) -> None:
        super().__init__(network)
        self.num_classes, out_features = _check_classes(network, num_classes), getattr(network, "out_features", None)
        if out_features is None or not hasattr(network, "generate"):
            raise ValueError(
                f"network must say its out_features and have a generate(z, choose), {type(network).__name__} does not"
            )
        self.length = out_features // num_classes
        self.support = constraints.integer_interval(0, num_classes - 1)

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        return _Sequences(self.network, z, self.length, self.num_classes)

    def mean(self, z: Tensor) -> Tensor:
        """Symbol by symbol the most probable one after those before it: a sequence has no mean."""
        return self(z).written(lambda logits: logits.argmax(-1)).to(z.dtype)


class Poisson(Likelihood):
    r"""Counts: :math:`p(x|z) = \prod_i r_i^{x_i} e^{-r_i} / x_i!` with rate
    :math:`r = softplus(f(z)) + 10^{-8}`.

    The softplus grows linearly where an exponential overflows; the constant keeps log r finite where it underflows.
    """

    support = constraints.nonnegative_integer
    hint = "it takes counts 0, 1, 2, …"

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        out = self.output(z)
        return dist.Poisson(functional.softplus(out) + RATE_FLOOR).to_event(_event_dim(out, z))


class NegativeBinomial(Likelihood):
    r"""Counts more spread than Poisson's: mean :math:`m = softplus(f(z)) + 10^{-8}`, variance
    :math:`m + m^2 / k`.

    .. math:: p(x|z) = \prod_i \frac{\Gamma(x_i + k_i)}{x_i!\,\Gamma(k_i)}
              \left(\frac{k_i}{k_i + m_i}\right)^{k_i} \left(\frac{m_i}{k_i + m_i}\right)^{x_i}

    Args:
        network: Gives :math:`f`.
        total_count: :math:`k`: a number (fixed), ``"shared"`` or ``"per-pixel"`` (learned), as ``scale`` of
            :class:`Normal`.
        floor: Lower end of a learned ``total_count``.
    """

    support = constraints.nonnegative_integer
    hint = "it takes counts 0, 1, 2, …"

    def __init__(self, network: nn.Module, total_count: float | str = "shared", floor: float = 0.01) -> None:
        super().__init__(network)
        self.total_count = _hyper("total_count", total_count, floor, network)

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        out = self.output(z)
        k = self.total_count()
        logits = torch.log(functional.softplus(out) + RATE_FLOOR) - torch.log(k)  # torch: mean = k exp(logits)
        return dist.NegativeBinomial(k, logits=logits).to_event(_event_dim(out, z))


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
        if not bool(likelihood.support.check(torch.tensor(float(fill)))):
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
        self.whole, self.fill, self.each = whole, fill, whole
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
        each = self.each.log_prob(torch.where(observed, value, self.fill))
        return torch.where(observed, each, 0.0).flatten(-len(self.event_shape)).sum(-1)


class _Sequences(dist.TorchDistribution):
    """What :class:`Autoregressive` returns: sequences ``(L,)`` given each z of a batch."""

    arg_constraints: ClassVar = {"z": constraints.real_vector}
    has_rsample = False

    def __init__(self, network: nn.Module, z: Tensor, length: int, num_classes: int) -> None:
        self.network, self.z, self.num_classes = network, z, num_classes
        super().__init__(z.shape[:-1], torch.Size([length]))

    def expand(self, batch_shape: Any, _instance: Any = None) -> _Sequences:
        new = self._get_checked_instance(_Sequences, _instance)
        new.network, new.z, new.num_classes = self.network, self.z.expand(*batch_shape, -1), self.num_classes
        super(_Sequences, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.integer_interval(0, self.num_classes - 1), 1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        batch = torch.broadcast_shapes(self.batch_shape, value.shape[:-1])
        z, x = (tensor.expand(*batch, -1).reshape(-1, tensor.shape[-1]) for tensor in (self.z, value.long()))
        log_probs = self.network(z, x).unflatten(-1, (-1, self.num_classes)).log_softmax(-1)
        return log_probs.gather(-1, x[..., None]).sum((-2, -1)).reshape(batch)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.written(lambda logits: dist.Categorical(logits=logits, validate_args=False).sample(), sample_shape)

    def written(self, choose: Callable[[Tensor], Tensor], sample_shape: Any = ()) -> Tensor:
        """Sequences of the symbols that ``choose`` takes one by one, ``(n,)`` from logits ``(n, num_classes)``."""
        shape = (*sample_shape, *self.batch_shape)
        with torch.no_grad():
            z = self.z.expand(*shape, -1).reshape(-1, self.z.shape[-1])
            generate: Any = self.network.generate  # torch types attributes as tensors
            return generate(z, choose).reshape(*shape, *self.event_shape)


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


def _check_classes(network: nn.Module, num_classes: int) -> int:
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    out_features = getattr(network, "out_features", num_classes)
    if out_features % num_classes:
        raise ValueError(f"num_classes = {num_classes} does not divide the network's out_features = {out_features}")
    return num_classes


def _hyper(name: str, value: float | str, floor: float, network: nn.Module) -> Constrained:
    """A positive number: fixed, or learned from 1 on, one for all data dimensions or one for each."""
    if not isinstance(value, str):
        return Constrained(name, value, lower=0.0)
    if value not in ("shared", "per-pixel"):
        raise ValueError(f'{name} must be a number, "shared" or "per-pixel", got {value!r}')
    if not 0.0 < floor < 1.0:
        raise ValueError(f"floor must be between 0 and 1, got {floor}")
    shape = () if value == "shared" else getattr(network, "out_shape", None)
    if shape is None:
        raise ValueError(f'{name} "per-pixel" needs a network that says its out_shape')
    return Constrained(name, 1.0, shape, lower=floor, learned=True)


def _event_dim(params: Tensor, z: Tensor) -> int:
    """All that the network added to z's batch dimensions."""
    return params.dim() - z.dim() + 1
