"""The static part of a call: what its arguments and the global settings look like, apart from the values of tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pyrovae import private

__all__ = ["Arguments", "arguments", "settings"]

PLAIN = bool | int | float | complex | str | bytes | torch.dtype | torch.device | np.generic | None
Rebuild = Callable[[Sequence[Tensor]], tuple[tuple[object, ...], dict[str, object]]]


class Arguments(NamedTuple):
    """``signature`` is equal for calls that lead to the same step; ``rebuild`` makes arguments of other tensors.

    ``reason`` says why such calls cannot be compiled, if they cannot.
    """

    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    signature: object
    tensors: Sequence[Tensor]
    rebuild: Rebuild
    reason: str | None


def arguments(args: tuple[object, ...], kwargs: Mapping[str, object]) -> Arguments:
    """What a call was given."""
    if not kwargs and all(type(arg) is Tensor for arg in args):
        tensors = cast(tuple[Tensor, ...], args)
        return Arguments(args, kwargs, _layouts(tensors), tensors, lambda new: (tuple(new), {}), _reason(tensors))
    leaves, structure = pytree.tree_flatten((args, dict(kwargs)))
    tensors = tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))
    strange = next((type(leaf).__name__ for leaf in leaves if not isinstance(leaf, Tensor | PLAIN)), None)
    plain = tuple((type(x), None if isinstance(x, Tensor) else x) for x in leaves if strange is None)

    def rebuild(inputs: Sequence[Tensor]) -> tuple[tuple[object, ...], dict[str, object]]:
        left = iter(inputs)
        return pytree.tree_unflatten([next(left) if isinstance(x, Tensor) else x for x in leaves], structure)

    why = f"it is called with a {strange}, which is neither a tensor nor a plain value" if strange else None
    signature = (_layouts(tensors), plain, structure)
    return Arguments(args, kwargs, signature, tensors, rebuild, why or _reason(tensors))


def settings() -> tuple[object, ...]:
    """The global settings of torch and Pyro that a step depends on."""
    return (
        torch.get_default_dtype(),
        private.default_device(),
        torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu"),
        torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda"),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_anomaly_enabled(),
        *[getattr(owner, name) for owner, name in _PYRO_SETTINGS],
    )


_PYRO_SETTINGS = private.pyro_settings()


def _layouts(tensors: Sequence[Tensor]) -> tuple[object, ...]:
    """With the pattern of tensors that are given more than once."""
    same = tuple(map(id, tensors)) if len(set(map(id, tensors))) < len(tensors) else ()
    return (*[(x.shape, x.stride(), x.dtype, x.device) for x in tensors], tuple(same.index(i) for i in same))


def _reason(tensors: Sequence[Tensor]) -> str | None:
    if any(x.requires_grad for x in tensors):
        return "an argument requires a gradient"
    if torch.is_autocast_cache_enabled() and (torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")):
        return (
            "torch.autocast around it keeps copies of the weights from step to step: enter it with "
            "cache_enabled=False, or give pyrovae.SVI a precision"
        )
    return None
