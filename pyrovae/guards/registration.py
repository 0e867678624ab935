"""The parameters of a model in Pyro's parameter store, under a name that is the same in every process."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae import private

__all__ = ["check_name", "register", "state", "stored"]


@dataclass
class _Entry:
    """The name of a model, and the tensors that it put into Pyro's store by their full names there."""

    name: str
    tensors: dict[str, Tensor] = field(default_factory=dict)


_entries: weakref.WeakKeyDictionary[nn.Module, _Entry] = weakref.WeakKeyDictionary()
_owners: weakref.WeakValueDictionary[str, nn.Module] = weakref.WeakValueDictionary()
_counts: Counter[str] = Counter()


def check_name(name: object) -> None:
    """Refuse a name that Pyro's parameter store could not keep."""
    if name is not None and (not isinstance(name, str) or not name or "$$$" in name):
        raise ValueError(f"name must be a string that is not empty and has no '$$$', or None, got {name!r}")


def register(module: nn.Module) -> None:
    """Put the parameters of a model into Pyro's store as ``name$$$module.path``, with the module's own tensors.

    The name is ``module.name``. Where that is None, the first model of a class to register in a process is called as
    the class, the next ones with ``_2``, ``_3``, and so on; no such name is used twice. Frozen parameters are not
    announced to Pyro.

    A tensor in the store that is not the module's is one of two things. If this function put it there, the module has
    changed (a replaced layer, ``load_state_dict(assign=True)``), and the module's new tensor takes its place. If not,
    it was loaded into the store, and its values are copied into the module.

    Raises: ValueError if another live model has the name, if a loaded tensor has another shape than the parameter of
        that name, and for a ``PyroParam`` of another model, which Pyro would train instead of this one.
    """
    entry, params = _claim(module), private.stored_params()
    names = {f"{entry.name}$$${key}": value for key, value in module.named_parameters()}
    held = {name: params[name] for name in names if name in params}
    loaded = {name: t for name, t in held.items() if t is not names[name] and t is not entry.tensors.get(name)}
    if loaded:
        _check_loaded(entry, names)
    for submodule in module.modules():
        if isinstance(submodule, PyroModule):
            _check_owner(submodule, loaded)
    with torch.no_grad():
        for name, tensor in loaded.items():
            names[name].copy_(tensor)
    for name in {name for name in held if held[name] is not names[name]} | entry.tensors.keys() - names.keys():
        private.take_out(name)
    entry.tensors = {name: value for name, value in names.items() if value.requires_grad or name in held}
    for name, value in entry.tensors.items():
        if name not in params:
            private.put_param(name, value)
        if value.requires_grad:
            pyro.param(name, value)


def state(module: nn.Module) -> dict[str, object]:
    """The attributes of a module without the weak references that Pyro leaves on parameters and pickle refuses."""
    for parameter in module.parameters():
        vars(parameter).pop("unconstrained", None)
    return module.__dict__.copy()


def stored() -> dict[str, Tensor]:
    """The unconstrained parameters in Pyro's store, as a copy: the store shrinks when a model is collected."""
    params = private.stored_params()
    found = ((name, params.get(name)) for name in list(params))
    return {name: param for name, param in found if param is not None}


def _claim(module: nn.Module) -> _Entry:
    """The entry of a module, a new one if the module has none or was renamed."""
    entry, name = _entries.get(module), getattr(module, "name", None)
    if entry is not None and name in (None, entry.name):
        return entry
    if name is None:
        while name is None or name in _owners:
            kind = type(module).__name__
            _counts[kind] += 1
            name = kind if _counts[kind] == 1 else f"{kind}_{_counts[kind]}"
    elif name in _owners:
        gc.collect()  # a model that only a cycle of references keeps is gone after it
        if name in _owners:
            raise ValueError(
                f"name {name!r} belongs to another {type(_owners[name]).__name__} of this process: delete that one, "
                f"or set the name of this one to another, or to None for a name of its own"
            )
    if entry is not None:
        _forget(entry)
        del _owners[entry.name]
    _entries[module] = entry = _Entry(name)
    _owners[name] = module
    weakref.finalize(module, _forget, entry).atexit = False
    return entry


def _forget(entry: _Entry) -> None:
    """Take the tensors of a model that is gone out of the store, which would keep their memory."""
    for name, tensor in entry.tensors.items():
        if private.stored_params().get(name) is tensor:
            private.take_out(name)


def _check_loaded(entry: _Entry, names: Mapping[str, Tensor]) -> None:
    """Refuse tensors in the store under the name of a model that has no parameter of that name and shape."""
    for name, tensor in stored().items():
        if tensor is entry.tensors.get(name) or not name.startswith(f"{entry.name}$$$"):
            continue
        shape = tuple(names[name].shape) if name in names else None
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"Pyro's parameter store holds {name!r} of shape {tuple(tensor.shape)}, loaded from another model: "
                f"this one has {'no such parameter' if shape is None else f'shape {shape}'}. Load another file, give "
                f"this model another name, or call pyro.clear_param_store()"
            )


def _check_owner(module: PyroModule, loaded: dict[str, Tensor]) -> None:
    for name, own in private.pyro_params(module).items():
        held = private.stored_params().get(name)
        if held is None or held is own:
            continue
        if not any(held is tensor for tensor in loaded.values()):
            raise ValueError(
                f"the PyroParam {name!r} belongs to another model of this process, which Pyro would train instead "
                f"of this one: give the module a name of its own, super().__init__(name=...), or use nn.Parameter"
            )
        private.take_out(name)  # loaded with the others: Pyro puts the module's own tensor there
