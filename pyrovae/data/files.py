"""A user's own files as one tensor: tables, arrays, folders of images; each error names the file."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["IMAGE_SUFFIXES", "TABLE_SUFFIXES", "Source", "first_line", "read_images", "read_table"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
TABLE_SUFFIXES = (".npy", ".npz", ".csv", ".pt")


class Source(NamedTuple):
    """A data set as it comes: its rows in their own order, and those that are the test set already."""

    x: Tensor
    image_shape: tuple[int, int, int] | None = None
    labels: Tensor | None = None
    test: Tensor | None = None
    test_labels: Tensor | None = None


def read_table(path: Path, missing: bool = False) -> Tensor:
    """Its numbers; with ``missing`` an empty cell of a ``.csv`` is NaN."""
    cells = partial(_read_csv, missing)
    reader: Any = {".npy": _read_npy, ".npz": _read_npz, ".csv": cells, ".pt": _read_pt}.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"data: {path.name} must be one of {', '.join(TABLE_SUFFIXES)} or a folder of images")
    try:
        x = torch.as_tensor(reader(path)).detach()
    except Exception as error:  # each format has its own way to say that a file is cut short or another's
        raise ValueError(f"data: {path.name} cannot be read as {path.suffix}: {first_line(error)}") from error
    if x.dtype == torch.bool or not (x.is_complex() or x.dim() == 0):
        return (x[:, None] if x.dim() == 1 else x).float()
    raise ValueError(f"data: {path.name} must hold real numbers in rows, got {x.dtype} of shape {tuple(x.shape)}")


def _read_npy(path: Path) -> np.ndarray[Any, Any]:
    return np.load(path, allow_pickle=False)


def _read_npz(path: Path) -> np.ndarray[Any, Any]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:  # numpy leaves a truncated file open
        return arrays[_only_key(list(arrays))]


def _read_pt(path: Path) -> Tensor:
    try:
        x = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's own message advises to trust the file
        raise ValueError("it is cut short, or holds objects other than tensors") from error
    x = x[_only_key(list(x))] if isinstance(x, dict) else x
    if not isinstance(x, Tensor) or x.layout != torch.strided:
        raise ValueError(f"it must hold a dense tensor, got {getattr(x, 'layout', type(x).__name__)}")
    return x


def _only_key(keys: list[str]) -> str:
    if "x" in keys or len(keys) == 1:
        return "x" if "x" in keys else keys[0]
    raise ValueError(f"it must hold one array, or one called 'x', got {keys}")


def _read_csv(missing: bool, path: Path) -> np.ndarray[Any, Any]:
    # spreadsheets put a byte order mark before the first cell
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = [line for line in file if line.strip()]
    last = lines[-1] if lines else ""  # numbers, where the first may be a header
    rows = [row for row in csv.reader(lines, delimiter=next((mark for mark in ";\t" if mark in last), ",")) if row]
    first = 0 if not rows or all(_is_number(cell) or (missing and not cell.strip()) for cell in rows[0]) else 1
    if len(rows) == first:
        raise ValueError("it has no rows of numbers")
    for number, row in enumerate(rows[first:], first + 1):
        if len(row) != len(rows[0]):
            raise ValueError(f"row {number} has {len(row)} columns, the first row {len(rows[0])}")
        for column, cell in enumerate(row, 1):
            if missing and not cell.strip():
                row[column - 1] = "nan"
            elif not _is_number(cell):
                hint = "; decimals take a point" if _is_number(cell.replace(",", ".")) else ""
                if not cell.strip():
                    hint = "; missing=True, or --missing, takes it for a value that is missing"
                raise ValueError(f"row {number} column {column} is not a number: {cell!r}{hint}")
    return np.array(rows[first:], dtype=np.float32)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def read_images(folder: Path) -> Tensor:
    from PIL import Image

    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise ValueError(f"data: the folder {folder.name} holds no images ({', '.join(IMAGE_SUFFIXES)})")
    images = []
    for path in paths:
        try:
            with Image.open(path) as image:
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
