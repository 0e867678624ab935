"""One torch optimizer over many parameters, in the place of Pyro's one for each; Adam's also as a part of a graph."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import torch
from pyro.optim import PyroOptim
from pyro.optim.lr_scheduler import PyroLRScheduler
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

__all__ = ["AdamUpdate", "Grouped"]


class Grouped:
    """Steps parameters as a Pyro optimizer does, those of equal hyper-parameters in one call, fused where torch can.

    Pyro's optimizer objects stay what counts: their state is what is moved here, their hyper-parameters are read at
    each step, so that its schedulers, ``get_state``, ``save`` and per-parameter arguments are what they were.

    Args:
        optim: An optimizer of ``pyro.optim`` that has stepped these parameters at least once.
        params: What it is to step.
    """

    def __init__(self, optim: PyroOptim, params: Sequence[Tensor]) -> None:
        self.optim, self.params = optim, tuple(params)
        # a subclass that steps in a way of its own is left to it
        self._own = type(optim).__call__ not in (PyroOptim.__call__, PyroLRScheduler.__call__)
        self._groups: list[_Group] = []
        self._kinds = self._kinds_now()
        if not self._own:
            self._clips = [(optim.grad_clip[p], p) for p in params if optim.grad_clip[p] is not None]
            self._group()

    def step(self) -> None:
        """Step every parameter that has a gradient."""
        if self._own:
            self.optim(list(self.params))
            return
        for clip, param in self._clips:
            if param.grad is not None:
                clip(param)
        if self._kinds_now() != self._kinds:
            self._follow()
        if not self.holds():
            self._group()
        for group in self._groups:
            group.optimizer.step()
            group.num_steps += 1

    def holds(self) -> bool:
        """Whether parameters that were put together still belong together."""
        return all(group.holds() for group in self._groups)

    def updates(self) -> list[AdamUpdate] | None:
        """What a graph can do in the place of :meth:`step`; None unless all of it is Adam's, of one count of steps."""
        if self._own or self._clips or not self.holds():
            return None
        for group in self._groups:
            if group.update is None and AdamUpdate.fits(group):
                group.update = AdamUpdate(group)
        updates = [group.update for group in self._groups if group.update is not None and group.update.holds()]
        return updates if updates and len(updates) == len(self._groups) else None

    def _kinds_now(self) -> list[tuple[torch.dtype, torch.device]]:
        return [(param.dtype, param.device) for param in self.params]

    def _follow(self) -> None:
        """Bring what the optimizers keep of a parameter, but for counts, to where it was put by ``.to()``."""
        for param in self.params:
            each = self.optim.optim_objs[param]
            state = getattr(each, "optimizer", each).state[param]
            moved = {key: value for key, value in state.items() if isinstance(value, Tensor) and value.dim()}
            state.update((key, value.to(param)) for key, value in moved.items() if value.shape == param.shape)
        self._kinds = self._kinds_now()
        self._group()

    def _group(self) -> None:
        groups: list[_Group] = []
        for param in self.params:
            each = self.optim.optim_objs[param]
            each = getattr(each, "optimizer", each)  # a scheduler has it
            group = next((group for group in groups if group.takes(each)), None)
            if group is None:
                groups.append(_Group(each))
            else:
                group.each.append(each)
        for group in groups:
            group.build()
        self._groups = groups


class _Group:
    """Pyro's torch optimizers of equal class and hyper-parameters, and one that stands for all of them."""

    def __init__(self, first: Optimizer) -> None:
        self._keys = sorted(first.param_groups[0].keys() - {"params"})
        self._read = itemgetter(*self._keys)
        self.hyper = self._read(first.param_groups[0])
        self.each = [first]
        self.num_steps = 0  # that the optimizer took
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

    def holds(self) -> bool:
        """Whether their hyper-parameters are equal still; those that move all together are followed."""
        hyper = self._read(self.each[0].param_groups[0])
        for each, state in zip(self.each, self._states, strict=True):
            if self._read(each.param_groups[0]) != hyper or each.state is not state:
                return False
        if hyper != self.hyper:
            self.hyper = hyper
            self.optimizer.param_groups[0].update(zip(self._keys, hyper, strict=True))
            self._fuse()
        return True

    def __getitem__(self, key: str) -> Any:
        """A hyper-parameter."""
        return self.optimizer.param_groups[0][key]

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
    r"""The step of Adam as operations of a graph, on the state of torch's own.

    .. math::
        m \leftarrow \beta_1 m + (1 - \beta_1) g , \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g^2 , \qquad
        \theta \leftarrow \theta - \frac{\eta}{1 - \beta_1^t} \, \frac{m}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    with :math:`g + \lambda \theta` in the place of :math:`g`, or for AdamW :math:`(1 - \eta \lambda) \theta` in that of
    :math:`\theta`, under a weight decay :math:`\lambda`. All these numbers are inputs of the graph.

    References: Kingma and Ba (2015), "Adam", algorithm 1; Loshchilov and Hutter (2019), "Decoupled weight decay
        regularization", algorithm 2.
    """

    def __init__(self, group: _Group) -> None:
        self._group = group
        self.params = group.params
        state = [group.optimizer.state[param] for param in self.params]
        self._first = [each["exp_avg"] for each in state]
        self._second = [each["exp_avg_sq"] for each in state]
        # the counts are views of one tensor, so that one addition moves them all
        self._steps = torch.stack([each["step"] for each in state])
        self._views = self._steps.unbind()
        for each, step in zip(state, self._views, strict=True):
            each["step"] = step
        self._state = state
        self._kind: Any = self._kind_of(group)
        self._num_steps = -1  # of the optimizer, when the counts were last seen to be equal
        self._count = 0  # what they were then, and have become

    @staticmethod
    def fits(group: _Group) -> bool:
        """Whether a group is one of Adam as it is above."""
        if type(group.each[0]) not in (Adam, AdamW) or AdamUpdate._kind_of(group) is None:
            return False
        return all("step" in group.optimizer.state[param] for param in group.params)

    @staticmethod
    def _kind_of(group: _Group) -> tuple[bool, bool] | None:
        """Whether weights decay, and apart from the gradient; None of what is not written here."""
        if any(group[name] for name in ("amsgrad", "maximize", "foreach", "capturable", "differentiable")):
            return None
        decoupled = group.optimizer.param_groups[0].get("decoupled_weight_decay", type(group.each[0]) is AdamW)
        return bool(group["weight_decay"]), bool(decoupled)

    @property
    def moved(self) -> list[Sequence[Tensor]]:
        """What it moves."""
        return [self.params, self._first, self._second, [self._steps]]

    def holds(self) -> bool:
        """Whether what it takes to be constant is, and every parameter was stepped as often as the others."""
        if not self._group.holds() or self._kind_of(self._group) != self._kind:
            return False
        if any(each["step"] is not step for each, step in zip(self._state, self._views, strict=True)):
            return False  # another group has them now
        if self._num_steps != self._group.num_steps and bool((self._steps == self._steps[0]).all()):
            self._num_steps, self._count = self._group.num_steps, int(self._steps[0])
        return self._num_steps == self._group.num_steps

    def inputs(self) -> Tensor:
        """The numbers of the next step."""
        group, t = self._group, self._count + 1
        rate, (beta_1, beta_2), eps, decay = float(group["lr"]), group["betas"], group["eps"], group["weight_decay"]
        corrected, root = rate / (1 - beta_1**t), 1 / math.sqrt(1 - beta_2**t)
        numbers = (corrected, root, 1 - beta_1, beta_2, 1 - beta_2, eps, rate * decay if self._kind[1] else decay)
        return torch.tensor(numbers, dtype=self.params[0].dtype, device=self.params[0].device)

    def __call__(self, grads: Mapping[Tensor, Tensor], inputs: Tensor, keep: Tensor | None) -> None:
        """Move the parameters and the state, but where ``keep`` is true, in which case all stays as it was."""
        corrected, root, gain_1, beta_2, gain_2, eps, decay = inputs.unbind()
        decays, decoupled = self._kind
        moved = [(self._steps, self._steps + 1)]
        for param, first, second in zip(self.params, self._first, self._second, strict=True):
            grad, start = grads[param], param
            if decays and decoupled:
                start = param * (1 - decay)
            elif decays:
                grad = grad + decay * param
            m = first + gain_1 * (grad - first)
            v = beta_2 * second + gain_2 * grad * grad
            moved += [(param, start - corrected * m / (v.sqrt() * root + eps)), (first, m), (second, v)]
        for old, new in moved:
            old.copy_(new if keep is None else torch.where(keep, old, new))

    def done(self) -> None:
        """The graph has run, and moved them."""
        self._count += 1
