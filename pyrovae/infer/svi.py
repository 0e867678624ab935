"""``SVI``: Pyro's interface to a step that is a function of tensors, compiled where that is sound and pays."""

from __future__ import annotations

import copy
import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from operator import attrgetter
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import ELBO as PyroELBO
from pyro.infer.util import zero_grads
from torch import Tensor, nn

from pyrovae import guards, private
from pyrovae.compilation import Program, Unrecordable, Watch
from pyrovae.infer.arguments import Arguments, arguments, settings
from pyrovae.infer.calls import MANY, Calls, State
from pyrovae.infer.optimizer import Grouped
from pyrovae.infer.precision import networks_in
from pyrovae.infer.programs import Programs, shared_programs
from pyrovae.infer.saving import Saved, check_optimizer_state, check_saved, matched, undone
from pyrovae.infer.step import Compiled, Disagreement, Losses, Observed, Recording
from pyrovae.objectives import Objective, Schedule, blame
from pyrovae.processes import Processes, told

__all__ = ["SVI"]

Function = Callable[..., object]

MOST = 8  # compilations, after which a new step runs without
REHEARSED = 3  # calls after which a step that is to be compiled is compiled
STEADY = 1  # calls with one key before the next is compiled
SHORT = 8  # short keys, after which nothing new is compiled

_version = attrgetter("_version")


class SVI(pyro.infer.SVI):
    r"""Stochastic variational inference: ``pyro.infer.SVI``, with the step compiled.

    The loss of a batch, its gradient and Adam's step are recorded as a graph of tensor operations, with no Pyro and no
    Python left in it, and compiled. Losses, parameters and random draws are those of ``pyro.infer.SVI``.

    Args:
        model: p(x, z), a function with Pyro statements.
        guide: q(z|x), likewise.
        optim: Any optimizer of ``pyro.optim``, with its schedulers and per-parameter arguments.
        loss: An objective of ``pyrovae`` or of Pyro, or a function of model, guide and the arguments of a step.
        loss_and_grads: As of ``pyro.infer.SVI``.
        compile: None compiles when the steps taken have lasted as long as compiling does, about ten seconds, or when
            ``expected_calls`` says that it pays; recurrent layers are not compiled. Where a step cannot be compiled
            soundly it runs as it is, and one warning says why. True compiles at the third step, raises where it cannot
            be done, and takes your word that values which cannot be followed do not change. False never compiles.
        clip_norm: Largest Euclidean norm of the gradient of all parameters together.
        accumulate: Calls of ``step`` whose gradients are added up for one step of the optimizer.
        precision: ``torch.bfloat16`` has the networks multiply in it; densities and sums stay in float32.
        ignore: Names of attributes and variables of yours that the step does not read, such as a counter.

    A compiled step is used only while everything static is what it was: the arguments' shapes, dtypes and plain values,
    the tensors' layouts, modes and settings of modules, the objective, the optimizer's class and flags, torch's and
    Pyro's global settings, and every value that model, guide and loss can read from Python. All of it is compared at
    every call. Numbers that move (schedules, learning rates) and all tensors are inputs.

    A NaN loss raises FloatingPointError, and data outside the support of their distribution raise Pyro's ValueError,
    at any step and before a parameter moves; ``pyro.enable_validation(False)`` switches the second off.

    Attributes: ``steps_done``; ``epoch``, which schedules in epochs read; ``compilations`` and ``compile_seconds``;
        ``expected_calls``, the calls still to come by the name of the method; ``on_compile``, called with a text before
        something is compiled; ``checks``, whether the first step calls :func:`pyrovae.check` in any case, which it does
        under an objective or for a model of pyrovae; ``processes``, which take each step together, on a share of the
        batch each, and add up their losses and gradients.
    Raises: ValueError for an argument out of its range; RuntimeError where ``compile=True`` cannot be done.
    See also: :func:`~pyrovae.fit`.
    """

    def __init__(
        self,
        model: Function,
        guide: Function,
        optim: pyro.optim.PyroOptim,
        loss: Any,
        loss_and_grads: Callable[..., Losses] | None = None,
        *,
        compile: bool | None = None,
        clip_norm: float | None = None,
        accumulate: int = 1,
        precision: torch.dtype | None = None,
        ignore: Collection[str] = (),
        **kwargs: Any,
    ) -> None:
        if compile not in (None, True, False):
            raise ValueError(f"compile must be True, False or None, got {compile!r}")
        if clip_norm is not None and not 0 < clip_norm < math.inf:
            raise ValueError(f"clip_norm must be positive, got {clip_norm}")
        if not isinstance(accumulate, int) or accumulate < 1:
            raise ValueError(f"accumulate must be a whole number, at least 1, got {accumulate!r}")
        if not isinstance(optim, pyro.optim.PyroOptim):
            raise TypeError(f"optim must be an optimizer of pyro.optim, got {type(optim).__name__}")
        networks_in(precision)
        super().__init__(model, guide, optim, loss, loss_and_grads, **kwargs)
        self.compile, self.clip_norm, self.accumulate, self.precision = compile, clip_norm, accumulate, precision
        self.ignore = frozenset(ignore)
        self.steps_done = 0
        self.epoch: float | None = None
        self.expected_calls: dict[str, float] = {}
        self.compilations, self.compile_seconds = 0, 0.0
        self.on_compile: Callable[[str], None] | None = None
        self.checks = False
        self.processes: Processes | None = None
        self._due: list[Tensor] = []  # parameters to step, once the processes have added up the gradients
        self._told: set[str] = set()
        self._num_added = 0
        self._config: tuple[object, ...] = ()
        self._states: OrderedDict[tuple[int, ...], State] = OrderedDict()
        self._names: set[str] = set()  # of the parameters met so far, in Pyro's store
        self._pending: Saved | None = None  # a state for parameters that do not exist yet
        self._rehearsals: dict[str, list[Any]] = {}  # calls that a loaded state has met, and this process has not
        self._rehearses = False
        self._stored: object = None
        self._gave_up = False
        self._programs = shared_programs() or Programs()

    @property
    def loss(self) -> Callable[..., Losses]:
        """The loss as a function; an objective assigned to it also replaces ``loss_and_grads``."""
        return self._loss

    @loss.setter
    def loss(self, loss: Any) -> None:
        self._loss: Any = loss.loss if isinstance(loss, PyroELBO) else loss  # type: ignore[attr-defined]  # as above
        if isinstance(loss, PyroELBO):
            self.loss_and_grads = loss.loss_and_grads  # type: ignore[attr-defined]  # every objective of Pyro has it

    @property
    def objective(self) -> Any:
        """The objective whose gradient a step takes, or the function that takes it."""
        return getattr(self.loss_and_grads, "__self__", self.loss_and_grads)

    def step(self, *args: object, **kwargs: object) -> Any:
        """The loss of a batch, in nats summed over it, and one step on it; the arguments go to model and guide."""
        if not torch.is_grad_enabled() or torch.is_inference_mode_enabled():
            raise RuntimeError("step needs gradients, and runs inside torch.no_grad() or torch.inference_mode()")
        with guards.pyro_lock:
            call = arguments(args, kwargs)
            loss = self._run("step", call) if self.processes is None else self._run_together(self.processes, call)
            self.steps_done += 1
        return loss

    def evaluate_loss(self, *args: object, **kwargs: object) -> Any:
        """The loss of a batch, and nothing else."""
        with guards.pyro_lock, torch.no_grad():
            return self._run("evaluate_loss", arguments(args, kwargs))

    def evaluate(self, *args: object, **kwargs: object) -> Any:
        """The loss without schedules, weights and penalties: the negative bound on log p(x), to compare epochs by."""
        with guards.pyro_lock, torch.no_grad():
            return self._run("evaluate", arguments(args, kwargs))

    def state_dict(self, *, copied: bool = True) -> Saved:
        """Parameters and the optimizer's state by their names in Pyro's store, and the steps and epochs done.

        With ``copied=False`` the tensors are those that the next step moves.
        """
        self._follow_attributes()
        if self._pending is not None:  # loaded, and no call has made the parameters since
            return copy.deepcopy(self._pending)
        stored = private.stored_params()
        params = {name: stored[name] for name in self._names if name in stored}
        optimizer = private.optimizer_states(self.optim)
        if copied:
            params = {name: param.detach().clone() for name, param in params.items()}
            optimizer = copy.deepcopy(optimizer)
        met = {each.text: [min(each.count, REHEARSED), each.is_compiled] for each in self._state.calls.values()}
        calls = {**self._rehearsals, **met}
        return {
            "steps_done": self.steps_done,
            "epoch": self.epoch,
            "params": params,
            "optimizer": optimizer,
            "calls": calls,
        }

    def load_state_dict(self, state: Saved) -> None:
        """Continue from a state, also one from before the first step, from another process or of an equal model.

        Where some parameters do not exist yet, the next call makes them first, by one more run of guide and model. A
        step that was compiled is compiled again before it is taken, so that it gives the numbers of a run that went on.

        Raises: ValueError where names or shapes are not those of this model, before anything is changed.
        """
        check_saved(state)
        self._follow_attributes()
        if self._names >= state["params"].keys():
            self._load(state)
        else:
            self.steps_done, self.epoch = state["steps_done"], state["epoch"]
            self._pending = copy.deepcopy(state)

    def _run_together(self, processes: Processes, call: Arguments) -> Losses:
        """A step on the sum of the losses and of the gradients of all processes; nothing moves where one fails."""
        self._due = []
        with told(processes):
            result = self._run("step", call)
        params = self._due
        try:
            numbers = [float(number) for number in (result if isinstance(result, tuple) else (result,))]
            losses = processes.agree(numbers, sum(p.numel() for p in params))
            has_grad = [torch.tensor(float(p.grad is not None), device=p.device) for p in params]
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
            sums = processes.add([*grads, *has_grad])
        except BaseException:
            zero_grads(params)
            raise
        for param, grad, number in zip(params, sums, sums[len(params) :], strict=False):
            param.grad = grad if number > 0 else None
        if params:
            self._update(params)
        return type(result)(losses) if isinstance(result, tuple) else losses[0]

    def _load_pending(self, call: Arguments) -> None:
        state, self._pending = self._pending, None
        with self._undone(call), torch.no_grad():
            guide = poutine.trace(self.guide).get_trace(*call.args, **call.kwargs)
            model = poutine.trace(poutine.replay(self.model, trace=guide)).get_trace(*call.args, **call.kwargs)
        nodes: Any = [*guide.nodes.items(), *model.nodes.items()]
        self._names |= {name for name, node in nodes if node["type"] == "param"}
        self._load(state)

    def _rehearse(self, what: str, call: Arguments, count: int, compiled: bool) -> None:
        """Bring a call to where it was when the state was saved, compiled or not, and undo its effects."""
        before, self._rehearses = (self._num_added, dict(self.expected_calls)), compiled
        with self._undone(call):
            for _ in range(count):
                self._run(what, call)
        (self._num_added, self.expected_calls), self._rehearses = before, False

    def _undone(self, call: Arguments) -> AbstractContextManager[None]:
        """Put back what calls inside move: random state, parameters, buffers and the state of the optimizer."""
        stored = private.stored_params()
        params = [stored[name] for name in self._names if name in stored]
        return undone([*self._watched().tensors, *params], self.optim, call.tensors)

    def _load(self, state: Saved | None) -> None:
        if state is None:
            return
        stored = private.stored_params()
        own = matched(state["params"], [name for name in self._names if name in stored])
        for name, value in state["params"].items():
            if stored[own[name]].shape != value.shape:
                got, expected = tuple(value.shape), tuple(stored[own[name]].shape)
                raise ValueError(f"state: the parameter {name!r} has shape {got}, expected {expected}")
        before = dict(self.optim.optim_objs)
        self.optim.optim_objs.clear()
        states = {own.get(name, name): each for name, each in copy.deepcopy(state["optimizer"]).items()}
        try:
            self.optim.set_state(states)
            params = [stored[name] for name in states if name in stored]
            private.make_optimizers(self.optim, params, check_optimizer_state)
        except Exception as error:
            self.optim.optim_objs.clear()
            self.optim.optim_objs.update(before)
            self.optim.set_state({})
            if isinstance(error, ValueError):
                raise
            raise ValueError(f"state: it has no state of this optimizer ({type(error).__name__})") from error
        self.steps_done, self.epoch = state["steps_done"], state["epoch"]
        with torch.no_grad():
            for name, value in state["params"].items():
                stored[own[name]].copy_(value)
        for param in (*before, *self.optim.optim_objs):
            param.grad = None
        self._names = set(own.values())
        self._config = ()
        self._states.clear()
        self._rehearsals = copy.deepcopy(state["calls"])

    # One call

    def _run(self, what: str, call: Arguments) -> Losses:
        if self._pending is not None:
            self._load_pending(call)
        self._follow_attributes()
        if not self._state.checked:
            # under Pyro's objectives the user's functions are called as often as by Pyro's SVI, unless checks are asked
            own = isinstance(self.objective, Objective) or _is_own(self.model) or _is_own(self.guide)
            if own or self.checks:
                guards.check(self.model, self.guide, self.objective, *call.args, **call.kwargs)
            self._state.checked = True
        calls = self._calls_like(what, call)
        if (met := self._rehearsals.pop(calls.text, None)) and (met[1] or (self.compile and what == "step")):
            self._rehearse(what, call, *met)
            calls = self._calls_like(what, call)
        calls.count += 1
        if what in self.expected_calls:
            self.expected_calls[what] -= 1
        compiled = self._compiled(calls, call) if self.compile is not False else None
        if compiled is None:
            return self._run_as_it_is(calls, call)
        if isinstance(compiled, Recording):
            return self._first_compiled(calls, compiled, call)
        losses, grads = compiled([*call.tensors, *self._numbers(calls, call.tensors)])
        if any(map(math.isnan, losses)):
            self._raise_for_nan(calls, call)
        if what == "step":
            self._add(compiled, grads)
        return compiled.pack(losses)

    def _add(self, compiled: Compiled, grads: Sequence[Tensor]) -> None:
        """Step along the gradients of compiled code, unless it has done so itself."""
        if compiled.updates:
            return
        clean = self._grads_are_zero(compiled.params)
        for param, grad in zip(compiled.params, grads, strict=True):
            param.grad = grad if clean or param.grad is None else param.grad + grad
        # processes that compile at other times step the same parameters, also those without a gradient
        self._count_and_update(list(compiled.params if self.processes is None else compiled.recording.met))

    def _run_as_it_is(self, calls: Calls, call: Arguments) -> Losses:
        with calls.timings.timed():
            result = self._loss_as_it_is(calls, call)
            if calls.what == "step":
                self._count_and_update(calls.params)
        return result

    def _loss_as_it_is(self, calls: Calls, call: Arguments) -> Losses:
        """The loss; under ``step`` its gradient is added to the parameters'."""
        observed = Observed()
        with networks_in(self.precision), observed, poutine.trace(param_only=True) as met:
            try:
                result = _as_numbers(self._function(calls.what)(self.model, self.guide, *call.args, **call.kwargs))
            except (FloatingPointError, ValueError, RuntimeError) as error:
                zero_grads(calls.params)
                if isinstance(error, FloatingPointError):
                    raise FloatingPointError(f"step {self.steps_done + 1}: {error}") from error
                raise
        sites: Any = met.trace.nodes
        calls.params = list(dict.fromkeys(site["value"].unconstrained() for site in sites.values()))
        calls.names, calls.validated = frozenset(sites), frozenset(observed.validated)
        if not self._names >= sites.keys():
            self._names |= sites.keys()
            self._state.watch = None
        if any(map(math.isnan, result if isinstance(result, tuple) else (result,))):
            zero_grads(calls.params)
            why = blame(self.model, self.guide, call.args, call.kwargs)
            raise FloatingPointError(f"step {self.steps_done + 1}: the loss became NaN: {why}")
        return result

    def _count_and_update(self, params: list[Tensor]) -> None:
        """One step of the optimizer on the gradients, which are then zero, once enough of them are added up."""
        self._num_added += 1
        if self._num_added < self.accumulate:
            return
        self._num_added = 0
        if not params:
            if self.checks:
                raise ValueError("model and guide have no parameter to train: name one by pyro.param or pyro.module")
            return
        if self.processes is None:
            self._update(params)
        else:
            self._due = params

    def _update(self, params: list[Tensor]) -> None:
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(params, self.clip_norm)
        private.make_optimizers(self.optim, params)
        self._grouped(params).step()
        zero_grads(params)
        for param in params:
            if param.grad is not None:
                self._state.zeros[id(param)] = param.grad, _version(param.grad)

    def _grouped(self, params: Sequence[Tensor]) -> Grouped:
        key = tuple(map(id, params))
        if key not in self._state.optimizers:
            self._state.optimizers[key] = Grouped(self.optim, params)
        return self._state.optimizers[key]

    def _raise_for_nan(self, calls: Calls, call: Arguments) -> None:
        """The error that the step as it is raises, whose parameters have not moved."""
        with torch.enable_grad():
            self._loss_as_it_is(calls, call)
        zero_grads(calls.params)
        raise FloatingPointError(
            f"step {self.steps_done + 1}: the loss became NaN, or data lie outside the support of their distribution, "
            f"in the compiled step alone"
        )

    # What is compiled, and when

    def _compiled(self, calls: Calls, call: Arguments) -> Compiled | Recording | None:
        """The compiled step of this call, or its recording where it is to be compiled now."""
        if self._gave_up:
            return None
        if private.active_handlers() or private.modes_are_active():
            return self._refused(calls, "it is called inside a handler of Pyro or a mode of torch")
        if calls.reason or call.reason:
            return self._refused(calls, calls.reason or call.reason)
        watch = self._watched()
        if watch.hooked or private.has_global_hooks():
            return self._refused(calls, f"a hook of {watch.hooked[0] if watch.hooked else 'all modules'} would not run")
        if watch.moving:
            return self._refused(calls, f"{watch.moving[0]} is an iterator, which a recording would move on")
        if any(map(private.has_tensor_hooks, calls.params)):
            return self._refused(calls, "a parameter has a hook for its gradient, which would not run")
        known = calls.known_for(watch)
        known.count += 1
        if (compiled := known.compiled) is not None:
            if compiled.holds(watch, self.optim):
                return None if compiled.updates and not self._grads_are_zero(compiled.recording.params) else compiled
            known.compiled, known.count = None, 0
        elif calls.short > SHORT:
            self._give_up(f"{calls.changed} changes from call to call; if the step does not read it, name it in ignore")
        elif known.count > STEADY and self._is_due(calls) and not self._is_opaque(calls, watch):
            return self._record(calls, call, watch)
        return None

    def _refused(self, calls: Calls, why: str | None) -> Compiled | None:
        if why and self._is_due(calls):
            self._tell(why)
        return None

    def _is_opaque(self, calls: Calls, watch: Watch) -> bool:
        """Whether something that the step can read cannot be followed, which is said; or there are recurrent layers."""
        if not watch.opaque:
            return watch.recurs and not self.compile
        names = ", ".join(f"{name} ({why})" for name, why in list(watch.opaque.items())[:3])
        if not self.compile:
            self._tell(f"it can read what cannot be followed: {names}; compile=True takes your word that it stays")
            return True
        self._tell(f"compile=True takes your word that these do not change what a step does: {names}", raises=False)
        return False

    def _is_due(self, calls: Calls) -> bool:
        if self._rehearses or (self.compile and calls.what == "step"):
            return calls.timings.count >= 1
        if self.compilations >= MOST:
            self._give_up(f"{MOST} different steps were compiled, and this is one more")
            return False
        if self._programs.has_others and not calls.searched:  # one of another SVI costs no compilation
            return calls.timings.count >= 1
        return self._pays(calls)

    def _pays(self, calls: Calls) -> bool:
        """Whether compiling these calls costs less than it saves, in all runs that share the code."""
        known = self.compile_seconds / self.compilations if self.compilations else None
        left = self.expected_calls.get(calls.what)
        if left is not None:
            alike = [each.timings.count for each in self._state.calls.values() if each.what == calls.what]
            left *= self._programs.num_runs * max(calls.timings.count, 0) / max(sum(alike), 1)
        return calls.timings.pays(left, known)

    def _record(self, calls: Calls, call: Arguments, watch: Watch) -> Compiled | Recording | None:
        """A recording of this call; the compiled step of an equal one, where there is one."""
        if self.compilations >= MOST:
            self._give_up(f"{MOST} different steps were compiled, and this is one more")
            return None
        numbers = self._numbers(calls, call.tensors)

        def loss(*inputs: Tensor) -> Losses:
            args, kwargs = call.rebuild(inputs[: len(call.tensors)])
            given = dict(zip(calls.schedules, inputs[len(call.tensors) :], strict=True))
            with networks_in(self.precision):
                return self._function(calls.what, given)(self.model, self.guide, *args, **kwargs)

        stored = private.stored_params()
        names = set(stored)
        if not calls.names <= names:
            return None  # a store that was cleared: the step as it is makes them first
        inputs = [*call.tensors, *numbers]
        is_step = calls.what == "step"
        params = calls.params if is_step else []
        alone = self.accumulate == 1 and self.processes is None
        updates = self._grouped(calls.params).updates() if is_step and alone and params else []
        try:
            recording = Recording(loss, inputs, params, updates, self.clip_norm, calls.validated)
        except Unrecordable as error:
            watch.put_back()
            self._refuse(calls, error)
            return None
        finally:
            new = stored.keys() - names
            for name in new:  # made of fake tensors
                del pyro.get_param_store()[name]
        if new:
            self._refuse(calls, Unrecordable(f"it makes the parameter {min(new)!r} only when it is recorded"))
            return None
        if (changed := watch.put_back()) is not None:
            self._refuse(calls, Unrecordable(f"it changes {changed} when it runs"))
            return None
        if (program := self._programs.find(recording.graph)) is not None:
            compiled = calls.keep(watch, Compiled(recording, program, watch))
            # a step that compiles is taken as it is, and so is this one: the same numbers as without sharing
            return None if self._programs.is_shared else compiled
        if self._programs.has_others and not calls.searched:
            calls.searched = True  # the next calls are compiled when it pays
            if not (self.compile and is_step) and not self._pays(calls):
                return None
        return recording

    def _first_compiled(self, calls: Calls, recording: Recording, call: Arguments) -> Losses:
        """Compile a step, and take it as it is: both must do the same."""
        watch = self._watched()
        if self.on_compile is not None:
            known = self.compile_seconds / self.compilations if self.compilations else None
            self.on_compile(f"compiling the {calls.what}, about {calls.timings.cost(known):.0f} s")

        def update() -> None:
            if calls.what == "step":
                self._count_and_update(calls.params)

        try:
            compiled = Compiled(recording, Program(recording.graph, recording.inputs), watch)
        except Unrecordable as error:
            self._refuse(calls, error)
            return self._run_as_it_is(calls, call)
        self.compilations += 1
        self.compile_seconds += compiled.program.seconds
        inputs = recording.inputs[: len(recording.inputs) - len(recording.updates)]
        try:
            result = compiled.check(inputs, lambda: self._loss_as_it_is(calls, call), update)
        except Disagreement as error:
            self.compilations -= 1
            self._refuse(calls, error)
            return error.result
        self._programs.add(compiled.program)
        calls.keep(watch, compiled)
        return result

    def _refuse(self, calls: Calls, error: Unrecordable) -> None:
        calls.reason = str(error)
        self._tell(calls.reason, error)

    def _give_up(self, why: str) -> None:
        self._gave_up = True
        self._tell(why)

    def _tell(self, why: str, error: Exception | None = None, raises: bool = True) -> None:
        """Say once why something runs without compilation; raise where it was asked for and nothing was compiled."""
        if raises and self.compile and not self.compilations:
            raise RuntimeError(f"compile=True, but the step cannot be compiled: {why}") from error
        if why not in self._told:
            self._told.add(why)
            text = f"the step runs without compilation from here on: {why}" if raises else why
            warnings.warn(f"pv.SVI: {text}", stacklevel=6)

    # State

    def _follow_attributes(self) -> None:
        """Use the calls that were met with these attributes; start anew where one of them is new."""
        config = (self.model, self.guide, self._loss, self.loss_and_grads, self.optim, self.clip_norm, self.accumulate,
                  self.precision, self.compile, self.ignore, self.processes)  # fmt: skip
        if len(config) == len(self._config) and all(map(_is_same, config, self._config)):
            return
        self._config, key = config, tuple(map(id, config))
        if key not in self._states:
            self._states[key] = State(config)
            if len(self._states) > MOST:
                self._states.popitem(last=False)
        self._state = self._states[key]

    def _calls_like(self, what: str, call: Arguments) -> Calls:
        key: tuple[object, ...] = (what, call.signature, settings())
        if key not in self._state.calls:
            if len(self._state.calls) >= MANY and not self._gave_up and self.compile is not False:
                self._give_up(
                    f"it was called with {MANY} different shapes or values of plain arguments; a number that changes "
                    f"from call to call can be given as a tensor"
                )
            if self._gave_up:
                key = (what,)
            self._state.calls.setdefault(key, Calls(what, self._objective(what), f"{what} {call.signature!r}"))
        return self._state.calls[key]

    def _watched(self) -> Watch:
        """What model, guide and loss can read from Python now."""
        stored = private.stored_params()
        if self._state.watch is None or stored is not self._stored or not self._state.watch.same():
            self._stored = stored
            roots = {
                "model": self.model,
                "guide": self.guide,
                "loss": self._loss,
                "loss_and_grads": self.loss_and_grads,
            }
            entries = [(name, stored, name) for name in sorted(self._names) if name in stored]
            self._state.watch = Watch(roots, entries, self.ignore)
        return self._state.watch

    def _grads_are_zero(self, params: Sequence[Tensor]) -> bool:
        """Whether the gradients of parameters are what the last step left, and nobody has added to them."""
        zeros = self._state.zeros
        for param in params:
            grad = param.grad
            zero, version = zeros.get(id(param), (None, 0))
            if grad is not None and (grad is not zero or _version(grad) != version):
                return False
        return True

    def _numbers(self, calls: Calls, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The values of the schedules now, on the device of the batch."""
        device = tensors[0].device if tensors else None
        now = (self._now(name, schedule) for name, schedule in calls.schedules.items())
        return [torch.tensor(number, dtype=torch.float64, device=device) for number in now]

    def _now(self, name: str, schedule: Schedule) -> float:
        if schedule.unit == "steps":
            return schedule(self.steps_done)
        if self.epoch is None:
            raise ValueError(
                f"{name} is a schedule in epochs, which pv.fit counts: give it steps=..., or set the epoch of pv.SVI"
            )
        return schedule(self.epoch)

    def _objective(self, what: str) -> Any:
        objective = getattr(self._loss if what == "evaluate_loss" else self.loss_and_grads, "__self__", None)
        return objective.true_bound() if what == "evaluate" and isinstance(objective, Objective) else objective

    def _function(self, what: str, given: dict[str, Tensor] | None = None) -> Callable[..., Losses]:
        """The loss with the numbers of now, or with given ones; under ``step`` with its gradient."""
        objective = self._objective(what)
        if not isinstance(objective, Objective):
            return self.loss_and_grads if what == "step" else self._loss
        if given is None:
            objective = objective.at({name: self._now(name, each) for name, each in objective.schedules().items()})
            return objective.loss_and_grads if what == "step" else objective.loss

        def loss(model: Function, guide: Function, *args: object, **kwargs: object) -> Losses:
            of_now = objective.at(given)
            if what != "step":
                return of_now.loss(model, guide, *args, **kwargs)
            value = of_now.differentiable_loss(model, guide, *args, **kwargs)
            value.backward()
            return value

        return loss


def _as_numbers(loss: Losses) -> Losses:
    """The numbers of a loss, or of the several ones that some of Pyro's objectives have."""
    if isinstance(loss, tuple):
        return type(loss)(map(_as_numbers, loss))  # type: ignore[arg-type]  # each is one
    return loss.item() if isinstance(loss, Tensor) else loss


def _is_own(function: object) -> bool:
    """Whether it is a method of a class of pyrovae, or of one that derives from it."""
    return any(cls.__module__.startswith("pyrovae.") for cls in type(getattr(function, "__self__", None)).__mro__)


def _is_same(a: object, b: object) -> bool:
    return a is b or (type(a) is type(b) and not isinstance(a, Tensor) and a == b)
