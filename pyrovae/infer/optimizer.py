"""One torch optimizer over many parameters, in the place of Pyro's one for each."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from operator import itemgetter

from pyro.optim import PyroOptim
from pyro.optim.lr_scheduler import PyroLRScheduler
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["Grouped"]


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
        if not all(group.holds() for group in self._groups):
            self._group()
        for group in self._groups:
            group.optimizer.step()

    def _group(self) -> None:
        groups: list[_Group] = []
        for param in self.params:
            each = self.optim.optim_objs[param]
            each = getattr(each, "optimizer", each)  # a scheduler has it
            if not any(group.takes(each) for group in groups):
                groups.append(_Group(each))
            else:
                next(group for group in groups if group.takes(each)).add(each)
        for group in groups:
            group.build()
        self._groups = groups


class _Group:
    """Pyro's torch optimizers of equal class and hyper-parameters, and one that stands for all of them."""

    def __init__(self, first: Optimizer) -> None:
        keys = sorted(first.param_groups[0].keys() - {"params"})
        self._read = itemgetter(*keys)
        self._hyper = self._read(first.param_groups[0])
        self._keys = keys
        self.each = [first]

    def takes(self, other: Optimizer) -> bool:
        group = other.param_groups[0]
        same = type(other) is type(self.each[0]) and sorted(group.keys() - {"params"}) == self._keys
        return same and self._read(group) == self._hyper

    def add(self, other: Optimizer) -> None:
        self.each.append(other)

    def holds(self) -> bool:
        """Whether their hyper-parameters are equal still; those that move all together are followed."""
        hyper = self._read(self.each[0].param_groups[0])
        if any(self._read(each.param_groups[0]) != hyper for each in self.each):
            return False
        if hyper != self._hyper:
            self._hyper = hyper
            self.optimizer.param_groups[0].update(zip(self._keys, hyper, strict=True))
            self._fuse()
        return True

    def build(self) -> None:
        first = self.each[0]
        params = [each.param_groups[0]["params"][0] for each in self.each]
        self.optimizer = copy.copy(first)
        self.optimizer.param_groups = [{**first.param_groups[0], "params": params}]
        # the dictionary of each parameter is one object in both
        state = {param: each.state[param] for param, each in zip(params, self.each, strict=True)}
        self.optimizer.state = defaultdict(dict, state)
        self._fuse()

    def _fuse(self) -> None:
        group = self.optimizer.param_groups[0]
        chosen = any(group.get(key) for key in ("fused", "foreach", "differentiable", "capturable"))
        if "fused" not in group or chosen or not all(p.is_floating_point() for p in group["params"]):
            return
        group["fused"] = True
        for param in group["params"]:
            state = self.optimizer.state[param]
            if "step" in state:
                state["step"] = state["step"].to(param.device)
