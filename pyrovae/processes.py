"""``Processes``: the processes of torchrun that train one model together, each on its share of every batch."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = [
    "FailedElsewhereError",
    "LostProcessError",
    "Processes",
    "StoppedElsewhere",
    "agreed",
    "rank_of_torchrun",
    "share",
    "told",
]

T = TypeVar("T")
WAIT = timedelta(minutes=30)  # for a process that measures, compiles or reads data while the others wait
MOST = 4  # numbers that are added with the outcome of a step
STOPPED, DIVERGED, FAILED = range(3)  # outcomes, as positions in a vector of counts


class LostProcessError(RuntimeError):
    """A process that trains the model ended, or cannot be reached; the step under way was not taken."""


class FailedElsewhereError(RuntimeError):
    """Another process that trains the model has raised an error, which it shows."""


class StoppedElsewhere(Exception):  # not an error
    """Another process has ended the run as asked, by a callback."""


class Processes:
    """The group of processes that ``torchrun`` started, or that the caller has made by ``torch.distributed``.

    Each process calls the methods in the same order, and every result is the same in all of them.

    Args:
        device: Where the tensors are; a CUDA device communicates by NCCL, everything else by gloo.

    Attributes: ``rank``, from 0; ``size``, the number of processes.
    Raises: LostProcessError from each method where another process ended.
    """

    def __init__(self, device: torch.device) -> None:
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=WAIT)
            atexit.register(dist.destroy_process_group)
        self.device = device
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    @staticmethod
    def found(device: torch.device) -> Processes | None:
        """The processes that this one belongs to; None where it is alone."""
        made = dist.is_available() and dist.is_initialized()
        if not made and rank_of_torchrun() is None:
            return None
        processes = Processes(device)
        return processes if processes.size > 1 else None

    def add(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sum over all processes of each tensor."""
        sums: dict[torch.dtype, Tensor] = {}
        for dtype in dict.fromkeys(x.dtype for x in tensors):
            sums[dtype] = torch.cat([x.detach().reshape(-1) for x in tensors if x.dtype == dtype])
            self._reduce(sums[dtype])
        sizes = {dtype: [x.numel() for x in tensors if x.dtype == dtype] for dtype in sums}
        parts = {dtype: iter(flat.split(sizes[dtype])) for dtype, flat in sums.items()}
        return [next(parts[x.dtype]).view_as(x) for x in tensors]

    def copy_first(self, tensors: Sequence[Tensor]) -> None:
        """Give each tensor the value that it has in the first process."""
        for x in tensors:
            with torch.no_grad():
                first = x.detach().to(self.device).contiguous()
                self._called(partial(dist.broadcast, first, 0))
                x.copy_(first)

    def object_of_first(self, value: T) -> T:
        """The object of the first process."""
        values = [value]
        self._called(lambda: dist.broadcast_object_list(values, 0, device=self.device))
        return values[0]

    def agree(self, numbers: Sequence[float], size: int = 0) -> list[float]:
        """The sum over all processes of each number, where nothing went wrong in any of them.

        Args:
            numbers: At most four.
            size: A number that must be the same in all processes, such as that of the trained parameters.

        Raises: StoppedElsewhere, FloatingPointError or FailedElsewhereError where another process told of its end.
        """
        counts, totals = self._exchanged([0, 0, 0], numbers, size)
        if counts[STOPPED]:
            raise StoppedElsewhere
        if counts[DIVERGED]:
            raise FloatingPointError("the loss of another process became NaN")
        if counts[FAILED]:
            raise FailedElsewhereError("another process failed, with a message of its own")
        if totals[-1] != size * self.size:
            raise RuntimeError("the processes train different parameters: model and guide must do the same in all")
        return totals[:-1]

    def tell(self, error: BaseException | None) -> None:
        """Say, instead of :meth:`agree`, that this process has failed or, by None, that it stops as asked.

        An error that all processes have gets the attribute ``everywhere``, so that one of them can print it.
        """
        kind = STOPPED if error is None else DIVERGED if isinstance(error, FloatingPointError) else FAILED
        with suppress(LostProcessError):
            counts, _ = self._exchanged([float(kind == i) for i in range(3)], [], 0)
            if error is not None and sum(counts) == self.size:
                error.everywhere = True  # type: ignore[attr-defined]  # for the command line

    def _exchanged(
        self, counts: Sequence[float], numbers: Sequence[float], size: int
    ) -> tuple[list[float], list[float]]:
        if len(numbers) > MOST:
            raise ValueError(f"{len(numbers)} losses of a step cannot be added up over processes, {MOST} can")
        filled = [*counts, *numbers, *[0.0] * (MOST - len(numbers)), size]
        vector = torch.tensor(filled, dtype=torch.float64, device=self.device)
        self._reduce(vector)
        totals = vector.tolist()
        return totals[:3], [*totals[3 : 3 + len(numbers)], totals[-1]]

    def _reduce(self, x: Tensor) -> None:
        self._called(lambda: dist.all_reduce(x))

    @staticmethod
    def _called(call: Callable[[], object]) -> None:
        try:
            call()
        except RuntimeError as error:  # what gloo and NCCL raise has no class of its own
            raise LostProcessError(
                "a process that trains the model ended, or cannot be reached: resume the run"
            ) from error


@contextmanager
def agreed(processes: Processes | None) -> Iterator[None]:
    """Go on after the block only where no process has raised an error in it."""
    with told(processes):
        yield
    if processes is not None:
        processes.agree([])


@contextmanager
def told(processes: Processes | None) -> Iterator[None]:
    """Tell the other processes, which wait in :meth:`Processes.agree`, of an error of the block."""
    try:
        yield
    except BaseException as error:
        if processes is not None and not isinstance(error, LostProcessError):
            processes.tell(error)
        raise


def share(num_rows: int, processes: Processes | None) -> slice:
    """The rows of a batch that this process takes: equal numbers up to one."""
    if processes is None:
        return slice(0, num_rows)
    bounds = [num_rows * i // processes.size for i in range(processes.size + 1)]
    return slice(*list(pairwise(bounds))[processes.rank])


def rank_of_torchrun() -> int | None:
    """The rank of this process among several that torchrun started; None where it is alone."""
    if not dist.is_available() or not dist.is_torchelastic_launched() or os.environ.get("WORLD_SIZE") == "1":
        return None
    return int(os.environ["RANK"])
