"""A function of tensors, Pyro inside, recorded as one graph of tensor operations."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from pyrovae import guards, private
from pyrovae.compilation.functions import FASTER, MADE_OF_THEM
from pyrovae.compilation.watch import layout

__all__ = ["Graph", "Unrecordable", "backward_roots", "record"]

Function = Callable[..., Sequence[Tensor]]

# in what torch says where Python asks for the value of a fake tensor
ASKS = ("tracing tensor", "FakeTensor", "data is not allocated")
READS = {Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.data_ptr}
# around what Python makes a tensor of, by torch.tensor and the like
MAKES = {torch.ops.aten.lift_fresh_copy.default, torch.ops.aten.lift_fresh.default}
TORCH = str(Path(torch.__file__).parent)
LIBRARIES = (TORCH, str(Path(pyro.__file__).parent), str(Path(__file__).parents[1]))


class Unrecordable(RuntimeError):
    """Why a function cannot be one graph."""


class ValueReadError(RuntimeError):
    """Python reads the values of a tensor by a method that returns no tensor."""


class Graph(NamedTuple):
    """What a function does to tensors: ``module(*inputs, *outside)`` does it again.

    ``outside`` are the tensors that the function uses and is not given: parameters, buffers, and whatever it closes
    over. ``written`` are the positions of those, among inputs and outside together, that it changes in place.
    """

    module: GraphModule
    outside: tuple[Tensor, ...]
    written: tuple[int, ...]

    def same_as(self, other: Graph) -> bool:
        """Whether compiled code of one is compiled code of the other; inputs may have other strides."""
        return (
            _code(self.module) == _code(other.module)
            and self._inputs() == other._inputs()
            and list(map(layout, self.outside)) == list(map(layout, other.outside))
            and all(_equal(a, b) for a, b in zip(self._constants(), other._constants(), strict=True))
        )

    def _inputs(self) -> list[tuple[object, ...]]:
        values = [node.meta["val"] for node in self.module.graph.nodes if node.op == "placeholder"]
        return [(x.shape, x.dtype, x.device) for x in values]

    def _constants(self) -> list[Tensor]:
        parts = [part for part in self.module.modules() if isinstance(part, GraphModule)]
        read = [getattr(part, str(n.target)) for part in parts for n in part.graph.nodes if n.op == "get_attr"]
        return [value for value in read if isinstance(value, Tensor)]


def record(function: Function, inputs: Sequence[Tensor]) -> Graph:
    """The graph of ``function(*inputs)``, which runs once with fake tensors: nothing is drawn or moved.

    A number that it takes out of a tensor by ``.item()`` stays a tensor.

    Raises: Unrecordable if Python, or the shape of a result, depends on the value of a tensor.
    """
    table = FASTER if all(x.device.type == "cpu" for x in inputs) else {}
    no_values = _NoValues()
    with guards.unchecked(), private.recording(), _random_states(), no_values.put_back(), no_values:
        try:
            module = private.recorded(function, inputs, table, MADE_OF_THEM if table else [])
        except Unrecordable:
            raise
        except private.DynamicOutputShapeException as error:
            raise Unrecordable(f"the shape of a result depends on the value of a tensor{_place(error)}") from error
        except (*private.VALUE_ERRORS, ValueReadError) as error:
            raise Unrecordable(f"Python reads the value of a tensor{_place(error)}") from error
        except Exception as error:  # the same function has run as it is: whatever this is, it is about recording it
            if any(words in str(error) for words in ASKS):
                raise Unrecordable(f"Python reads the value of a tensor{_place(error)}") from error
            lines = str(error).strip().splitlines() or [""]
            raise Unrecordable(f"{type(error).__name__}: {lines[0]}{_place(error)}") from error
    return Graph(module, _lift(module), _written(module))


@contextmanager
def backward_roots() -> Iterator[list[Tensor]]:
    """``tensor.backward()`` inside is put off: the list has the tensors that it was called on."""
    mode = _Backwards()
    with mode:
        yield mode.roots


class _NoValues(TorchFunctionMode):
    """Keeps the values of tensors from Python."""

    def __init__(self) -> None:
        super().__init__()
        self._moved: dict[int, tuple[Tensor, Tensor]] = {}

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """Undo operations in place on real tensors by numbers alone, which torch computes even in a recording."""
        try:
            yield
        finally:
            with torch.no_grad():
                for x, value in self._moved.values():
                    x.copy_(value)

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        name = getattr(func, "__name__", "")
        first: Any = args[0] if args else None
        in_place = name.endswith("_") != name.endswith("__") or name.startswith("__i") or name == "__setitem__"
        if in_place and type(first) in (Tensor, nn.Parameter) and id(first) not in self._moved:
            self._moved[id(first)] = first, private.real_copy(first)
        if func is Tensor.item:
            if not args[0].is_floating_point():  # Python counts with it, names sites by it or branches on it
                if hasattr(args[0], "_index"):
                    return args[0]._index
                raise ValueReadError
            return args[0].detach()
        if func is torch.arange and all(isinstance(arg, int) for arg in args) and len(args) == 1:
            result = func(*args, **(kwargs or {}))
            result._is_range = True  # type: ignore[attr-defined]  # a sequential plate iterates over it
            return result
        if func is Tensor.unbind and hasattr(args[0], "_is_range"):
            elements = func(*args, **(kwargs or {}))
            for i, element in enumerate(elements):
                element._index = i  # type: ignore[attr-defined]  # as above
            return elements
        if func is private.are_all_true:  # the validation of a distribution that was made before
            return True
        if func is functional.one_hot and len(args) == 2:  # which reads them only to see that they are in range
            return (args[0][..., None] == torch.arange(args[1], device=args[0].device)).long()
        if func in READS:
            raise ValueReadError
        return private.without_values(func, args, kwargs or {})


class _Backwards(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.roots: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        if func is Tensor.backward:
            self.roots.append(args[0])
            return None
        return func(*args, **(kwargs or {}))


@contextmanager
def _random_states() -> Iterator[None]:
    """Python's and NumPy's random states are put back; torch's is not moved by fake tensors."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  # whatever a model draws from
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002  # as above


def _lift(module: GraphModule) -> tuple[Tensor, ...]:
    """Make the tensors from outside inputs of the graph, after its own; what Python made stays a constant."""
    graph = module.graph
    outside: dict[int, tuple[Tensor, Node]] = {}
    last = [node for node in graph.nodes if node.op == "placeholder"][-1:]
    for node in [node for node in graph.nodes if node.op == "get_attr"]:
        if all(user.target in MAKES for user in node.users):
            continue
        tensor = getattr(module, str(node.target))
        if not isinstance(tensor, Tensor):
            continue  # a graph inside
        if id(tensor) not in outside:
            after = last[0] if last else graph._root
            with graph.inserting_after(after):
                outside[id(tensor)] = tensor, graph.placeholder(f"outside_{len(outside)}")
                outside[id(tensor)][1].meta["val"] = tensor  # its layout is read where products are chosen
            last = [outside[id(tensor)][1]]
        node.replace_all_uses_with(outside[id(tensor)][1])
        graph.erase_node(node)
    for name in {*vars(module), *module._parameters, *module._buffers} - {str(n.target) for n in graph.nodes}:
        if isinstance(getattr(module, name, None), Tensor):
            delattr(module, name)  # the compiler takes each for an input
    module.recompile()
    return tuple(tensor for tensor, _ in outside.values())


def _written(module: GraphModule) -> tuple[int, ...]:
    """The positions of the inputs of a graph that it changes in place, also through views."""
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    owner: dict[Node, int] = {node: i for i, node in enumerate(inputs)}
    written = set()
    for node in module.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        for argument, value in zip(schema.arguments if schema else (), node.args, strict=False):
            if argument.alias_info is not None and isinstance(value, Node) and value in owner:
                if argument.alias_info.is_write:
                    written.add(owner[value])
                owner[node] = owner[value]  # a view of it, or itself
        hidden = [node.args[i] for i in private.HIDDEN_WRITES.get(node.target, ()) if i < len(node.args)]
        written |= {owner[value] for value in hidden if value in owner}
    return tuple(sorted(written))


def _place(error: BaseException) -> str:
    """The line of the user's code that an error came from, or the last one outside of torch where there is none."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    for folders in (LIBRARIES, TORCH):
        own = [frame for frame in frames if not frame.filename.startswith(folders)]
        if own:
            return f", in {Path(own[-1].filename).name} line {own[-1].lineno}: {own[-1].line}"
    return ""


def _code(module: GraphModule) -> list[str]:
    return [part.code for part in module.modules() if isinstance(part, GraphModule)]


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and bool(((a == b) | ((a != a) & (b != b))).all())
