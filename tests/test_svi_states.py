"""States that are loaded into another SVI, and compiled steps that are launched as one graph of a device."""

from copy import deepcopy

import pyro
import pyro.distributions as dist
import pytest
import torch
from svi_runs import adam, data, losses, vae, weights
from test_replay import card  # noqa: F401
from torch import nn

import pyrovae as pv


@pytest.mark.parametrize("options", [{}, {"accumulate": 3}, {"clip_norm": 5.0}], ids=["adam", "accumulate", "clipped"])
def test_steps_by_replays_are_those_of_the_code(card, options):
    batches = [data(seed=i) for i in range(7)]
    runs = []
    for compile in (False, True):
        model = vae()
        svi = pv.SVI(model.model, model.guide, adam(), pv.ELBO(beta=pv.warmup(steps=5)), compile=compile, **options)
        runs.append((losses(svi, batches), [p.detach().clone() for p in model.parameters()]))
    calls = [compiled for calls in svi._state.calls.values() for compiled in calls.compiled.values()]
    assert calls
    assert all(compiled.program.replays for compiled in calls)
    assert runs[1][0] == pytest.approx(runs[0][0], rel=1e-5)
    for ours, theirs in zip(runs[1][1], runs[0][1], strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_learning_rate_is_followed_by_replays(card):
    def optim():
        return pyro.optim.ExponentialLR({"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.1}, "gamma": 0.5})

    runs = []
    for compile in (False, True):
        model, schedule = vae(), optim()
        svi = pv.SVI(model.model, model.guide, schedule, pv.ELBO(), compile=compile)
        torch.manual_seed(1)
        run = []
        for i in range(6):
            run.append(svi.step(data(seed=i)))
            schedule.step()
        runs.append(run)
    assert runs[1] == pytest.approx(runs[0], rel=1e-5)


@pytest.mark.parametrize("before", [0, 4])
def test_a_state_continues_in_an_svi_of_a_second_model_of_equal_weights(before):
    def svi_of(module):
        return pv.SVI(module.model, module.guide, adam(), pv.ELBO(), compile=False)

    with pyro.get_param_store().scope():
        first = vae()
        svi = svi_of(first)
        losses(svi, [data()] * before)
        state, start = svi.state_dict(), deepcopy(first.state_dict())
        expected, end = losses(svi, [data()] * 5, seed=3), weights(first)
    with pyro.get_param_store().scope():
        second = vae(seed=1)
        second.load_state_dict(start)
        again = svi_of(second)
        again.load_state_dict(state)
        assert losses(again, [data()] * 5, seed=3) == expected
        assert torch.equal(weights(second), end)
        assert torch.equal(weights(first), end)


def test_a_state_of_functions_with_modules_is_loaded_before_the_first_step():
    """pyro.module finds other tensors of its names in Pyro's store, and the check of the pair raises."""
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))

    def make():
        torch.manual_seed(0)
        network = nn.Linear(3, 3)

        def model(x):
            pyro.module("network", network)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(network(z), 1.0).to_event(1), obs=x)

        def guide(x):
            loc = pyro.param("loc", torch.zeros(3))
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

        return network, pv.SVI(model, guide, adam(), pv.ELBO(), compile=False)

    with pyro.get_param_store().scope():
        network, svi = make()
        losses(svi, [x] * 4)
        state, start = svi.state_dict(), deepcopy(network.state_dict())
        expected = losses(svi, [x] * 4)
    with pyro.get_param_store().scope():
        second, again = make()
        second.load_state_dict(start)
        again.load_state_dict(state)
        assert losses(again, [x] * 4) == expected
