"""Parameters are frozen, thawed, detached, removed and added."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.optim import SGD, Adam
from torch import nn

from scenarios.models import X, coded, network, no_guide, observe, regression, vae, weights
from scenarios.rows import compiled, either, twice
from scenarios.trial import stored

SLOW = {"lr": 1e-3}


@compiled
def a_network_is_frozen(trial):
    net = trial.watch(nn.Linear(3, 1))
    svi = trial.svi(network(net), no_guide, SGD(SLOW))
    trial.steps(svi, 10)
    net.requires_grad_(False)
    trial.steps(svi, 10)


@compiled
def a_network_is_frozen_under_adam(trial):
    nets = trial.watch(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)))
    svi = trial.svi(network(nets), no_guide, Adam({"lr": 0.02}))
    trial.steps(svi, 10)
    nets[0].requires_grad_(False)
    trial.steps(svi, 10)


@compiled
def layers_are_thawed_one_by_one(trial):
    net = trial.watch(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)))
    net[0].requires_grad_(False)
    svi = trial.svi(network(net), no_guide, SGD(SLOW))
    trial.steps(svi, 8)
    net[0].bias.requires_grad_(True)
    trial.steps(svi, 8)
    net[0].weight.requires_grad_(True)
    trial.steps(svi, 8)


@compiled
def encoder_and_decoder_by_turns(trial):
    encoder, decoder = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4)), nn.Linear(2, 3)
    svi = trial.svi(*coded(encoder, decoder), SGD(SLOW))
    for i in range(6):
        encoder.requires_grad_(i % 2 == 0)
        decoder.requires_grad_(i % 2 == 1)
        trial.steps(svi, 5)


@compiled
def a_pyro_parameter_is_frozen(trial):
    svi = trial.svi(regression, weights, SGD(SLOW))
    trial.steps(svi, 10)
    stored()["loc"].requires_grad_(False)
    trial.steps(svi, 10)


@compiled
def a_pyro_parameter_is_frozen_under_adam(trial):
    """Pyro leaves a gradient of zero, so that Adam's momentum moves the parameter on. It is the same here."""
    svi = trial.svi(regression)
    trial.steps(svi, 10)
    stored()["loc"].requires_grad_(False)
    trial.steps(svi, 10)


@compiled
def the_decoder_of_a_vae_is_frozen(trial):
    module = trial.watch(vae())
    svi = trial.svi(module.model, module.guide, SGD(SLOW))
    batch = (X.repeat(1, 2) > 0).float()
    trial.steps(svi, 8, batch)
    module.likelihood.requires_grad_(False)
    trial.steps(svi, 8, batch)


@twice
def detached_by_a_flag(trial):
    net, fixed = trial.watch(nn.Linear(3, 1)), [False]

    def model(x):
        pyro.module("net", net)
        mean = net(x)[:, 0]
        observe(mean.detach() if fixed[0] else mean, x)

    svi = trial.svi(model, no_guide)
    for i in range(24):
        fixed[0] = i // 8 == 1
        trial.step(svi)


@twice
def without_gradients_by_a_flag_of_the_step(trial):
    def model(x, train):
        with torch.set_grad_enabled(train):
            w = pyro.param("w", torch.zeros(3)) * 1.0
        observe(x @ w + pyro.param("b", torch.tensor(0.0)), x)

    svi = trial.svi(model, no_guide, SGD(SLOW))
    for i in range(24):
        trial.step(svi, X, i // 6 % 2 == 0)


@twice
def a_parameter_that_comes_later(trial):
    config = {"bias": False}

    def model(x):
        pyro.factor("f", -(pyro.param("a", torch.tensor(1.0)) ** 2))
        b = pyro.param("b", torch.tensor(0.0)) if config["bias"] else 0.0
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(b, 1.0), obs=x[:, 0] + 3.0)

    svi = trial.svi(model, no_guide, Adam({"lr": 0.1}))
    for i in range(30):
        config["bias"] = i >= 10
        trial.step(svi)


@twice
def a_parameter_that_is_no_longer_used(trial):
    config = {"bias": True}

    def model(x):
        b = pyro.param("b", torch.tensor(0.0)) if config["bias"] else 0.0
        observe(x @ pyro.param("w", torch.zeros(3)) + b, x)

    svi = trial.svi(model, no_guide)
    for i in range(24):
        config["bias"] = i < 10
        trial.step(svi)


@compiled
def one_parameter_or_the_other(trial):
    def model(x, name):
        observe(x @ pyro.param(name, torch.zeros(3)), x)

    svi = trial.svi(model, no_guide)
    for i in range(30):
        trial.step(svi, X, "ab"[i // 3 % 2])


@compiled
def a_parameter_is_removed_from_the_store(trial):
    svi = trial.svi(regression)
    trial.steps(svi, 10)
    del pyro.get_param_store()["loc"]
    trial.steps(svi, 10)


@either(says="gets a gradient")
def parameters_of_the_guide_are_blocked(trial):
    def guide(x, fixed):
        with poutine.block(hide_types=["param"] if fixed else []):
            weights(x)

    svi = trial.svi(lambda x, fixed: regression(x, shift=pyro.param("b", torch.tensor(0.0))), guide)
    for fixed in (False, True, False):
        trial.steps(svi, 8, X, fixed)
