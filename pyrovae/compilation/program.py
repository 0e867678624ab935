"""A recorded graph as compiled code, and whether that code does what it should."""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule

from pyrovae import private
from pyrovae.compilation.matmul import faster_products
from pyrovae.compilation.recording import Graph, Unrecordable
from pyrovae.compilation.replay import Replay, can_be_recorded
from pyrovae.compilation.timings import shortest

__all__ = ["Program", "disagreement"]

TOLERANCE = 1e-3  # of a norm: rounding is far below, another model far above


class Program:
    """Compiled code of a graph: ``program(inputs, outside)`` takes tensors of the layouts that it was recorded with.

    On a CUDA device the kernels become one CUDA graph where that is faster, as long as the tensors from outside stay
    where they are; ``replays`` says whether they did. ``seconds`` is the time that compiling took.

    Raises: Unrecordable where the compiler fails.
    """

    def __init__(self, graph: Graph, inputs: Sequence[Tensor]) -> None:
        start = time.perf_counter()
        self.graph = graph
        self._code = self._compiled([x.detach().contiguous() for x in inputs])
        self._replay: Replay | None = None
        gc.collect()  # a recording is full of reference cycles
        self.seconds = time.perf_counter() - start

    def __call__(self, inputs: Sequence[Tensor], outside: Sequence[Tensor]) -> Sequence[Tensor]:
        with torch.no_grad():
            tensors = [x.contiguous() for x in inputs]  # the code is of these strides
            if self._replay is not None and self._replay.outside == list(map(Tensor.data_ptr, outside)):
                return self._replay(*tensors)
            return self._code(*tensors, *outside)

    @property
    def replays(self) -> bool:
        return self._replay is not None

    def try_replay(self, inputs: Sequence[Tensor], outside: Sequence[Tensor]) -> None:
        """Launch the code as one CUDA graph from now on, if that is faster; the caller puts back what moves."""
        if not can_be_recorded([*inputs, *outside]):
            return

        def finished(code: Callable[..., Sequence[Tensor]], *tensors: Tensor) -> None:
            code(*tensors)
            torch.cuda.synchronize()

        try:
            with torch.no_grad():
                replay = Replay(self._code, inputs, outside)
                alone, together = shortest(
                    lambda: finished(self._code, *inputs, *outside), lambda: finished(replay, *inputs)
                )
        except RuntimeError:  # of what cannot be recorded; the code is right without
            return
        self._replay = replay if together < alone else None

    def _compiled(self, inputs: list[Tensor]) -> Callable[..., Sequence[Tensor]]:
        tensors = [*inputs, *(x.detach() for x in self.graph.outside)]
        with torch.no_grad():
            try:
                return self._compiled_or_repaired(tensors)
            except Exception as error:  # of a compiler that is not there, or fails, in one of a dozen classes
                lines = str(error).strip().splitlines() or [""]
                raise Unrecordable(f"the compiler failed: {type(error).__name__}: {lines[0]}") from error

    def _compiled_or_repaired(self, tensors: Sequence[Tensor]) -> Callable[..., Sequence[Tensor]]:
        """Compiled code; each damaged file of the compiler's cache is removed when an error names it."""
        while True:
            try:
                return private.compiled_by_inductor(self._module(tensors), tensors)
            except Exception as error:
                if not private.remove_damaged(error):
                    raise

    def _module(self, tensors: Sequence[Tensor]) -> GraphModule:
        """A copy of the graph for the compiler, which changes it."""
        module = copy.deepcopy(self.graph.module)
        faster_products(module, tensors)
        return module


def disagreement(expected: Sequence[Tensor], got: Sequence[Tensor], rounding: float = 0.0) -> str | None:
    """How tensors differ by more than rounding, relative to the norm of all of them together; None if they do not.

    ``rounding`` is an absolute tolerance for numbers that are zero up to rounding.
    """
    a, b = _flat(expected), _flat(got)
    same = (a == b) | (a.isnan() & b.isnan())  # infinities too
    difference = torch.where(same, 0.0, a - b).norm()
    if difference <= TOLERANCE * a[a.isfinite()].norm() + rounding:
        return None
    return f"{_summary(b)} where it should be {_summary(a)}"


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([torch.empty(0, dtype=torch.float64), *(x.detach().double().cpu().flatten() for x in tensors)])


def _summary(x: Tensor) -> str:
    return f"{x.item():.6g}" if x.numel() == 1 else f"norm {x[x.isfinite()].norm():.6g}"
