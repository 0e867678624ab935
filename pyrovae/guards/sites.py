"""The sites of a model and a guide, caught at the first step."""

from __future__ import annotations

import inspect
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.distribution import Distribution
from pyro.infer import (
    EnergyDistance,
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceMeanField_ELBO,
    TraceTailAdaptive_ELBO,
    TraceTMC_ELBO,
)
from pyro.infer.elbo import ELBO
from pyro.poutine.messenger import Messenger
from pyro.poutine.replay_messenger import ReplayMessenger
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.util import site_is_subsample

from pyrovae.guards.supports import as_set, same_support
from pyrovae.guards.switch import checking

__all__ = ["GuideSites", "ModelSites", "check_sites", "has_own_score_parts", "running_objective"]

# what takes a draw without a path as if it had one; Pyro itself says so only while it validates
_NEED_RSAMPLE = (RenyiELBO, TraceMeanField_ELBO, TraceTailAdaptive_ELBO, EnergyDistance)
_UNSAFE_DRAWS = (dist.Logistic, dist.SkewLogistic, dist.SoftLaplace)


class _Sites(Messenger):
    """Keeps the sample sites that finish inside it."""

    def __enter__(self) -> Any:
        self.sites: dict[str, Any] = {}
        return super().__enter__()

    def _pyro_post_sample(self, msg: Any) -> None:
        if checking() and not site_is_subsample(msg):
            self.sites[msg["name"]] = msg
            self.look(msg)

    def look(self, site: Any) -> None:
        """Called with each site as it finishes."""


class ModelSites(_Sites):
    """Around the sites of a model: its data fit its likelihood, its latent sites are the guide's.

    As every Messenger it also wraps a function: ``ModelSites()(model)``.
    """

    def look(self, site: Any) -> None:
        if site["is_observed"]:
            got = tuple(site["value"].shape[site["value"].dim() - site["fn"].event_dim :])
            if got != tuple(site["fn"].event_shape):
                raise ValueError(
                    f"{site['name']} has shape {got} per datum, the likelihood {tuple(site['fn'].event_shape)}"
                )

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        super().__exit__(exc_type, exc_value, traceback)
        replay = next((h for h in reversed(_PYRO_STACK) if isinstance(h, ReplayMessenger) and h.trace), None)
        if checking() and exc_type is None and replay is not None:
            check_sites(self.sites, replay.trace.nodes)  # type: ignore[union-attr]  # it has a trace


class GuideSites(_Sites):
    """Around the sites of a guide: each has the gradient and weight that the running objective takes it to have."""

    def look(self, site: Any) -> None:
        _check_gradient(site)
        _check_weight(site)


def check_sites(model: dict[str, Any], guide: dict[str, Any]) -> None:
    """Raise unless the latent sites of a model and a guide pair up: names (S15), plates (S14), scales, masks (S1)."""
    if not checking():
        return
    p, q = _latent(model), _latent(guide)
    q = {name: site for name, site in q.items() if name in p or not site["infer"].get("is_auxiliary")}
    if set(p) != set(q):
        unpaired = sorted(set(p) - set(q))
        hint = (
            f"; the guide must sample {unpaired} too, or, where that is data, the model take obs=" if unpaired else ""
        )
        raise ValueError(
            f"the guide samples the sites {sorted(q)}, the model {sorted(p)}, which must be the same (S15){hint}"
        )
    for name in p:
        if not (_equal(p[name]["scale"], q[name]["scale"]) and _equal(p[name]["mask"], q[name]["mask"])):
            raise ValueError(
                f"site {name!r} has scale {p[name]['scale']} and mask {p[name]['mask']} in the model but "
                f"{q[name]['scale']} and {q[name]['mask']} in the guide: put poutine.scale, poutine.mask and plates of "
                f"the same size around both, or Pyro's objectives are wrong, each in its own way (S1, S14)"
            )
        plates = [{f.name: f.size for f in site["cond_indep_stack"]} for site in (p[name], q[name])]
        if any(plates[1].get(plate, size) != size for plate, size in plates[0].items()):
            raise ValueError(f"site {name!r} stands in plates {plates[0]} in the model, {plates[1]} in the guide (S14)")
        p_shape, q_shape = p[name]["fn"].event_shape, q[name]["fn"].event_shape
        if p_shape != q_shape:
            raise ValueError(
                f"site {name!r} has event_shape {tuple(p_shape)} in the model but {tuple(q_shape)} in the guide"
            )
        p_support, q_support = p[name]["fn"].support, q[name]["fn"].support
        if _is_point(q[name]["fn"]):  # its support is the real line, whatever its value
            if not bool(p_support.check(q[name]["value"]).all()):
                raise ValueError(f"site {name!r}: the guide's point (Delta) is outside the support {as_set(p_support)}")
        elif not same_support(p_support, q_support):
            raise ValueError(
                f"site {name!r} has support {as_set(p_support)} in the model but {as_set(q_support)} in the guide"
            )


def _is_point(fn: Any) -> bool:
    while isinstance(fn, torch.distributions.Independent):
        fn = fn.base_dist
    return isinstance(fn, dist.Delta)


def _latent(sites: dict[str, Any]) -> dict[str, Any]:
    return {name: site for name, site in sites.items() if site["type"] == "sample" and _is_latent(site)}


def _is_latent(site: Any) -> bool:
    # EnergyDistance draws what is observed, and marks it
    return not (site["is_observed"] or site["infer"].get("was_observed") or site_is_subsample(site))


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        a, b = (torch.as_tensor(1.0 if v is None else v) for v in (a, b))
        return a is b or bool((a == b.to(a)).all())
    return (a is not False) == (b is not False) if isinstance(a, bool) or isinstance(b, bool) else a == b


def _check_gradient(site: Any) -> None:
    name, fn = site["name"], site["fn"]
    base, wrapped = fn, False
    while isinstance(base, torch.distributions.Independent) and not has_own_score_parts(base):
        base, wrapped = base.base_dist, True
    if isinstance(base, _UNSAFE_DRAWS):
        raise ValueError(
            f"site {name!r}: Pyro's {type(base).__name__}.rsample returns -inf about once in 2^24 draws (S7), which "
            f"turns every parameter into NaN: pyrovae.distributions.Logistic does not"
        )
    partial = has_own_score_parts(base)
    if partial and wrapped:
        raise ValueError(
            f"site {name!r}: to_event() drops the score_parts of {type(base).__name__}, and with them a part of the "
            f"gradient (S2): give the class a to_event of its own that keeps them"
        )
    straight_through = isinstance(base, dist.OneHotCategoricalStraightThrough)
    if fn.has_rsample and not (partial or straight_through):
        return
    objective = running_objective()
    lost = isinstance(objective, TraceTMC_ELBO) and not site["infer"].get("enumerate")
    if not fn.has_rsample and (lost or isinstance(objective, _NEED_RSAMPLE)):
        raise ValueError(
            f"site {name!r}: {type(objective).__name__} gives a {type(base).__name__} guide, which is not "
            f"reparametrised, no gradient or a wrong one (S5): use pyrovae.ELBO, Trace_ELBO or TraceGraph_ELBO"
        )
    if partial and objective is not None and not _takes_score_parts(objective):
        raise ValueError(
            f"site {name!r}: {type(objective).__name__} ignores the score_parts of {_innermost(base)}, and with "
            f"them a part of the gradient (S3): use pyrovae.ELBO, Trace_ELBO or ReweightedWakeSleep"
        )
    if isinstance(objective, TraceEnum_ELBO) and straight_through and site["infer"].get("enumerate"):
        raise ValueError(
            f"site {name!r}: TraceEnum_ELBO loses the weights of an enumerated {type(base).__name__} (S4): "
            f"use OneHotCategorical"
        )


def _check_weight(site: Any) -> None:
    if _equal(site["scale"], 1.0):
        return
    objective = running_objective()
    if isinstance(objective, RenyiELBO | ReweightedWakeSleep):
        raise ValueError(
            f"site {site['name']!r} has scale {site['scale']}: {type(objective).__name__} puts it into the importance "
            f"weights, which then give no bound (S16): use pyrovae.ELBO or Trace_ELBO, or, where all data share the "
            f"site, one batch of all the data"
        )


def _innermost(fn: Any) -> str:
    while isinstance(fn, torch.distributions.Independent):
        fn = fn.base_dist
    return type(fn).__name__


def _takes_score_parts(objective: Any) -> bool:
    return getattr(objective, "uses_score_parts", False) or type(objective) in (Trace_ELBO, ReweightedWakeSleep)


def has_own_score_parts(fn: Any) -> bool:
    """Whether a density is reparametrised in part, and says by ``score_parts`` what is left to the score function."""
    wrappers = (dist.MaskedDistribution, dist.ExpandedDistribution)
    while isinstance(fn, wrappers):
        fn = fn.base_dist
    plain = (Distribution.score_parts, dist.torch_distribution.TorchDistributionMixin.score_parts)
    return fn.has_rsample and not isinstance(fn, dist.Delta) and type(fn).score_parts not in plain


def running_objective() -> Any:
    """The Pyro objective on whose behalf this runs. Pyro hands it to nobody, so the call stack is read."""
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, (ELBO, EnergyDistance)):
            return owner
        frame = frame.f_back
    return None
