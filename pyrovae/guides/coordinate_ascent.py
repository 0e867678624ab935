"""Mean-field inference by coordinate ascent for a spike-and-slab dictionary: a guide without an encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from pyrovae import private
from pyrovae.distributions import LinearNormal, TruncatedNormal
from pyrovae.distributions import SpikeSlab as SpikeSlabDensity
from pyrovae.distributions.normal_tails import HALF_LOG_2_PI, log_hazard
from pyrovae.guides.base import Guide

__all__ = ["CoordinateAscent"]

SIGNAL = 3.0  # energy of an open latent over that of the noise, in the first annealed sweep


class _Code(NamedTuple):
    """q(z|x) of each datum, each ``(N, D)``; ``mean`` is m, ``pull`` is mG.

    ``offset`` is the natural parameter of the gate: ``logits`` minus the log-integral of the slab.
    """

    loc: Tensor
    offset: Tensor
    logits: Tensor
    mean: Tensor
    pull: Tensor


class _Slab(NamedTuple):
    r"""A prior slab :math:`e^{-a z^2 / 2 + b z - c}`, on the half line or not; each is ``(D,)``."""

    curvature: Tensor
    slope: Tensor
    log_normalizer: Tensor
    is_positive: bool

    @staticmethod
    def of(slab: dist.TorchDistribution) -> _Slab | None:
        """None for a slab of another form."""
        if isinstance(slab, torch.distributions.Exponential):
            return _Slab(torch.zeros_like(slab.rate), -slab.rate, -slab.rate.log(), True)
        if not isinstance(slab, (torch.distributions.Normal, TruncatedNormal)):
            return None
        curvature = slab.scale.square().reciprocal()
        slope, is_positive = slab.loc * curvature, isinstance(slab, TruncatedNormal)
        return _Slab(curvature, slope, _log_integral(slope, curvature, is_positive)[0], is_positive)


def _log_integral(slope: Tensor, curvature: Tensor, is_positive: bool) -> tuple[Tensor, Tensor]:
    r""":math:`\log \int e^{-a z^2 / 2 + b z} dz`, over the real line or over z > 0, and the mean of that density."""
    loc, scale = slope / curvature, curvature.rsqrt()
    if not is_positive:
        return 0.5 * slope * loc + scale.log() + HALF_LOG_2_PI, loc
    log_h = log_hazard(-loc / scale)
    # the mean has a relative error of (loc / scale)^2 roundings where loc is negative, and the gate is then shut
    return scale.log() - log_h, (loc + scale * log_h.exp()).clamp(min=0.0)


class _Posterior(NamedTuple):
    """The posterior of the codes of some data under a Normal likelihood with a linear decoder, and mean-field updates.

    An update may be annealed: the precision of the likelihood is multiplied by ``inverse_temperature``, at most 1.
    """

    gram: Tensor  # G
    projected: Tensor  # the pull of the data on each code, (N, D)
    logits: Tensor  # of the prior
    slab: _Slab
    family: Callable[..., dist.TorchDistribution]  # of the prior's slab
    parameters: tuple[Tensor, ...]

    @classmethod
    def of(cls, prior: SpikeSlabDensity, likelihood: LinearNormal, x: Tensor) -> _Posterior:
        precision = likelihood.scale.square().reciprocal().expand(likelihood.event_shape).reshape(-1)
        weighted = likelihood.weight * precision[:, None]
        centred = x.flatten(1) if x.dim() > 1 else x[:, None]
        centred = centred if likelihood.bias is None else centred - likelihood.bias
        slab = _Slab.of(prior.slab)
        assert slab is not None  # the guide has seen to it
        parameters = tuple(getattr(prior.slab, name) for name in prior.slab.arg_constraints)
        gram, projected = weighted.T @ likelihood.weight, centred @ weighted
        return cls(gram, projected, prior.logits, slab, type(prior.slab), parameters)

    @property
    def prior(self) -> SpikeSlabDensity:
        return SpikeSlabDensity(self.logits, self.family(*self.parameters))

    @property
    def own(self) -> Tensor:
        return self.gram.diagonal()

    @property
    def offset(self) -> Tensor:
        """The best one."""
        return self.logits - self.slab.log_normalizer

    def slabs(self, loc: Tensor, curvature: Tensor) -> dist.TorchDistribution:
        family = TruncatedNormal if self.slab.is_positive else dist.Normal
        return family(loc, curvature.rsqrt())

    def density(self, code: _Code) -> SpikeSlabDensity:
        return SpikeSlabDensity(code.logits, self.slabs(code.loc, self.own + self.slab.curvature))

    def start(self) -> _Code:
        """The prior of each datum."""
        mean = self.prior.mean
        start = self.prior.slab.mean, self.offset, self.logits, mean, mean @ self.gram
        return _Code(*(each.expand_as(self.projected) for each in start))

    def code(self, q: SpikeSlabDensity) -> _Code:
        loc, curvature, mean = q.slab.loc, self.own + self.slab.curvature, q.mean
        offset = q.logits - _log_integral(curvature * loc, curvature, self.slab.is_positive)[0]
        return _Code(loc, offset, q.logits, mean, mean @ self.gram)

    def bound(self, code: _Code) -> Tensor:
        """The bound of each datum up to a constant, ``(N, 1)``."""
        q = self.density(code)
        gain = code.mean * (self.projected - 0.5 * code.pull) - 0.5 * q.variance * self.own
        return (gain - kl_divergence(q, self.prior)).sum(-1, keepdim=True)

    def swept(
        self, now: _Code, blocks: int, damping: Tensor | float, inverse_temperature: Tensor | float = 1.0
    ) -> _Code:
        """Move one block of coordinates after another a share ``damping`` of the way to its best natural parameters."""
        curvature, dim = inverse_temperature * self.own + self.slab.curvature, len(self.own)
        offset = now.offset + damping * (self.offset - now.offset)
        locs, logits, means, pull = [], [], [], now.pull
        width = -(-dim // blocks)
        for start in range(0, dim, width):
            at = slice(start, start + width)
            residual = self.projected[:, at] - pull[:, at] + self.own[at] * now.mean[:, at]
            slope = inverse_temperature * residual + self.slab.slope[at]
            locs.append(now.loc[:, at] + damping * (slope / curvature[at] - now.loc[:, at]))
            log_integral, mean = _log_integral(curvature[at] * locs[-1], curvature[at], self.slab.is_positive)
            logits.append(offset[:, at] + log_integral)
            means.append(torch.sigmoid(logits[-1]) * mean)
            pull = pull + (means[-1] - now.mean[:, at]) @ self.gram[at]
        return _Code(torch.cat(locs, -1), offset, torch.cat(logits, -1), torch.cat(means, -1), pull)

    def ascended(self, now: _Code, bound: Tensor, damping: Tensor, blocks: int) -> tuple[_Code, Tensor, Tensor]:
        """A sweep, kept where the bound does not fall; elsewhere half the ``damping`` for the next one."""
        there = self.swept(now, blocks, damping)
        reached = self.bound(there)
        rises = reached >= bound
        kept = _Code(*(torch.where(rises, new, old) for new, old in zip(there, now, strict=True)))
        return kept, torch.where(rises, reached, bound), torch.where(rises, damping, 0.5 * damping)

    def inverse_temperatures(self, steps: int) -> Tensor:
        """From the one at which an open latent has ``SIGNAL`` times the energy of the noise along its atom; below 1."""
        slab = self.prior.slab
        first = (SIGNAL / (self.own * (slab.variance + slab.mean.square())).mean()).clamp(max=1.0)
        return first ** (1 - torch.arange(steps, device=first.device) / steps)


class CoordinateAscent(Guide):
    r"""The best q(z|x) of independent spikes and slabs, found by annealed coordinate ascent from the prior.

    With :math:`G = \Phi^T diag(1/\sigma^2) \Phi`, :math:`r_j = \sum_i \Phi_{ij} (x_i - b_i)/\sigma_i^2 -
    \sum_{k \ne j} G_{jk} E[z_k]` and slabs :math:`e^{-a_j z^2/2 + b_j z - c_j}` of the prior, the best q of one
    coordinate, given the others, has

    .. math::
        logit\,\gamma_j = logit\,\pi_j - c_j + \log\int e^{-(G_{jj} + a_j) z^2/2 + (r_j + b_j) z} dz , \qquad
        \mu_j = \frac{r_j + b_j}{G_{jj} + a_j} , \qquad s_j^2 = \frac{1}{G_{jj} + a_j}

    and the slab :math:`N(\mu_j, s_j^2)`, restricted to z > 0 where that of the prior is.

    A sweep moves one quarter of the coordinates after another, four fifths of the way to the natural parameters of
    these densities. Where atoms are far from orthogonal and the noise is small, such sweeps from the prior end in a
    poor local optimum. Seven of ten sweeps are therefore annealed: they multiply G and r by an inverse temperature that
    rises geometrically to 1, from the one at which an open latent has three times the energy of the noise,
    :math:`3 / mean_j(G_{jj} E[z_j^2 | z_j \ne 0])`. Each later sweep is kept where the bound of the datum does not
    fall; elsewhere the next sweep goes half as far. This is the bound itself, at beta 1, also where the objective
    weighs the KL otherwise.

    The guide has no network: a change of the dictionary changes q at once, and no encoder has to learn it. No gradient
    goes through the sweeps: an objective has the gradient at this q, as in variational EM.

    Args:
        prior: The prior of the VAE, a :class:`~pyrovae.priors.SpikeSlab` whose slabs are Normal, truncated Normal,
            half-Normal or exponential.
        likelihood: The likelihood of the VAE, Normal with a :class:`~pyrovae.nn.Dictionary`. Prior and likelihood stay
            modules of the VAE alone: their parameters are not those of the guide.
        steps: Number of sweeps.

    Raises: ValueError if ``steps < 1``, or for parts of other kinds, which have no such update.
    References: Titsias and Lázaro-Gredilla (2011), "Spike and slab variational inference for multi-task and multiple
        kernel learning", eqs. 9 to 11; Katahira, Watanabe and Okada (2008), "Deterministic annealing variant of
        variational Bayes method".
    See also: :class:`~pyrovae.guides.Refined`, whose sweeps start at the answer of an encoder.
    """

    blocks = 4  # of coordinates that move at once; each block sees where those before it have gone
    damping = 0.8  # share of the way that a block goes; halved for a datum whose bound would fall
    annealed = 0.7  # share of the sweeps

    def __init__(self, prior: nn.Module, likelihood: nn.Module, steps: int = 10) -> None:
        nn.Module.__init__(self)  # there is neither a network nor a head
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise ValueError(f"steps must be a positive whole number, got {steps!r}")
        self.steps = steps
        self.model_parts = (prior, likelihood)  # a tuple, whose modules are not registered here
        p, x = self._terms()
        self.dim = x.weight.shape[1]
        self.support = p.support

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        with torch.no_grad():
            posterior = _Posterior.of(*self._terms(), x)
            now = posterior.start()
            annealed = int(self.annealed * self.steps)
            for inverse in posterior.inverse_temperatures(annealed).unbind():
                now = private.repeated(_Posterior.swept, posterior, now, self.blocks, self.damping, inverse)
            return self._ascended(posterior, posterior.density(now), self.steps - annealed).to_event(1)

    def encode(self, x: Tensor) -> Tensor:
        q = self.distribution(x).base_dist
        return q.slab.mean * (q.logits > 0)

    def refined(self, start: dist.TorchDistribution, x: Tensor, steps: int) -> SpikeSlabDensity:
        """q(z|x) after some sweeps from a spike-and-slab ``start``, without ``to_event``; no bound falls."""
        return self._ascended(_Posterior.of(*self._terms(), x), start.base_dist, steps)

    def _ascended(self, posterior: _Posterior, start: SpikeSlabDensity, steps: int) -> SpikeSlabDensity:
        now = posterior.code(start)
        bound, damping = posterior.bound(now), torch.full_like(now.loc[:, :1], self.damping)
        for _ in range(steps):
            now, bound, damping = private.repeated(_Posterior.ascended, posterior, now, bound, damping, self.blocks)
        return posterior.density(now)

    def _terms(self) -> tuple[SpikeSlabDensity, LinearNormal]:
        """The prior of each coordinate, and the likelihood, whose own code is not read."""
        prior, likelihood = self.model_parts
        p = prior.distribution() if hasattr(prior, "distribution") else None  # type: ignore[operator]  # torch types attributes as tensors
        p = getattr(p, "base_dist", p)
        if not isinstance(p, SpikeSlabDensity) or _Slab.of(p.slab) is None:
            slab = f" with slabs {type(p.slab).__name__}" if isinstance(p, SpikeSlabDensity) else ""
            raise ValueError(
                f"prior must be a spike-and-slab whose slabs are Normal, truncated Normal, half-Normal or exponential, "
                f"got {type(prior).__name__}{slab}"
            )
        x = likelihood(p.logits.new_zeros(1, *p.batch_shape)) if callable(likelihood) else None
        if not isinstance(x, LinearNormal):
            network = type(getattr(likelihood, "network", None)).__name__
            raise ValueError(
                f"likelihood must be Normal with a linear decoder (Dictionary), got {type(likelihood).__name__} with "
                f"{network}"
            )
        return p, x
