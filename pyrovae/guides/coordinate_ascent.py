"""Mean-field inference by coordinate ascent for a spike-and-slab dictionary: a guide without an encoder."""

from __future__ import annotations

from typing import NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from pyrovae.distributions import LinearNormal
from pyrovae.distributions import SpikeSlab as SpikeSlabDensity
from pyrovae.distributions.spike_slab import real_with_atom
from pyrovae.guides.base import Guide

__all__ = ["CoordinateAscent"]


class _Code(NamedTuple):
    """q(z|x) of each datum: ``loc``, ``logits`` and the mean m are ``(N, D)``; ``pull`` is mG, ``bound`` ``(N, 1)``."""

    loc: Tensor
    logits: Tensor
    mean: Tensor
    pull: Tensor
    bound: Tensor


class CoordinateAscent(Guide):
    r"""The best q(z|x) of independent spikes and slabs, found by sweeps of coordinate ascent from the prior.

    With :math:`G = \Phi^T diag(1/\sigma^2) \Phi`, :math:`r_j = \sum_i \Phi_{ij} (x_i - b_i)/\sigma_i^2 -
    \sum_{k \ne j} G_{jk} E[z_k]` and slabs :math:`N(m_j, \tau_j^2)` of the prior, the best q of one coordinate, given
    the others, is

    .. math::
        s_j^2 = \frac{1}{G_{jj} + 1/\tau_j^2} , \qquad \mu_j = s_j^2 (r_j + m_j/\tau_j^2) , \qquad
        logit\,\gamma_j = logit\,\pi_j + \frac12 \log\frac{s_j^2}{\tau_j^2} + \frac{\mu_j^2}{2 s_j^2}
            - \frac{m_j^2}{2 \tau_j^2}

    A sweep moves one quarter of the coordinates after another, each four fifths of the way to these values. It is kept
    where the bound of the datum does not fall; elsewhere the next sweep goes half as far. This is the bound itself, at
    beta 1, also where the objective weighs the KL otherwise.

    The guide has no network: a change of the dictionary changes q at once, and no encoder has to learn it. No gradient
    goes through the sweeps: an objective has the gradient at this q, as in variational EM.

    Args:
        prior: The prior of the VAE, a :class:`~pyrovae.priors.SpikeSlab` with Normal slabs.
        likelihood: The likelihood of the VAE, Normal with a :class:`~pyrovae.nn.Dictionary`. Prior and likelihood stay
            modules of the VAE alone: their parameters are not those of the guide.
        steps: Number of sweeps.

    Raises: ValueError if ``steps < 1``, or for parts of other kinds, which have no such update.
    References: Titsias and Lázaro-Gredilla (2011), "Spike and slab variational inference for multi-task and multiple
        kernel learning", eqs. 9 to 11.
    See also: :class:`~pyrovae.guides.Refined`, whose sweeps start at the answer of an encoder.
    """

    support = real_with_atom
    blocks = 4  # of coordinates that move at once; each block sees where those before it have gone
    damping = 0.8  # share of the way that a block goes; halved for a datum whose bound would fall

    def __init__(self, prior: nn.Module, likelihood: nn.Module, steps: int = 10) -> None:
        nn.Module.__init__(self)  # there is neither a network nor a head
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise ValueError(f"steps must be a positive whole number, got {steps!r}")
        self.steps = steps
        self.model_parts = (prior, likelihood)  # a tuple, whose modules are not registered here
        self.dim = self._terms()[1].weight.shape[1]

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        with torch.no_grad():
            p, _ = self._terms()
            start = p.expand((len(x), self.dim)).to_event(1)
            return self.refined(start, x, self.steps).to_event(1)

    def encode(self, x: Tensor) -> Tensor:
        q = self.distribution(x).base_dist
        return q.slab.loc * (q.logits > 0)

    def refined(self, start: dist.TorchDistribution, x: Tensor, steps: int) -> SpikeSlabDensity:
        """q(z|x) after some sweeps from a spike-and-slab ``start``, without ``to_event``."""
        p, likelihood = self._terms()
        prior_variance, q = p.slab.scale.square(), start.base_dist
        precision = likelihood.scale.square().reciprocal().expand(likelihood.event_shape).reshape(-1)
        weighted = likelihood.weight * precision[:, None]
        gram = weighted.T @ likelihood.weight
        own = gram.diagonal()
        centred = x.flatten(1) if x.dim() > 1 else x[:, None]
        centred = centred if likelihood.bias is None else centred - likelihood.bias
        projected = centred @ weighted
        variance = (own + 1 / prior_variance).reciprocal()  # the best one, whatever x is
        odds = p.logits + 0.5 * (variance / prior_variance).log() - 0.5 * p.slab.loc**2 / prior_variance

        def density(loc: Tensor, logits: Tensor) -> SpikeSlabDensity:
            return SpikeSlabDensity(logits, dist.Normal(loc, variance.sqrt()))

        def code(loc: Tensor, logits: Tensor, pull: Tensor | None = None) -> _Code:
            """With the bound of each datum, up to what q has no part in."""
            q = density(loc, logits)
            mean = q.mean
            pull = mean @ gram if pull is None else pull
            gain = mean * (projected - 0.5 * pull) - 0.5 * q.variance * own
            return _Code(loc, logits, mean, pull, (gain - kl_divergence(q, p)).sum(-1, keepdim=True))

        def swept(now: _Code, damping: Tensor) -> _Code:
            locs, logits, pull = [], [], now.pull
            width = -(-self.dim // self.blocks)
            for start in range(0, self.dim, width):
                at = slice(start, start + width)
                best = projected[:, at] - pull[:, at] + own[at] * now.mean[:, at] + (p.slab.loc / prior_variance)[at]
                best = variance[at] * best
                locs.append(now.loc[:, at] + damping * (best - now.loc[:, at]))
                best = odds[at] + 0.5 * best**2 / variance[at]
                logits.append(now.logits[:, at] + damping * (best - now.logits[:, at]))
                mean = torch.sigmoid(logits[-1]) * locs[-1]
                pull = pull + (mean - now.mean[:, at]) @ gram[at]
            return code(torch.cat(locs, -1), torch.cat(logits, -1), pull)

        now, damping = code(q.slab.loc, q.logits), torch.full_like(projected[:, :1], self.damping)
        for _ in range(steps):
            there = swept(now, damping)
            rises = there.bound >= now.bound
            now = _Code(*(torch.where(rises, new, old) for new, old in zip(there, now, strict=True)))
            damping = torch.where(rises, damping, 0.5 * damping)
        return density(now.loc, now.logits)

    def _terms(self) -> tuple[SpikeSlabDensity, LinearNormal]:
        """The prior of each coordinate, and the likelihood, whose own code is not read."""
        prior, likelihood = self.model_parts
        p = prior.distribution() if hasattr(prior, "distribution") else None  # type: ignore[operator]  # torch types attributes as tensors
        p = getattr(p, "base_dist", p)
        if not isinstance(p, SpikeSlabDensity) or not isinstance(p.slab, torch.distributions.Normal):
            raise ValueError(f"prior must be a spike-and-slab with Normal slabs, got {type(prior).__name__}")
        x = likelihood(p.logits.new_zeros(1, *p.batch_shape)) if callable(likelihood) else None
        if not isinstance(x, LinearNormal):
            network = type(getattr(likelihood, "network", None)).__name__
            raise ValueError(
                f"likelihood must be Normal with a linear decoder (Dictionary), got {type(likelihood).__name__} with "
                f"{network}"
            )
        return p, x
