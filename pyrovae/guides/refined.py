"""A guide whose answer is improved for each datum, by coordinate ascent on the bound of that datum."""

from __future__ import annotations

from typing import NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from pyrovae.distributions import LinearNormal
from pyrovae.distributions import SpikeSlab as SpikeSlabDensity
from pyrovae.guides.base import Guide
from pyrovae.guides.exact_zeros import SpikeSlab

__all__ = ["Refined"]

DAMPING = 0.5  # of a step of all coordinates at once; halved for a datum whose bound would fall


class _Code(NamedTuple):
    """Parameters of q(z|x): ``loc`` and ``logits`` are ``(N, D)``, ``variance`` is that of the slabs."""

    loc: Tensor
    variance: Tensor
    logits: Tensor

    def density(self) -> SpikeSlabDensity:
        return SpikeSlabDensity(self.logits, dist.Normal(self.loc, self.variance.sqrt()))


class Refined(Guide):
    r"""A spike-and-slab guide under a linear decoder, followed by sweeps of coordinate ascent.

    With :math:`G = \Phi^T diag(1/\sigma^2) \Phi`, :math:`r_j = \sum_i \Phi_{ij} (x_i - b_i)/\sigma_i^2 -
    \sum_{k \ne j} G_{jk} E[z_k]` and slabs :math:`N(m_j, \tau_j^2)` of the prior, the best q of one coordinate, given
    the others, is

    .. math::
        s_j^2 = \frac{1}{G_{jj} + 1/\tau_j^2} , \qquad \mu_j = s_j^2 (r_j + m_j/\tau_j^2) , \qquad
        logit\,\gamma_j = logit\,\pi_j + \frac12 \log\frac{s_j^2}{\tau_j^2} + \frac{\mu_j^2}{2 s_j^2}
            - \frac{m_j^2}{2 \tau_j^2}

    A sweep moves all coordinates of a datum half of the way to these values. It is kept where the bound of the datum
    does not fall; elsewhere the next sweep goes half as far. The bound of no datum is below that of ``guide``. This is
    the bound itself, at beta 1, also where the objective weighs the KL otherwise.

    Args:
        guide: A :class:`~pyrovae.guides.SpikeSlab` with Normal slabs, where the sweeps start.
        prior: The prior of the VAE, a :class:`~pyrovae.priors.SpikeSlab` with Normal slabs.
        likelihood: The likelihood of the VAE, Normal with a :class:`~pyrovae.nn.Dictionary`. Prior and likelihood stay
            modules of the VAE alone: their parameters are not those of the guide.
        steps: Number of sweeps.
        train: Whether the sweeps are part of training, too, and gradients go through them; or of ``eval`` mode alone.

    Raises: ValueError if ``steps < 1``, or for parts of other kinds, which have no such update.
    References: Titsias and Lázaro-Gredilla (2011), "Spike and slab variational inference for multi-task and multiple
        kernel learning", eqs. 9 to 11; Kim et al. (2018), "Semi-amortized variational autoencoders".
    """

    def __init__(
        self, guide: nn.Module, prior: nn.Module, likelihood: nn.Module, steps: int = 5, train: bool = True
    ) -> None:
        nn.Module.__init__(self)  # the network and the head are the guide's
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise ValueError(f"steps must be a positive whole number, got {steps!r}")
        if not isinstance(guide, SpikeSlab) or guide.slab != "normal":
            raise ValueError(
                f"guide must be a spike-and-slab guide with Normal slabs, whose update is known, got "
                f"{type(guide).__name__}"
            )
        self.guide, self.steps, self.refines_training = guide, steps, train
        self.dim, self.support = guide.dim, guide.support
        self.model_parts = (prior, likelihood)  # a tuple, whose modules are not registered here
        self._terms()

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        start = self.guide.distribution(x)
        if self.training and not self.refines_training:
            return start
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

        def bound(code: _Code) -> Tensor:
            """Of each datum, up to what q has no part in."""
            density = code.density()
            mean = density.mean
            quadratic = (mean @ gram * mean).sum(-1) + density.variance @ own
            return (mean * projected).sum(-1) - 0.5 * quadratic - kl_divergence(density, p).sum(-1)

        variance = (own + 1 / prior_variance).reciprocal().expand_as(q.logits)  # the best one, whatever x is
        code = _Code(q.slab.loc, variance, q.logits)
        best, damping = bound(code), torch.full_like(projected[:, :1], DAMPING)
        for _ in range(steps):
            mean = torch.sigmoid(code.logits) * code.loc
            residual = projected - mean @ gram + own * mean
            loc = variance * (residual + p.slab.loc / prior_variance)
            odds = (
                0.5 * (variance / prior_variance).log() + 0.5 * loc**2 / variance - 0.5 * p.slab.loc**2 / prior_variance
            )
            there = _Code(
                code.loc + damping * (loc - code.loc), variance, code.logits + damping * (p.logits + odds - code.logits)
            )
            reached = bound(there)
            rises = (reached >= best)[:, None]
            code = _Code(
                torch.where(rises, there.loc, code.loc), variance, torch.where(rises, there.logits, code.logits)
            )
            best, damping = torch.maximum(best, reached), torch.where(rises, damping, 0.5 * damping)
        return code.density()

    def _terms(self) -> tuple[SpikeSlabDensity, LinearNormal]:
        """The prior of each coordinate, and the likelihood, whose own code is not read."""
        prior, likelihood = self.model_parts
        p = prior.distribution() if hasattr(prior, "distribution") else None  # type: ignore[operator]  # torch types attributes as tensors
        p = getattr(p, "base_dist", p)
        if not isinstance(p, SpikeSlabDensity) or not isinstance(p.slab, torch.distributions.Normal):
            raise ValueError(f"prior must be a spike-and-slab with Normal slabs, got {type(prior).__name__}")
        x = likelihood(p.logits.new_zeros(1, self.dim)) if callable(likelihood) else None
        if not isinstance(x, LinearNormal):
            network = type(getattr(likelihood, "network", None)).__name__
            raise ValueError(
                f"likelihood must be Normal with a linear decoder (Dictionary), got {type(likelihood).__name__} with "
                f"{network}"
            )
        return p, x
