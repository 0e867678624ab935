"""The state of an SVI: what is saved, whose names are matched, and what calls move and is put back."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from numbers import Number
from typing import Any, TypedDict

import torch
from pyro.optim import PyroOptim
from torch import Tensor

from pyrovae.schema import anything, check, mapping, optional, real, record, tensor, whole

__all__ = ["Saved", "check_optimizer_state", "check_saved", "matched", "undone"]

KNOWN = ("torch.optim", "pyro.optim", "pyrovae.")  # optimizers that keep the same state at every step


class Saved(TypedDict):
    """The state of an SVI: parameters and the optimizer's state by their names in Pyro's store."""

    steps_done: int
    epoch: float | None
    params: dict[str, Tensor]
    optimizer: dict[str, dict[str, object]]
    calls: dict[str, list[Any]]  # by what they look like: their number, and whether the last one was compiled


def _count_and_flag(value: Any) -> str | None:
    valid = isinstance(value, (list, tuple)) and len(value) == 2 and whole()(value[0]) is None
    return None if valid and isinstance(value[1], bool) else "a number of calls, and whether the last was compiled"


SAVED = {
    "steps_done": whole(0, 2**63 - 1),
    "epoch": optional(real),
    "params": mapping(tensor),
    "optimizer": mapping(mapping(anything)),
    "calls": mapping(_count_and_flag),
}


def check_saved(state: Any) -> None:
    """ValueError of one line, unless a value has the names and types of :class:`Saved`."""
    check("state", state, record(SAVED))


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


def check_optimizer_state(optimizer: Any, state: Any) -> None:
    """Check that a saved state is one that an optimizer of one parameter, or a scheduler, can go on from.

    Hyper-parameters must have the types of the optimizer's own. The state of the parameter must have the keys, types
    and shapes of the state after one step of a copy, which an optimizer of the user's own does not take.

    Raises: ValueError that names the entry.
    """
    if hasattr(optimizer, "optimizer"):
        _check_types(optimizer, optimizer.state_dict(), state["scheduler"], False)
        optimizer, state = optimizer.optimizer, state["optimizer"]
    (group,), saved = optimizer.param_groups, state["param_groups"]
    _check_types(optimizer, {**group, "params": [0]}, saved[0])
    of_param = state["state"].get(0, {})
    if len(saved) != 1 or not isinstance(of_param, dict) or not state["state"].keys() <= {0}:
        raise ValueError(f"state: {type(optimizer).__name__} has one parameter, and the state is not of one")
    if of_param and type(optimizer).__module__.startswith(KNOWN):
        trial = copy.deepcopy(optimizer)
        param = trial.param_groups[0]["params"][0]
        param.grad = torch.zeros_like(param)
        try:
            trial.step()
        except RuntimeError:  # SparseAdam takes no dense gradient
            return
        _check_types(optimizer, trial.state[param], of_param)


def _check_types(optimizer: Any, own: dict[str, Any], saved: Any, same_keys: bool = True) -> None:
    name = type(optimizer).__name__
    if not isinstance(saved, dict) or (same_keys and saved.keys() != own.keys()):
        got = sorted(map(str, saved))[:6] if isinstance(saved, dict) else type(saved).__name__
        raise ValueError(f"state: {name} keeps {sorted(own)[:6]}, got {got}")
    for key in own.keys() & saved.keys():
        if not _is_alike(own[key], saved[key]):
            raise ValueError(f"state: {key!r} of {name} has another type or shape")


def _is_alike(own: Any, saved: Any) -> bool:
    """Whether two values have one type; a switch may be None, and numbers are of one type."""
    if isinstance(own, (list, tuple)):
        same = isinstance(saved, (list, tuple)) and len(own) == len(saved)
        return same and all(map(_is_alike, own, saved))
    if isinstance(own, Tensor):
        return isinstance(saved, Tensor) and own.shape == saved.shape and own.is_complex() == saved.is_complex()
    if own is None or isinstance(own, bool):
        return saved is None or isinstance(saved, bool)
    if isinstance(own, Number):
        return isinstance(saved, Number) and not isinstance(saved, bool)
    return type(own) is type(saved)


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
