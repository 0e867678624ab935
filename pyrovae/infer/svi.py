"""``SVI``: Pyro's, with one optimizer for all parameters and the loss and its gradient as one compiled graph."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.runtime import _PYRO_STACK
from pyro.util import warn_if_nan
from torch import Tensor, nn

from pyrovae import guards
from pyrovae.compilation import Program, Uncapturable, backwards, recurs
from pyrovae.infer.calls import Calls, Compiled, flatten
from pyrovae.infer.optimizer import Grouped
from pyrovae.infer.precision import networks_in
from pyrovae.objectives import Objective

__all__ = ["SVI"]

MOST = 8  # compilations, after which what is new runs as it is
MANY = 50  # signatures, after which there are too many to compile


class SVI(pyro.infer.SVI):
    r"""Stochastic variational inference: ``pyro.infer.SVI`` at the speed of a compiled hand-written loop.

    The loss of a batch and its gradient are recorded once as a graph of tensor operations, with no Pyro and no Python
    left in it, and compiled. All parameters are stepped by one torch optimizer, fused where torch can.

    Args:
        model: p(x, z), a function with Pyro statements: a method of a module, or a function that calls ``pyro.module``.
        guide: q(z|x), likewise.
        optim: Any optimizer of ``pyro.optim``, with its schedulers and per-parameter arguments.
        loss: An objective of ``pyrovae`` or of Pyro, or a function of model, guide and what they are called with.
        compile: True compiles at once and raises where it cannot be; False never compiles. None compiles when the steps
            taken have lasted as long as compiling does, about ten seconds, or when ``num_calls`` says that it will pay,
            never with recurrent layers; where it cannot be it warns once, says why, and goes on without.
        clip_norm: Largest Euclidean norm of the gradient of all parameters together.
        accumulate: Calls of ``step`` whose gradients are added up for one step of the optimizer.
        precision: ``torch.bfloat16`` has the networks multiply in it; densities and sums stay in float32.

    A step is right, compiled or not, for batches of any size, in ``train`` and in ``eval`` mode, after ``.double()``
    and at any learning rate; each shape and mode is compiled once, up to eight, where it pays. The value of a schedule
    of the objective is an input of the graph, and so is each parameter, buffer and tensor from outside; a number or a
    flag of a module that changes is followed. Where Python reads the value of a tensor, or draws, nothing is compiled.
    A value of Python that model and guide read (a global, a closure, an attribute) is followed too: where another one
    makes another step, that is compiled anew, with a warning; a model that changes such values itself, as one that
    counts its calls does, is not compiled. Whether anything else has changed, such as an array, is looked at ever more
    seldom. On a CUDA device the graph is launched as one CUDA graph, where that is faster.

    A seed gives the same numbers compiled and not. The first two steps of each shape run with Pyro's validation and the
    guards of ``pyrovae``, the others without. A loss that is NaN raises FloatingPointError under an objective of
    ``pyrovae``, with the parameters as they were; under Pyro's it is a warning, as there.

    Attributes: ``compilations`` and ``compile_seconds``, how often and how long; ``num_calls``, calls of ``step`` and
        of ``evaluate_loss`` still to come, where that is known.
    Raises: ValueError for an argument out of its range; RuntimeError when ``compile=True`` cannot be.
    See also: :func:`~pyrovae.fit`.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        optim: pyro.optim.PyroOptim,
        loss: Any,
        loss_and_grads: Any = None,
        *,
        compile: bool | None = None,
        clip_norm: float | None = None,
        accumulate: int = 1,
        precision: torch.dtype | None = None,
        **kwargs: Any,
    ) -> None:
        if compile not in (None, True, False):
            raise ValueError(f"compile must be True, False or None, got {compile!r}")
        if clip_norm is not None and not 0 < clip_norm < math.inf:
            raise ValueError(f"clip_norm must be positive, got {clip_norm}")
        if not isinstance(accumulate, int) or accumulate < 1:
            raise ValueError(f"accumulate must be a whole number, at least 1, got {accumulate!r}")
        super().__init__(model, guide, optim, loss, loss_and_grads, **kwargs)
        self.objective = loss
        self.compile, self.clip_norm, self.accumulate = compile, clip_norm, accumulate
        self.num_calls: float | None = None
        self.compilations, self.compile_seconds = 0, 0.0
        self.expected_calls: dict[str, float] = {}
        self.on_compile: Callable[[str], None] | None = None
        self._bound: SVI | None = None
        self.steps_done = 0
        self._precision_name = precision
        self._precision = networks_in(precision)
        self._calls: dict[Any, Calls] = {}
        self._eager: set[str] = set()  # what cannot be compiled
        self._params: dict[Tensor, None] = {}  # met so far, in their order
        self._names: set[str] = set()  # theirs in Pyro's store
        self._optimizer: Grouped | None = None
        self._num_added = 0
        self._updated = False

    @property
    def epoch(self) -> float | None:
        """Epochs done."""
        return self.objective.epoch if isinstance(self.objective, Objective) else None

    @epoch.setter
    def epoch(self, done: float) -> None:
        if isinstance(self.objective, Objective):
            self.objective.epoch, self.objective.step = done, self.steps_done

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """The loss of the true bound."""
        if self._bound is None:
            bound = self.objective.true_bound() if isinstance(self.objective, Objective) else self.loss
            self._bound = SVI(
                self.model, self.guide, self.optim, bound, compile=self.compile, precision=self._precision_name
            )
            self._bound.on_compile, self._bound.num_calls = self.on_compile, self.expected_calls.get("evaluate")
        return self._bound.evaluate_loss(*args, **kwargs)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state by the names of parameters, and the number of steps."""
        names = {param: name for name, param in guards.stored().items()}
        optims = {names[p]: getattr(o, "optimizer", o) for p, o in self.optim.optim_objs.items() if p in names}
        return {"steps_done": self.steps_done, "optim": {name: each.state_dict() for name, each in optims.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""
        self.steps_done = state["steps_done"]
        for name, param in guards.stored().items():
            if name in state["optim"]:
                if param not in self.optim.optim_objs:
                    param.grad = None
                    self.optim([param])
                each = self.optim.optim_objs[param]
                getattr(each, "optimizer", each).load_state_dict(state["optim"][name])
            else:
                self.optim.optim_objs.pop(param, None)
        self._params, self._optimizer = {}, None

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """The loss of a batch, in nats summed over it, and one step on it; the arguments go to model and guide."""
        if self.num_calls is None:
            self.num_calls = self.expected_calls.get("step")
        self._updated = False  # by the graph itself
        loss = self._run("step", args, kwargs)
        self._num_added += 1
        self.steps_done += 1
        if self._num_added == self.accumulate:
            self._num_added = 0
            if not self._updated:
                self._update()
        return loss

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> Any:
        """The loss of a batch, and nothing else."""
        with torch.no_grad():
            return self._run("evaluate_loss", args, kwargs)

    def _run(self, what: str, args: Any, kwargs: Any) -> Any:
        """A loss as a number, or a tuple of them; under ``step`` its gradient is added to the parameters'."""
        signature, tensors, rebuild, strange = flatten(args, kwargs)
        key = what, None if what in self._eager else signature
        calls = self._calls.get(key) or self._new_calls(key, strange)
        timings = calls.timings
        timings.count += 1
        if self.num_calls is not None:
            self.num_calls -= 1
        compiled = self._compiled(calls, tensors, rebuild) if timings.checked else None
        if compiled is None:
            with timings.unchecked() if timings.checked else calls.met():
                return self._step_as_it_is(args, kwargs) if what == "step" else self._loss_as_it_is(args, kwargs)
        losses, grads = compiled([*tensors, *self._scheduled(tensors).values()])
        if what == "step":
            self._check(losses, args, kwargs)
            for param, grad in zip(compiled.params, grads, strict=True):
                param.grad = grad if param.grad is None else param.grad + grad
            for update in compiled.updates:
                update.done()
            self._updated = bool(compiled.updates)
        return compiled.pack(losses)

    def _new_calls(self, key: tuple[str, Any], strange: str | None) -> Calls:
        """Those of a signature that is new; of all signatures together, once there are too many."""
        what, signature = key
        others = [other for other in self._calls if other[0] == what]
        if signature is not None and len(others) == MANY:
            for other in others:
                del self._calls[other]
            why = f"it was called with {MANY} different shapes or values of plain arguments, and this is one more"
            if self.compile is not False:
                self._give_up(what, f"{why}; a number that changes from call to call can be given as a tensor")
            self._eager.add(what)
            key = what, None
        self._calls[key] = Calls(what, strange)
        return self._calls[key]

    def _update(self) -> None:
        """One step of the optimizer on the gradients, which are then gone."""
        params = list(self._params)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(params, self.clip_norm)
        if self._optimizer is None and all(param in self.optim.optim_objs for param in params):
            self._optimizer = Grouped(self.optim, params)
        if self._optimizer is None:
            self.optim(params)  # makes an optimizer of each parameter that it has not seen
            self._optimizer = Grouped(self.optim, params)
        else:
            self._optimizer.step()
        for param in params:
            param.grad = None

    def _step_as_it_is(self, args: Any, kwargs: Any) -> Any:
        with self._precision, poutine.trace(param_only=True) as met:
            loss = self.loss_and_grads(self.model, self.guide, *args, **kwargs)
        self._names.update(met.trace.nodes)
        sites: Any = met.trace.nodes.values()
        params = dict.fromkeys(site["value"].unconstrained() for site in sites)
        if not params.keys() <= self._params.keys():
            kept = set(map(id, guards.stored().values()))
            self._params = {param: None for param in (*self._params, *params) if id(param) in kept}
            self._optimizer = None
        return _numbers(loss)

    def _loss_as_it_is(self, args: Any, kwargs: Any) -> Any:
        with self._precision:
            return _numbers(self.loss(self.model, self.guide, *args, **kwargs))

    def _check(self, values: Sequence[Any], args: Any, kwargs: Any) -> None:
        """What ``loss_and_grads`` does about a loss that is NaN."""
        if isinstance(self.objective, Objective):
            if math.isnan(values[0]):
                raise self.objective.diverged(self.model, self.guide, args, kwargs)
            self.objective.step += 1
            return
        for value in values:
            warn_if_nan(value, "loss")

    def _scheduled(self, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """What the schedules of the objective are at now, where the tensors are that a step is given."""
        if not isinstance(self.objective, Objective):
            return {}
        numbers = self.objective.followed
        now = {name: self.objective.now(name, number) for name, number in numbers.items()}
        device = tensors[0].device if tensors else None
        return {name: torch.tensor(number, dtype=torch.float64, device=device) for name, number in now.items()}

    def _compiled(self, calls: Calls, tensors: Sequence[Tensor], rebuild: Any) -> Compiled | None:
        """The compiled calls of a signature, compiled now where it is time; None where they are not."""
        if self.compile is False or calls.what in self._eager or _PYRO_STACK:
            return None
        if calls.strange is not None:
            self._give_up(calls.what, f"it is called with {calls.strange}, which is neither a tensor nor a plain value")
            return None
        if not all(compiled.holds() for compiled in calls.compiled):
            calls.compiled, calls.timings.count = [], 1  # new tensors are met as the first ones were
            return None
        compiled = next((compiled for compiled in calls.compiled if compiled.program.in_mode()), None)
        if compiled is not None and not compiled.program.still_right():
            warnings.warn(
                f"pv.SVI: what the model and the guide do in {calls.what} has changed: compiling it anew", stacklevel=4
            )
            calls.compiled.remove(compiled)
        elif compiled is not None or not self._pays(calls):
            return compiled
        if self.compilations == MOST:
            self._give_up(calls.what, f"{MOST} shapes, modes or changes were compiled, and this is one more")
            return None
        return self._compile(calls, tensors, rebuild)

    def _pays(self, calls: Calls) -> bool:
        if self.compile and calls.what == "step":
            return True
        if recurs(calls.modules):
            return False
        cost = self.compile_seconds / self.compilations if self.compilations else None
        if self.num_calls is None:
            return calls.timings.pays(None, cost)
        share = calls.timings.count / sum(each.timings.count for each in self._calls.values())
        return calls.timings.pays(self.num_calls * share, cost)

    def _compile(
        self, calls: Calls, tensors: Sequence[Tensor], rebuild: Any, with_update: bool = True
    ) -> Compiled | None:
        """A graph of the loss, of its gradient, and, where that is Adam's, of the step of the optimizer."""
        step = calls.what == "step"
        if self.on_compile is not None:
            self.on_compile(f"compiling the {'step' if step else 'validation'}, about 10 s")
        optimizer = self._optimizer if with_update and step and self.accumulate == 1 else None
        compiled = Compiled([] if optimizer is None else optimizer.updates() or [])
        stepped = {param for update in compiled.updates for param in update.params}
        scheduled, params = self._scheduled(tensors), list(self._params)
        num_inputs = len(tensors) + len(scheduled)

        def graph(*inputs: Tensor) -> tuple[Tensor, ...]:
            args, kwargs = rebuild(inputs[: len(tensors)])
            given = dict(zip(scheduled, inputs[len(tensors) : num_inputs], strict=True))
            with self._precision, backwards() as roots:
                loss = self._loss(calls.what, given, args, kwargs)
            losses = compiled.take(loss)
            if not (step and roots and params):
                return losses
            grads = torch.autograd.grad(roots, params, allow_unused=True)
            used = {param: grad for param, grad in zip(params, grads, strict=True) if grad is not None}
            if not stepped:
                compiled.params = list(used)
                return (*losses, *used.values())
            if used.keys() != stepped:
                raise _OtherParameters
            with torch.no_grad():
                used = self._clipped(used)
                keep = losses[0].isnan() if isinstance(self.objective, Objective) else None
                for update, numbers in zip(compiled.updates, inputs[num_inputs:], strict=True):
                    update(used, numbers, keep)
            return losses

        store: Any = pyro.get_param_store()
        entries = [(vars(store), "_params"), *((store._params, name) for name in self._names if name in store)]
        owners = (getattr(function, "__self__", function) for function in (self.model, self.guide))
        modules = dict.fromkeys([*(owner for owner in owners if isinstance(owner, nn.Module)), *calls.modules])
        inputs = [*tensors, *scheduled.values(), *(update.inputs() for update in compiled.updates)]
        moved = [part for update in compiled.updates for part in update.moved]
        try:
            sources = (self.model, self.guide, self.objective)
            compiled.program = Program(graph, inputs, modules, entries, moved, sources)
        except _OtherParameters:
            return self._compile(calls, tensors, rebuild, with_update=False)
        except Exception as error:  # the same step has run as it is: whatever this is, it is about compiling
            self._give_up(calls.what, str(error) if isinstance(error, Uncapturable) else repr(error), error)
            return None
        calls.compiled.append(compiled)
        self.compilations += 1
        self.compile_seconds += compiled.program.seconds
        return compiled

    def _clipped(self, grads: dict[Tensor, Tensor]) -> dict[Tensor, Tensor]:
        if self.clip_norm is None:
            return grads
        norm = torch.stack([grad.norm() for grad in grads.values()]).norm()
        factor = (self.clip_norm / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
        return {param: factor * grad for param, grad in grads.items()}

    def _loss(self, what: str, given: dict[str, Tensor], args: Any, kwargs: Any) -> Any:
        if not isinstance(self.objective, Objective):
            return (self.loss_and_grads if what == "step" else self.loss)(self.model, self.guide, *args, **kwargs)
        with self.objective.given(given):
            if what != "step":
                return self.objective.loss(self.model, self.guide, *args, **kwargs)
            loss = self.objective.differentiable_loss(self.model, self.guide, *args, **kwargs)
            loss.backward()
            return loss

    def _give_up(self, what: str, why: str, error: Exception | None = None) -> None:
        if self.compile and what == "step":
            raise RuntimeError(f"compile=True, but {what} cannot be compiled: {why}") from error
        warnings.warn(f"pv.SVI: {what} runs without compilation from here on: {why}", stacklevel=6)
        self._eager.add(what)


class _OtherParameters(Exception):
    """A step has no gradient of some that the optimizer steps at others."""


def _numbers(loss: Any) -> Any:
    """Numbers of a loss, or of Pyro's losses that are several."""
    if isinstance(loss, tuple):
        return type(loss)(map(_numbers, loss))
    return loss.item() if isinstance(loss, Tensor) else loss
