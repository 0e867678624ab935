"""Files written whole and flushed to the disk, and files read only when they are regular and not too large."""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["MAX_JSON_BYTES", "check_regular", "read_json", "size_text", "write_together", "write_whole"]

MAX_JSON_BYTES = 4 << 20


def write_whole(path: str | Path, data: bytes | Iterable[bytes | memoryview]) -> None:
    """Write a file that is there completely or not at all, also after a power cut.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and take the name in one step.

    Args:
        path: The file; its folder exists. A file that is there already is replaced.
        data: All of its content, or parts of it in their order.

    Raises: OSError that names the file; what was at ``path`` before is still there.
    """
    write_together({Path(path): data})


def write_together(contents: Mapping[Path, bytes | Iterable[bytes | memoryview]]) -> None:
    """:func:`write_whole` of several files: none takes its name before all of them are on the disk."""
    partials: dict[Path, Path] = {}
    path = Path()
    try:
        for path, data in contents.items():
            partials[path] = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
            with partials[path].open("xb") as file:
                file.writelines([data] if isinstance(data, bytes) else data)
                file.flush()
                os.fsync(file.fileno())
        for path, partial in partials.items():
            os.replace(partial, path)
        for folder in {path.parent for path in contents}:
            _flush_folder(folder)
    except OSError as error:
        raise OSError(f"{str(path)!r} cannot be written: {error.strerror}") from error
    finally:
        for partial in partials.values():
            with suppress(OSError):  # also when the folder is gone: the first error is the one to report
                partial.unlink(missing_ok=True)


def check_regular(path: str | Path) -> int:
    """The size in bytes of a regular file, or of the regular file that a link points to.

    Raises: FileNotFoundError; ValueError for a folder, a pipe, a socket or a device, whose reading may never end.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {str(path)!r}") from error
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(status.st_mode), "a device")
        raise ValueError(f"{str(path)!r} must be a regular file, got {kind}")
    return status.st_size


def read_json(path: str | Path, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """The content of a JSON file, whose numbers are all finite.

    Raises: FileNotFoundError; ValueError of one line that names the file when it is not a regular file, larger than
        ``max_bytes``, cut short, not JSON, nested too deeply, or holds NaN or an infinite number.
    """
    size = check_regular(path)
    if size > max_bytes:
        raise ValueError(f"{str(path)!r} has {size_text(size)}, more than the {size_text(max_bytes)} that are read")
    try:
        return json.loads(Path(path).read_bytes(), parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError as error:
        raise ValueError(f"{str(path)!r} is cut short or not JSON: it is nested too deeply") from error
    except ValueError as error:  # also of bytes that are not UTF-8, and of whole numbers of too many digits
        raise ValueError(f"{str(path)!r} is cut short or not JSON: {error}") from error


def size_text(num_bytes: int) -> str:
    """``1.5 GB`` and the like."""
    size, units = float(num_bytes), ["bytes", "kB", "MB", "GB", "TB", "PB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.4g} {units[0]}"


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # file systems that cannot flush a folder say so by EINVAL
            raise
    finally:
        os.close(descriptor)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text} is too large")
    return number
