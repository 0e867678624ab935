"""A function of tensors, Pyro inside, as one graph of tensor operations with no Python left in it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pyro
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from pyrovae import guards

__all__ = ["Graph", "Uncapturable", "backwards", "capture", "modules_called"]


class Uncapturable(RuntimeError):
    """Why a function cannot be one graph."""


class Graph(NamedTuple):
    """What a function did to tensors, once.

    ``module(*inputs, *outside)`` does it again; ``outside`` are the tensors that the function used and was not given:
    parameters, buffers and what it closes over. ``modules`` were called on the way.
    """

    module: GraphModule
    outside: tuple[Tensor, ...]
    modules: tuple[nn.Module, ...]

    def same_as(self, other: Graph) -> bool:
        """Whether two runs did the same, to the same tensors and with the same constants."""
        return (
            self.module.code == other.module.code
            and all(a is b for a, b in zip(self.outside, other.outside, strict=True))
            and all(_equal(a, b) for a, b in zip(self._constants(), other._constants(), strict=True))
        )

    def _constants(self) -> list[Tensor]:
        return [getattr(self.module, str(n.target)) for n in self.module.graph.nodes if n.op == "get_attr"]


def capture(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> Graph:
    """Run ``function(*inputs)`` and record it. The run is real: it draws, and moves what it moves in place.

    A number that it takes out of a tensor by ``.item()`` stays a tensor, and the recorded graph follows it.

    Raises: Uncapturable if Python itself reads the value of a tensor, so that another value would be another graph.
    """
    with ExitStack() as stack:
        stack.enter_context(guards.unchecked())
        stack.enter_context(_no_nan_warnings())
        modules = stack.enter_context(modules_called())
        stack.enter_context(_Reader())
        try:
            module: GraphModule = make_fx(function)(*inputs)
        except RuntimeError as error:
            if "tracing tensor" not in str(error):  # what make_fx says of a value that Python asks for
                raise
            raise Uncapturable(f"Python reads the value of a tensor{_place(error)}") from error
    return Graph(module, _lift(module), tuple(modules))


@contextmanager
def modules_called() -> Iterator[dict[nn.Module, None]]:
    """Modules that are called inside, in their order."""
    modules: dict[nn.Module, None] = {}
    hook = nn.modules.module.register_module_forward_pre_hook(lambda module, _: modules.setdefault(module))
    try:
        yield modules
    finally:
        hook.remove()


@contextmanager
def backwards() -> Iterator[list[Tensor]]:
    """``tensor.backward()`` inside is put off: the list has the tensors that it was called on."""
    mode = _Backwards()
    with mode:
        yield mode.roots


class _Reader(TorchFunctionMode):
    """Keeps the values of tensors from Python."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.item:
            return args[0].detach()
        if func is functional.one_hot and len(args) == 2:  # which reads them only to see that they are in range
            return (args[0][..., None] == torch.arange(args[1], device=args[0].device)).long()
        if func in _READS:
            raise Uncapturable(f"Python reads the values of a tensor, by its {func.__name__}")
        return func(*args, **(kwargs or {}))


_READS = {Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.data_ptr}
# around what Python makes a tensor of, by torch.tensor and the like
_MAKES = {torch.ops.aten.lift_fresh_copy.default, torch.ops.aten.lift_fresh.default}


class _Backwards(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.roots: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.backward:
            self.roots.append(args[0])
            return None
        return func(*args, **(kwargs or {}))


@contextmanager
def _no_nan_warnings() -> Iterator[None]:
    """Pyro looks for NaN in a loss, and warns: here its value is looked at after the graph has run."""
    with (
        mock.patch.object(pyro.util, "torch_isnan", return_value=False),
        mock.patch.object(pyro.util, "torch_isinf", return_value=False),
    ):
        yield


def _lift(module: GraphModule) -> tuple[Tensor, ...]:
    """Make the tensors from outside inputs of the graph, after its own; what Python made stays a constant."""
    graph = module.graph
    outside: dict[int, tuple[Tensor, torch.fx.Node]] = {}
    last = [node for node in graph.nodes if node.op == "placeholder"][-1:]
    for node in [node for node in graph.nodes if node.op == "get_attr"]:
        if all(user.target in _MAKES for user in node.users):
            continue
        tensor = getattr(module, str(node.target))
        if id(tensor) not in outside:
            after = last[0] if last else graph._root
            with graph.inserting_after(after):
                outside[id(tensor)] = tensor, graph.placeholder(f"outside_{len(outside)}")
            last = [outside[id(tensor)][1]]
        node.replace_all_uses_with(outside[id(tensor)][1])
        graph.erase_node(node)
    for name in {*vars(module), *module._parameters, *module._buffers} - {str(n.target) for n in graph.nodes}:
        if isinstance(getattr(module, name, None), Tensor):
            delattr(module, name)  # the compiler takes each for an input
    module.recompile()
    return tuple(tensor for tensor, _ in outside.values())


def _place(error: Exception) -> str:
    """The line that an error came from, the last one outside of torch."""
    torch_folder, here = str(Path(torch.__file__).parent), str(Path(__file__).parent)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((torch_folder, here, "<"))
    ]
    return f", in {Path(frames[-1].filename).name} line {frames[-1].lineno}: {frames[-1].line}" if frames else ""


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and bool(((a == b) | ((a != a) & (b != b))).all())
