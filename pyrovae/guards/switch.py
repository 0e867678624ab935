"""Whether the guards of a step are on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pyro

__all__ = ["checking", "pyro_lock", "unchecked"]

pyro_lock = threading.RLock()  # one thread at a time may use Pyro's handlers, which are global

_checks = True


def checking() -> bool:
    """False within :func:`unchecked`."""
    return _checks


@contextmanager
def unchecked() -> Iterator[None]:
    """Neither these guards nor Pyro's validation: for steps like one that has passed them."""
    global _checks
    before, _checks = _checks, False
    try:
        with pyro.validation_enabled(False):
            yield
    finally:
        _checks = before
