r"""Importance-weighted bounds: the average of the weights of K draws, inside the logarithm.

.. math:: L_K = E\left[\frac{1}{1-\alpha} \log \frac1K \sum_{k=1}^K w_k^{1-\alpha}\right] , \qquad
    w_k = \frac{p(x, z_k)}{q(z_k|x)}

each datum by itself, and the scale of its plate outside. Sites that all data share are drawn once, with their KL in the
bound; the weights are those of the sites of each datum, given them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyrovae import guards
from pyrovae.objectives.base import Objective
from pyrovae.objectives.sites import (
    Sites,
    check_observed,
    check_points,
    draw_guide,
    is_shared,
    log_prob,
    num_rows,
    path_log_prob,
    replayed,
    score,
    site_kl,
)

__all__ = ["IWAE", "DReG", "Renyi"]


class Renyi(Objective):
    r"""The variational Rényi bound, a lower bound on log p(x) for every :math:`\alpha \ge 0`.

    Its gradient goes through the paths of the draws; what has none has the score function, with VIMCO's baseline: the
    bound with the weight of a draw replaced by the geometric mean of the others'. Unbiased.

    Args:
        alpha: :math:`\alpha \ge 0`, not 1: 0 is :class:`IWAE`, and towards 1 it becomes :class:`ELBO`.
        num_particles: :math:`K`.

    Raises: ValueError where sites of each datum have several scales or are points (Delta), or where a site that all
        data share has no path.
    Units: nats, summed over the batch.
    References: Li and Turner (2016), "Rényi divergence variational inference", eq. 4 and theorem 2; Mnih and Rezende
        (2016), "Variational inference for Monte Carlo objectives", eq. 8.
    """

    def __init__(self, alpha: float, num_particles: int = 5) -> None:
        super().__init__(num_particles)
        if not 0 <= alpha < math.inf or alpha == 1:
            raise ValueError(f"alpha must be at least 0 and not 1, where the bound is that of ELBO(), got {alpha}")
        self.alpha = alpha

    def terms(self, model: Any, guide: Any, args: Any, kwargs: Any, hard: bool = False) -> tuple[Tensor, Tensor]:
        guide_sites = self._drawn(draw_guide(guide, args, kwargs, self.num_particles, handler=_OneForAll()))
        model_sites = replayed(model, guide_sites, self.num_particles, args, kwargs)
        guards.check_sites(model_sites, guide_sites)
        check_observed(model_sites)
        scale, (p, q) = _one_scale(model_sites, guide_sites)
        check_points(q)
        log_weights = sum(map(log_prob, p.values())) - self._log_q(q, num_rows(model_sites))  # (num_particles, N)
        bound = self._bound(log_weights)
        surrogate = self._surrogate(log_weights, bound)
        for site in q.values():
            log_q = score(site)
            if log_q is not None:
                surrogate = surrogate + ((bound - self._without_each(log_weights)).detach() * log_q).sum(0)
        shared = [site_kl(name, model_sites, guide_sites)[0].mean(0) for name in guide_sites if name not in q]
        return scale * bound - sum(shared), scale * surrogate - sum(shared)

    def _drawn(self, guide: Sites) -> Sites:
        """The sites of the guide, as the model is to see them."""
        for name, site in guide.items():
            if is_shared(site) and score(site) is not None:
                raise ValueError(
                    f"{type(self).__name__}: all data share the site {name!r}, drawn once from a density without a "
                    f"path: use pyrovae.ELBO"
                )
        return guide

    def _log_q(self, guide: Sites, rows: int) -> Tensor:
        return sum(map(log_prob, guide.values()))  # type: ignore[return-value]  # a guide has sites

    def _bound(self, log_weights: Tensor) -> Tensor:
        power = 1 - self.alpha
        return ((power * log_weights).logsumexp(0) - math.log(self.num_particles)) / power

    def _surrogate(self, log_weights: Tensor, bound: Tensor) -> Tensor:
        return bound

    def _without_each(self, log_weights: Tensor) -> Tensor:
        """The bound with each weight in turn replaced by the geometric mean of the others; zero where it is alone."""
        if self.num_particles == 1:
            return torch.zeros_like(log_weights)
        others = (log_weights.sum(0) - log_weights) / (self.num_particles - 1)
        alone = torch.eye(self.num_particles, dtype=torch.bool, device=log_weights.device)[..., None]
        return self._bound(torch.where(alone, others, log_weights[:, None]))


class IWAE(Renyi):
    r"""The importance-weighted bound: :class:`Renyi` at :math:`\alpha = 0`; no draw is weighted before the logarithm.

    It grows with K towards log p(x), while its gradient in the guide becomes noise: that of :class:`DReG` does not.

    Args:
        num_particles: :math:`K`; 1 is the ELBO, with a sampled KL.

    Units: nats, summed over the batch.
    References: Burda, Grosse and Salakhutdinov (2016), "Importance weighted autoencoders", eq. 8; Rainforth et al.
        (2018), "Tighter variational bounds are not necessarily better".
    """

    def __init__(self, num_particles: int) -> None:
        super().__init__(0.0, num_particles)


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

    _weights: list[Tensor]

    def _drawn(self, guide: Sites) -> Sites:
        drawn = dict(super()._drawn(guide))
        weights: list[Tensor] = []  # of this call; known when its gradient runs
        self._weights = weights

        def weigh_again(gradient: Tensor) -> Tensor:
            return gradient * weights[0].reshape(weights[0].shape + (1,) * (gradient.dim() - 2))

        for name, site in drawn.items():
            if score(site) is not None:
                raise ValueError(
                    f"DReG: site {name!r} has no path through its {type(site['fn']).__name__}: use pyrovae.IWAE"
                )
            if self.num_particles > 1 and site["value"].requires_grad and not is_shared(site):
                value = site["value"].view_as(site["value"])
                value.register_hook(weigh_again)
                drawn[name] = {**site, "value": value}
        return drawn

    def _log_q(self, guide: Sites, rows: int) -> Tensor:
        return path_log_prob(guide, rows)

    def _surrogate(self, log_weights: Tensor, bound: Tensor) -> Tensor:
        self._weights.append(log_weights.detach().softmax(0))
        return (self._weights[0] * log_weights).sum(0)


class _OneForAll(Messenger):
    """Around a guide: one draw, for all particles, of what all data share."""

    def _pyro_post_sample(self, msg: Any) -> None:
        drawn = not (msg["is_observed"] or site_is_subsample(msg))
        if drawn and msg["cond_indep_stack"] and is_shared(msg):
            msg["value"] = msg["value"][:1].expand_as(msg["value"])


def _one_scale(model: Sites, guide: Sites) -> tuple[Any, tuple[Sites, Sites]]:
    """The scale that all sites of each datum have, and these sites without it."""
    local = [{name: site for name, site in sites.items() if not is_shared(site)} for sites in (model, guide)]
    scales = [site["scale"] for sites in local for site in sites.values()]
    if not all((torch.as_tensor(scales[0]) == torch.as_tensor(scale)).all() for scale in scales):
        raise ValueError(f"importance weights need one scale for all sites of a datum, got {scales}")
    p, q = ({name: {**site, "scale": 1.0} for name, site in sites.items()} for sites in local)
    return scales[0], (p, q)
