"""The sample sites of a model and a guide at K draws, and the terms that objectives take from them.

With several draws a plate of draws stands to the left of all plates of the functions: terms are ``(K, *plates)``. One
draw adds no plate, so functions that cannot be run at several draws are served too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.distribution import Distribution
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Independent, kl_divergence

from pyrovae import distributions, guards
from pyrovae.objectives.estimators import Estimator, Relaxed, StraightThrough

__all__ = [
    "Args",
    "Function",
    "Functions",
    "Kwargs",
    "Site",
    "Sites",
    "Term",
    "check_data_plate",
    "check_observed",
    "check_points",
    "coordinate_kl",
    "coordinates",
    "draw_sites",
    "has_path",
    "is_auxiliary",
    "is_point",
    "is_shared",
    "is_subsample",
    "log_likelihood",
    "log_prob",
    "path_log_prob",
    "plates",
    "random_state_kept",
    "score",
    "site_kl",
    "sum_of",
]

_ = distributions.kl  # importing it registers the divergences

Site = dict[str, Any]  # a node of a Pyro trace
Sites = dict[str, Site]
Function = Callable[..., object]
Args = tuple[object, ...]
Kwargs = Mapping[str, object]
NEED_EXACT_KL = {"straight_through": StraightThrough, "relaxed": Relaxed}  # a density must not score these draws of it
PARTICLES = "particles"  # the name of the plate of draws
_depths: WeakKeyDictionary[object, dict[object, int]] = WeakKeyDictionary()  # by model: the dims that its plates take


def draw_sites(
    model: Function, guide: Function, args: Args, kwargs: Kwargs, num_draws: int, estimator: Estimator | None = None
) -> tuple[Sites, Sites]:
    """The sample sites of model and guide at ``num_draws`` draws for each datum, checked to pair up.

    The estimator says how sites without a path are drawn; None draws them plainly.
    """
    functions = Functions(model, guide, args, kwargs)
    guide_sites = functions.draw_guide(num_draws, estimator)
    return functions.replay_model(guide_sites, num_draws), guide_sites


@dataclass(frozen=True, eq=False)
class Functions:
    """A model and a guide with the arguments of one call."""

    model: Function
    guide: Function
    args: Args
    kwargs: Kwargs

    def draw_guide(self, num_draws: int, estimator: Estimator | None = None, handler: Messenger | None = None) -> Sites:
        """The sites of the guide. ``handler`` stands around it and may change densities and draws."""
        depth = self._depth(num_draws)
        with _Draws(estimator or Estimator()), _particles(num_draws, depth), handler or nullcontext():
            trace = poutine.trace(self.guide).get_trace(*self.args, **self.kwargs)
        return _sites(trace, num_draws, depth)

    def replay_model(self, guide_sites: Sites, num_draws: int) -> Sites:
        """The sites of the model at the values of those of the guide, checked to pair up with them."""
        depth, replayed = self._depth(num_draws), poutine.replay(self.model, trace=as_trace(guide_sites))
        with _particles(num_draws, depth), _vectorized("model", num_draws):
            trace = poutine.trace(replayed).get_trace(*self.args, **self.kwargs)
        sites = _sites(trace, num_draws, depth)
        guards.check_sites(sites, guide_sites)  # type: ignore[arg-type]  # messages of Pyro
        return sites

    def _depth(self, num_draws: int) -> int:
        """The number of dimensions that plates take, at least 1; found by a run at one draw, once for each model."""
        if num_draws == 1:
            return 1  # there is no plate of draws to place
        owner, method = getattr(self.model, "__self__", self.model), getattr(self.model, "__func__", None)
        try:
            known = _depths.setdefault(owner, {})
        except TypeError:  # a callable that cannot be a weak key is looked at in each call
            known = {}
        if method not in known:
            with torch.no_grad(), guards.undone(self.model, self.guide), poutine.block():
                traced = poutine.trace(self.guide).get_trace(*self.args, **self.kwargs)
                model = poutine.trace(poutine.replay(self.model, trace=traced)).get_trace(*self.args, **self.kwargs)
            frames = [frame for trace in (traced, model) for node in trace.nodes.values() for frame in _frames(node)]
            known[method] = max([1, *(-frame.dim for frame in frames if frame.dim is not None)])
        return known[method]


class Term(NamedTuple):
    """A part of an objective in nats, ``(K, *plates)``, with its plates; or one number that all draws have."""

    value: Tensor
    plates: Mapping[str, int]

    def total(self, num_draws: int) -> Tensor:
        """The sum over its plates of the mean over the draws, ``()``."""
        return self.value.sum() / num_draws if self.value.dim() else self.value

    def over(self, plates: Mapping[str, int]) -> Tensor:
        """The sum over all plates except these, ``(K, *plates)``."""
        dims = [dim for name, dim in self.plates.items() if name not in plates]
        return self.value.sum(dims, keepdim=True) if dims else self.value


def plates(site: Site) -> dict[str, int]:
    """The plates around a site and their dims, without that of the draws and without sequential plates."""
    return {frame.name: frame.dim for frame in _frames(site) if frame.name != PARTICLES and frame.dim is not None}


def is_shared(site: Site) -> bool:
    """Whether all data share a site: it stands in no plate except that of the draws."""
    return not plates(site)


def check_data_plate(caller: str, *sides: Sites) -> None:
    """Refuse sites that stand in another plate than one at dim -1 or in none.

    Raises: ValueError that names the site and its plates.
    """
    found: dict[str, int] = {}
    for name, site in (pair for sites in sides for pair in sites.items()):
        found.update(plates(site))
        if len(found) > 1 or any(dim != -1 for dim in found.values()):
            raise ValueError(
                f"{caller} has one number for each datum, so its sites must stand in one data plate, at dim=-1, or in "
                f"none where all data share them; site {name!r} stands in {plates(site)}, and the plates so far are "
                f"{found}: pyrovae.ELBO takes any plates"
            )


def check_observed(model: Sites) -> None:
    """Refuse a model without data, which a guide in its place would be."""
    if not any(site["is_observed"] for site in model.values()):
        raise ValueError("the model observes nothing: give its data obs=x, and the pair in the order (model, guide)")


def log_prob(site: Site) -> Tensor:
    """The log-density of a site's draws, under the scale and the mask around it."""
    return scale_and_mask(site["fn"].log_prob(site["value"]), site["scale"], site["mask"])


def log_likelihood(model: Sites) -> Tensor:
    """log p(x|z), of observed sites in one plate."""
    return torch.stack([log_prob(site) for site in model.values() if site["is_observed"]]).sum(0)


def sum_of(terms: Sequence[Tensor]) -> Tensor:
    """The sum of tensors of several shapes, of at least one."""
    return reduce(torch.add, terms)


def site_kl(name: str, model: Sites, guide: Sites) -> tuple[Tensor, bool]:
    """KL of one site of the guide from the model's, given the sites before it; and whether it is exact.

    The exact KLs of the sites add up to that of the whole when both functions draw their sites in one order. A site
    that only the guide has (an auxiliary one) adds its log q. A point (Delta) adds what its ``log_density`` says, which
    is the Jacobian in Pyro's automatic guides and which the KL that Pyro registers leaves out.

    Raises: ValueError if it is not exact and the site holds a draw that its density must not score.
    """
    q, p = guide[name], model.get(name)
    if p is not None and not is_point(q["fn"]) and _one_order(model, guide):
        with suppress(NotImplementedError):
            return scale_and_mask(kl_divergence(q["fn"], p["fn"]), q["scale"], q["mask"]), True
    _check_scored(name, q)
    exact = is_point(q["fn"]) and not any(map(is_auxiliary, guide.values()))
    return log_prob(q) - (0.0 if p is None else log_prob(p)), exact


def coordinate_kl(name: str, model: Sites, guide: Sites) -> tuple[Tensor, bool]:
    """As :func:`site_kl`, of each coordinate of a site by itself, ``(K, *plates, D)``.

    Raises: ValueError if the densities of the site are no products over its coordinates.
    """
    q, p = guide[name], model.get(name)
    if p is None:
        raise ValueError(f"site {name!r} is the guide's alone: its coordinates have no KL of their own")
    q_each, p_each = coordinates(q["fn"]), coordinates(p["fn"])
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
    scale, mask = (s[..., None] if isinstance(s, Tensor) else s for s in (q["scale"], q["mask"]))
    return scale_and_mask(kl, scale, mask), exact


def is_subsample(site: Site) -> bool:
    """Whether a site is the choice of the rows of a plate."""
    return site_is_subsample(site)  # type: ignore[arg-type]  # Pyro's type of a site has no value in it


def is_point(fn: object) -> bool:
    """Whether a density is a point (Delta)."""
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return isinstance(fn, dist.Delta)


def check_points(sites: Sites, guide: Sites | None = None) -> None:
    """Refuse sites that are points, whose weights are no density ratios.

    Those of an automatic ``guide`` are accepted: they are functions of its auxiliary site, which has a density.
    """
    name = next((name for name, site in sites.items() if is_point(site["fn"])), None)
    if name is not None and not any(map(is_auxiliary, (guide or sites).values())):
        raise ValueError(
            f"site {name!r} of the guide is a point (Delta): it has no density and gives no bound on log p(x)"
        )


def has_path(site: Site) -> bool:
    """Whether a gradient goes through the draw of a site, even a biased one."""
    return "drawn" in site["infer"] or (site["fn"].has_rsample and not guards.has_own_score_parts(site["fn"]))


def score(site: Site) -> Tensor | None:
    """log q of the part of a draw that has no path, or None where all of it has one."""
    if has_path(site):
        return None
    return scale_and_mask(site["fn"].score_parts(site["value"]).score_function, mask=site["mask"])


def path_log_prob(sites: Sites) -> dict[str, Tensor]:
    r"""log q of each site with the gradient that goes through the draws alone, :math:`\partial_z \log q\, dz/d\phi`.

    It leaves out :math:`\partial_\phi \log q(z)` at fixed z, whose expectation is zero.

    References: Roeder, Wu and Duvenaud (2017), "Sticking the landing", eq. 8.
    """
    moving = {name: site for name, site in sites.items() if site["value"].requires_grad}
    ends: list[Tensor] = []
    # each site is scored at a copy of its draws; later sites keep the draws that they read
    copies = {name: {**site, "value": site["value"].detach().requires_grad_()} for name, site in moving.items()}
    each = {name: log_prob(copies.get(name, site)) for name, site in sites.items()}
    values = {name: log_q.detach() for name, log_q in each.items()}
    for name, site in moving.items():
        ends += [copies[name]["value"], site["read"] if "read" in site else site["value"]]
    total = sum_of([log_q.sum() for log_q in each.values()]) if moving else None
    if total is None or not total.requires_grad:
        return values
    slopes = torch.autograd.grad(total, ends, retain_graph=True, allow_unused=True)
    for name, direct, later in zip(moving, slopes[::2], slopes[1::2], strict=True):
        event = tuple(range(-moving[name]["fn"].event_dim, 0))
        for slope in (direct, later):
            if slope is not None:
                product = slope * moving[name]["value"]
                through = product.sum(event) if event else product
                values[name] = values[name] + through - through.detach()
    return values


def coordinates(fn: Distribution) -> TorchDistribution | None:
    """The densities of the coordinates, of batch shape ``(K, *plates, D)``; None if they have none of their own."""
    each: Any = fn
    dims = each.event_dim
    while isinstance(each, Independent):
        dims, each = dims - each.reinterpreted_batch_ndims, each.base_dist
    return each if dims == 0 and not each.event_dim else None


def random_state_kept() -> Any:
    """A context after which torch draws as if nothing had been drawn in it, on the CPU and on CUDA devices in use."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    return torch.random.fork_rng(devices=devices)


def as_trace(sites: Sites) -> poutine.Trace:
    """A trace to replay: the sites, and the rows that their plates drew."""
    trace = poutine.Trace()
    nodes = {name: node for site in sites.values() for name, node in site["subsamples"].items()}
    for name, node in {**nodes, **sites}.items():
        trace.add_node(name, **node)
    return trace


def is_auxiliary(site: Site) -> bool:
    """Whether a site is the guide's alone, such as the one from which an automatic guide computes all others."""
    return bool(site["infer"].get("is_auxiliary"))


def _one_order(model: Sites, guide: Sites) -> bool:
    return [name for name in model if name in guide] == [name for name in guide if name in model]


def _check_scored(name: str, site: Site) -> None:
    estimator = NEED_EXACT_KL.get(site["infer"].get("drawn"))
    if estimator is not None:
        raise ValueError(
            f"site {name!r}: the draws of {estimator.__name__} need the exact KL, and none is registered for its "
            f"densities: use ELBO(estimator=LeaveOneOut())"
        )


def _frames(node: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(node.get("cond_indep_stack", ())) if node["type"] == "sample" else ()


def _particles(num_draws: int, depth: int) -> Any:
    return pyro.plate(PARTICLES, num_draws, dim=-1 - depth) if num_draws > 1 else nullcontext()


def _sites(trace: poutine.Trace, num_draws: int, depth: int) -> Sites:
    every: Sites = dict(trace.nodes)  # type: ignore[arg-type]  # Pyro types nodes as messages, which lack our keys
    nodes = {name: node for name, node in every.items() if node["type"] == "sample"}
    subsamples = {name: node for name, node in nodes.items() if is_subsample(node)}
    sites = {name: node for name, node in nodes.items() if name not in subsamples}
    for name, site in sites.items():
        site["subsamples"] = subsamples  # the rows that a plate drew: the model is to draw the same
        shape, dims = site["fn"].batch_shape, {frame.dim for frame in _frames(site)}
        loose = [dim for dim in range(-len(shape), 0) if shape[dim] != 1 and dim not in dims]
        if loose:
            raise ValueError(
                f"site {name!r} has batch shape {tuple(shape)}, and its plates {plates(site) or 'none'} do not cover "
                f"the dims {loose}: open a pyro.plate of that size around it, or make them part of one datum by "
                f".to_event()"
            )
        if num_draws > 1 and any(dim is not None and dim < -1 - depth for dim in dims):
            raise ValueError(
                f"site {name!r} stands in the plates {plates(site)}, and at an earlier call of the model none of them "
                f"was left of dim {-depth}: give its plates the same dims at each call"
            )
        site["fn"] = site["fn"].expand(torch.broadcast_shapes(shape, (num_draws,) + (1,) * depth))
    return sites


class _Draws(Messenger):
    """Draws the sites of a guide by an estimator, and keeps in ``infer["drawn"]`` which kind of draw it is."""

    def __init__(self, estimator: Estimator) -> None:
        super().__init__()
        self.estimator = estimator

    def _pyro_sample(self, msg: Site) -> None:
        drawn = None if msg["done"] or msg["is_observed"] else self.estimator.draw(msg["fn"])
        if drawn is not None:
            msg["infer"]["drawn"], msg["value"] = drawn
            msg["done"] = True
            if drawn[0] == "pair":
                msg["value"], *msg["infer"]["twin"] = drawn[1]  # the second draw and its score


@contextmanager
def _vectorized(what: str, num_draws: int) -> Iterator[None]:
    """Say of an error under several draws what it most often means."""
    try:
        yield
    except RuntimeError as error:
        if num_draws == 1:
            raise
        raise ValueError(
            f"the {what} cannot be run at {num_draws} draws at once, which add dimensions to the left of each latent "
            f"value: write it for batches of any shape, its data in a plate at dim=-1, or take one draw: "
            f"{str(error).partition(chr(10))[0]}"
        ) from error
