"""What a value is, as a text that is the same in every process and differs where the values inside differ."""

from __future__ import annotations

import functools
import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from pyro.optim import PyroOptim
from torch import Tensor, nn

from pyrovae.objectives import Schedule

__all__ = ["content", "digest", "optimizer_text", "shapes_of", "text_of"]

MOST_BYTES = 1 << 28  # of a tensor that is hashed whole; of a larger one as many bytes of rows, evenly spaced
DEEPEST = 12  # levels of objects in objects
PLAIN = (str, bytes, bool, int, float, complex, type(None))


def text_of(value: object, inside: tuple[int, ...] = ()) -> str:
    """The text of a value with all numbers in it: fields, attributes, and what a function has captured.

    Parameters and modules stand with their shapes alone, because training changes their numbers. A function stands with
    its constants, the names that it uses and the plain values behind them, and not with its bytecode, which differs
    between versions of Python.
    """
    if isinstance(value, PLAIN):
        return repr(value)
    if id(value) in inside or len(inside) > DEEPEST:
        return type(value).__name__
    inside = (*inside, id(value))
    if isinstance(value, (list, tuple)):
        return f"({', '.join(text_of(each, inside) for each in value)})"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {text_of(each, inside)}' for key, each in value.items())}}}"
    if isinstance(value, (set, frozenset)):
        return f"({', '.join(sorted(text_of(each, inside) for each in value))})"
    if isinstance(value, np.ndarray):
        return text_of(torch.from_numpy(value), inside) if value.dtype.kind in "biuf" else repr(value)
    if isinstance(value, Tensor):
        return f"tensor {shape_of(value)}" + ("" if value.requires_grad else f" {digest(*content(value))}")
    if isinstance(value, nn.Module):
        return f"{type(value).__name__} {digest(shapes_of(value))}"
    if isinstance(value, Schedule):
        end = value.end if math.isfinite(value.end) else 1000.0
        some = [float(f"{value(share * end):.6g}") for share in (0.0, 0.1, 0.5, 1.0)]
        return f"{some} in {value.unit} {digest(f'{value.end} {text_of(value.value, inside)}')}"
    if isinstance(value, PyroOptim):
        return optimizer_text(value)
    if isinstance(value, (type, ModuleType)):
        return value.__name__
    if isinstance(value, functools.partial):
        return f"{text_of(value.func, inside)}{text_of((value.args, value.keywords), inside)}"
    if isinstance(value, MethodType):
        return f"{text_of(value.__self__, inside)}.{value.__name__}"
    if isinstance(value, FunctionType):
        return f"{value.__qualname__} {digest(*_function(value, inside))}"
    if is_dataclass(value):
        named = [(each.name, getattr(value, each.name)) for each in fields(value)]
    elif hasattr(value, "__dict__") and not isinstance(value, torch.Generator):
        named = [(name, each) for name, each in vars(value).items() if not (name[0] == "_" and _is_foreign(value))]
    else:
        name = getattr(value, "__qualname__", None)  # of a function that is not written in Python
        return re.sub(r" at 0x[0-9a-f]+", "", repr(value)) if name is None else f"{name}"
    return f"{type(value).__name__}({', '.join(f'{name}={text_of(each, inside)}' for name, each in named)})"


def optimizer_text(optim: PyroOptim | None) -> str:
    """The text of an optimizer of Pyro with its arguments, its schedule or scheduler, and its clipping."""
    if optim is None:
        return "none given"
    if not isinstance(optim, PyroOptim):
        return text_of(optim)
    arguments, schedule = optim.pt_optim_args, getattr(optim, "schedule", None)
    if schedule is not None and isinstance(arguments, dict):  # whose rate moves
        arguments = {name: value for name, value in arguments.items() if name != "lr"}
    scheduler, options = getattr(optim, "pt_scheduler_constructor", None), getattr(optim, "kwargs", None)
    parts = [
        "" if type(optim) is PyroOptim else type(optim).__name__,
        getattr(optim.pt_optim_constructor, "__name__", "optimizer"),
        "" if schedule is None else f"lr {text_of(schedule)}",
        text_of(arguments),
        "" if not optim.pt_clip_args else f"clip {text_of(optim.pt_clip_args)}",
        "" if scheduler is None else f"{text_of(scheduler)} {text_of(options)}",
    ]
    return " ".join(part for part in parts if part)


def shapes_of(module: nn.Module) -> str:
    """Names, shapes and dtypes of the tensors of a module."""
    return repr({name: shape_of(x) for name, x in module.state_dict().items() if isinstance(x, Tensor)})


def shape_of(x: Tensor) -> str:
    """Shape and dtype of a tensor."""
    return f"{tuple(x.shape)} {x.dtype}"


def content(x: Tensor) -> Iterator[bytes]:
    """The bytes of a tensor that a digest is made of."""
    yield f"{x.dtype} {tuple(x.shape)}".encode()
    if x.dim() == 0:
        x = x[None]
    row_bytes = max(x[:1].numel() * x.element_size(), 1)
    step = max(1, -(-len(x) * row_bytes // MOST_BYTES))
    some = x.detach()[::step].cpu().contiguous()
    yield bytes(some.reshape(-1).view(torch.uint8).numpy().data)


def digest(*parts: str | bytes) -> str:
    """A short hash of some parts."""
    made = hashlib.sha256()
    for part in parts:
        made.update(part.encode() if isinstance(part, str) else part)
    return made.hexdigest()[:12]


def _function(function: FunctionType, inside: tuple[int, ...]) -> Iterator[str]:
    """What a function computes with: constants, names, default values, and the values that it reads from outside."""
    yield from _code(function.__code__, function.__doc__)
    yield text_of((function.__defaults__, function.__kwdefaults__), inside)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # of a cell that is still empty
            yield f"{name}={text_of(cell.cell_contents, inside)}"
    used: dict[str, Any] = {name: function.__globals__.get(name) for name in function.__code__.co_names}
    yield repr({name: each for name, each in used.items() if isinstance(each, PLAIN)})


def _code(code: CodeType, doc: str | None = None) -> Iterator[str]:
    yield repr(code.co_names)
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _code(each)
        elif isinstance(each, frozenset):
            yield repr(sorted(map(repr, each)))
        elif each != doc:
            yield repr(each)


def _is_foreign(value: object) -> bool:
    """Whether an object is Pyro's or torch's, whose private attributes hold what was computed so far."""
    return type(value).__module__.partition(".")[0] in ("pyro", "torch")
