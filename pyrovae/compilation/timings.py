"""When compiling pays: the one policy of steps and of passes; which of several ways is the fastest."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from pyrovae import guards

__all__ = ["Timings", "recurs", "shortest"]

CHECKED = 2  # calls with Pyro's validation and the guards of pyrovae
TIMED = 3  # calls without them, at least, before one is compiled
SAVED = 0.4  # of a call, at least, by compiling it
SECONDS, RUNS = 10.0, 4  # to compile one, before one was compiled, and how often that calls it
REPEATS, LONGEST = 16, 0.1  # of a call that is compared, and the seconds after which there are no more of them


class Timings:
    """Calls that look alike: how many there were, and the times of those that ran as they are, without checks."""

    def __init__(self) -> None:
        self.count = 0
        self.seconds, self.fastest = 0.0, math.inf
        self._num_timed = 0

    @property
    def checked(self) -> bool:
        """Whether enough of them ran with Pyro's validation and the guards of pyrovae."""
        return self.count > CHECKED

    @contextmanager
    def unchecked(self) -> Iterator[None]:
        """Without these, and timed."""
        start = time.perf_counter()
        with guards.unchecked():
            yield
        took = time.perf_counter() - start
        self._num_timed, self.seconds, self.fastest = self._num_timed + 1, self.seconds + took, min(self.fastest, took)

    def pays(self, left: float | None, cost: float | None = None) -> bool:
        """Whether compiling costs less than it saves of ``left`` calls, or, if None, than they have cost so far.

        ``cost`` is the time in seconds that compiling took before; without one it is taken to be ten, and four calls.
        """
        if self._num_timed < TIMED:
            return False
        cost = SECONDS + RUNS * self.fastest if cost is None else cost
        return self.seconds > cost if left is None else SAVED * self.fastest * left > cost


def recurs(modules: Iterable[nn.Module]) -> bool:
    """Whether a recurrent layer is among them, whose loop is thousands of operations: minutes to compile."""
    return any(isinstance(module, nn.RNNBase) for module in modules)


def shortest(*calls: Callable[[], Any]) -> list[float]:
    """The shortest time of each, taken by turns: what else the machine does meets all of them."""
    times: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + LONGEST
    while not times[0] or (len(times[0]) < REPEATS and time.perf_counter() < end):
        for call, seconds in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    return [min(seconds) for seconds in times]
