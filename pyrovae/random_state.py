"""The random state of torch, Python and NumPy as an object: one for each run, saved, restored, safe with threads."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from pyrovae import guards

__all__ = ["RandomState"]

States = dict[str, Any]  # of each device, of "python" and "numpy", and of the "order" of the batches


class RandomState:
    """The random state of the CPU, of a CUDA device, of Python, of NumPy's functions and of the order of the batches.

    It is the global one, or that of a seed.
    """

    def __init__(self, seed: int | None, device: torch.device) -> None:
        seed = None if seed is None else int(seed)  # Python's generator takes none of NumPy's integers
        self.devices = [torch.device("cpu"), *([device] if device.type == "cuda" else [])]
        self.order = None if seed is None else torch.Generator().manual_seed(seed)
        self._inside = False
        self._next: States = {}  # takes its place at the next entry
        if seed is not None:
            self._next = {str(d): torch.Generator(d).manual_seed(seed).get_state() for d in self.devices}
            self._next |= {
                "python": _python(random.Random(seed)),
                "numpy": _numpy(np.random.RandomState(seed % 2**32)),
            }

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Hold Pyro's lock, with this state instead of the global one."""
        with guards.pyro_lock:
            outside = self._read()
            self._write(self._next)
            self._next, self._inside = {}, True
            try:
                yield
            finally:
                self._inside = False
                if self.order is not None:
                    self._next = self._read()
                    self._write(outside)

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """Put the global state back afterwards; with the lock, because another thread's may be in its place."""
        with guards.pyro_lock:
            before = self._read()
        try:
            yield
        finally:
            with guards.pyro_lock:
                self._write(before)

    def apart(self, start: States, *numbers: int) -> None:
        """Draw from here on what follows from a state and these numbers, and from nothing else; the order stays."""
        text = f"{bytes(start['cpu'].numpy()).hex()} {numbers}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
        torch.manual_seed(seed)  # of all devices
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  # the state of code that uses it

    def state_dict(self) -> States:
        """The state by device, and that of the order."""
        return (self._next or self._read()) | ({} if self.order is None else {"order": self.order.get_state()})

    def load_state_dict(self, states: States) -> None:
        """Go on from this state."""
        if ("order" in states) != (self.order is not None):
            raise ValueError(f"seed: the state is of a run with{'' if 'order' in states else 'out'} a seed")
        try:
            _try(states)
        except (TypeError, ValueError, AttributeError, RuntimeError, OverflowError, KeyError) as error:
            raise ValueError(f"random: it is no state of a random number generator ({error})") from error
        if self.order is not None:
            self.order.set_state(states["order"])
        states = {name: state for name, state in states.items() if name != "order"}
        if self._inside:
            self._write(states)
        else:
            self._next = states

    def _read(self) -> States:
        states: States = {
            str(d): torch.cuda.get_rng_state(d) if d.type == "cuda" else torch.get_rng_state() for d in self.devices
        }
        return states | {"python": _python(random), "numpy": _numpy(np.random)}

    def _write(self, states: States) -> None:
        for name, state in states.items():
            if name == "python":
                _set_python(random, state)
            elif name == "numpy":
                _set_numpy(np.random, state)
            elif name == "cpu":
                torch.set_rng_state(state)
            else:
                torch.cuda.set_rng_state(state, name)


def _python(source: Any) -> tuple[Any, ...]:
    """Python's state, its 625 words as a tensor: they are copied and saved a thousand times as fast."""
    version, words, *rest = source.getstate()
    return (version, torch.tensor(words), *rest)


def _set_python(target: Any, state: Any) -> None:
    version, words, *rest = state
    target.setstate((version, tuple(words.tolist()), *rest))


def _try(states: States) -> None:
    """Give states to generators of their own; one that cannot be gone on from raises."""
    _set_python(random.Random(), states["python"])
    _set_numpy(np.random.RandomState(), states["numpy"])
    for name in states.keys() - {"python", "numpy"}:
        torch.Generator("cpu" if name == "order" else name).set_state(states[name])


def _numpy(source: Any) -> tuple[Any, ...]:
    """NumPy's state, likewise."""
    name, words, *rest = source.get_state()
    return (name, torch.from_numpy(words.astype(np.int64)), *rest)


def _set_numpy(target: Any, state: Any) -> None:
    name, words, *rest = state
    target.set_state((name, words.numpy(), *rest))
