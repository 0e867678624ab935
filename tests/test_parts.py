"""Parts that do not go together are one error that names them, when the VAE is made or at its first step."""

import re

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from test_build import fits
from torch import nn
from torch.distributions import constraints

import pyrovae as pv
from pyrovae import build, guards
from pyrovae.compilation import passes
from pyrovae.guides import Guide
from pyrovae.nn import MLP
from pyrovae.priors import Prior


class BadNoEvent(Prior):
    def __init__(self, dim, event_dim=0):
        super().__init__()
        self.event_dim = event_dim
        self.register_buffer("scale", torch.ones(dim))

    def distribution(self):
        return dist.Normal(torch.zeros_like(self.scale), self.scale).to_event(self.event_dim)


class Nothing(Prior):
    pass


class NoForward(nn.Module):
    pass


class Other(Guide):
    support = constraints.real


def make(prior, likelihood=None, guide=None):
    likelihood = pv.likelihoods.Bernoulli(MLP(16, [8], 64)) if likelihood is None else likelihood
    return pv.VAE(prior, likelihood, pv.guides.Normal(MLP(64, [8]), 16) if guide is None else guide)


MADE = {
    "prior BadNoEvent: distribution() has event_shape (), expected (16,): add .to_event(1)": lambda: make(
        BadNoEvent(16)
    ),
    "prior BadNoEvent: distribution() has event_shape (2, 8), guide Normal has (16,), the network of likelihood "
    "Bernoulli reads (16,)": lambda: make(BadNoEvent((2, 8), 2)),
    "prior Normal: distribution() has event_shape (8,), guide Normal has (16,), the network of likelihood Bernoulli "
    "reads (16,)": lambda: make(pv.priors.Normal(8)),
    "prior Normal: distribution() has event_shape (16,), guide Normal has (16,), the network of likelihood Bernoulli "
    "reads (8,)": lambda: make(pv.priors.Normal(16), pv.likelihoods.Bernoulli(MLP(8, [8], 64))),
    "prior Nothing must define distribution(), or override forward()": lambda: make(Nothing()),
    "prior must be an instance, got the class Normal: Normal(...)": lambda: make(pv.priors.Normal),
    "guide must be an instance, got the class Normal: Normal(...)": lambda: make(
        pv.priors.Normal(16), guide=pv.guides.Normal
    ),
    "likelihood must be a torch module, got 'bernoulli'; build_vae takes names": lambda: make(
        pv.priors.Normal(16), "bernoulli"
    ),
    "prior NoForward must define forward(), as the priors of pyrovae do": lambda: make(NoForward()),
    "event_shape must be a sequence of positive whole numbers such as (64,), got 64": lambda: pv.build_vae(64, 8),
    "hidden must be positive widths such as (400,), got 400": lambda: pv.build_vae((64,), 8, hidden=400),
    "prior must be a name or an import path, got Normal(\n": lambda: pv.build_vae((64,), 8, prior=pv.priors.Normal(8)),
    "guide must be a name or an import path, got <class 'pyrovae.guides.real.Normal'>; an instance goes into "
    "pv.VAE(prior, likelihood, guide)": lambda: pv.build_vae((64,), 8, guide=pv.guides.Normal),
    "hidden must be a sequence of widths such as [400], got 400": lambda: MLP(64, 400),
    "channels must be a sequence of widths such as [32, 64], got 32": lambda: pv.nn.ConvEncoder((1, 8, 8), 32),
    "channels must be a sequence of widths such as [64, 32], got 32": lambda: pv.nn.ConvDecoder(2, (1, 8, 8), 32),
    "guides that fit: beta-spike-slab": lambda: pv.build_vae((64,), 8, "beta-bernoulli", guide="normal", num_data=9),
    "guides that fit: spike-slab, thresholded-laplace, thresholded-normal": lambda: pv.build_vae(
        (64,), 8, prior="spike-slab", guide="normal"
    ),
}


@pytest.mark.parametrize(("message", "call"), MADE.items())
def test_what_cannot_be_made_is_one_error_that_names_it(message, call):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        call()
    if "guides that fit" in message:
        assert str(caught.value).endswith(message)


def test_guides_that_fit_are_the_public_ones_with_as_many_shared_sites():
    """And a user's own, such as another test may have made."""
    with pytest.raises(ValueError, match="guides that fit: ") as caught:
        make(pv.priors.SpikeSlab(16))
    listed = set(str(caught.value).partition("guides that fit: ")[2].split(", "))
    assert listed >= {"SpikeSlab", "ThresholdedLaplace", "ThresholdedNormal"}
    assert "BetaSpikeSlab" not in listed
    assert not any(name.startswith("_") for name in listed)


@pytest.mark.parametrize("call", ["model", "guide", "encode", "reconstruct"])
def test_an_array_in_place_of_a_tensor(call):
    with pytest.raises(ValueError, match=r"x must be a torch tensor, got ndarray: torch\.as_tensor"):
        getattr(make(pv.priors.Normal(16)), call)(np.zeros((3, 64), dtype=np.float32))


def test_what_the_error_lists_does_fit():
    odd = pv.guides.Normal(MLP(6, [5]), 3)
    odd.support = constraints.lower_triangular
    for name in set(build.PRIORS) - {"vamp"}:
        prior = build.PRIORS[name](3)
        if prior.support is None:
            continue
        with pytest.raises(ValueError, match="guides that fit: ") as caught:
            guards.check_support(prior, odd, build.GUIDES)
        listed = str(caught.value).partition("guides that fit: ")[2].split(", ")
        # the classes of these guides do not say how many categories or rays they have
        own = name in ("categorical", "fan")
        assert listed == ([name] if own else sorted(g for g in build.GUIDES if fits(name, g)))


def test_a_prior_whose_sites_only_the_first_step_sees_is_refused_there():
    class Hierarchy(BadNoEvent):
        def forward(self):
            return pyro.sample("z", self.distribution())

    vae = make(Hierarchy(8, 1))
    with pytest.raises(ValueError, match=r"'z' has event_shape \(8,\) in the model but \(16,\) in the guide"):
        pv.check(vae.model, vae.guide, Trace_ELBO(), torch.zeros(5, 64))


def test_a_model_whose_data_is_no_observation_is_told_of_obs():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0).to_event(1))

    with pytest.raises(ValueError, match=r"sample \['x'\] in the guide too, or, where that is data, give .* obs="):
        pv.fit((model, guide), torch.zeros(8, 2), epochs=1, progress=False)


ROWS_OF = {"normal": {}, "spike-slab": {}, "beta-spike-slab": {"num_data": 100}}


@pytest.mark.parametrize("prior", ROWS_OF)
def test_passes_of_rows_change_nothing(monkeypatch, prior):
    vae = pv.build_vae((6,), 2, prior=prior, hidden=(3,), **ROWS_OF[prior]).double()
    x = torch.randn(17, 6, dtype=torch.float64)
    code, image = vae.encode(x), vae.reconstruct(x)
    rows = []
    vae.posterior.network.register_forward_hook(lambda _, args, __: rows.append(len(args[0])))
    monkeypatch.setattr(passes, "ROWS", 5)
    torch.testing.assert_close(vae.encode(x), code, rtol=1e-12, atol=0)
    assert rows == [5, 5, 5, 2]
    torch.testing.assert_close(vae.decode(code), image, rtol=1e-12, atol=0)
    torch.testing.assert_close(vae.reconstruct(x), image, rtol=1e-12, atol=0)


def test_samples_come_in_passes_of_rows_with_what_all_data_share_drawn_once(monkeypatch):
    vae = pv.build_vae((6,), 2, prior="beta-spike-slab", hidden=(3,), num_data=100)
    rows, shared = [], []
    vae.likelihood.network.register_forward_hook(lambda _, args, __: rows.append(len(args[0])))
    forward = vae.prior.forward
    monkeypatch.setattr(vae.prior, "forward", lambda s: shared.append(s) or forward(s))
    monkeypatch.setattr(passes, "ROWS", 5)
    assert vae.sample(12).shape == (12, 6)
    assert rows == [5, 5, 2]
    assert all(torch.equal(s, shared[0]) for s in shared)
    assert len(vae.sample(12).unique(dim=0)) > 5  # passes are not copies of one another
