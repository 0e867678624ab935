"""Data where they are used: a set on the device of the parameters if it fits, or else its batches sent there."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from pyrovae.rows import data_of, each, is_rows, moved, tensors

__all__ = ["placed", "sent"]

PART = 0.5  # of the free memory of a device, at most, for a data set


def placed(x: Any, like: Tensor | None) -> Any:
    """Whole tensors in the dtype and on the device of ``like``, themselves where they are that already.

    Of several those after the first keep the dtype of whole numbers. What takes more than half of what is free there
    stays where and what it is; so does what is no tensor.
    """
    if like is None or not is_rows(x):
        return x
    data = data_of(x)
    if data.device != like.device and data.numel() * like.element_size() > PART * _free(like.device):
        return x
    return moved(x, like)


def sent(batches: Iterable[Any], like: Tensor | None) -> Iterator[Any]:
    """Each batch in the dtype and on the device of ``like``; to CUDA the next one goes while one is used."""
    if like is None:
        return iter(batches)
    if like.is_cuda:
        return _one_ahead(batches, *_over_a_stream(like))
    return (placed(batch, like) for batch in batches)


def _one_ahead(batches: Iterable[Any], send: Callable[[Any], Any], receive: Callable[[Any], Any]) -> Iterator[Any]:
    """``receive(send(batch))`` of each, the next one sent before one is used."""
    batches, on_its_way = iter(batches), deque[Any]()
    failed: Exception | None = None
    while True:
        try:
            on_its_way.append(send(next(batches)))
        except StopIteration:
            break
        except Exception as error:  # raised when the batches before it were used
            failed = error
            break
        if len(on_its_way) == 2:
            yield receive(on_its_way.popleft())
    yield from map(receive, on_its_way)
    if failed is not None:
        raise failed


def _over_a_stream(like: Tensor) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """How a batch is copied beside what runs on the device, and how it is waited for."""
    stream = torch.cuda.Stream(like.device)

    def send(batch: Any) -> Any:
        if not is_rows(batch) or data_of(batch).device == like.device:
            return batch
        with torch.cuda.stream(stream):
            return moved(each(Tensor.pin_memory, batch), like, non_blocking=True)

    def receive(batch: Any) -> Any:
        if not is_rows(batch):
            return batch
        current = torch.cuda.current_stream(like.device)
        current.wait_stream(stream)
        for tensor in tensors(batch):
            tensor.record_stream(current)  # its memory is not another's until this stream is done with it
        return moved(batch, like)

    return send, receive


def _free(device: torch.device) -> float:
    """Bytes, where a device has memory of its own."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf
