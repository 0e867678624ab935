"""``OnDisk``: rows that stay on the disk and are read in blocks, for data that do not fit in memory."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyrovae.data.shards import Ranges, Shards, shard_paths
from pyrovae.data.standardization import Moments, Standardization
from pyrovae.rows import Rows, each, tensors
from pyrovae.schema import check, optional, whole

__all__ = ["OnDisk", "Statistics"]

BUFFER_BYTES, BLOCK_BYTES = 128 << 20, 1 << 20
INDEX_BYTES = 24  # of a row in a buffer, beside its values
HASHED_ROWS, HASHED_BYTES = 1000, 64 << 20
STATISTICS_BYTES = 16 << 20  # of the float64 of a block

Array = np.ndarray[Any, Any]


class Statistics(NamedTuple):
    """What one pass over all rows finds out.

    Args:
        low: The least value.
        high: The largest value.
        binary: Whether all values are 0 or 1.
        num_missing: Number of NaN.
        standardization: Mean and standard deviation of each column.
    """

    low: float
    high: float
    binary: bool
    num_missing: int
    standardization: Standardization


class Buffer(NamedTuple):
    """Rows as the file has them, their numbers in the file, and which of them come next, in their order."""

    rows: Array
    numbers: Array
    order: Array


class OnDisk(Dataset[Rows]):
    r"""Rows of ``.npy`` files that stay on the disk: ``pv.fit(vae, pv.data.OnDisk("big.npy"))``.

    A pass reads the rows in blocks of contiguous rows. Many blocks, drawn at random, make a buffer; the rows of a
    buffer are shuffled together and cut into batches, while a thread reads the next buffer. At most two buffers are in
    memory. Every row comes once in a pass. The order is a function of the random state at the start of the pass, and a
    pass that begins in its middle does not read the buffers before.

    How far this is from a full shuffle: data that fit in one buffer are shuffled in full. Otherwise two rows of one
    block always come in the same buffer. With K blocks to a buffer, the mean of a function over the rows of a buffer
    has a variance of about :math:`\sigma_b^2 (1/K - 1/M)` over passes, for M blocks in all and the variance
    :math:`\sigma_b^2` of the means of blocks; under a full shuffle it would be smaller by the number of rows of a block
    where rows of one block are alike. K is 128 by default. Rows in an order of their own, such as sorted by class,
    are better shuffled once on the disk.

    Args:
        path: A ``.npy`` file of N rows, a folder of such files, or a list of them: shards of rows of one shape and one
            dtype, in the order of their names or of the list. Real numbers of any dtype; batches are float32.
        labels: One whole number for each row, ``(N,)``, kept in memory: batches are then ``(x, y)``.
        missing: Whether NaN stands for missing values; otherwise :meth:`statistics` refuses it.
        buffer_rows: Rows that are shuffled together; None is as many as take 128 MiB.
        block_rows: Contiguous rows that are read together; None is as many as take 1 MiB, at least one.

    Shape: ``len(data)`` rows of ``event_shape``. ``data[i]`` is row i.
    Raises: FileNotFoundError, or ValueError that names the file. A file that is changed or truncated while it is in use
        is a ValueError at the next buffer; bytes that are overwritten during the read of a buffer are not noticed.
    """

    def __init__(
        self,
        path: str | Path | Sequence[str | Path],
        labels: Tensor | None = None,
        *,
        missing: bool = False,
        buffer_rows: int | None = None,
        block_rows: int | None = None,
    ) -> None:
        check("buffer_rows", buffer_rows, optional(whole(1)))
        check("block_rows", block_rows, optional(whole(1)))
        self._shards, self.labels, self.missing = Shards(shard_paths(path)), labels, missing
        num, row_bytes = self._shards.num_rows, self._shards.row_bytes + INDEX_BYTES
        if labels is not None and not isinstance(labels, Tensor):
            raise ValueError(f"labels must be a tensor of {num} whole numbers, got {type(labels).__name__}")
        if labels is not None and labels.shape != (num,):
            raise ValueError(f"labels must be one for each of {num} rows, got shape {tuple(labels.shape)}")
        self.buffer_rows = buffer_rows or max(1, BUFFER_BYTES // row_bytes)
        self.block_rows = min(block_rows or max(1, BLOCK_BYTES // row_bytes), self.buffer_rows)
        self.event_shape: tuple[int, ...] = self._shards.row_shape
        self.standardization: Standardization | None = None
        self.name = Path(path).name if isinstance(path, str | Path) else f"{len(path)} files"
        self._left_out: Array = np.empty(0, np.int64)
        self._statistics: Statistics | None = None

    def __len__(self) -> int:
        return self._shards.num_rows - len(self._left_out)

    def __getitem__(self, index: int) -> Rows:
        if isinstance(index, bool) or not isinstance(index, Integral):
            raise TypeError(f"index must be a whole number, got {index!r}: rows([...]) reads several rows")
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} rows")
        return each(lambda x: x[0], self.rows(np.array([index % len(self)])))

    def __repr__(self) -> str:
        return f"OnDisk({self.name!r}, {len(self)} rows of {self.event_shape}, {self._shards.dtype})"

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, *event_shape)``."""
        return (len(self), *self.event_shape)

    def reshape(self, event_shape: tuple[int, ...]) -> OnDisk:
        """The same rows in another shape."""
        if math.prod(event_shape) != math.prod(self.event_shape):
            raise ValueError(f"rows of shape {self.event_shape} cannot have the shape {event_shape}")
        return self._changed(event_shape=tuple(event_shape))

    def standardize(self, standardization: Standardization) -> OnDisk:
        """The same rows, standardised in float64 before they are rounded to float32."""
        return self._changed(standardization=standardization)

    def without(self, index: Array) -> OnDisk:
        """The same rows except those of these indices."""
        left_out = np.union1d(self._left_out, self._numbers(np.asarray(index, np.int64)))
        return self._changed(_left_out=left_out, _statistics=None)

    def with_statistics(self, statistics: Statistics) -> OnDisk:
        """The same rows, with statistics that were measured before: no pass over the rows is needed for them."""
        return self._changed(_statistics=statistics)

    def rows(self, index: Array) -> Rows:
        """The rows of these indices, in memory."""
        numbers = self._numbers(np.asarray(index, np.int64))
        order = np.argsort(numbers, kind="stable")
        edges = np.flatnonzero(np.diff(numbers[order], prepend=-2) != 1)
        starts = numbers[order][edges]
        rows = self._shards.read(zip(starts, starts + np.diff(edges, append=len(order)), strict=True))
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return self._made(rows[back], numbers)

    def sample(self, num: int) -> Rows:
        """So many rows at most, evenly spaced."""
        return self.rows(np.linspace(0, len(self) - 1, min(num, len(self))).round().astype(np.int64))

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = True,
        generator: torch.Generator | None = None,
        skip: int = 0,
        part: Callable[[int], slice] = slice,
    ) -> Iterator[Rows]:
        """One pass in batches of ``(batch_size, *event_shape)``, the last of which may be smaller.

        Args:
            batch_size: Rows of a batch.
            shuffle: Whether the pass has a random order, drawn now.
            generator: Of the order; None is torch's own random state.
            skip: Number of batches that the pass begins after.
            part: The part of a batch that is wanted, by the number of rows of the batch.
        """
        check("batch_size", batch_size, whole(1))
        seed = int(torch.randint(2**63 - 1, (), generator=generator)) if shuffle else None
        return self._pass(batch_size, seed, skip * batch_size, part)

    def statistics(self) -> Statistics:
        """Statistics of all rows as the files have them, in float64 and in one pass; they are kept.

        Raises: ValueError for an infinite value, and for NaN without ``missing``.
        """
        if self._statistics is None:
            plain = self._changed(labels=None, standardization=None)
            moments, binary, seen, missing = Moments(), True, 0, 0
            size = max(1, STATISTICS_BYTES // (8 * math.prod(self.event_shape)))
            for rows in plain._pass(size, None, 0, slice, torch.float64):
                (x,) = tensors(rows)
                holes = x.isnan()
                bad = x.isinf() if self.missing else ~x.isfinite()
                if bad.any():
                    first, *place = (int(i) for i in bad.nonzero()[0])
                    value, number = x[(first, *place)].item(), int(self._numbers(np.array([seen + first]))[0])
                    hint = "; missing=True, or --missing, takes NaN for what is missing" if math.isnan(value) else ""
                    raise ValueError(f"data: {self.name} has {value} at index {(number, *place)}{hint}")
                missing, seen = missing + int(holes.sum()), seen + len(x)
                binary = binary and bool(((x == 0) | (x == 1) | holes).all())
                moments.add(x)
            low, high = float(moments.low.min()), float(moments.high.max())
            self._statistics = Statistics(low, high, binary, missing, moments.standardization())
        return self._statistics

    def fingerprint(self) -> str:
        """A hash of the sizes of all files, of the rows that are left out and of up to 1,000 rows, evenly spaced.

        A change of other rows is not noticed. The hash knows neither the names nor the places of the files.
        """
        total = hashlib.sha256(repr([shard[1:5] for shard in self._shards.shards]).encode())
        total.update(self._left_out.tobytes())
        num = min(HASHED_ROWS, max(1, HASHED_BYTES // (4 * math.prod(self.event_shape))))
        for x in tensors(self.sample(num)):
            total.update(x.contiguous().numpy().tobytes())
        return total.hexdigest()

    def _changed(self, **attributes: object) -> OnDisk:
        other = copy.copy(self)
        vars(other).update(attributes)
        return other

    def _numbers(self, index: Array) -> Array:
        """The numbers in the files of rows by their indices."""
        passed = self._left_out - np.arange(len(self._left_out))
        return index + np.searchsorted(passed, index, side="right")

    def _made(self, rows: Array, numbers: Array, dtype: torch.dtype = torch.float32) -> Rows:
        """Rows of the file as the batches have them."""
        wide = self.standardization is not None or dtype == torch.float64
        x = torch.from_numpy(np.ascontiguousarray(rows, np.float64 if wide else np.float32)).flatten(1)
        x = (x if self.standardization is None else self.standardization(x)).to(dtype)
        x = x.reshape(len(rows), *self.event_shape)
        return x if self.labels is None else (x, self.labels[torch.from_numpy(numbers)])

    def _pass(
        self,
        batch_size: int,
        seed: int | None,
        begin: int,
        part: Callable[[int], slice],
        dtype: torch.dtype = torch.float32,
    ) -> Iterator[Rows]:
        """The batches from row ``begin`` of the pass on."""
        left = len(self) - begin
        pieces: list[Rows] = []
        filled, size = 0, min(batch_size, left)
        for buffer in self._buffers(seed, begin):
            order = buffer.order
            while len(order):
                start, stop, _ = part(size).indices(size)
                piece = order[max(start - filled, 0) : max(min(stop, size) - filled, 0)]
                pieces.append(self._made(buffer.rows[piece], buffer.numbers[piece], dtype))
                taken = min(size - filled, len(order))
                filled, order = filled + taken, order[taken:]
                if filled == size:
                    yield _joined(pieces)
                    left, pieces = left - size, []
                    filled, size = 0, min(batch_size, left)
            del buffer, order  # before the one after the next is read

    def _buffers(self, seed: int | None, begin: int) -> Iterator[Buffer]:
        """The buffers of a pass, each read while the one before it is in use; the first ends with row ``begin``."""
        num_blocks = -(-self._shards.num_rows // self.block_rows)
        order = np.arange(num_blocks) if seed is None else np.random.default_rng(seed).permutation(num_blocks)
        together = self.buffer_rows // self.block_rows
        todo = []
        for number, first in enumerate(range(0, num_blocks, together)):
            blocks = np.sort(order[first : first + together])
            num = self._num_rows(blocks)
            if begin < num:
                todo.append((number, blocks, begin))
            begin = max(begin - num, 0)
        if not todo:
            return
        with ThreadPoolExecutor(1, "pyrovae-reader") as reader:  # ends with the pass, also when that is abandoned
            coming = reader.submit(self._buffer, seed, *todo[0])
            for after in todo[1:]:
                buffer, coming = coming.result(), reader.submit(self._buffer, seed, *after)
                yield buffer
                del buffer
            yield coming.result()

    def _buffer(self, seed: int | None, number: int, blocks: Array, begin: int) -> Buffer:
        """Read the rows of some blocks."""
        ranges = list(self._ranges(blocks))
        numbers = np.concatenate([np.arange(start, stop) for start, stop in ranges])
        order = np.flatnonzero(~np.isin(numbers, self._left_out))
        if seed is not None:
            order = np.random.default_rng((seed, number)).permutation(order)
        return Buffer(self._shards.read(ranges), numbers, order[begin:])

    def _ranges(self, blocks: Array) -> Ranges:
        for block in blocks.tolist():
            yield block * self.block_rows, min((block + 1) * self.block_rows, self._shards.num_rows)

    def _num_rows(self, blocks: Array) -> int:
        """Rows of some blocks, without those that are left out."""
        starts, stops = np.array(list(self._ranges(blocks))).T
        left_out = np.searchsorted(self._left_out, stops) - np.searchsorted(self._left_out, starts)
        return int((stops - starts - left_out).sum())


def _joined(pieces: list[Rows]) -> Rows:
    if len(pieces) == 1:
        return pieces[0]
    parts = [torch.cat(same) for same in zip(*map(tensors, pieces), strict=True)]
    return tuple(parts) if len(parts) > 1 else parts[0]
