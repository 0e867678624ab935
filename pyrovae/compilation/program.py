"""A captured graph as compiled code, checked against the run that it was captured from."""

from __future__ import annotations

import gc
import logging
import operator
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from pyrovae.compilation.capture import Graph, Uncapturable, capture
from pyrovae.compilation.functions import faster_functions
from pyrovae.compilation.matmul import faster_products
from pyrovae.compilation.readings import Readings
from pyrovae.compilation.replay import Replay, can_be_recorded
from pyrovae.compilation.timings import shortest

__all__ = ["Program"]

Entry = tuple[dict[str, Any], str]
OPTIONS: dict[str, Any] = {
    "fallback_random": True,  # torch's own draws: a seed gives the numbers that it gives without compilation
    "size_asserts": False,  # sizes and strides are known before the call
    "score_fusion_memory_threshold": 48,  # loops that share a few bytes alone, as Adam's over two matrices, stay two
}
FIRST_PAUSE, LAST_PAUSE = 10, 200  # running between two looks, in the time that a look takes
FREE_LOOKS, LOOKING = 8, 0.05  # where values of Python change: looks at first, and then the share of running
TOLERANCE = 1e-3  # of a result's norm: rounding is far below, another model far above


class Program:
    """``program(*inputs)`` does what ``function(*inputs)`` does, compiled, while ``in_place()`` and ``in_mode()``.

    It is captured twice, the second time with the rows of the inputs in another order, and refused where the two
    differ: then something else than tensors decides what it does. After it is compiled its results are compared with
    those of the captured run, at the same random draws. All of it leaves torch's random state, and every tensor that
    the function moves in place, as they were.

    Args:
        function: Takes tensors and returns tensors, with Pyro inside or not.
        inputs: Tensors of the shapes and dtypes that it will be called with.
        modules: Those that it calls, or is a method of, as far as they are known.
        entries: Entries of dictionaries that must stay what they are, as those of modules must.
        moved: Tensors that the function moves in place, besides the buffers of modules, in groups of like scales.
        sources: Functions of Python that it calls, where the function itself is not all of them.

    On a CUDA device the code becomes one CUDA graph where that is right and faster, and ``replays`` says whether it is.
    ``seconds`` is the time that all this took. A program is no longer to be called once it is not ``still_right()``.
    Raises: Uncapturable, with the reason.
    """

    def __init__(
        self,
        function: Callable[..., Sequence[Tensor]],
        inputs: Sequence[Tensor],
        modules: Iterable[nn.Module] = (),
        entries: Iterable[Entry] = (),
        moved: Sequence[Sequence[Tensor]] = (),
        sources: Iterable[Any] = (),
    ) -> None:
        start = time.perf_counter()
        inputs = [x.detach().contiguous() for x in inputs]
        self.function = function
        self._inputs = inputs
        self._moved = moved
        self._watched = tuple(modules)
        self._sources = (function, *sources)
        self._readings = Readings(self._sources)
        graph, expected = self._captured()
        if (name := self._readings.changed()) is not None:
            raise Uncapturable(f"it changes {name}, of Python, when it runs: what is compiled would not")
        if not self._captured(rolled=True)[0].same_as(graph):
            raise Uncapturable("two runs did not do the same: something else than tensors decides what it does")
        self.graph = graph
        self._look_for = (time.perf_counter() - start) / 2
        self._outside = [x.detach() for x in graph.outside]
        self._ran = self._looked_for = 0.0  # seconds; these for changes of Python's values that changed nothing
        self._code = self._compile(graph)
        self._compare(expected)
        self.replays = can_be_recorded([*inputs, *self._outside]) and self._record(expected)
        self._settings = _Entries(
            (vars(m), name) for m in self._watched for name, v in vars(m).items() if _is_setting(v)
        )
        slots = ((slots, name) for m in self._watched for slots in _slots(m) for name in slots)
        self._tensors = _Entries((*slots, *entries))
        own = {id(x) for group in moved for x in group if not x.requires_grad}  # nobody else has them
        self._placed = [x for x in graph.outside if id(x) not in own]
        self._places = _places(self._placed)
        gc.collect()
        self.seconds = time.perf_counter() - start
        self._pause = FIRST_PAUSE * self._look_for
        self._next_look = self._ran + self._pause

    def __call__(self, *inputs: Tensor) -> Sequence[Tensor]:
        start = time.perf_counter()
        with torch.no_grad():
            results = self._code(*[x.contiguous() for x in inputs], *self._outside)  # the code is of these strides
        self._ran += time.perf_counter() - start
        return results

    def in_mode(self) -> bool:
        """Whether its modules train, or do not, as when it was captured, and have the numbers that they had."""
        return self._settings.same()

    def in_place(self) -> bool:
        """Whether its modules have the tensors, and these the memory, of when it was captured."""
        return self._tensors.same() and _places(self._placed) == self._places

    def still_right(self) -> bool:
        """Whether it would be captured as the same graph now; looked at where Python's values changed, else seldom."""
        changed = self._readings.changed() is not None and self._looked_for < max(
            FREE_LOOKS * self._look_for, LOOKING * self._ran
        )
        if self._ran < self._next_look and not changed:
            return True
        start = time.perf_counter()
        try:
            same = self._captured()[0].same_as(self.graph)
        except Uncapturable:
            same = False
        gc.collect()  # the other graph is full of circles, and holds what its run computed
        self._readings = Readings(self._sources)
        if changed:
            self._looked_for += time.perf_counter() - start
        else:
            self._pause = min(2 * self._pause, LAST_PAUSE * self._look_for)
            self._next_look = self._ran + self._pause
        return same

    def _captured(self, rolled: bool = False) -> tuple[Graph, Sequence[Tensor]]:
        """The graph, and what the run returned."""
        results: list[Tensor] = []

        def kept(*inputs: Tensor) -> tuple[Tensor, ...]:
            results[:] = self.function(*inputs)
            return tuple(results)

        inputs = [x.roll(1, 0) if rolled and x.dim() else x for x in self._inputs]
        with self._untouched():
            graph = capture(kept, inputs)
            results += self._positions()
        self._watched = tuple(dict.fromkeys((*self._watched, *graph.modules)))
        return graph, [result.detach() for result in results]

    def _compile(self, graph: Graph) -> Callable[..., Sequence[Tensor]]:
        from torch import _inductor  # a second to import

        tensors: list[Any] = [*self._inputs, *self._outside]
        module = faster_functions(graph.module, tensors)
        faster_products(module, tensors)
        # which says, at its import, that there is no CUDA where a folder of it is
        extensions = logging.getLogger("torch.utils.cpp_extension")
        with torch.no_grad(), mock.patch.object(extensions, "disabled", True):
            try:
                return _inductor.compile(module, tensors, options=OPTIONS)
            except Exception as error:  # of a compiler that is not there, or fails, in one of a dozen classes
                raise Uncapturable(f"it cannot be compiled here: {_first_line(error)}") from error

    def _record(self, expected: Sequence[Tensor]) -> bool:
        """Have a CUDA graph in the place of the code, where that does the same in less time."""
        code = self._code
        try:
            with torch.no_grad(), self._untouched():
                replay = Replay(code, self._inputs, self._outside)
                alone, together = shortest(lambda: self._finished(code), lambda: self._finished(replay))
            if together < alone:
                self._code = replay
                self._compare(expected)
        except Exception:  # of what cannot be recorded; the code is right without
            self._code = code
        return self._code is not code

    def _finished(self, code: Callable[..., Sequence[Tensor]]) -> None:
        code(*self._inputs, *self._outside)
        torch.cuda.synchronize()

    def _compare(self, expected: Sequence[Tensor]) -> None:
        """Raise where the code does not do what the captured run did."""
        with self._untouched():
            got = [*self(*self._inputs), *self._positions()]
        floats = [x for x in expected if x.is_floating_point()]
        # of what would be zero but for it
        rounding = 10 * max((torch.finfo(x.dtype).eps * _norm(x) for x in floats), default=0.0)
        for a, b in zip(expected, got, strict=True):
            same = (a == b) | (a.isnan() & b.isnan())  # infinities too; a loss that is NaN is told by who asked for it
            difference = torch.where(same, 0.0, a.double() - b.double())
            if not difference.norm() <= TOLERANCE * _norm(a) + rounding:
                raise Uncapturable(f"compiled it gives {_summary(b)} where it gives {_summary(a)} at the same draws")

    def _positions(self) -> list[Tensor]:
        return [torch.cat([x.detach().flatten() for x in group]) for group in self._moved]

    @contextmanager
    def _untouched(self) -> Iterator[None]:
        """Random state and tensors are put back."""
        owned = (x for module in self._watched for x in (*module.parameters(), *module.buffers()))
        tensors = dict.fromkeys((*owned, *(x for group in self._moved for x in group)))
        before = [x.detach().clone() for x in tensors]
        devices = {x.device for x in (*self._inputs, *tensors) if x.is_cuda}
        with torch.random.fork_rng(devices=list(devices)):
            yield
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)


class _Entries:
    """Entries of dictionaries, and what they were."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = list(entries)
        self._values = [entries[name] for entries, name in self._entries]

    def same(self) -> bool:
        return all(map(operator.is_, [entries.get(name) for entries, name in self._entries], self._values))


def _places(tensors: Sequence[Tensor]) -> list[Any]:
    """Where they are in memory, and how."""
    return [*map(Tensor.data_ptr, tensors), *map(Tensor.stride, tensors)]


def _is_setting(value: Any) -> bool:
    return isinstance(value, bool | int | float | str)


def _slots(module: nn.Module) -> tuple[dict[str, Any], ...]:
    """Where a module keeps its tensors and its parts."""
    return module._parameters, module._buffers, module._modules


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def _norm(x: Tensor) -> float:
    """Of what is finite."""
    return x[x.isfinite()].double().norm().item()


def _summary(x: Tensor) -> str:
    return f"{x.item():.6g}" if x.numel() == 1 else f"norm {_norm(x):.6g}"
