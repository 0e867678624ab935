"""One torch optimizer over many parameters instead of Pyro's one for each; Adam's step also as a part of a graph."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from operator import attrgetter, is_, itemgetter
from typing import Any

import torch
from pyro.optim import PyroOptim
from pyro.optim.lr_scheduler import PyroLRScheduler
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from pyrovae import private

__all__ = ["AdamUpdate", "Grouped"]

# the hyper-parameters that AdamUpdate implements, or, where false, needs not
NUMBERS = {"lr", "betas", "eps", "weight_decay"}
GROUPED = ("torch.optim", "pyrovae.")  # classes whose step of many parameters is that of each
IMPLEMENTED = NUMBERS | {"decoupled_weight_decay", "fused", "params", "initial_lr"}

_state = attrgetter("state")
_parts = itemgetter("step", "exp_avg", "exp_avg_sq")


class Grouped:
    """Steps parameters as a Pyro optimizer does, those of equal hyper-parameters in one call, fused where torch can.

    Pyro's optimizer objects stay the truth: their state is what is moved here, and their hyper-parameters are read at
    each step, so that its schedulers, ``get_state``, ``save`` and per-parameter arguments work as in Pyro.

    Args:
        optim: An optimizer of ``pyro.optim`` that has stepped these parameters at least once.
        params: The parameters to step.
    """

    def __init__(self, optim: PyroOptim, params: Sequence[Tensor]) -> None:
        self.optim, self.params = optim, tuple(params)
        # a subclass that steps in a way of its own is left to it
        self._is_custom = type(optim).__call__ not in (PyroOptim.__call__, PyroLRScheduler.__call__) or not all(
            type(_torch_optimizer(optim, param)).__module__.startswith(GROUPED) for param in params
        )
        self._groups: list[_Group] = []
        self._places = self._places_now()
        if not self._is_custom:
            self._clips = [(optim.grad_clip[p], p) for p in params if optim.grad_clip[p] is not None]
            self._group()

    def step(self) -> None:
        """Step every parameter that has a gradient."""
        if self._is_custom:
            self.optim(list(self.params))
            return
        for clip, param in self._clips:
            if param.grad is not None:
                clip(param)
        if self._places_now() != self._places:
            self._follow()
        if not self.holds():
            self._group()
        for group in self._groups:
            for optimizer in group.each if any(map(private.has_step_hooks, group.each)) else [group.optimizer]:
                optimizer.step()

    def holds(self) -> bool:
        """Whether parameters that were put together still belong together, in Pyro's optimizer objects of now."""
        return all(group.holds(self.optim) for group in self._groups)

    def updates(self) -> list[AdamUpdate]:
        """Adam's step as parts of a graph; empty unless they can stand for all of :meth:`step`."""
        if self._is_custom or self._clips or not self.holds():
            return []
        for group in self._groups:
            if group.update is None and AdamUpdate.fits(group):
                group.update = AdamUpdate(group, self._states())
        updates = [
            group.update for group in self._groups if group.update is not None and group.update.holds(self.optim)
        ]
        return updates if len(updates) == len(self._groups) else []

    def _states(self) -> list[dict[str, Tensor]]:
        """Adam's state of every parameter that Pyro's optimizer knows."""
        each = [(param, _torch_optimizer(self.optim, param)) for param in self.optim.optim_objs]
        states = [optimizer.state[param] for param, optimizer in each if type(optimizer) in (Adam, AdamW)]
        return [state for state in states if "step" in state]

    def _places_now(self) -> list[tuple[torch.dtype, torch.device]]:
        return [(param.dtype, param.device) for param in self.params]

    def _follow(self) -> None:
        """Bring the optimizers' state of a parameter, except counts, to where ``.to()`` has put the parameter."""
        for param in self.params:
            state = _torch_optimizer(self.optim, param).state[param]
            moved = {key: value for key, value in state.items() if isinstance(value, Tensor) and value.dim()}
            state.update((key, value.to(param)) for key, value in moved.items() if value.shape == param.shape)
        self._places = self._places_now()
        self._group()

    def _group(self) -> None:
        groups: list[_Group] = []
        for param in self.params:
            each = _torch_optimizer(self.optim, param)
            group = next((group for group in groups if group.takes(each)), None)
            if group is None:
                groups.append(_Group(each))
            else:
                group.each.append(each)
        for group in groups:
            group.build()
        self._groups = groups


def _torch_optimizer(optim: PyroOptim, param: Tensor) -> Optimizer:
    each = optim.optim_objs[param]
    return getattr(each, "optimizer", each)  # a scheduler has it


class _Group:
    """Pyro's torch optimizers of equal class and hyper-parameters, and one that stands for all of them."""

    def __init__(self, first: Optimizer) -> None:
        self._keys = sorted(first.param_groups[0].keys() - {"params"})
        self._read = itemgetter(*self._keys)
        self.hyper = self._read(first.param_groups[0])
        self.each = [first]
        self.update: AdamUpdate | None = None

    def takes(self, other: Optimizer) -> bool:
        group = other.param_groups[0]
        same = type(other) is type(self.each[0]) and sorted(group.keys() - {"params"}) == self._keys
        return same and self._read(group) == self.hyper

    def build(self) -> None:
        self.params = [each.param_groups[0]["params"][0] for each in self.each]
        self._states = [each.state for each in self.each]
        self.optimizer = copy.copy(self.each[0])
        self.optimizer.param_groups = [{**self.each[0].param_groups[0], "params": self.params}]
        # the dictionary of each parameter is one object in both
        state = {param: each.state[param] for param, each in zip(self.params, self.each, strict=True)}
        self.optimizer.state = defaultdict(dict, state)
        self._fuse()

    def holds(self, optim: PyroOptim) -> bool:
        """Whether their hyper-parameters are still equal; those that move all together are followed."""
        now = [getattr(each, "optimizer", each) for each in map(optim.optim_objs.get, self.params)]
        if not all(map(is_, now, self.each)) or any(map(private.has_step_hooks, self.each)):
            return False
        if not all(map(is_, map(_state, self.each), self._states)):
            return False
        groups = [each.param_groups[0] for each in self.each]
        hyper = self._read(groups[0])
        if list(map(self._read, groups)) != [hyper] * len(groups) or {*map(len, groups)} != {len(self._keys) + 1}:
            return False
        if hyper != self.hyper:
            self.hyper = hyper
            self.optimizer.param_groups[0].update(zip(self._keys, hyper, strict=True))
            self._fuse()
        return True

    @property
    def settings(self) -> Mapping[str, Any]:
        """The hyper-parameters by name."""
        return self.optimizer.param_groups[0]

    def _fuse(self) -> None:
        group = self.optimizer.param_groups[0]
        chosen = any(group.get(key) for key in ("fused", "foreach", "differentiable", "capturable"))
        if "fused" not in group or chosen or not all(p.is_floating_point() for p in self.params):
            return
        group["fused"] = True
        for param in self.params:
            state = self.optimizer.state[param]
            if "step" in state:
                state["step"] = state["step"].to(param.device)


class AdamUpdate:
    r"""The step of Adam as operations of a graph, on the state of torch's own optimizer.

    .. math::
        m \leftarrow \beta_1 m + (1 - \beta_1) g , \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g^2 , \qquad
        \theta \leftarrow \theta - \frac{\eta}{1 - \beta_1^t} \, \frac{m}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    with :math:`g + \lambda \theta` instead of :math:`g`, or for AdamW :math:`(1 - \eta \lambda) \theta` instead of
    :math:`\theta`, under a weight decay :math:`\lambda`. All these numbers are inputs of the graph, and so is the count
    of steps t of each parameter.

    References: Kingma and Ba (2015), "Adam", algorithm 1; Loshchilov and Hutter (2019), "Decoupled weight decay
        regularization", algorithm 2.
    """

    def __init__(self, group: _Group, states: Sequence[dict[str, Tensor]]) -> None:
        self._group = group
        self.params = group.params
        self._state = [group.optimizer.state[param] for param in self.params]
        self.steps = _one_tensor_of_counts(states)
        self._tensors = [x for each in self._state for x in _parts(each)]
        self._views, self.first, self.second = (self._tensors[i::3] for i in range(3))
        self._kind, self._hyper = self._kind_of(group) or (False, False), group.hyper
        self._numbers: tuple[float, ...] = ()
        self._inputs = torch.empty(0)

    @staticmethod
    def fits(group: _Group) -> bool:
        """Whether a group is one of Adam as it is above, with all its state."""
        known = type(group.each[0]) in (Adam, AdamW) and AdamUpdate._kind_of(group) is not None
        return known and all("step" in group.optimizer.state[param] for param in group.params)

    @staticmethod
    def _kind_of(group: _Group) -> tuple[bool, bool] | None:
        """(has_weight_decay, is_decoupled), or None for variants of Adam that are not written here."""
        if any(value for name, value in group.settings.items() if name not in IMPLEMENTED):
            return None
        decoupled = group.settings.get("decoupled_weight_decay", type(group.each[0]) is AdamW)
        return bool(group.settings["weight_decay"]), bool(decoupled)

    @property
    def moved(self) -> list[Tensor]:
        """The optimizer's state, which it moves beside the parameters."""
        return [*self.first, *self.second, self.steps]

    def holds(self, optim: PyroOptim) -> bool:
        """Whether the state is the one that it moves, and the variant of Adam the one that it is."""
        if not self._group.holds(optim):
            return False
        if self._hyper is not self._group.hyper:
            if self._kind_of(self._group) != self._kind:
                return False
            self._hyper = self._group.hyper
        return all(map(is_, chain.from_iterable(map(_parts, self._state)), self._tensors))

    def inputs(self) -> Tensor:
        """The hyper-parameters of the next step, ``(5,)`` in float64 on the device of the parameters."""
        lr, (beta_1, beta_2), eps, decay = map(self._group.settings.__getitem__, ("lr", "betas", "eps", "weight_decay"))
        numbers = (float(lr), float(beta_1), float(beta_2), eps, decay)
        if numbers != self._numbers:
            self._numbers = numbers
            self._inputs = torch.tensor(numbers, dtype=torch.float64, device=self.params[0].device)
        return self._inputs

    def __call__(self, grads: Mapping[Tensor, Tensor], inputs: Tensor, keep: Tensor) -> None:
        """Move the parameters and the state, except where ``keep`` is true, in which case all stays as it was."""
        lr, beta_1, beta_2, _, decay = inputs.unbind()
        t = self.steps.double() + 1
        # by exp, whose results the compiler computes once and not for each entry of a parameter
        left_1, left_2 = (1 - torch.exp(t * beta.log()) for beta in (beta_1, beta_2))
        corrections = torch.stack((lr / left_1, left_2.rsqrt()), -1).unbind()
        dtype = self.params[0].dtype
        gain_1, gain_2, b2, eps = (x.to(dtype) for x in (1 - beta_1, 1 - beta_2, beta_2, inputs[3]))
        factor = (lr * decay if self._kind[1] else decay).to(dtype)
        moved: list[tuple[Tensor, Tensor]] = []
        for param, first, second, view in zip(self.params, self.first, self.second, self._views, strict=True):
            of_mean, of_root = corrections[view.storage_offset()].to(dtype).unbind()
            grad, start = grads[param], param
            if self._kind[0] and self._kind[1]:
                start = param * (1 - factor)
            elif self._kind[0]:
                grad = grad + factor * param
            m = first + gain_1 * (grad - first)
            v = b2 * second + gain_2 * grad * grad
            step = of_mean * m / (v.sqrt() * of_root + eps)
            moved += [(param, start - step), (first, m), (second, v)]
        own = {view.storage_offset() for view in self._views}
        added = torch.tensor([float(i in own) for i in range(len(self.steps))], device=self.steps.device)
        moved.append((self.steps, self.steps + added))
        for old, new in moved:
            old.copy_(torch.where(keep, old, new))


def _one_tensor_of_counts(states: Sequence[dict[str, Tensor]]) -> Tensor:
    """The counts of steps as views of one tensor, so that one addition moves them all, whoever else steps them."""
    views = [state["step"] for state in states]
    base = views[0]._base
    if base is None or any(view._base is not base for view in views):
        base = torch.stack(views)
        for state, view in zip(states, base.unbind(), strict=True):
            state["step"] = view
    return base
