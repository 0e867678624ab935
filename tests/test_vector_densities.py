"""The generic tests over the rows whose z is a vector of dependent coordinates: on the sphere, on the simplex.

Stochastic tests fix their seed; their false-alarm rate, had the seed been drawn, stands beside each.
"""

import numpy as np
import pyro
import pytest
import torch
from cases import VECTOR_DENSITIES, VECTOR_GUIDES, VECTOR_PRIORS, double
from torch.distributions import kl_divergence

import pyrovae as pv
from pyrovae import guides, priors

DRAWS = 100_000


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def rows(table):
    return pytest.mark.parametrize("case", table.values(), ids=table)


def expectation(case, f, d=None):
    """E f(z) by quadrature over the support."""
    points, weights = map(torch.from_numpy, case.grid())
    d = d or case.made()
    density = torch.exp(type(d).log_prob(d, points))
    return torch.tensordot(weights * density, f(points), 1)


def curved(z):
    """A function of z that no symmetry makes constant."""
    a = torch.linspace(-1.0, 2.0, z.shape[-1])
    return torch.tanh((z * a).sum(-1)) + (z[..., 0] - 0.3) ** 2 * z[..., -1]


def has(d, name):
    try:
        value = getattr(d, name)
        return (value() if callable(value) else value) is not None
    except NotImplementedError:
        return False


@rows(VECTOR_DENSITIES)
def test_density_is_the_references(case):
    points = double(case.points)
    expected = [np.squeeze(case.log_prob(point)) for point in points.numpy()]
    np.testing.assert_allclose(case.made().log_prob(points).numpy(), expected, rtol=1e-10, atol=1e-10)


@rows(VECTOR_DENSITIES)
def test_density_has_mass_one_and_its_moments(case):
    """By quadrature, to 1e-6: mean, variance and entropy where there is a closed form."""
    d = case.made()
    assert expectation(case, lambda z: torch.ones(len(z))).item() == pytest.approx(1.0, abs=1e-6)
    mean = expectation(case, lambda z: z)
    if has(d, "mean"):
        torch.testing.assert_close(d.mean, mean, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(d.variance, expectation(case, lambda z: z**2) - mean**2, rtol=1e-6, atol=1e-6)
    if has(d, "entropy"):
        log_prob = expectation(case, lambda z: torch.nan_to_num(d.log_prob(z), neginf=0.0))
        torch.testing.assert_close(d.entropy(), -log_prob, rtol=1e-6, atol=1e-6)


@rows(VECTOR_DENSITIES)
def test_density_draws_follow_it(case):
    """First and second moments, log_prob and a curved function within 5 standard errors: a false alarm in 10^5 rows."""
    torch.manual_seed(0)
    d = case.made()
    z = d.sample((DRAWS,))
    assert d.support.check(z).all()

    def statistics(z):
        outer = (z[..., :, None] * z[..., None, :]).flatten(-2)
        log_prob = torch.nan_to_num(d.log_prob(z), neginf=0.0)
        return torch.cat([z, outer, log_prob[..., None], curved(z)[..., None]], -1)

    values = statistics(z)
    error = (values.mean(0) - expectation(case, statistics)).abs()
    assert (error <= 5 * values.std(0) / DRAWS**0.5 + 1e-6).all()


@rows({name: case for name, case in VECTOR_DENSITIES.items() if case.raw})
def test_density_gradients(case):
    z = double(case.points)[:3].requires_grad_()
    raw = [double(value).requires_grad_() for value in case.raw]

    def log_prob(z, *raw):
        d = case.make(*raw)
        d._validate_args = False  # finite differences leave the support
        return d.log_prob(z)

    assert torch.autograd.gradcheck(log_prob, (z, *raw))


@rows({name: case for name, case in VECTOR_DENSITIES.items() if case.raw})
def test_density_draws_have_the_gradient_of_their_expectation(case):
    """d E[f(z)] / d raw within 5 standard errors of 100,000 draws: a false alarm once in 10^6 for each number."""
    for k, value in enumerate(case.raw):
        value = double(value)
        torch.manual_seed(7)
        batch = value.expand(DRAWS, *value.shape).clone().requires_grad_()
        raw = [double(other).expand(DRAWS, *np.shape(other)) for other in case.raw]
        curved(case.make(*raw[:k], batch, *raw[k + 1 :]).rsample()).sum().backward()
        grad = batch.grad.reshape(DRAWS, -1)
        for i in range(value.numel()):
            step = torch.zeros(value.numel())
            step[i] = 1e-4
            both = []
            for moved in (value + step.reshape(value.shape), value - step.reshape(value.shape)):
                d = case.make(*(moved if j == k else double(other) for j, other in enumerate(case.raw)))
                both.append(expectation(case, curved, d).item())
            error = grad[:, i].mean() - (both[0] - both[1]) / 2e-4
            assert error.abs() <= 5 * grad[:, i].std() / DRAWS**0.5 + 1e-6, (k, i)


@rows(VECTOR_DENSITIES)
def test_density_expands_and_stands_in_plates(case):
    torch.manual_seed(0)
    d = case.made()
    wide = d.expand((3,)).expand((2, 3))
    assert (wide.batch_shape, wide.event_shape, type(wide)) == ((2, 3), d.event_shape, case.cls)
    z = wide.sample()
    torch.testing.assert_close(wide.log_prob(z), d.log_prob(z))
    assert len(d.expand((4000,)).sample().unique(dim=0)) > 3000, "draws are independent"
    event = wide.to_event(1)
    assert (event.batch_shape, event.event_shape) == ((2,), (3, *d.event_shape))
    torch.testing.assert_close(event.expand((5, 2)).log_prob(z), wide.log_prob(z).sum(-1).expand(5, 2))
    with pyro.plate("data", 7, dim=-1):
        assert pyro.sample("z", d).shape == (7, *d.event_shape)
    assert d.log_prob(z[0, 0]).shape == ()
    if has(wide, "entropy"):
        assert wide.entropy().shape == (2, 3)
    if has(wide, "mean"):
        assert wide.mean.shape == wide.variance.shape == wide.sample().shape


@rows(VECTOR_DENSITIES)
def test_density_is_finite_at_256_coordinates_in_float32(case):
    """Draws on the support, densities and gradients finite, and the density that of float64."""
    torch.manual_seed(0)
    for d, reference in zip(case.wide(torch.float32), case.wide(torch.float64), strict=True):
        for name in d.arg_constraints:
            setattr(d, name, getattr(d, name).detach().clone().requires_grad_())
        z = d.rsample((1000,))
        assert z.dtype == torch.float32
        assert d.support.check(z).all()
        log_prob = d.log_prob(z)
        assert torch.isfinite(log_prob).all()
        reference._validate_args = False  # rounded to float32 a draw is not of length one in float64
        with torch.no_grad():
            torch.testing.assert_close(log_prob.double(), reference.log_prob(z.double()), rtol=1e-4, atol=1e-2)
        if d.arg_constraints:
            (log_prob.sum() + z[..., :3].pow(3).sum()).backward()
            assert all(torch.isfinite(getattr(d, name).grad).all() for name in d.arg_constraints)


@rows(VECTOR_PRIORS)
def test_prior_is_the_references_under_a_plate_and_follows_dtype(case):
    torch.manual_seed(0)
    for dtype, rtol in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        prior = case.make(4).to(dtype)
        with pyro.plate("data", 5, dim=-1):
            trace = pyro.poutine.trace(prior).get_trace()
        trace.compute_log_prob()
        z = trace.nodes["z"]["value"].detach()
        assert (z.shape, z.dtype, len(z.unique(dim=0))) == ((5, 4), dtype, 5)
        expected = [np.squeeze(case.log_density(point)) for point in z.double().numpy()]
        np.testing.assert_allclose(trace.nodes["z"]["log_prob"].detach().numpy(), expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("d", [2, 5])
@rows(VECTOR_GUIDES)
def test_guide_is_the_references(case, d):
    torch.manual_seed(1)
    guide = case.make(d)
    x = torch.randn(4, 3)
    q = guide.distribution(x)
    assert (q.batch_shape, q.event_shape) == ((4,), (d,))
    z = q.sample()
    heads = guide.head(x).detach().numpy()
    expected = [np.squeeze(case.log_density(head, point, d)) for head, point in zip(heads, z.numpy(), strict=True)]
    np.testing.assert_allclose(q.log_prob(z).detach().numpy(), expected, rtol=1e-9, atol=1e-9)


@rows(VECTOR_GUIDES)
def test_guide_code_is_on_the_support_and_in_the_middle_of_the_draws(case):
    """Twelve numbers from 100,000 draws; 0.02 is six standard errors of the worst of them or more."""
    torch.manual_seed(2)
    guide = case.make(3)
    x = torch.randn(4, 3)
    q, code = guide.distribution(x), guide.encode(x).detach()
    assert q.support.check(code).all()
    mean = q.sample((DRAWS,)).mean(0).numpy()
    for head, m, c in zip(guide.head(x).detach().numpy(), mean, code.numpy(), strict=True):
        np.testing.assert_allclose(case.code(head, m, 3), c, atol=0.02)


@rows(VECTOR_GUIDES)
def test_guide_gradient_reaches_every_parameter(case):
    torch.manual_seed(3)
    guide = case.make(3)
    q = guide.distribution(torch.randn(4, 3))
    (q.rsample() ** 3).sum().backward()
    for name, parameter in guide.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad.abs().reshape(len(parameter), -1).sum(-1) > 0).all(), name


@pytest.mark.parametrize(
    ("prior", "fits"),
    [
        (priors.HypersphericalUniform, "PowerSpherical, VonMisesFisher"),
        (priors.Dirichlet, "Dirichlet, LogisticNormal, StickBreaking"),
        (priors.LogisticNormal, "Dirichlet, LogisticNormal, StickBreaking"),
        (priors.StickBreaking, "Dirichlet, LogisticNormal, StickBreaking"),
    ],
)
def test_a_guide_on_another_set_is_refused(prior, fits):
    likelihood = pv.likelihoods.Bernoulli(pv.nn.MLP(3, [4], 5))
    with pytest.raises(ValueError, match=f"guides that fit: {fits}$"):
        pv.VAE(prior(3), likelihood, guides.Normal(pv.nn.MLP(5, [4]), 3))


def test_from_dirichlet_is_the_nearest_logistic_normal():
    """The KL has no gradient there, beyond the nine digits of torch's trigamma, and falls as 1 over concentration."""
    kls = []
    for size in (1.0, 10.0, 100.0):
        q = pv.distributions.Dirichlet(size * double([1.0, 2.0, 0.5]))
        prior = priors.LogisticNormal.from_dirichlet(3, q.concentration, learned=["loc", "scale"])
        kl = kl_divergence(q, prior.distribution())
        kl.backward()
        assert all(parameter.grad.abs().max() < 1e-8 for parameter in prior.parameters())
        a = q.concentration
        laplace = ((1 - 2 / 3) / a + (1 / a).sum() / 9).sqrt()
        assert kl < kl_divergence(q, pv.distributions.LogisticNormal(a.log(), laplace))
        kls.append(kl.item())
    assert kls[1] == pytest.approx(10 * kls[2], rel=0.1)
    assert kls[0] > kls[1]


def test_kl_of_a_logistic_normal_from_a_dirichlet_is_left_to_sampling_and_said_to_be():
    vae = pv.build_vae((5,), 3, prior="dirichlet", guide="logistic-normal", hidden=(4,))
    x = torch.bernoulli(torch.full((6, 5), 0.5))
    assert not pv.metrics.elbo(vae, x).kl_is_exact
    assert pv.metrics.elbo(pv.build_vae((5,), 3, prior="dirichlet", hidden=(4,)), x).kl_is_exact


def test_a_dirichlet_is_a_broken_stick():
    a = double([0.4, 2.0, 0.7, 1.3])
    sticks = pv.distributions.Beta(a[:-1], a.flip(0).cumsum(0).flip(0)[1:])
    z = pv.distributions.Dirichlet(a).sample((100,))
    broken = pv.distributions.StickBreaking(sticks).log_prob(z)
    torch.testing.assert_close(broken, pv.distributions.Dirichlet(a).log_prob(z), rtol=1e-10, atol=1e-10)


def test_sticks_are_one_law_for_each_break():
    for sticks in (torch.distributions.Beta(torch.ones(3), 1.0), pv.distributions.Beta(double(1.0), double(2.0))):
        with pytest.raises(ValueError, match="sticks must be"):
            pv.distributions.StickBreaking(sticks)


@pytest.mark.parametrize(
    "make",
    [
        lambda: priors.HypersphericalUniform(1),
        lambda: priors.Dirichlet(1),
        lambda: priors.LogisticNormal(1),
        lambda: priors.StickBreaking(1),
        lambda: guides.StickBreaking(torch.nn.Linear(3, 4), 1),
        lambda: guides.PowerSpherical(torch.nn.Linear(3, 4), 1),
        lambda: guides.VonMisesFisher(torch.nn.Linear(3, 4), 1),
    ],
)
def test_one_coordinate_is_too_few(make):
    with pytest.raises(ValueError, match="dim must be 2 or more"):
        make()
