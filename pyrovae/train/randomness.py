"""The random state of a run, which takes the place of torch's only while the run trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from pyrovae import guards

__all__ = ["RandomState"]

States = dict[str, Tensor]  # of each device, and "order": of the batches


class RandomState:
    """The random state of the CPU, of a CUDA device of the parameters, and of the order of the batches.

    With a seed it is a state of its own, also for the order; without, it is torch's.
    """

    def __init__(self, seed: int | None, device: torch.device) -> None:
        self.devices = [torch.device("cpu"), *([device] if device.type == "cuda" else [])]
        self.own = seed is not None
        self.order = None if seed is None else torch.Generator().manual_seed(seed)
        fresh = {} if seed is None else {str(d): torch.Generator(d).manual_seed(seed).get_state() for d in self.devices}
        self._next: States = fresh  # takes its place at the next entry

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Hold Pyro's lock, with this state in the place of torch's."""
        with guards.pyro_lock:
            outside = self._read()
            self._write(self._next)
            self._next = {}
            try:
                yield
            finally:
                now = self._next or self._read()  # the first where a state was loaded
                self._next = now if self.own else {}
                self._write(outside if self.own else now)

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """Put torch's state back afterwards. The lock: another thread's state may be in its place."""
        with guards.pyro_lock:
            before = self._read()
        try:
            yield
        finally:
            with guards.pyro_lock:
                self._write(before)

    def state_dict(self) -> States:
        """The states by device, and that of the order."""
        order = {} if self.order is None else {"order": self.order.get_state()}
        return (self._next or self._read()) | order

    def load_state_dict(self, states: States) -> None:
        """Go on from these states at the next entry, or from the end of the present one."""
        if ("order" in states) != self.own:
            raise ValueError(f"seed: the state is of a run with{'' if 'order' in states else 'out'} a seed")
        if self.order is not None:
            self.order.set_state(states["order"])
        self._next = {name: state for name, state in states.items() if name != "order"}

    def set_now(self, states: States) -> None:
        """Go on from these states at once, within :meth:`in_place`."""
        self.load_state_dict(states)
        self._write(self._next)
        self._next = {}

    def _read(self) -> States:
        return {
            str(d): torch.cuda.get_rng_state(d) if d.type == "cuda" else torch.get_rng_state() for d in self.devices
        }

    def _write(self, states: States) -> None:
        for name, state in states.items():
            torch.set_rng_state(state) if name == "cpu" else torch.cuda.set_rng_state(state, name)
