"""A CUDA graph of compiled code: one launch for all kernels, whose single launches take most of a small step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["Replay", "can_be_recorded", "record"]

WARM_UPS = 3  # runs before the recording, in which CUDA's libraries allocate their workspaces


class Replay:
    """``replay(*inputs, *outside)`` gives the results of ``code``, by one CUDA graph of its kernels.

    A CUDA graph reads and writes fixed memory. Inputs are therefore copied into that memory and results out of it, so
    that the caller may keep the results. Tensors from outside are read and written where they are.

    Args:
        code: A function of tensors that never reads their values in Python.
        inputs: Tensors with the shapes and dtypes of later calls.
        outside: Tensors that stay at their address, such as parameters.
    """

    def __init__(
        self, code: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], outside: Sequence[Tensor]
    ) -> None:
        self._inputs = [x.clone() for x in inputs]
        self.outside = list(map(Tensor.data_ptr, outside))
        self._replay, self._results = record(lambda: code(*self._inputs, *outside))

    def __call__(self, *tensors: Tensor) -> Sequence[Tensor]:
        for mine, given in zip(self._inputs, tensors, strict=False):  # stops before the tensors from outside
            mine.copy_(given, non_blocking=True)
        self._replay()
        return [x.clone() for x in self._results]


def can_be_recorded(tensors: Sequence[Tensor]) -> bool:
    """Whether all tensors are on one CUDA device; the value of a CPU tensor would become a constant of the graph."""
    return len({x.device for x in tensors}) == 1 and tensors[0].is_cuda


def record(run: Callable[[], Sequence[Tensor]]) -> tuple[Callable[[], None], Sequence[Tensor]]:
    """A function that launches the kernels of a run again, and the tensors that it writes the results to."""
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
