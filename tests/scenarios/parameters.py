"""Parameters are constrained, local, tied, replaced and moved by hand; layers come and go."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import TraceMeanField_ELBO
from pyro.nn import PyroModule, PyroParam
from torch import nn
from torch.distributions import constraints
from torch.nn.utils import parametrizations, prune

from scenarios.models import network, no_guide, observe, regression
from scenarios.rows import compiled, either, once


def _constrained(constraint, start):
    def scenario(trial):
        def model(x):
            value = pyro.param("value", start, constraint=constraint)
            observe(x @ torch.ones(3, 1)[:, 0] * value.sum() + value.flatten()[0], x)

        svi = trial.svi(model, no_guide)
        trial.steps(svi, 10)
        pyro.get_param_store()["value"] = start.clone()
        trial.steps(svi, 10)

    return compiled(scenario)


CONSTRAINED = {
    "positive": _constrained(constraints.positive, torch.tensor(0.4)),
    "interval": _constrained(constraints.interval(-1.0, 2.0), torch.tensor([0.3, 1.0])),
    "simplex": _constrained(constraints.simplex, torch.tensor([0.2, 0.3, 0.5])),
    "lower Cholesky": _constrained(constraints.lower_cholesky, torch.eye(3)),
    "ordered": _constrained(dist.constraints.ordered_vector, torch.tensor([-1.0, 0.2, 1.0])),
}


@compiled
def local_parameters_of_a_subsampled_plate(trial):
    def model(x):
        with pyro.plate("data", 24, subsample_size=8) as rows:
            mean = pyro.param("mean", torch.zeros(24), event_dim=0)
            pyro.sample("y", dist.Normal(mean, 1.0), obs=x.sum(-1)[rows])

    trial.steps(trial.svi(model, no_guide), 24)


@once
def two_networks_share_a_weight(trial):
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight

    def model(x):
        pyro.module("first", first)
        pyro.module("second", second)
        observe(second(first(x).tanh()).sum(-1), x)

    trial.steps(trial.svi(model, no_guide), 20)


@compiled
def one_network_under_two_names(trial):
    net = nn.Linear(3, 1)

    def model(x):
        pyro.module("one", net)
        pyro.module("two", net)
        observe(net(x)[:, 0], x)

    trial.steps(trial.svi(model, no_guide), 20)


@once
def weights_are_set_in_place(trial):
    net = trial.watch(nn.Linear(3, 1))
    svi = trial.svi(network(net), no_guide)
    for i in range(24):
        trial.step(svi)
        if i % 6 == 5:
            nn.init.ones_(net.weight)
            net.bias.data.mul_(0.5)


@either(says="weight|parameter")
def a_weight_is_another_parameter(trial):
    net = trial.watch(nn.Linear(3, 1))
    svi = trial.svi(network(net), no_guide)
    trial.steps(svi, 10)
    net.weight = nn.Parameter(torch.ones(1, 3))
    trial.steps(svi, 10)


@compiled
def the_memory_of_a_weight_is_replaced(trial):
    net = trial.watch(nn.Linear(3, 1))
    svi = trial.svi(network(net), no_guide)
    trial.steps(svi, 10)
    net.weight.data = torch.ones(1, 3)
    trial.steps(svi, 10)


@compiled
def a_layer_is_added(trial):
    net = trial.watch(nn.Sequential(nn.Linear(3, 4), nn.Tanh()))

    def model(x):
        pyro.module("net", net)
        observe(net(x).sum(-1), x)

    svi = trial.svi(model, no_guide)
    trial.steps(svi, 10)
    net.append(nn.Linear(4, 2))
    trial.steps(svi, 10)


@either(says="gets a gradient")
def a_layer_is_taken_away(trial):
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    svi = trial.svi(network(net), no_guide)
    trial.steps(svi, 10)
    del net[0]
    trial.steps(svi, 10)


@once
def a_normalised_weight(trial):
    net = trial.watch(parametrizations.weight_norm(nn.Linear(3, 1)))
    trial.steps(trial.svi(network(net), no_guide), 20)


@either(says="weight|prun|hook")
def a_pruned_weight(trial):
    net = trial.watch(nn.Linear(3, 1))
    svi = trial.svi(network(net), no_guide)
    trial.steps(svi, 10)
    prune.l1_unstructured(net, "weight", amount=1)
    trial.steps(svi, 10)


@compiled
def a_parameter_of_a_pyro_module(trial):
    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.noise = PyroParam(torch.tensor(2.0), constraints.positive)
            self.net = PyroModule[nn.Linear](3, 1)

        def forward(self, x):
            observe(self.net(x)[:, 0], x, self.noise)

    model = trial.watch(Model())
    svi = trial.svi(model, no_guide)
    trial.steps(svi, 8)
    model.noise = torch.tensor(5.0)
    trial.steps(svi, 8)
    model.net.requires_grad_(False)
    trial.steps(svi, 8)


@compiled
def a_mean_field_guide_whose_scale_is_frozen_from_the_beginning(trial):
    def guide(x):
        loc = pyro.param("loc", torch.zeros(3))
        scale = pyro.param("scale", torch.full((3,), 0.3), constraint=constraints.positive).detach()
        pyro.sample("w", dist.Normal(loc, scale).to_event(1))

    trial.steps(trial.svi(regression, guide, loss=TraceMeanField_ELBO()), 20)
