"""Tensors in: the built-in data sets, a user's own files, batches."""

from pyrovae.data.batching import batches
from pyrovae.data.sets import (
    NAMES,
    Data,
    binarized,
    digits,
    fashion_mnist,
    from_file,
    load,
    mnist,
    patches,
    rows,
    split,
)
from pyrovae.data.standardization import Standardization
from pyrovae.data.texts import text
from pyrovae.data.vocabulary import Vocabulary

__all__ = [
    "NAMES",
    "Data",
    "Standardization",
    "Vocabulary",
    "batches",
    "binarized",
    "digits",
    "fashion_mnist",
    "from_file",
    "load",
    "mnist",
    "patches",
    "rows",
    "split",
    "text",
]
