"""A CUDA graph of compiled code: all of its kernels in one launch, which bounds the step of a small network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["Replay", "can_be_recorded", "record"]

WARM_UPS = 3  # which the libraries behind the kernels take to set themselves up


class Replay:
    """``replay(*inputs, *outside)`` does what ``code`` does, by one recording of its kernels.

    A recording reads and writes the memory of its own run. The inputs are therefore copied to there, and results from
    there, so that who has them may keep them; the tensors from outside are read, and moved, where they are.

    Args:
        code: Takes and returns tensors, and reads the values of none.
        inputs: Tensors of the shapes and dtypes that it will be called with.
        outside: Tensors that stay in their place.
    """

    def __init__(
        self, code: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], outside: Sequence[Tensor]
    ) -> None:
        self._inputs = [x.clone() for x in inputs]
        self.outside = list(map(Tensor.data_ptr, outside))
        self._replay, self._results = record(lambda: code(*self._inputs, *outside))

    def __call__(self, *tensors: Tensor) -> Sequence[Tensor]:
        for mine, given in zip(self._inputs, tensors, strict=False):  # those from outside come after the inputs
            mine.copy_(given, non_blocking=True)
        self._replay()
        return [x.clone() for x in self._results]


def can_be_recorded(tensors: Sequence[Tensor]) -> bool:
    """Whether all are on one CUDA device: the value of a tensor elsewhere would be part of the recording."""
    return len({x.device for x in tensors}) == 1 and tensors[0].is_cuda


def record(run: Callable[[], Sequence[Tensor]]) -> tuple[Callable[[], None], Sequence[Tensor]]:
    """What launches the kernels of a run again, and where their results are."""
    stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            run()
    current.wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run()
    return graph.replay, results
