"""A NaN is one error that says which site and parameter it came from; ``pv.SVI`` and ``pv.fit`` add the step."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO

import pyrovae as pv


def build(prior="normal"):
    return pv.build_vae((6,), 3, prior=prior, likelihood="normal", hidden=(8,))


def rows_with_nan():
    x = torch.randn(20, 6)
    x[3, 1] = math.nan
    return x


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize("loss", [pv.ELBO, lambda: pv.IWAE(3), lambda: pv.DReG(3), Trace_ELBO])
def test_data_are_blamed(loss, validation):
    """Two functions, whose data nobody checks: in pyro's SVI, and in fit for Pyro's own objective too."""
    vae = build()
    pair = (lambda x: vae.model(x), lambda x: vae.guide(x))
    x = rows_with_nan()
    with pyro.validation_enabled(validation):
        if loss is not Trace_ELBO:
            svi = SVI(*pair, pyro.optim.Adam({"lr": 1e-3}), loss())
            svi.step(torch.randn(20, 6))
            with pytest.raises(FloatingPointError, match=r"^the loss became NaN: the data 'x' are NaN in row 3; "):
                svi.step(x)
        expected = r"epoch 1: step [12]: the loss became NaN: the data 'x' are NaN in row \d+; "
        with pytest.raises(
            FloatingPointError,
            match=expected + r"[\s\S]*site 'z' of the guide: loc of Normal is NaN in .*; the weights are put back",
        ):
            pv.fit(pair, x, epochs=2, batch_size=10, loss=loss(), seed=0, progress=False)


def test_the_weights_are_blamed():
    vae = build()
    with torch.no_grad():
        vae.likelihood.network.layers[0].weight[2, 1] = math.inf
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), pv.ELBO())
    with pytest.raises(
        FloatingPointError, match=r"^the loss became NaN: .*parameter likelihood.network.*weight is infinite"
    ):
        svi.step(torch.randn(5, 6))


@pytest.mark.parametrize("prior", ["spike-slab", "gamma", "bernoulli"])
def test_the_parameter_of_a_guide_is_blamed(prior):
    vae = build(prior)
    with torch.no_grad():
        vae.posterior.head.bias.fill_(math.nan)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), pv.ELBO())
    names = {"spike-slab": "logits of SpikeSlab", "gamma": "(scale|concentration) of", "bernoulli": "(probs|logits) of"}
    expected = rf"parameter posterior.head.bias is NaN; site 'z' of the guide: {names[prior]}"
    with pytest.raises(FloatingPointError, match=expected):
        svi.step(torch.randn(5, 6))


def test_a_density_that_is_nan_is_blamed():
    class Broken(dist.Normal):
        def log_prob(self, value):
            return super().log_prob(value) * torch.tensor([1.0, math.nan, 1.0])

        def expand(self, batch_shape, _instance=None):
            return super().expand(batch_shape, self._get_checked_instance(Broken, _instance))

    def model(x):
        with pyro.plate("data", 3, dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([3]))
            pyro.sample("x", Broken(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", 3, dim=-1):
            pyro.sample("z", dist.Normal(0.0, 1.0).expand([3]))

    with pytest.raises(FloatingPointError, match="site 'x' of the model: the log-density of Broken is NaN in row 1"):
        SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), pv.ELBO()).step(torch.zeros(3))


def test_validation_data_are_blamed():
    vae = build()
    pair = (lambda x: vae.model(x), lambda x: vae.guide(x))
    with pytest.raises(
        FloatingPointError, match="epoch 1: the validation loss became NaN: the data 'x' are NaN in row 3"
    ):
        pv.fit(pair, torch.randn(20, 6), epochs=2, val=rows_with_nan(), progress=False)


def test_an_error_of_another_kind_stays_what_it_is():
    vae = build()
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), pv.ELBO())
    with pytest.raises(ValueError, match="shape"):
        svi.step(torch.randn(5, 4))
