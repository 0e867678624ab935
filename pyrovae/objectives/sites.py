"""The sample sites of a model and a guide at K draws for each datum, and the terms that objectives take from them.

Each term is ``(K, N)``: a draw and a datum. Sites stand in a data plate at dim -1, or in none where all data share
them.
"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Independent, kl_divergence

from pyrovae import distributions, guards

__all__ = [
    "DRAWS",
    "Sites",
    "check_observed",
    "check_points",
    "coordinate_kl",
    "coordinates",
    "draw_guide",
    "draw_sites",
    "has_path",
    "is_point",
    "is_shared",
    "log_likelihood",
    "log_prob",
    "num_rows",
    "path_log_prob",
    "plate_scale",
    "replayed",
    "score",
    "site_kl",
    "site_part",
]

_ = distributions.kl  # importing it registers the divergences

Sites = dict[str, Any]

# How a site without a path is drawn, of what its density offers; what offers none of these has the score function.
DRAWS = {
    "disarm": ("pathwise", "pair"),
    "leave-one-out": (),
    "straight-through": ("pathwise", "straight_through"),
    "relaxed": ("pathwise", "relaxed"),
}
NEED_EXACT_KL = ("straight_through", "relaxed")  # a density must not score these draws of it


def draw_sites(
    model: Any,
    guide: Any,
    args: Any,
    kwargs: Any,
    num_draws: int,
    gates: str = "leave-one-out",
    handler: Messenger | None = None,
) -> tuple[Sites, Sites]:
    """The sample sites of model and guide at ``num_draws`` draws for each datum, checked to pair up.

    ``handler`` stands around the guide, and may change its densities before they are drawn, and their draws after.
    """
    guide_sites = draw_guide(guide, args, kwargs, num_draws, gates, handler)
    model_sites = replayed(model, guide_sites, num_draws, args, kwargs)
    guards.check_sites(model_sites, guide_sites)
    return model_sites, guide_sites


def draw_guide(
    guide: Any, args: Any, kwargs: Any, num_draws: int, gates: str = "leave-one-out", handler: Messenger | None = None
) -> Sites:
    """The sites of the guide alone."""
    with _Draws(gates), _particles(num_draws), handler or nullcontext():
        trace = poutine.trace(guide).get_trace(*args, **kwargs)
    return _sites(trace, num_draws)


def replayed(model: Any, guide_sites: Sites, num_draws: int, args: Any, kwargs: Any) -> Sites:
    """The sites of the model at the values of those of the guide."""
    guide_trace = poutine.Trace()
    nodes = {name: node for site in guide_sites.values() for name, node in site["subsamples"].items()}
    for name, node in {**nodes, **guide_sites}.items():
        guide_trace.add_node(name, **node)
    with _particles(num_draws):
        trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
    return _sites(trace, num_draws)


def check_observed(model: Sites) -> None:
    """Refuse a model without data, which a guide in its place would be."""
    if not any(site["is_observed"] for site in model.values()):
        raise ValueError("the model observes nothing: give its data obs=x, and the pair in the order (model, guide)")


def is_shared(site: Any) -> bool:
    """Whether all data share a site: it stands in no plate but that of the draws."""
    return all(frame.name == "particles" for frame in site["cond_indep_stack"])


def num_rows(model: Sites) -> int:
    """N, the size of the data plate."""
    return next(f.size for site in model.values() for f in site["cond_indep_stack"] if f.dim == -1)


def plate_scale(model: Sites) -> Any:
    """What a datum counts for: the scale of a subsampled plate, or of ``poutine.scale``, around the data."""
    return next(site["scale"] for site in model.values() if site["is_observed"])


def site_part(site: Any, rows: int) -> float:
    """The part of a site that each of the rows has: all of it, or an equal share of what all data share."""
    return 1 / rows if is_shared(site) else 1.0


def log_prob(site: Any) -> Tensor:
    """The log-density of a site's draws, under the scale and the mask around it."""
    return scale_and_mask(site["fn"].log_prob(site["value"]), site["scale"], site["mask"])


def log_likelihood(model: Sites) -> Tensor:
    """log p(x|z)."""
    return torch.stack([log_prob(site) for site in model.values() if site["is_observed"]]).sum(0)


def site_kl(name: str, model: Sites, guide: Sites) -> tuple[Tensor, bool]:
    """KL of one site of the guide from the model's, given the sites before it; and whether it is exact.

    The exact KLs of the sites add up to that of the whole when both functions draw their sites in one order. A site
    that only the guide has (an auxiliary one) adds its log q. Of a site that all data share each row has an equal part.

    Raises: ValueError if it is not exact and the site holds a draw that its density must not score.
    """
    q, p = guide[name], model.get(name)
    part = site_part(q, num_rows(model))
    if p is not None and _one_order(model, guide):
        try:
            return part * scale_and_mask(kl_divergence(q["fn"], p["fn"]), q["scale"], q["mask"]), True
        except NotImplementedError:
            pass
    _check_scored(name, q)
    return part * (log_prob(q) - (0.0 if p is None else log_prob(p))), False


def coordinate_kl(name: str, model: Sites, guide: Sites) -> tuple[Tensor, bool]:
    """As :func:`site_kl`, of each coordinate of a site by itself, ``(K, N, D)``.

    Raises: ValueError if the densities of the site are no products over its coordinates.
    """
    q, p = guide[name], model.get(name)
    q_each, p_each = (None if site is None else coordinates(site["fn"]) for site in (q, p))
    if p is None:
        raise ValueError(f"site {name!r} is the guide's alone: its coordinates have no KL of their own")
    if q_each is None or p_each is None:
        whose, fn = ("guide", q["fn"]) if q_each is None else ("model", p["fn"])
        raise ValueError(
            f"site {name!r}: the {whose}'s {type(fn).__name__} is a law of whole codes, with no KL of each coordinate"
        )
    kl, exact = None, False
    if _one_order(model, guide):
        with suppress(NotImplementedError):
            kl, exact = kl_divergence(q_each, p_each), True
    if kl is None:
        _check_scored(name, q)
        kl = q_each.log_prob(q["value"]) - p_each.log_prob(q["value"])
    kl = kl.flatten(-q["fn"].event_dim) if q["fn"].event_dim else kl[..., None]
    part = site_part(q, num_rows(model))
    scale, mask = (s[..., None] if isinstance(s, Tensor) else s for s in (q["scale"], q["mask"]))
    return part * scale_and_mask(kl, scale, mask), exact


def is_point(fn: Any) -> bool:
    """Whether a density is a point (Delta)."""
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return isinstance(fn, dist.Delta)


def check_points(guide: Sites) -> None:
    """Refuse a guide with a site that is a point, whose weights are no density ratio."""
    name = next((name for name, site in guide.items() if is_point(site["fn"])), None)
    if name is not None:
        raise ValueError(
            f"site {name!r} of the guide is a point (Delta): it has no density and gives no bound on log p(x)"
        )


def has_path(site: Any) -> bool:
    """Whether the gradient of what reads a draw goes through it, be it as a biased one."""
    return "drawn" in site["infer"] or (site["fn"].has_rsample and not guards.has_own_score_parts(site["fn"]))


def score(site: Any) -> Tensor | None:
    """log q of what a site drew without a path, or None when all of it has one."""
    if has_path(site):
        return None
    return scale_and_mask(site["fn"].score_parts(site["value"]).score_function, mask=site["mask"])


def path_log_prob(sites: Sites, rows: int) -> Tensor:
    r"""log q of the draws with the gradient that goes through the draws alone, :math:`\partial_z \log q\, dz/d\phi`.

    What it leaves out, :math:`\partial_\phi \log q(z)` at fixed z, has an expectation of zero. Of a site that all data
    share each of the ``rows`` has an equal part.

    References: Roeder, Wu and Duvenaud (2017), "Sticking the landing", eq. 8.
    """
    moving = {name: site for name, site in sites.items() if site["value"].requires_grad}
    # each site is scored at a copy of its draws; what later sites took from the draws they keep
    copies = {name: {**site, "value": site["value"].detach().requires_grad_()} for name, site in moving.items()}
    total: Any = sum(site_part(site, rows) * log_prob(copies.get(name, site)) for name, site in sites.items())
    if not moving:
        return total.detach()
    ends = [end["value"] for name in moving for end in (copies[name], moving[name])]
    slopes = torch.autograd.grad(total.sum(), ends, retain_graph=True, allow_unused=True)
    through = torch.zeros_like(total)
    for site, direct, later in zip(moving.values(), slopes[::2], slopes[1::2], strict=True):
        event = tuple(range(-site["fn"].event_dim, 0))
        for slope in (direct, later):
            if slope is not None:
                product = slope * site["value"]
                through = through + site_part(site, rows) * (product.sum(event) if event else product)
    return total.detach() + through - through.detach()


def _one_order(model: Sites, guide: Sites) -> bool:
    return [name for name in model if name in guide] == [name for name in guide if name in model]


def _check_scored(name: str, site: Any) -> None:
    if site["infer"].get("drawn") in NEED_EXACT_KL:
        raise ValueError(
            f"site {name!r}: {site['infer']['drawn']} draws need the exact KL, and none is registered: "
            f'use ELBO(gates="leave-one-out")'
        )


def coordinates(fn: Any) -> Any:
    """The densities of the coordinates, of batch shape ``(K, N, D)``; None if they have none of their own."""
    if not fn.event_dim:
        return fn
    dims = fn.event_dim
    while isinstance(fn, Independent):
        dims, fn = dims - fn.reinterpreted_batch_ndims, fn.base_dist
    return fn if dims == 0 and not fn.event_dim else None


def _particles(num_draws: int) -> Any:
    """A plate of draws; as in Pyro one draw adds no dimension, so that functions which know of none are served."""
    return pyro.plate("particles", num_draws, dim=-2) if num_draws > 1 else nullcontext()


def _sites(trace: Any, num_draws: int) -> Sites:
    nodes = {name: node for name, node in trace.nodes.items() if node["type"] == "sample"}
    subsamples = {name: node for name, node in nodes.items() if site_is_subsample(node)}
    sites = {name: node for name, node in nodes.items() if name not in subsamples}
    for name, site in sites.items():
        site["subsamples"] = subsamples  # which rows a plate drew: the model is to draw the same
        plates = {frame.dim for frame in site["cond_indep_stack"] if frame.name != "particles"}
        fn: Any = site["fn"]
        if plates != {-1} and (plates or site["is_observed"] or fn.batch_shape[-1:] not in ((), (1,))):
            raise ValueError(
                f"site {name!r} must stand in one data plate, at dim=-1, or in none where all data share it; it has "
                f"{sorted(map(str, plates))} and batch shape {tuple(fn.batch_shape)}"
            )
        site["fn"] = fn.expand(torch.broadcast_shapes(fn.batch_shape, (num_draws, 1)))
    return sites


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
