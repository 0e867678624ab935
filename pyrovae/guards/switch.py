"""Whether the guards are on, and the lock around everything that runs Pyro code."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pyro

__all__ = ["checking", "pyro_lock", "unchecked"]

# Pyro's stack of handlers, its parameter store and the switch below belong to the process, not to a thread. Everything
# in pyrovae that runs Pyro code holds this lock meanwhile; it is re-entrant, so that a step may call encode.
pyro_lock = threading.RLock()

_checks = True


def checking() -> bool:
    """False within :func:`unchecked`."""
    return _checks


@contextmanager
def unchecked() -> Iterator[None]:
    """Switch off the guards and Pyro's validation, which read the values of tensors: for steps that are recorded."""
    global _checks
    before, _checks = _checks, False
    try:
        with pyro.validation_enabled(False):
            yield
    finally:
        _checks = before
