"""What functions read from Python itself: values that a graph of tensor operations takes to be constants."""

from __future__ import annotations

import dis
import functools
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

__all__ = ["Readings"]

PLAIN = bool | int | float | complex | str | bytes | None
LONGEST = 64  # list or dictionary that is followed
MOST = 2000  # values
MISSING = object()
OF_MODULES = frozenset(vars(nn.Module()))  # whose tensors and parts a program watches by itself
LIBRARIES = tuple(
    {str(Path(__file__).parents[1]), *map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib"))}
)


class Readings:
    """The globals, closures, defaults and attributes that functions read, as they are now.

    Functions, objects, lists and dictionaries that these lead to are followed in turn, as far as they are written
    outside of the installed libraries; a tensor, and an object of a library, is itself and no more.
    """

    def __init__(self, functions: Iterable[Any]) -> None:
        self._entries: list[tuple[str, dict[str, Any], Any, Any]] = []  # name, where, key and value
        self._cells: list[tuple[str, types.CellType, Any]] = []
        self._lists: list[tuple[str, Any, tuple[Any, ...]]] = []
        self._seen: set[int] = set()
        for function in functions:
            self._follow("it", function)

    def changed(self) -> str | None:
        """The name of one that is no longer what it was; None where all are."""
        for name, where, key, value in self._entries:
            if not _same(where.get(key, MISSING), value):
                return name
        for name, cell, value in self._cells:
            if not _same(_content(cell), value):
                return name
        for name, where, values in self._lists:
            if len(where) != len(values) or not all(map(_same, where, values)):
                return name
        return None

    def _follow(self, name: str, value: Any) -> None:
        if isinstance(value, PLAIN | Tensor) or id(value) in self._seen or len(self._seen) > MOST:
            return
        self._seen.add(id(value))
        if isinstance(value, functools.partial):
            for part in (value.func, value.args, value.keywords):
                self._follow(name, part)
        elif isinstance(value, types.MethodType):
            self._follow(name, value.__self__)
            self._follow(name, value.__func__)
        elif isinstance(value, types.FunctionType):
            if _is_own(value.__module__):
                self._follow_function(value)
        elif isinstance(value, list | tuple):
            if len(value) <= LONGEST:
                self._lists.append((name, value, tuple(value)))
                for each in value:
                    self._follow(name, each)
        elif isinstance(value, dict):
            if len(value) <= LONGEST:
                self._lists.append((name, value, tuple(value)))  # its keys
                self._enter(name, value, list(value))
        elif isinstance(value, property | staticmethod | classmethod):
            self._follow(name, value.fget if isinstance(value, property) else value.__func__)
        elif isinstance(value, type):
            if _is_own(value.__module__):
                self._follow_class(name, value)
        elif _is_own(type(value).__module__):
            namespace = getattr(value, "__dict__", {})
            self._enter(name, namespace, namespace.keys() - OF_MODULES)
            self._follow(name, type(value))
            for child in value.children() if isinstance(value, nn.Module) else ():
                self._follow(name, child)

    def _follow_class(self, name: str, cls: type) -> None:
        """What it has of its own and from its bases; a method is followed, and taken to stay."""
        for key, value in vars(cls).items():
            if isinstance(value, types.FunctionType | property | staticmethod | classmethod):
                self._follow(f"{name}.{key}", value)
            elif not key.startswith("__"):
                self._enter(name, vars(cls), [key])
        for base in cls.__bases__:
            self._follow(name, base)

    def _follow_function(self, function: types.FunctionType) -> None:
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            content = _content(cell)
            self._cells.append((name, cell, content))
            self._follow(name, content)
        self._enter(function.__name__, vars(function), list(vars(function)))
        for default in (function.__defaults__ or (), function.__kwdefaults__ or {}):
            self._follow(f"a default of {function.__name__}", default)
        globals_, attributes = set[str](), set[str]()
        for code in _codes(function.__code__):
            attributes.update(code.co_names)
            globals_.update(i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME"))
        for name in sorted(globals_ & function.__globals__.keys()):
            value = function.__globals__[name]
            if not isinstance(value, types.ModuleType):
                self._enter("", function.__globals__, [name])
            elif _is_own(value.__name__):
                self._enter(name, vars(value), sorted(attributes & vars(value).keys()))

    def _enter(self, name: str, where: Any, keys: Iterable[Any]) -> None:
        """Entries of a namespace or of a dictionary that has the name."""
        for key in keys:
            full = f"{name}.{key}" if name else str(key)
            self._entries.append((full, where, key, where[key]))
            self._follow(full, where[key])


def _same(now: Any, then: Any) -> bool:
    return now is then or (isinstance(now, PLAIN) and type(now) is type(then) and now == then)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # nothing was put there yet
        return MISSING


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code of a function and of those that it defines."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


@functools.cache
def _is_own(module: str | None) -> bool:
    """Whether a module is the user's, and not an installed library."""
    if module is None or module.partition(".")[0] in sys.builtin_module_names:
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is None or not file.startswith(LIBRARIES)
