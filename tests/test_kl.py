"""Each divergence that the library uses, against quadrature and Monte Carlo, at settings mild and extreme."""

import itertools

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from cases import double
from scipy.integrate import quad
from torch.distributions import kl_divergence

import pyrovae.distributions  # noqa: F401 - registers the divergences

LOC_SCALE = [(0.0, 1.0), (0.5, 0.3), (-3.0, 0.01), (2.0, 5.0), (10.0, 1.0)]


def normal(loc, scale):
    return dist.Normal(double(loc), double(scale))


def laplace(loc, scale):
    return dist.Laplace(double(loc), double(scale))


def student_t(loc, scale):
    return dist.StudentT(double(3.5), double(loc), double(scale))


def by_quadrature(q, p):
    """E_q[log q - log p] in one dimension, cut where either density has a corner."""

    def integrand(t):  # z = loc + scale t / (1 - t^2)
        z = q.loc + q.scale * double(t / (1 - t * t))
        log_q = q.log_prob(z)
        value = (log_q.exp() * (log_q - p.log_prob(z)) * q.scale).item() * (1 + t * t) / (1 - t * t) ** 2
        return value if np.isfinite(value) else 0.0

    corner = ((p.loc - q.loc) / q.scale).item()  # where z = p.loc
    t = 0.0 if corner == 0 else (np.sqrt(1 + 4 * corner**2) - 1) / (2 * corner)
    cuts = sorted({-1.0, -0.6, 0.0, 0.6, 1.0, t})
    return sum(quad(integrand, a, b, epsabs=1e-12, epsrel=1e-11, limit=400)[0] for a, b in itertools.pairwise(cuts))


PAIRS = [(normal, normal), (normal, laplace), (laplace, laplace), (laplace, normal), (student_t, normal)]


@pytest.mark.parametrize("q_setting", LOC_SCALE)
@pytest.mark.parametrize(("q", "p"), PAIRS, ids=lambda family: family.__name__)
def test_kl_is_quadratures(q, p, q_setting):
    q = q(*q_setting)
    for p_setting in LOC_SCALE:
        exact = kl_divergence(q, p(*p_setting)).item()
        assert exact == pytest.approx(by_quadrature(q, p(*p_setting)), rel=1e-6, abs=1e-9)
        assert exact > -1e-12


def covariances():
    generator = torch.Generator().manual_seed(0)
    for size in (0.05, 0.3, 1.0, 3.0, 30.0):
        factor = torch.randn(2, 3, 3, generator=generator).double() * size
        loc = torch.randn(2, 3, generator=generator).double() * size
        diagonal = torch.rand(2, 3, generator=generator).double() * size**2 + 1e-3
        yield loc, factor[..., :2], diagonal


@pytest.mark.parametrize("full", [True, False])
def test_kl_of_correlated_normal_to_independent_normals(full):
    torch.manual_seed(0)
    p = dist.Normal(double([0.5, 0.0, -2.0]), double([1.0, 0.2, 4.0])).to_event(1)
    reference = dist.MultivariateNormal(p.mean, torch.diag(p.base_dist.variance))
    for loc, factor, diagonal in covariances():
        q = dist.LowRankMultivariateNormal(loc, factor, diagonal)
        q = dist.MultivariateNormal(loc, q.covariance_matrix) if full else q
        exact = kl_divergence(q, p)
        # torch's own, between two full covariances
        as_full = dist.MultivariateNormal(loc, q.covariance_matrix)
        torch.testing.assert_close(exact, kl_divergence(as_full, reference), rtol=1e-9, atol=1e-9)
        z = q.sample((100_000,))
        log_ratio = q.log_prob(z) - p.log_prob(z)
        # ten comparisons at 5 standard errors: a false alarm once in 10^5
        assert ((log_ratio.mean(0) - exact).abs() <= 5 * log_ratio.std(0) / 100_000**0.5).all()


def test_kl_of_correlated_normal_to_itself_is_zero():
    p = dist.Normal(double([1.0, -2.0]), double([0.5, 3.0])).to_event(1)
    q = dist.MultivariateNormal(p.mean, torch.diag(p.base_dist.variance))
    assert kl_divergence(q, p).abs() < 1e-12


def test_kl_of_student_t_without_a_variance_is_infinite():
    assert kl_divergence(dist.StudentT(double(1.5), double(0.0), double(1.0)), normal(0.0, 1.0)) == float("inf")


def test_kl_of_other_families_is_left_to_sampling():
    q = dist.MultivariateNormal(torch.zeros(2), torch.eye(2))
    with pytest.raises(NotImplementedError):
        kl_divergence(q, dist.Laplace(torch.zeros(2), torch.ones(2)).to_event(1))
    # S6: torch's value for this pair of equal laws is 2.0
    folded = [dist.FoldedDistribution(dist.Normal(loc, 1.0)) for loc in (1.0, -1.0)]
    with pytest.raises(NotImplementedError):
        kl_divergence(*folded)
