"""Rows of one or several ``.npy`` files, read by their position and never held as a whole."""

from __future__ import annotations

import bisect
import itertools
import math
import os
import reprlib
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pyrovae.data.limits import array_header, half_of_memory
from pyrovae.files import check_regular, size_text

__all__ = ["IMAGE_SUFFIXES", "Ranges", "Shards", "exceeds_memory", "is_shards", "shard_paths"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")

Array = np.ndarray[Any, Any]
Ranges = Iterable[tuple[int, int]]


class Shard(NamedTuple):
    """One file, as it was when its header was read."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int  # of the first row, in bytes
    size: int  # of the file, in bytes
    modified: int  # nanoseconds


class Shards:
    """Files of rows of one shape and one dtype, as one sequence of rows in the order of the files.

    A file is opened to read some of its rows and closed again. Its rows are read, not mapped: a file that is truncated
    meanwhile is an error, where a memory map would end the process by the signal SIGBUS.

    Args:
        paths: One ``.npy`` file or several, see :func:`shard_paths`.

    Attributes: ``num_rows``, ``row_shape``, ``dtype`` and ``row_bytes`` of the file.
    Raises: FileNotFoundError, or ValueError that names the file and what is wrong with it.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.shards = [_shard(path) for path in paths]
        first = self.shards[0]
        for other in self.shards:
            if (other.shape[1:], other.dtype) != (first.shape[1:], first.dtype):
                raise ValueError(
                    f"data: {other.path.name} has rows of shape {other.shape[1:]} in {other.dtype}, and "
                    f"{first.path.name} of shape {first.shape[1:]} in {first.dtype}: shards must have equal rows"
                )
        self.starts = [0, *itertools.accumulate(shard.shape[0] for shard in self.shards)]
        self.num_rows, self.row_shape, self.dtype = self.starts[-1], first.shape[1:], first.dtype
        self.row_bytes = math.prod(self.row_shape) * self.dtype.itemsize
        if self.num_rows == 0 or self.row_bytes == 0:
            raise ValueError(f"data: {first.path.name} must have rows and columns, got shape {first.shape}")

    def read(self, ranges: Ranges) -> Array:
        """The rows from ``start`` to before ``stop`` of each range, one range after the other.

        Raises: ValueError that names a file which has changed since its header was read; OSError of the disk.
        """
        ranges = list(ranges)
        rows = np.empty((sum(stop - start for start, stop in ranges), *self.row_shape), self.dtype)
        to, opened = rows.reshape(-1).view(np.uint8).data, -1
        with ExitStack() as files:
            for start, stop in ranges:
                while start < stop:
                    number = bisect.bisect_right(self.starts, start) - 1
                    shard, first = self.shards[number], self.starts[number]
                    if number != opened:
                        files.close()
                        file, opened = files.enter_context(_opened(shard)), number
                    num_bytes = (min(stop, self.starts[number + 1]) - start) * self.row_bytes
                    _read_into(file, shard, shard.offset + (start - first) * self.row_bytes, to[:num_bytes])
                    start, to = start + num_bytes // self.row_bytes, to[num_bytes:]
        return rows


def shard_paths(path: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files of a ``.npy`` file, of a folder of such files in the order of their names, or of a list of files.

    Raises: FileNotFoundError or ValueError for other paths.
    """
    if not isinstance(path, str | Path):
        if not isinstance(path, Sequence) or not path or not all(isinstance(each, str | Path) for each in path):
            raise ValueError(f"path must be a file, a folder or a list of files, got {reprlib.repr(path)}")
        return [file for each in path for file in shard_paths(each)]
    path = Path(path)
    files = sorted(each for each in path.glob("*.npy") if each.name[0] != ".") if path.is_dir() else [path]
    if not files:
        raise ValueError(f"data: the folder {path.name} holds no .npy files")
    for file in files:
        if file.suffix.lower() != ".npy":
            raise ValueError(
                f"data: {file.name} cannot be read in blocks: write its rows as .npy files, by numpy.save(...)"
            )
    return files


def is_shards(folder: Path) -> bool:
    """Whether a folder holds ``.npy`` files, and no images in itself or in its folders."""
    has_arrays = any(folder.glob("*.npy"))
    return has_arrays and not any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.rglob("*"))


def exceeds_memory(path: Path) -> bool:
    """Whether a ``.npy`` file, or a folder of them, has rows that take more than half of the machine's memory."""
    if not (is_shards(path) if path.is_dir() else path.is_file() and path.suffix.lower() == ".npy"):
        return False
    try:
        shards = Shards(shard_paths(path))
    except ValueError:  # such as contiguous columns, which can be held in memory
        return False
    return shards.num_rows * max(shards.row_bytes, 4 * math.prod(shards.row_shape)) > half_of_memory()


def _shard(path: Path) -> Shard:
    try:
        check_regular(path)
        with path.open("rb") as file:
            header, offset, status = array_header(file), file.tell(), os.fstat(file.fileno())
        if header.dtype.kind not in "biuf":
            raise ValueError(f"it must hold real numbers, got {header.dtype}")
        if header.fortran_order:
            raise ValueError("its columns are contiguous, not its rows: numpy.save(path, numpy.ascontiguousarray(x))")
        if not header.shape:
            raise ValueError("it must hold rows, got a single number")
        if offset + header.num_bytes > status.st_size:
            raise ValueError(f"its header says {size_text(header.num_bytes)}, and it holds less")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"data: there is no file {str(path)!r}") from error
    except (ValueError, OSError) as error:
        raise ValueError(f"data: {path.name} cannot be read in blocks: {error}") from error
    shape = header.shape if len(header.shape) > 1 else (*header.shape, 1)
    return Shard(path.absolute(), shape, header.dtype, offset, status.st_size, status.st_mtime_ns)


def _opened(shard: Shard) -> FileIO:
    try:
        file = FileIO(shard.path)
    except OSError as error:
        raise ValueError(f"data: {shard.path.name} cannot be read any more: {error.strerror}") from error
    status = os.fstat(file.fileno())
    if (status.st_size, status.st_mtime_ns) != (shard.size, shard.modified):
        file.close()
        sizes = f"it had {size_text(shard.size)} and has {size_text(status.st_size)}"
        raise ValueError(f"data: {shard.path.name} was changed while it was in use: {sizes}; bring back the file")
    return file


def _read_into(file: FileIO, shard: Shard, offset: int, to: memoryview) -> None:
    try:
        file.seek(offset)
        while to:
            done = file.readinto(to)
            if not done:
                raise ValueError(f"data: {shard.path.name} was truncated while it was read: bring back the file")
            to = to[done:]
    except OSError as error:
        raise OSError(f"data: {shard.path.name} cannot be read: {error.strerror}") from error
