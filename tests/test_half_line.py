"""Draws and densities on the half line at the edge of float32."""

import numpy as np
import pytest
import scipy.stats as st
import torch
from cases import double
from scipy.special import gammainc
from torch.distributions import kl_divergence

from pyrovae import distributions, priors

TINY = torch.finfo(torch.float32).tiny
NUM = 200_000


@pytest.mark.parametrize("rate", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("concentration", [0.01, 0.05, 0.3, 1.0, 100.0])
def test_gamma_draws_in_float32_follow_the_law_down_to_the_smallest_float(concentration, rate):
    """The mass at the floor is what the cdf has below it; above the floor the law of log z is the conditioned one.

    Six standard errors, and a Kolmogorov-Smirnov p-value of 1e-6: a false alarm once in 10^5 for all settings.
    """
    torch.manual_seed(0)
    z = distributions.Gamma(torch.tensor(concentration), torch.tensor(rate)).sample((NUM,)).double().numpy()
    assert z.min() >= TINY
    at_floor = (z == TINY).mean()
    below = gammainc(concentration, rate * TINY)
    assert abs(at_floor - below) <= 6 * np.sqrt(below * (1 - below) / NUM) + 1e-12
    above = z[z > TINY]
    assert st.kstest(above, lambda v: (gammainc(concentration, rate * v) - below) / (1 - below)).pvalue > 1e-6
    counts = np.unique(above, return_counts=True)[1]  # nor do the draws pile up on any other float
    assert counts.max() < 40


def test_torchs_gamma_piles_up_above_the_smallest_float():
    """Why the class is here: 42 % of torch's draws on one float that has a thousand normal floats below it."""
    torch.manual_seed(0)
    z = torch.distributions.Gamma(torch.tensor(0.01), torch.tensor(1e-3)).sample((NUM,))
    value, count = z.unique(return_counts=True)
    assert value[count.argmax()] > 900 * TINY
    assert count.max() > 0.4 * NUM


@pytest.mark.parametrize(
    "law",
    [
        distributions.Weibull(torch.tensor(1.0), torch.tensor(0.1)),
        distributions.LogNormal(torch.tensor(-54.6), torch.tensor(10.0)),
        distributions.Gamma(torch.tensor(0.01), torch.tensor(1.0)),
    ],
    ids=lambda law: type(law).__name__,
)
def test_draws_have_finite_log_densities_and_gradients_in_float32(law):
    torch.manual_seed(0)
    values = {name: getattr(law, name).clone().requires_grad_() for name in law.arg_constraints}
    made = type(law)(**values).expand((NUM,))
    z = made.rsample()
    assert (z == TINY).any(), "the settings reach the floor"
    log_prob = made.log_prob(z)
    assert torch.isfinite(log_prob).all()
    (log_prob.sum() + z.tanh().sum()).backward()
    assert all(torch.isfinite(value.grad) for value in values.values())


def test_small_concentrations_have_scipys_density():
    z = double([1e-300, 1e-30, 1e-3, 1.0, 30.0])
    for concentration in (0.01, 0.1):
        gamma = distributions.Gamma(double(concentration), double(2.0))
        np.testing.assert_allclose(gamma.log_prob(z), st.gamma(concentration, scale=0.5).logpdf(z), rtol=1e-10)
        weibull = distributions.Weibull(double(2.0), double(concentration))
        np.testing.assert_allclose(weibull.log_prob(z), st.weibull_min(concentration, scale=2.0).logpdf(z), rtol=1e-10)


def test_closed_kls_have_the_printed_values():
    """WHAI's Weibull from Gamma with its log k, and the exponential as the Gamma of concentration 1."""
    q = distributions.Weibull(double(0.7), double(1.8))
    as_gamma = kl_divergence(q, distributions.Gamma(double(1.0), double(2.5)))
    torch.testing.assert_close(kl_divergence(q, torch.distributions.Exponential(double(2.5))), as_gamma)
    same = kl_divergence(distributions.Weibull(double(0.4), double(1.0)), torch.distributions.Exponential(double(2.5)))
    assert same.abs() < 1e-12


def test_weibull_survives_two_backward_passes():
    k = double(1.5).requires_grad_()
    law = distributions.Weibull(double(1.0), k.exp())
    for _ in range(2):
        law.log_prob(double(0.5)).backward(retain_graph=True)
    assert torch.isfinite(k.grad)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: priors.Gamma(3, concentration=0.0), "concentration must be positive and finite, got 0.0"),
        (lambda: priors.Gamma(3, rate=-1.0), "rate must be positive and finite, got -1.0"),
        (lambda: priors.Gamma(0), "dim must be a positive whole number, got 0"),
        (lambda: priors.Exponential(3, rate=0.0), "rate must be positive"),
        (lambda: priors.HalfNormal(3, scale=float("inf")), "scale must be positive and finite"),
        (lambda: priors.HalfNormal(3, learned=["rate"]), "learned must be a collection of names of"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_learned_hyper_parameters_are_parameters_of_each_coordinate():
    prior = priors.Gamma(3, learned=["concentration", "rate"])
    assert [p.shape for p in prior.parameters()] == [(3,), (3,)]
    prior.distribution().log_prob(torch.tensor([0.1, 1.0, 3.0])).backward()
    assert all((p.grad != 0).all() for p in prior.parameters())
