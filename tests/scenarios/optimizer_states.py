"""The state of an optimizer is put back, reset or replaced; another optimizer; optimizers of one's own."""

from __future__ import annotations

import torch
from pyro.optim import SGD, Adam, PyroOptim

from scenarios.models import coder, regression
from scenarios.optimizers import _each
from scenarios.rows import compiled, either, twice


@compiled
def the_state_of_an_earlier_step(trial):
    optimizer = Adam({"lr": 0.02})
    svi = trial.svi(regression, optim=optimizer)
    trial.steps(svi, 8)
    state = {name: _copy(value) for name, value in optimizer.get_state().items()}
    trial.steps(svi, 8)
    optimizer.set_state(state)
    optimizer.optim_objs.clear()
    trial.steps(svi, 8)


def _copy(tree):
    return torch.utils._pytree.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, tree)


@compiled
def moments_set_to_zero_in_place(trial):
    optimizer = Adam({"lr": 0.02})
    svi = trial.svi(regression, optim=optimizer)
    trial.steps(svi, 10)
    for each in _each(optimizer):
        for state in each.state.values():
            state["exp_avg"].zero_()
            state["step"].fill_(1.0)
    trial.steps(svi, 10)


@compiled
def moments_replaced(trial):
    optimizer = Adam({"lr": 0.02})
    svi = trial.svi(regression, optim=optimizer)
    trial.steps(svi, 10)
    for each in _each(optimizer):
        for state in each.state.values():
            state["exp_avg"] = torch.zeros_like(state["exp_avg"])
            state["step"] = torch.tensor(0.0)
    trial.steps(svi, 10)


@compiled
def a_torch_optimizer_that_loads_its_state(trial):
    optimizer = Adam({"lr": 0.02})
    svi = trial.svi(regression, optim=optimizer)
    trial.steps(svi, 8)
    states = [_copy(each.state_dict()) for each in _each(optimizer)]
    trial.steps(svi, 8)
    for each, state in zip(_each(optimizer), states, strict=True):
        each.load_state_dict(state)
    trial.steps(svi, 8)


@compiled
def another_optimizer(trial):
    svi = trial.svi(regression)
    trial.steps(svi, 10)
    svi.optim = SGD({"lr": 1e-3})
    trial.optims.append(svi.optim)
    trial.steps(svi, 10)


@compiled
def another_optimizer_of_the_same_class(trial):
    svi = trial.svi(*coder())
    trial.steps(svi, 10)
    svi.optim = Adam({"lr": 0.1})
    trial.optims.append(svi.optim)
    trial.steps(svi, 10)


@twice
def two_optimizers_by_turns(trial):
    svi = trial.svi(regression)
    both = [svi.optim, SGD({"lr": 1e-3})]
    trial.optims.append(both[1])
    for i in range(24):
        svi.optim = both[i // 6 % 2]
        trial.step(svi)


class Lion(torch.optim.Optimizer):
    """The sign of a momentum, an optimizer of one's own."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    p.sub_(momentum.lerp(p.grad, 0.1).sign(), alpha=group["lr"])
                    momentum.lerp_(p.grad, 0.01)


@compiled
def a_torch_optimizer_of_ones_own(trial):
    trial.steps(trial.svi(regression, optim=PyroOptim(Lion, {"lr": 1e-3})), 24)


class Decaying(torch.optim.Adam):
    """Adam whose rate halves every six steps by itself."""

    def step(self, closure=None):
        super().step(closure)
        for state in self.state.values():
            if int(state["step"]) % 6 == 0:
                self.param_groups[0]["lr"] /= 2


@compiled
def a_subclass_of_adam(trial):
    trial.steps(trial.svi(regression, optim=PyroOptim(Decaying, {"lr": 0.05})), 24)


@compiled
def a_pyro_optimizer_of_ones_own(trial):
    class Twice(PyroOptim):
        def __call__(self, params, *args, **kwargs):
            for _ in range(2):
                super().__call__(params, *args, **kwargs)

    trial.steps(trial.svi(regression, optim=Twice(torch.optim.Adam, {"lr": 0.01})), 24)


@either(says="hook")
def a_hook_of_the_optimizer(trial):
    optimizer, seen = Adam({"lr": 0.01}), []
    svi = trial.svi(regression, optim=optimizer)
    trial.steps(svi, 10)
    for each in _each(optimizer):
        each.register_step_post_hook(lambda *_: seen.append(1))
    trial.steps(svi, 10)
    trial.keep(len(seen))
