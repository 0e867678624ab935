"""A folder that one process at a time writes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

__all__ = ["exchange", "locked", "made", "remove_partial"]

_held: ContextVar[frozenset[tuple[int, int]]] = ContextVar("_held", default=frozenset())


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Hold a folder that exists, so that no other process or thread writes in it.

    The lock belongs to the folder and not to its name, and ends with the process, however that ends. Whoever holds it
    may ask for it again. Where the file system has no locks, and on Windows, nothing is held.

    Raises: BlockingIOError where another one writes in the folder.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        own = (status.st_dev, status.st_ino)
        if own in _held.get():
            yield
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(
                f"{str(folder)!r} is being written by another process: wait for its end, or choose another folder"
            ) from error
        except OSError:
            pass  # a file system without locks
        token = _held.set(_held.get() | {own})
        try:
            yield
        finally:
            _held.reset(token)
    finally:
        os.close(descriptor)


def made(folder: Path) -> list[Path]:
    """Make a folder that is not there, with its parents; the folders that were made, the innermost first.

    Raises: FileExistsError where it is there; OSError that names it.
    """
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    if not new:
        raise FileExistsError(f"{str(folder)!r} exists")
    for each in reversed(new):
        try:
            each.mkdir()
        except OSError as error:
            for other in new:
                if other.is_dir() and not any(other.iterdir()):
                    other.rmdir()
            raise OSError(f"{str(folder)!r} cannot be written: {error.strerror}") from error
    return new


def remove_partial(folder: Path, names: Iterable[str]) -> None:
    """Remove the unfinished copies of files that a killed process left; the lock must be held."""
    for name in names:
        for path in folder.glob(f".{name}.????????.partial"):
            path.unlink()


def exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two folders in one step; False where the system cannot."""
    if sys.platform != "linux":
        return False
    import ctypes

    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    here, swap = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
    return call is not None and call(here, os.fsencode(one), here, os.fsencode(other), swap) == 0
