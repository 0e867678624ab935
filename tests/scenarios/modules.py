"""Modules change: mode, dropout, batch statistics, weights that are loaded, layers that are skipped."""

from __future__ import annotations

import copy

import pyro
import torch
from pyro.optim import SGD
from torch import nn
from torch.nn import functional as F

from scenarios.models import X, coded, coder, network, no_guide, observe, vae
from scenarios.rows import compiled, either, once, twice

SLOW = {"lr": 1e-3}


@twice
def dropout_in_both_modes(trial):
    dropout = nn.Dropout(0.4)
    svi = trial.svi(*coder(dropout))
    for i in range(4):
        dropout.train(i % 2 == 0)
        trial.steps(svi, 6)


@compiled
def another_rate_of_dropout(trial):
    dropout = nn.Dropout(0.1)
    svi = trial.svi(*coder(dropout))
    for dropout.p in (0.1, 0.5, 0.0):
        trial.steps(svi, 8)


@twice
def batch_statistics_in_both_modes(trial):
    norm = trial.watch(nn.BatchNorm1d(8))
    svi = trial.svi(*coder(norm), SGD(SLOW))
    for i in range(4):
        norm.train(i % 2 == 0)
        trial.steps(svi, 6)


@compiled
def another_momentum_of_batch_statistics(trial):
    norm = trial.watch(nn.BatchNorm1d(8))
    svi = trial.svi(*coder(norm), SGD(SLOW))
    trial.steps(svi, 10)
    norm.momentum = 0.9
    trial.steps(svi, 10)


@compiled
def batch_statistics_are_reset(trial):
    norm = trial.watch(nn.BatchNorm1d(8))
    svi = trial.svi(*coder(norm), SGD(SLOW))
    trial.steps(svi, 8)
    norm.reset_running_stats()
    trial.steps(svi, 8)
    norm.track_running_stats = False
    norm.running_mean = norm.running_var = None
    trial.steps(svi, 8)


@once
def batch_statistics_and_a_smaller_batch_in_evaluation(trial):
    norm = trial.watch(nn.BatchNorm1d(8))
    svi = trial.svi(*coder(norm), SGD(SLOW))
    for _ in range(12):
        trial.step(svi)
        norm.eval()
        trial.keep(svi.evaluate_loss(X[:5]))
        norm.train()


@twice
def a_function_that_reads_the_mode(trial):
    class Net(nn.Linear):
        def forward(self, x):
            return F.dropout(super().forward(x), 0.5, training=self.training)

    net = trial.watch(Net(3, 1))
    svi = trial.svi(network(net), no_guide)
    trial.steps(svi, 8)
    net.eval()
    trial.steps(svi, 8)


@once
def weights_are_loaded(trial):
    net = trial.watch(nn.Linear(3, 1))
    svi = trial.svi(network(net), no_guide)
    trial.steps(svi, 6)
    state = copy.deepcopy(net.state_dict())
    trial.steps(svi, 8)
    net.load_state_dict(state)
    trial.steps(svi, 8)


@either(says="gets a gradient")
def weights_are_assigned(trial):
    net = trial.watch(nn.Linear(3, 1))
    svi = trial.svi(network(net), no_guide)
    trial.steps(svi, 6)
    net.load_state_dict({name: 2 * value for name, value in net.state_dict().items()}, assign=True)
    trial.steps(svi, 8)


@once
def a_moving_average_of_the_weights(trial):
    net = nn.Linear(3, 1)
    average = trial.watch(copy.deepcopy(net))
    svi = trial.svi(network(net), no_guide)
    for _ in range(20):
        trial.step(svi)
        with torch.no_grad():
            for mean, param in zip(average.parameters(), net.parameters(), strict=True):
                mean.lerp_(param, 0.1)


@compiled
def another_network_of_the_same_kind(trial):
    holder = nn.Module()
    holder.net = nn.Linear(3, 1)

    def model(x):
        pyro.module("net", holder.net, update_module_params=True)
        observe(holder.net(x)[:, 0], x)

    svi = trial.svi(model, no_guide)
    trial.steps(svi, 10)
    holder.net = copy.deepcopy(holder.net)
    trial.steps(svi, 10)


@compiled
def a_layer_of_a_list_is_skipped(trial):
    layers, number = nn.ModuleList([nn.Linear(3, 3) for _ in range(3)]), [3]

    def model(x):
        pyro.module("layers", layers)
        h = x
        for layer in list(layers)[: number[0]]:
            h = h + layer(h).tanh()
        observe(h.sum(-1), x)

    svi = trial.svi(model, no_guide)
    for number[0] in (3, 1, 2):
        trial.steps(svi, 7)


@either(says="calls|count|changes|Counting|same")
def a_module_that_counts_its_calls(trial):
    class Counting(nn.Linear):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return super().forward(x) / (1 + self.calls)

    net = Counting(3, 1)
    trial.steps(trial.svi(network(net), no_guide), 20)
    trial.keep(net.calls)


@compiled
def two_encoders_by_turns(trial):
    encoders = [nn.Linear(3, 4), nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4))]
    decoder = nn.Linear(2, 3)
    model, first = coded(encoders[0], decoder)
    second = coded(encoders[1], decoder)[1]
    svi = trial.svi(model, first)
    for i in range(4):
        svi.guide = (first, second)[i % 2]
        trial.steps(svi, 5)


@once
def a_vae_is_evaluated_in_eval_mode_between_steps(trial):
    module = trial.watch(vae())
    batch = (X.repeat(1, 2) > 0).float()
    svi = trial.svi(module.model, module.guide)
    for _ in range(10):
        trial.step(svi, batch)
        module.eval()
        with torch.no_grad():
            trial.keep(module.encode(batch).sum())
        module.train()
