"""A trial is one run of a scenario under one SVI; all that it computed is kept as numbers that are compared."""

from __future__ import annotations

import random
import warnings
from contextlib import contextmanager

import numpy as np
import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.util import is_validation_enabled
from pyro.optim import Adam
from torch.utils import _pytree as pytree

import pyrovae as pv
from scenarios.models import X, weights


class Trial:
    """Makes SVIs of one class and steps them.

    ``compile`` is what ``pv.SVI`` is given; without it, the SVI is Pyro's. The automatic mode (None) is told that many
    steps follow, so that compiling pays.
    """

    def __init__(self, **options):
        self.cls = pv.SVI if options else SVI
        self.options = options
        self.is_pyro = not options
        self.svis = []
        self.optims = []
        self.losses = []
        self.kept = []
        self.modules = []
        self.insisted = options.get("compile") is True

    def svi(self, model, guide=weights, optim=None, loss=None, **options):
        """An SVI, by default of the guide of a regression, with Adam and ``Trace_ELBO``."""
        optim = optim or Adam({"lr": 0.02})
        svi = self.cls(model, guide, optim, Trace_ELBO() if loss is None else loss, **options, **self.options)
        if not self.is_pyro:
            svi.expected_calls = {"step": 1e9}
        self.svis.append(svi)
        self.optims.append(optim)
        return svi

    def step(self, svi, *args, **kwargs):
        """One step, on X if nothing else is given."""
        loss = svi.step(*(args or (() if kwargs else (X,))), **kwargs)
        self.losses.append(loss)
        return loss

    def step_alone(self, svi):
        """One step without an argument, as a Gaussian process of Pyro takes it."""
        self.losses.append(svi.step())

    def steps(self, svi, number, *args, **kwargs):
        """As many steps on the same arguments."""
        for _ in range(number):
            self.step(svi, *args, **kwargs)

    def rejects(self, svi, *args, error=ValueError):
        """A step on data that Pyro rejects. It must raise, and leave the parameters as they were."""
        before = [value.clone() for value in stored().values()]
        errors = error if isinstance(error, tuple) else (error,)
        try:
            loss = svi.step(*args)
        except (FloatingPointError, *errors):
            pass
        else:
            raise AssertionError(f"the step on bad data did not raise, its loss is {loss}")
        for value, old in zip(stored().values(), before, strict=True):
            assert torch.equal(value, old), "a step that raised moved a parameter"
        pyro.set_rng_seed(7)  # how many numbers were drawn before the error is not compared

    def watch(self, *modules):
        """Compare the parameters and buffers of modules too. Returns the first."""
        self.modules.extend(modules)
        return modules[0]

    def keep(self, *values):
        """Compare other tensors or numbers too, as they are now."""
        self.kept.extend(value.detach().clone() if isinstance(value, torch.Tensor) else value for value in values)

    def numbers(self):
        """All that is compared, by name."""
        found = {f"loss {i}": loss for i, loss in enumerate(self.losses)}
        found |= {f"kept {i}": value for i, value in enumerate(self.kept)}
        found |= {f"parameter {i}": value for i, value in enumerate(stored().values())}
        for i, module in enumerate(self.modules):
            found |= {f"module {i} {name}": value for name, value in module.state_dict().items()}
        for i, optim in enumerate(dict.fromkeys(self.optims)):
            found |= {f"optimizer {i} {name}": value for name, value in _state(optim).items()}
        found["draw after the last step"] = torch.rand(())
        return {name: _flat(value) for name, value in found.items()}


def stored():
    """The unconstrained values of Pyro's parameter store, by name."""
    return pyro.get_param_store()._params


def _state(optim):
    """State and numbers of the torch optimizers of the stored parameters."""
    found = {}
    for i, param in enumerate(stored().values()):
        each = optim.optim_objs.get(param)
        if each is not None:
            each = getattr(each, "optimizer", each)  # a scheduler holds the optimizer
            found |= {f"{i} {key}": value for key, value in each.state.get(param, {}).items()}
            found[f"{i} lr"] = each.param_groups[0].get("lr")
    return found


def _flat(value):
    leaves = [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor | int | float)]
    values = [torch.as_tensor(leaf).detach().double().flatten() for leaf in leaves]
    return torch.cat(values) if values else torch.zeros(0, dtype=torch.float64)


@contextmanager
def settings():
    """Leaves the process as it found it: seeds, Pyro's store and validation, torch's dtype and switches."""
    kept = (
        (torch.set_default_dtype, torch.get_default_dtype()),
        (torch.set_float32_matmul_precision, torch.get_float32_matmul_precision()),
        (torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled()),
        (torch.autograd.set_detect_anomaly, torch.is_anomaly_enabled()),
        (torch.set_flush_denormal, False),
        (pyro.enable_validation, is_validation_enabled()),
        (torch.set_rng_state, torch.get_rng_state()),
        (random.setstate, random.getstate()),
        (np.random.set_state, np.random.get_state()),  # noqa: NPY002
    )
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    try:
        yield
    finally:
        pyro.clear_param_store()
        for put, value in kept:
            put(value)


def run(scenario, **options):
    """The trial after a scenario, its numbers, the warnings that it gave, and a RuntimeError of ``compile=True``."""
    trial, refusal = Trial(**options), None
    with settings(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            scenario(trial)
        except RuntimeError as error:
            if not (trial.insisted and str(error).startswith("compile=True")):
                raise
            refusal = str(error)
        return trial, trial.numbers(), [str(warning.message) for warning in caught], refusal
