"""The state of an SVI: what is saved, whose names are matched, and what calls move and is put back."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypedDict

import torch
from pyro.optim import PyroOptim
from torch import Tensor

__all__ = ["Saved", "matched", "undone"]


class Saved(TypedDict):
    """The state of an SVI: parameters and the optimizer's state by their names in Pyro's store."""

    steps_done: int
    epoch: float | None
    params: dict[str, Tensor]
    optimizer: dict[str, dict[str, object]]
    calls: dict[str, list[Any]]  # by what they look like: their number, and whether the last one was compiled


def matched(saved: Collection[str], own: Collection[str]) -> dict[str, str]:
    """The names of a model for those of a state: the same, or another name of the model before the module path."""
    if set(own) >= set(saved):
        return {name: name for name in saved}
    by_path = {name.rpartition("$$$")[2]: name for name in own}
    found = {name: by_path.get(name.rpartition("$$$")[2]) for name in saved}
    unknown = [name for name, other in found.items() if other is None]
    if unknown or len(set(found.values())) < len(saved):
        raise ValueError(
            f"state: it has the parameters {sorted(unknown or saved)[:3]}, this model has {sorted(own)[:3]}"
        )
    return {name: other for name, other in found.items() if other is not None}


@contextmanager
def undone(moved: Iterable[Tensor], optim: PyroOptim, batch: Iterable[Tensor]) -> Iterator[None]:
    """Put back the random state, tensors and the state of an optimizer that calls inside move, each in place.

    Args:
        moved: Parameters, buffers and other tensors.
        optim: Its state is put back, too.
        batch: The arguments of the calls, on whose devices random numbers are drawn.
    """
    tensors = {id(x): x for x in moved if not x.is_meta}
    optimizers = [(p, getattr(each, "optimizer", each)) for p, each in optim.optim_objs.items()]
    states = [optimizer.state.get(param, {}) for param, optimizer in optimizers]
    before = {key: x.detach().clone() for key, x in tensors.items()}
    states_before = copy.deepcopy([dict(state) for state in states])
    cuda = {x.device for x in (*batch, *tensors.values()) if x.is_cuda}
    with torch.random.fork_rng(devices=list(cuda)):
        yield
    with torch.no_grad():
        for key, x in tensors.items():
            if not torch.equal(x, before[key]):
                x.copy_(before[key])
        for (param, optimizer), old in zip(optimizers, states_before, strict=True):
            now = optimizer.state[param]
            for name, value in old.items():
                if isinstance(value, Tensor):
                    now[name].copy_(value)
                else:
                    now[name] = value
