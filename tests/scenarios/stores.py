"""Pyro's parameter store: cleared, scoped, rewound, written to, saved and loaded during training."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import pyro
import torch
from pyro.infer import Predictive
from torch import nn

from scenarios.models import BITS, X, coder, network, no_guide, observe, regression, vae, weights
from scenarios.rows import compiled, either, once, twice


@compiled
def the_store_is_cleared(trial):
    svi = trial.svi(regression)
    trial.steps(svi, 10)
    trial.keep(pyro.param("loc"))
    pyro.clear_param_store()
    trial.steps(svi, 10)


@compiled
def the_store_is_cleared_under_a_network(trial):
    """The weights live in the module, so that they go on from where they were."""
    net = trial.watch(nn.Linear(3, 1))
    svi = trial.svi(network(net), no_guide)
    trial.steps(svi, 10)
    pyro.clear_param_store()
    trial.steps(svi, 10)


@compiled
def another_run_in_a_scope(trial):
    svi = trial.svi(regression)
    trial.steps(svi, 8)
    with pyro.get_param_store().scope():
        other = trial.svi(regression)
        trial.steps(other, 8)
        trial.keep(pyro.param("loc"))
    trial.steps(svi, 8)


@either(says="store|scope|param")
def a_scope_around_each_step(trial):
    store = pyro.get_param_store()
    svi = trial.svi(regression)
    with store.scope() as state:
        trial.step(svi)
    for _ in range(20):
        with store.scope(state) as state:
            trial.step(svi)
            trial.keep(pyro.param("loc"))


@compiled
def the_state_of_an_earlier_step_is_put_back(trial):
    store = pyro.get_param_store()
    svi = trial.svi(regression)
    trial.steps(svi, 6)
    state = copy.deepcopy(store.get_state())
    trial.steps(svi, 8)
    store.set_state(state)
    trial.steps(svi, 8)


@compiled
def a_value_is_assigned(trial):
    svi = trial.svi(regression)
    trial.steps(svi, 10)
    pyro.get_param_store()["scale"] = torch.full((3,), 0.1)
    trial.steps(svi, 10)


@compiled
def a_value_of_another_shape_is_assigned(trial):
    def model(x):
        w = pyro.param("w", torch.zeros(1))
        observe(x.sum(-1) * w.sum() / len(w), x)

    svi = trial.svi(model, no_guide)
    trial.steps(svi, 10)
    pyro.get_param_store()["w"] = torch.ones(4)
    trial.steps(svi, 10)


@compiled
def saved_and_loaded(trial):
    svi = trial.svi(regression)
    trial.steps(svi, 6)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "store.pt")
        pyro.get_param_store().save(path)
        trial.steps(svi, 8)
        pyro.clear_param_store()
        pyro.get_param_store().load(path)
    trial.steps(svi, 8)


@compiled
def a_parameter_is_made_before_the_guide_asks_for_it(trial):
    pyro.param("loc", torch.ones(3))
    svi = trial.svi(regression)
    trial.steps(svi, 8)
    del pyro.get_param_store()["loc"]
    pyro.param("loc", -torch.ones(3))
    trial.steps(svi, 8)


@once
def values_are_read_after_each_step(trial):
    svi = trial.svi(regression)
    for _ in range(20):
        trial.step(svi)
        trial.keep(pyro.param("loc"), pyro.get_param_store()["scale"])


@once
def two_vaes_by_turns(trial):
    modules = [vae(), vae("laplace")]
    svis = [trial.svi(module.model, module.guide) for module in modules]
    for i in range(24):
        trial.step(svis[i % 2], BITS)


@once
def two_svis_of_plain_parameters_by_turns(trial):
    svis = [trial.svi(*coder()), trial.svi(regression)]
    for i in range(24):
        trial.step(svis[i % 2])


@once
def predictions_between_steps(trial):
    svi = trial.svi(regression)
    for i in range(20):
        trial.step(svi)
        if i % 5 == 4:
            trial.keep(Predictive(regression, guide=weights, num_samples=3)(X)["w"])


@once
def traces_between_steps(trial):
    model, guide = coder()
    svi = trial.svi(model, guide)
    for i in range(20):
        trial.step(svi)
        if i % 5 == 4:
            found = pyro.poutine.trace(guide).get_trace(X)
            trial.keep(pyro.poutine.trace(pyro.poutine.replay(model, found)).get_trace(X).log_prob_sum())


@twice
def the_first_value_depends_on_the_store(trial):
    def guide(x):
        store = pyro.get_param_store()
        weights(x)
        if "extra" in store:
            pyro.factor("penalty", -(pyro.param("extra") ** 2), has_rsample=True)

    svi = trial.svi(lambda x: regression(x), guide)
    trial.steps(svi, 10)
    pyro.param("extra", torch.tensor(2.0))
    trial.steps(svi, 10)


@compiled
def a_name_that_is_made_of_a_number(trial):
    part = {"number": 0}

    def model(x):
        observe(x @ pyro.param(f"w{part['number']}", torch.zeros(3)), x)

    svi = trial.svi(model, no_guide)
    for part["number"] in (0, 1, 2):
        trial.steps(svi, 7)


@compiled
def a_nested_name_of_a_module(trial):
    net = nn.Sequential(nn.Linear(3, 1))

    def model(x, name):
        pyro.module(name, net)
        observe(net(x)[:, 0], x)

    svi = trial.svi(model, no_guide)
    trial.steps(svi, 8, X, "first")
    trial.steps(svi, 8, X, "second")
