"""Each divergence that the library uses, against quadrature and Monte Carlo, at settings mild and extreme."""

import pyro.distributions as dist
import pytest
import torch
from cases import KLS, double
from cases.real_line import by_quadrature
from torch.distributions import kl_divergence

from pyrovae import distributions


@pytest.mark.parametrize("case", KLS.values(), ids=KLS)
def test_kl_is_quadratures(case):
    for q, p in case.pairs():
        exact = kl_divergence(q, p)
        assert exact.item() == pytest.approx((case.reference or by_quadrature)(q, p), rel=case.rel, abs=1e-9)
        assert exact.item() > -1e-9


@pytest.mark.parametrize("case", [case for case in KLS.values() if case.monte_carlo], ids=lambda case: "")
def test_kl_is_monte_carlos(case):
    """Seven means of 100,000 draws within 4 standard errors: a false alarm once in 2,000 seeds for each row."""
    torch.manual_seed(1)
    for q, p in case.pairs():
        z = q.sample((100_000,))
        log_ratio = q.log_prob(z) - p.log_prob(z)
        assert (kl_divergence(q, p) - log_ratio.mean()).abs() <= 4 * log_ratio.std() / 100_000**0.5 + 1e-12


PARTS = ("slab", "sticks")


def parameters(d):
    """Those that make it, those of a law inside it last."""
    own = [getattr(d, name) for name in d.arg_constraints if isinstance(getattr(d, name), torch.Tensor)]
    return own + [value for part in PARTS if hasattr(d, part) for value in parameters(getattr(d, part))]


def rebuilt(d, values):
    own = {name: next(values) for name in d.arg_constraints if isinstance(getattr(d, name), torch.Tensor)}
    own |= {part: rebuilt(getattr(d, part), values) for part in PARTS if hasattr(d, part)}
    return type(d)(**own, validate_args=False) if own else d  # a step leaves the sphere


@pytest.mark.parametrize("case", KLS.values(), ids=KLS)
def test_kl_has_the_gradient_of_its_value(case):
    """In the parameters of both, against finite differences, at the second setting."""
    q, p = case.pairs()[1]
    values = [value.detach().clone().requires_grad_() for d in (q, p) for value in parameters(d)]

    def kl(*values):
        values = iter(values)
        return kl_divergence(rebuilt(q, values), rebuilt(p, values))

    assert torch.autograd.gradcheck(kl, values, rtol=1e-4, atol=1e-7)


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


def test_kl_of_a_law_without_the_moment_is_infinite():
    q = dist.StudentT(double(2.0), double(0.0), double(1.0))
    for p in (
        dist.Normal(double(0.0), double(1.0)),
        distributions.GeneralizedNormal(double(0.0), double(1.0), double(2.5)),
    ):
        assert kl_divergence(q, p) == float("inf")


def test_kl_batches_and_broadcasts_in_float32():
    q = dist.Normal(torch.randn(4, 1), torch.rand(3) + 0.1)
    p = dist.StudentT(3.0, torch.zeros(3), torch.ones(3))
    kl = kl_divergence(q, p)
    assert kl.shape == (4, 3)
    wide = kl_divergence(dist.Normal(q.loc.double(), q.scale.double()), dist.StudentT(3.0, p.loc.double(), 1.0))
    torch.testing.assert_close(kl.double(), wide, rtol=1e-4, atol=1e-5)


def test_kl_of_other_families_is_left_to_sampling():
    q = dist.MultivariateNormal(torch.zeros(2), torch.eye(2))
    with pytest.raises(NotImplementedError):
        kl_divergence(q, dist.Laplace(torch.zeros(2), torch.ones(2)).to_event(1))
    # S6: torch's value for this pair of equal laws is 2.0
    folded = [dist.FoldedDistribution(dist.Normal(loc, 1.0)) for loc in (1.0, -1.0)]
    with pytest.raises(NotImplementedError):
        kl_divergence(*folded)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("power", [0.7, 1.5, 3.9])
def test_kl_of_generalized_normals_near_the_corner_of_p(power, dtype):
    """The float32 value and gradient are those of quadrature in float64, where the two locations nearly meet too."""
    for loc, scale in ((0.0, 1.0), (0.3, 0.3), (-1e-3, 0.1), (3e-8, 0.05), (2.0, 0.05)):
        values = [torch.tensor(v, dtype=dtype, requires_grad=True) for v in (loc, scale, power)]
        q = distributions.GeneralizedNormal(*values)
        wide = [v.item() for v in values]
        p = [dist.Laplace(torch.zeros((), dtype=t), torch.ones((), dtype=t)) for t in (dtype, torch.float64)]

        def reference(loc, scale, power, p=p[1]):
            return by_quadrature(distributions.GeneralizedNormal(double(loc), double(scale), double(power)), p)

        kl = kl_divergence(q, p[0])
        tolerance = 1e-3 if dtype == torch.float32 else 1e-6
        assert kl.item() == pytest.approx(reference(*wide), rel=tolerance, abs=tolerance)
        for k, gradient in enumerate(torch.autograd.grad(kl, values)):
            h = 1e-4 * wide[1]
            high, low = (reference(*[v + sign * h * (i == k) for i, v in enumerate(wide)]) for sign in (1, -1))
            assert gradient.item() == pytest.approx((high - low) / (2 * h), rel=10 * tolerance, abs=10 * tolerance)
