"""One part from its name and its hyper-parameters, ``"student-t:df=3:scale=0.5"``."""

from __future__ import annotations

import ast
import functools
import importlib
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.distributions import constraints

from pyrovae import guards, priors
from pyrovae.build.tables import CORRUPTIONS, GUIDES, MATCHING, MATCHING_SLABS
from pyrovae.names import by_name, check_options, own_options

__all__ = ["by_name_or_path", "corruption", "made", "matching_guide", "name_and_options"]


def by_name_or_path(what: str, name: str, table: Mapping[str, Any]) -> Any:
    """The entry of a table, or what stands at a dotted import path."""
    if name in table or "." not in name:
        return by_name(what, name, table)
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a user's module may fail in any way while it is imported
        file = module.partition(".")[0]
        absent = isinstance(error, ModuleNotFoundError) and error.name == file
        hint = f"; run it in the folder of {file}.py" if absent else ""
        raise ValueError(f"{what} {name!r} cannot be imported: {type(error).__name__}: {error}{hint}") from error


def name_and_options(what: str, text: str) -> tuple[str, dict[str, Any]]:
    """``"student-t:df=3"`` as the name and ``{"df": 3}``; a value is a Python literal, or else a word."""
    if not isinstance(text, str):
        raise ValueError(
            f"{what} must be a name or an import path, got {text!r}; an instance goes into "
            f"pv.VAE(prior, likelihood, guide)"
        )
    name, *pairs = text.split(":")
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not (equals and key.isidentifier() and value) or key in options:
            raise ValueError(f"{what} {text!r} must be name:option=value, each option once, got {pair!r}")
        try:
            options[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[key] = value
        except (RecursionError, MemoryError) as error:
            raise ValueError(f"{what} {name!r}: {key} is nested too deeply") from error
    if isinstance(options.get("learned"), str):
        options["learned"] = tuple(options["learned"].split("+"))
    return name, options


def made(what: str, name: str, table: Mapping[str, Any], *args: Any, **options: Any) -> nn.Module:
    """A part made by its class; whatever a user's own class raises names the part."""
    cls = by_name_or_path(what, name, table)
    if name not in table and not (isinstance(cls, type) and issubclass(cls, nn.Module)):  # before anything is called
        raise ValueError(f"{what} {name!r} must be a class of torch modules, got {reprlib.repr(cls)}")
    if options:
        check_options(f"{what} {name!r}", options, own_options(cls, len(args)))
    if isinstance(cls, functools.partial):  # what is given is fixed, unless it is said to be learned
        options.setdefault("learned", tuple(key for key in cls.keywords["learned"] if key not in options))
    try:
        module = cls(*args, **options)
    except Exception as error:
        if name in table and (isinstance(error, ValueError) or not options):
            raise
        raise ValueError(f"{what} {name!r} cannot be made: {type(error).__name__}: {error}") from error
    return module


def corruption(corrupt: str | Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A function of x: itself, a module of ``CORRUPTIONS``, or what stands at an import path, a function or a class."""
    if not isinstance(corrupt, str):
        if isinstance(corrupt, type) or not callable(corrupt):
            raise ValueError(f"corrupt must be a name, an import path or a function of x, got {corrupt!r}")
        return corrupt
    name, options = name_and_options("corrupt", corrupt)
    found = by_name_or_path("corrupt", name, CORRUPTIONS)
    if isinstance(found, type):
        return made("corrupt", name, CORRUPTIONS, **options)
    if not callable(found):
        raise ValueError(f"corrupt {name!r} must be a function of x, or a class of torch modules, got {found!r}")
    check_options(f"corrupt {name!r}", options, own_options(found, 1))
    return functools.partial(found, **options) if options else found


def matching_guide(name: str, prior: nn.Module) -> str:
    if (slab := MATCHING_SLABS.get(getattr(prior, "slab", ""))) is not None:
        return f"{MATCHING.get(name, name)}:slab={slab}"
    if isinstance(prior, priors.Fan):
        return f"{name}:rays={prior.rays}"
    if name in GUIDES:
        return name
    if name in MATCHING:
        return MATCHING[name]
    support = getattr(prior, "support", None)
    if support is not None and guards.same_support(support, constraints.real):
        return "normal"
    raise ValueError(f"guide must be given with prior {name!r}, whose support is {support}")
