"""The sample sites of a model and a guide: what must agree, and what an objective needs of the guide's sites."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict, cast

import pyro.distributions as dist
import torch
from pyro.distributions.distribution import Distribution
from pyro.distributions.hmm import HiddenMarkovModel, IndependentHMM
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.infer import (
    ELBO,
    EnergyDistance,
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceMeanField_ELBO,
    TraceTailAdaptive_ELBO,
    TraceTMC_ELBO,
)
from pyro.poutine.runtime import Message
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Independent

from pyrovae.guards.supports import as_set, within
from pyrovae.guards.switch import checking

__all__ = ["Site", "Sites", "check_guide_site", "check_sites", "has_own_score_parts", "is_drawn"]

# objectives that take every draw for a differentiable one; Pyro itself says so only while it validates
_NEED_RSAMPLE = (RenyiELBO, TraceMeanField_ELBO, TraceTailAdaptive_ELBO, EnergyDistance)
_UNSAFE_DRAWS = (dist.Logistic, dist.SkewLogistic, dist.SoftLaplace)
_WRAPPERS = (dist.MaskedDistribution, dist.ExpandedDistribution)
_ANY_DURATION = (HiddenMarkovModel, IndependentHMM)  # their event shape may have length 1 for data of any length
_PYROS = (ELBO, EnergyDistance)


class Site(TypedDict):
    """The part of Pyro's message that the guards read."""

    type: str
    name: str
    fn: dist.TorchDistribution
    value: Tensor
    is_observed: bool
    scale: float | Tensor
    mask: bool | Tensor | None
    infer: dict[str, object]


Sites = Mapping[str, Site]


def check_sites(model: Sites, guide: Sites, enumerated: bool = False) -> None:
    """Refuse sites of a model and a guide that do not fit each other, or data that do not fit the model.

    Each latent site must stand in both functions, with one event shape, one scale and mask, which plates of one size
    have, and a support in the guide that lies in the model's. The model alone may have sites that an objective sums
    over (``enumerated``), the guide alone auxiliary ones.
    """
    if not checking():
        return
    p = {name: site for name, site in model.items() if is_drawn(site)}
    q = {name: site for name, site in guide.items() if is_drawn(site)}
    q = {name: site for name, site in q.items() if name in p or not site["infer"].get("is_auxiliary")}
    p = {name: site for name, site in p.items() if name in q or not (enumerated and site["infer"].get("enumerate"))}
    if set(p) != set(q):
        missing, extra = sorted(set(p) - set(q)), sorted(set(q) - set(p))
        hint = f"; sample {missing} in the guide too, or, where that is data, give the model obs=" if missing else ""
        hint += f"; mark {extra} infer={{'is_auxiliary': True}} if the guide alone needs it" if extra else ""
        raise ValueError(
            f"the guide samples the sites {sorted(q)}, the model {sorted(p)}, and they must be the same{hint}"
        )
    for name in p:
        _check_pair(p[name], q[name])
    for site in model.values():
        if site["type"] == "sample" and site["is_observed"] and isinstance(site["value"], Tensor):
            _check_data(site)


def is_drawn(site: Site) -> bool:
    """Whether a site is a latent one; EnergyDistance draws observed sites too, and marks them."""
    return site["type"] == "sample" and not (
        site["is_observed"] or site["infer"].get("was_observed") or site_is_subsample(cast(Message, site))
    )


def _check_pair(p: Site, q: Site) -> None:
    name = p["name"]
    if not (_equal(p["scale"], q["scale"]) and _equal(p["mask"], q["mask"])):
        raise ValueError(
            f"site {name!r} has scale {p['scale']} and mask {p['mask']} in the model but {q['scale']} and {q['mask']} "
            f"in the guide: put poutine.scale, poutine.mask and plates of the same size around both"
        )
    p_shape, q_shape = tuple(p["fn"].event_shape), tuple(q["fn"].event_shape)
    if p_shape != q_shape:
        what = "shapes" if len(p_shape) == len(q_shape) else "event_dims"  # the words of Pyro's own error
        raise ValueError(
            f"Model and guide {what} disagree: site {name!r} has event_shape {p_shape} in the model but {q_shape} in "
            f"the guide"
        )
    try:
        p_support, q_support = p["fn"].support, q["fn"].support
    except NotImplementedError:
        return
    if p_support is None or q_support is None or within(q_support, p_support):
        return
    got, value, family = as_set(q_support), q["value"], type(_innermost(q["fn"]))
    if family in (dist.Delta, dist.TransformedDistribution):  # as of autoguides: both say Real() for less than that
        if bool(p_support.check(value).all() or value.isnan().any()):
            return
        got = f"a {family.__name__} with a value outside of it"
    raise ValueError(f"site {name!r} has support {as_set(p_support)} in the model but {got} in the guide: match them")


def _check_data(site: Site) -> None:
    value, shape = site["value"], tuple(site["fn"].event_shape)
    got = tuple(value.shape[value.dim() - len(shape) :])
    if got != shape and not isinstance(site["fn"], _ANY_DURATION):
        raise ValueError(f"{site['name']} has shape {got} per datum, the likelihood {shape}: give both the same")


def _equal(a: object, b: object) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        a, b = (torch.as_tensor(1.0 if v is None else v) for v in (a, b))
        return a is b or bool((a == b.to(a)).all())
    return (a is not False) == (b is not False) if isinstance(a, bool) or isinstance(b, bool) else a == b


def check_guide_site(site: Site, objective: object) -> None:
    """Refuse a site of the guide that loses a part of its gradient, or its weight, under the objective."""
    name, fn, of = site["name"], site["fn"], type(objective).__name__
    base: Distribution = fn
    while isinstance(base, Independent) and not has_own_score_parts(base):
        base = base.base_dist
    family = type(_innermost(base)).__name__
    if isinstance(objective, RenyiELBO | ReweightedWakeSleep) and not _equal(site["scale"], 1.0):
        raise ValueError(
            f"site {name!r} has scale {site['scale']}, which {of} puts into the importance weights, so that they give "
            f"no bound: use pyrovae.ELBO or Trace_ELBO, or, where all data share the site, one batch of all the data"
        )
    if isinstance(base, _UNSAFE_DRAWS):
        raise ValueError(
            f"site {name!r}: Pyro's {family}.rsample returns -inf about once in 2^24 draws, which turns every "
            f"parameter into NaN: use pyrovae.distributions.Logistic"
        )
    partial, straight_through = has_own_score_parts(base), isinstance(base, dist.OneHotCategoricalStraightThrough)
    if partial and base is not fn:
        raise ValueError(
            f"site {name!r}: to_event() drops the score_parts of {family}, and with them a part of the gradient: "
            f"give the class a to_event of its own that keeps them"
        )
    unsummed = isinstance(objective, TraceTMC_ELBO) and not site["infer"].get("enumerate")
    if not fn.has_rsample and (unsummed or isinstance(objective, _NEED_RSAMPLE)):
        raise ValueError(
            f"site {name!r}: {of} gives a {family} guide, which is not reparametrised, no gradient or a wrong one: "
            f"use pyrovae.ELBO, Trace_ELBO or TraceGraph_ELBO"
        )
    takes_parts = getattr(objective, "uses_score_parts", False) or type(objective) in (Trace_ELBO, ReweightedWakeSleep)
    if partial and isinstance(objective, _PYROS) and not takes_parts:
        raise ValueError(
            f"site {name!r}: {of} ignores the score_parts of {family}, and with them a part of the gradient: "
            f"use pyrovae.ELBO, Trace_ELBO or ReweightedWakeSleep"
        )
    if isinstance(objective, TraceEnum_ELBO) and straight_through and site["infer"].get("enumerate"):
        raise ValueError(
            f"site {name!r}: TraceEnum_ELBO loses the weights of an enumerated {family}: use OneHotCategorical"
        )


def has_own_score_parts(fn: Distribution) -> bool:
    """Whether a density is reparametrised in part, and says by ``score_parts`` what is left to the score function."""
    while isinstance(fn, _WRAPPERS):
        fn = fn.base_dist
    plain = (Distribution.score_parts, TorchDistributionMixin.score_parts)
    return fn.has_rsample and not isinstance(fn, dist.Delta) and type(fn).score_parts not in plain


def _innermost(fn: Distribution) -> Distribution:
    while isinstance(fn, (Independent, *_WRAPPERS)):
        fn = fn.base_dist
    return fn
