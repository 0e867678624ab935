"""Compiled code that several SVIs share, where their models differ in tensors and in nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pyrovae.compilation import Graph, Program

__all__ = ["Programs", "shared_programs", "sharing"]


class Programs:
    """Compiled code of steps and of other calls.

    Args:
        num_runs: Runs that are to use it, those under way included.
        is_shared: Whether several SVIs use it.
    """

    def __init__(self, num_runs: int = 1, is_shared: bool = False) -> None:
        self.num_runs, self.is_shared = num_runs, is_shared
        self._programs: list[Program] = []

    @property
    def has_others(self) -> bool:
        """Whether there is code that another SVI may have compiled."""
        return self.is_shared and bool(self._programs)

    def find(self, graph: Graph) -> Program | None:
        """The code of an equal graph, whose tensors may be others; None if there is none."""
        return next((each for each in self._programs if each.graph.same_as(graph)), None)

    def add(self, program: Program) -> None:
        """Keep code that was found to do what it should."""
        self._programs.append(program)


_shared: ContextVar[Programs | None] = ContextVar("shared programs", default=None)


def shared_programs() -> Programs | None:
    """The code that SVIs which are made now share; None outside of :func:`sharing`."""
    return _shared.get()


@contextmanager
def sharing(num_runs: int) -> Iterator[Programs]:
    """Let the SVIs that are made inside share compiled code.

    A step of one of them is compiled once for all of them whose recorded graphs are equal: models of one architecture
    that have other weights, other data or another learning rate. Whether compiling pays is decided for all runs
    together.

    Args:
        num_runs: The number of runs. Whoever trains them lowers ``num_runs`` of the result after each.
    """
    token = _shared.set(Programs(num_runs, is_shared=True))
    try:
        programs = _shared.get()
        assert programs is not None
        yield programs
    finally:
        _shared.reset(token)
