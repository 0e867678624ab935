"""What Pyro would train wrongly in silence, caught at the first step.

:class:`~pyrovae.VAE` opens :class:`ModelSites` and :class:`GuideSites` around the sites of its two functions. Each is a
Pyro ``Messenger`` that only looks: it reads the finished sites, compares them with those of the other function (which
Pyro's replay handler holds) and raises where the objective that runs would be wrong without saying so. The ``S``
numbers are those of the list in ``docs/guards.md``.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.distribution import Distribution
from pyro.infer import (
    EnergyDistance,
    JitTraceMeanField_ELBO,
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceMeanField_ELBO,
    TraceTailAdaptive_ELBO,
    TraceTMC_ELBO,
)
from pyro.infer.elbo import ELBO
from pyro.nn import PyroModule
from pyro.params.param_store import ParamStoreDict
from pyro.poutine.messenger import Messenger
from pyro.poutine.replay_messenger import ReplayMessenger
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.util import site_is_subsample
from torch import nn
from torch.distributions import constraints

__all__ = [
    "GuideSites",
    "ModelSites",
    "check_arguments",
    "check_labels",
    "check_parts",
    "check_shared",
    "check_sites",
    "check_support",
    "check_tensors",
    "check_widths",
    "has_own_score_parts",
    "register",
    "same_support",
    "signature",
    "unchecked",
]

# what takes a draw without a path as if it had one; Pyro itself says so only while it validates
_NEED_RSAMPLE = (RenyiELBO, TraceMeanField_ELBO, TraceTailAdaptive_ELBO, EnergyDistance)
_UNSAFE_DRAWS = (dist.Logistic, dist.SkewLogistic, dist.SoftLaplace)

_checks = True


@contextmanager
def unchecked() -> Iterator[None]:
    """Neither these guards nor Pyro's validation: for steps like one that has passed them."""
    global _checks
    before, _checks = _checks, False
    try:
        with pyro.validation_enabled(False):
            yield
    finally:
        _checks = before


def check_tensors(module: nn.Module, x: torch.Tensor | None = None) -> None:
    """Refuse a module whose tensors have several devices or floating dtypes, and an x that is elsewhere than they."""
    if not _checks:
        return
    if x is not None and not isinstance(x, torch.Tensor):
        raise ValueError(f"x must be a torch tensor, got {type(x).__name__}: torch.as_tensor(x, dtype=torch.float32)")
    kinds: dict[Any, str] = {}
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point():
            kinds.setdefault((tensor.dtype, tensor.device), name)
    if len(kinds) > 1:
        found = ", ".join(f"{name} is {dtype} on {device}" for (dtype, device), name in kinds.items())
        raise ValueError(f"{type(module).__name__} has mixed dtypes or devices: {found}; move all of it with .to(...)")
    for dtype, device in kinds:
        if x is not None and (x.device != device or (x.is_floating_point() and x.dtype != dtype)):
            raise ValueError(
                f"x is {x.dtype} on {x.device}, the {type(module).__name__} {dtype} on {device}: "
                f"x.to(next(vae.parameters()))"
            )


def check_labels(y: Any, num_labels: int, num_rows: int | None = None, like: torch.Tensor | None = None) -> None:
    """Refuse what is no label of each row, a whole number below ``num_labels`` on the device of ``like``."""
    if not _checks:
        return
    rows = "one for each row" if num_rows is None else f"one for each of {num_rows} rows"
    expected = f"y must be labels, {rows}, whole numbers from 0 to {num_labels - 1}"
    if not isinstance(y, torch.Tensor):
        raise ValueError(f"{expected}, got {y!r}")
    whole = not (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool)
    if not whole or y.dim() != 1 or num_rows not in (None, len(y)):
        raise ValueError(f"{expected}, got {y.dtype} of shape {tuple(y.shape)}")
    if like is not None and y.device != like.device:
        raise ValueError(f"y is on {y.device}, the data or their code on {like.device}: y.to(x.device)")
    bad = ((y < 0) | (y >= num_labels)).nonzero()
    if len(bad):
        raise ValueError(f"{expected}, got {y[bad[0, 0]].item()} at index {bad[0, 0].item()}")


def check_arguments(name: str, x: tuple[Any, ...], **functions: Any) -> None:
    """Refuse more or fewer tensors of a datum than model and guide can be called with."""
    for what, function in functions.items() if _checks else ():
        takes = signature(function)
        try:
            takes.bind(*x)
        except TypeError as error:
            count = f"{len(x)} tensors" if len(x) > 1 else "one tensor"
            raise ValueError(
                f"{name} has {count} for each datum, and the {what} takes ({', '.join(takes.parameters)})"
            ) from error


def signature(function: Any) -> inspect.Signature:
    """That of a function or a module; of what does not say its own, as a function in a Pyro handler, ``(*args)``."""
    try:
        return inspect.signature(getattr(function, "forward", function))
    except ValueError:
        return inspect.signature(lambda *args: None)


def register(module: nn.Module) -> None:
    """What ``pyro.module`` does, under a name that no other live module has, never with another module's tensors (S8).

    Pyro's parameter store is global and its first tensor under a name stays: a second model under the same name, a
    replaced layer, or ``load_state_dict(assign=True)`` leaves the optimizer stepping tensors that nobody reads.
    """
    if torch.jit.is_tracing() and isinstance(_running_objective(), JitTraceMeanField_ELBO):
        raise ValueError("JitTraceMeanField_ELBO traces anew at every step (S9): use TraceMeanField_ELBO")
    store: Any = pyro.get_param_store()
    name = f"{type(module).__name__}-{id(module):x}"
    names = {f"{name}$$${key}": value for key, value in module.named_parameters()}
    for full_name, value in names.items():
        if full_name in store and store[full_name] is not value:
            del store[full_name]
    if not any(full_name in store for full_name in names):
        weakref.finalize(module, _forget, list(names)).atexit = False
    for submodule in module.modules():
        if isinstance(submodule, PyroModule):
            _check_owner(submodule, store)
    for full_name, value in names.items():
        if value.requires_grad:  # frozen parameters are frozen: pyro.module would warn at every step
            pyro.param(full_name, value)


def _forget(names: list[str]) -> None:
    """Take the parameters of a module that is gone out of the store, which would keep their memory."""
    store: ParamStoreDict = pyro.get_param_store()
    for full_name in names:
        if full_name in store:
            del store[full_name]


def _check_owner(module: PyroModule, store: Any) -> None:
    for key in module._pyro_params:
        full_name = f"{module._pyro_name}.{key}" if module._pyro_name else key
        if full_name in store and store[full_name].unconstrained() is not module._parameters[f"{key}_unconstrained"]:
            raise ValueError(
                f"the PyroParam {full_name!r} belongs to another model of this process, which Pyro would train instead "
                f"of this one: give the module a name of its own, super().__init__(name=...), or use nn.Parameter"
            )


def same_support(p: constraints.Constraint, q: constraints.Constraint) -> bool:
    """Whether two supports are one set: event dimensions and the closure of an interval (a null set) do not count."""
    return _set(p) == _set(q)


def _set(support: constraints.Constraint) -> str:
    while hasattr(support, "base_constraint"):  # of Independent and of MixtureSameFamily
        support = support.base_constraint
    return repr(support).replace("GreaterThanEq", "GreaterThan").replace("HalfOpenInterval", "Interval")


def check_parts(**parts: Any) -> None:
    """Refuse a part that is a class or a name in place of a module, or that has no ``forward``."""
    for what, part in parts.items():
        if isinstance(part, type):
            raise ValueError(f"{what} must be an instance, got the class {part.__name__}: {part.__name__}(...)")
        if not isinstance(part, nn.Module):
            raise ValueError(f"{what} must be a torch module, got {part!r}; build_vae takes names")
        if type(part).forward is nn.Module.forward:
            raise ValueError(f"{what} {type(part).__name__} must define forward(), as the {what}s of pyrovae do")


def check_widths(prior: Any, likelihood: Any, guide: Any, num_labels: int = 0) -> None:
    """Refuse codes of different widths where all that is needed is known; the first step sees the rest.

    The network of the likelihood reads ``num_labels`` columns after the code.
    """
    shape = getattr(prior, "event_shape", None)
    dim, reads = getattr(guide, "dim", None), getattr(getattr(likelihood, "network", None), "in_shape", None)
    widths = {}
    if isinstance(dim, int):
        widths[f"guide {type(guide).__name__} has"] = (dim,)
    if reads is not None:
        widths[f"the network of likelihood {type(likelihood).__name__} reads"] = tuple(reads)
    if shape is None:
        return
    got = f"prior {type(prior).__name__}: distribution() has event_shape {tuple(shape)}"
    if len(shape) == 0:
        raise ValueError(f"{got}, expected {next(iter(widths.values()), '(D,)')}: add .to_event(1)")
    if reads is not None and num_labels:
        whose, width = widths.popitem()
        columns = (*shape[:-1], shape[-1] + num_labels)
        if width != columns:
            raise ValueError(f"{got}, with {num_labels} labels beside it {columns}, {whose} {width}")
    if any(tuple(shape) != width for width in widths.values()):
        raise ValueError(f"{got}, {', '.join(f'{what} {width}' for what, width in widths.items())}")


def check_support(prior: Any, guide: Any, known: Mapping[str, Any] | None = None) -> None:
    """Refuse a guide on another set than the prior's: the KL is infinite, and Pyro's sampled one a finite number.

    So is one that is no point under an improper prior, from which nothing has a KL. The error lists the guides that
    fit, of ``known`` by its names, or else of all public classes by theirs.
    """
    p: Any = getattr(prior, "support", None)
    q: Any = getattr(guide, "support", None)
    spread = getattr(prior, "improper", False) and not getattr(guide, "is_point", True)
    if not spread and (p is None or q is None or same_support(p, q)):
        return
    if known is None:
        root = type(guide).mro()[type(guide).mro().index(nn.Module) - 1]
        known = {cls.__name__: cls for cls in _descendants(root) if not cls.__name__.startswith("_")}
    fits = sorted(name for name, cls in known.items() if _fits(prior, p, cls))
    names = f"guide {type(guide).__name__}", f"prior {type(prior).__name__}"
    what = f"{names[0]} is no point, and only a point goes with {names[1]}, which is improper"
    if not spread:
        what = f"{names[0]} has support {_set(q)} but {names[1]} has support {_set(p)}"
    raise ValueError(f"{what}; guides that fit: {', '.join(fits) or 'none here, write one with the same support'}")


def _fits(prior: Any, support: Any, guide: Any) -> bool:
    """Whether a class of guides has the sites of a prior; it says "OneHot()" where one of them says "OneHot(3)"."""
    same = guide.support is not None and _set(support).startswith(_set(guide.support)[:-1])
    is_point = getattr(guide, "is_point", True) or not getattr(prior, "improper", False)
    return same and is_point and hasattr(guide, "shared") == hasattr(prior, "shared")


def check_shared(prior: Any, guide: Any, num_data: int | None) -> None:
    """Refuse sites that all data share in one part only, or without the number of data that share them."""
    if num_data is not None and (not isinstance(num_data, int) or num_data < 1):
        raise ValueError(f"num_data must be a positive whole number, got {num_data!r}")
    names = {
        hasattr(part, "shared"): f"{what} {type(part).__name__}" for what, part in (("prior", prior), ("guide", guide))
    }
    if len(names) == 2:
        raise ValueError(f"{names[True]} samples sites that all data share (shared), {names[False]} does not")
    if True in names and num_data is None:
        raise ValueError(
            f"num_data must be given, the number of rows of the training set: {type(prior).__name__} has sites that "
            f"all of them share, and a batch bears its part of them"
        )


def _descendants(cls: Any) -> set[Any]:
    return {cls}.union(*(_descendants(c) for c in cls.__subclasses__()))


class _Sites(Messenger):
    """Keeps the sample sites that finish inside it."""

    def __enter__(self) -> Any:
        self.sites: dict[str, Any] = {}
        return super().__enter__()

    def _pyro_post_sample(self, msg: Any) -> None:
        if _checks and not site_is_subsample(msg):
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
        if _checks and exc_type is None and replay is not None:
            check_sites(self.sites, replay.trace.nodes)  # type: ignore[union-attr]  # it has a trace


class GuideSites(_Sites):
    """Around the sites of a guide: each has the gradient and weight that the running objective takes it to have."""

    def look(self, site: Any) -> None:
        _check_gradient(site)
        _check_weight(site)


def check_sites(model: dict[str, Any], guide: dict[str, Any]) -> None:
    """Raise unless the latent sites of a model and a guide pair up: names (S15), plates (S14), scales, masks (S1)."""
    if not _checks:
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
        if not same_support(p_support, q_support):
            raise ValueError(
                f"site {name!r} has support {_set(p_support)} in the model but {_set(q_support)} in the guide"
            )


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
    objective = _running_objective()
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
    objective = _running_objective()
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


def _running_objective() -> Any:
    """The Pyro objective on whose behalf this runs. Pyro hands it to nobody, so the call stack is read."""
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, (ELBO, EnergyDistance)):
            return owner
        frame = frame.f_back
    return None
