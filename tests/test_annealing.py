"""Annealed importance sampling against log p(x), from guides that importance sampling cannot use."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import data, linear_gaussian, marginal, set_bad_start, set_exact_posterior
from test_spike_slab import SCALE, log_joint_of_patterns, model_and_data

import pyrovae as pv
from pyrovae import guides, likelihoods, metrics, priors
from pyrovae.distributions import RectifiedNormal, SpikeSlab

ais = metrics.annealed_importance_sampling


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def linear_and_gaussian():
    vae = linear_gaussian(guides.Normal)
    exact = linear_gaussian()
    set_exact_posterior(exact)
    with torch.no_grad():
        vae.posterior.head.weight.copy_(0.6 * exact.posterior.head.weight[:6])
        vae.posterior.head.bias.fill_(-0.5)
    x = data(vae, 4)
    return vae, x, marginal(vae).log_prob(x)


def spikes_and_slabs():
    vae, x = model_and_data("open", num=4)
    with torch.no_grad():
        vae.posterior.logits.zero_()
        vae.posterior.loc.zero_()
        vae.posterior.raw.fill_(math.log(SCALE))
    return vae, x, log_joint_of_patterns(vae, x).logsumexp(0)


def repeated(estimate, x, log_p, repeats):
    """The error of the estimate of log p(x) by the mean of p over repeats, and its standard error, in nats."""
    ratio = (estimate(x.repeat(repeats, 1)).reshape(repeats, -1) - log_p).detach().exp()
    error = ratio.var(0).div(repeats).sum().sqrt() / ratio.shape[1]
    return ratio.mean(0).log().mean().item(), error.item()


# --- against log p(x) -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "num", "leapfrog"), [(linear_and_gaussian, 100, 3), (spikes_and_slabs, 60, 2)])
def test_it_is_log_p_from_a_bad_guide(model, num, leapfrog):
    """4 data, 8 repeats of 128 chains: within 0.02 nats and 4 standard errors of at most 0.02 nats.

    A false alarm comes once in 16,000 seeds.
    """
    vae, x, log_p = model()
    torch.manual_seed(0)
    gap = (log_p - metrics.elbo(vae, x).elbo).mean()
    assert gap > 10, "the guide is bad"
    difference, error = repeated(lambda x: ais(vae, x, num, 128, leapfrog), x, log_p, 8)
    assert error < 0.02
    assert abs(difference) < 0.02 + 4 * error


def test_it_is_a_bound_in_expectation_and_unbiased_in_p():
    """Few temperatures, few chains and a pilot of 4 of them: the mean of p over 2,000 repeats within 5 standard errors.

    It would not be, were the step sizes those that the chains themselves adapt; and log p lies below, by far more than
    an error.
    """
    vae, x, log_p = linear_and_gaussian()
    x, log_p = x[:2], log_p[:2].detach()
    torch.manual_seed(1)
    estimate = ais(vae, x.repeat(2000, 1), 12, 4, 2).reshape(2000, 2) - log_p
    ratio = estimate.exp()
    assert ((ratio.mean(0) - 1).abs() <= 5 * ratio.std(0) / 2000**0.5).all()
    assert (ratio.std(0) / 2000**0.5 < 0.1).all()
    assert (estimate.mean(0) < -5 * estimate.std(0) / 2000**0.5).all()


def test_one_temperature_is_importance_sampling():
    vae, x, _ = spikes_and_slabs()
    torch.manual_seed(2)
    expected = metrics.log_likelihood(vae, x, 100)
    torch.manual_seed(2)
    torch.testing.assert_close(ais(vae, x, 1, 100, 1), expected)


@pytest.mark.parametrize("options", [{}, {"schedule": "linear"}, {"start": "prior"}])
def test_exact_posterior_needs_no_luck(options):
    """From the posterior every weight is p(x), whatever the chains do; from the prior 4 errors of 0.05 at most."""
    vae = linear_gaussian()
    set_exact_posterior(vae)
    x = data(vae, 3)
    torch.manual_seed(3)
    if options != {"start": "prior"}:
        torch.testing.assert_close(ais(vae, x, 4, 3, 2, **options), marginal(vae).log_prob(x))
        return
    difference, error = repeated(lambda x: ais(vae, x, 60, 100, 5, **options), x, marginal(vae).log_prob(x), 8)
    assert abs(difference) < 4 * error
    assert error < 0.05
    delta = pv.VAE(vae.prior, vae.likelihood, guides.Delta(vae.posterior.network, 3).double())
    assert torch.isfinite(ais(delta, x, 5, 2, 2, **options)).all(), "no guide is needed"


def test_more_temperatures_come_nearer():
    vae = linear_gaussian()
    set_bad_start(vae.posterior)
    with torch.no_grad():
        vae.posterior.head.weight *= 0.3
    x = data(vae, 6)
    torch.manual_seed(4)
    log_p = marginal(vae).log_prob(x)
    gaps = [(log_p - ais(vae, x, num, 20, 3)).mean().item() for num in (1, 5, 40)]
    assert gaps[0] > gaps[1] + 1 > gaps[2] + 2


# --- other spaces, against quadrature -------------------------------------------------------------------------------


def one_number(prior, guide, decode=lambda z: z):
    """x|z ~ N(decode(z), 0.5^2) and one z for each datum, with the guide the same for all x."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", prior.expand([len(x)]) if not prior.event_shape else prior)
            pyro.sample("x", dist.Normal(decode(z), 0.5), obs=x)

    def sample(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", guide.expand([len(x)]) if not guide.event_shape else guide)

    return model, sample


def integral(prior, nodes, weights, x, decode=lambda z: z):
    likelihood = dist.Normal(decode(nodes), 0.5).log_prob(x[:, None])
    return (likelihood + prior.log_prob(nodes) + weights.log()).logsumexp(1)


def trapezoid(low, high):
    nodes = torch.linspace(low, high, 200_001)
    return nodes, torch.full_like(nodes, (high - low) / 200_000)


one = torch.ones(())
SPACES = {
    "half line": (dist.Gamma(2 * one, one), dist.LogNormal(-one, 0.7 * one), trapezoid(1e-9, 60)),
    "interval": (dist.Beta(2 * one, 2 * one), dist.Beta(6 * one, one), trapezoid(1e-9, 1 - 1e-9)),
    "rectified": (RectifiedNormal(-0.5 * one, one), RectifiedNormal(-one, 0.8 * one), trapezoid(1e-9, 12)),
    "spike": (SpikeSlab(-one, dist.StudentT(3 * one)), SpikeSlab(-2 * one, dist.Normal(0.3 * one, 0.8 * one)),
              trapezoid(-40, 40.0003)),
}  # fmt: skip


@pytest.mark.parametrize("name", SPACES)
def test_a_support_that_is_not_the_line_has_its_jacobian_and_its_atom(name):
    """Three data by quadrature, 16 repeats of 128 chains: 12 numbers within 5 standard errors of less than 0.03."""
    prior, guide, (nodes, weights) = SPACES[name]
    x = torch.tensor([0.05, 0.6, 1.2])
    log_p = integral(prior, nodes, weights, x)
    if name in ("rectified", "spike"):
        at_zero = prior.log_prob(torch.zeros(())) + dist.Normal(0.0, 0.5).log_prob(x)
        log_p = torch.logaddexp(log_p, at_zero)
    prior, guide = (d.expand([1]).to_event(1) if name in ("rectified", "spike") else d for d in (prior, guide))
    pair = one_number(prior, guide, (lambda z: z[..., 0]) if prior.event_shape else (lambda z: z))
    torch.manual_seed(5)
    ratio = (ais(pair, x.repeat(16), 30, 128, 3).reshape(16, 3) - log_p).exp()
    error = ratio.std(0) / 4
    assert (error < 0.03).all()
    assert ((ratio.mean(0) - 1).abs() <= 5 * error).all()
    assert (log_p - metrics.elbo(pair, x, 2000).elbo).max() > 0.4


def test_the_simplex_by_quadrature():
    """Two proportions, of which the first is read: a Dirichlet prior is a Beta law of it."""
    prior, guide = dist.Dirichlet(torch.tensor([2.0, 2.0])), dist.Dirichlet(torch.tensor([6.0, 1.0]))
    nodes, weights = SPACES["interval"][2]
    x = torch.tensor([0.05, 0.8, 1.6])
    log_p = integral(SPACES["interval"][0], nodes, weights, x)
    torch.manual_seed(6)
    estimate = ais(one_number(prior, guide, lambda z: z[..., 0]), x.repeat(16), 30, 128, 3)
    ratio = (estimate.reshape(16, 3) - log_p).exp()
    assert ((ratio.mean(0) - 1).abs() <= 5 * ratio.std(0) / 4).all()
    assert (ratio.std(0) / 4 < 0.03).all()


def test_two_sites_of_which_the_second_follows_the_first():
    """A variance and a value, as of a hierarchical prior, and the KL of neither in closed form: by quadrature."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            v = pyro.sample("v", dist.Exponential(x.new_ones(())))
            z = pyro.sample("z", dist.Normal(0.0, v.sqrt()))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            v = pyro.sample("v", dist.LogNormal(x.new_full((), -1.0), 0.5))
            pyro.sample("z", dist.Normal(0.0, 0.5 * v.sqrt()))

    x = torch.tensor([0.0, 1.5])
    nodes, weights = trapezoid(1e-6, 60)
    marginal_of_x = dist.Normal(0.0, (nodes + 0.25).sqrt()).log_prob(x[:, None])
    log_p = (marginal_of_x - nodes + weights.log()).logsumexp(1)
    torch.manual_seed(7)
    ratio = (ais((model, guide), x.repeat(16), 40, 128, 4).reshape(16, 2) - log_p).exp()
    assert ((ratio.mean(0) - 1).abs() <= 5 * ratio.std(0) / 4).all()
    assert (ratio.std(0) / 4 < 0.04).all()


def test_a_site_that_all_data_share_stays_and_is_predictive():
    """E_q(s) p(x|s) for a guide of s that is not its prior: N(0.5, 0.3^2 + 1 + 0.5^2), within 6 standard errors."""

    def model(x):
        s = pyro.sample("s", dist.Normal(0.0, 3.0))
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(s, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        pyro.sample("s", dist.Normal(x.new_full((), 0.5), 0.3))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x.new_full((), 0.5), 0.7))

    x = torch.tensor([-0.5, 1.5])
    torch.manual_seed(8)
    log_p = dist.Normal(0.5, math.sqrt(0.3**2 + 1 + 0.25)).log_prob(x)
    ratio = torch.stack([(ais((model, guide), x, 15, 500, 3) - log_p).exp() for _ in range(10)])
    assert ((ratio.mean(0) - 1).abs() <= 6 * ratio.std(0) / 10**0.5).all()
    assert (ratio.std(0) / 10**0.5 < 0.03).all()
    with pytest.raises(ValueError, match='start must be "guide" where all data share sites'):
        ais((model, guide), x, 3, 2, start="prior")


# --- what is refused, and what is left alone ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prior", ["bernoulli", "poisson", "categorical", "hyperspherical-uniform", "hard-concrete", "fan"]
)
def test_spaces_without_moves_are_refused(prior):
    torch.set_default_dtype(torch.float32)
    vae = pv.build_vae((6,), 4, prior=prior, hidden=(4,))
    with pytest.raises(ValueError, match=r"in which no chain moves here: use log_likelihood"):
        ais(vae, torch.zeros(3, 6), 3, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_temperatures": 0}, "num_temperatures must be a positive whole number, got 0"),
        ({"num_chains": 2.5}, "num_chains must be a positive whole number, got 2.5"),
        ({"num_leapfrog": -1}, "num_leapfrog must be a positive whole number, got -1"),
        ({"schedule": "cosine"}, "schedule must be sigmoid or linear, got 'cosine'"),
        ({"start": "z"}, "start must be guide or prior, got 'z'"),
    ],
)
def test_bad_arguments_are_named(options, message):
    vae = linear_gaussian()
    with pytest.raises(ValueError, match=message):
        ais(vae, data(vae, 2), **options)


def test_points_and_laws_of_whole_codes_are_refused():
    vae = linear_gaussian()
    delta = pv.VAE(vae.prior, vae.likelihood, guides.Delta(vae.posterior.network, 3).double())
    with pytest.raises(ValueError, match="is a point"):
        ais(delta, data(vae, 2), 3, 2)
    guide = guides.SpikeSlab(pv.nn.MLP(6, [4]), 3)
    vamp = priors.Vamp(guide, 2, inputs=data(vae, 2))
    spikes = pv.VAE(vamp, likelihoods.Normal(pv.nn.MLP(3, [4], 6)), guide)
    with pytest.raises(ValueError, match="site 'z' of the start has no law of each coordinate"):
        ais(spikes, data(vae, 2), 3, 2, start="prior")
    assert torch.isfinite(ais(spikes, data(vae, 2), 3, 2)).all()


def test_no_weight_is_moved_and_no_gradient_kept():
    torch.set_default_dtype(torch.float32)
    vae = pv.build_vae((6,), 3, prior="spike-slab", hidden=(4,))
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    got = ais(vae, torch.zeros(3, 6), 5, 1, 2)  # one chain, which has no dimension of its own
    assert got.shape == (3,)
    assert not got.requires_grad
    assert vae.training
    assert pyro.settings.get("validate_distributions_pyro")
    assert all(parameter.grad is None for parameter in vae.parameters())
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    assert np.isfinite(got.numpy()).all()
