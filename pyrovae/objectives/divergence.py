"""Find the site and the parameter where a NaN began."""

from __future__ import annotations

import re
from contextlib import suppress

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Independent

from pyrovae.objectives.sites import Args, Function, Kwargs, Site, Sites, is_subsample

__all__ = ["blame", "is_divergence"]


# messages of torch for a parameter or a value that is not finite, from its validation and from its samplers
_SAYS = (
    r"Expected (parameter|value)[\s\S]*\b(nan|inf)\b",
    r"p_in >= 0 && p_in <= 1",
    r"probability tensor contains",
    r"invalid Poisson rate",
)


def is_divergence(error: Exception) -> bool:
    """Whether torch raised this error because a parameter of a distribution, or a value, is NaN or infinite."""
    return isinstance(error, ValueError | RuntimeError) and any(re.search(says, str(error)) for says in _SAYS)


def blame(model: Function, guide: Function, args: Args = (), kwargs: Kwargs | None = None) -> str:
    """Name the data, the weights and the first site that are NaN or infinite, with their rows.

    The guide and the model run once more, with other draws, without gradients and without validation. A site is bad if
    a parameter of its distribution, its draw or its log-density is not finite.
    """
    kwargs = kwargs or {}
    look = _Look()
    with torch.no_grad(), pyro.validation_enabled(False), suppress(ValueError, RuntimeError), look:
        trace = poutine.trace(guide).get_trace(*args, **kwargs)
        look.whose = "model"
        poutine.trace(poutine.replay(model, trace=trace)).get_trace(*args, **kwargs)
    found = [
        f"the data {n['name']!r} are {_where(n['value'])}" for _, n in look.sites if n["is_observed"] and _bad_data(n)
    ]
    weights = [f"parameter {name.split('$$$')[-1]} is {_kind(value)}" for name, value in look.weights() if _bad(value)]
    found += weights[:3] + ([f"and {len(weights) - 3} more"] if len(weights) > 3 else [])
    with torch.no_grad(), pyro.validation_enabled(False):
        found += next(filter(None, (_of_site(whose, n) for whose, n in look.sites)), [])
    return "; ".join(found) or "each site was finite at other draws"


class _Look(Messenger):
    """Record the sites of a guide and then of a model before they are drawn, so that a draw that fails is the last."""

    def __init__(self) -> None:
        super().__init__()
        self.whose = "guide"
        self.sites: list[tuple[str, Site]] = []
        self.params: Sites = {}

    def _pyro_sample(self, msg: Site) -> None:
        if not is_subsample(msg):
            self.sites.append((self.whose, msg))

    def _pyro_param(self, msg: Site) -> None:
        self.params[msg["name"]] = msg

    def weights(self) -> list[tuple[str, Tensor]]:
        return [(name, msg["value"]) for name, msg in self.params.items() if msg["value"] is not None]


def _of_site(whose: str, node: Site) -> list[str]:
    """The first of these that is not finite: a parameter of the distribution, the value, its log-density."""
    fn, value = node["fn"], node["value"]
    while isinstance(fn, Independent):
        fn = fn.base_dist
    name = f"site {node['name']!r} of the {whose}"
    for parameter in getattr(fn, "arg_constraints", {}):
        tensor = getattr(fn, parameter, None)
        if isinstance(tensor, Tensor) and _bad(tensor):
            return [f"{name}: {parameter} of {type(fn).__name__} is {_where(tensor)}"]
    if value is None:
        return [f"{name}: no value could be drawn from {type(fn).__name__}"]
    if not node["is_observed"] and _bad(value):
        return [f"{name}: its draw from {type(fn).__name__} is {_where(value)}"]
    log_prob = node["fn"].log_prob(value)
    if torch.isnan(log_prob).any():
        return [f"{name}: the log-density of {type(fn).__name__} is {_where(log_prob)}"]
    return []


def _bad(x: Tensor) -> bool:
    return x.is_floating_point() and not bool(torch.isfinite(x).all())


def _bad_data(node: Site) -> bool:
    """Whether observed data are not finite; NaN that a likelihood accepts as a missing value is good."""
    x = node["value"]
    return _bad(x) and (bool(torch.isinf(x).any()) or not bool(node["fn"].support.check(x).all()))


def _kind(x: Tensor) -> str:
    return "NaN" if torch.isnan(x).any() else "infinite"


def _where(x: Tensor) -> str:
    """``NaN`` or ``infinite``, followed by the rows that are not finite."""
    if not x.dim():
        return _kind(x)
    rows = (~torch.isfinite(x)).flatten(1).any(1) if x.dim() > 1 else ~torch.isfinite(x)
    which = rows.nonzero()[:, 0].tolist()
    if len(which) == len(rows):
        return f"{_kind(x)} in every row"
    listed = ", ".join(map(str, which[:5])) + (", …" if len(which) > 5 else "")
    return f"{_kind(x)} in row{'s' if len(which) > 1 else ''} {listed}"
