"""Priors of several sites with the guides that serve them, over the table of cases."""

import numpy as np
import pyro
import pytest
import scipy.stats as st
import torch
from cases import HIERARCHIES, without_atoms
from pyro import poutine
from pyro.infer import Trace_ELBO

import pyrovae as pv

rows = pytest.mark.parametrize("case", HIERARCHIES.values(), ids=HIERARCHIES)


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def traced(part, num, *args):
    with pyro.plate("data", num, dim=-1), poutine.trace() as traced:
        value = part(*args)
    return value, dict(traced.trace.iter_stochastic_nodes())


def log_densities(sites):
    return {name: site["fn"].log_prob(site["value"]).detach().numpy() for name, site in sites.items()}


def values(sites):
    return {name: site["value"].detach().numpy() for name, site in sites.items()}


@rows
def test_prior_is_the_reference(case):
    torch.manual_seed(0)
    prior = case.make_prior(4)
    z, sites = traced(prior, 7)
    np.testing.assert_array_equal(z.detach().numpy(), case.read(values(sites)))
    assert {name: site["fn"].batch_shape for name, site in sites.items()} == dict.fromkeys(sites, (7,))
    assert {name: site["fn"].event_shape for name, site in sites.items()} == dict.fromkeys(sites, (4,))
    expected = case.prior_log_density(values(sites))
    assert set(expected) == set(sites)
    for name, log_prob in log_densities(sites).items():
        np.testing.assert_allclose(log_prob, expected[name], rtol=1e-10)


@rows
def test_prior_draws_follow_the_marginal(case):
    """Kolmogorov-Smirnov of 60,000 draws: a false alarm once in 10^6."""
    torch.manual_seed(0)
    z, _ = traced(case.make_prior(3), 20_000)
    assert torch.isfinite(z).all()
    assert st.kstest(without_atoms(z.detach().flatten(), case.atoms).numpy(), case.cdf).pvalue > 1e-6


@rows
def test_guide_is_the_reference(case):
    torch.manual_seed(1)
    guide, x = case.make_guide(4), torch.randn(7, 3)
    z, sites = traced(guide, 7, x)
    np.testing.assert_array_equal(z.detach().numpy(), case.read(values(sites)))
    expected = case.guide_log_density(guide.head(x).detach().numpy(), values(sites))
    assert set(expected) == set(sites)
    for name, log_prob in log_densities(sites).items():
        np.testing.assert_allclose(log_prob, expected[name], rtol=1e-9)


@rows
def test_the_code_is_the_mean_or_what_the_guide_says(case):
    """The mean within 6 standard errors of 200,000 draws, for 3 numbers: a false alarm once in 10^8."""
    torch.manual_seed(2)
    guide, x = case.make_guide(3), torch.randn(1, 3)
    draws, _ = traced(guide, 200_000, x.expand(200_000, 3))
    if case.code is not None:
        expected = case.code(guide.head(x)[0].detach().numpy(), 3)
        np.testing.assert_allclose(guide.encode(x)[0].detach().numpy(), expected, rtol=1e-12)
        return
    draws = draws.detach()
    assert ((draws.mean(0) - guide.encode(x)[0]).abs() <= 6 * draws.std(0) / 200_000**0.5).all()


@rows
def test_gradients_reach_every_parameter(case):
    torch.manual_seed(3)
    prior, guide, x = case.make_prior(3), case.make_guide(3), torch.randn(5, 3)
    z, sites = traced(guide, 5, x)
    with pyro.plate("data", 5, dim=-1), pyro.condition(data={n: s["value"] for n, s in sites.items()}):
        trace = pyro.poutine.trace(prior).get_trace()
    log_ratio = sum(s["fn"].log_prob(s["value"]) for s in sites.values()) - trace.log_prob_sum()
    (log_ratio.sum() + (z**2).sum()).backward()
    for name, parameter in guide.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad.abs().sum(-1) > 0).all() if parameter.dim() > 1 else (parameter.grad != 0).all(), name


@pytest.mark.parametrize(
    ("case", "exact"), [(case, exact) for case in HIERARCHIES.values() for exact in case.exact], ids=lambda _: ""
)
def test_both_objectives_are_one_bound(case, exact):
    """Their values at one set of weights, 2,000 draws: within 5 standard errors, a false alarm once in 10^6."""
    torch.manual_seed(4)
    likelihood = pv.likelihoods.Normal(pv.nn.Dictionary(2, 3))
    vae = pv.VAE(case.make_prior(2), likelihood, case.make_guide(2))
    x = torch.randn(2000, 1, 3).expand(2000, 1, 3)[:1].expand(2000, 1, 3).reshape(2000, 3)
    losses = []
    for objective in (Trace_ELBO(), exact()):
        with torch.no_grad():
            losses.append([objective.loss(vae.model, vae.guide, x) / 2000 for _ in range(20)])
    trace, closed = (np.array(v) for v in losses)
    error = np.sqrt((trace.var(ddof=1) + closed.var(ddof=1)) / 20)
    assert abs(trace.mean() - closed.mean()) <= 5 * error + 1e-9
    assert closed.std() < trace.std(), "a KL in closed form has less noise"
