"""How much memory a data file may take, which is known before it is read."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pyrovae.files import size_text

__all__ = ["ArrayHeader", "array_header", "check_size", "check_zip", "half_of_memory"]

HEADERS: dict[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def half_of_memory() -> int:
    """Half of the machine's memory, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def check_size(num_bytes: int, max_bytes: int | None) -> None:
    """ValueError where data would take more than ``max_bytes``; None is half of the machine's memory."""
    limit = half_of_memory() if max_bytes is None else max_bytes
    if num_bytes > limit:
        raise ValueError(
            f"it takes {size_text(num_bytes)} of memory, and the limit is {size_text(limit)}: max_bytes= sets another; "
            f"on_disk=True, or --on-disk, reads .npy files in blocks"
        )


class ArrayHeader(NamedTuple):
    """What the header of a ``.npy`` file says of its array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    num_bytes: int
    fortran_order: bool


def array_header(file: Any) -> ArrayHeader:
    """The header of an array in the format of NumPy; nothing else is read."""
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"it has the format {version} of NumPy: the versions 1 and 2 are read")
    shape, fortran_order, dtype = HEADERS[version](file)
    if min(shape, default=0) < 0:
        raise ValueError(f"its header says the shape {shape}")
    return ArrayHeader(shape, dtype, math.prod(shape) * dtype.itemsize, fortran_order)


def check_zip(path: Path, max_bytes: int | None, stored: bool = False) -> None:
    """ValueError where what a zip file holds would take too much; ``stored`` refuses what is compressed too."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    check_size(sum(member.file_size for member in members), max_bytes)
    if stored and any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("it is compressed, which torch.save does not do")
