"""MNIST and Fashion-MNIST through torchvision, which is imported here and nowhere else."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import platformdirs
import torch

from pyrovae.data.files import Source, first_line
from pyrovae.files import check_regular, size_text

__all__ = ["read_torchvision"]

MOST_BYTES = 100_000_000  # of a file; the largest of MNIST and of Fashion-MNIST has 47 MB


def read_torchvision(name: str, data_dir: str | Path | None) -> Source:
    """A data set of torchvision's by its class name, from ``data_dir``, ``PYROVAE_DATA`` or the user's cache."""
    datasets = _import_torchvision()
    root = Path(data_dir or os.environ.get("PYROVAE_DATA") or platformdirs.user_cache_dir("pyrovae")).expanduser()
    train, test = _open_or_download(getattr(datasets, name), root)
    x, x_test = (d.data.flatten(1).float() / 255 for d in (train, test))
    return Source(x, (1, 28, 28), train.targets, x_test, test.targets)


def _check_sizes(folder: Path) -> None:
    """Refuse a file that torchvision would read and that is larger than one of such a data set."""
    for path in (*folder.glob("raw/*-ubyte"), *folder.glob("processed/*.pt")):
        try:
            size = check_regular(path)
        except ValueError as error:
            raise ValueError(f"data: {error}") from error
        if size > MOST_BYTES:
            raise ValueError(
                f"data: {str(path)!r} has {size_text(size)}, more than the {size_text(MOST_BYTES)} that are read: "
                f"remove {str(folder)!r} to download it anew"
            )


def _import_torchvision() -> ModuleType:
    try:
        from torchvision import datasets
    except Exception as error:  # a mismatched build fails in many ways: missing symbols, operators, attributes
        raise ImportError(
            f"torchvision cannot be imported beside torch {torch.__version__} ({first_line(error)}): "
            f"install matching builds, pip install --upgrade torch torchvision"
        ) from error
    return datasets


def _open_or_download(cls: Any, root: Path) -> tuple[Any, Any]:
    folder = root / cls.__name__
    _check_sizes(folder)
    try:
        return cls(root, train=True), cls(root, train=False)
    except RuntimeError as error:
        if folder.exists():  # torchvision sees files, but not all of them or not whole
            raise FileNotFoundError(
                f"data: {str(folder)!r} is there but not whole: complete it, or remove it to download it anew"
            ) from error
    except (OSError, ValueError) as error:
        raise FileNotFoundError(f"data: {str(folder)!r} cannot be read: {first_line(error)}") from error
    try:
        with tempfile.TemporaryDirectory() as partial:  # moved into place when it is whole, and only then
            cls(partial, download=True)
            root.mkdir(parents=True, exist_ok=True)
            shutil.move(Path(partial) / cls.__name__, folder)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"data: {cls.__name__} is not in {str(root)!r} and cannot be downloaded ({first_line(error)}): name the "
            f"folder that holds {cls.__name__}/raw with --data-dir or PYROVAE_DATA"
        ) from error
    return cls(root, train=True), cls(root, train=False)
