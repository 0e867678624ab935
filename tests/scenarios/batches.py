"""The batches of a step change: sizes, dtypes, strides, and tensors that are the same, refilled or moved in place."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from scenarios.models import BATCHES, X, coder, network, no_guide, observe, regression
from scenarios.rows import compiled, either, once, twice

Y = X.sum(-1)


@twice
def the_last_batch_is_smaller(trial):
    svi = trial.svi(*coder())
    for _ in range(8):
        for batch in X.split(9):
            trial.step(svi, batch)


@compiled
def the_batch_grows(trial):
    svi = trial.svi(regression)
    for size in (3, 6, 12, 24):
        trial.steps(svi, 6, X[:size])


@twice
def a_batch_of_one_row(trial):
    svi = trial.svi(*coder())
    for i in range(24):
        trial.step(svi, X[i : i + 1] if i % 3 == 0 else X)


@once
def shuffled_rows(trial):
    svi = trial.svi(*coder())
    for _ in range(24):
        trial.step(svi, X[torch.randperm(24)[:16]])


@once
def the_rows_of_a_table_by_their_numbers(trial):
    def model(rows):
        observe(X[rows] @ pyro.param("w", torch.zeros(3)), X[rows])

    svi = trial.svi(model, no_guide)
    for i in range(24):
        trial.step(svi, torch.arange(24)[i % 3 :: 3])


@once
def batches_of_a_loader(trial):
    svi = trial.svi(lambda x, y: regression(x, y=y))
    loader = DataLoader(TensorDataset(X, Y), batch_size=8, shuffle=True)
    for _ in range(8):
        for x, y in loader:
            trial.step(svi, x, y)


@compiled
def one_tensor_twice_and_then_two(trial):
    svi = trial.svi(lambda x, y: regression(x, y=y.sum(-1)))
    trial.steps(svi, 10, X, X)
    trial.steps(svi, 10, X, 3 * X)
    trial.steps(svi, 10, X, X)


@compiled
def a_view_of_the_other_argument(trial):
    svi = trial.svi(lambda x, first: regression(x, y=first))
    trial.steps(svi, 8, X, X[:, 0])
    trial.steps(svi, 8, X, X[:, 0].clone())
    trial.steps(svi, 8, X, torch.zeros(24))


@compiled
def other_strides(trial):
    svi = trial.svi(*coder())
    wide = torch.cat([X, X], 1)
    for batch in (X, X.t().contiguous().t(), wide[:, 3:], wide.repeat(2, 1)[::2, :3], X[:1].expand(24, 3)):
        trial.steps(svi, 6, batch)


@compiled
def strides_that_python_reads(trial):
    def model(x):
        regression(x, 1.0 if x.is_contiguous() else 2.0)

    svi = trial.svi(model)
    for batch in (X, X.t().contiguous().t(), X):
        trial.steps(svi, 7, batch)


@either(says="grad")
def a_batch_that_requires_a_gradient(trial):
    x = X.clone().requires_grad_()
    svi = trial.svi(*coder())
    trial.steps(svi, 10, X)
    trial.steps(svi, 10, x)
    trial.keep(x.grad)


@once
def a_batch_that_is_refilled(trial):
    x = torch.empty(8, 3)
    svi = trial.svi(*coder())
    for i in range(24):
        x.copy_(BATCHES[i % 3])
        trial.step(svi, x)


@either(says="in place|moves|argument")
def the_model_moves_its_batch(trial):
    def model(x):
        x.mul_(0.95)
        regression(x)

    x = X.clone()
    svi = trial.svi(model)
    trial.steps(svi, 24, x)
    trial.keep(x)


@compiled
def whole_numbers_become_floats(trial):
    svi = trial.svi(lambda x: regression(x.float()))
    for batch in ((10 * X).long(), X, (10 * X).int(), X.double()):
        trial.steps(svi, 6, batch)


@once
def a_tensor_without_dimensions(trial):
    def model(x):
        pyro.sample("x", dist.Normal(pyro.param("m", torch.tensor(0.0)), 1.0), obs=x)

    svi = trial.svi(model, no_guide)
    for i in range(24):
        trial.step(svi, torch.tensor(float(i)))


@once
def images_in_channels_last(trial):
    def model(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(net(x).flatten(1), 1.0).to_event(1), obs=x.flatten(1))

    net = nn.Conv2d(1, 1, 3, padding=1)
    svi = trial.svi(model, no_guide)
    images = X.reshape(6, 1, 4, 3)
    trial.steps(svi, 10, images)
    trial.steps(svi, 10, images.contiguous(memory_format=torch.channels_last))


@compiled
def another_number_of_columns(trial):
    def model(x):
        w = pyro.param("w", torch.zeros(3))
        observe(x @ w[: x.shape[-1]], x)

    svi = trial.svi(model, no_guide)
    for columns in (3, 2, 1, 3):
        trial.steps(svi, 6, X[:, :columns])


@twice
def a_network_in_batches_of_two_sizes(trial):
    svi = trial.svi(network(nn.Linear(3, 1)), no_guide)
    for i in range(24):
        trial.step(svi, X[: 8 if i % 2 else 16])
