"""The scaled exponential integral, the horseshoe at its pole and in its tails, and draws of both densities."""

import numpy as np
import pytest
import torch
from cases import double
from scipy.integrate import quad
from scipy.special import exp1
from torch.distributions import kl_divergence

import pyrovae as pv
from pyrovae import distributions, priors
from pyrovae.distributions.expint import log_scaled_e1


def test_scaled_e1_is_scipys():
    r = np.concatenate([np.logspace(-300, 2.8, 500), np.linspace(1.9, 2.1, 41)])
    expected = exp1(r) * np.exp(r)
    ours = log_scaled_e1(double(np.log(r))).exp().numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
    single = log_scaled_e1(torch.tensor(np.log(r), dtype=torch.float32)).exp().numpy()
    np.testing.assert_allclose(single, expected, rtol=1e-5)


def test_scaled_e1_where_scipy_overflows():
    """S(r) = (1 - 1/r + 2/r^2 - 6/r^3 + ...) / r, whose error is below the first term left out."""
    r = np.logspace(3, 30, 100)
    expected = -np.log(r) + np.log1p(-1 / r + 2 / r**2 - 6 / r**3 + 24 / r**4)
    np.testing.assert_allclose(log_scaled_e1(double(np.log(r))).numpy(), expected, rtol=1e-12)
    extreme = torch.tensor([-1e4, 1e4], dtype=torch.float32)
    np.testing.assert_allclose(log_scaled_e1(extreme), [np.log(1e4), -1e4], rtol=1e-4)


def test_scaled_e1_has_its_gradient():
    log_r = double([-600.0, -40.0, -1.0, 0.5, 0.69, 0.70, 2.0, 9.0, 100.0]).requires_grad_()
    assert torch.autograd.gradcheck(log_scaled_e1, log_r)
    # d log S / d log r = r - 1/S = -1 + 1/r - 3/r^2 + ... for large r, where r - 1/S has no digits left in float32
    large = torch.tensor([10.0, 20.0], requires_grad=True)
    log_scaled_e1(large).sum().backward()
    np.testing.assert_allclose(large.grad, -1 + np.exp(-np.array([10.0, 20.0])), rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_horseshoe_at_its_pole_and_in_its_tails(dtype):
    tiny = torch.finfo(dtype).tiny
    z = torch.tensor([0.0, tiny, -tiny, 1e-30, 1e-10, 1e10, -1e18], dtype=dtype, requires_grad=True)
    for tau in (1e-3, 1.0, 1e3):
        log_prob = distributions.Horseshoe(torch.tensor(tau, dtype=dtype)).log_prob(z)
        (gradient,) = torch.autograd.grad(log_prob.sum(), z)
        assert torch.isfinite(log_prob).all()
        assert torch.isfinite(gradient).all()
        assert log_prob[0] == log_prob[1] == log_prob[2], "0 has the density of the smallest normal float"
        assert gradient[0] == 0
        assert (gradient[3:] * z[3:] < 0).all(), "the density falls on either side"


def test_horseshoe_lies_between_the_bounds_of_its_paper():
    z = np.logspace(-8, 2, 60)  # above it the bounds are one number in float64
    density = distributions.Horseshoe(double(1.0)).log_prob(double(z)).exp().numpy()
    k = 1 / np.sqrt(2 * np.pi**3)
    assert (k / 2 * np.log1p(4 / z**2) < density).all()
    assert (density < k * np.log1p(2 / z**2)).all()


def test_horseshoe_mass_next_to_zero_is_negligible():
    """What the log-density at exactly 0 stands for: the mass of a float's width there."""
    tiny = torch.finfo(torch.float32).tiny
    mass = 2 * quad(lambda z: np.exp(distributions.Horseshoe(double(1.0)).log_prob(double(z)).item()), 0.0, tiny)[0]
    assert mass < 1e-35


@pytest.mark.parametrize(
    ("family", "values"), [(distributions.Horseshoe, (0.7,)), (distributions.SparseMixture, (0.3, 0.1, 1.5))]
)
def test_draws_have_the_gradient_of_an_even_expectation(family, values):
    """d E[z^2 / (1 + z^2)] / d parameter: 5 standard errors of 200,000 draws, a false alarm once in 10^6 for each."""

    def expectation(values):
        d = family(*map(double, values))

        def integrand(z):
            return 2 * np.exp(d.log_prob(double(z)).item()) * z * z / (1 + z * z)

        return sum(quad(integrand, a, b, epsabs=1e-11, limit=500)[0] for a, b in ((0, 0.5), (0.5, 5), (5, np.inf)))

    for k in range(len(values)):
        h = 1e-4
        high, low = ([v + sign * h * (i == k) for i, v in enumerate(values)] for sign in (1, -1))
        expected = (expectation(high) - expectation(low)) / (2 * h)
        torch.manual_seed(7)
        batch = [double(v).expand(200_000).clone().requires_grad_(i == k) for i, v in enumerate(values)]
        z = family(*batch).rsample()
        (z**2 / (1 + z**2)).sum().backward()
        gradient = batch[k].grad
        assert (gradient.mean() - expected).abs() <= 5 * gradient.std() / 200_000**0.5 + 1e-6


def test_a_sparse_mixture_drawn_without_gradient_has_the_same_draws():
    d = distributions.SparseMixture(torch.tensor(0.3).requires_grad_(), 0.1, 1.5)
    torch.manual_seed(0)
    with_gradient = d.rsample((100,))
    torch.manual_seed(0)
    torch.testing.assert_close(with_gradient.detach(), d.sample((100,)))
    assert with_gradient.requires_grad


def test_kl_to_the_horseshoe_in_float32_trains_from_the_pole():
    for loc, scale in ((0.0, 1.0), (0.0, 1e-4), (1e-20, 1e-3), (10.0, 1e-2)):
        q = torch.distributions.Normal(torch.tensor(loc).requires_grad_(), torch.tensor(scale).requires_grad_())
        p = distributions.Horseshoe(torch.tensor(0.1).requires_grad_())
        kl = kl_divergence(q, p)
        wide = kl_divergence(torch.distributions.Normal(q.loc.double(), q.scale.double()), p.expand(()))
        torch.testing.assert_close(kl.double(), wide.double(), rtol=1e-4, atol=1e-4)
        kl.backward()
        assert all(torch.isfinite(v.grad) for v in (q.loc, q.scale, p.scale))


def test_kl_to_sparse_mixture_of_a_law_without_variance_is_infinite():
    q = torch.distributions.StudentT(double(2.0), double(0.0), double(1.0))
    assert kl_divergence(q, distributions.SparseMixture(double(0.2), double(0.1), double(1.0))) == float("inf")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: priors.Horseshoe(3, scale=0.0), "scale must be positive and finite, got 0.0"),
        (lambda: priors.SparseMixture(3, active=1.0), "active must be between 0 and 1, got 1.0"),
        (lambda: priors.SparseMixture(3, narrow=-1.0), "narrow must be positive"),
        (lambda: priors.RegularizedHorseshoe(3, slab=float("inf")), "slab must be positive and finite, got inf"),
        (lambda: priors.RegularizedHorseshoe(3, learned=["tau"]), "learned must be a collection of names of"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_guide_of_one_site_under_the_regularized_horseshoe_raises():
    vae = pv.build_vae((5,), 3, prior="regularized-horseshoe", guide="normal", hidden=(4,))
    with pytest.raises(ValueError, match="the guide samples the sites"):
        pv.fit(vae, torch.bernoulli(torch.full((10, 5), 0.5)), epochs=1, progress=False)
