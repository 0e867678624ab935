"""The generic tests over the rows of bits, counts and categories: expectations are sums over the support.

Stochastic tests fix their seed; their false-alarm rate, had the seed been drawn, stands beside each.
"""

import itertools
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats as st
import torch
from cases import DISCRETE_DENSITIES, DISCRETE_GUIDES, DISCRETE_PRIORS, Linear, double
from cases.discrete import exact_kl
from pyro.infer import SVI, ReweightedWakeSleep, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO
from scipy.integrate import quad
from torch.distributions import kl_divergence

import pyrovae as pv
from pyrovae import guides, likelihoods, priors
from pyrovae.distributions import Bernoulli, Categorical, Poisson, inside_unit_interval
from pyrovae.distributions.discrete import _most_arrivals
from pyrovae.distributions.draws import DRAWS as OTHER_DRAWS

DRAWS = 100_000


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def rows(table):
    return pytest.mark.parametrize("case", table.values(), ids=table)


def check_fit(draws, values, probabilities):
    """Chi-squared over the values, those of fewer than 5 expected draws as one: a false alarm once in 10^6."""
    draws = draws.reshape(len(draws), 1, -1)
    observed = (draws == values.reshape(1, len(values), -1)).all(-1).sum(0).double().numpy()
    assert observed.sum() == len(draws)
    expected = len(draws) * probabilities / probabilities.sum()
    rare = expected < 5
    observed, expected = (np.append(v[~rare], v[rare].sum()) for v in (observed, expected))
    keep = expected > 0
    assert st.chisquare(observed[keep], expected[keep] * observed.sum() / expected[keep].sum()).pvalue > 1e-6


@rows(DISCRETE_DENSITIES)
def test_law_is_the_references_with_mass_one_and_its_moments(case):
    d, values = case.made(), double(case.values)
    log_prob = d.log_prob(values)
    np.testing.assert_allclose(log_prob.numpy(), case.log_prob(case.values), rtol=1e-10)
    assert (d.batch_shape, d.event_shape) == ((), values.shape[1:])
    assert d.support.check(values).all()
    p = log_prob.exp()
    assert p.sum().item() == pytest.approx(1.0, abs=1e-10)
    mean = torch.tensordot(p, values, 1)
    torch.testing.assert_close(d.mean, mean)
    torch.testing.assert_close(d.variance, torch.tensordot(p, (values - mean) ** 2, 1))
    assert torch.equal(d.mode, values[p.argmax()])
    if case.cls is not Poisson:
        assert d.entropy().item() == pytest.approx(-(p * log_prob).sum().item())
        assert torch.equal(d.enumerate_support().reshape(values.shape), values)
        wide = d.expand((5, 2))
        assert wide.enumerate_support().shape == (len(values), 5, 2, *d.event_shape)
        assert wide.enumerate_support(expand=False).shape == (len(values), 1, 1, *d.event_shape)


@rows(DISCRETE_DENSITIES)
def test_draws_follow_the_law(case):
    torch.manual_seed(0)
    probabilities = np.exp(case.log_prob(case.values))
    check_fit(case.made().sample((DRAWS,)), double(case.values), probabilities)
    check_fit(case.made().expand((DRAWS,)).sample(), double(case.values), probabilities)


@rows(DISCRETE_DENSITIES)
def test_gradient_of_the_log_probability(case):
    raw = double(case.raw).requires_grad_()
    values = double(case.values)
    assert torch.autograd.gradcheck(lambda raw: case.make(raw).log_prob(values), raw)


@rows(DISCRETE_DENSITIES)
def test_law_expands_stands_in_plates_and_keeps_its_draws(case):
    torch.manual_seed(0)
    d = case.made()
    wide = d.expand((3,)).expand((2, 3))
    assert (wide.batch_shape, wide.event_shape, type(wide)) == ((2, 3), d.event_shape, case.cls)
    z = wide.sample()
    torch.testing.assert_close(wide.log_prob(z), d.log_prob(z))
    event = wide.to_event(1)
    assert (event.batch_shape, event.event_shape) == ((2,), (3, *d.event_shape))
    torch.testing.assert_close(event.expand((5, 2)).log_prob(z), wide.log_prob(z).sum(-1).expand(5, 2))
    assert not event.has_rsample
    parts = event.score_parts(z)
    torch.testing.assert_close(parts.score_function, event.log_prob(z))
    assert parts.entropy_term == 0
    for name in OTHER_DRAWS:
        assert hasattr(event, name) == hasattr(d, name), name
        if hasattr(event, name):
            drawn = getattr(event, name)()
            assert (drawn[0] if name == "rsample_pair" else drawn).shape == (2, 3, *d.event_shape)
    with pyro.plate("data", 7, dim=-1):
        assert pyro.sample("z", d).shape == (7, *d.event_shape)


@rows(DISCRETE_DENSITIES)
def test_law_is_finite_at_its_extremes_in_float32(case):
    torch.manual_seed(0)
    for value in case.extreme:
        raw = torch.tensor(value, dtype=torch.float32).requires_grad_()
        d = case.make(raw)
        z = d.sample((1000,))
        assert z.dtype == torch.float32
        assert d.support.check(z).all()
        log_prob = d.log_prob(z)
        others = [getattr(d, name)() for name in OTHER_DRAWS if hasattr(d, name)]
        for output in (log_prob, *others):
            for tensor in output if isinstance(output, tuple) else (output,):
                assert torch.isfinite(tensor).all()
                if tensor.requires_grad:
                    (gradient,) = torch.autograd.grad(tensor.sum(), raw, retain_graph=True)
                    assert torch.isfinite(gradient).all()
        if case.cls is not Poisson:
            assert 0 <= d.entropy() < math.inf


def other_draws(name):
    return {key: case for key, case in DISCRETE_DENSITIES.items() if hasattr(case.cls, name)}


@rows(other_draws("rsample_pair"))
def test_both_draws_of_a_pair_follow_the_law(case):
    torch.manual_seed(1)
    first, second, score = case.made().expand((DRAWS,)).rsample_pair()
    for draws in (first, second):
        check_fit(draws, double(case.values), np.exp(case.log_prob(case.values)))
    assert ((score == 0) == (first == second)).all()
    assert torch.corrcoef(torch.stack([first, second]))[0, 1] < 0, "they are antithetic"


@rows(other_draws("rsample_straight_through"))
def test_straight_through_draws_follow_the_law_with_the_gradient_of_the_mean(case):
    torch.manual_seed(2)
    raw = double(case.raw).requires_grad_()
    z = case.make(raw).expand((DRAWS,)).rsample_straight_through()
    check_fit(z.detach().round(decimals=9), double(case.values), np.exp(case.log_prob(case.values)))
    weight = torch.linspace(1.0, 2.0, z[0].numel()).reshape(z[0].shape)
    (gradient,) = torch.autograd.grad((z[0] * weight).sum(), raw)
    (expected,) = torch.autograd.grad((case.make(raw).mean * weight).sum(), raw)
    torch.testing.assert_close(gradient, expected)


@rows(other_draws("rsample_relaxed"))
def test_relaxed_draws_are_nearest_to_draws_of_the_law(case):
    """At any temperature for bits and categories, whose noise is the law's own; for counts at a low one."""
    torch.manual_seed(3)
    for temperature in (1e-5,) if case.cls is Poisson else (0.5, 3.0):
        draws = case.made().expand((DRAWS,)).rsample_relaxed(temperature)
        check_fit(case.cell(draws), double(case.values), np.exp(case.log_prob(case.values)))
    d = case.made()
    d._validate_args = True
    with pytest.raises(ValueError, match="within the support"):
        d.log_prob(d.expand((100,)).rsample_relaxed())


@pytest.mark.parametrize("rate", [0.3, 4.0, 60.0])
@pytest.mark.parametrize("temperature", [0.1, 0.4])
def test_relaxed_counts_have_the_documented_moments(rate, temperature):
    """Campbell's theorem; mean and variance within 6 standard errors, and what the truncation takes, below 1 %."""
    torch.manual_seed(4)
    z = Poisson(double(rate)).expand((DRAWS,)).rsample_relaxed(temperature)
    mean = rate * temperature * math.log1p(math.exp(1 / temperature))
    variance = mean - rate * temperature / (1 + math.exp(-1 / temperature))
    assert abs(z.mean() - mean) < 6 * (variance / DRAWS) ** 0.5 + 0.01 * mean * (temperature > 0.1)
    squares = (z - z.mean()) ** 2
    assert abs(squares.mean() - variance) < 6 * squares.std() / DRAWS**0.5 + 0.01 * variance


@pytest.mark.parametrize("rate", [1e-6, 0.02, 1.5, 37.0, 900.0, 1.5e4])
def test_number_of_arrivals_is_the_quantile(rate):
    assert _most_arrivals(rate) == max(1, st.poisson(rate).isf(1e-6))


GRIDS = {
    "bernoulli": (Bernoulli, [-80.0, -20.0, -3.0, -1e-3, 0.0, 0.3, 0.3001, 17.0, 20.0, 79.9, 80.0]),
    "poisson": (Poisson, [1e-6, 1e-3, 0.5, 1.0, 1.00001, 1.04, 1.06, 50.0, 9e3, 1e4, 10001.0]),
    "categorical": (Categorical, [*itertools.product((-80.0, 0.0, 0.2, 80.0), (0.0, 0.1), (-80.0, 3.0))]),
}


@pytest.mark.parametrize("name", GRIDS)
def test_kl_in_float32_is_that_of_60_digits(name):
    """Every pair of a grid with its extremes: finite, not negative beyond rounding, with a finite gradient."""
    family, grid = GRIDS[name]
    for a, b in itertools.product(grid, grid):
        raw = [torch.tensor(v, dtype=torch.float32).requires_grad_() for v in (a, b)]
        q, p = (family(value) for value in raw)
        kl = kl_divergence(q, p)
        assert kl.dtype == torch.float32
        assert kl.item() == pytest.approx(exact_kl(q, p), rel=1e-4, abs=3e-7)
        kl.backward()
        assert all(torch.isfinite(value.grad).all() for value in raw)


def test_kl_from_pyros_own_laws_is_ours():
    pairs = [
        (Bernoulli(double(1.0)), dist.Bernoulli(logits=double(-2.0)), Bernoulli(double(-2.0))),
        (Poisson(double(0.3)), dist.Poisson(double(2.0)), Poisson(double(2.0))),
        (
            Categorical(double([1.0, 0.0])),
            dist.OneHotCategorical(logits=double([0.3, 0.4])),
            Categorical(double([0.3, 0.4])),
        ),
    ]
    for q, foreign, own in pairs:
        torch.testing.assert_close(kl_divergence(q, foreign), kl_divergence(q, own))
        torch.testing.assert_close(kl_divergence(foreign, q), kl_divergence(own, q))


def test_categories_that_do_not_agree():
    q, p = (Categorical(torch.zeros(6), num) for num in (2, 3))
    with pytest.raises(ValueError, match="a law of 2 categories has no KL from one of 3"):
        kl_divergence(q, p)
    with pytest.raises(NotImplementedError, match="2\\^20 values are too many"):
        Categorical(torch.zeros(40), 2).enumerate_support()
    likelihood = likelihoods.Bernoulli(pv.nn.MLP(6, [4], 5))
    with pytest.raises(ValueError, match=r"OneHot\(2\) but prior Categorical has support OneHot\(3\)"):
        pv.VAE(priors.Categorical(6, 3), likelihood, guides.Categorical(Linear(5), 6, 2))


@pytest.mark.parametrize(
    ("prior", "fits"),
    [
        (priors.Bernoulli(6), "Bernoulli"),
        (priors.Poisson(6), "Poisson"),
        (priors.Categorical(6), "Categorical"),
        (priors.Categorical(6, 3), "Categorical"),
    ],
)
def test_a_guide_on_another_set_is_refused(prior, fits):
    likelihood = likelihoods.Bernoulli(pv.nn.MLP(6, [4], 5))
    with pytest.raises(ValueError, match=f"guides that fit: {fits}$"):
        pv.VAE(prior, likelihood, guides.Normal(Linear(5), 6))


@rows(DISCRETE_PRIORS)
def test_prior_is_the_references_under_a_plate_and_follows_dtype(case):
    torch.manual_seed(0)
    for dtype, rtol in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        prior = case.make(4).to(dtype)
        with pyro.plate("data", 50, dim=-1):
            trace = pyro.poutine.trace(prior).get_trace()
        trace.compute_log_prob()
        z = trace.nodes["z"]["value"]
        assert (z.shape, z.dtype) == ((50, 4), dtype)
        assert len(z.unique(dim=0)) > 2, "draws are independent"
        log_prob = trace.nodes["z"]["log_prob"]
        expected = [case.log_density(point) for point in z.double().numpy()]
        np.testing.assert_allclose(log_prob.detach().numpy(), expected, rtol=rtol)
        parameters = list(prior.parameters())
        for gradient in torch.autograd.grad(log_prob.sum(), parameters) if parameters else ():
            assert (gradient != 0).all()


@pytest.mark.parametrize("d", [2, 4])
@rows(DISCRETE_GUIDES)
def test_guide_is_the_references(case, d):
    torch.manual_seed(1)
    guide = case.make(d)
    x = torch.randn(5, 3) * 3
    q = guide.distribution(x)
    assert (q.batch_shape, q.event_shape) == ((5,), (d,))
    z = q.sample()
    heads = guide.head(x).detach().numpy()
    expected = [case.log_density(head, point, d) for head, point in zip(heads, z.numpy(), strict=True)]
    np.testing.assert_allclose(q.log_prob(z).detach().numpy(), expected, rtol=1e-9)
    code = [case.code(head, None, d) for head in heads]
    np.testing.assert_allclose(guide.encode(x).detach().numpy(), code, rtol=1e-12)
    q.log_prob(z).sum().backward()
    for name, parameter in guide.named_parameters():
        assert (parameter.grad != 0).all(), name


def vae_of(name, prior=None):
    torch.manual_seed(0)
    parts = {
        "bernoulli": (priors.Bernoulli(4), guides.Bernoulli(Linear(5), 4)),
        "poisson": (priors.Poisson(4), guides.Poisson(Linear(5), 4)),
        "categorical": (priors.Categorical(4, 2), guides.Categorical(Linear(5), 4, 2)),
    }
    return pv.VAE(prior or parts[name][0], likelihoods.Bernoulli(pv.nn.MLP(4, [6], 5)), parts[name][1])


X = torch.bernoulli(torch.full((8, 5), 0.4, dtype=torch.float64), generator=torch.Generator().manual_seed(0))
NAMES = ("bernoulli", "poisson", "categorical")


@pytest.mark.parametrize("name", NAMES)
def test_the_objectives_that_are_right_take_it(name):
    vae = vae_of(name)
    losses = [
        pv.ELBO(),
        Trace_ELBO(),
        TraceGraph_ELBO(),
        TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False),
        ReweightedWakeSleep(num_particles=2, vectorize_particles=False),
    ]
    for loss in losses:
        assert np.isfinite(SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), loss).step(X)).all()


class Mixed(priors.Prior):
    """Two laws in a mixture, for which no KL is registered."""

    def __init__(self, laws):
        super().__init__()
        self.laws = laws

    def distribution(self):
        return dist.MixtureSameFamily(dist.Categorical(logits=torch.zeros(2)), self.laws)


MIXED = {
    "bernoulli": Mixed(dist.Bernoulli(double([[0.2], [0.7]]).expand(2, 4)).to_event(1)),
    "poisson": Mixed(dist.Poisson(double([[0.2], [3.0]]).expand(2, 4)).to_event(1)),
}


@pytest.mark.parametrize("gates", ["straight-through", "relaxed"])
@pytest.mark.parametrize("name", MIXED)
def test_biased_draws_are_refused_beside_a_sampled_kl(name, gates):
    vae = vae_of(name, MIXED[name])
    assert math.isfinite(pv.ELBO().loss_and_grads(vae.model, vae.guide, X))
    estimator = {"straight-through": pv.StraightThrough(), "relaxed": pv.Relaxed()}[gates]
    loss = pv.ELBO(estimator=estimator)
    if (name, gates) == ("poisson", "straight-through"):  # it has none, and takes the score function
        assert math.isfinite(loss.loss_and_grads(vae.model, vae.guide, X))
        return
    with pytest.raises(
        ValueError, match=f"the draws of {type(estimator).__name__} need the exact KL, and none is registered"
    ):
        loss.loss_and_grads(vae.model, vae.guide, X)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: priors.Bernoulli(0), "dim must be a positive whole number, got 0"),
        (lambda: priors.Bernoulli(3, probs=1.0), "probs must be between 0 and 1, got 1.0"),
        (lambda: priors.Bernoulli(3, learned=["logits"]), r"learned must be a collection of names of \['probs'\]"),
        (lambda: priors.Poisson(3, rate=0.0), "rate must be positive and finite, got 0.0"),
        (lambda: priors.Categorical(1), "num_categories must be a whole number of at least 2, got 1"),
        (lambda: priors.Categorical(6, 4), "num_categories must divide the number of coordinates, 4 does not divide 6"),
        (lambda: priors.Categorical(6, logits=math.inf), "logits must be finite, got inf"),
        (lambda: guides.Categorical(Linear(3), 6, 1), "num_categories must be a whole number of at least 2, got 1"),
        (lambda: guides.Categorical(Linear(3), 0), "dim must be a positive whole number, got 0"),
        (lambda: priors.RelaxedBernoulli(3, temperature=0.0), "temperature must be positive and finite, got 0.0"),
        (lambda: priors.RelaxedBernoulli(3, probs=0.0), "probs must be between 0 and 1, got 0.0"),
        (lambda: guides.RelaxedBernoulli(Linear(3), 3, -1.0), "temperature must be positive and finite, got -1.0"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_relaxed_bits_are_never_0_or_1_and_their_density_is_finite(dtype):
    """Log-odds from -80 to 80 at temperatures from 0.1 to 2, where z rounds to 0 and 1 and y does not."""
    torch.manual_seed(5)
    for temperature in (0.1, 0.5, 2.0):
        for size in (-80.0, -5.0, 0.0, 5.0, 80.0):
            guide = guides.RelaxedBernoulli(Linear(3), 4, temperature).to(dtype)
            torch.nn.init.zeros_(guide.head.weight)
            torch.nn.init.constant_(guide.head.bias, size)
            with pyro.plate("data", 5000, dim=-1):
                trace = pyro.poutine.trace(guide).get_trace(torch.zeros(5000, 3, dtype=dtype))
            trace.compute_log_prob()
            z, site = trace.nodes["_RETURN"]["value"], trace.nodes["z_logit"]
            assert ((z > 0) & (z < 1)).all()
            assert torch.isfinite(z.logit()).all()
            assert torch.isfinite(site["log_prob"]).all()
            (z.sum() + site["log_prob"].sum()).backward()
            assert torch.isfinite(guide.head.bias.grad).all()
    ends = inside_unit_interval(torch.tensor([-1e4, 1e4], dtype=dtype))
    assert ((ends > 0) & (ends < 1)).all()


def test_the_bound_of_relaxed_bits_is_exact_in_its_kl_and_below_the_likelihood():
    """log p(x) by quadrature over one relaxed bit; the importance-weighted bound of 20,000 draws meets it."""
    torch.manual_seed(6)
    vae = pv.VAE(
        priors.RelaxedBernoulli(1, 0.3),
        likelihoods.Normal(pv.nn.Dictionary(1, 2), scale=0.7),
        guides.RelaxedBernoulli(Linear(2), 1),
    )
    x = double([[0.4, -1.0], [2.0, 0.3]])
    weight, bias = vae.likelihood.network.linear.weight.detach(), vae.likelihood.network.linear.bias.detach()
    for row in x:

        def joint(y, row=row):
            z = 1 / (1 + math.exp(-y))
            noise = st.norm((weight[:, 0] * z + bias).numpy(), 0.7).logpdf(row.numpy()).sum()
            return math.exp(noise + st.logistic(math.log(0.3 / 0.7) / 0.5, 2.0).logpdf(y))

        exact = math.log(sum(quad(joint, a, b, epsabs=1e-12)[0] for a, b in ((-90, -10), (-10, 10), (10, 90))))
        bound = pv.metrics.elbo(vae, row[None], 2000)
        assert bound.kl_is_exact
        assert bound.elbo.item() < exact
        estimates = torch.stack([pv.metrics.log_likelihood(vae, row[None], 20_000) for _ in range(10)])
        # within 5 standard errors of ten, a false alarm once in 10^3, and the bound lies within 1e-3 of log p(x)
        assert abs(estimates.mean() - exact) <= 5 * estimates.std() / 10**0.5 + 1e-3
