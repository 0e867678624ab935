"""When compiling pays: one policy for steps and passes; which of several ways is the fastest."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Timings", "shortest"]

TIMED = 3  # calls, at least, before one is compiled
SAVED = 0.4  # of a call, at least, by compiling it
SECONDS, RUNS = 10.0, 4  # to compile one, before one was compiled, and how often that calls it
REPEATS, LONGEST = 16, 0.1  # comparisons of two ways, and the seconds after which there are no more


class Timings:
    """The times of calls that look alike and run without compilation; the first one is a warm-up."""

    def __init__(self) -> None:
        self.count, self.seconds, self.fastest = -1, 0.0, math.inf

    @contextmanager
    def timed(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        took = time.perf_counter() - start
        self.count += 1
        if self.count:
            self.seconds, self.fastest = self.seconds + took, min(self.fastest, took)

    def cost(self, known: float | None = None) -> float:
        """Seconds that compiling takes: as before, or an estimate."""
        return SECONDS + RUNS * self.fastest if known is None else known

    def pays(self, left: float | None, known: float | None = None) -> bool:
        """Whether compiling costs less than it saves of ``left`` calls, or, if None, than the calls have cost so far.

        ``known`` is the time in seconds that compiling took before.
        """
        if self.count < TIMED:
            return False
        return self.seconds > self.cost(known) if left is None else SAVED * self.fastest * left > self.cost(known)


def shortest(*calls: Callable[[], object]) -> list[float]:
    """The shortest time of each call; they take turns, so that other work on the machine meets all of them."""
    times: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + LONGEST
    while not times[0] or (len(times[0]) < REPEATS and time.perf_counter() < end):
        for call, seconds in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    return [min(seconds) for seconds in times]
