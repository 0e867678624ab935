"""The calls that an SVI has met, with their times and the compiled step for each key."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor

from pyrovae.compilation import Timings, Watch
from pyrovae.infer.optimizer import Grouped
from pyrovae.infer.step import Compiled
from pyrovae.objectives import Objective, Schedule

__all__ = ["MANY", "Calls", "State"]

MANY = 50  # signatures, after which new ones run without compilation, and keys that are kept
BRIEF = 20  # calls: a key that lasted for fewer was short


class State:
    """The calls, optimizers and checks of one configuration of an SVI."""

    def __init__(self, config: tuple[object, ...]) -> None:
        self.config = config  # keeps the ids of its parts
        self.calls: dict[object, Calls] = {}
        self.optimizers: dict[tuple[int, ...], Grouped] = {}
        self.zeros: dict[int, tuple[Tensor, int]] = {}  # gradients after the last step, and their versions
        self.watch: Watch | None = None
        self.checked = False


class Calls:
    """The calls of one method whose arguments and settings look alike."""

    def __init__(self, what: str, objective: object, text: str) -> None:
        self.what, self.text = what, text  # the same text in another process
        self.count = 0
        self.schedules: dict[str, Schedule] = objective.schedules() if isinstance(objective, Objective) else {}
        self.reason: str | None = None  # why they cannot be compiled
        self.searched = False  # whether shared code was looked for and not found
        self.timings = Timings()
        self.params: list[Tensor] = []
        self.names: frozenset[str] = frozenset()  # of these parameters
        self.validated: frozenset[str] = frozenset()
        self.known: OrderedDict[object, Known] = OrderedDict()  # by the key of a watch
        self.latest = Known()
        self.watch: Watch | None = None  # that of the latest
        self.short, self.changed = 0, ""  # how many keys soon made way for a new one, and why

    @property
    def is_compiled(self) -> bool:
        """Whether the latest call had, or made, compiled code."""
        return self.latest.compiled is not None

    def known_for(self, watch: Watch) -> Known:
        """The entry for the key of a watch, a new one if the key is new."""
        if watch is self.watch:
            return self.latest
        if watch.key not in self.known:
            if self.watch is not None and self.latest.count < BRIEF:
                self.short += 1
                self.changed = self.watch.difference(watch)
            self.known[watch.key] = Known()
            if len(self.known) > MANY:
                self.known.popitem(last=False)
        self.watch, self.latest = watch, self.known[watch.key]
        return self.latest

    def keep(self, watch: Watch, compiled: Compiled) -> Compiled:
        self.latest = self.known.setdefault(watch.key, self.latest)
        self.watch, self.latest.compiled = watch, compiled
        return compiled


class Known:
    """The number of calls with one key, and the step that was compiled for them."""

    def __init__(self) -> None:
        self.count = 0
        self.compiled: Compiled | None = None
