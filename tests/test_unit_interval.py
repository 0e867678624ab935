"""Kumaraswamy and Beta at their ends: what torch's own lose there."""

import itertools

import pyro.distributions as dist
import pytest
import torch
from cases import double
from scipy import stats
from torch.distributions import kl_divergence

from pyrovae.distributions import Beta, Kumaraswamy, StickBreaking
from pyrovae.distributions.unit_interval import log1mexp

SIZES = (0.01, 0.05, 1.0, 50.0, 1e15, 1e30)


def test_kl_of_the_papers_examples():
    """Where ten terms of the published series give 6.27 and 10.63."""
    prior = Beta(double(1.0), double(5.0))
    assert kl_divergence(Kumaraswamy(double(3.0), double(0.7)), prior).item() == pytest.approx(8.299, abs=5e-4)
    assert kl_divergence(Kumaraswamy(double(5.0), double(0.3)), prior).item() == pytest.approx(20.02, abs=5e-3)


def test_kl_of_one_law_in_two_names_is_zero():
    for a, b in ((0.05, 1.0), (50.0, 1.0), (1.0, 0.05), (1.0, 50.0)):
        for dtype, atol in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
            a_b = torch.tensor([a, b], dtype=dtype)
            assert abs(kl_divergence(Kumaraswamy(*a_b), dist.Beta(*a_b)).item()) < atol


@pytest.mark.parametrize("family", [Kumaraswamy, Beta])
@pytest.mark.parametrize(("a", "b"), list(itertools.product(SIZES, SIZES[:4])))
def test_draws_and_density_are_finite_in_float32(family, a, b):
    torch.manual_seed(0)
    a, b = (torch.tensor(v, requires_grad=True) for v in ((b, a) if family is Kumaraswamy else (b, min(a, 1e4))))
    q = family(a, b)
    v = q.rsample((10_000,))
    assert ((v > 0) & (v < 1)).all()
    assert torch.isfinite(q.log_prob(v)).all()
    log_v, log_rest = q.rsample_logs((10_000,))
    assert torch.isfinite(log_v).all()
    assert torch.isfinite(log_rest).all()
    divergence = kl_divergence(q, dist.Beta(torch.tensor(2.0), torch.tensor(5.0)))
    assert torch.isfinite(divergence)
    (log_v.mean() + log_rest.mean() + divergence).backward()
    assert torch.isfinite(a.grad)
    assert torch.isfinite(b.grad)


@pytest.mark.parametrize("law", [Kumaraswamy, Beta])
def test_logs_of_draws_keep_what_a_float_loses(law):
    """log(1 - v) of a law with half its mass closer to 1 than a float32 is; Kolmogorov-Smirnov, one alarm in 10^6."""
    torch.manual_seed(0)
    b = 0.03
    log_v, log_rest = law(torch.tensor(1.0), torch.tensor(b)).rsample_logs((50_000,))
    assert stats.kstest(log_rest.double().numpy(), lambda y: stats.expon(scale=1 / b).sf(-y)).pvalue > 1e-6
    shown = log_rest > -60
    torch.testing.assert_close(log_v[shown].double(), log1mexp(log_rest[shown].double()), rtol=1e-4, atol=1e-6)


def test_a_stick_of_a_hundred_short_pieces_has_its_density_in_float32():
    torch.manual_seed(0)
    one = torch.ones(99)
    q = StickBreaking(Kumaraswamy(one, 0.3 * one))
    wide = StickBreaking(Kumaraswamy(one.double(), 0.3 * one.double()))
    z = q.sample((100,))
    torch.testing.assert_close(q.log_prob(z).double(), wide.log_prob(z.double()), rtol=1e-4, atol=1e-2)
