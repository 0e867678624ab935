"""The learned priors: each density against one worked out by hand, draws, gradients, and what training does to them.

Stochastic tests fix their seed; their false-alarm rate, had the seed been drawn, stands beside each.
"""

import copy

import numpy as np
import pyro
import pytest
import scipy.stats as st
import torch
from scipy.integrate import dblquad
from scipy.special import log_softmax, logsumexp, softmax

import pyrovae as pv
from pyrovae import guides, likelihoods, priors
from pyrovae.nn import MLP


def by_hand(prior, z):
    """log p(z) of a Mixture: components first, each over all coordinates, and then their sum."""
    logits, loc = prior.logits.detach().numpy(), prior.loc.detach().numpy()
    scale = np.logaddexp(0, prior.scale.raw.detach().numpy())
    each = np.stack([st.norm(m, s).logpdf(z).sum(-1) for m, s in zip(loc, scale, strict=True)], -1)
    return logsumexp(each + log_softmax(logits), axis=-1)


def mixture(dim, num_components=3):
    torch.manual_seed(0)
    prior = priors.Mixture(dim, num_components).double()
    with torch.no_grad():
        prior.logits.normal_()
        prior.scale.raw.normal_()
    return prior


def check_mass(d):
    """Over a plane that leaves out less than 1e-9 of it."""

    def density(b, a):
        return np.exp(d.log_prob(torch.tensor([a, b], dtype=torch.float64)).item())

    assert dblquad(density, -12, 12, -12, 12, epsabs=1e-6, epsrel=1e-6)[0] == pytest.approx(1.0, abs=1e-5)


def check_moments(draws, mean, covariance):
    """Within 6 standard errors for each number: a false alarm once in 10^7."""
    products = (draws - mean)[:, :, None] * (draws - mean)[:, None, :]
    for values, expected in ((draws, mean), (products, covariance)):
        assert ((values.mean(0) - expected).abs() <= 6 * values.std(0) / len(draws) ** 0.5).all()


def check_gradients(prior, z):
    """A finite gradient, nowhere all zero, for each parameter."""
    prior.distribution().log_prob(z).sum().backward()
    for name, parameter in prior.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def check_training(prior_of, named, **options):
    """30 epochs on the digits under Trace_ELBO move every learned parameter and better the held-out bound by 10 nats.

    The bound's standard error over the 180 digits is about 0.3 nats.
    """
    torch.manual_seed(0)
    data = pv.data.digits()
    guide = guides.Normal(MLP(64, [32]), 4)
    vae = pv.VAE(prior_of(guide, data), likelihoods.Bernoulli(MLP(4, [32], 64)), guide)
    untrained = pv.metrics.elbo(vae, data.test)
    assert not untrained.kl_is_exact
    before = copy.deepcopy(vae.state_dict())
    pv.fit(vae, data, epochs=30, batch_size=128, seed=0, progress=False, optim=pyro.optim.Adam({"lr": 3e-3}), **options)
    assert (pv.metrics.elbo(vae, data.test).elbo - untrained.elbo).mean() > 10
    moved = {name for name, value in vae.prior.named_parameters() if not torch.equal(value, before[f"prior.{name}"])}
    assert moved == {name for name, _ in vae.prior.named_parameters()} >= named
    return vae, before


def test_mixture_is_over_components_and_not_per_coordinate():
    prior = mixture(4)
    z = torch.randn(50, 4).double() * 3
    np.testing.assert_allclose(prior.distribution().log_prob(z).detach().numpy(), by_hand(prior, z), rtol=1e-10)
    # two clusters in opposite corners: the others are empty, where one per coordinate has half its mass
    prior = priors.Mixture(2, 2).double()
    with torch.no_grad():
        prior.loc.copy_(torch.tensor([[-5.0, -5.0], [5.0, 5.0]]))
    d = prior.distribution()
    corner, empty = d.log_prob(torch.tensor([[5.0, 5.0], [5.0, -5.0]]).double())
    assert corner.item() == pytest.approx(np.log(0.5) - np.log(2 * np.pi), abs=1e-6)
    assert empty.item() == pytest.approx(-50 - np.log(2 * np.pi), abs=1e-6)
    torch.manual_seed(0)
    draws = d.sample((2000,))
    assert (draws[:, 0] * draws[:, 1] > 0).all(), "P(a Normal at 5 below 0) is 3e-7"
    assert 800 < (draws[:, 0] > 0).sum() < 1200, "9 standard deviations"


def test_mixture_has_mass_one_and_its_draws_follow_it():
    prior = mixture(2)
    check_mass(prior.distribution())
    weights = torch.tensor(softmax(prior.logits.detach().numpy()))
    loc, scale = prior.loc.detach(), prior.scale().detach()
    mean = weights @ loc
    covariance = torch.diag(weights @ scale**2) + torch.einsum("k,ki,kj->ij", weights, loc - mean, loc - mean)
    check_moments(prior.distribution().sample((100_000,)), mean, covariance)


def test_mixture_starts_spread_by_the_seed():
    prior, again = mixture(200, 50), mixture(200, 50)
    assert torch.equal(prior.loc, again.loc)
    assert abs(prior.loc.mean()) < 0.05, "5 standard errors of 10,000 draws"
    assert abs(prior.loc.std() - 1) < 0.035
    assert (priors.Mixture(3).scale() - 1).abs().max() < 1e-6
    check_gradients(mixture(3), torch.randn(20, 3).double())


def test_mixture_trains():
    check_training(lambda guide, data: priors.Mixture(4), {"logits", "loc", "scale.raw"})


@pytest.mark.parametrize("name", ["mixture"])
def test_a_saved_run_is_loaded_without_data(name, tmp_path):
    torch.manual_seed(0)
    x = torch.bernoulli(torch.full((20, 6), 0.3))
    vae = pv.build_vae((6,), 2, prior=name, hidden=(5,))
    pv.fit(vae, x, epochs=2, progress=False)
    pv.save(vae, tmp_path)
    loaded = pv.load(tmp_path)
    z = torch.randn(7, 2)
    assert torch.equal(loaded.prior.distribution().log_prob(z), vae.prior.distribution().log_prob(z))
    assert loaded.config == vae.config


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: priors.Mixture(0), "dim must be a positive whole number, got 0"),
        (lambda: priors.Mixture(2, 0), "num_components must be a positive whole number, got 0"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
