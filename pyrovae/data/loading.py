"""``Loader``: a data set as passes of batches, on the device and in the dtype of the parameters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyrovae.data.batching import batches
from pyrovae.data.on_disk import OnDisk
from pyrovae.data.placement import placed, sent
from pyrovae.processes import Processes, share
from pyrovae.rows import Rows, check_rows, is_rows, joined, moved, num_rows, tensors
from pyrovae.schema import check, whole

__all__ = ["Loader", "Source"]

Source = Rows | Dataset[object] | Iterable[object]
KNOWN = 100  # rows on the disk that are looked at before the first pass


class Loader:
    """A data set in batches: each iteration is one pass over it.

    Args:
        data: A tensor, a tuple of tensors with one row for each datum, rows on the disk, a Dataset, or batches that can
            be iterated over.
        batch_size: Rows of a batch; None is all of them.
        like: A tensor on the device and in the dtype that batches are to have; None leaves them as they are.
        shuffle: Whether each pass has an order of its own.
        transform: Applied to each batch, or to the first tensor of it.
        num_tensors: Number of tensors that are kept of each item of a Dataset or a stream.
        name: What an error calls the data.
        processes: Each takes its share of every batch; ``batch_size`` is the number of rows of all shares together.

    Attributes: ``num_rows`` and ``num_batches`` of a pass, infinite for a stream, which does not say its length.
    Raises: ValueError for data that are not tensors of real numbers, if ``batch_size`` is not a positive whole number,
        and if it is None and the data come in batches of their own.
    """

    def __init__(
        self,
        data: Source,
        batch_size: int | None,
        like: Tensor | None = None,
        *,
        shuffle: bool = True,
        transform: Callable[[Tensor], Tensor] | None = None,
        num_tensors: int = 1,
        name: str = "data",
        processes: Processes | None = None,
    ) -> None:
        _check_source(name, data)
        if batch_size is not None:
            check("batch_size", batch_size, whole(1))
            batch_size = int(batch_size)  # of NumPy
        self.data, self.like, self.shuffle, self.transform = placed(data, like), like, shuffle, transform
        self.num_tensors, self.name, self.processes = num_tensors, name, processes
        self.num_rows = float(num_rows(data)) if is_rows(data) else _length(getattr(data, "dataset", data))
        self.is_set = math.isfinite(self.num_rows) and (is_rows(data) or isinstance(data, Dataset))
        if batch_size is None and not self.is_set:
            raise ValueError(
                f"batch_size=None is the whole set at each step, and {name} comes in batches: use a tensor"
            )
        if processes is not None and not self.is_set:
            raise ValueError(
                f"{name} comes in batches, which several processes cannot share: use a tensor or a Dataset"
            )
        if batch_size is None and isinstance(data, OnDisk):
            raise ValueError(f"batch_size=None is the whole set at each step, and {name} is on the disk: give a number")
        self.batch_size = max(int(self.num_rows), 1) if batch_size is None else batch_size
        rows = self.num_rows / max(self.batch_size, 1)
        self.num_batches = _length(data) if hasattr(data, "dataset") else rows if rows == math.inf else math.ceil(rows)

    def size_of(self, batch: int) -> int:
        """The rows of a batch of a set, by its number from 0, in all processes together."""
        return min(self.batch_size, int(self.num_rows) - batch * self.batch_size)

    @property
    def known(self) -> Rows | None:
        """Rows that are known before the first pass: all of a tensor, some of those on the disk, none of others."""
        if isinstance(self.data, OnDisk):
            rows = tensors(self.data.sample(KNOWN))[: self.num_tensors]
            return moved(joined(rows), rows[0] if self.like is None else self.like)
        return self.data if is_rows(self.data) else None

    def batches(self, generator: torch.Generator | None = None, skip: int = 0) -> Iterator[Rows]:
        """One pass, in an order drawn from the generator or from torch's own random state, after its first batches.

        Batches that are skipped are drawn, except those of rows on the disk, which are not read.
        """
        source, drawn = self.data, skip
        if isinstance(source, OnDisk):
            own, drawn = partial(share, processes=self.processes), 0
            source = source.batches(self.batch_size, shuffle=self.shuffle, generator=generator, skip=skip, part=own)
        passes = batches(
            source,
            self.batch_size,
            shuffle=self.shuffle,
            transform=self.transform,
            generator=generator,
            num_tensors=self.num_tensors,
            processes=self.processes,
        )
        passes = sent(passes, self.like)
        for _ in itertools.islice(passes, drawn):
            pass
        return passes


def _check_source(name: str, data: object) -> None:
    """Refuse tensors without real numbers, and what holds numbers instead of tensors."""
    check_rows(name, data)
    first = data[0] if isinstance(data, list | tuple) and data else None
    if isinstance(data, np.memmap):
        raise ValueError(f"{name} must be a tensor or rows on the disk, got memmap: pyrovae.data.OnDisk(path)")
    if isinstance(data, np.ndarray) or isinstance(first, list | int | float):
        raise ValueError(
            f"{name} must be a tensor, a Dataset or batches of tensors, got {type(data).__name__}: "
            f"torch.as_tensor({name}, dtype=torch.float32)"
        )
    if isinstance(data, str | bytes | dict) or not (hasattr(data, "__iter__") or hasattr(data, "__getitem__")):
        instead = f": pyrovae.data.load({data!r})" if isinstance(data, str) else ""
        raise ValueError(
            f"{name} must be a tensor, a Dataset or batches of tensors, got {type(data).__name__}{instead}"
        )


def _length(data: object) -> float:
    try:
        return float(len(data))  # type: ignore[arg-type]  # a TypeError tells that it has no length
    except TypeError:
        return math.inf
