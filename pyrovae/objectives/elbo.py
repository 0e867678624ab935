r"""The evidence lower bound with the exact KL and gradients of low variance.

.. math::
    L_\beta &= E_{q(z|x)}[\log p(x|z)] - \beta\, KL(q(z|x) \,\|\, p(z)) \\
    \nabla_\phi L_\beta &= E\left[\nabla_\phi^{path} \log p(x|z)\right]
        + E\left[(f - \bar f)\, \nabla_\phi \log q(b|x)\right] - \beta\, \nabla_\phi KL

The first term is the pathwise one; the second is for what has no path: gates and discrete sites b, with
:math:`f = \log p(x|z)` and a baseline :math:`\bar f` from the other draws. The KL of each site is exact where a closed
form or quadrature is registered, and log q - log p at the draws where not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor

from pyrovae.objectives.base import Number, Objective
from pyrovae.objectives.report import Report, SiteReport
from pyrovae.objectives.schedules import Schedule
from pyrovae.objectives.sites import (
    DRAWS,
    Sites,
    check_observed,
    coordinate_kl,
    draw_sites,
    is_shared,
    log_likelihood,
    log_prob,
    num_rows,
    path_log_prob,
    plate_scale,
    replayed,
    score,
    site_kl,
    site_part,
)
from pyrovae.objectives.spikes import SpikesFirst

__all__ = ["ELBO"]

Penalty = Callable[[Sites, Sites], Tensor]


class ELBO(Objective):
    r"""The evidence lower bound, for ``pyro.infer.SVI`` and ``pyrovae.fit``.

    Args:
        beta: Weight of the KL, at least 0; or a schedule of it, such as :func:`~pyrovae.warmup`.
        free_bits: :math:`\lambda`, nats of KL that cost nothing: the KL of each group of coordinates counts as
            :math:`\max(\lambda, \overline{KL}_g)`, with the mean over the batch.
        num_particles: Draws of z for each datum; None is one, or two where draws are each other's baseline.
        gates: How sites without a path are trained: gates of spike-and-slab, bits, categories and counts.
            ``"disarm"``: gates and bits by an antithetic second draw, of which only the value of the objective is used;
            unbiased, of the least variance. ``"leave-one-out"``: independent draws, each the other's baseline,
            unbiased; what every site uses that has no such draws as are asked for. ``"straight-through"``: hard gates,
            bits and categories with the gradient of their mean, biased. ``"relaxed"``: concrete gates, bits and
            categories of temperature 0.5 and counts of soft arrivals, biased, and the loss is that of another model.
        free_bits_group: Coordinates in a group, in their order; None makes each site one group.
        capacity: :math:`C`, in nats, or a schedule of it: the KL costs :math:`\beta |\overline{KL} - C|`.
        sticking_the_landing: Leave out of the gradient what has an expectation of zero, the score of q at its draws: it
            vanishes where q is the posterior. Every KL is then sampled.
        spikes_first: A schedule of :math:`\lambda` from 0 to 1 for spike-and-slab guides, whose slabs are
            :math:`(\lambda \mu, \sigma^\lambda)`: at first a datum can be told by its spikes alone.
        penalties: What is subtracted, such as :class:`~pyrovae.TotalCorrelation`, :class:`~pyrovae.MMD` and
            :class:`~pyrovae.L2`: functions of the sites of model and guide, ``(num_particles, N)`` in nats, or one
            number that every datum pays.

    A site with a path through its atoms (rectified Normal, hard concrete) takes it where every KL is exact, unless
    ``gates`` is ``"leave-one-out"``. ``loss`` draws hard gates whatever the gradient. Sites stand in a data plate at
    dim -1, or in none where all data share them. :meth:`report` says what is done of all this, site by site.

    Units: nats, summed over the batch.
    References: Kingma and Welling (2014), eq. 3; Kool, van Hoof and Welling (2019), "Buy 4 REINFORCE samples, get a
        baseline for free!"; Dong, Mnih and Tucker (2020), "DisARM"; Higgins et al. (2017), "beta-VAE"; Kingma et al.
        (2016), "Improved variational inference with inverse autoregressive flow", eq. 15 (free bits); Burgess et al.
        (2018), "Understanding disentangling in beta-VAE", eq. 8 (capacity); Roeder, Wu and Duvenaud (2017), "Sticking
        the landing"; Tonolini, Jensen and Murray-Smith (2020), "Variational sparse coding" (spikes first).
    """

    def __init__(
        self,
        beta: Number = 1.0,
        free_bits: float = 0.0,
        num_particles: int | None = None,
        gates: str = "disarm",
        *,
        free_bits_group: int | None = 1,
        capacity: Number | None = None,
        sticking_the_landing: bool = False,
        spikes_first: Number | None = None,
        penalties: Sequence[Penalty] = (),
    ) -> None:
        super().__init__(1 if num_particles is None else num_particles)
        if gates not in DRAWS:
            raise ValueError(f"gates must be one of {', '.join(DRAWS)}, got {gates!r}")
        for name, number in (("beta", beta), ("free_bits", free_bits), ("capacity", capacity)):
            if not (number is None or callable(number) or 0.0 <= number < float("inf")):
                raise ValueError(f"{name} must be at least 0, got {number}")
        if free_bits_group is not None and free_bits_group < 1:
            raise ValueError(f"free_bits_group must be at least 1, or None, got {free_bits_group}")
        if free_bits and (capacity is not None or sticking_the_landing):
            raise ValueError("free_bits goes neither with capacity nor with sticking_the_landing")
        if sticking_the_landing and gates in ("straight-through", "relaxed"):
            raise ValueError(f"sticking_the_landing scores its draws, and gates {gates!r} have no density for theirs")
        if spikes_first is not None and not callable(spikes_first):
            raise ValueError(f"spikes_first must be a schedule from 0 to 1, got {spikes_first}")
        self.beta, self.capacity, self.spikes_first = beta, capacity, spikes_first
        self.free_bits, self.free_bits_group = free_bits, free_bits_group
        self.gates = gates
        self.sticking_the_landing = sticking_the_landing
        self.penalties = tuple(penalties)
        self._chooses = num_particles is None

    def current_beta(self) -> float:
        """beta now."""
        return self.now("beta", self.beta)

    def schedules(self) -> dict[str, Schedule]:
        named = {"beta": self.beta, "capacity": self.capacity, "spikes_first": self.spikes_first}
        return {name: number for name, number in named.items() if isinstance(number, Schedule)}

    def true_bound(self) -> ELBO:
        return ELBO()

    def terms(self, model: Any, guide: Any, args: Any, kwargs: Any, hard: bool = False) -> tuple[Tensor, Tensor]:
        drawn = self._draw(model, guide, args, kwargs, "leave-one-out" if hard else self.gates)
        guide_sites, kl, exact = drawn.guide, drawn.kl, all(drawn.exact.values())
        beta, price = self.current_beta(), self._price(kl, plate_scale(drawn.model))
        objective = self._value(drawn.model, guide_sites) - beta * price(kl)  # (num_particles, N)
        surrogate, bound = objective.mean(0), objective.mean(0)
        for name, site in guide_sites.items():
            log_q = score(site)
            if log_q is not None:
                others = (objective.sum(0) - objective) / max(self.num_particles - 1, 1)
                surrogate = surrogate + ((objective - others).detach() * log_q).mean(0)
            if "twin" in site["infer"]:
                value, log_q = site["infer"]["twin"]
                # only the value of the objective is needed there, at data that were validated above
                with torch.no_grad(), pyro.validation_enabled(False):
                    twin_guide = {**guide_sites, name: {**site, "value": value}}
                    twin_model = replayed(model, twin_guide, self.num_particles, args, kwargs)
                    twin_kl = kl if exact else self._kl(twin_model, twin_guide)[0]
                    twin = self._value(twin_model, twin_guide) - beta * price(twin_kl)
                surrogate = surrogate + 0.5 * ((objective - twin).detach() * log_q).mean(0)
                bound = 0.5 * (bound + twin.mean(0))
        return bound, surrogate

    def report(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Report:
        """How the KL and the gradient of each site of the guide are computed; model and guide as in ``loss``."""
        with torch.no_grad():
            drawn = self._draw(model, guide, args, kwargs, self.gates)
        return Report(
            SiteReport.of(name, drawn.model.get(name), site, drawn.exact[name], self.num_particles)
            for name, site in drawn.guide.items()
        )

    def _draw(self, model: Any, guide: Any, args: Any, kwargs: Any, gates: str) -> _Drawn:
        """The sites, drawn in a way that their gradient is right with, and their KLs."""
        if self.sticking_the_landing:
            gates = "leave-one-out"
        weight = None if self.spikes_first is None else self.now("spikes_first", self.spikes_first)

        def draw() -> tuple[Sites, Sites]:
            handler = None if weight is None else SpikesFirst(weight)
            return draw_sites(model, guide, args, kwargs, self.num_particles, gates, handler)

        sites = draw()
        if any("twin" in site["infer"] for site in list(sites[1].values())[:-1]):
            # what is drawn after a pair may depend on it, and then has a twin of its own
            gates = "leave-one-out"
            sites = draw()
        if self._chooses and self.num_particles == 1 and any(score(site) is not None for site in sites[1].values()):
            self.num_particles = 2
            sites = draw()
        check_observed(sites[0])
        kl, exact = self._kl(*sites)
        if not all(exact.values()) and any(site["infer"].get("drawn") == "pathwise" for site in sites[1].values()):
            # log q - log p at the draws jumps where a path goes on, at an atom: these sites have a score too
            return self._draw(model, guide, args, kwargs, "leave-one-out")
        return _Drawn(*sites, kl, exact)

    def _kl(self, model: Sites, guide: Sites) -> tuple[_KL, dict[str, bool]]:
        """The KL of all sites, and whether that of each is exact."""
        rows = num_rows(model)
        shape = (self.num_particles, rows)
        if self.sticking_the_landing:
            log_p = sum(site_part(site, rows) * log_prob(model[name]) for name, site in guide.items() if name in model)
            return _KL(path_log_prob(guide, rows) - log_p, None), dict.fromkeys(guide, False)
        by_group = [name for name, site in guide.items() if self.free_bits and not is_shared(site)]
        if self.free_bits_group is None:
            each = {name: site_kl(name, model, guide) for name in guide}
            groups = [each[name][0].expand(shape)[..., None] for name in by_group]
        else:
            each = {name: (coordinate_kl if name in by_group else site_kl)(name, model, guide) for name in guide}
            split = [each[name][0].expand(*shape, -1).split(self.free_bits_group, -1) for name in by_group]
            groups = [group.sum(-1, keepdim=True) for site in split for group in site]
        paid: Any = sum(kl.expand(shape) for name, (kl, _) in each.items() if name not in by_group)
        return _KL(paid, torch.cat(groups, -1) if groups else None), {name: exact for name, (_, exact) in each.items()}

    def _price(self, kl: _KL, scale: Any) -> Callable[[_KL], Tensor]:
        """What a KL costs, before beta, at each draw: its slope is set by the mean of this KL over the batch.

        Both limits are of one datum, which the scale of its plate counts for several.
        """
        if self.capacity is not None:
            capacity = self.now("capacity", self.capacity)
            side = torch.sign((kl.paid.detach() / scale).mean() - capacity)
            return lambda kl: side * (kl.paid - capacity * scale)
        if kl.groups is None:
            return lambda kl: kl.paid
        each = scale[..., None] if isinstance(scale, Tensor) else scale
        above = (kl.groups.detach() / each).mean((0, 1)) > self.free_bits
        free = self.free_bits * each * torch.ones_like(kl.groups)
        return lambda kl: kl.paid + torch.where(above, kl.groups, free).sum(-1)  # type: ignore[arg-type]  # groups, as above

    def _value(self, model: Sites, guide: Sites) -> Tensor:
        """log p(x|z) less the penalties, ``(num_particles, N)``."""
        return log_likelihood(model) - plate_scale(model) * sum(penalty(model, guide) for penalty in self.penalties)


class _KL(NamedTuple):
    """KL of each datum at each draw, ``(num_particles, N)``; of groups with free bits one by one, ``(..., groups)``."""

    paid: Tensor
    groups: Tensor | None


class _Drawn(NamedTuple):
    model: Sites
    guide: Sites
    kl: _KL
    exact: dict[str, bool]
