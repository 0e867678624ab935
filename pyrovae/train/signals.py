"""SIGINT and SIGTERM, answered between two steps instead of within one."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Signals"]

STOP = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Inside ``with Signals() as signals`` the first SIGINT or SIGTERM waits until :meth:`answer` is called.

    The second one is answered at once. Only the main thread gets signals; elsewhere nothing changes.

    Attributes: ``received``, the signal that waits, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in STOP:
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):  # None: set by other code than Python's
                    self._before[number] = before
                    signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        if error is None:
            self.answer()

    def answer(self) -> None:
        """Do now what a signal that was received asks for: KeyboardInterrupt, or the exit status 143 of SIGTERM."""
        number, self.received = self.received, None
        if number is None:
            return
        before = self._before[number]
        if callable(before):  # Python's own raises KeyboardInterrupt
            before(number, None)
        else:
            raise SystemExit(128 + number)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            self.answer()
        self.received = number
