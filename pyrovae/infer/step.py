"""A step of SVI as a function of tensors, recorded, compiled, and compared with the step that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.optim import PyroOptim
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyrovae.compilation import Graph, Program, Unrecordable, Watch, backward_roots, disagreement, record
from pyrovae.infer.optimizer import AdamUpdate

__all__ = ["Compiled", "Disagreement", "Losses", "Observed", "Recording"]

Loss = Tensor | float
Losses = Loss | tuple[Loss, ...]
AGREES, MOVES = 1e-2, 5e-2  # relative differences of a gradient that is not rounding, and of the step along it


class Recording:
    """The graph of a loss, of its gradient and of Adam's step.

    .. math:: (\\text{losses}, \\theta', m', v') = \\text{step}(\\theta, m, v, \\text{batch}, \\text{numbers})

    Args:
        loss: The loss of tensors: arguments of the call, and numbers that move.
        inputs: These tensors.
        params: Parameters that the step trains; empty for a loss alone.
        updates: Adam's step, taken if it is on exactly the parameters that have a gradient; else the gradients are
            returned, and the step is left to the optimizer.
        clip_norm: Largest norm of the gradient.
        validated: Observed sites whose data make the loss NaN where they lie outside the support.

    A loss that is NaN moves nothing.
    """

    def __init__(
        self,
        loss: Callable[..., Losses],
        inputs: Sequence[Tensor],
        params: Sequence[Tensor] = (),
        updates: Sequence[AdamUpdate] = (),
        clip_norm: float | None = None,
        validated: frozenset[str] = frozenset(),
    ) -> None:
        self.updates, self.params = updates, list(params)
        self.met = tuple(params)  # with those that turn out to have no gradient
        self.is_step = bool(params)
        self._loss, self._clip_norm, self._validated = loss, clip_norm, validated
        self._num_inputs = len(inputs)
        self.num_losses = 1
        self.container: Any = None  # of losses that are several
        self.inputs = [*inputs, *(update.inputs() for update in updates)]
        self.graph: Graph = record(self._run, self.inputs)
        if updates and not self.updates:
            self.graph = record(self._run, self.inputs[: len(inputs)])
            self.inputs = self.inputs[: len(inputs)]
        if any(i < len(self.inputs) for i in self.graph.written):
            raise Unrecordable("it changes one of its arguments in place")

    def _run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        supports = Observed(self._validated)
        with backward_roots() as roots, supports:
            loss = self._loss(*inputs[: self._num_inputs])
        losses = self._taken(loss)
        if supports.outside:
            bad = torch.stack(list(supports.outside.values())).any()
            losses = (torch.where(bad, torch.nan, losses[0]), *losses[1:])
        if not self.is_step:
            return losses
        self._check_leaves(roots)
        trained = [param for param in self.params if param.requires_grad]
        grads = dict(zip(trained, torch.autograd.grad(roots, trained, allow_unused=True), strict=True))
        used = {
            param: torch.zeros_like(param) if grads.get(param) is None else grads[param]
            for param in self.params
            if grads.get(param) is not None or param.grad is not None  # Pyro steps with the zeros of the last step
        }
        if not self.updates or used.keys() != {param for update in self.updates for param in update.params}:
            self.params, self.updates = list(used), ()
            return (*losses, *used.values())
        with torch.no_grad():
            used = self._clipped(used)
            keep = torch.stack([value.isnan() for value in losses]).any()
            for update, numbers in zip(self.updates, inputs[self._num_inputs :], strict=True):
                update(used, numbers, keep)
        return losses

    def _check_leaves(self, roots: Sequence[Tensor]) -> None:
        """Refuse tensors that would get a gradient and are not stepped: it would be added up from step to step."""
        nodes, seen, known = [root.grad_fn for root in roots], set(), set(map(id, self.params))
        while nodes:
            node = nodes.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            leaf = getattr(node, "variable", None)
            if leaf is not None and id(leaf) not in known:
                raise Unrecordable(
                    f"a tensor of shape {tuple(leaf.shape)} gets a gradient and is not a parameter of Pyro"
                )
            nodes += [parent for parent, _ in node.next_functions]

    def _taken(self, loss: Losses) -> tuple[Tensor, ...]:
        losses = loss if isinstance(loss, tuple) else (loss,)
        self.num_losses, self.container = len(losses), type(loss) if isinstance(loss, tuple) else None
        return tuple(v.detach() if isinstance(v, Tensor) else torch.tensor(float(v)) for v in losses)

    def _clipped(self, grads: dict[Tensor, Tensor]) -> dict[Tensor, Tensor]:
        if self._clip_norm is None:
            return grads
        norm = torch.stack([grad.norm() for grad in grads.values()]).norm()
        factor = (self._clip_norm / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
        return {param: factor * grad for param, grad in grads.items()}


class Compiled:
    """A recording as compiled code: called with tensors, it gives losses and gradients, or has moved the parameters."""

    def __init__(self, recording: Recording, program: Program, watch: Watch) -> None:
        self.recording, self.program = recording, program
        self.updates, self.params = recording.updates, recording.params
        self._trained = {id(param) for param in recording.params}
        position = {id(x): i for i, x in enumerate(watch.tensors)}
        self._positions = [position.get(id(x)) for x in recording.graph.outside]
        self._outside = list(recording.graph.outside)
        self._watch, self._swaps = watch, watch.swaps

    def holds(self, watch: Watch, optim: PyroOptim) -> bool:
        """Whether it trains the parameters of now; tensors that Python holds may have been replaced by others."""
        if watch is not self._watch or watch.swaps != self._swaps:
            outside = [
                x if i is None else watch.tensors[i] for x, i in zip(self._outside, self._positions, strict=True)
            ]
            old_and_new = zip(self._outside, outside, strict=True)
            if any(old is not new and (id(old) in self._trained or new.requires_grad) for old, new in old_and_new):
                return False
            self._outside, self._watch, self._swaps = outside, watch, watch.swaps
        return all(update.holds(optim) for update in self.updates)

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[list[float], Sequence[Tensor]]:
        """The losses and the gradients."""
        outputs = self.program([*inputs, *[update.inputs() for update in self.updates]], self._outside)
        return [loss.item() for loss in outputs[: self.recording.num_losses]], outputs[self.recording.num_losses :]

    def pack(self, losses: list[float]) -> float | tuple[float, ...]:
        """The losses as the objective gives them."""
        return losses[0] if self.recording.container is None else self.recording.container(losses)

    def check(self, inputs: Sequence[Tensor], run: Callable[[], Losses], update: Callable[[], None]) -> Losses:
        """Run the step as it is, which counts, after the compiled one, which is undone; both must do the same.

        Args:
            inputs: As of the call.
            run: The loss; adds its gradient to that of the parameters.
            update: Steps along it.

        Raises: Disagreement, where they do not.
        """
        moved = [self._outside[i - len(self.recording.inputs)] for i in self.recording.graph.written]
        before = [x.detach().clone() for x in moved]

        def put_back() -> list[Tensor]:
            """The displacements, which are undone."""
            with torch.no_grad():
                moves = [x.detach() - old for x, old in zip(moved, before, strict=True)]
                for x, old in zip(moved, before, strict=True):
                    x.copy_(old)
            return moves

        devices = list({x.device for x in (*inputs, *moved) if x.is_cuda})
        with torch.random.fork_rng(devices=devices):
            self.program.try_replay([*inputs, *(update.inputs() for update in self.updates)], self._outside)
            put_back()
        with torch.random.fork_rng(devices=devices):
            losses, grads = self(inputs)
            got = put_back()
        had = [None if param.grad is None else param.grad.clone() for param in self.params]
        result = run()
        numbers = list(result) if isinstance(result, tuple) else [result]
        why = disagreement([torch.tensor(numbers)], [torch.tensor(losses)], rounding=1e-4)
        if not why and grads:
            now = [torch.zeros_like(param) if param.grad is None else param.grad for param in self.params]
            own = [grad if old is None else grad - old for grad, old in zip(now, had, strict=True)]
            why = disagreement(own, grads, _rounding(own))
        update()
        expected = [x.detach() - old for x, old in zip(moved, before, strict=True)]
        why = why or self._moves_otherwise(moved, before, expected, got)
        if why:
            raise Disagreement(f"compiled it gives {why}", result)
        return result

    def _moves_otherwise(
        self, moved: Sequence[Tensor], before: Sequence[Tensor], expected: Sequence[Tensor], got: Sequence[Tensor]
    ) -> str | None:
        """How displacements differ. Where a gradient is zero up to rounding it has no direction, but Adam a step."""
        of = {id(x): (a, b, old) for x, a, b, old in zip(moved, expected, got, before, strict=True)}
        stepped = {id(param) for update in self.updates for param in update.params}
        kind = {id(x): name for update in self.updates for name in ("first", "second") for x in getattr(update, name)}
        for name in ("first", "second", None):  # numbers of like sizes; None has buffers and all other tensors
            group = [of[key] for key in of if key not in stepped and kind.get(key) == name]
            why = disagreement([a for a, *_ in group], [b for _, b, _ in group], _rounding([x for *_, x in group]))
            if why:
                return f"a displacement of {why}"
        for update in self.updates:
            for param, first in zip(update.params, update.first, strict=True):
                (a, b, old), (m_a, m_b, _) = of[id(param)], of[id(first)]
                agrees = (m_a - m_b).abs() <= AGREES * m_a.abs()
                rounding = 4 * torch.finfo(old.dtype).eps * old[agrees].norm()
                if (a - b)[agrees].norm() > MOVES * a[agrees].norm() + rounding:
                    return f"another step of a parameter of shape {tuple(param.shape)}"
        return None


def _rounding(tensors: Sequence[Tensor]) -> float:
    return sum(10 * torch.finfo(x.dtype).eps * x.norm().item() for x in tensors if x.is_floating_point())


class Disagreement(Unrecordable):
    """Compiled code that does something else than the step; ``result`` is the loss of the step."""

    def __init__(self, text: str, result: Losses) -> None:
        super().__init__(text)
        self.result = result


class Observed(Messenger):
    """Looks at the observed sites inside.

    Args:
        names: Sites whose data are compared with the support of their distribution.

    Attributes: ``outside``, whether some data are outside the support, by the name of the site; ``validated``, the
        sites whose distributions validate their arguments.
    """

    def __init__(self, names: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.names = names
        self.outside: dict[str, Tensor] = {}
        self.validated: set[str] = set()

    def _pyro_post_sample(self, msg: Any) -> None:
        if not msg["is_observed"] or site_is_subsample(msg):
            return
        name, fn = msg["name"], msg["fn"]
        while hasattr(fn, "base_dist"):
            fn = fn.base_dist
        if fn._validate_args:
            self.validated.add(name)
        if name in self.names and name not in self.outside:
            try:
                self.outside[name] = ~msg["fn"].support.check(msg["value"]).all()
            except (NotImplementedError, AttributeError, ValueError):
                return  # a support that is not known, or depends on other values
