"""Spike-and-slab: exact zeros with a probability, a continuous law otherwise."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

import torch
from pyro.distributions.score_parts import ScoreParts
from torch import Size, Tensor
from torch.distributions import biject_to, constraints, kl_divergence, register_kl, transform_to
from torch.nn.functional import logsigmoid

from pyrovae.distributions.draws import OtherDraws, antithetic_bits, concrete_bits
from pyrovae.distributions.univariate import SCALAR, Shape

__all__ = ["SpikeSlab", "WithAtom", "nonnegative_with_atom", "real_with_atom"]


class WithAtom(constraints.Constraint):
    """A support with an atom, which no bijection from the real line reaches."""

    atoms = "an atom at zero"
    guides = "pyrovae.guides.SpikeSlab or pyrovae.guides.ThresholdedLaplace"

    def __init_subclass__(cls) -> None:
        transform_to.register(cls, cls.refuse)
        biject_to.register(cls, cls.refuse)

    def refuse(self) -> NoReturn:
        """What the constraint registries of torch call, for automatic guides and for samplers such as NUTS."""
        raise NotImplementedError(
            f"the support {self!r} of a site has {self.atoms}, so that Pyro's automatic guides, HMC and NUTS cannot "
            f"be used for it: take a guide with the same atoms, such as {self.guides}, or sample the site from the "
            f"same distribution with parameters of its own in a guide function"
        )


class _RealWithAtom(WithAtom):
    """The real line under Lebesgue measure plus a unit atom at zero: the same numbers as ``real``, another measure."""

    def check(self, value: Tensor) -> Tensor:
        return value == value  # False for NaN, as of constraints.real

    def __repr__(self) -> str:
        return "RealWithAtom()"


class _NonnegativeWithAtom(WithAtom):
    """The half line from 0 under Lebesgue measure plus a unit atom at zero."""

    guides = "pyrovae.guides.RectifiedNormal"

    def check(self, value: Tensor) -> Tensor:
        return value >= 0

    def __repr__(self) -> str:
        return "NonnegativeWithAtom()"


real_with_atom = _RealWithAtom()
nonnegative_with_atom = _NonnegativeWithAtom()
HALF_LINES = (constraints.positive, constraints.nonnegative)


class SpikeSlab(OtherDraws):
    r"""A spike at zero and a slab.

    .. math:: P(z = 0) = 1 - \gamma , \qquad p(z) = \gamma\, s(z) \quad (z \ne 0)

    a density with respect to Lebesgue measure plus a unit atom at zero, so that ``log_prob(0)`` is
    :math:`\log(1-\gamma)`. The gates :math:`z \ne 0` are drawn hard; draws are exactly zero or the slab's.

    Gradients: ``rsample`` is pathwise in the slab and constant in the gates, for which ``score_parts`` gives Pyro the
    score function, kept by ``to_event``: ``Trace_ELBO`` and ``ReweightedWakeSleep`` are unbiased, and the guards refuse
    the objectives that would drop it. :class:`pyrovae.ELBO` uses the exact KL and one of the other draws: antithetic
    gates (unbiased), straight-through or concrete ones (biased).

    Args:
        logits: :math:`\log\frac{\gamma}{1-\gamma}`, of the probability to be non-zero.
        slab: A continuous density of one number, real or positive; its batch shape broadcasts with that of ``logits``.

    Units: log_prob in nats, with respect to the measure above.
    References: Mitchell and Beauchamp (1988), "Bayesian variable selection in linear regression"; Dong, Mnih and Tucker
        (2020), "DisARM: an antithetic gradient estimator for binary latent variables", eq. 8.
    """

    arg_constraints: ClassVar = {"logits": constraints.real}
    has_rsample = True

    def __init__(self, logits: Tensor, slab: Any, validate_args: bool | None = None) -> None:
        shape = torch.broadcast_shapes(logits.shape, slab.batch_shape)
        self.logits, self.slab = logits.expand(shape), slab.expand(shape)
        super().__init__(shape, validate_args=validate_args)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> SpikeSlab:
        new = self._get_checked_instance(SpikeSlab, _instance)
        new.logits, new.slab = self.logits.expand(batch_shape), self.slab.expand(batch_shape)
        super(SpikeSlab, new).__init__(Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        """Of non-negative numbers if the slab's is."""
        return nonnegative_with_atom if self.slab.support in HALF_LINES else real_with_atom

    @property
    def probs(self) -> Tensor:
        """:math:`\\gamma`."""
        return torch.sigmoid(self.logits)

    @property
    def mean(self) -> Tensor:
        return self.probs * self.slab.mean

    @property
    def variance(self) -> Tensor:
        return self.probs * (self.slab.variance + self.slab.mean**2) - self.mean**2

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        at_zero = value == 0
        # the slab is evaluated elsewhere when z = 0: a density with a pole there has no gradient to mask
        slab = self.slab.log_prob(torch.where(at_zero, 1.0, value))
        return torch.where(at_zero, logsigmoid(-self.logits), logsigmoid(self.logits) + slab)

    def entropy(self) -> Tensor:
        """With respect to Lebesgue measure plus the atom: H(gate) + γ H(slab)."""
        gate = -self.probs * logsigmoid(self.logits) - (1 - self.probs) * logsigmoid(-self.logits)
        return gate + self.probs * self.slab.entropy()

    def rsample(self, sample_shape: Shape = SCALAR) -> Tensor:
        gate = torch.bernoulli(self.probs.detach().expand(self._extended_shape(Size(sample_shape))))
        return self._gated(gate, self.slab.rsample(Size(sample_shape)))

    def score_parts(self, x: Tensor, *args: Any, **kwargs: Any) -> ScoreParts:
        """The score function is that of the gates alone."""
        log_prob = self.log_prob(x)
        gate = torch.where(x == 0, logsigmoid(-self.logits), logsigmoid(self.logits))
        return ScoreParts(log_prob, gate, log_prob)

    def rsample_straight_through(self) -> Tensor:
        """A hard draw that passes the gradient of each gate to its probability, as if it were its mean. Biased."""
        probs, slab = self.probs, self.slab.rsample()
        return self._gated(torch.bernoulli(probs.detach()), slab) + (probs - probs.detach()) * slab

    def rsample_relaxed(self, temperature: float = 0.5) -> Tensor:
        """A draw with concrete gates: no exact zeros, and no density of this class. Biased."""
        return concrete_bits(self.logits, temperature) * self.slab.rsample()

    def rsample_pair(self) -> tuple[Tensor, Tensor, Tensor]:
        """Two draws of antithetic gates and one slab, and the score of the first against the second (DisARM, eq. 8)."""
        first, second, score = antithetic_bits(self.logits)
        slab = self.slab.rsample()
        return self._gated(first, slab), self._gated(second, slab), score

    @staticmethod
    def _gated(gate: Tensor, slab: Tensor) -> Tensor:
        return torch.where(gate == 0, torch.zeros_like(slab), slab)


@register_kl(SpikeSlab, SpikeSlab)
def _kl_spike_slab(q: SpikeSlab, p: SpikeSlab) -> Tensor:
    """KL of the gates, plus the activity times the KL of the slabs; exact where that of the slabs is."""
    off = logsigmoid(-q.logits) - logsigmoid(-p.logits)
    return q.probs * (q.logits - p.logits + kl_divergence(q.slab, p.slab)) + off
