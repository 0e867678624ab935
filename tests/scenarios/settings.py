"""Dtypes and switches of torch and Pyro that change during training."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.optim import SGD
from torch import nn

from scenarios.models import BITS, X, coded, coder, network, no_guide, observe, regression, vae
from scenarios.rows import compiled, either, once, twice

SLOW = {"lr": 1e-3}


@compiled
def a_network_becomes_double(trial):
    net = trial.watch(nn.Linear(3, 1))
    svi = trial.svi(network(net), no_guide, SGD(SLOW))
    trial.steps(svi, 10)
    net.double()
    trial.steps(svi, 10, X.double())


@compiled
def a_vae_becomes_double(trial):
    module = trial.watch(vae())
    svi = trial.svi(module.model, module.guide, SGD(SLOW))
    trial.steps(svi, 8, BITS)
    module.double()
    trial.steps(svi, 8, BITS.double())


@compiled
def a_network_becomes_double_and_single_again(trial):
    net = trial.watch(nn.Linear(3, 1))
    svi = trial.svi(network(net), no_guide, SGD(SLOW))
    for dtype in (torch.float32, torch.float64, torch.float32):
        net.to(dtype)
        trial.steps(svi, 7, X.to(dtype))


@compiled
def another_default_dtype(trial):
    def model(x):
        observe((x.double() @ pyro.param("w", torch.zeros(3)).double()) + torch.zeros(()).fill_(0.1), x.double())

    svi = trial.svi(model, no_guide)
    trial.steps(svi, 8)
    torch.set_default_dtype(torch.float64)
    trial.steps(svi, 8)


@compiled
def all_in_double_precision(trial):
    torch.set_default_dtype(torch.float64)
    svi = trial.svi(*coder())
    trial.steps(svi, 10, X.double())
    trial.steps(svi, 10, X[:9].double())


@either(says="autocast")
def autocast_around_some_steps(trial):
    svi = trial.svi(*coder(), SGD(SLOW))
    trial.steps(svi, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trial.steps(svi, 4)
    trial.steps(svi, 8)


@twice
def autocast_without_copies_around_some_steps(trial):
    svi = trial.svi(*coder(), SGD(SLOW))
    trial.steps(svi, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        trial.steps(svi, 6)
    trial.steps(svi, 8)


@twice
def autocast_in_the_model_by_a_flag(trial):
    net, rough = nn.Linear(3, 1), [False]

    def model(x):
        pyro.module("net", net)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=rough[0]):
            mean = net(x)[:, 0]
        observe(mean.float(), x)

    svi = trial.svi(model, no_guide, SGD(SLOW))
    for i in range(4):
        rough[0] = i % 2 == 1
        trial.steps(svi, 5)


@compiled
def another_precision_of_products(trial):
    svi = trial.svi(*coder())
    for precision in ("highest", "high", "highest"):
        torch.set_float32_matmul_precision(precision)
        trial.steps(svi, 6)


@compiled
def deterministic_algorithms(trial):
    svi = trial.svi(*coder())
    trial.steps(svi, 8)
    torch.use_deterministic_algorithms(True)
    trial.steps(svi, 8)


@compiled
def validation_is_switched_off_and_on(trial):
    svi = trial.svi(regression)
    for valid in (True, False, True):
        pyro.enable_validation(valid)
        trial.steps(svi, 7)


@either(says="it gives")
def a_model_that_reads_whether_validation_is_on(trial):
    from pyro.infer.util import is_validation_enabled

    svi = trial.svi(lambda x: regression(x, 1.0 if is_validation_enabled() else 3.0))
    for valid in (True, False):
        pyro.enable_validation(valid)
        trial.steps(svi, 8)


@compiled
def a_distribution_that_is_kept(trial):
    """It was made while validation was on, and checks its values for ever."""
    kept = [dist.Normal(torch.zeros(3), 1.0).to_event(1)]

    def model(x):
        w = pyro.sample("w", kept[0])
        observe(x @ w, x)

    svi = trial.svi(model)
    trial.steps(svi, 10)
    kept[0] = dist.Normal(torch.ones(3), 0.1).to_event(1)
    trial.steps(svi, 10)


@compiled
def half_precision_inside_of_a_network(trial):
    encoder = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4))
    decoder = nn.Linear(2, 3)
    rough = nn.Linear(3, 3).bfloat16().requires_grad_(False)
    model, guide = coded(encoder, decoder)

    def rounded(x):
        return rough(x.bfloat16()).float()

    svi = trial.svi(lambda x: model(rounded(x)), lambda x: guide(rounded(x)), SGD(SLOW))
    trial.steps(svi, 16)


@compiled
def parameters_of_two_dtypes(trial):
    def model(x):
        single, double = pyro.param("a", torch.zeros(3)), pyro.param("b", torch.zeros(3, dtype=torch.float64))
        observe(x.double() @ (single.double() + double), x.double())

    trial.steps(trial.svi(model, no_guide), 16)


@compiled
def complex_numbers_on_the_way(trial):
    def model(x):
        w = pyro.param("w", torch.zeros(3))
        observe(torch.fft.fft(x * w).abs().sum(-1), x)

    trial.steps(trial.svi(model, no_guide), 16)


@once
def gradients_are_off_between_steps(trial):
    svi = trial.svi(*coder())
    for _ in range(12):
        trial.step(svi)
        with torch.no_grad():
            trial.keep(svi.evaluate_loss(X))
        with torch.inference_mode():
            trial.keep(svi.evaluate_loss(X[:5]))


@once
def another_number_of_threads(trial):
    svi = trial.svi(*coder())
    before = torch.get_num_threads()
    trial.steps(svi, 8)
    try:
        torch.set_num_threads(1)
        trial.steps(svi, 8)
    finally:
        torch.set_num_threads(before)


@compiled
def another_setting_of_pyro(trial):
    svi = trial.svi(regression)
    trial.steps(svi, 8)
    with pyro.settings.context(validate_poutine=False):
        trial.steps(svi, 8)


@either(says="[Ss]parse")
def a_sparse_product(trial):
    table = torch.eye(3).to_sparse()

    def model(x):
        observe(torch.sparse.mm(table, x.t()).t() @ pyro.param("w", torch.zeros(3)), x)

    trial.steps(trial.svi(model, no_guide), 12)
