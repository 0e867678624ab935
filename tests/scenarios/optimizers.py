"""Optimizers: every class with another learning rate half-way, settings that are changed by hand."""

from __future__ import annotations

import pyro
import torch
from pyro import optim
from pyro.optim import SGD, Adam, PyroOptim
from torch import nn

from scenarios.models import X, coder, network, no_guide, observe, regression, vae
from scenarios.rows import compiled, once, twice
from scenarios.trial import stored


def _each(optimizer):
    """The torch optimizers that Pyro's holds, one for each parameter."""
    return [getattr(each, "optimizer", each) for each in optimizer.optim_objs.values()]


def _set(optimizer, **settings):
    for each in _each(optimizer):
        each.param_groups[0].update(settings)


def _another_rate(make, lr=0.003):
    def scenario(trial):
        optimizer = make()
        svi = trial.svi(*coder(), optim=optimizer)
        trial.steps(svi, 12)
        _set(optimizer, lr=lr)
        trial.steps(svi, 12)

    return compiled(scenario)


EVERY_CLASS = {
    name: _another_rate(make)
    for name, make in {
        "Adam": lambda: Adam({"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-6}),
        "AdamW": lambda: optim.AdamW({"lr": 0.01, "weight_decay": 0.2}),
        "AMSGrad": lambda: Adam({"lr": 0.01, "amsgrad": True}),
        "SGD with momentum": lambda: SGD({"lr": 1e-3, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.1}),
        "Nesterov": lambda: SGD({"lr": 1e-3, "momentum": 0.9, "nesterov": True}),
        "RMSprop": lambda: optim.RMSprop({"lr": 1e-3, "centered": True, "momentum": 0.5}),
        "Adagrad": lambda: optim.Adagrad({"lr": 0.05, "lr_decay": 0.1}),
        "Adadelta": lambda: optim.Adadelta({"lr": 1.0, "rho": 0.8}),
        "Adamax": lambda: optim.Adamax({"lr": 0.01}),
        "NAdam": lambda: optim.NAdam({"lr": 0.01}),
        "RAdam": lambda: optim.RAdam({"lr": 0.01}),
        "ASGD": lambda: optim.ASGD({"lr": 1e-3, "t0": 5}),
        "Rprop": lambda: optim.Rprop({"lr": 1e-3}),
        "ClippedAdam": lambda: optim.ClippedAdam({"lr": 0.01, "lrd": 0.98, "clip_norm": 0.5, "weight_decay": 0.1}),
        "AdagradRMSProp": lambda: optim.AdagradRMSProp({"eta": 0.1}),
        "DCTAdam": lambda: optim.DCTAdam({"lr": 0.01}),
        "foreach": lambda: Adam({"lr": 0.01, "foreach": True}),
        "maximize": lambda: optim.Adam({"lr": 1e-5, "maximize": True}),
    }.items()
}


def _another_setting(make, **settings):
    def scenario(trial):
        optimizer = make()
        svi = trial.svi(*coder(), optim=optimizer)
        trial.steps(svi, 10)
        _set(optimizer, **settings)
        trial.steps(svi, 10)
        trial.keep(*[each.param_groups[0]["lr"] for each in _each(optimizer)])

    return compiled(scenario)


SET_LATER = {
    "betas": _another_setting(lambda: Adam({"lr": 0.02}), betas=(0.5, 0.9)),
    "eps": _another_setting(lambda: Adam({"lr": 0.02}), eps=0.1),
    "weight decay that begins": _another_setting(lambda: Adam({"lr": 0.02}), weight_decay=0.5),
    "weight decay that ends": _another_setting(lambda: optim.AdamW({"lr": 0.02, "weight_decay": 0.9}), weight_decay=0),
    "maximize": _another_setting(lambda: Adam({"lr": 1e-4}), maximize=True),
    "decoupled decay": _another_setting(lambda: Adam({"lr": 0.02, "weight_decay": 0.5}), decoupled_weight_decay=True),
    "momentum": _another_setting(lambda: SGD({"lr": 1e-4, "momentum": 0.9}), momentum=0.1),
    "nesterov": _another_setting(lambda: SGD({"lr": 1e-4, "momentum": 0.9}), nesterov=True),
    "a rate of zero": _another_setting(lambda: Adam({"lr": 0.02}), lr=0.0),
}


@twice
def the_rate_of_one_parameter(trial):
    optimizer = Adam({"lr": 0.02})
    svi = trial.svi(regression, optim=optimizer)
    trial.steps(svi, 10)
    _each(optimizer)[0].param_groups[0]["lr"] = 0.2
    trial.steps(svi, 10)


@once
def a_rate_that_falls_at_each_step(trial):
    optimizer = Adam({"lr": 0.05})
    svi = trial.svi(regression, optim=optimizer)
    for i in range(30):
        trial.step(svi)
        _set(optimizer, lr=0.05 * 0.95**i)


@once
def rates_by_name(trial):
    svi = trial.svi(*coder(), optim=Adam(lambda name: {"lr": 0.05 if "encoder" in name else 0.001}))
    trial.steps(svi, 24)


@compiled
def a_class_by_name(trial):
    """Layers of a matrix by momentum and biases by Adam, each of a constructor of one's own."""

    def make(params, lr):
        return torch.optim.SGD(params, lr=lr / 10) if params[0].dim() == 2 else torch.optim.Adam(params, lr=lr)

    trial.steps(trial.svi(*coder(), optim=PyroOptim(make, {"lr": 0.01})), 24)


@once
def one_parameter_has_a_rate_of_zero(trial):
    svi = trial.svi(regression, optim=Adam(lambda name: {"lr": 0.0 if name == "scale" else 0.05}))
    trial.steps(svi, 24)


@compiled
def gradients_clipped_by_norm(trial):
    trial.steps(trial.svi(*coder(), optim=SGD({"lr": 0.01}, {"clip_norm": 0.3})), 24)


@compiled
def gradients_clipped_by_value_where_the_name_says(trial):
    def clips(module, name):
        return {"clip_value": 0.2} if "weight" in name else {}

    trial.steps(trial.svi(*coder(), optim=Adam({"lr": 0.01}, clips)), 24)


@once
def weights_clamped_after_each_step(trial):
    svi = trial.svi(regression)
    for _ in range(24):
        trial.step(svi)
        with torch.no_grad():
            stored()["loc"].clamp_(0.0, 0.1)


@compiled
def a_vae_with_a_rate_for_its_encoder(trial):
    module = vae()
    svi = trial.svi(module.model, module.guide, Adam(lambda name: {"lr": 0.01 if "posterior" in name else 0.001}))
    trial.steps(svi, 16, (X.repeat(1, 2) > 0).float())


@twice
def steps_without_a_gradient_of_one_parameter(trial):
    """Pyro's optimizer steps the parameters that were met; one without influence keeps a gradient of zero."""
    use = [True]

    def model(x):
        a, b = pyro.param("a", torch.tensor(0.0)), pyro.param("b", torch.tensor(0.0))
        observe(a + b if use[0] else a + b.detach(), x)

    svi = trial.svi(model, no_guide)
    for i in range(24):
        use[0] = i // 4 % 2 == 0
        trial.step(svi)


@once
def a_network_under_a_large_weight_decay(trial):
    trial.steps(
        trial.svi(network(nn.Linear(3, 1)), no_guide, optim=optim.AdamW({"lr": 0.01, "weight_decay": 10.0})), 24
    )
