"""States that are loaded into another SVI."""

from copy import deepcopy

import pyro
import pyro.distributions as dist
import pytest
import torch
from svi_runs import adam, data, losses, vae, weights
from torch import nn

import pyrovae as pv


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
