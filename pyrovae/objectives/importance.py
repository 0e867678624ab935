r"""Importance-weighted bounds: the average of the weights of K draws, inside the logarithm.

.. math:: L_K = E\left[\frac{1}{1-\alpha} \log \frac1K \sum_{k=1}^K w_k^{1-\alpha}\right] , \qquad
    w_k = \frac{p(x, z_k)}{q(z_k|x)}

for each datum by itself, and the scale of its plate outside. Sites that all data share are drawn once, with their KL in
the bound; the weights are those of the sites of each datum, given the shared ones. Where all sites are shared, as in
many Bayesian models, the bound is that of :class:`~pyrovae.ELBO`, whatever K is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrovae.objectives.base import Bounds, Objective, frozen
from pyrovae.objectives.sites import (
    Args,
    Function,
    Functions,
    Kwargs,
    Site,
    Sites,
    check_data_plate,
    check_observed,
    check_points,
    is_auxiliary,
    is_point,
    is_shared,
    is_subsample,
    log_prob,
    path_log_prob,
    score,
    site_kl,
    sum_of,
)

__all__ = ["IWAE", "DReG", "Renyi"]


@frozen
@dataclass(frozen=True)
class Renyi(Objective):
    r"""The variational Rényi bound, a lower bound on log p(x) for every :math:`\alpha \ge 0`.

    Its gradient goes through the paths of the draws; draws without one have the score function, with VIMCO's baseline:
    the bound with the weight of a draw replaced by the geometric mean of the others'. Unbiased.

    Args:
        alpha: :math:`\alpha \ge 0`, not 1: 0 is :class:`IWAE`, and towards 1 it becomes :class:`ELBO`.
        num_particles: :math:`K`.

    Raises: ValueError where sites of each datum stand in other plates than one at dim -1, have several scales or are
        points (Delta), or where a site that all data share has no path.
    Units: nats, summed over the batch.
    References: Li and Turner (2016), "Rényi divergence variational inference", eq. 4 and theorem 2; Mnih and Rezende
        (2016), "Variational inference for Monte Carlo objectives", eq. 8.
    """

    alpha: float
    num_particles: int = 5

    def __post_init__(self) -> None:
        if self.num_particles < 1:
            raise ValueError(f"num_particles must be at least 1, got {self.num_particles}")
        if not 0 <= self.alpha < math.inf or self.alpha == 1:
            raise ValueError(f"alpha must be at least 0 and not 1, where the bound is that of ELBO(), got {self.alpha}")

    def num_draws(self, model: Function, guide: Function, *args: object, **kwargs: object) -> int:
        return self.num_particles

    def terms(self, model: Function, guide: Function, args: Args, kwargs: Kwargs, hard: bool = False) -> Bounds:
        functions = Functions(model, guide, args, kwargs)
        weights: list[Tensor] = []
        q_sites = functions.draw_guide(self.num_particles, handler=_OneForAll())
        for name, site in q_sites.items():
            if is_shared(site) and score(site) is not None:
                raise ValueError(
                    f"{type(self).__name__}: all data share the site {name!r}, drawn once from a density without a "
                    f"path: use pyrovae.ELBO"
                )
        q_sites = self._watched(q_sites, weights)
        p_sites = functions.replay_model(q_sites, self.num_particles)
        check_observed(p_sites)
        check_data_plate(type(self).__name__, p_sites, q_sites)
        scale, p, q = _one_scale(p_sites, q_sites)
        # each part of the bound, with what has its gradient
        parts = [log_prob(site) for site in p_sites.values() if is_shared(site) and site["is_observed"]]
        parts += [-site_kl(name, p_sites, q_sites)[0] for name, site in q_sites.items() if is_shared(site)]
        bounds = surrogates = [part.sum() / self.num_particles for part in parts]
        if p:
            check_points(q, q_sites)
            log_weights = sum_of([*map(log_prob, p.values()), *(-log_q for log_q in self._log_q(q))])  # (K, N)
            bound = self._bound(log_weights)
            surrogate = self._surrogate(log_weights, bound, weights)
            for site in q.values():
                log_q = score(site)
                if log_q is not None:
                    surrogate = surrogate + ((bound - self._without_each(log_weights)).detach() * log_q).sum(0)
            bounds, surrogates = ([*each, (scale * t).sum()] for each, t in ((bounds, bound), (surrogates, surrogate)))
        return sum_of(bounds), sum_of(surrogates)

    def _watched(self, guide: Sites, weights: list[Tensor]) -> Sites:
        """The sites of the guide as the model is to see them; ``weights`` will hold those of the draws."""
        return guide

    def _log_q(self, guide: Sites) -> list[Tensor]:
        return [log_prob(site) for site in guide.values()]

    def _bound(self, log_weights: Tensor) -> Tensor:
        power = 1 - self.alpha
        return ((power * log_weights).logsumexp(0) - math.log(self.num_particles)) / power

    def _surrogate(self, log_weights: Tensor, bound: Tensor, weights: list[Tensor]) -> Tensor:
        return bound

    def _without_each(self, log_weights: Tensor) -> Tensor:
        """The bound with each weight in turn replaced by the geometric mean of the others; zero where it is alone."""
        if self.num_particles == 1:
            return torch.zeros_like(log_weights)
        others = (log_weights.sum(0) - log_weights) / (self.num_particles - 1)
        alone = torch.eye(self.num_particles, dtype=torch.bool, device=log_weights.device)[..., None]
        return self._bound(torch.where(alone, others, log_weights[:, None]))


@frozen
@dataclass(frozen=True)
class IWAE(Renyi):
    r"""The importance-weighted bound: :class:`Renyi` at :math:`\alpha = 0`; no draw is weighted before the logarithm.

    It grows with K towards log p(x), while its gradient in the guide becomes noise: that of :class:`DReG` does not.

    Args:
        num_particles: :math:`K`; 1 is the ELBO, with a sampled KL.

    Units: nats, summed over the batch.
    References: Burda, Grosse and Salakhutdinov (2016), "Importance weighted autoencoders", eq. 8; Rainforth et al.
        (2018), "Tighter variational bounds are not necessarily better".
    """

    alpha: float = field(default=0.0, init=False)
    num_particles: int = field()


@frozen
@dataclass(frozen=True)
class DReG(IWAE):
    r"""The bound of :class:`IWAE` with the doubly reparametrised gradient for guides that have a path throughout.

    .. math:: \nabla_\phi L_K = E\left[\sum_k \tilde w_k^2\, \frac{\partial \log w_k}{\partial z_k}
        \frac{d z_k}{d \phi}\right] , \qquad \tilde w_k = \frac{w_k}{\sum_j w_j}

    unbiased, and ever better as K grows. The model's gradient is that of the IWAE.

    Args:
        num_particles: :math:`K`.

    Raises: ValueError for a guide with gates or discrete sites, which IWAE trains.
    Units: nats, summed over the batch.
    References: Tucker, Lawson, Gu and Maddison (2019), "Doubly reparameterized gradient estimators for Monte Carlo
        objectives", eq. 6.
    """

    def _watched(self, guide: Sites, weights: list[Tensor]) -> Sites:
        def weigh_again(gradient: Tensor) -> Tensor:
            return gradient * weights[0].reshape(weights[0].shape + (1,) * (gradient.dim() - 2))

        watched, fixed = dict(guide), _points_of_shared(guide)
        for name, site in guide.items():
            if score(site) is not None:
                raise ValueError(
                    f"DReG: site {name!r} has no path through its {type(site['fn']).__name__}: use pyrovae.IWAE"
                )
            if self.num_particles > 1 and site["value"].requires_grad and not is_shared(site) and name not in fixed:
                value = site["value"].view_as(site["value"])
                value.register_hook(weigh_again)
                # later sites of the guide have read the draw itself
                watched[name] = {**site, "value": value, "read": site["value"]}
        return watched

    def _log_q(self, guide: Sites) -> list[Tensor]:
        fixed = _points_of_shared(guide)
        each = [log_prob(guide[name]) for name in fixed]
        return each + list(path_log_prob({name: site for name, site in guide.items() if name not in fixed}).values())

    def _surrogate(self, log_weights: Tensor, bound: Tensor, weights: list[Tensor]) -> Tensor:
        weights.append(log_weights.detach().softmax(0))
        return (weights[0] * log_weights).sum(0)


class _OneForAll(Messenger):
    """Around a guide: one draw, for all particles, of each site that all data share."""

    def _pyro_post_sample(self, msg: Site) -> None:
        drawn = not (msg["is_observed"] or is_subsample(msg))
        if drawn and msg["cond_indep_stack"] and is_shared(msg):
            msg["value"] = msg["value"][:1].expand_as(msg["value"])


def _points_of_shared(guide: Sites) -> list[str]:
    """Sites of each datum without draws of their own: functions of an auxiliary site that all data share.

    Their gradient is that of the shared site, which is drawn once and has no weight.
    """
    local = {name: site for name, site in guide.items() if not is_shared(site)}
    if any(map(is_auxiliary, local.values())):
        return []
    return [name for name, site in local.items() if is_point(site["fn"])]


def _one_scale(model: Sites, guide: Sites) -> tuple[Tensor | float, Sites, Sites]:
    """The scale that all sites of each datum have, and these sites without it."""
    p, q = ({name: site for name, site in sites.items() if not is_shared(site)} for sites in (model, guide))
    scales = [site["scale"] for sites in (p, q) for site in sites.values()] or [1.0]
    if not all((torch.as_tensor(scales[0]) == torch.as_tensor(scale)).all() for scale in scales):
        raise ValueError(f"importance weights need one scale for all sites of a datum, got {scales}")
    p, q = ({name: {**site, "scale": 1.0} for name, site in sites.items()} for sites in (p, q))
    return scales[0], p, q
