"""Checks of the parts of a VAE when it is made: modules that fit each other."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.distributions.constraints import Constraint

from pyrovae.guards.supports import as_set, same_support

__all__ = ["check_parts", "check_shared", "check_support", "check_widths"]


def check_parts(**parts: object) -> None:
    """Refuse a part that is no module, or has no ``forward``, and a guide that was made for other parts."""
    for what, part in parts.items():
        if isinstance(part, type):
            raise ValueError(f"{what} must be an instance, got the class {part.__name__}: {part.__name__}(...)")
        if not isinstance(part, nn.Module):
            raise ValueError(f"{what} must be a torch module, got {part!r}; build_vae takes names")
        if type(part).forward is nn.Module.forward:
            raise ValueError(f"{what} {type(part).__name__} must define forward(), as the {what}s of pyrovae do")
    own = (parts.get("prior"), parts.get("likelihood"))
    made_for = getattr(parts.get("guide"), "model_parts", ())
    if any(all(part is not other for other in own) for part in made_for):
        raise ValueError(
            f"guide {type(parts['guide']).__name__} was made for another prior or likelihood: give it those of this VAE"
        )


def check_widths(prior: object, likelihood: object, guide: object, num_labels: int = 0) -> None:
    """Refuse codes of different widths, where the parts know their widths; the first step sees the rest.

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


def check_support(prior: object, guide: object, known: Mapping[str, type] | None = None) -> None:
    """Refuse a guide with another support than the prior's: their KL is infinite, and Pyro's estimate is finite.

    Also refuse a guide that is not a point under an improper prior, since no KL is defined there, and a guide with a
    prior of its own under another one. The error lists the guides that fit, by their names in ``known``, or else by the
    names of all public classes.
    """
    p, q = getattr(prior, "support", None), getattr(guide, "support", None)
    improper, doubled = getattr(prior, "improper", False), _has_two_priors(prior, guide)
    spread = improper and not getattr(guide, "is_point", True)
    if not spread and not doubled and (p is None or q is None or same_support(p, q)):
        return
    if known is None:
        root = type(guide).mro()[type(guide).mro().index(nn.Module) - 1]
        known = {cls.__name__: cls for cls in _descendants(root) if not cls.__name__.startswith("_")}
    fits = sorted(name for name, cls in known.items() if _fits(prior, p, cls))
    names = f"guide {type(guide).__name__}", f"prior {type(prior).__name__}"
    what = f"{names[0]} is not a point, and only a point fits {names[1]}, which is improper"
    if doubled:
        what = (
            f"{names[0]} costs the KL from a prior of its own, and fits an improper prior (Flat) alone, got {names[1]}"
        )
    elif p is not None and q is not None and not spread:
        what = f"{names[0]} has support {as_set(q)} but {names[1]} has support {as_set(p)}"
    raise ValueError(f"{what}; guides that fit: {', '.join(fits) or 'none here, write one with the same support'}")


def _fits(prior: object, support: Constraint | None, guide: type) -> bool:
    """Whether a class of guides suits a prior; the class has "OneHot()" where instances have "OneHot(3)"."""
    own = getattr(guide, "support", None)
    same = own is not None and support is not None and as_set(support).startswith(as_set(own)[:-1])
    is_point = getattr(guide, "is_point", True) or not getattr(prior, "improper", False)
    return (
        same and is_point and not _has_two_priors(prior, guide) and hasattr(guide, "shared") == hasattr(prior, "shared")
    )


def _has_two_priors(prior: object, guide: object) -> bool:
    return getattr(guide, "brings_prior", False) and not getattr(prior, "improper", False)


def check_shared(prior: object, guide: object, num_data: int | None) -> None:
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
            f"all of them share, and the weight of these sites in a batch depends on it"
        )


def _descendants(cls: type) -> set[type]:
    return {cls}.union(*map(_descendants, cls.__subclasses__()))
