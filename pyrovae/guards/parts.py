"""What a VAE is made of: modules that fit each other, caught when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from pyrovae.guards.supports import as_set, same_support

__all__ = ["check_parts", "check_shared", "check_support", "check_widths"]


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
        what = f"{names[0]} has support {as_set(q)} but {names[1]} has support {as_set(p)}"
    raise ValueError(f"{what}; guides that fit: {', '.join(fits) or 'none here, write one with the same support'}")


def _fits(prior: Any, support: Any, guide: Any) -> bool:
    """Whether a class of guides has the sites of a prior; it says "OneHot()" where one of them says "OneHot(3)"."""
    same = guide.support is not None and as_set(support).startswith(as_set(guide.support)[:-1])
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
