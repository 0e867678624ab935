"""Which site and which parameter a NaN came from."""

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


# what torch says when a parameter or a value is not a number: its own checks, and samplers that meet one without them
_SAYS = (
    r"Expected (parameter|value)[\s\S]*\b(nan|inf)\b",
    r"p_in >= 0 && p_in <= 1",
    r"probability tensor contains",
    r"invalid Poisson rate",
)


def is_divergence(error: Exception) -> bool:
    """Whether torch raised it since a parameter of a distribution, or a value, is NaN or infinite."""
    return isinstance(error, ValueError | RuntimeError) and any(re.search(says, str(error)) for says in _SAYS)


def blame(model: Function, guide: Function, args: Args = (), kwargs: Kwargs | None = None) -> str:
    """Names what is NaN or infinite: data, weights, and the first site with such a parameter, and the rows of each.

    The guide and the model run once more, with other draws, without gradients and without validation.
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
    """Keeps the sites of a guide and then of a model as they begin: one that cannot be drawn is the last."""

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
    """What of a site of a trace is not finite: a parameter of its density, else its value, else its density there."""
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
    """Not finite, where NaN is nothing that the density takes for missing."""
    x = node["value"]
    return _bad(x) and (bool(torch.isinf(x).any()) or not bool(node["fn"].support.check(x).all()))


def _kind(x: Tensor) -> str:
    return "NaN" if torch.isnan(x).any() else "infinite"


def _where(x: Tensor) -> str:
    """NaN or infinite, with the rows where it is where there are several, and fewer than all."""
    if not x.dim():
        return _kind(x)
    rows = (~torch.isfinite(x)).flatten(1).any(1) if x.dim() > 1 else ~torch.isfinite(x)
    which = rows.nonzero()[:, 0].tolist()
    if len(which) == len(rows):
        return f"{_kind(x)} in every row"
    listed = ", ".join(map(str, which[:5])) + (", …" if len(which) > 5 else "")
    return f"{_kind(x)} in row{'s' if len(which) > 1 else ''} {listed}"
