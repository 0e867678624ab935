"""ELBO <= IWAE <= log p(x) on the linear-Gaussian VAE, with equality at the exact posterior; and fit finds it."""

import itertools
import math

import pyro
import pytest
import torch
from linear_gaussian import DIM, FEATURES, data, linear_gaussian, marginal, set_bad_start, set_exact_posterior
from pyro.infer import RenyiELBO, Trace_ELBO, TraceMeanField_ELBO

import pyrovae as pv
from pyrovae import guides, metrics


def test_every_bound_is_log_p_at_the_exact_posterior():
    vae = linear_gaussian()
    x = data(vae)
    set_exact_posterior(vae)
    log_p = marginal(vae).log_prob(x)
    bound = metrics.elbo(vae, x, num_samples=3)
    torch.testing.assert_close(bound.elbo, log_p, rtol=1e-5, atol=0)
    torch.testing.assert_close(bound.reconstruction - bound.kl, log_p, rtol=1e-5, atol=0)
    assert bound.kl_is_exact
    for num_samples in (1, 10):
        torch.testing.assert_close(metrics.log_likelihood(vae, x, num_samples), log_p, rtol=1e-5, atol=0)
    assert -Trace_ELBO().loss(vae.model, vae.guide, x) == pytest.approx(log_p.sum().item(), rel=1e-5)
    assert -RenyiELBO(num_particles=3).loss(vae.model, vae.guide, x) == pytest.approx(log_p.sum().item(), rel=1e-5)


GUIDES = [guides.Normal, guides.MultivariateNormal, guides.LowRankMultivariateNormal, guides.Laplace, guides.StudentT]


@pytest.mark.parametrize("guide", GUIDES)
def test_bounds_are_in_order_for_any_guide(guide):
    """The order holds in expectation. Each mean over 400 repeats of the data may stray by 4 standard errors, so one of
    the 15 comparisons raises a false alarm once in 2,000 seeds."""
    vae = linear_gaussian(guide)
    set_bad_start(vae.posterior)
    with torch.no_grad():
        vae.posterior.head.weight *= 0.3
    x = data(vae, 8)
    torch.manual_seed(0)
    log_p = marginal(vae).log_prob(x)
    repeated = x.repeat(400, 1)
    bounds = [metrics.elbo(vae, repeated, 1).elbo]
    bounds += [metrics.log_likelihood(vae, repeated, k) for k in (10, 1000)]
    bounds = [bound.reshape(400, 8) for bound in bounds] + [log_p.expand(400, 8)]
    for lower, upper in itertools.pairwise(bounds):
        difference = (upper - lower).mean(1)
        assert difference.mean() > -4 * difference.std() / 400**0.5
    assert bounds[2].mean() - bounds[0].mean() > 0.1, "the guide is far enough from the posterior to see a gap"


def test_elbo_is_log_p_less_the_gap():
    """E[ELBO] = log p(x) - KL(q || p(z|x)), known here; within 5 standard errors, a false alarm once in 10^6."""
    vae, exact = linear_gaussian(), linear_gaussian()
    set_bad_start(vae.posterior)
    set_exact_posterior(exact)
    x = data(vae, 10)
    torch.manual_seed(0)
    gap = torch.distributions.kl_divergence(vae.posterior.distribution(x), exact.posterior.distribution(x))
    estimate = torch.stack([metrics.elbo(vae, x, 500).elbo for _ in range(40)])
    error = estimate.mean(0) - (marginal(vae).log_prob(x) - gap).detach()
    assert (error.abs() <= 5 * estimate.std(0) / 40**0.5).all()


def test_bound_of_a_batch_is_the_bounds_of_its_rows(monkeypatch):
    """Whatever the chunks: at the exact posterior each value is free of noise."""
    vae = linear_gaussian()
    x = data(vae, 7)
    set_exact_posterior(vae)
    whole = metrics.log_likelihood(vae, x, 50)
    monkeypatch.setattr(metrics.draws, "CHUNK", 512 * 4)  # four passes' rows: two data, or draws, at a time
    torch.testing.assert_close(metrics.log_likelihood(vae, x, 50), whole, rtol=1e-9, atol=0)
    torch.testing.assert_close(metrics.log_likelihood(vae, x[2:3], 50), whole[2:3], rtol=1e-9, atol=0)
    torch.testing.assert_close(metrics.elbo(vae, x, 50).elbo, whole, rtol=1e-9, atol=0)


def test_chunks_hold_every_draw_of_every_row_and_are_bounded():
    for num_rows, num_samples, width in ((1, 1, 1), (10_000, 5000, 784), (50, 7, 10**7), (3, 10**6, 2)):
        x = torch.empty(1, width).expand(num_rows, width)
        seen = 0
        for rows, draws in metrics.draws.chunks(x, num_samples):
            assert sum(draws) == num_samples
            assert len(rows) * max(draws) * max(width, 512) <= max(metrics.draws.CHUNK, max(width, 512))
            seen += len(rows)
        assert seen == num_rows


@pytest.mark.parametrize("loss", [Trace_ELBO, TraceMeanField_ELBO])
def test_fit_finds_the_posterior_from_a_bad_start(loss):
    vae = linear_gaussian()
    set_bad_start(vae.posterior)
    x = data(vae, 256)
    log_p = marginal(vae).log_prob(x).mean()
    assert log_p - metrics.elbo(vae, x).elbo.mean() > 10
    decoder = vae.likelihood.network.linear.weight.clone()
    objective = loss(num_particles=16, vectorize_particles=True, max_plate_nesting=1)
    for lr in (5e-2, 5e-3, 1e-3):
        optim = pyro.optim.Adam({"lr": lr})
        pv.fit(vae, x, epochs=400, batch_size=256, optim=optim, loss=objective, seed=0, progress=False)
    gap = log_p - metrics.elbo(vae, x).elbo.mean()
    assert 0 <= gap < 1e-2
    assert torch.equal(vae.likelihood.network.linear.weight, decoder), "what is frozen stays"


def test_two_plain_functions_are_measured_alike():
    """(model, guide) by hand, with the exact posterior of x|z ~ N(z, 1): z|x ~ N(x/2, 1/2)."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", pyro.distributions.Normal(x.new_zeros(1), x.new_ones(1)).to_event(1))
            pyro.sample("x", pyro.distributions.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", pyro.distributions.Normal(x / 2, math.sqrt(0.5)).to_event(1))

    x = torch.randn(5, 1).double()
    log_p = torch.distributions.Normal(0.0, math.sqrt(2.0)).log_prob(x)[:, 0]
    torch.testing.assert_close(metrics.elbo((model, guide), x, 2).elbo, log_p)
    torch.testing.assert_close(metrics.log_likelihood((model, guide), x, 7), log_p)


def test_kl_is_sampled_and_said_to_be_where_no_form_is_known():
    vae = pv.build_vae((FEATURES,), DIM, prior="laplace", likelihood="normal", guide="multivariate-normal", hidden=(8,))
    x = torch.randn(20, FEATURES)
    torch.manual_seed(0)
    bound = metrics.elbo(vae, x, 2000)
    assert not bound.kl_is_exact
    q, p = vae.posterior.distribution(x), vae.prior.distribution()
    z = q.sample((20_000,))
    # two estimates of one number, 20 data: 6 standard errors of the smaller, a false alarm once in 10^7
    log_ratio = q.log_prob(z) - p.log_prob(z)
    assert ((bound.kl - log_ratio.mean(0)).abs() <= 6 * log_ratio.std(0) * (1 / 2000 + 1 / 20_000) ** 0.5).all()


def test_a_point_has_no_likelihood():
    vae = pv.build_vae((FEATURES,), DIM, guide="delta", likelihood="normal", hidden=(8,))
    x = torch.randn(4, FEATURES)
    with pytest.raises(ValueError, match="is a point"):
        metrics.log_likelihood(vae, x, 5)
    numbers = metrics.evaluate(vae, x, 5)
    assert numbers["elbo"] is None
    assert numbers["log_likelihood"] is None
    z = vae.encode(x)
    assert numbers["reconstruction"] == pytest.approx(vae.likelihood(z).log_prob(x).mean().item(), rel=1e-4)
    assert numbers["kl"] == pytest.approx(-vae.prior.distribution().log_prob(z).mean().item(), rel=1e-4)


def test_active_units_and_squared_error():
    vae = linear_gaussian()
    set_exact_posterior(vae)
    x = data(vae, 500)
    assert metrics.active_units(vae, x).tolist() == [True] * DIM
    with torch.no_grad():
        vae.posterior.head.weight[1] = 0.0  # the second coordinate no longer follows x
    assert metrics.active_units(vae, x).tolist() == [True, False, True]
    expected = ((vae.likelihood.network(vae.encode(x)) - x) ** 2).mean(1)
    torch.testing.assert_close(metrics.mean_squared_error(vae, x), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda vae, x: metrics.log_likelihood(vae, x, 0), "num_samples must be at least 1"),
        (lambda vae, x: metrics.elbo(vae, x[:0]), "no rows"),
        (lambda vae, x: metrics.elbo(vae, x[:, :4]), "shape"),
    ],
)
def test_bad_input_is_named(call, message):
    vae = pv.build_vae((FEATURES,), DIM, likelihood="normal", hidden=(8,))
    with pytest.raises(ValueError, match=message):
        call(vae, torch.randn(3, FEATURES))


def test_a_datum_that_is_masked_has_no_likelihood():
    """The second row is not seen: its posterior is the prior, and log p(x) is 0."""
    seen = torch.tensor([True, False])

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", pyro.distributions.Normal(x.new_zeros(()), 1.0))
            with pyro.poutine.mask(mask=seen):
                pyro.sample("x", pyro.distributions.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            scale = torch.where(seen, math.sqrt(0.5), 1.0)
            pyro.sample("z", pyro.distributions.Normal(torch.where(seen, x / 2, 0.0), scale))

    x = torch.tensor([1.0, 5.0])
    log_p = torch.distributions.Normal(0.0, math.sqrt(2.0)).log_prob(x) * seen
    torch.testing.assert_close(metrics.log_likelihood((model, guide), x, 5), log_p)
    torch.testing.assert_close(metrics.elbo((model, guide), x, 5).elbo, log_p)
