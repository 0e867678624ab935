"""The parameters of a module in Pyro's store, under a name that no other live module has."""

from __future__ import annotations

import weakref
from typing import Any

import pyro
import torch
from pyro.infer import JitTraceMeanField_ELBO
from pyro.nn import PyroModule
from pyro.params.param_store import ParamStoreDict
from torch import nn

from pyrovae.guards.sites import running_objective

__all__ = ["register", "state", "stored"]


def register(module: nn.Module) -> None:
    """What ``pyro.module`` does, under a name that no other live module has, never with another module's tensors (S8).

    Pyro's parameter store is global and its first tensor under a name stays: a second model under the same name, a
    replaced layer, or ``load_state_dict(assign=True)`` leaves the optimizer stepping tensors that nobody reads.
    """
    if torch.jit.is_tracing() and isinstance(running_objective(), JitTraceMeanField_ELBO):
        raise ValueError("JitTraceMeanField_ELBO traces anew at every step (S9): use TraceMeanField_ELBO")
    store: Any = pyro.get_param_store()
    name = f"{type(module).__name__}-{id(module):x}"
    names = {f"{name}$$${key}": value for key, value in module.named_parameters()}
    for full_name, value in names.items():
        if full_name in store and store[full_name] is not value:
            del store[full_name]
    if not any(full_name in store for full_name in names):
        weakref.finalize(module, _forget, list(names)).atexit = False
    for submodule in module.modules():
        if isinstance(submodule, PyroModule):
            _check_owner(submodule, store)
    for full_name, value in names.items():
        if value.requires_grad:  # frozen parameters are frozen: pyro.module would warn at every step
            pyro.param(full_name, value)


def _forget(names: list[str]) -> None:
    """Take the parameters of a module that is gone out of the store, which would keep their memory."""
    store: ParamStoreDict = pyro.get_param_store()
    for full_name in names:
        if full_name in store:
            del store[full_name]


def state(module: nn.Module) -> dict[str, Any]:
    """What is pickled of a module: all but what Pyro leaves on parameters, which cannot be; each use leaves it anew."""
    for parameter in module.parameters():
        vars(parameter).pop("unconstrained", None)
    return module.__dict__.copy()


def stored() -> dict[str, torch.Tensor]:
    """The unconstrained parameters in Pyro's store: a copy, for what is collected meanwhile takes its own out."""
    params = pyro.get_param_store()._params
    found = ((name, params.get(name)) for name in list(params))
    return {name: param for name, param in found if param is not None}


def _check_owner(module: PyroModule, store: Any) -> None:
    for key in module._pyro_params:
        full_name = f"{module._pyro_name}.{key}" if module._pyro_name else key
        if full_name in store and store[full_name].unconstrained() is not module._parameters[f"{key}_unconstrained"]:
            raise ValueError(
                f"the PyroParam {full_name!r} belongs to another model of this process, which Pyro would train instead "
                f"of this one: give the module a name of its own, super().__init__(name=...), or use nn.Parameter"
            )
