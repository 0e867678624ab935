"""Learning rates on a schedule, and several SVIs on one optimizer or on one set of parameters."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro import optim
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import SGD, Adam
from torch import nn

from scenarios.models import X, coder, no_guide, observe, regression, weights
from scenarios.rows import compiled, once, twice


def _scheduled(name, every=1, value=None, **options):
    def scenario(trial):
        make = getattr(optim, name)
        scheduler = make({"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.02}, **options})
        svi = trial.svi(regression, optim=scheduler)
        for i in range(24):
            trial.step(svi)
            if i % every == every - 1:
                scheduler.step(*([] if value is None else [value]))

    return once(scenario)


EVERY_SCHEDULER = {
    "ExponentialLR": _scheduled("ExponentialLR", gamma=0.9),
    "ExponentialLR by epochs": _scheduled("ExponentialLR", every=6, gamma=0.5),
    "StepLR": _scheduled("StepLR", step_size=5, gamma=0.3),
    "MultiStepLR": _scheduled("MultiStepLR", milestones=[4, 9], gamma=0.1),
    "CosineAnnealingLR": _scheduled("CosineAnnealingLR", T_max=24),
    "CosineAnnealingWarmRestarts": _scheduled("CosineAnnealingWarmRestarts", T_0=7),
    "LambdaLR": _scheduled("LambdaLR", lr_lambda=lambda epoch: 1 / (1 + epoch)),
    "OneCycleLR": _scheduled("OneCycleLR", max_lr=0.1, total_steps=40),
    "CyclicLR": _scheduled("CyclicLR", base_lr=0.001, max_lr=0.1, step_size_up=4, cycle_momentum=False),
    "ReduceLROnPlateau": _scheduled("ReduceLROnPlateau", value=1.0, patience=1, factor=0.5),
}


@compiled
def a_scheduler_takes_the_place_of_a_constant_rate(trial):
    svi = trial.svi(regression)
    trial.steps(svi, 10)
    svi.optim = optim.ExponentialLR({"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.05}, "gamma": 0.8})
    trial.optims.append(svi.optim)
    for _ in range(10):
        trial.step(svi)
        svi.optim.step()


@compiled
def a_scheduler_of_momentum_under_sgd(trial):
    settings = {"optimizer": torch.optim.SGD, "optim_args": {"lr": 1e-4, "momentum": 0.9}}
    scheduler = optim.OneCycleLR({**settings, "max_lr": 1e-3, "total_steps": 30})
    svi = trial.svi(*coder(), optim=scheduler)
    for _ in range(24):
        trial.step(svi)
        scheduler.step()


def _linear(name):
    def model(x):
        observe(x @ pyro.param(name, torch.zeros(3)), x)

    return model


@once
def another_svi_trains_the_same_parameters(trial):
    """Adam's bias correction is that of the parameter's own count."""
    optimizer = Adam({"lr": 0.01})
    model = _linear("w")
    svi, other = trial.svi(model, no_guide, optimizer), SVI(model, no_guide, optimizer, Trace_ELBO())
    trial.steps(svi, 6)
    for _ in range(50):
        other.step(X)
    trial.steps(svi, 10)


@once
def two_on_one_optimizer_by_turns(trial):
    optimizer = Adam({"lr": 0.02})
    svis = [trial.svi(regression, weights, optimizer), trial.svi(lambda x: regression(x, 2.0), weights, optimizer)]
    for i in range(30):
        trial.step(svis[i % 2])


@once
def two_on_one_optimizer_with_parameters_of_their_own(trial):
    optimizer = Adam({"lr": 0.02})
    svis = [trial.svi(_linear(name), no_guide, optimizer) for name in ("a", "b")]
    for i in range(30):
        trial.step(svis[i % 3 // 2])


@compiled
def two_that_share_one_of_their_parameters(trial):
    optimizer = Adam({"lr": 0.02})

    def with_offset(x):
        observe(x @ pyro.param("w", torch.zeros(3)) + pyro.param("b", torch.tensor(0.0)), x)

    svis = [trial.svi(_linear("w"), no_guide, optimizer), trial.svi(with_offset, no_guide, optimizer)]
    for i in range(30):
        trial.step(svis[i % 2])


@once
def two_optimizers_on_the_same_parameters(trial):
    svis = [trial.svi(regression, weights, Adam({"lr": 0.02})), trial.svi(regression, weights, SGD({"lr": 1e-4}))]
    for i in range(30):
        trial.step(svis[i % 2])


@compiled
def the_second_begins_when_the_first_is_compiled(trial):
    optimizer = Adam({"lr": 0.02})
    first = trial.svi(_linear("w"), no_guide, optimizer)
    trial.steps(first, 10)
    second = trial.svi(lambda x: observe(2 * x @ pyro.param("w"), x), no_guide, optimizer)
    trial.steps(second, 10)
    trial.steps(first, 10)


@twice
def labels_on_some_batches(trial):
    """Two losses on one optimizer, as in Pyro's semi-supervised VAE."""
    optimizer = Adam({"lr": 0.01})
    classifier, decoder = nn.Linear(3, 2), nn.Linear(2, 3)

    def model(x, y=None):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            code = pyro.sample("y", dist.OneHotCategorical(torch.ones(2) / 2), obs=y)
            pyro.sample("x", dist.Normal(decoder(code), 1.0).to_event(1), obs=x)

    def guide(x, y=None):
        pyro.module("classifier", classifier)
        with pyro.plate("data", len(x)):
            if y is None:
                pyro.sample("y", dist.OneHotCategorical(logits=classifier(x)))

    def auxiliary(x, y):
        pyro.module("classifier", classifier)
        with pyro.plate("data", len(x)):
            pyro.sample("aux", dist.OneHotCategorical(logits=classifier(x)), obs=y)

    labels = nn.functional.one_hot((X[:, 0] > 0).long(), 2).float()
    main = trial.svi(model, guide, optimizer)
    supervised = trial.svi(auxiliary, lambda x, y: None, optimizer)
    for i in range(24):
        if i % 3 == 0:
            trial.step(main, X, labels)
            trial.step(supervised, X, labels)
        else:
            trial.step(main, X)


@once
def the_optimizer_is_called_by_hand_between_steps(trial):
    optimizer = Adam({"lr": 0.02})
    svi = trial.svi(regression, weights, optimizer)
    for i in range(24):
        trial.step(svi)
        if i % 5 == 4:
            params = list(pyro.get_param_store()._params.values())
            loss = sum((param**2).sum() for param in params)
            for param, grad in zip(params, torch.autograd.grad(loss, params), strict=True):
                param.grad = grad
            optimizer(params)
            pyro.infer.util.zero_grads(params)
