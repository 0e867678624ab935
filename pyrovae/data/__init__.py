"""Tensors in: the built-in data sets, a user's own files, batches."""

from pyrovae.data.sets import (
    NAMES,
    Data,
    batches,
    digits,
    fashion_mnist,
    from_file,
    load,
    mnist,
    patches,
    rows,
    split,
)

__all__ = [
    "NAMES",
    "Data",
    "batches",
    "digits",
    "fashion_mnist",
    "from_file",
    "load",
    "mnist",
    "patches",
    "rows",
    "split",
]
