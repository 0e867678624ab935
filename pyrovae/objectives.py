r"""Objectives: the evidence lower bound with the exact KL and gradients of low variance.

.. math::
    L_\beta &= E_{q(z|x)}[\log p(x|z)] - \beta\, KL(q(z|x) \,\|\, p(z)) \\
    \nabla_\phi L_\beta &= E\left[\nabla_\phi^{path} \log p(x|z)\right]
        + E\left[(f - \bar f)\, \nabla_\phi \log q(b|x)\right] - \beta\, \nabla_\phi KL

The first term is the pathwise one; the second is for what has no path: gates and discrete sites b, with
:math:`f = \log p(x|z)` and a baseline :math:`\bar f` from the other draws. The KL of each site is exact where a closed
form or quadrature is registered, and log q - log p at the draws where not.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.infer import Trace_ELBO
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import kl_divergence

from pyrovae import distributions, guards

__all__ = ["ELBO", "draw_sites", "is_shared", "site_kl", "warmup"]

_ = distributions.kl  # importing it registers the divergences


# How a site without a path is drawn, of what its density offers; what offers none of these has the score function.
DRAWS = {
    "disarm": ("pathwise", "pair"),
    "leave-one-out": (),
    "straight-through": ("pathwise", "straight_through"),
    "relaxed": ("pathwise", "relaxed"),
}
NEED_EXACT_KL = ("straight_through", "relaxed")  # a density must not score these draws of it
Beta = float | Callable[[float], float]


class ELBO(Trace_ELBO):
    r"""The evidence lower bound, for ``pyro.infer.SVI`` and ``pyrovae.fit``.

    Args:
        beta: Weight of the KL, at least 0; or a schedule, a function of the epochs done such as :func:`warmup`.
        num_particles: Draws of z for each datum; None is one, or two where draws are each other's baseline.
        gates: How sites without a path are trained: gates of spike-and-slab, bits, categories and counts.
            ``"disarm"``: gates and bits by an antithetic second draw, of which only the value of the objective is used;
            unbiased, of the least variance. ``"leave-one-out"``: independent draws, each the other's baseline,
            unbiased; what every site uses that has no such draws as are asked for. ``"straight-through"``: hard gates,
            bits and categories with the gradient of their mean, biased. ``"relaxed"``: concrete gates, bits and
            categories of temperature 0.5 and counts of soft arrivals, biased, and the loss is that of another model.

    A site with a path through its atoms (rectified Normal, hard concrete) takes it where every KL is exact, unless
    ``gates`` is ``"leave-one-out"``. ``loss`` draws hard gates whatever the gradient. Sites stand in a data plate at
    dim -1, or in none where all data share them.

    Units: nats, summed over the batch.
    References: Kingma and Welling (2014), eq. 3; Kool, van Hoof and Welling (2019), "Buy 4 REINFORCE samples, get a
        baseline for free!"; Dong, Mnih and Tucker (2020), "DisARM"; Higgins et al. (2017), "beta-VAE".
    """

    uses_score_parts = True  # what the guards ask an objective

    def __init__(self, beta: Beta = 1.0, num_particles: int | None = None, gates: str = "disarm") -> None:
        if num_particles is not None and num_particles < 1:
            raise ValueError(f"num_particles must be at least 1, got {num_particles}")
        if gates not in DRAWS:
            raise ValueError(f"gates must be one of {', '.join(DRAWS)}, got {gates!r}")
        if not callable(beta) and not 0.0 <= beta < float("inf"):
            raise ValueError(f"beta must be at least 0, got {beta}")
        super().__init__(num_particles=num_particles or 1, max_plate_nesting=1)
        self.beta = beta
        self.gates = gates
        self.epoch = 0.0  # what a schedule is called with; pyrovae.fit moves it on
        self._chooses = num_particles is None

    def current_beta(self) -> float:
        """beta now."""
        return self.beta(self.epoch) if callable(self.beta) else self.beta

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """An estimate of :math:`-L_\\beta`, with hard gates."""
        with torch.no_grad():
            return -self._terms(model, guide, args, kwargs, gates="leave-one-out")[0].sum().item()

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """A scalar with the value of the loss and the gradient above."""
        bound, surrogate = self._terms(model, guide, args, kwargs, self.gates)
        return -(surrogate + (bound - surrogate).detach()).sum()

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """The loss, after its gradient is added to the parameters'."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward()
        return loss.item()

    def _terms(self, model: Any, guide: Any, args: Any, kwargs: Any, gates: str) -> tuple[Tensor, Tensor]:
        """The bound of each datum, and what has its gradient."""
        model_sites, guide_sites = draw_sites(model, guide, args, kwargs, self.num_particles, gates)
        if any("twin" in site["infer"] for site in list(guide_sites.values())[:-1]):
            # what is drawn after a pair may depend on it, and then has a twin of its own
            gates = "leave-one-out"
            model_sites, guide_sites = draw_sites(model, guide, args, kwargs, self.num_particles, gates)
        if self._chooses and self.num_particles == 1 and any(_score(site) is not None for site in guide_sites.values()):
            self.num_particles = 2
            model_sites, guide_sites = draw_sites(model, guide, args, kwargs, self.num_particles, gates)
        kl, exact = self._kl(model_sites, guide_sites)
        if not exact and any(s["infer"].get("drawn") == "pathwise" for s in guide_sites.values()):
            # log q - log p at the draws jumps where a path goes on, at an atom: these sites have a score too
            return self._terms(model, guide, args, kwargs, "leave-one-out")
        objective = _log_likelihood(model_sites) - self.current_beta() * kl  # (num_particles, N)
        surrogate, bound = objective.mean(0), objective.mean(0)
        for name, site in guide_sites.items():
            score = _score(site)
            if score is not None:
                others = (objective.sum(0) - objective) / max(self.num_particles - 1, 1)
                surrogate = surrogate + ((objective - others).detach() * score).mean(0)
            if "twin" in site["infer"]:
                value, score = site["infer"]["twin"]
                # only the value of the objective is needed there, at data that were validated above
                with torch.no_grad(), pyro.validation_enabled(False):
                    twin_guide = {**guide_sites, name: {**site, "value": value}}
                    twin_sites = _replayed(model, twin_guide, self.num_particles, args, kwargs)
                    twin_kl = kl if exact else self._kl(twin_sites, twin_guide)[0]
                    twin = _log_likelihood(twin_sites) - self.current_beta() * twin_kl
                surrogate = surrogate + 0.5 * ((objective - twin).detach() * score).mean(0)
                bound = 0.5 * (bound + twin.mean(0))
        return bound, surrogate

    @staticmethod
    def _kl(model: dict[str, Any], guide: dict[str, Any]) -> tuple[Tensor, bool]:
        """The KL at each draw, and whether that of every site is exact."""
        terms = {name: site_kl(name, model, guide) for name in guide}
        return sum(kl for kl, _ in terms.values()), all(exact for _, exact in terms.values())  # type: ignore[return-value]  # a guide has sites


def warmup(epochs: float, start: float = 0.0) -> Callable[[float], float]:
    """A schedule of beta: from ``start`` to 1 in a straight line over the first ``epochs``, then 1."""
    if not epochs > 0:
        raise ValueError(f"epochs must be positive, got {epochs}")
    return lambda epoch: min(1.0, start + (1.0 - start) * epoch / epochs)


def draw_sites(
    model: Any, guide: Any, args: Any, kwargs: Any, num_draws: int, gates: str = "leave-one-out"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sample sites of model and guide at ``num_draws`` draws for each datum, checked to pair up."""
    with _Draws(gates), _particles(num_draws):
        trace = poutine.trace(guide).get_trace(*args, **kwargs)
    guide_sites = _sites(trace, num_draws)
    model_sites = _replayed(model, guide_sites, num_draws, args, kwargs)
    guards.check_sites(model_sites, guide_sites)
    return model_sites, guide_sites


def _replayed(model: Any, guide_sites: dict[str, Any], num_draws: int, args: Any, kwargs: Any) -> dict[str, Any]:
    """The sites of the model at the values of those of the guide."""
    guide_trace = poutine.Trace()
    for name, site in guide_sites.items():
        guide_trace.add_node(name, **site)
    with _particles(num_draws):
        return _sites(poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs), num_draws)


def _sites(trace: Any, num_draws: int) -> dict[str, Any]:
    nodes = prune_subsample_sites(trace).nodes
    sites = {name: site for name, site in nodes.items() if site["type"] == "sample"}
    for name, site in sites.items():
        plates = {frame.dim for frame in site["cond_indep_stack"] if frame.name != "particles"}
        fn: Any = site["fn"]
        if plates != {-1} and (plates or site["is_observed"] or fn.batch_shape[-1:] not in ((), (1,))):
            raise ValueError(
                f"site {name!r} must stand in one data plate, at dim=-1, or in none where all data share it; it has "
                f"{sorted(map(str, plates))} and batch shape {tuple(fn.batch_shape)}"
            )
        site["fn"] = fn.expand(torch.broadcast_shapes(fn.batch_shape, (num_draws, 1)))
    return sites


def is_shared(site: dict[str, Any]) -> bool:
    """Whether all data share a site: it stands in no plate but that of the draws."""
    return all(frame.name == "particles" for frame in site["cond_indep_stack"])


def _particles(num_draws: int) -> Any:
    """A plate of draws; as in Pyro one draw adds no dimension, so that functions which know of none are served."""
    return pyro.plate("particles", num_draws, dim=-2) if num_draws > 1 else nullcontext()


def site_kl(name: str, model: dict[str, Any], guide: dict[str, Any]) -> tuple[Tensor, bool]:
    """KL of one site of the guide from the model's, given the sites before it; and whether it is exact.

    The exact KLs of the sites add up to that of the whole when both functions draw their sites in one order. A site
    that only the guide has (an auxiliary one) adds its log q. Of a site that all data share each row has an equal part.

    Raises: ValueError if it is not exact and the site holds a draw that its density must not score.
    """
    q, p = guide[name], model.get(name)
    part = 1 / _num_rows(model) if is_shared(q) else 1.0
    if p is not None and [n for n in model if n in guide] == [n for n in guide if n in model]:
        try:
            return part * scale_and_mask(kl_divergence(q["fn"], p["fn"]), q["scale"], q["mask"]), True
        except NotImplementedError:
            pass
    if q["infer"].get("drawn") in NEED_EXACT_KL:
        raise ValueError(
            f"site {name!r}: {q['infer']['drawn']} draws need the exact KL, and none is registered: "
            f'use ELBO(gates="leave-one-out")'
        )
    return part * (_log_prob(q) - (0.0 if p is None else _log_prob(p))), False


def _num_rows(model: dict[str, Any]) -> int:
    return next(f.size for site in model.values() for f in site["cond_indep_stack"] if f.dim == -1)


def _log_prob(site: Any) -> Tensor:
    return scale_and_mask(site["fn"].log_prob(site["value"]), site["scale"], site["mask"])


def _log_likelihood(model: dict[str, Any]) -> Tensor:
    return torch.stack([_log_prob(site) for site in model.values() if site["is_observed"]]).sum(0)


def _score(site: Any) -> Tensor | None:
    """log q of what a site drew without a path, or None when all of it has one."""
    if "drawn" in site["infer"] or (site["fn"].has_rsample and not guards.has_own_score_parts(site["fn"])):
        return None
    return scale_and_mask(site["fn"].score_parts(site["value"]).score_function, mask=site["mask"])


class _Draws(Messenger):
    """Draws the sites of a guide in the way that the objective trains them, and says which in ``infer["drawn"]``."""

    def __init__(self, gates: str) -> None:
        super().__init__()
        self.kinds = DRAWS[gates]

    def _pyro_sample(self, msg: Any) -> None:
        if msg["done"] or msg["is_observed"]:
            return
        for kind in self.kinds:
            draw = getattr(msg["fn"], f"rsample_{kind}", None)
            if draw is not None:
                msg["value"], msg["done"] = draw(), True
                msg["infer"]["drawn"] = kind
                if kind == "pair":
                    msg["value"], *msg["infer"]["twin"] = msg["value"]  # the second draw and its score
                return
