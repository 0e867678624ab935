"""Tensors in: the built-in data sets, synthetic data with known codes, a user's own files, batches."""

from pyrovae.data import synthetic
from pyrovae.data.batching import batches
from pyrovae.data.files import column_names
from pyrovae.data.on_disk import OnDisk, Statistics
from pyrovae.data.sets import (
    NAMES,
    Data,
    binarized,
    digits,
    fashion_mnist,
    from_file,
    image_shape,
    load,
    mnist,
    patches,
    rows,
    split,
)
from pyrovae.data.shards import exceeds_memory
from pyrovae.data.standardization import Standardization
from pyrovae.data.texts import text
from pyrovae.data.vocabulary import Vocabulary

__all__ = [
    "NAMES",
    "Data",
    "OnDisk",
    "Standardization",
    "Statistics",
    "Vocabulary",
    "batches",
    "binarized",
    "column_names",
    "digits",
    "exceeds_memory",
    "fashion_mnist",
    "from_file",
    "image_shape",
    "load",
    "mnist",
    "patches",
    "rows",
    "split",
    "synthetic",
    "text",
]
