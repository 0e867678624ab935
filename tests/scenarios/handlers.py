"""Plates, and Pyro's handlers in and around a step."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.infer.reparam import LocScaleReparam
from torch import nn

from scenarios.models import X, network, no_guide, regression, weights
from scenarios.rows import compiled, either


@compiled
def a_sequential_plate(trial):
    def model(x):
        w = pyro.param("w", torch.zeros(3))
        for i in pyro.plate("rows", 4):
            pyro.sample(f"y{i}", dist.Normal(x[i] @ w, 1.0), obs=x[i].sum())

    trial.steps(trial.svi(model, no_guide), 16)


@compiled
def nested_plates(trial):
    def model(x):
        with pyro.plate("columns", 3, dim=-2):
            m = pyro.sample("m", dist.Normal(0.0, 1.0))
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("x", dist.Normal(m, 1.0), obs=x.t())

    def guide(x):
        with pyro.plate("columns", 3, dim=-2):
            loc = pyro.param("loc", torch.zeros(3, 1))
            pyro.sample("m", dist.Normal(loc, 0.3))

    svi = trial.svi(model, guide)
    trial.steps(svi, 10)
    trial.steps(svi, 10, X[:9])


@compiled
def a_subsampled_plate(trial):
    def model(x):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(x), subsample_size=6) as rows:
            pyro.sample("y", dist.Normal(x[rows] @ w, 1.0), obs=x[rows].sum(-1))

    trial.steps(trial.svi(model), 24)


@compiled
def a_subsample_of_another_size(trial):
    size = [6]

    def model(x):
        with pyro.plate("data", len(x), subsample_size=size[0], dim=-1):
            batch = pyro.subsample(x, event_dim=1)
            w = pyro.param("w", torch.zeros(3))
            pyro.sample("y", dist.Normal(batch @ w, 1.0), obs=batch.sum(-1))

    svi = trial.svi(model, no_guide)
    for size[0] in (6, 12, 6):
        trial.steps(svi, 7)


@compiled
def a_subsample_that_is_given(trial):
    def model(x, rows):
        with pyro.plate("data", 24, subsample=rows):
            observed = dist.Normal(X[rows] @ pyro.param("w", torch.zeros(3)), 1.0)
            pyro.sample("y", observed, obs=X[rows].sum(-1))

    svi = trial.svi(model, no_guide)
    for i in range(20):
        trial.step(svi, X, torch.arange(24)[i % 4 :: 4])


@either(says="handler|stack|inside|effect")
def steps_in_a_scale(trial):
    svi = trial.svi(regression)
    trial.steps(svi, 8)
    with poutine.scale(scale=0.5):
        trial.steps(svi, 5)
    trial.steps(svi, 8)


@either(says="handler|stack|inside|effect")
def steps_in_a_condition_and_in_a_trace(trial):
    svi = trial.svi(network(nn.Linear(3, 1)), no_guide)
    trial.steps(svi, 8)
    with poutine.condition(data={"unknown": torch.tensor(0.0)}):
        trial.steps(svi, 4)
    with poutine.trace(param_only=True) as found:
        trial.step(svi)
    trial.keep(len(found.trace.nodes))
    trial.steps(svi, 8)


@either(says="handler|stack|inside|effect|seed")
def steps_in_a_seed(trial):
    svi = trial.svi(regression)
    trial.steps(svi, 8)
    with poutine.seed(rng_seed=3):
        trial.steps(svi, 3)
    trial.steps(svi, 8)


@compiled
def a_conditioned_model(trial):
    def joint(x):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x @ w, 1.0))

    data = {"y": X.sum(-1)}
    svi = trial.svi(poutine.condition(joint, data=data))
    trial.steps(svi, 8)
    data["y"] = 3 * X.sum(-1)
    trial.steps(svi, 8)


@compiled
def a_model_in_a_scale_and_in_another(trial):
    svi = trial.svi(poutine.scale(regression, scale=0.1))
    trial.steps(svi, 8)
    svi.model = poutine.scale(regression, scale=1.0)
    trial.steps(svi, 8)


@compiled
def a_site_in_other_coordinates(trial):
    model = poutine.reparam(regression, config={"w": LocScaleReparam(0.0)})

    def guide(x):
        loc = pyro.param("loc", torch.zeros(3))
        pyro.sample("w_decentered", dist.Normal(loc, 0.3).to_event(1))

    trial.steps(trial.svi(model, guide), 16)


@compiled
def an_observation_that_is_missing(trial):
    def model(x, y=None):
        with pyro.plate("data", len(x)):
            loc = x @ pyro.param("w", torch.zeros(3))
            pyro.sample("y", dist.Normal(loc, 1.0), obs=y)

    def guide(x, y=None):
        if y is None:
            with pyro.plate("data", len(x)):
                pyro.sample("y", dist.Normal(x @ pyro.param("v", torch.zeros(3)), 1.0))

    svi = trial.svi(model, guide)
    for i in range(4):
        trial.steps(svi, 5, X, X.sum(-1) if i % 2 else None)


@either(says=r"mask|enumerat|value")
def enumerated_sites_of_another_number(trial):
    kinds = [2]

    @config_enumerate
    def model(x):
        shares = pyro.param("shares", torch.ones(4) / 4, constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            kind = pyro.sample("kind", dist.Categorical(shares[: kinds[0]]))
            pyro.sample("y", dist.Normal(torch.linspace(-2, 2, kinds[0])[kind], 1.0), obs=x.sum(-1))

    svi = trial.svi(model, no_guide, loss=TraceEnum_ELBO(max_plate_nesting=1))
    for kinds[0] in (2, 4):
        trial.steps(svi, 8)


@compiled
def the_weights_of_a_mask(trial):
    mask = torch.ones(24, dtype=torch.bool)

    def model(x):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(x)), poutine.mask(mask=mask):
            pyro.sample("y", dist.Normal(x @ w, 1.0), obs=x.sum(-1))

    svi = trial.svi(model, weights)
    for i in range(20):
        mask[i] = False
        trial.step(svi)
