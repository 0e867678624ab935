"""Many passes of one function without gradients, compiled where that pays."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyrovae.compilation.program import Program, disagreement
from pyrovae.compilation.recording import Unrecordable, record
from pyrovae.compilation.timings import Timings
from pyrovae.compilation.watch import Watch
from pyrovae.rows import cut

__all__ = ["Passes", "by_rows"]

ROWS = 1024  # of one pass


def by_rows(function: Callable[..., Tensor], *x: Tensor) -> Tensor:
    """``function(*x)``, a row for each of x, in passes of at most ROWS rows, compiled where that pays."""
    if len(x[0]) <= ROWS:
        return function(*x)
    run = Passes(lambda *rows: (function(*rows),), len(x[0]) // ROWS)
    return torch.cat([run(*rows)[0] for rows in cut(x, ROWS)])


class Passes:
    """``passes(*inputs)`` is ``function(*inputs)``, compiled when the passes left take longer than compiling.

    Only inputs of the shapes of the first pass are compiled. After three timed passes it is known whether compiling
    pays. Where it does and cannot be done, one warning says why, and the passes go on without. A seed gives the same
    numbers compiled and not.

    Args:
        function: Takes tensors and returns tensors, with Pyro inside or not; it is called without gradients, and what
            it reads from Python stays the same while the passes run.
        num_passes: How many there will be.
    """

    def __init__(self, function: Callable[..., Sequence[Tensor]], num_passes: int) -> None:
        self.function, self.num_passes = function, num_passes
        self.program: Program | None = None
        self._outside: Sequence[Tensor] = ()
        self._timings = Timings()
        self._shape: object = None
        self._left, self._eager = num_passes, False

    def __call__(self, *inputs: Tensor) -> Sequence[Tensor]:
        shape = [(x.shape, x.dtype, x.device) for x in inputs]
        self._shape = self._shape or shape
        self._left -= 1
        if shape != self._shape:
            return self.function(*inputs)
        if self.program is not None:
            return self.program(inputs, self._outside)
        if not self._eager and self._timings.pays(self._left + 1):
            return self._first_compiled(inputs)
        with self._timings.timed():
            return self.function(*inputs)

    def _first_compiled(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """A pass as it is, with which the compiled one is compared."""
        self._eager, devices = True, list({x.device for x in inputs if x.is_cuda})  # once is enough
        watch = Watch({"it": self.function})
        if watch.recurs:
            return self.function(*inputs)
        try:
            with torch.random.fork_rng(devices=devices):
                expected = self.function(*inputs)
            graph = record(self.function, inputs)
            if (changed := watch.put_back()) is not None or graph.written:
                raise Unrecordable(f"it changes {changed or 'tensors'} when it runs")
            program = Program(graph, inputs)
            got = program(inputs, graph.outside)
            if why := disagreement(expected, got, rounding=1e-6):
                raise Unrecordable(f"compiled it gives {why}")
        except Unrecordable as error:
            warnings.warn(f"passes run without compilation from here on: {error}", stacklevel=5)
            return self.function(*inputs)
        self.program, self._outside = program, [x.detach() for x in graph.outside]
        return expected
