"""What functions can read from Python, as one key: equal keys lead to the same recorded step.

The walk starts at the functions and follows everything that their code can reach: closures, defaults, the globals that
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
from itertools import chain, zip_longest
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn

from pyrovae import private

__all__ = ["Watch", "layout"]

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

_requires_grad = operator.attrgetter("requires_grad")


def layout(x: Tensor) -> tuple[object, ...]:
    """What a recorded step depends on of a tensor, apart from its values."""
    kind = Tensor if isinstance(x, private.FakeTensor) else type(x)
    return x.shape, x.dtype, x.device, x.stride(), x.requires_grad, kind


class Watch:
    """The key of what ``roots`` can read, with a fast test of whether it is still the same.

    Args:
        roots: Functions and objects, by the names that messages give them.
        entries: Name, dictionary and key of further values, such as parameters in Pyro's store.
        ignore: Attributes and variables that are not followed, by their names.

    Attributes: ``key``, equal for states that lead to the same recorded step; ``tensors``, those that were met, in the
        order of the walk; ``swaps``, how often some of them were replaced; ``opaque``, the reason by the name of what
        cannot be followed; ``hooked``, modules with hooks; ``moving``, iterators, which a recording would move on.
    """

    def __init__(
        self,
        roots: Mapping[str, object],
        entries: Iterable[tuple[str, Namespace, object]] = (),
        ignore: frozenset[str] = frozenset(),
    ) -> None:
        self.ignore, self._roots, self._given = ignore, roots, list(entries)
        self.opaque: dict[str, str] = {}
        self.hooked: list[str] = []
        self.moving: list[str] = []
        self.tensors: list[Tensor] = []
        self.swaps = 0
        self._tensor_names: list[str] = []
        self._parts: list[tuple[str, object]] = []
        self._seen: dict[int, int] = {}
        self._kept: list[object] = []  # keeps every id of a walk that of one object
        self._dicts: list[tuple[Namespace, tuple[object, ...]]] = []  # and keys that may change
        self._entries: dict[tuple[int, object], Namespace] = {}  # single ones, by id and key
        self._lists: list[Any] = []  # and deques and sets
        self._orders: list[dict[object, object]] = []
        self._hooks: list[dict[int, object]] = []
        self._attributes: list[tuple[object, str]] = []
        self._objects: list[object] = []
        self._arrays: list[np.ndarray] = []
        self._names: set[str] = set()  # that the code met so far mentions
        self._classes: set[type] = set()
        self._in_library = False  # whether the walk is inside of an object of a library
        self._named: list[tuple[str, str, Namespace]] = []  # followed once the code mentions them
        self._owners = {id(getattr(root, "__self__", None)) for root in roots.values()}
        try:
            for name, root in roots.items():
                self._visit(name, root)
            for name, container, key in self._given:
                self._entry(name, container, key)
            while self._follow_named():
                pass
        except RecursionError:
            self.opaque["it"] = "values nested more deeply than Python's recursion limit"
        self.key = (tuple(self._parts), tuple(map(layout, self.tensors)))
        singles = [(container, (key,)) for (_, key), container in self._entries.items()]
        self._getters = [
            (operator.itemgetter(*(keys * 2 if len(keys) == 1 else keys)), container)  # of one key it gives no tuple
            for container, keys in (*self._dicts, *singles)
            if keys
        ]
        self._sized = [*(container for container, _ in self._dicts), *self._lists]
        self._lengths = list(map(len, self._sized))
        self._values = list(self._now())
        self._types = list(map(type, self._objects))
        self._contents = [array.tobytes() for array in self._arrays]
        self._is_fake = any(isinstance(x, private.FakeTensor) for x in self.tensors)  # a walk after a recording
        self._memory = self._memory_now()

    def same(self) -> bool:
        """Whether every value is the object that it was, and every tensor has the layout that it had.

        A tensor in place of another of its layout, such as the next minibatch, is followed, and counted in ``swaps``.
        """
        try:
            return (
                list(map(len, self._sized)) == self._lengths
                and (all(map(operator.is_, self._now(), self._values)) or self._swap(list(self._now())))
                and any(self._hooks) == bool(self.hooked)
                and list(map(type, self._objects)) == self._types
                and self._memory_now() == self._memory
                and [array.tobytes() for array in self._arrays] == self._contents
            )
        except (KeyError, ValueError, AttributeError, RuntimeError):  # it is gone, or changes size in another thread
            return False

    def _swap(self, now: list[object]) -> bool:
        """Put new tensors in place of old ones, if nothing else is new and which names stand for one is as before."""
        swapped: dict[int, Tensor] = {}
        for new, old in zip(now, self._values, strict=True):
            if new is not old and not (
                type(new) is type(old) is Tensor
                and id(old) in self._seen
                and id(new) not in self._seen
                and new.is_leaf
                and layout(new) == layout(old)
                and swapped.setdefault(id(old), new) is new
            ):
                return False
        if not swapped.keys().isdisjoint(map(id, now)) or len({*map(id, swapped.values())}) < len(swapped):
            return False
        for was, new in swapped.items():
            i, num = self._seen.pop(was), len(self.tensors)
            self._seen[id(new)], self.tensors[i] = i, new
            self._memory[i::num] = [new.data_ptr(), new.size(), new.stride(), new.requires_grad]
        self._values = now
        self.swaps += 1
        return True

    @property
    def recurs(self) -> bool:
        """Whether a recurrent layer is among what was met, whose loop is thousands of operations to compile."""
        return any(isinstance(value, nn.RNNBase) for value in self._objects)

    def difference(self, other: Watch) -> str:
        """The name of the first thing that differs in another watch of the same roots."""
        for mine, theirs in zip_longest(self._parts, other._parts):
            if mine is None or theirs is None or mine != theirs:
                return (theirs or mine)[0]
        layouts = zip(self._tensor_names, self.key[1], other.key[1], strict=True)
        return next((name for name, mine, theirs in layouts if mine != theirs), "hooks")

    def put_back(self) -> str | None:
        """Undo what has replaced, added or removed values since; the name of one of them, if there were any."""
        if self.same():
            return None
        now = Watch(self._roots, self._given, self.ignore)
        if now.key == self.key:
            return None
        left = iter(self._values)
        dicts = [*self._dicts, *((container, (key,)) for (_, key), container in self._entries.items())]
        for i, (container, keys) in enumerate(dicts):
            values = [next(left) for _ in (keys * 2 if len(keys) == 1 else keys)][: len(keys)]
            if not isinstance(container, dict):
                continue  # the namespace of a class cannot be written to
            if i < len(self._dicts) and len(container) != self._lengths[i]:
                for key in container.keys() - set(keys) - OF_MODULES:
                    del container[key]
            for key, value in zip(keys, values, strict=True):
                if container.get(key, MISSING) is not value:
                    container[key] = value
        for items, length in zip(self._lists, self._lengths[len(self._dicts) :], strict=True):
            before = [next(left) for _ in range(length)]
            if list(map(id, items)) != list(map(id, before)):
                items.clear()
                (items.update if isinstance(items, set) else items.extend)(before)
        for owner, attribute in self._attributes:
            if getattr(owner, attribute) is not (value := next(left)):
                setattr(owner, attribute, value)
        return self.difference(now)

    def _now(self) -> Iterator[object]:
        """Every value that may be replaced, in a fixed order."""
        return chain(
            chain.from_iterable([get(container) for get, container in self._getters]),
            chain.from_iterable(self._lists),
            [getattr(owner, attribute) for owner, attribute in self._attributes],
            chain.from_iterable(self._orders),
        )

    def _memory_now(self) -> list[object]:
        """Where the tensors are in memory, and how."""
        x = self.tensors
        if self._is_fake:
            return []
        return [*map(Tensor.data_ptr, x), *map(Tensor.size, x), *map(Tensor.stride, x), *map(_requires_grad, x)]

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
            self._parts.append((name, (type(value), value if not isinstance(value, slice) else repr(value))))
        elif isinstance(value, types.ModuleType):
            self._visit_module(name, value)
        elif id(value) in self._seen:
            self._parts.append((name, ("tensor" if isinstance(value, Tensor) else "met", self._seen[id(value)])))
        elif len(self._kept) >= MOST:
            self.opaque.setdefault(name, f"one of more than {MOST:,} values")
        elif isinstance(value, Tensor):
            self._visit_tensor(name, value)
        else:
            self._seen[id(value)] = len(self._kept)
            self._kept.append(value)
            self._visit_object(name, value)

    def _visit_tensor(self, name: str, value: Tensor) -> None:
        value = private.without_provenance(value)
        if isinstance(value, private.FakeTensor) and not self._in_library:
            self._parts.append((name, "a tensor of a recording"))  # the user's code keeps a result, at every call
            return
        usual = type(value) in KINDS and value.layout == torch.strided
        if not usual or not value.is_leaf:
            kind = "sparse tensor" if value.layout != torch.strided else type(value).__name__
            kind = kind if value.is_leaf else "tensor with a gradient history"
            self.opaque[name] = f"a {kind}"
            return
        self._seen[id(value)] = len(self.tensors)
        self._parts.append((name, ("tensor", len(self.tensors))))
        self._tensor_names.append(name)
        self.tensors.append(value)

    def _visit_object(self, name: str, value: object) -> None:
        if isinstance(value, types.FunctionType):
            self._visit_function(name, value)
        elif isinstance(value, types.MethodType):
            owner = type(value.__self__).__name__
            self._visit(owner if not isinstance(value.__self__, type) else name, value.__self__)
            self._visit(f"{owner}.{value.__func__.__name__}", value.__func__)
        elif isinstance(value, types.BuiltinFunctionType):
            self._parts.append((name, value.__name__))
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
            self._parts.append((name, value))
            if not _is_library(value.__module__):
                self._visit_class(name, value)
        elif isinstance(value, CONSTANT):
            self._parts.append((name, (type(value), value)))
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
        self._parts.append((name, (type(value), len(value))))  # type: ignore[arg-type]  # it has a length
        if isinstance(value, dict):
            self._dicts.append((value, tuple(value)))
            self._orders.append(value)
            for key, each in list(value.items()):
                self._visit(f"a key of {name}", key)
                self._visit(f"{name}[{key!r}]" if isinstance(key, PLAIN) else f"a value of {name}", each)
            if isinstance(value, collections.defaultdict):
                self._visit(f"{name}.default_factory", value.default_factory)
        elif isinstance(value, set | frozenset) and all(isinstance(each, PLAIN) for each in value):
            self._parts.append((name, frozenset((type(each), each) for each in value)))
            if isinstance(value, set):
                self._lists.append(value)
        else:
            if not isinstance(value, tuple | frozenset):
                self._lists.append(value)
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
        self._parts.append((name, cls))
        self._objects.append(value)
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
            self._hooks += hooks
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
            self._dicts.append((namespace, keys))
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
        self._parts.append((name, function if is_library else function.__code__))
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
        if id(module) in self._seen:
            return
        self._seen[id(module)] = len(self._kept)
        self._kept.append(module)
        self._parts.append((name, module.__name__))
        keys = _numbers_of(module.__name__) if _is_library(module.__name__) else tuple(vars(module))
        self._named += [(key, f"{name}.{key}", vars(module)) for key in keys if key in vars(module)]

    def _visit_array(self, name: str, array: np.ndarray) -> None:
        if array.dtype.hasobject or array.nbytes > LARGEST:
            self.opaque[name] = f"a NumPy array of {array.nbytes:,} bytes, whose values are not compared at each step"
            return
        self._arrays.append(array)
        self._parts.append((name, (array.dtype.str, array.shape, array.tobytes())))

    def _entry(self, name: str, container: Namespace, key: Any) -> None:
        """Follow the entry of a dictionary."""
        if (id(container), key) not in self._entries:
            self._entries[id(container), key] = container
            self._kept.append(container)
            self._visit(name, container[key])

    def _attribute(self, name: str, owner: object, attribute: str) -> None:
        """Follow an attribute, if it is there."""
        try:
            value = getattr(owner, attribute)
        except (AttributeError, ValueError):  # a cell that is empty
            self._parts.append((name, MISSING))
            return
        self._attributes.append((owner, attribute))
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
