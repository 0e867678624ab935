"""What SVI knows of the calls that look alike: what they call, how they are compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pyrovae.compilation import Program, Timings, modules_called
from pyrovae.infer.optimizer import AdamUpdate

__all__ = ["Calls", "Compiled", "flatten"]

PLAIN = bool | int | float | complex | str | bytes | torch.dtype | torch.device | None


class Calls:
    """Those of one method with arguments of one signature."""

    def __init__(self, what: str, strange: str | None) -> None:
        self.what = what
        self.strange = strange  # the type of an argument that may change and look the same
        self.timings = Timings()
        self.compiled: list[Compiled] = []  # one for each mode
        self.modules: dict[nn.Module, None] = {}

    @contextmanager
    def met(self) -> Iterator[None]:
        """As the first calls are: what they call is kept."""
        with modules_called() as modules:
            yield
        self.modules.update(modules)


class Compiled:
    """A program of them, and what it returns: losses, and then the gradients of parameters, or it has moved these."""

    program: Program

    def __init__(self, updates: Sequence[AdamUpdate]) -> None:
        self.updates = updates
        self.params: list[Tensor] = []
        self._num_losses = 1
        self._container: Any = None  # of losses that are several

    def take(self, loss: Any) -> tuple[Tensor, ...]:
        """The losses of the run that is captured, as tensors."""
        losses = loss if isinstance(loss, tuple) else (loss,)
        self._num_losses, self._container = len(losses), type(loss) if isinstance(loss, tuple) else None
        return tuple(v.detach() if isinstance(v, Tensor) else torch.tensor(float(v)) for v in losses)

    def holds(self) -> bool:
        """Whether the tensors are those that it was captured with."""
        return self.program.in_place() and all(update.holds() for update in self.updates)

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[list[float], Sequence[Tensor]]:
        """The losses and the gradients."""
        outputs = self.program(*inputs, *[update.inputs() for update in self.updates])
        return [loss.item() for loss in outputs[: self._num_losses]], outputs[self._num_losses :]

    def pack(self, losses: list[float]) -> Any:
        """As the objective gives them."""
        return losses[0] if self._container is None else self._container(losses)


def flatten(args: Any, kwargs: Any) -> tuple[Any, Sequence[Tensor], Callable[[Sequence[Tensor]], Any], str | None]:
    """What calls that look alike have in common, their tensors, and what makes arguments of such tensors again.

    The last is the type of an argument that is neither a tensor nor a plain value, if there is one.
    """
    if not kwargs and all(isinstance(arg, Tensor) for arg in args):
        return tuple([(x.shape, x.dtype, x.device) for x in args]), args, lambda tensors: (tuple(tensors), {}), None
    leaves, structure = pytree.tree_flatten((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    strange = next((type(x).__name__ for x in leaves if not isinstance(x, Tensor | PLAIN)), None)
    signature = tuple(
        (x.shape, x.dtype, x.device) if isinstance(x, Tensor) else (type(x), x if isinstance(x, PLAIN) else None)
        for x in leaves
    )

    def rebuild(inputs: Sequence[Tensor]) -> Any:
        left = iter(inputs)
        return pytree.tree_unflatten([next(left) if isinstance(x, Tensor) else x for x in leaves], structure)

    return (signature, structure), tensors, rebuild, strange
