"""Buffers, tensors and settings that a module keeps, its methods, and the data of Gaussian processes."""

from __future__ import annotations

import pyro
import pyro.contrib.gp as gp
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import nn
from torch.nn import functional as F

from scenarios.models import network, no_guide, observe, sparse_gp, waves
from scenarios.rows import compiled, once


class Shifted(nn.Module):
    """A linear layer with a shift, a buffer; used through a method and never called."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 1)
        self.register_buffer("shift", torch.tensor(0.0))
        self.factor, self.table, self.act = 1.0, torch.tensor(1.0), torch.tanh

    def mean(self, x):
        return self.factor * self.table * self.act(self.linear(x))[:, 0] + self.shift


def _shifted(trial):
    net = trial.watch(Shifted())

    def model(x):
        pyro.module("net", net)
        observe(net.mean(x), x)

    return net, trial.svi(model, no_guide)


@compiled
def a_buffer_is_replaced(trial):
    net, svi = _shifted(trial)
    trial.steps(svi, 12)
    net.shift = torch.tensor(10.0)
    trial.steps(svi, 12)


@once
def a_buffer_is_moved_in_place(trial):
    net, svi = _shifted(trial)
    for _ in range(20):
        trial.step(svi)
        net.shift.add_(0.2)


@compiled
def a_tensor_attribute_is_replaced(trial):
    net, svi = _shifted(trial)
    for i in range(4):
        net.table = torch.tensor(1.0 + i)
        trial.steps(svi, 6)


@once
def a_tensor_attribute_is_moved_in_place(trial):
    net, svi = _shifted(trial)
    for _ in range(20):
        trial.step(svi)
        net.table.mul_(1.1)


@compiled
def a_number_of_a_module(trial):
    net, svi = _shifted(trial)
    for net.factor in (1.0, 3.0, 0.5):
        trial.steps(svi, 7)


@compiled
def the_nonlinearity_of_a_module(trial):
    net, svi = _shifted(trial)
    for net.act in (torch.tanh, torch.relu, torch.sin):
        trial.steps(svi, 7)


@compiled
def a_tensor_becomes_a_number(trial):
    net, svi = _shifted(trial)
    trial.steps(svi, 10)
    net.table = 2.0
    trial.steps(svi, 10)


@compiled
def a_buffer_of_a_bare_module(trial):
    settings = nn.Module()
    settings.register_buffer("noise", torch.tensor(1.0))
    svi = trial.svi(lambda x: observe(pyro.param("m", torch.tensor(0.0)), x, settings.noise), no_guide)
    trial.steps(svi, 8)
    settings.noise = torch.tensor(3.0)
    trial.steps(svi, 8)


@compiled
def a_method_is_replaced(trial):
    net, svi = _shifted(trial)
    trial.steps(svi, 8)
    net.mean = lambda x: 2 * net.linear(x)[:, 0]
    trial.steps(svi, 8)


@compiled
def forward_is_replaced(trial):
    net = nn.Linear(3, 1)
    svi = trial.svi(network(net), no_guide)
    trial.steps(svi, 8)
    net.forward = lambda x: 2 * F.linear(x, net.weight)
    trial.steps(svi, 8)


@compiled
def minibatches_of_a_gaussian_process(trial):
    x, y = waves(64)
    model = sparse_gp(x[:32], y[:32], num_data=64)
    svi = trial.svi(model.model, model.guide)
    for i in range(30):
        half = slice(0, 32) if i % 2 == 0 else slice(32, 64)
        model.set_data(x[half], y[half])
        trial.step_alone(svi)


@compiled
def a_gaussian_process_and_a_smaller_last_batch(trial):
    x, y = waves(40)
    model = sparse_gp(x[:16], y[:16], num_data=40)
    svi = trial.svi(model.model, model.guide, loss=TraceMeanField_ELBO())
    for i in range(24):
        rows = slice(16 * (i % 3), 16 * (i % 3) + 16)
        model.set_data(x[rows], y[rows])
        trial.step_alone(svi)


@compiled
def a_gaussian_process_whose_kernel_is_replaced(trial):
    x, y = waves(16)
    model = gp.models.GPRegression(x, y, gp.kernels.RBF(1), noise=torch.tensor(0.1)).double()
    svi = trial.svi(model.model, model.guide, loss=Trace_ELBO())
    for _ in range(10):
        trial.step_alone(svi)
    model.kernel = gp.kernels.Matern32(1).double()
    for _ in range(10):
        trial.step_alone(svi)


@compiled
def the_data_of_a_variational_gaussian_process(trial):
    x, y = waves(16)
    model = gp.models.VariationalGP(x, y, gp.kernels.RBF(1), gp.likelihoods.Gaussian(), jitter=1e-2).double()
    svi = trial.svi(model.model, model.guide)
    for _ in range(10):
        trial.step_alone(svi)
    model.set_data(x, 2 * y)
    for _ in range(10):
        trial.step_alone(svi)
    model.jitter = 1e-1
    for _ in range(10):
        trial.step_alone(svi)
