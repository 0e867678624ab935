"""Many passes of one function without gradients, compiled where that is earned back."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyrovae.compilation.capture import Uncapturable, modules_called
from pyrovae.compilation.program import Program
from pyrovae.compilation.timings import Timings, recurs
from pyrovae.rows import cut

__all__ = ["Passes", "by_rows"]

ROWS = 1024  # of one pass


def by_rows(function: Callable[..., Tensor], *x: Tensor) -> Tensor:
    """``function(*x)``, a row for each of x, in passes of at most ROWS rows, compiled where that is earned back."""
    if len(x[0]) <= ROWS:
        return function(*x)
    run = Passes(lambda *rows: (function(*rows),), len(x[0]) // ROWS)
    return torch.cat([run(*rows)[0] for rows in cut(x, ROWS)])


class Passes:
    """``passes(*inputs)`` is ``function(*inputs)``, compiled when what is left of the passes is longer than compiling.

    Inputs of other shapes than those of the first pass run as they are, with validation and guards. The others run
    without them after the first two; when three of these were timed it is known whether compiling pays. Where it does
    and cannot be, one warning says why, and they go on as they are. A seed gives the same numbers compiled and not.

    Args:
        function: Takes tensors and returns tensors, with Pyro inside or not; it is called without gradients.
        num_passes: How many there will be.
        module: Where the function is that of a module, the module.
    """

    def __init__(
        self, function: Callable[..., Sequence[Tensor]], num_passes: int, module: nn.Module | None = None
    ) -> None:
        self.function, self.num_passes, self.module = function, num_passes, module
        self.program: Program | None = None
        self._timings = Timings()
        self._shape: Any = None
        self._eager = False

    def __call__(self, *inputs: Tensor) -> Sequence[Tensor]:
        shape = [(x.shape, x.dtype, x.device) for x in inputs]
        self._shape = self._shape or shape
        self._timings.count += 1
        if shape != self._shape or not self._timings.checked:
            with modules_called() as modules:
                outputs = self.function(*inputs)
            self._eager = self._eager or recurs(modules)
            return outputs
        left = self.num_passes - self._timings.count + 1
        if self.program is None and not self._eager and self._timings.pays(left):
            self._compile(inputs)
        if self.program is not None and self.program.still_right():
            return self.program(*inputs)
        self.program = None
        with self._timings.unchecked():
            return self.function(*inputs)

    def _compile(self, inputs: Sequence[Tensor]) -> None:
        self._eager = True  # once is enough
        try:
            self.program = Program(self.function, inputs, [] if self.module is None else [self.module])
        except Exception as error:  # the same pass has run as it is: whatever this is, it is about compiling
            why = str(error) if isinstance(error, Uncapturable) else repr(error)
            warnings.warn(f"passes run without compilation from here on: {why}", stacklevel=5)
