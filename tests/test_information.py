"""Bits, rate and distortion, and the information of codes, from both sides."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import data, linear_gaussian, marginal, set_exact_posterior

import pyrovae as pv
from pyrovae import guides, metrics


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# --- bits -----------------------------------------------------------------------------------------------------------


def test_uniform_grey_values_have_eight_bits():
    """256 levels of equal probability, and the same image dequantised: a density of 1 on the unit cube."""
    discrete = torch.full((3,), -784 * math.log(256.0))
    torch.testing.assert_close(metrics.bits_per_dimension(discrete, 784), torch.full((3,), 8.0))
    torch.testing.assert_close(metrics.bits_per_dimension(torch.zeros(3), 784, levels=256), torch.full((3,), 8.0))
    coin = torch.tensor(10 * math.log(0.5))
    assert metrics.bits_per_dimension(coin, 10).item() == pytest.approx(1.0)
    assert metrics.bits_per_dimension(coin, 5).item() == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_dimensions": 0}, "num_dimensions must be a positive whole number, got 0"),
        ({"num_dimensions": 4, "levels": 0.5}, "levels must be a positive whole number, got 0.5"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        metrics.bits_per_dimension(torch.zeros(2), **options)


def test_rate_and_distortion_are_the_closed_forms():
    """KL of two Normals, and of a linear decoder the expected squared error; D within 5 standard errors of 4,000."""
    vae = linear_gaussian(guides.Normal)
    x = data(vae, 10)
    q = vae.posterior.distribution(x).base_dist
    rate = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(1)
    linear = vae.likelihood.network.linear
    residual = ((x - linear(q.loc)) ** 2).sum(1) + (q.scale**2 @ linear.weight.T**2).sum(1)
    distortion = residual / (2 * 0.4**2) + 3 * math.log(2 * math.pi * 0.4**2)
    torch.manual_seed(0)
    got = [metrics.rate_distortion(vae, x, 400) for _ in range(10)]
    torch.testing.assert_close(got[0].rate, rate)
    estimates = torch.stack([terms.distortion for terms in got])
    assert abs((estimates.mean(0) - distortion).mean()) <= 5 * estimates.mean(1).std() / 10**0.5
    torch.testing.assert_close(estimates.mean(0), distortion, rtol=0.05, atol=0)
    set_exact_posterior(vae := linear_gaussian())
    terms = metrics.rate_distortion(vae, x, 3)
    torch.testing.assert_close(-terms.rate - terms.distortion, marginal(vae).log_prob(x), rtol=1e-5, atol=0)
    point = pv.VAE(vae.prior, vae.likelihood, guides.Delta(vae.posterior.network, 3).double())
    for measure in (metrics.rate_distortion, metrics.mutual_information):
        with pytest.raises(ValueError, match="site 'z' of the guide is a point"):
            measure(point, x)


# --- information ----------------------------------------------------------------------------------------------------


def normals(spread, scale=0.5, shared=0.0):
    """q(z|x) = N(spread * x + s, scale^2) under N(s, 1), with s shared by all data."""

    def model(x):
        s = pyro.sample("s", dist.Normal(0.0, 1.0)) if shared else 0.0
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()) + s, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        s = pyro.sample("s", dist.Normal(torch.zeros(()), shared)) if shared else 0.0
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(spread * x + s, scale))

    return model, guide


def by_quadrature(x, spread, scale):
    """I(x; z) and KL(q(z) || p(z)) of those Normals by the trapezoid rule."""
    z = torch.linspace(-60, 60, 60_001)
    log_q = torch.distributions.Normal(spread * x[:, None], scale).log_prob(z)
    log_mean = log_q.logsumexp(0) - math.log(len(x))
    step = z[1] - z[0]
    information = (log_q.exp() * (log_q - log_mean)).sum(1).mean() * step
    return information, (log_mean.exp() * (log_mean - torch.distributions.Normal(0.0, 1.0).log_prob(z))).sum() * step


@pytest.mark.parametrize("shared", [0.0, 2.0])
@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0, 6.0])
def test_information_is_that_of_quadrature(spread, shared):
    """Seven data from none to all of log 7: both parts within 5 standard errors of 30 estimates, of 0.01 nats at most.

    What all data share moves codes and prior alike, and so changes nothing.
    """
    x = torch.linspace(-3, 3, 7)
    information, marginal_kl = by_quadrature(x, spread, 0.5)
    torch.manual_seed(1)
    got = [metrics.mutual_information(normals(spread, shared=shared), x, 100) for _ in range(30)]
    assert got[0].cap == pytest.approx(math.log(7))
    for name, expected in (("mutual_information", information), ("marginal_kl", marginal_kl)):
        estimates = torch.stack([getattr(one, name) for one in got])
        assert estimates[0].shape == ()
        error = estimates.std() / 30**0.5
        assert abs(estimates.mean() - expected) <= 5 * error + 1e-7
        assert error < 0.01 * max(1.0, expected)
        if name == "mutual_information":
            assert (estimates <= math.log(7) + 1e-9).all()
    if spread == 0.0:
        assert abs(got[0].mutual_information) < 1e-12
    if spread == 6.0:
        assert got[0].mutual_information == pytest.approx(math.log(7), abs=1e-6)


def test_the_two_parts_are_the_mean_kl():
    """On one set of draws they add up to the mean of log q - log p, and that is the KL within 5 standard errors."""
    vae = pv.build_vae((6,), 4, prior="spike-slab", likelihood="normal", hidden=(8,)).double()
    x = torch.randn(30, 6, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(3)
    sums = torch.stack([sum(metrics.mutual_information(vae, x, 20)[:2]) for _ in range(30)])
    assert abs(sums.mean() - metrics.elbo(vae, x).kl.mean()) <= 5 * sums.std() / 30**0.5


@pytest.mark.parametrize("num_samples", [1, 5])
def test_chunks_change_nothing(monkeypatch, num_samples):
    """A guide of nearly no width: whatever is drawn, the information is log N to 1e-6 where the rows lie apart."""
    pair, x = normals(1.0, scale=1e-3), torch.arange(9.0)
    whole = metrics.mutual_information(pair, x, num_samples).mutual_information.item()
    assert whole == pytest.approx(math.log(9), abs=1e-9)
    monkeypatch.setattr(metrics.draws, "CHUNK", 512 * 2)
    again = metrics.mutual_information(pair, x, num_samples).mutual_information.item()
    assert again == pytest.approx(whole, abs=1e-9)
    assert metrics.mutual_information(pair, x[:1], 1).mutual_information == 0.0
    repeated = metrics.mutual_information(pair, x.repeat(2), num_samples)
    assert repeated.mutual_information.item() == pytest.approx(whole, abs=1e-9), "a row twice tells no more than once"


# --- the table ------------------------------------------------------------------------------------------------------


def test_evaluate_says_how_far_the_likelihood_is_to_be_trusted():
    torch.manual_seed(4)
    vae = linear_gaussian()
    x = data(vae, 30)
    bad = metrics.evaluate(vae, x, 200)
    assert bad["pareto_k"] > 0.5
    assert 1 <= bad["effective_sample_size"] < 50
    assert bad["bits_per_dimension"] == pytest.approx(-bad["log_likelihood"] / 6 / math.log(2))
    set_exact_posterior(vae)
    good = metrics.evaluate(vae, x, 200)
    assert good["pareto_k"] == 0.0
    assert good["effective_sample_size"] == pytest.approx(200)
    assert metrics.evaluate(vae, x, 5)["pareto_k"] is None
    point = pv.VAE(vae.prior, vae.likelihood, guides.Delta(vae.posterior.network, 3).double())
    numbers = metrics.evaluate(point, x, 5)
    assert [numbers[key] for key in ("effective_sample_size", "pareto_k", "bits_per_dimension")] == [None] * 3
