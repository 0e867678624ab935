"""A walk over what functions can read from Python.

It starts at the functions and follows everything that their code can reach: closures, defaults, the globals that
their code names, attributes, containers, and the user's classes and modules. The code of installed libraries is taken
not to change; the objects that it made are followed like any other. A tensor is described by its layout, because its
values are inputs of a recorded step. What cannot be followed is *opaque*, and is named.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import functools
import operator
import pathlib
import re
import sys
import sysconfig
import threading
import types
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn

from pyrovae import private

__all__ = ["MISSING", "OF_MODULES", "Namespace", "Walk"]

MOST = 20_000  # values that are followed; the rest is opaque
LARGEST = 4_096  # bytes of a NumPy array whose values are compared at each call
Namespace = Mapping[Any, Any]
PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), type(NotImplemented), range, slice)
CONSTANT = (  # immutable, or nothing that a model reads
    *(torch.dtype, torch.device, torch.layout, torch.memory_format, enum.Enum, np.generic, np.dtype, types.CodeType),
    *(datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, fractions.Fraction, pathlib.PurePosixPath),
    *(re.Pattern, operator.itemgetter, operator.attrgetter, operator.methodcaller, types.UnionType, types.GenericAlias),
    *(type(threading.Lock()), type(threading.RLock()), types.GetSetDescriptorType, types.MemberDescriptorType),
    # what trains a model is taken not to be read by it
    *(pyro.infer.SVI, pyro.optim.PyroOptim, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler),
    type(pyro.get_param_store()),
)
STATEFUL = {"random", "time", "os", "sys", "datetime", "io", "logging", "secrets", "uuid", "subprocess"}
STATEFUL_MODULE = types.ModuleType("random")  # stands for numpy.random, which is followed where code mentions it
EFFECTS = {"print", "open", "input", "exec", "eval", "globals", "locals", "breakpoint"}  # builtins
READS_FILES = {"read_text", "read_bytes", "fromfile", "loadtxt", "genfromtxt", "environ", "getenv"}
DYNAMIC = {
    "getattr",
    "hasattr",
    "vars",
    "__dict__",
    "attrgetter",
    "methodcaller",
    "asdict",
    "astuple",
    "deepcopy",
    "copy",
}
MADE = frozenset({"__init__", "__new__", "__post_init__"})  # called for an object that is there already by nobody
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
PARTS = ("_parameters", "_buffers", "_modules")
OF_MODULES = frozenset(vars(nn.Module())) - {"training", *PARTS}  # what torch keeps of a module and replaces never
CODE = types.FunctionType | property | staticmethod | classmethod | functools.cached_property
LIBRARIES = tuple({*map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib"))})
OWN = __name__.partition(".")[0]
MISSING = object()
KINDS = (Tensor, nn.Parameter, nn.Buffer, private.FakeTensor)


class Walk:
    """The values that functions can read from Python, met in a fixed order.

    Args:
        roots: Functions and objects, by the names that messages give them.
        entries: Name, dictionary and key of further values, such as parameters in Pyro's store.
        ignore: Attributes and variables that are not followed, by their names.

    Attributes: ``parts``, a name and a description of each value; ``tensors`` and ``tensor_names``; ``seen``, the
        number of a value by its id; ``dicts``, ``entries``, ``lists``, ``orders``, ``attributes``, ``objects``,
        ``arrays`` and ``hooks``, in which a value may be replaced; ``opaque``, ``hooked`` and ``moving``, as of a
        :class:`~pyrovae.compilation.Watch`.
    """

    def __init__(
        self, roots: Mapping[str, object], entries: Iterable[tuple[str, Namespace, object]], ignore: frozenset[str]
    ) -> None:
        self.ignore = ignore
        self.opaque: dict[str, str] = {}
        self.hooked: list[str] = []
        self.moving: list[str] = []
        self.tensors: list[Tensor] = []
        self.tensor_names: list[str] = []
        self.parts: list[tuple[str, object]] = []
        self.seen: dict[int, int] = {}
        self.kept: list[object] = []  # keeps every id of a walk that of one object
        self.dicts: list[tuple[Namespace, tuple[object, ...]]] = []  # and keys that may change
        self.entries: dict[tuple[int, object], Namespace] = {}  # single ones, by id and key
        self.lists: list[Any] = []  # and deques and sets
        self.orders: list[dict[object, object]] = []
        self.hooks: list[dict[int, object]] = []
        self.attributes: list[tuple[object, str]] = []
        self.objects: list[object] = []
        self.arrays: list[np.ndarray] = []
        self._names: set[str] = set()  # that the code met so far mentions
        self._classes: set[type] = set()
        self._in_library = False  # whether the walk is inside of an object of a library
        self._named: list[tuple[str, str, Namespace]] = []  # followed once the code mentions them
        self._owners = {id(getattr(root, "__self__", None)) for root in roots.values()}
        try:
            for name, root in roots.items():
                self._visit(name, root)
            for name, container, key in entries:
                self._entry(name, container, key)
            while self._follow_named():
                pass
        except RecursionError:
            self.opaque["it"] = "values nested more deeply than Python's recursion limit"

    def _follow_named(self) -> bool:
        """Follow what the code met so far mentions; whether there was any such thing."""
        left, self._named, any_name = self._named, [], not self._names.isdisjoint(DYNAMIC)
        count = len(left)
        for key, name, container in left:
            if any_name or key in self._names:
                count -= 1
                self._entry(name, container, key)
            else:
                self._named.append((key, name, container))
        return count < len(left)

    def _visit(self, name: str, value: object) -> None:
        """Describe a value and everything that it leads to."""
        if isinstance(value, PLAIN):
            self.parts.append((name, (type(value), value if not isinstance(value, slice) else repr(value))))
        elif isinstance(value, types.ModuleType):
            self._visit_module(name, value)
        elif id(value) in self.seen:
            self.parts.append((name, ("tensor" if isinstance(value, Tensor) else "met", self.seen[id(value)])))
        elif len(self.kept) >= MOST:
            self.opaque.setdefault(name, f"one of more than {MOST:,} values")
        elif isinstance(value, Tensor):
            self._visit_tensor(name, value)
        else:
            self.seen[id(value)] = len(self.kept)
            self.kept.append(value)
            self._visit_object(name, value)

    def _visit_tensor(self, name: str, value: Tensor) -> None:
        value = private.without_provenance(value)
        if isinstance(value, private.FakeTensor) and not self._in_library:
            self.parts.append((name, "a tensor of a recording"))  # the user's code keeps a result, at every call
            return
        usual = type(value) in KINDS and value.layout == torch.strided
        if not usual or not value.is_leaf:
            kind = "sparse tensor" if value.layout != torch.strided else type(value).__name__
            kind = kind if value.is_leaf else "tensor with a gradient history"
            self.opaque[name] = f"a {kind}"
            return
        self.seen[id(value)] = len(self.tensors)
        self.parts.append((name, ("tensor", len(self.tensors))))
        self.tensor_names.append(name)
        self.tensors.append(value)

    def _visit_object(self, name: str, value: object) -> None:
        if isinstance(value, types.FunctionType):
            self._visit_function(name, value)
        elif isinstance(value, types.MethodType):
            owner = type(value.__self__).__name__
            self._visit(owner if not isinstance(value.__self__, type) else name, value.__self__)
            self._visit(f"{owner}.{value.__func__.__name__}", value.__func__)
        elif isinstance(value, types.BuiltinFunctionType):
            self.parts.append((name, value.__name__))
            self._visit(name, getattr(value, "__self__", None))
        elif isinstance(value, functools.partial):
            for part in (value.func, value.args, value.keywords):
                self._visit(name, part)
        elif isinstance(value, property):
            self._visit(name, value.fget)
        elif isinstance(value, staticmethod | classmethod):
            self._visit(name, value.__func__)
        elif isinstance(value, functools.cached_property):
            self._visit(name, value.func)
        elif isinstance(value, weakref.ref):
            self._visit(name, value())
        elif isinstance(value, type):
            self.parts.append((name, value))
            if not _is_library(value.__module__):
                self._visit_class(name, value)
        elif isinstance(value, CONSTANT):
            self.parts.append((name, (type(value), value)))
        elif isinstance(value, Iterator | types.CoroutineType | torch.Generator):
            self.moving.append(name)
        elif isinstance(value, np.ndarray):
            self._visit_array(name, value)
        elif isinstance(value, dict | list | tuple | set | frozenset | collections.deque):
            self._visit_container(name, value)
        elif hasattr(value, "__wrapped__") and not hasattr(value, "__dict__"):
            self._visit(name, value.__wrapped__)
        else:
            self._visit_instance(name, value)

    def _visit_container(self, name: str, value: object) -> None:
        self.parts.append((name, (type(value), len(value))))  # type: ignore[arg-type]  # it has a length
        if isinstance(value, dict):
            self.dicts.append((value, tuple(value)))
            self.orders.append(value)
            for key, each in list(value.items()):
                self._visit(f"a key of {name}", key)
                self._visit(f"{name}[{key!r}]" if isinstance(key, PLAIN) else f"a value of {name}", each)
            if isinstance(value, collections.defaultdict):
                self._visit(f"{name}.default_factory", value.default_factory)
        elif isinstance(value, set | frozenset) and all(isinstance(each, PLAIN) for each in value):
            self.parts.append((name, frozenset((type(each), each) for each in value)))
            if isinstance(value, set):
                self.lists.append(value)
        else:
            if not isinstance(value, tuple | frozenset):
                self.lists.append(value)
            for i, each in enumerate(list(value)):  # type: ignore[call-overload]  # it can be iterated
                self._visit(f"{name}[{i}]", each)
        if hasattr(value, "__dict__"):
            self._visit_instance(name, value)

    def _visit_instance(self, name: str, value: object) -> None:
        cls = type(value)
        slots = [slot for base in cls.__mro__ for slot in _slots(base) if hasattr(value, slot)]
        if not hasattr(value, "__dict__") and not slots and cls is not object:
            self.opaque[name] = f"a {cls.__name__}"
            return
        self.parts.append((name, cls))
        self.objects.append(value)
        if not _is_library(cls.__module__) and cls not in self._classes:
            self._visit_class(cls.__name__, cls, MADE)
        was_in_library, self._in_library = self._in_library, _is_library(cls.__module__)
        for slot in slots:
            self._attribute(f"{name}.{slot}", value, slot)
        # the owner of model and guide may train them, too: of a plain object only what the code mentions is followed
        by_name = id(value) in self._owners and _is_plain(cls)
        skipped = self.ignore | _caches(value)
        self._visit_namespace(name, getattr(value, "__dict__", {}), skipped, by_name)
        if isinstance(value, nn.Module):
            hooks = [getattr(value, hook) for hook in HOOKS]
            self.hooks += hooks
            if any(hooks):
                self.hooked.append(name)
        self._in_library = was_in_library

    def _visit_namespace(self, name: str, namespace: Namespace, skipped: frozenset[str], by_name: bool) -> None:
        """The attributes of an object, except those that torch keeps for itself and the ignored ones."""
        keys = tuple(key for key in namespace if key not in skipped)
        if by_name:
            self._named += [(key, f"{name}.{key}", namespace) for key in keys]
            return
        if self.ignore.isdisjoint(namespace):
            self.dicts.append((namespace, keys))
        for key in keys:
            if self.ignore.isdisjoint(namespace):
                self._visit(name if key in PARTS else f"{name}.{key}", namespace[key])
            else:
                self._entry(f"{name}.{key}", namespace, key)

    def _visit_class(self, name: str, cls: type, skipped: frozenset[str] = frozenset()) -> None:
        """What a class of the user has of its own and from its bases."""
        self._classes.add(cls)
        followed = {
            key: value
            for key, value in vars(cls).items()
            if key not in self.ignore | skipped
            and (isinstance(value, CODE) or not (key.startswith(("__", "_abc_")) or hasattr(type(value), "__get__")))
        }
        for key in sorted(followed):
            if _is_plain(cls) and not key.startswith("__"):
                self._named.append((key, f"{name}.{key}", vars(cls)))
            else:
                self._entry(f"{name}.{key}", vars(cls), key)
        for base in cls.__bases__:
            if not _is_library(base.__module__):
                self._visit_class(base.__name__, base, skipped)

    def _visit_function(self, name: str, function: types.FunctionType) -> None:
        is_library = _is_library(function.__module__)
        self.parts.append((name, function if is_library else function.__code__))
        for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if variable not in self.ignore:
                self._attribute(variable, cell, "cell_contents")
        for key in list(vars(function)):
            self._entry(f"{name}.{key}", vars(function), key)
        if is_library:
            return
        for attribute in ("__defaults__", "__kwdefaults__", "__code__"):
            self._attribute(f"a default of {name}", function, attribute)
        names, known = _names_of(function.__code__), function.__globals__
        self._names |= names
        if "get_param_store" in names:
            self._visit("Pyro's parameter store", private.stored_params())
        for variable in sorted(names - self.ignore):
            if variable in known:
                self._entry(variable, known, variable)
            elif variable in READS_FILES:
                self.opaque[f"{variable} in {name}"] = "which reads a file"
            elif variable in EFFECTS:
                self.opaque[f"{variable}() in {name}"] = "which a compiled step would leave out"
            elif not _is_library(variable) and isinstance(sys.modules.get(variable), types.ModuleType):
                self._visit(variable, sys.modules[variable])

    def _visit_module(self, name: str, module: types.ModuleType) -> None:
        top = module.__name__.partition(".")[0]
        if top in STATEFUL:
            self.opaque[module.__name__] = "a module whose results vary"
        if top == "numpy":
            self._named.append(("random", "numpy.random", {"random": STATEFUL_MODULE}))
        if id(module) in self.seen:
            return
        self.seen[id(module)] = len(self.kept)
        self.kept.append(module)
        self.parts.append((name, module.__name__))
        keys = _numbers_of(module.__name__) if _is_library(module.__name__) else tuple(vars(module))
        self._named += [(key, f"{name}.{key}", vars(module)) for key in keys if key in vars(module)]

    def _visit_array(self, name: str, array: np.ndarray) -> None:
        if array.dtype.hasobject or array.nbytes > LARGEST:
            self.opaque[name] = f"a NumPy array of {array.nbytes:,} bytes, whose values are not compared at each step"
            return
        self.arrays.append(array)
        self.parts.append((name, (array.dtype.str, array.shape, array.tobytes())))

    def _entry(self, name: str, container: Namespace, key: Any) -> None:
        """Follow the entry of a dictionary."""
        if (id(container), key) not in self.entries:
            self.entries[id(container), key] = container
            self.kept.append(container)
            self._visit(name, container[key])

    def _attribute(self, name: str, owner: object, attribute: str) -> None:
        """Follow an attribute, if it is there."""
        try:
            value = getattr(owner, attribute)
        except (AttributeError, ValueError):  # a cell that is empty
            self.parts.append((name, MISSING))
            return
        self.attributes.append((owner, attribute))
        self._visit(name, value)


@functools.cache
def _names_of(code: types.CodeType) -> frozenset[str]:
    """The globals and attributes that a function mentions, with those of the functions that it defines."""
    inner = [_names_of(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return frozenset(code.co_names).union(*inner)


@functools.cache
def _numbers_of(module: str) -> tuple[str, ...]:
    """The names of a library's module that stand for numbers and other plain values, such as ``math.pi``."""
    values = vars(sys.modules[module]).items() if module in sys.modules else ()
    return tuple(key for key, value in values if isinstance(value, PLAIN) and not key.startswith("__"))


def _slots(cls: type) -> tuple[str, ...]:
    slots = vars(cls).get("__slots__", ()) if not _is_library(cls.__module__) else ()
    return (slots,) if isinstance(slots, str) else tuple(slot for slot in slots if slot != "__dict__")


def _caches(value: object) -> frozenset[str]:
    """Attributes that torch keeps for itself."""
    own = OF_MODULES if isinstance(value, nn.Module) else frozenset()
    if isinstance(value, torch.distributions.Transform):  # its last call
        own |= {key for key in vars(value) if key.startswith("_cached") or key == "_inv"}
    return own


def _is_plain(cls: type) -> bool:
    """Whether a class and its bases are the user's, so that no library calls its methods or reads its attributes."""
    return all(base is object or not _is_library(base.__module__) for base in cls.__mro__)


@functools.cache
def _is_library(module: str | None) -> bool:
    """Whether a module is installed, and not the user's own."""
    if module is None:
        return True
    top = module.partition(".")[0]
    if top == OWN or top in sys.builtin_module_names or top in sys.stdlib_module_names:
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and file.startswith(LIBRARIES)
