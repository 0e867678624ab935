"""A user's own files as one tensor: tables, arrays, folders of images; each error names the file."""

from __future__ import annotations

import array
import csv
import itertools
import math
import warnings
import zipfile
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyrovae.data.limits import array_header, check_size, check_zip
from pyrovae.data.shards import IMAGE_SUFFIXES, Shards, shard_paths
from pyrovae.files import check_regular, size_text
from pyrovae.rows import check_dense

__all__ = [
    "TABLE_SUFFIXES",
    "Source",
    "column_names",
    "first_line",
    "image_shape_of",
    "read_images",
    "read_shards",
    "read_table",
]

WIDE = (torch.float64, torch.int32, torch.int64, torch.uint32, torch.uint64)  # which float32 may not hold
TABLE_SUFFIXES = (".npy", ".npz", ".csv", ".pt")


class Source(NamedTuple):
    """A data set as it comes: its rows in their own order, and those that are the test set already."""

    x: Tensor
    image_shape: tuple[int, int, int] | None = None
    labels: Tensor | None = None
    test: Tensor | None = None
    test_labels: Tensor | None = None

    def to(self, dtype: torch.dtype) -> Source:
        """The same with rows in this dtype."""
        return self._replace(x=self.x.to(dtype), test=None if self.test is None else self.test.to(dtype))


def read_table(path: Path, missing: bool = False, max_bytes: int | None = None) -> Tensor:
    """Its numbers in float32, or in float64 where float32 may not hold them; with ``missing`` an empty cell is NaN.

    Args:
        path: A regular file.
        missing: Whether an empty cell of a ``.csv`` is NaN, or an error.
        max_bytes: Of memory, at most; None is half of the machine's.
    """
    cells = partial(_read_csv, missing)
    reader: Any = {".npy": _read_npy, ".npz": _read_npz, ".csv": cells, ".pt": _read_pt}.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"data: {path.name} must be one of {', '.join(TABLE_SUFFIXES)} or a folder of images")
    try:
        check_size(check_regular(path), max_bytes)
        x = torch.as_tensor(reader(path, max_bytes)).detach()
        if x.dtype == torch.bool or not (x.is_complex() or x.dim() == 0):
            wide = x.dtype in WIDE
            check_size(x.numel() * (8 if wide else 4), max_bytes)
            return (x[:, None] if x.dim() == 1 else x).to(torch.float64 if wide else torch.float32)
    except Exception as error:  # each format has its own way to say that a file is cut short or another's
        raise ValueError(f"data: {path.name} cannot be read as {path.suffix}: {first_line(error)}") from error
    raise ValueError(f"data: {path.name} must hold real numbers in rows, got {x.dtype} of shape {tuple(x.shape)}")


def _read_npy(path: Path, max_bytes: int | None) -> np.ndarray[Any, Any]:
    with path.open("rb") as file:
        check_size(array_header(file).num_bytes, max_bytes)
    return np.load(path, allow_pickle=False)


def _read_npz(path: Path, max_bytes: int | None) -> np.ndarray[Any, Any]:
    check_zip(path, max_bytes)
    with zipfile.ZipFile(path) as archive:
        key = _only_key([name.removesuffix(".npy") for name in archive.namelist()])
        member = f"{key}.npy" if f"{key}.npy" in archive.namelist() else key
        with archive.open(member) as file:
            header = array_header(file)
        if header.num_bytes > archive.getinfo(member).file_size:
            raise ValueError(f"its header says {size_text(header.num_bytes)}, and it holds less")
        with archive.open(member) as file:
            return np.lib.format.read_array(file, allow_pickle=False)


def _read_pt(path: Path, max_bytes: int | None) -> Tensor:
    try:
        check_zip(path, max_bytes, stored=True)
    except zipfile.BadZipFile as error:  # also what torch wrote before version 1.6, whose sizes are not known before
        raise ValueError("it is cut short, or holds objects other than tensors, or is older than torch 1.6") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sparse and quantised tensors, which are refused below
            x = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch's own message advises to trust the file
        raise ValueError("it is cut short, or holds objects other than tensors") from error
    x = x[_only_key(list(x))] if isinstance(x, dict) else x
    if not isinstance(x, Tensor):
        raise ValueError(f"it must hold a dense tensor, got {type(x).__name__}")
    check_dense("it", x)
    if x.numel() * x.element_size() > path.stat().st_size:
        raise ValueError(
            f"its tensor repeats itself: {size_text(x.numel() * x.element_size())} with strides {x.stride()} in a file "
            f"of {size_text(path.stat().st_size)}; save x.contiguous()"
        )
    return x


def _only_key(keys: list[str]) -> str:
    if "x" in keys or len(keys) == 1:
        return "x" if "x" in keys else keys[0]
    raise ValueError(f"it must hold one array, or one called 'x', got {keys}")


def _read_csv(missing: bool, path: Path, max_bytes: int | None) -> np.ndarray[Any, Any]:
    # spreadsheets put a byte order mark before the first cell
    with path.open(newline="", encoding="utf-8-sig") as file:
        last = ""  # numbers, where the first line may be a header
        for line in file:
            last = line if line.strip() else last
    numbers = array.array("d")
    width, num_rows = 0, 0
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = (line for line in file if line.strip())
        rows = csv.reader(lines, delimiter=next((mark for mark in ";\t" if mark in last), ","))
        for number, row in enumerate(filter(None, rows), 1):
            if number == 1:
                width = len(row)
                if not all(_is_number(cell) or (missing and not cell.strip()) for cell in row):
                    continue
            if len(row) != width:
                raise ValueError(f"row {number} has {len(row)} columns, the first row {width}")
            numbers.extend(_number(cell, number, column, missing) for column, cell in enumerate(row, 1))
            num_rows += 1
            check_size(numbers.itemsize * len(numbers), max_bytes)
    if not num_rows:
        raise ValueError("it has no rows of numbers")
    return np.frombuffer(numbers, dtype=np.float64).reshape(num_rows, width)


def column_names(path: str | Path) -> list[str] | None:
    """The first line of a ``.csv`` file that is a header, with one name for each column; None of other data."""
    path = Path(path)
    if path.suffix.lower() != ".csv" or not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = list(itertools.islice((line for line in file if line.strip()), 2))
    names, *rest = (
        csv.reader(lines, delimiter=next((mark for mark in ";\t" if mark in lines[-1]), ",")) if lines else [[]]
    )
    return None if not rest or all(_is_number(cell) or not cell.strip() for cell in names) else names


def _number(cell: str, row: int, column: int, missing: bool) -> float:
    if missing and not cell.strip():
        return math.nan
    if not _is_number(cell):
        hint = "; decimals take a point" if _is_number(cell.replace(",", ".")) else ""
        if not cell.strip():
            hint = "; missing=True, or --missing, takes it for a value that is missing"
        raise ValueError(f"row {row} column {column} is not a number: {cell!r}{hint}")
    return float(cell)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def read_shards(folder: Path, missing: bool = False, max_bytes: int | None = None) -> Tensor:
    """The rows of all ``.npy`` files of a folder, in the order of their names, as :func:`read_table` reads each."""
    paths = shard_paths(folder)
    shards = Shards(paths)
    try:
        check_size(shards.num_rows * max(shards.row_bytes, 4 * math.prod(shards.row_shape)), max_bytes)
    except ValueError as error:
        raise ValueError(f"data: the folder {folder.name} cannot be read: {error}") from error
    return torch.cat([read_table(path, missing, max_bytes) for path in paths])


def image_shape_of(row_shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """``(C, H, W)`` of rows that are images, ``(H, W)`` or ``(C, H, W)``; None of other rows."""
    if len(row_shape) not in (2, 3):
        return None
    channels, height, width = (1, *row_shape) if len(row_shape) == 2 else row_shape
    return channels, height, width


def read_images(folder: Path, max_bytes: int | None = None) -> Tensor:
    """Images of one size in [0, 1], ``(N, C, H, W)``; their size is known before they are decoded."""
    from PIL import Image

    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise ValueError(f"data: the folder {folder.name} holds no images ({', '.join(IMAGE_SUFFIXES)})")
    images: list[np.ndarray[Any, Any]] = []
    for path in paths:
        try:
            check_size(check_regular(path), max_bytes)
            with Image.open(path) as image:
                check_size(4 * image.width * image.height * len(image.getbands()) * (len(images) + 1), max_bytes)
                images.append(_pixels(image))
        except Exception as error:  # a broken image may also be a SyntaxError or a DecompressionBombError
            raise ValueError(f"data: {path.name} cannot be read as an image: {first_line(error)}") from error
        if images[-1].shape != images[0].shape:
            raise ValueError(
                f"data: {path.name} has shape {images[-1].shape}, {paths[0].name} {images[0].shape}: "
                f"the images must have one size and be all grey or all colour"
            )
    x = torch.from_numpy(np.stack(images))
    return x[:, None] if x.dim() == 3 else x.permute(0, 3, 1, 2)


def _pixels(image: Any) -> np.ndarray[Any, Any]:
    """(H, W) or (H, W, 3) in [0, 1]. Pillow converts to 8 bits by clipping, so 16 bits are scaled here."""
    if image.mode == "F":
        raise ValueError("its pixels are floats, not of 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits of grey; some versions of Pillow open them as 32
        return np.asarray(image, dtype=np.float32) / 65535
    return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"), dtype=np.float32) / 255


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(":. ")
