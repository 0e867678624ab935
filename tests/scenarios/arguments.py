"""The arguments of a step change: names, numbers, containers, functions."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import nn

from scenarios.models import BATCHES, X, no_guide, observe, regression, weights
from scenarios.rows import compiled, either, once, twice

Y = X.sum(-1)


@twice
def keywords_in_another_order(trial):
    svi = trial.svi(lambda x, y: regression(x, y=y))
    for i in range(24):
        trial.step(svi, **({"x": X, "y": Y} if i % 2 else {"y": Y, "x": X}))


@compiled
def a_keyword_becomes_a_position(trial):
    svi = trial.svi(lambda x, noise=1.0: regression(x, noise))
    trial.steps(svi, 8, X)
    trial.steps(svi, 8, X, noise=0.5)
    trial.steps(svi, 8, X, 2.0)


@compiled
def a_mask_that_is_none_and_then_a_tensor(trial):
    def model(x, mask=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            seen = dist.Normal(x @ w, 1.0) if mask is None else dist.Normal(x @ w, 1.0).mask(mask)
            pyro.sample("y", seen, obs=x.sum(-1))

    svi = trial.svi(model)
    trial.steps(svi, 10, X)
    trial.steps(svi, 10, X, X[:, 0] > 0)
    trial.steps(svi, 10, X, X[:, 1] > 0)


@twice
def a_flag(trial):
    svi = trial.svi(lambda x, wide=False: regression(x, 3.0 if wide else 1.0))
    for i in range(24):
        trial.step(svi, X, wide=i % 4 > 1)


@compiled
def a_float_of_three_values(trial):
    svi = trial.svi(regression)
    for noise in (1.0, 0.5, 2.0, 0.5):
        trial.steps(svi, 7, X, noise)


@either(says="float|number|value|tensor")
def a_float_that_is_another_at_each_step(trial):
    """Annealing of the KL term as in Pyro's deep Markov model."""

    def annealed(statement):
        def run(x, factor):
            with pyro.poutine.scale(scale=factor):
                statement(x)

        return run

    svi = trial.svi(annealed(regression), annealed(weights))
    for i in range(30):
        trial.step(svi, X, min(1.0, 0.1 + i / 20))


@once
def an_annealing_factor_that_is_a_tensor(trial):
    svi = trial.svi(regression)
    for i in range(24):
        trial.step(svi, X, torch.tensor(1.0 + i / 10))


@compiled
def a_whole_number(trial):
    def model(x, power):
        regression(x, y=x.sum(-1) ** power)

    svi = trial.svi(model)
    for power in (1, 2, 3, 1):
        trial.steps(svi, 6, X, power)


@compiled
def one_is_not_true(trial):
    """1, 1.0 and True are equal and have one hash."""
    svi = trial.svi(lambda x, kind: regression(x, {int: 1.0, bool: 2.0, float: 3.0}[type(kind)]))
    for kind in (1, True, 1.0, True, 1):
        trial.steps(svi, 5, X, kind)


@compiled
def a_name(trial):
    svi = trial.svi(lambda x, kind: regression(x, {"narrow": 0.5, "wide": 2.0}[kind]))
    for kind in ("narrow", "wide", "narrow"):
        trial.steps(svi, 8, X, kind)


@once
def a_tuple_of_tensors(trial):
    svi = trial.svi(lambda batch: regression(batch[0], y=batch[1]))
    for i in range(24):
        trial.step(svi, (X, Y + i / 10))


@compiled
def a_dictionary_that_gets_another_key(trial):
    def model(batch):
        regression(batch["x"], batch.get("noise", torch.tensor(1.0)))

    svi = trial.svi(model)
    trial.steps(svi, 10, {"x": X})
    trial.steps(svi, 10, {"x": X, "noise": torch.tensor(0.5)})
    trial.steps(svi, 10, {"noise": torch.tensor(2.0), "x": X})


@compiled
def a_list_that_grows(trial):
    svi = trial.svi(lambda parts: regression(torch.cat(parts)))
    for number in (1, 2, 3):
        trial.steps(svi, 8, list(BATCHES[:number]))


@either(says="Batch")
def a_named_tuple_and_a_dataclass(trial):
    Pair = namedtuple("Pair", "x y")

    @dataclass
    class Batch:
        x: torch.Tensor
        y: torch.Tensor

    svi = trial.svi(lambda batch: regression(batch.x, y=batch.y))
    trial.steps(svi, 10, Pair(X, Y))
    trial.steps(svi, 10, Batch(X, Y))
    trial.steps(svi, 10, Batch(X, 2 * Y))


@either(says="float32")
def a_number_of_numpy(trial):
    svi = trial.svi(lambda x, noise: regression(x, float(noise)))
    for noise in (0.5, 2.0, 1.0):
        trial.steps(svi, 8, X, np.float32(noise))


@either(says="slice|neither")
def a_slice(trial):
    svi = trial.svi(lambda rows: regression(X[rows]))
    for i in range(24):
        trial.step(svi, slice(0, 12) if i < 12 else slice(12, 24))


@either(says="tanh|relu|function|neither")
def a_function(trial):
    svi = trial.svi(lambda x, link: regression(x, y=link(x.sum(-1))))
    for link in (torch.tanh, torch.relu, torch.tanh):
        trial.steps(svi, 8, X, link)


@either(says="Linear|neither|module")
def a_module_and_its_other_weights(trial):
    nets = [nn.Linear(3, 1), nn.Linear(3, 1)]

    def model(x, net):
        pyro.module("net", net)
        observe(net(x)[:, 0], x)

    svi = trial.svi(model, no_guide)
    trial.steps(svi, 8, X, nets[0])
    nets[1].load_state_dict({name: 2 * value for name, value in nets[0].state_dict().items()})
    trial.steps(svi, 8, X, nets[0])


@compiled
def a_dtype(trial):
    def model(x, dtype):
        observe((x.to(dtype) @ pyro.param("w", torch.zeros(3)).to(dtype)).float(), x)

    svi = trial.svi(model, no_guide)
    for dtype in (torch.float32, torch.float64, torch.float32):
        trial.steps(svi, 8, X, dtype)


@compiled
def no_argument_and_a_default(trial):
    def model(x=X):
        regression(x)

    svi = trial.svi(model)
    for _ in range(10):
        trial.step_alone(svi)
    trial.steps(svi, 10, 2 * X)
