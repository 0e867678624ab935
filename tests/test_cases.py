"""The generic tests, over every row of the table of cases.

Stochastic tests fix their seed; their false-alarm rate, had the seed been drawn, stands beside each.
"""

import itertools

import numpy as np
import pyro
import pytest
import scipy.stats as st
import torch
from cases import (
    DENSITIES,
    DISCRETE_DENSITIES,
    DISCRETE_GUIDES,
    DISCRETE_PRIORS,
    GUIDES,
    HIERARCHIES,
    IMPROPER_PRIORS,
    LIKELIHOODS,
    PRIORS,
    SHARED,
    VECTOR_DENSITIES,
    VECTOR_GUIDES,
    VECTOR_PRIORS,
    double,
    without_atoms,
)
from scipy.integrate import quad
from scipy.special import expit, log_expit
from torch.distributions import biject_to

from pyrovae import distributions, guides, likelihoods, priors
from pyrovae.distributions.spike_slab import nonnegative_with_atom, real_with_atom

POINTS = double([-30.0, -2.0, -0.3, 0.0, 1e-8, 0.7, 5.0, 400.0])
FALSE_ALARM = 1e-6
SPARSE_POINTS = {"SparsePoint", "ReLU", "TopK", "BatchTopK", "Matryoshka", "JumpReLU", "Gated", "VAEase"}
OTHER_GUIDES = {"Guide", "CoordinateAscent", "Fan", "Refined", *SPARSE_POINTS}
WITH_ATOMS = {real_with_atom: lambda z: z, nonnegative_with_atom: torch.relu}  # supports that no bijection reaches


@pytest.fixture(autouse=True)
def double_precision():
    """Modules are made in float64, so that a parameter of 0.7 is scipy's 0.7."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def parameters(d):
    """Those that make it; a logit or a probability that another parameter gives is none."""
    own = {name: d.__dict__.get(name, getattr(type(d), name, None)) for name in d.arg_constraints}
    return {name: getattr(d, name) for name, value in own.items() if isinstance(value, torch.Tensor | property)}


def rows(table):
    return pytest.mark.parametrize("case", table.values(), ids=table)


@pytest.mark.parametrize(
    ("room", "table", "others"),
    [  # others: abstract classes, and those that need a model and have a test file of their own
        (distributions, DENSITIES | VECTOR_DENSITIES | DISCRETE_DENSITIES, {"LinearNormal", "Point"}),
        (priors, PRIORS | VECTOR_PRIORS | DISCRETE_PRIORS | IMPROPER_PRIORS, {"Prior"}),
        (likelihoods, LIKELIHOODS, {"Likelihood"}),
        (guides, GUIDES | VECTOR_GUIDES | DISCRETE_GUIDES, OTHER_GUIDES),
    ],
)
def test_every_public_class_has_a_row(room, table, others):
    public = {name for name in room.__all__ if isinstance(getattr(room, name), type)} - others
    paired = [cls for case in (HIERARCHIES | SHARED).values() for cls in (case.prior, case.guide)]
    classes = [case.cls for case in table.values()] + [
        cls for cls in paired if cls.__module__.startswith(room.__name__)
    ]
    assert public == {cls.__name__ for cls in classes}


@rows(DENSITIES)
def test_density_is_the_references(case):
    d = case.make()
    points = double(case.points)
    np.testing.assert_allclose(d.log_prob(points).numpy(), case.log_prob(points.numpy()), rtol=1e-10)
    assert (d.batch_shape, d.event_shape) == ((), ())


@rows(DENSITIES)
def test_density_has_mass_one(case):
    d = case.make()

    def density(z):
        return np.exp(d.log_prob(double(z)).item())

    total = sum(np.exp(d.log_prob(double(atom)).item()) for atom in case.atoms)
    for a, b in itertools.pairwise(case.breaks):
        total += quad(density, a, b, epsabs=1e-11, epsrel=1e-11, limit=500)[0]
    assert total == pytest.approx(1.0, abs=1e-6)
    for atom, mass in case.atoms.items():
        assert density(atom) == pytest.approx(mass, rel=1e-10)


@rows(DENSITIES)
def test_density_draws_follow_it(case):
    """50,000 draws. Kolmogorov-Smirnov for the continuous part and six standard errors for each atom."""
    torch.manual_seed(0)
    draws = case.make().sample((50_000,))
    assert torch.isfinite(draws).all()
    assert st.kstest(without_atoms(draws, case.atoms).numpy(), case.cdf).pvalue > FALSE_ALARM


@rows(DENSITIES)
def test_density_gradients(case):
    d = case.make()
    z = double([p for p in case.points if abs(p) < 50]).requires_grad_()
    values = [value.clone().requires_grad_() for value in parameters(d).values()]

    def log_prob(z, *values):
        return case.of(**dict(zip(parameters(d), values, strict=True))).log_prob(z)

    # finite differences stay on one side of each break
    smooth = double([p for p in case.points if 1e-3 < abs(p) < 50 and min(abs(p - b) for b in case.breaks) > 1e-4])
    smooth.requires_grad_()
    assert torch.autograd.gradcheck(log_prob, (smooth, *values))
    log_prob(z, *values).sum().backward()
    assert all(torch.isfinite(v.grad).all() for v in (z, *values))
    if case.reparametrised:  # d E[tanh z] / d parameter, by the draws and by finite differences of the quadrature
        check_pathwise_gradient(case, type(d), parameters(d))


def check_pathwise_gradient(case, family, parameters):
    """Within 5 standard errors of 200,000 draws: a false alarm once in 10^6 for each parameter."""

    def expectation(values):
        d = family(**dict(zip(parameters, map(double, values), strict=True)))

        def integrand(z):
            return np.exp(d.log_prob(double(z)).item()) * np.tanh(z)

        atoms = sum(np.exp(d.log_prob(double(atom)).item()) * np.tanh(atom) for atom in case.atoms)
        pieces = itertools.pairwise(case.breaks)
        return atoms + sum(quad(integrand, a, b, epsabs=1e-11, epsrel=1e-11, limit=500)[0] for a, b in pieces)

    values = [value.item() for value in parameters.values()]
    for k, name in enumerate(parameters):
        h = 1e-4
        high, low = ([v + sign * h * (i == k) for i, v in enumerate(values)] for sign in (1, -1))
        expected = (expectation(high) - expectation(low)) / (2 * h)
        torch.manual_seed(7)
        batch = torch.full((200_000,), values[k]).requires_grad_()
        others = {other: double(v) for other, v in zip(parameters, values, strict=True)}
        family(**{**others, name: batch}).rsample().tanh().sum().backward()
        error = batch.grad.mean() - expected
        assert error.abs() <= 5 * batch.grad.std() / 200_000**0.5 + 1e-6, name


@rows(DENSITIES)
def test_density_expands_and_stands_in_plates(case):
    torch.manual_seed(0)
    d = case.make()
    wide = d.expand((3,)).expand((2, 3))
    assert (wide.batch_shape, type(wide)) == ((2, 3), type(d))
    z = wide.sample()
    torch.testing.assert_close(wide.log_prob(z), d.log_prob(z))
    assert len(d.expand((4000,)).sample().unique()) > 1000 * (1 - sum(case.atoms.values())), "draws are independent"
    event = d.expand((2, 3)).to_event(1)
    assert (event.batch_shape, event.event_shape) == ((2,), (3,))
    torch.testing.assert_close(event.expand((5, 2)).log_prob(z), wide.log_prob(z).sum(-1).expand(5, 2))
    with pyro.plate("data", 7, dim=-1):
        assert pyro.sample("z", d.expand((3,)).to_event(1)).shape == (7, 3)
    if type(d).entropy is not torch.distributions.Distribution.entropy:
        assert torch.isfinite(d.entropy())


@rows({name: case for name, case in DENSITIES.items() if case.moments})
def test_density_moments(case):
    """mean and variance against quadrature."""
    d = case.make()

    def moment(k):
        pieces = itertools.pairwise(case.breaks)
        return sum(
            quad(lambda z: z**k * np.exp(d.log_prob(double(z)).item()), a, b, epsabs=1e-12, limit=500)[0]
            for a, b in pieces
        ) + sum(atom**k * mass for atom, mass in case.atoms.items())

    assert d.mean.item() == pytest.approx(moment(1), rel=1e-6, abs=1e-8)
    assert d.variance.item() == pytest.approx(moment(2) - moment(1) ** 2, rel=1e-6)


@rows(DENSITIES)
def test_density_is_finite_in_float32(case):
    d = case.make()
    small = case.of(**{name: value.float() for name, value in parameters(d).items()})
    z = torch.tensor(case.points, dtype=torch.float32).requires_grad_()
    log_prob = small.log_prob(z)
    log_prob.sum().backward()
    assert log_prob.dtype == torch.float32
    assert torch.isfinite(log_prob).all()
    assert torch.isfinite(z.grad).all()
    assert torch.isfinite(small.sample((10_000,))).all()


@rows(PRIORS)
def test_prior_density_is_scipys(case):
    for dtype, rtol in ((torch.float64, 1e-10), (torch.float32, 2e-5)):
        d = case.make(1).to(dtype).distribution()
        assert d.event_shape == (1,)
        points = POINTS[(case.lower < POINTS) & (case.pole != POINTS)]
        log_prob = d.log_prob(points.to(dtype)[:, None]).detach()
        np.testing.assert_allclose(log_prob.numpy(), case.marginal.logpdf(points.numpy()), rtol=rtol)


@rows(PRIORS)
def test_prior_has_mass_one(case):
    d = case.make(1).distribution()
    middle = case.marginal.median() if np.isinf(case.lower) else case.lower

    def density(t):  # z = middle + t / (1 - t^2) brings the tails in
        return np.exp(d.log_prob(double([middle + t / (1 - t * t)])).item()) * (1 + t * t) / (1 - t * t) ** 2

    atoms = [np.exp(d.log_prob(double([atom])).item()) for atom in case.atoms]
    cuts = ((-1, -0.5), (-0.5, 0), (0, 0.5), (0.5, 1))[0 if np.isinf(case.lower) else 2 :]
    pieces = [quad(density, a, b, epsabs=1e-10, limit=500)[0] for a, b in cuts]
    assert sum(pieces) + sum(atoms) == pytest.approx(1.0, abs=1e-6)


@rows(PRIORS)
def test_prior_draws_follow_its_density(case):
    torch.manual_seed(0)
    draws = case.make(5).distribution().sample((10_000,)).flatten()
    assert torch.isfinite(draws).all()
    assert st.kstest(without_atoms(draws, case.atoms).numpy(), case.marginal.cdf).pvalue > FALSE_ALARM


@rows(PRIORS)
def test_prior_under_a_plate(case):
    torch.manual_seed(0)
    prior = case.make(3)
    with pyro.plate("data", 100, dim=-1):
        trace = pyro.poutine.trace(prior).get_trace()
    trace.compute_log_prob()
    z = trace.nodes["z"]["value"]
    assert z.shape == (100, 3)
    elsewhere = z[~torch.isin(z, double(list(case.atoms)))]
    assert len(elsewhere.unique()) == len(elsewhere) > 0, "the draws of a plate are independent"
    assert trace.nodes["z"]["log_prob"].shape == (100,)
    expanded = prior.distribution().expand((2, 100))
    assert expanded.batch_shape == (2, 100)
    torch.testing.assert_close(expanded.log_prob(z), prior.distribution().log_prob(z).expand(2, 100))


@rows(PRIORS)
def test_prior_gradient_in_z(case):
    prior = case.make(2)
    z = double([[0.3, -4.0 if np.isinf(case.lower) else 4.0], [11.0, 1e-3]]).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: prior.distribution().log_prob(z), z)


@rows(PRIORS)
def test_prior_follows_dtype(case):
    for dtype in (torch.float32, torch.float64):
        assert case.make(2).to(dtype).distribution().sample().dtype == dtype


@pytest.mark.parametrize("d", [1, 4])
@rows({name: case for name, case in GUIDES.items() if case.log_density})
def test_guide_density_is_scipys(case, d):
    torch.manual_seed(1)
    guide = case.make(d)
    x, z = torch.randn(5, 3), torch.randn(5, d) * 3
    z = WITH_ATOMS[guide.support](z) if guide.support in WITH_ATOMS else biject_to(guide.support)(z)
    q = guide.distribution(x)
    assert (q.batch_shape, q.event_shape) == ((5,), (d,))
    heads = guide.head(x).detach().numpy()
    expected = [case.log_density(head, point, d) for head, point in zip(heads, z.numpy(), strict=True)]
    np.testing.assert_allclose(q.log_prob(z).detach().numpy(), expected, rtol=1e-10)


@rows(GUIDES)
def test_guide_draws_and_code(case):
    torch.manual_seed(2)
    guide = case.make(3)
    x = torch.randn(2, 3)
    q = guide.distribution(x)
    draws = q.rsample((100_000,))
    assert draws.shape == (100_000, 2, 3)
    if case.code is not None:
        expected = [case.code(head, 3) for head in guide.head(x).detach().numpy()]
        np.testing.assert_allclose(guide.encode(x).detach().numpy(), expected, rtol=1e-12)
    # the mean, which is the code where none is given: 6 numbers within 6 standard errors, a false alarm once in 10^8
    error = (draws.mean(0) - (guide.encode(x) if case.code is None else q.mean)).abs()
    assert (error <= 6 * draws.std(0) / 100_000**0.5 + 1e-12).all()
    if case.log_density:
        # E[q'(z)/q(z)] = 0 and E[log q] = -H(q): draws and density belong together
        log_q = q.log_prob(draws)
        assert (log_q.mean(0) + q.entropy()).abs().max() <= 6 * log_q.std(0).max() / 100_000**0.5


@rows(GUIDES)
def test_guide_gradient_reaches_every_parameter(case):
    torch.manual_seed(3)
    guide = case.make(3)
    q = guide.distribution(torch.randn(4, 3))
    z = q.rsample()
    (q.log_prob(z.detach()).sum() + (z**2).sum()).backward()
    for name, parameter in guide.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        used = parameter.grad.abs().sum(-1) > 0 if name.endswith("weight") else parameter.grad.abs() > 0
        assert used.all(), name


@rows(LIKELIHOODS)
def test_likelihood_density_is_scipys(case):
    torch.manual_seed(4)
    likelihood = case.make()
    out = torch.randn(2, likelihood.network.out_features) * 2
    x = double(case.x)
    p = likelihood(out)
    assert (p.batch_shape, p.event_shape) == ((2,), (3,))
    expected = [case.log_density(o, v) for o, v in zip(out.numpy(), x.numpy(), strict=True)]
    np.testing.assert_allclose(p.log_prob(x).detach().numpy(), expected, rtol=1e-10)


@rows(LIKELIHOODS)
def test_likelihood_mean_and_batch_shapes(case):
    torch.manual_seed(5)
    likelihood = case.make()
    out = torch.randn(4, 2, likelihood.network.out_features)
    p = likelihood(out)
    assert (p.batch_shape, p.event_shape) == ((4, 2), (3,))
    mean = likelihood.mean(out)
    assert mean.shape == (4, 2, 3)
    draws = p.sample((20_000,))
    if case.cls is likelihoods.Categorical:
        assert torch.equal(mean, draws.mode(0).values.to(mean))
    elif case.cls is likelihoods.Autoregressive:  # each symbol is the commonest after those before it
        for t in range(3):
            agree = (draws[..., :t] == mean[..., :t]).all(-1)
            ones = (draws[..., t] * agree).sum(0)
            assert torch.equal(mean[..., t], (2 * ones > agree.sum(0)).to(mean))
    else:  # 24 numbers within 6 standard errors
        assert ((draws.mean(0) - mean).abs() <= 6 * draws.std(0) / 20_000**0.5).all()


@rows(LIKELIHOODS)
def test_likelihood_is_finite_at_extreme_outputs_in_float32(case):
    likelihood, x = case.make().float(), torch.tensor(case.x).float()
    for size in (-80.0, 80.0, 0.0):
        out = torch.full((2, likelihood.network.out_features), size, dtype=torch.float32, requires_grad=True)
        log_prob = likelihood(out).log_prob(x)
        log_prob.sum().backward()
        assert log_prob.dtype == torch.float32
        assert torch.isfinite(log_prob).all()
        assert torch.isfinite(out.grad).all()


def test_bernoulli_likelihood_keeps_the_digits_of_its_tails_in_float32():
    logits = torch.linspace(-60, 60, 4001)
    for x in (0.0, 1.0):
        got = likelihoods.Bernoulli(torch.nn.Identity())(logits[:, None]).log_prob(torch.tensor([x]))
        expected = log_expit((2 * x - 1) * logits.double().numpy())
        np.testing.assert_allclose(got.numpy(), expected, rtol=4e-7)


def test_bernoulli_likelihood_has_its_gradients_at_zero_and_beside_it():
    logits = torch.tensor([[-3.0, -1e-3, 0.0, 1e-3, 3.0]], dtype=torch.float64, requires_grad=True)
    likelihood = likelihoods.Bernoulli(torch.nn.Identity())
    for x in (torch.zeros(1, 5), torch.ones(1, 5)):
        x = x.to(logits)
        (slope,) = torch.autograd.grad(likelihood(logits).log_prob(x), logits)
        np.testing.assert_allclose(slope.numpy(), x.numpy() - expit(logits.detach().numpy()), rtol=1e-12)
        assert torch.autograd.gradcheck(lambda out, x=x: likelihood(out).log_prob(x[:, ::4]), logits[:, ::4])


@rows(LIKELIHOODS)
def test_likelihood_checks_its_data(case):
    likelihood = case.make()
    x = torch.tensor(case.x)
    likelihood.check(x)
    x[1, 2] = case.bad
    with pytest.raises(ValueError, match=r"data: the value .* at index \(1, 2\) does not fit"):
        likelihood.check(x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: priors.Normal(0), "dim must be a positive whole number, got 0"),
        (lambda: priors.Normal(3, scale=-1.0), "scale must be positive and finite, got -1.0"),
        (lambda: priors.Laplace(3, scale=0.0), "scale must be positive"),
        (lambda: priors.StudentT(3, df=float("nan")), "df must be positive"),
        (lambda: guides.Normal(torch.nn.Linear(3, 4).requires_grad_(False), 0), "dim must be a positive"),
        (lambda: guides.Normal(torch.nn.Sequential(), 2), "network must say its out_features"),
        (lambda: guides.LowRankMultivariateNormal(torch.nn.Linear(3, 4), 2, rank=3), "rank must be between 1 and dim"),
        (lambda: likelihoods.Normal(torch.nn.Linear(3, 4), scale="per-row"), "scale must be a number"),
        (lambda: likelihoods.Normal(torch.nn.Sequential(), scale="per-pixel"), "out_shape"),
        (lambda: likelihoods.Normal(torch.nn.Linear(3, 4), scale=0.0), "scale must be positive"),
        (lambda: likelihoods.Normal(torch.nn.Linear(3, 4), floor=0.0), "floor must be between 0 and 1"),
        (lambda: likelihoods.Categorical(torch.nn.Linear(3, 4), num_classes=3), "does not divide"),
        (lambda: likelihoods.Categorical(torch.nn.Linear(3, 4), num_classes=1), "num_classes must be at least 2"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
