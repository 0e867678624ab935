"""Two models in two threads give the numbers that each gives alone."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam
from torch import Tensor

import pyrovae as pv

T = TypeVar("T")
X = torch.rand(64, 6, generator=torch.Generator().manual_seed(0)).round()


@pytest.fixture(autouse=True)
def switching_often() -> object:
    """Threads take turns every 10 microseconds, so that a step without the lock meets another one."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    with pyro.get_param_store().scope():
        yield
    sys.setswitchinterval(before)


def make(seed: int) -> pv.VAE:
    torch.manual_seed(seed)
    return pv.build_vae((6,), 2, prior=("normal", "spike-slab")[seed], hidden=(8,))


def together(*functions: Callable[[], T]) -> list[T]:
    start = threading.Barrier(len(functions))

    def run(function: Callable[[], T]) -> T:
        start.wait()
        return function()

    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(run, functions))


def test_encode_and_sites_of_two_models() -> None:
    models = [make(0), make(1)]

    def codes(vae: pv.VAE) -> Callable[[], list[Tensor]]:
        return lambda: [vae.encode(X) for _ in range(50)]

    alone = [model.encode(X) for model in models]
    for expected, got in zip(alone, together(*map(codes, models)), strict=True):
        assert all(torch.equal(code, expected) for code in got)
    assert all(model.training for model in models)


def test_measurements_see_the_sites_of_their_own_model_only() -> None:
    models = [make(0), make(1)]

    def sites(vae: pv.VAE) -> Callable[[], set[tuple[str, ...]]]:
        def measure() -> set[tuple[str, ...]]:
            found = set()
            for _ in range(20):
                pv.metrics.elbo(vae, X, num_samples=2)
                with pv.guards.pyro_lock, poutine.trace() as traced:
                    vae.sample(3)
                found.add(tuple(name for name, site in traced.trace.nodes.items() if site["type"] == "sample"))
            return found

        return measure

    assert together(*map(sites, models)) == [{("data", "z", "x")}] * 2


def test_steps_with_a_random_state_of_their_own() -> None:
    def loop(seed: int) -> Callable[[], tuple[list[float], list[Tensor]]]:
        vae = make(seed)
        svi = SVI(vae.model, vae.guide, Adam({"lr": 0.01}), Trace_ELBO())
        state = torch.Generator().manual_seed(seed).get_state()

        def train() -> tuple[list[float], list[Tensor]]:
            nonlocal state
            losses = []
            for _ in range(30):
                with pv.guards.pyro_lock, torch.random.fork_rng(devices=[]):
                    torch.set_rng_state(state)
                    losses.append(svi.step(X))
                    state = torch.get_rng_state()
            return losses, [value.detach() for value in vae.parameters()]

        return train

    alone = [loop(seed)() for seed in (0, 1)]
    for (losses, values), (expected, expected_values) in zip(together(loop(0), loop(1)), alone, strict=True):
        assert losses == expected
        assert all(torch.equal(a, b) for a, b in zip(values, expected_values, strict=True))


def test_checks_of_two_models_while_another_thread_trains_without_pyro() -> None:
    models, plain = [make(0), make(1)], torch.nn.BatchNorm1d(6)

    def check(vae: pv.VAE) -> Callable[[], None]:
        def run() -> None:
            for _ in range(20):
                pv.check(vae.model, vae.guide, pv.ELBO(), X)

        return run

    def batches() -> None:
        for _ in range(200):
            plain(X)

    together(check(models[0]), check(models[1]), batches)
    assert plain.num_batches_tracked == 200  # a check puts back what its own thread moved
