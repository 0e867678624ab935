r"""The evidence lower bound with the exact KL and gradients of low variance.

.. math::
    L_\beta &= E_{q(z|x)}[\log p(x|z)] - \beta\, KL(q(z|x) \,\|\, p(z)) \\
    \nabla_\phi L_\beta &= E\left[\nabla_\phi^{path} \log p(x|z)\right]
        + E\left[(f - \bar f)\, \nabla_\phi \log q(b|x)\right] - \beta\, \nabla_\phi KL

The first term is the pathwise one; the second is for draws b without a path (gates and discrete sites), with
:math:`f = \log p(x|z)` and a baseline :math:`\bar f` from the other draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

import pyro
import torch
from torch import Tensor

from pyrovae.objectives.base import Bounds, Objective, frozen
from pyrovae.objectives.estimators import DisARM, Estimator, StickingTheLanding
from pyrovae.objectives.kl_forms import Exact, FreeBits, SiteKL
from pyrovae.objectives.reconstruction import RECONSTRUCTIONS, has_expectation, is_unread, reconstruction
from pyrovae.objectives.report import Report, SiteReport
from pyrovae.objectives.schedules import Number, checked_number
from pyrovae.objectives.sites import (
    Args,
    Function,
    Functions,
    Kwargs,
    Site,
    Sites,
    Term,
    check_observed,
    has_path,
    log_prob,
    path_log_prob,
    plates,
    score,
    sum_of,
)
from pyrovae.objectives.spikes import SpikesFirst

__all__ = ["ELBO"]

Penalty = Callable[[Sites, Sites], Tensor]


@frozen
@dataclass(frozen=True)
class ELBO(Objective):
    r"""The evidence lower bound, for functions with any plates or none.

    Args:
        beta: Weight of the KL, at least 0; or a schedule of it, such as :func:`~pyrovae.warmup`.
        estimator: How sites without a path are trained: :class:`~pyrovae.DisARM` (the default),
            :class:`~pyrovae.LeaveOneOut`, :class:`~pyrovae.StraightThrough`, :class:`~pyrovae.Relaxed`; or
            :class:`~pyrovae.StickingTheLanding`, for guides that can be the posterior.
        kl: The form of the KL term: :class:`~pyrovae.Exact`, :class:`~pyrovae.FreeBits`, :class:`~pyrovae.Capacity`.
        num_particles: Draws of z for each datum; None is the number of ``LeaveOneOut``, or else one, or two in a step
            where draws are each other's baseline.
        spikes_first: A schedule of :math:`\lambda` from 0 to 1 for spike-and-slab guides, whose slabs are
            :math:`(\lambda \mu, \sigma^\lambda)`: at first only the gates tell one datum from another.
        reconstruction: ``"auto"`` takes :math:`E_q \log p(x|z)` in closed form where the likelihood is Normal, the
            decoder linear, and mean and variance of the guide's coordinates are known, and at draws elsewhere;
            ``"exact"`` raises where there is no closed form; ``"sampled"`` always draws, and so does
            ``StickingTheLanding``, whose noise cancels between terms at the same draws.
        penalties: Subtracted terms, such as :class:`~pyrovae.TotalCorrelation`, :class:`~pyrovae.MMD` and
            :class:`~pyrovae.L2`: functions of the sites of model and guide, ``(num_particles, N)`` in nats, or one
            number that every datum pays.

    A site with a path through its atoms (rectified Normal, hard concrete) takes it where every KL is exact, except
    under ``LeaveOneOut`` and ``StickingTheLanding``. ``loss`` draws hard gates whatever the estimator.
    :meth:`report` says how the KL and the gradient of each site are computed.

    Units: nats, summed over the batch.
    References: Kingma and Welling (2014), eq. 3; Higgins et al. (2017), "beta-VAE"; Tonolini, Jensen and Murray-Smith
        (2020), "Variational sparse coding" (spikes first).
    """

    beta: Number = 1.0
    _: KW_ONLY
    estimator: Estimator | None = None
    kl: Exact = Exact()  # noqa: RUF009  # it is frozen
    num_particles: int | None = None
    spikes_first: Number | None = None
    reconstruction: str = "auto"
    penalties: Sequence[Penalty] = ()

    def __post_init__(self) -> None:
        if self.estimator is not None and not isinstance(self.estimator, Estimator):
            raise TypeError(f"estimator must be such as pyrovae.DisARM(), got {self.estimator!r}")
        if not isinstance(self.kl, Exact):
            raise TypeError(f"kl must be pyrovae.Exact(), FreeBits(nats) or Capacity(nats), got {self.kl!r}")
        if self.num_particles is not None and self.num_particles < 1:
            raise ValueError(f"num_particles must be at least 1, got {self.num_particles}")
        if self.reconstruction not in RECONSTRUCTIONS:
            raise ValueError(f"reconstruction must be auto, exact or sampled, got {self.reconstruction!r}")
        if isinstance(self.estimator, StickingTheLanding) and isinstance(self.kl, FreeBits):
            raise ValueError("kl=FreeBits(...) needs the KL of each site, and StickingTheLanding samples all of them")
        if isinstance(self.estimator, StickingTheLanding) and self.reconstruction == "exact":
            raise ValueError(
                "reconstruction='exact' has no draws, and StickingTheLanding samples all terms at the same"
            )
        checked: dict[str, object] = {
            "reconstruction": "sampled" if isinstance(self.estimator, StickingTheLanding) else self.reconstruction,
            "beta": checked_number("beta", self.beta),
            "estimator": self.estimator or DisARM(),
            "penalties": tuple(self.penalties),
        }
        if self.spikes_first is not None:
            number = checked_number("spikes_first", self.spikes_first, most=1.0)
            checked["spikes_first"] = float(number) if isinstance(number, int) else number
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def true_bound(self) -> ELBO:
        return ELBO()

    def num_draws(self, model: Function, guide: Function, *args: object, **kwargs: object) -> int:
        with torch.no_grad():
            return self._draw_guide(Functions(model, guide, args, kwargs)).num_draws

    def terms(self, model: Function, guide: Function, args: Args, kwargs: Kwargs, hard: bool = False) -> Bounds:
        functions = Functions(model, guide, args, kwargs)
        drawn = self._draw(functions, hard)
        num_draws, exact = drawn.num_draws, all(kl.exact for kl in drawn.kls)
        price = self.kl.price(drawn.kls, _num_data(drawn.model, num_draws), num_draws)
        objective = self._objective(drawn.model, drawn.guide, price(drawn.kls), num_draws)
        bound = _total(objective, num_draws)
        surrogate = bound
        for name, site in drawn.guide.items():
            if name == drawn.unread:
                continue
            log_q = score(site)
            if log_q is not None and num_draws > 1:
                each = _over(objective, site)
                others = (each.sum(0) - each) / (num_draws - 1)
                surrogate = surrogate + ((each - others).detach() * log_q).sum() / num_draws
            elif log_q is not None:
                surrogate = surrogate + (_over(objective, site).detach() * log_q).sum()
            if "twin" in site["infer"]:
                value, log_q = site["infer"]["twin"]
                # only the value of the objective is needed there, at data that were validated above
                with torch.no_grad(), pyro.validation_enabled(False):
                    twin_guide = {**drawn.guide, name: {**site, "value": value}}
                    twin_model = functions.replay_model(twin_guide, num_draws)
                    kls = drawn.kls if exact else self._kls(twin_model, twin_guide)
                    twin = self._objective(twin_model, twin_guide, price(kls), num_draws)
                difference = _over(objective, site) - _over(twin, site)
                surrogate = surrogate + 0.5 * (difference.detach() * log_q).sum() / num_draws
                bound = 0.5 * (bound + _total(twin, num_draws))
        return bound, surrogate

    def report(self, model: Function, guide: Function, *args: object, **kwargs: object) -> Report:
        """How the KL and the gradient of each site of the guide are computed; model and guide as in ``loss``."""
        with torch.no_grad():
            drawn = self._draw(Functions(model, guide, args, kwargs))
            how = self.reconstruction
            observed = {name: site for name, site in drawn.model.items() if site["is_observed"]}
            exact = {name: has_expectation(site, drawn.guide, how) for name, site in observed.items()}
        return Report(
            (
                SiteReport.of(name, drawn.model.get(name), site, kl.exact, drawn.num_draws, name == drawn.unread)
                for (name, site), kl in zip(drawn.guide.items(), drawn.kls, strict=True)
            ),
            exact,
        )

    def _draw(self, functions: Functions, hard: bool = False, plainly: bool = False) -> _Drawn:
        """The sites, drawn in a way with which their gradient is right, and their KLs."""
        guide = self._draw_guide(functions, hard, plainly)
        model = functions.replay_model(guide.sites, guide.num_draws)
        check_observed(model)
        kls = self._kls(model, guide.sites)
        if not all(kl.exact for kl in kls) and any(s["infer"].get("drawn") == "pathwise" for s in guide.sites.values()):
            # log q - log p at the draws jumps where a path goes on, at an atom: these sites need the score too
            return self._draw(functions, hard, plainly=True)
        return _Drawn(model, guide.sites, kls, guide.num_draws, self._unread(model, guide.sites, kls))

    def _unread(self, model: Sites, guide: Sites, kls: Sequence[SiteKL]) -> str | None:
        """The last site of the guide, if no term of the objective reads its draw."""
        last = next(reversed(guide), None)
        reads = bool(self.penalties) or not all(kl.exact for kl in kls)
        return None if reads or last is None or not is_unread(last, model, guide, self.reconstruction) else last

    def _draw_guide(self, functions: Functions, hard: bool = False, plainly: bool = False) -> _DrawnGuide:
        estimator = Estimator() if hard or plainly else self.estimator
        num_draws: int = self.num_particles or getattr(self.estimator, "num_particles", None) or 1
        handler = None
        if isinstance(self.spikes_first, float | Tensor):
            handler = SpikesFirst(self.spikes_first)
        sites = functions.draw_guide(num_draws, estimator, handler)
        if handler is not None:
            handler.check_found()
        again = False
        if any("twin" in site["infer"] for site in list(sites.values())[:-1]):
            # a site that is drawn after a pair may depend on it, and would need a twin of its own
            estimator, again = Estimator(), True
        chooses = self.num_particles is None and num_draws == 1 and not hard
        if chooses and (again or not all(map(has_path, sites.values()))):
            num_draws, again = 2, True
        return _DrawnGuide(functions.draw_guide(num_draws, estimator, handler) if again else sites, num_draws)

    def _kls(self, model: Sites, guide: Sites) -> list[SiteKL]:
        """The KL of each site of the guide, in their order."""
        if not isinstance(self.estimator, StickingTheLanding):
            return [self.kl.of(name, model, guide) for name in guide]
        each = path_log_prob(guide)
        each = {name: log_q - log_prob(model[name]) if name in model else log_q for name, log_q in each.items()}
        return [SiteKL(kl, plates(guide[name]), guide[name]["scale"], False) for name, kl in each.items()]

    def _objective(self, model: Sites, guide: Sites, price: Sequence[Term], num_draws: int) -> list[Term]:
        """log p(x|z) less the price of the KL and the penalties."""
        observed = [site for site in model.values() if site["is_observed"]]
        terms = [Term(reconstruction(site, guide, self.reconstruction), plates(site)) for site in observed]
        terms += [Term(-self.beta * term.value, term.plates) for term in price]  # type: ignore[operator]  # no schedule
        data = _data(model)
        for penalty in self.penalties:
            value = penalty(model, guide)
            if value.dim():
                terms.append(Term(-data["scale"] * value, plates(data)))
            else:
                terms.append(Term(-_num_data(model, num_draws) * value, {}))
        return terms


def _data(model: Sites) -> Site:
    return next(site for site in model.values() if site["is_observed"])


def _num_data(model: Sites, num_draws: int) -> Tensor | float:
    """The number of data, each counted with the scale around it: the size of a subsampled plate."""
    data = _data(model)
    shape, scale = data["fn"].batch_shape, data["scale"]
    return (scale.expand(shape).sum() if isinstance(scale, Tensor) else scale * shape.numel()) / num_draws


def _total(terms: Sequence[Term], num_draws: int) -> Tensor:
    return sum_of([term.total(num_draws) for term in terms])


def _over(terms: Sequence[Term], site: Site) -> Tensor:
    """The part of the objective that depends on each draw of a site, ``(K, *plates)``."""
    return sum_of([term.over(plates(site)) for term in terms])


class _DrawnGuide(NamedTuple):
    sites: Sites
    num_draws: int


class _Drawn(NamedTuple):
    model: Sites
    guide: Sites
    kls: list[SiteKL]
    num_draws: int
    unread: str | None
