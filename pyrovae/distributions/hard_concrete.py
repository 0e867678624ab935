"""Hard-concrete gates, with atoms at 0 and at 1 and a density between; and a Normal that such a gate multiplies."""

from __future__ import annotations

import functools
import math
from typing import Any, ClassVar

import numpy as np
import torch
from pyro.distributions.score_parts import ScoreParts
from torch import Tensor
from torch.distributions import Normal, constraints, kl_divergence, register_kl
from torch.nn.functional import logsigmoid

from pyrovae.distributions.draws import OtherDraws
from pyrovae.distributions.spike_slab import WithAtom, real_with_atom
from pyrovae.distributions.univariate import SCALAR, Shape, Univariate

__all__ = ["EDGE", "GatedNormal", "HardConcrete", "unit_interval_with_atoms"]

LOW, HIGH = -0.1, 1.1  # what the concrete gate is stretched to, before it is cut off at 0 and 1
EDGE = math.log(-HIGH / LOW)  # the gate is between 0 and 1 where its logit, before stretching, is within ± EDGE
NODES = 16


class _UnitIntervalWithAtoms(WithAtom):
    """[0, 1] under Lebesgue measure plus unit atoms at 0 and at 1."""

    atoms = "an atom at zero and one at 1"
    guides = "pyrovae.guides.HardConcrete"

    def check(self, value: Tensor) -> Tensor:
        return (value >= 0) & (value <= 1)

    def __repr__(self) -> str:
        return "UnitIntervalWithAtoms()"


unit_interval_with_atoms = _UnitIntervalWithAtoms()


class HardConcrete(OtherDraws, Univariate):
    r"""A gate that is exactly 0, exactly 1, or between.

    .. math:: h = \min\left(1, \max\left(0,\, 1.2\, \sigma(v) - 0.1\right)\right) , \qquad
              v = (\log\alpha + \log u - \log(1 - u)) / \tau

    with u uniform. With :math:`c = \log 11`, where :math:`1.2\,\sigma(-c) = 0.1`,

    .. math:: P(h = 0) = \sigma(-\log\alpha - \tau c) , \quad P(h = 1) = \sigma(\log\alpha - \tau c) , \quad
              p(h) = \frac{1.2\, \tau\, \sigma(y)\, \sigma(-y)}{(h + 0.1)(1.1 - h)} , \; y = \tau v - \log\alpha

    a density with respect to Lebesgue measure plus unit atoms at 0 and 1. Moments, entropy and KL are sums of the atoms
    and of Gauss–Legendre quadrature in v, with an error below 1e-6 for temperatures up to 2.

    Gradients: those of ``rsample`` are within (0, 1), at a fixed choice among 0, 1 and between, whose score
    ``score_parts`` gives to Pyro: ``Trace_ELBO`` is unbiased. :class:`pyrovae.ELBO` uses ``rsample_pathwise``, in which
    h is continuous in the noise and in both parameters.

    Args:
        logits: :math:`\log\alpha`.
        temperature: :math:`\tau > 0`.

    Units: log_prob in nats, with respect to the measure above.
    References: Louizos, Welling and Kingma (2018), "Learning sparse neural networks through L0 regularization",
        eqs. 10 to 12 and the stretch of their section 4.
    """

    arg_constraints: ClassVar = {"logits": constraints.real, "temperature": constraints.positive}
    support = unit_interval_with_atoms
    logits: Tensor
    temperature: Tensor

    def __init__(
        self, logits: Tensor | float, temperature: Tensor | float = 2 / 3, validate_args: bool | None = None
    ) -> None:
        super().__init__(logits, temperature, validate_args=validate_args)

    @property
    def active(self) -> Tensor:
        """P(h ≠ 0)."""
        return torch.sigmoid(self.logits + self.temperature * EDGE)

    @property
    def median(self) -> Tensor:
        """Exactly zero where P(h = 0) is a half or more."""
        return _stretched(self.logits / self.temperature)

    @property
    def mean(self) -> Tensor:
        return self._expectation(lambda h: h)

    @property
    def variance(self) -> Tensor:
        return self._expectation(lambda h: (h - self.mean) ** 2)

    def entropy(self) -> Tensor:
        """With respect to Lebesgue measure plus the atoms."""
        return -self._expectation(self.log_prob)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        outside = (value == 0) | (value == 1)
        h = torch.where(outside, 0.5, value)
        low, high = (h - LOW).log(), (HIGH - h).log()
        y = self.temperature * (low - high) - self.logits
        between = self.temperature.log() + logsigmoid(y) + logsigmoid(-y) + math.log(HIGH - LOW) - low - high
        return torch.where(outside, self._log_mass(value), between)

    def score_parts(self, x: Tensor, *args: Any, **kwargs: Any) -> ScoreParts:
        """The score function is that of the choice among 0, 1 and between."""
        log_prob = self.log_prob(x)
        return ScoreParts(log_prob, self._log_mass(x), log_prob)

    def rsample_pathwise(self, sample_shape: Shape = SCALAR) -> Tensor:
        """A draw of this density, continuous in the noise and in both parameters."""
        shape = self._extended_shape(torch.Size(sample_shape))
        uniform = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
        noise = uniform.clamp(min=torch.finfo(uniform.dtype).tiny).log() - torch.log1p(-uniform)
        return _stretched((self.logits + noise) / self.temperature)

    def rsample(self, sample_shape: Shape = SCALAR) -> Tensor:
        with torch.no_grad():
            h = self.rsample_pathwise(sample_shape)
        low, high = self._ends()
        if not (torch.is_grad_enabled() and low.requires_grad | high.requires_grad):
            return h
        inside = (h > 0) & (h < 1)
        with torch.no_grad():
            v = torch.where(inside, h, 0.5)
            y = self.temperature * ((v - LOW).log() - (HIGH - v).log()) - self.logits
            # at a fixed probability between the ends y moves as they do, each with its weight
            whole = torch.log(-torch.expm1(low - high))
            by_low = torch.exp(logsigmoid(low) - logsigmoid(y) + _log1mexp(y - high) - whole)
            by_high = torch.exp(logsigmoid(-high) - logsigmoid(-y) + _log1mexp(low - y) - whole)
        y = y + by_low * (low - low.detach()) + by_high * (high - high.detach())
        return torch.where(inside, _stretched((y + self.logits) / self.temperature), h)

    def _ends(self) -> tuple[Tensor, Tensor]:
        """y where h leaves 0 and where it reaches 1."""
        return -self.temperature * EDGE - self.logits, self.temperature * EDGE - self.logits

    def _log_mass(self, value: Tensor) -> Tensor:
        """log P of the part that each value is in: h = 0, h = 1 or between."""
        low, high = self._ends()
        between = logsigmoid(high) + logsigmoid(-low) + torch.log(-torch.expm1(low - high))
        return torch.where(value == 0, logsigmoid(low), torch.where(value == 1, logsigmoid(-high), between))

    def _expectation(self, f: Any) -> Tensor:
        nodes, weights = (v.to(self.logits).reshape(-1, *[1] * self.logits.dim()) for v in _nodes())
        return (weights * self.log_prob(nodes).exp() * f(nodes)).sum(0)


def _stretched(v: Tensor) -> Tensor:
    return (LOW + (HIGH - LOW) * torch.sigmoid(v)).clamp(0.0, 1.0)


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)), for x < 0; -inf where rounding brings x to 0."""
    return torch.log(-torch.expm1(x.clamp(max=0.0)))


@functools.lru_cache
def _nodes() -> tuple[Tensor, Tensor]:
    """0, 1 and points between, with their weights in the measure of the density."""
    points, weights = np.polynomial.legendre.leggauss(NODES)
    gate = torch.sigmoid(torch.from_numpy(EDGE * points))
    inside = torch.from_numpy(EDGE * weights) * (HIGH - LOW) * gate * (1 - gate)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    return torch.cat([ends, LOW + (HIGH - LOW) * gate]), torch.cat([torch.ones_like(ends), inside])


@register_kl(HardConcrete, HardConcrete)
def _kl_hard_concrete(q: HardConcrete, p: HardConcrete) -> Tensor:
    return q._expectation(lambda h: q.log_prob(h) - p.log_prob(h))


class GatedNormal(Univariate):
    r""":math:`z = h w` for :math:`w \sim N(\mu, \sigma^2)`, given the gate h: exactly zero where h is.

    With respect to Lebesgue measure plus a unit atom at zero, as :class:`~pyrovae.distributions.SpikeSlab`.

    The KL of two such laws given h is that of the Normals where :math:`h \ne 0` and zero where not: a jump, past which
    no gradient goes along the path of h. So ``kl_divergence`` gives its mean over q's gate,
    :math:`P(h \ne 0)\, KL(N \,\|\, N)`, which adds to the KL of the gates what it should, with the whole gradient.

    Args:
        gate: h, between 0 and 1.
        loc: :math:`\mu`.
        scale: :math:`\sigma > 0`.
        active: :math:`P(h \ne 0)`, before h was drawn.

    Units: log_prob in nats, with respect to the measure above.
    """

    arg_constraints: ClassVar = {
        "gate": constraints.unit_interval,
        "loc": constraints.real,
        "scale": constraints.positive,
        "active": constraints.unit_interval,
    }
    support = real_with_atom
    gate: Tensor
    loc: Tensor
    scale: Tensor
    active: Tensor

    def __init__(
        self,
        gate: Tensor | float,
        loc: Tensor | float,
        scale: Tensor | float,
        active: Tensor | float,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(gate, loc, scale, active, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.gate * self.loc

    @property
    def variance(self) -> Tensor:
        return (self.gate * self.scale) ** 2

    def rsample(self, sample_shape: Shape = SCALAR) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        return self.gate * (self.loc + self.scale * torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        shut = self.gate == 0
        gate = torch.where(shut, 1.0, self.gate)
        normal = Normal(gate * self.loc, gate * self.scale, validate_args=False).log_prob(value)
        return torch.where(shut, torch.where(value == 0, 0.0, -torch.inf), normal)


@register_kl(GatedNormal, GatedNormal)
def _kl_gated_normal(q: GatedNormal, p: GatedNormal) -> Tensor:
    return q.active * kl_divergence(Normal(q.loc, q.scale), Normal(p.loc, p.scale))
