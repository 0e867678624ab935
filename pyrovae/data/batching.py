"""Batches: cut from a tensor by indexing it, or taken as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from pyrovae.processes import Processes, share
from pyrovae.rows import Rows, check_rows, cut, data_of, each, is_rows, num_rows, tensors

__all__ = ["batches"]


def batches(
    x: Rows | Dataset[Any] | Iterable[Any],
    batch_size: int = 128,
    *,
    shuffle: bool = True,
    transform: Callable[[Tensor], Tensor] | None = None,
    generator: torch.Generator | None = None,
    num_tensors: int = 1,
    processes: Processes | None = None,
) -> Iterator[Any]:
    """One pass over x in batches. A tensor is cut by rows and never copied, a tuple of tensors alike into tuples; a
    Dataset goes through a DataLoader, and whatever else can be iterated is taken as it is.

    Args:
        x: ``(N, *event_shape)``, a tuple of tensors of N rows each, a Dataset, or a DataLoader.
        batch_size: The last batch may be smaller.
        shuffle: Whether the rows come in a new random order.
        transform: Applied to each batch, of several tensors to the first.
        generator: Of the order; None is torch's own.
        num_tensors: How many are kept of what a Dataset or a loader gives: of ``(x, label)`` the first is, by itself,
            unless it is 2.
        processes: Each takes its share of every batch, of the same order; a Dataset must be one with indices.

    Raises: ValueError if ``batch_size`` is not positive, or tensors differ in their numbers of rows.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    source: Iterable[Any]
    if is_rows(x):
        source, num_tensors = _cut(x, batch_size, shuffle, generator, processes), len(tensors(x))
    elif isinstance(x, Dataset) and processes is not None:
        num = len(x)  # type: ignore[arg-type]  # Loader refuses a Dataset without a length
        order = torch.randperm(num, generator=generator) if shuffle else torch.arange(num)
        source = DataLoader(
            x, batch_sampler=[rows[share(len(rows), processes)].tolist() for rows in order.split(batch_size)]
        )
    elif isinstance(x, Dataset):
        streams = isinstance(x, IterableDataset)  # which has an order of its own
        source = DataLoader(x, batch_size, shuffle=shuffle and not streams, generator=generator)
    else:
        source = x
    for batch in source:
        if isinstance(batch, (tuple, list)):
            batch = batch[0] if num_tensors == 1 else tuple(batch[:num_tensors])
        if transform is not None:
            batch = (transform(batch[0]), *batch[1:]) if isinstance(batch, tuple) else transform(batch)
        yield batch


def _cut(
    x: Rows, batch_size: int, shuffle: bool, generator: torch.Generator | None, processes: Processes | None
) -> Iterator[Rows]:
    check_rows("data", x)
    if not shuffle:
        for batch in cut(x, batch_size):
            own = share(num_rows(batch), processes)
            yield each(itemgetter(own), batch)
        return
    order = torch.randperm(num_rows(x), generator=generator).to(data_of(x).device)
    for rows in order.split(batch_size):
        yield each(partial(torch.index_select, dim=0, index=rows[share(len(rows), processes)]), x)
