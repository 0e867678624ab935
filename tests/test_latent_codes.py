"""Which code of a datum is meant, and how often its coordinates are not zero: closed forms, and draws of every pair."""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.stats as st
import torch
from cases import Linear, double
from scipy.special import expit

import pyrovae as pv
from pyrovae import build, guides, likelihoods, metrics, priors
from pyrovae.metrics.latent_codes import guide_draws, nonzero_probability

D = 4
EXACT = {"spike-slab", "thresholded-laplace", "thresholded-normal", "rectified-normal", "hard-concrete"}
EXACT |= {"bernoulli", "poisson", "categorical"}
WITH_ATOMS = {*EXACT, "beta-spike-slab", "beta-bernoulli"}


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def made(prior, guide=None, num=6):
    torch.manual_seed(0)
    x = torch.bernoulli(torch.full((num, 5), 0.5))
    return pv.build_vae((5,), D, prior=prior, guide=guide, hidden=(8,), inputs=x, num_data=num), x


def by_hand(prior, guide, features):
    """A VAE whose guide's head returns the datum."""
    vae = pv.VAE(prior, likelihoods.Normal(pv.nn.Dictionary(prior.dim, 3), scale=1.0), guide)
    with torch.no_grad():
        vae.posterior.head.weight.copy_(torch.eye(features))
        vae.posterior.head.bias.zero_()
    return vae


def spike_slab(active=0.2):
    prior = priors.SpikeSlab(2, active)
    prior.dim = 2
    return by_hand(prior, guides.SpikeSlab(Linear(6), 2), 6)


X = double([[1.0, -2.0, 0.3, 0.1, 3.0, -1.0], [0.5, 4.0, 0.0, 0.0, -2.0, 0.7], [0.2, 0.3, 1.0, 1.0, 0.4, -5.0]])
PROBS = expit(X[:, 4:].numpy())


def test_the_three_codes_of_a_spike_and_slab():
    vae = spike_slab()
    loc = X[:, :2]
    torch.testing.assert_close(metrics.codes(vae, X), double([[1.0, 0.0], [0.0, 4.0], [0.2, 0.0]]))
    torch.testing.assert_close(metrics.codes(vae, X, "mean"), loc * torch.tensor(PROBS))
    torch.manual_seed(0)
    draws = torch.stack([metrics.codes(vae, X, "sample") for _ in range(2000)])
    share = (draws != 0).double().mean(0)
    # 6 standard errors of 6 numbers: a false alarm once in 10^8
    assert (abs(share.numpy() - PROBS) < 6 * np.sqrt(PROBS * (1 - PROBS) / 2000)).all()
    torch.manual_seed(0)
    assert torch.equal(metrics.codes(vae, X, "sample"), draws[0])


def test_occupancy_of_a_spike_and_slab_is_that_of_its_gates():
    got = metrics.spike_occupancy(spike_slab(0.2), X)
    torch.testing.assert_close(got.posterior, torch.tensor(PROBS.mean(0)))
    torch.testing.assert_close(got.prior, torch.full((2,), 0.2))
    assert got.exact
    assert got.posterior.sum().item() == pytest.approx(PROBS.sum(1).mean())
    shut, open_ = X.clone(), X.clone()
    shut[:, 4:], open_[:, 4:] = -60.0, 60.0
    assert 0 < metrics.spike_occupancy(spike_slab(), shut).posterior.max() < 1e-25, "no digit is lost near zero"
    assert metrics.spike_occupancy(spike_slab(), open_).posterior.tolist() == [1.0, 1.0]


def softplus(x):
    return np.logaddexp(0.0, x) + guides.SCALE_FLOOR


def test_occupancy_of_other_laws_is_their_closed_form():
    x = X[:, :4]
    loc, scale = x[:, :2].numpy(), softplus(x[:, 2:].numpy())
    cases = [
        (priors.RectifiedNormal(2, -1.0), guides.RectifiedNormal, st.norm.cdf(loc / scale), st.norm.cdf(-1.0)),
        (priors.ThresholdedLaplace(2, 1.5), guides.ThresholdedLaplace, np.exp(-0.5 / scale), math.exp(-1.5)),
        (priors.ThresholdedNormal(2, 1.5), guides.ThresholdedNormal, 2 * st.norm.sf(0.5 / scale), 2 * st.norm.sf(1.5)),
    ]
    for prior, guide, posterior, expected in cases:
        prior.dim = 2
        got = metrics.spike_occupancy(by_hand(prior, guide(Linear(4), 2), 4), x)
        np.testing.assert_allclose(got.posterior, posterior.mean(0), rtol=1e-9)
        np.testing.assert_allclose(got.prior, [expected] * 2, rtol=1e-9)
        assert got.exact
    prior = priors.HardConcrete(2, 0.3)
    prior.dim = 2
    got = metrics.spike_occupancy(by_hand(prior, guides.HardConcrete(Linear(6), 2, 0.5), 6), X)
    np.testing.assert_allclose(got.posterior, expit(X[:, 4:].numpy() + 0.5 * math.log(11)).mean(0), rtol=1e-9)
    np.testing.assert_allclose(got.prior, [0.3, 0.3], rtol=1e-9)


@pytest.mark.parametrize("name", build.PRIORS)
def test_probabilities_and_means_are_those_of_draws(name):
    """5,000 draws of 24 numbers, twice, within 6 standard errors: a false alarm once in 10^7 for each case."""
    vae, x = made(name)
    draws = guide_draws(vae, x, 5_000)
    assert draws.shape == (5_000, 6, D)
    probability, exact = nonzero_probability(vae, x, 500)
    assert exact == (name in {*EXACT, "beta-spike-slab", "beta-bernoulli"})
    share = (draws != 0).double().mean(0)
    variance = probability * (1 - probability) * (1 / 5_000 + (0 if exact else 1 / 500))
    assert ((share - probability).abs() <= 6 * variance.sqrt() + 1e-12).all()
    assert (probability.min() == 1.0) == (name not in {*WITH_ATOMS, "fan"})
    try:
        mean, error = metrics.codes(vae, x, "mean"), 0.0
    except ValueError as caught:
        assert str(caught).startswith("num_samples must be given: guide")  # noqa: PT017  # both ways are right
        mean, error = metrics.codes(vae, x, "mean", 5_000), draws.std(0) / 5_000**0.5
    assert ((draws.mean(0) - mean).abs() <= 6 * (draws.std(0) / 5_000**0.5 + error) + 1e-12).all()


@pytest.mark.parametrize("name", sorted(WITH_ATOMS))
def test_the_activity_of_a_prior_is_that_of_its_draws(name):
    """5,000 draws within 6 standard errors, of 4 coordinates: a false alarm once in 10^8 for each case."""
    vae, x = made(name)
    got = metrics.spike_occupancy(vae, x, 4000)
    shared = hasattr(vae.prior, "shared")
    assert got.exact != shared
    draws = torch.cat([vae.sample_prior(1) for _ in range(4000)]) if shared else vae.sample_prior(5_000)
    share = (draws != 0).double().mean(0)
    error = (2 if shared else 1) * (got.prior * (1 - got.prior) / len(draws)).sqrt()
    assert ((share - got.prior).abs() <= 6 * error + 1e-12).all()


def test_a_mixture_of_spikes_and_slabs_is_counted():
    """The prior is a mixture of the guide's posteriors: 4 weighted gates within 6 standard errors of 10,000 draws."""
    torch.manual_seed(0)
    x = torch.bernoulli(torch.full((6, 5), 0.5))
    vae = pv.build_vae((5,), D, prior="vamp", guide="spike-slab", hidden=(8,), inputs=x, num_components=3)
    got = metrics.spike_occupancy(vae, x, 10_000)
    gates = vae.posterior.distribution(vae.prior.inputs()).base_dist.probs.mean(0).detach()
    assert ((got.prior - gates).abs() < 6 * (gates * (1 - gates) / 10_000).sqrt()).all()
    assert not got.exact


class Unknown(dist.Normal):
    """Zero with probability 0.7, by a law that does not say so."""

    def rsample(self, sample_shape=()):
        z = super().rsample(sample_shape)
        return z * torch.bernoulli(torch.full_like(z, 0.3))


def test_a_law_that_is_not_known_is_counted_from_draws():
    """30,000 draws within 6 standard errors: a false alarm once in 10^8."""

    class Guide(guides.Normal):
        def distribution(self, x):
            return Unknown(x[:, :2], torch.ones(2)).to_event(1)

    vae = pv.VAE(priors.Normal(2), likelihoods.Normal(pv.nn.Dictionary(2, 3), scale=1.0), Guide(Linear(3), 2))
    torch.manual_seed(0)
    got = metrics.spike_occupancy(vae, X[:, :3], 10_000)
    assert ((got.posterior - 0.3).abs() < 6 * (0.21 / 30_000) ** 0.5).all()
    assert (got.prior.tolist(), got.exact) == ([1.0, 1.0], False)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda vae: metrics.codes(vae, X, "gate"), "kind must be one of encode, mean, sample, got 'gate'"),
        (lambda vae: metrics.codes(vae, X[:0]), "x has no rows"),
        (lambda vae: metrics.codes(vae, X, "mean", 0), "num_samples must be at least 1, got 0"),
        (lambda vae: metrics.spike_occupancy(vae, X[:0]), "x has no rows"),
        (lambda vae: metrics.spike_occupancy(vae, X, 0), "num_samples must be at least 1, got 0"),
    ],
)
def test_what_is_wrong_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call(spike_slab())


def test_a_guide_that_misses_a_site_is_refused():
    vae, x = made("hard-concrete", "delta")
    with pytest.raises(ValueError, match="the guide samples the sites"):
        metrics.spike_occupancy(vae, x)
