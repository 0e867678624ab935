"""Sites that all data share: over the table of cases, and against enumeration in a model of two coordinates.

The small model has x|z ~ N(W z, s^2 I) and Normal slabs, so that p(x|v) is a sum over four patterns of zeros, and what
the activities v are in is an integral over the unit square.
"""

import itertools
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import SHARED, Linear, double
from pyro import poutine
from pyro.infer import RenyiELBO, Trace_ELBO
from pyro.poutine.util import site_is_subsample

import pyrovae as pv
from pyrovae import guides, likelihoods, metrics, priors
from pyrovae.distributions import SpikeSlab

rows = pytest.mark.parametrize("case", SHARED.values(), ids=SHARED)


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def traced(part, num, *args):
    with poutine.trace() as traced:
        shared = part.shared()
        with pyro.plate("data", num, dim=-1):
            z = part(*args, shared)
    sites = {name: site for name, site in traced.trace.iter_stochastic_nodes() if not site_is_subsample(site)}
    assert z is sites["z"]["value"]
    return sites


def log_densities(sites):
    return {name: site["fn"].log_prob(site["value"]).detach().numpy() for name, site in sites.items()}


def values(sites):
    return {name: site["value"].detach().numpy() for name, site in sites.items()}


def check_reference(sites, expected):
    assert {name: site["fn"].batch_shape for name, site in sites.items()} == {"z_active": (), "z": (7,)}
    assert {name: site["fn"].event_shape for name, site in sites.items()} == dict.fromkeys(sites, (4,))
    for name, log_prob in log_densities(sites).items():
        np.testing.assert_allclose(log_prob, expected[name], rtol=1e-9)


@rows
def test_prior_is_the_reference(case):
    torch.manual_seed(0)
    sites = traced(case.make_prior(4), 7)
    check_reference(sites, case.prior_log_density(values(sites)))


@rows
def test_guide_is_the_reference(case):
    torch.manual_seed(1)
    guide, x = case.make_guide(4), torch.randn(7, 3)
    with torch.no_grad():
        guide.raw_concentration.copy_(double([0.0, 0.1, -0.1, 0.2]))
    sites = traced(guide, 7, x)
    check_reference(sites, case.guide_log_density(guide, guide.head(x).detach().numpy(), values(sites)))


@rows
def test_prior_is_as_active_as_it_says(case):
    """20,000 draws of the shared site, with a datum each: four numbers within 5 standard errors, once in 400,000."""
    torch.manual_seed(2)
    with pyro.plate("draws", 20_000, dim=-2):
        z = traced(case.make_prior(4), 1)["z"]["value"]
    on = (z != 0).double().squeeze(-2).numpy()
    assert (abs(on.mean(0) - case.activity(4)) <= 5 * on.std(0) / 20_000**0.5).all()


@rows
def test_activities_of_a_hundred_coordinates_do_not_underflow_in_float32(case):
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(3)
    prior = case.make_prior(100)
    shared = torch.full((100,), 1e-3, requires_grad=True)  # as sticks, a last activity of 1e-300
    with pyro.plate("data", 5, dim=-1):
        z = pyro.poutine.trace(prior).get_trace(shared).nodes["z"]
    log_prob = z["fn"].log_prob(torch.ones(5, 100))
    log_prob.sum().backward()
    assert torch.isfinite(log_prob).all()
    assert torch.isfinite(shared.grad).all()
    wide = case.make_prior(100).double()
    with pyro.plate("data", 5, dim=-1):
        z = pyro.poutine.trace(wide).get_trace(shared.detach().double()).nodes["z"]
    torch.testing.assert_close(log_prob.double(), z["fn"].log_prob(torch.ones(5, 100).double()), rtol=1e-5, atol=0)


@rows
def test_gradients_reach_every_parameter(case):
    torch.manual_seed(4)
    vae = pv.VAE(case.make_prior(3), likelihoods.Normal(pv.nn.Dictionary(3, 3)), case.make_guide(3), num_data=50)
    for loss in (pv.ELBO(num_particles=2), Trace_ELBO()):
        vae.zero_grad()
        loss.loss_and_grads(vae.model, vae.guide, torch.randn(20, 3))
        for name, parameter in vae.named_parameters():
            assert torch.isfinite(parameter.grad).all(), name
            assert (parameter.grad.abs().reshape(len(parameter.grad.reshape(-1)), -1).sum(-1) > 0).any(), name
        for name, parameter in (*vae.prior.named_parameters(), *vae.posterior.named_parameters()):
            assert (parameter.grad != 0).all() or name == "head.weight", name


@rows
def test_every_objective_is_one_bound(case):
    """At one set of weights, on 40 of 100 data: means within 5 standard errors of each other, once in 10^6."""
    torch.manual_seed(5)
    vae = pv.VAE(case.make_prior(2), likelihoods.Normal(pv.nn.Dictionary(2, 3)), case.make_guide(2), num_data=100)
    x = torch.randn(40, 3)
    vectorised = Trace_ELBO(num_particles=20, vectorize_particles=True, max_plate_nesting=1)
    objectives = [pv.ELBO(num_particles=20), vectorised, pv.ELBO()]
    with torch.no_grad():
        losses = np.array([[o.loss(vae.model, vae.guide, x) for _ in range(100)] for o in objectives])
    for a, b in itertools.pairwise(losses):
        assert abs(a.mean() - b.mean()) <= 5 * math.hypot(a.std(ddof=1), b.std(ddof=1)) / 10
    assert losses[0].std() < losses[1].std(), "the exact KLs have less noise"


# against enumeration

W = double([[1.0, -0.5], [0.4, 1.2], [-0.8, 0.3]])
NOISE, SCALE, D = 0.7, 1.5, 2
PATTERNS = double(list(itertools.product([0.0, 1.0], repeat=D)))
X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1.2
PRIORS = {
    "beta-spike-slab": (lambda: priors.BetaSpikeSlab(D, 2.0, 3.0, scale=SCALE), (2.0, 3.0), lambda v: v),
    "beta-bernoulli": (lambda: priors.BetaBernoulli(D, 4.0, scale=SCALE), (4.0, 1.0), lambda v: v.cumprod(-1)),
}


class FreeGuide(guides.BetaSpikeSlab):
    """q(z|x) with parameters of its own, the same for each datum."""

    def __init__(self):
        super().__init__(Linear(3), D, median=0.7)
        self.logits = torch.nn.Parameter(double([1.0, -1.5]))
        self.register_buffer("loc", double([0.5, -0.7]))
        self.register_buffer("deviation", double([0.6, 0.9]))

    def distribution(self, x):
        return SpikeSlab(self.logits, dist.Normal(self.loc, self.deviation)).expand((len(x), D)).to_event(1)


def small(name):
    likelihood = likelihoods.Normal(pv.nn.Dictionary(D, 3, bias=False), scale=NOISE)
    vae = pv.VAE(PRIORS[name][0](), likelihood, FreeGuide(), num_data=len(X)).double()
    vae.likelihood.scale.value.fill_(NOISE)
    with torch.no_grad():
        vae.likelihood.network.linear.weight.copy_(W)
        vae.posterior.raw_concentration.copy_(double([0.05, 0.12]))
    vae.likelihood.requires_grad_(False)
    return vae


def square():
    """Nodes and log-weights of Gauss-Legendre on the unit square."""
    node, weight = map(torch.from_numpy, np.polynomial.legendre.leggauss(150))
    u = torch.cartesian_prod((node + 1) / 2, (node + 1) / 2)
    return u, torch.cartesian_prod(weight / 2, weight / 2).log().sum(-1)


def log_gates(patterns, active):
    return (patterns * active.log() + (1 - patterns) * torch.log1p(-active)).sum(-1)


def log_p_given_activity(x, active):
    """log p(x|π), ``(M, N)``, by the four patterns."""
    terms = []
    for b in PATTERNS:
        covariance = NOISE**2 * torch.eye(3) + SCALE**2 * (W * b) @ (W * b).T
        marginal = torch.distributions.MultivariateNormal(torch.zeros(3), covariance).log_prob(x)
        terms.append(log_gates(b, active)[:, None] + marginal)
    return torch.stack(terms).logsumexp(0)


def factors(vae):
    m, a = torch.sigmoid(10 * vae.posterior.raw_median), torch.exp(10 * vae.posterior.raw_concentration)
    return a, math.log(2) / -torch.log1p(-(m**a))


def posterior_activities(name, vae):
    """π at the nodes of the square, as quantiles of the guide's factors."""
    a, b = factors(vae)
    u, log_weight = square()
    v = (1 - (1 - u) ** (1 / b)) ** (1 / a)
    return v, PRIORS[name][2](v), log_weight


def exact_log_p(name):
    (a, b), u_and_weight = PRIORS[name][1], square()
    u, log_weight = u_and_weight
    log_prior = torch.distributions.Beta(a, b).log_prob(u).sum(-1)
    return (log_weight + log_prior + log_p_given_activity(X, PRIORS[name][2](u)).sum(-1)).logsumexp(0)


def exact_bounds(name, vae):
    """E_q[local bound] of each datum, and KL(q(v) || p(v))."""
    guide = vae.posterior
    v, active, log_weight = posterior_activities(name, vae)
    weight = log_weight.exp()
    gamma, local = guide.logits.sigmoid(), 0.0
    for b in PATTERNS:
        probability = log_gates(b, gamma).exp()
        residual = ((X - (b * guide.loc) @ W.T) ** 2).sum(-1) + (W**2 @ (b * guide.deviation**2)).sum()
        local = local + probability * (-residual / (2 * NOISE**2) - 1.5 * math.log(2 * math.pi * NOISE**2))
    gates = gamma * (gamma.log() - active.log()) + (1 - gamma) * ((1 - gamma).log() - torch.log1p(-active))
    slabs = (SCALE / guide.deviation).log() + (guide.deviation**2 + guide.loc**2) / (2 * SCALE**2) - 0.5
    a, b = factors(vae)
    log_q = torch.log(a * b) + (a - 1) * v.log() + (b - 1) * torch.log1p(-(v**a))
    log_ratio = log_q - torch.distributions.Beta(*PRIORS[name][1]).log_prob(v)
    return local - (weight @ gates + gamma * slabs).sum(), (weight @ log_ratio).sum()


OBJECTIVES = {
    "pv.ELBO": lambda: pv.ELBO(num_particles=400),
    "leave-one-out": lambda: pv.ELBO(estimator=pv.LeaveOneOut(400)),
    "Trace_ELBO": lambda: Trace_ELBO(num_particles=400, vectorize_particles=True, max_plate_nesting=1),
}
CASES = [pytest.param(name, objective, id=f"{name}, {objective}") for name in PRIORS for objective in OBJECTIVES]


@pytest.mark.parametrize(("name", "objective"), CASES)
def test_loss_and_gradient_are_the_exact_bounds(name, objective):
    """Value and six derivatives within 4 standard errors of 60 means of 400 draws: an alarm once in 2,000 seeds."""
    torch.manual_seed(1)
    vae, loss = small(name), OBJECTIVES[objective]()
    parameters = [vae.posterior.raw_median, vae.posterior.raw_concentration, vae.posterior.logits]

    def exact():
        with torch.no_grad():
            local, shared = exact_bounds(name, vae)
            return (local.sum() - shared).item()

    expected = []
    for parameter in parameters:
        for i in range(D):
            both = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter[i] += sign * 1e-5
                both.append(exact())
                with torch.no_grad():
                    parameter[i] -= sign * 1e-5
            expected.append(-(both[0] - both[1]) / 2e-5)
    assert exact() < exact_log_p(name).item()
    losses, draws = [], []
    for _ in range(60):
        vae.zero_grad()
        losses.append(loss.loss_and_grads(vae.model, vae.guide, X))
        draws.append(torch.cat([p.grad for p in parameters]))
    losses, draws = double(losses), torch.stack(draws)
    assert abs(losses.mean() + exact()) <= 4 * losses.std() / 60**0.5
    error = (draws.mean(0) - double(expected)).abs()
    assert (error <= 4 * draws.std(0) / 60**0.5).all()
    assert (double(expected).abs() > 5 * draws.std(0) / 60**0.5).sum() >= 4, "gradients are large enough to be seen"


@pytest.mark.parametrize(("name", "objective"), CASES)
def test_batches_add_up_to_the_whole(name, objective):
    """Three batches of two rows: the sum of their losses, in expectation, within 4 standard errors; once in 16,000."""
    torch.manual_seed(2)
    vae, loss = small(name), OBJECTIVES[objective]()
    local, shared = exact_bounds(name, vae)
    with torch.no_grad():
        sums = double([sum(loss.loss(vae.model, vae.guide, x) for x in X.split(2)) for _ in range(100)])
    assert abs(sums.mean() + (local.sum() - shared).item()) <= 4 * sums.std() / 10
    assert 4 * sums.std() / 10 < 0.3 * shared, "the shared KL would be missed"


@pytest.mark.parametrize("name", PRIORS)
def test_metrics_bound_the_predictive_density(name):
    """log E_q(v) p(x|v) of each datum by quadrature, and E_q(v) of the bound given v; within 5 standard errors."""
    torch.manual_seed(3)
    vae = small(name)
    with torch.no_grad():
        _, active, log_weight = posterior_activities(name, vae)
        predictive = (log_weight[:, None] + log_p_given_activity(X, active)).logsumexp(0)
        local, _ = exact_bounds(name, vae)
    bounds = torch.stack([metrics.elbo(vae, X, 500).elbo for _ in range(30)])
    assert metrics.elbo(vae, X, 5).kl_is_exact
    assert ((bounds.mean(0) - local).abs() <= 5 * bounds.std(0) / 30**0.5).all()
    assert (local < predictive).all()
    with torch.no_grad():  # weights of little variance
        vae.posterior.logits.zero_()
        vae.posterior.loc.zero_()
        vae.posterior.deviation.fill_(1.2)
    estimates = torch.stack([metrics.log_likelihood(vae, X, 20_000) for _ in range(10)])
    error = (estimates.mean(0) - predictive).abs()
    assert (error <= 5 * estimates.std(0) / 10**0.5 + 0.02).all()  # the bound lies a little below
    assert 5 * estimates.std(0).max() / 10**0.5 < 0.1


@pytest.mark.parametrize("name", PRIORS)
def test_samples_have_the_learned_activities(name):
    """Guide factors of nearly no width, far from the prior: 20,000 codes within 5 standard errors and that width."""
    torch.manual_seed(4)
    vae = small(name)
    with torch.no_grad():
        vae.posterior.raw_median.copy_(torch.logit(double([0.3, 0.8])) / 10)
        vae.posterior.raw_concentration.fill_(math.log(2000.0) / 10)  # cut to what float32 can hold
    on = (vae.sample_prior(20_000) != 0).double().mean(0)
    expected = PRIORS[name][2](double([0.3, 0.8]))
    assert ((on - expected).abs() < 0.02).all()
    x = vae.sample(20_000)
    second_moment = (x**2).mean(0)
    torch.testing.assert_close(second_moment, NOISE**2 + SCALE**2 * (W**2 @ expected), rtol=0.06, atol=0)


# what is refused, kept, and left to sampling


def test_num_data_is_asked_for():
    with pytest.raises(ValueError, match=r"num_data must be given.*BetaBernoulli has"):
        pv.build_vae((5,), 3, prior="beta-bernoulli", hidden=(4,))
    for bad in (0, 2.5):
        with pytest.raises(ValueError, match="num_data must be a positive whole number"):
            pv.build_vae((5,), 3, hidden=(4,), num_data=bad)
    vae = pv.build_vae((5,), 3, prior="beta-spike-slab", hidden=(4,), num_data=30)
    with pytest.raises(ValueError, match="num_data of the VAE is 30, and the training data have 20 rows"):
        pv.fit(vae, torch.zeros(20, 5), epochs=1, progress=False)


def test_a_guide_without_the_shared_site_is_refused():
    network = pv.nn.MLP(5, [4])
    vae = pv.VAE(
        priors.BetaBernoulli(3), likelihoods.Bernoulli(pv.nn.MLP(3, [4], 5)), guides.BetaSpikeSlab(network, 3), 30
    )
    vae.posterior = guides.SpikeSlab(network, 3)
    x = torch.zeros(6, 5)
    for loss in (pv.ELBO(), Trace_ELBO()):
        with pytest.raises(ValueError, match=r"guide samples the sites \['z'\], the model \['z', 'z_active'\]"):
            pv.check(vae.model, vae.guide, loss, x)
    with pytest.raises(ValueError, match=r"prior BetaBernoulli samples sites .* guide SpikeSlab does not"):
        pv.VAE(vae.prior, vae.likelihood, vae.posterior, 30)
    with pytest.raises(ValueError, match=r"guide BetaSpikeSlab samples sites .* prior SpikeSlab does not"):
        pv.build_vae((5,), 3, prior="spike-slab", guide="beta-spike-slab", hidden=(4,))


def test_s16_scaled_importance_weights():
    vae = shared_location(guide_law=lambda loc: dist.Normal(loc, 0.3))
    x = torch.randn(10, 2)
    renyi = RenyiELBO(num_particles=2)
    assert math.isfinite(renyi.loss(vae.model, vae.guide, x))
    with pytest.raises(ValueError, match="RenyiELBO puts into the importance weights"):
        pv.check(vae.model, vae.guide, renyi, x[:4])


def test_a_local_site_outside_the_plate_is_refused():
    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(x, 1.0))

    with pytest.raises(ValueError, match=r"its plates none do not cover the dims \[-1\]: open a pyro.plate"):
        pv.ELBO().loss(model, guide, torch.randn(4))


class SharedLocation(priors.Prior):
    def shared(self):
        return pyro.sample("z_loc", dist.Laplace(torch.zeros(2), 1.0).to_event(1))

    def forward(self, shared):
        return pyro.sample("z", dist.Normal(shared, 1.0).to_event(1))


class SharedLocationGuide(guides.Normal):
    def __init__(self, law):
        super().__init__(Linear(2), 2)
        self.law = law
        self.location = torch.nn.Parameter(double([0.4, -0.2]))

    def shared(self):
        return pyro.sample("z_loc", self.law(self.location).to_event(1))

    def forward(self, x, shared):
        return super().forward(x)


def shared_location(guide_law):
    torch.manual_seed(0)
    return pv.VAE(SharedLocation(), likelihoods.Normal(pv.nn.Dictionary(2, 2)), SharedLocationGuide(guide_law), 10)


def test_a_shared_kl_that_is_not_known_is_sampled():
    """Gumbel from Laplace: the same value as Trace_ELBO's within 5 standard errors, on 4 of 10 rows."""
    vae = shared_location(guide_law=lambda loc: dist.Gumbel(loc, 0.5))
    x = torch.randn(4, 2)
    vectorised = Trace_ELBO(num_particles=100, vectorize_particles=True, max_plate_nesting=1)
    with torch.no_grad():
        losses = [
            np.array([o.loss(vae.model, vae.guide, x) for _ in range(100)])
            for o in (pv.ELBO(num_particles=100), vectorised)
        ]
    assert abs(losses[0].mean() - losses[1].mean()) <= 5 * math.hypot(*(v.std() for v in losses)) / 10


def test_a_shared_site_without_a_path_has_the_gradient_of_enumeration():
    """One coin for all data, which the guide alone samples; 400 gradients within 4 standard errors."""
    torch.manual_seed(0)
    x = torch.randn(5) + 0.3
    logit = torch.nn.Parameter(double(0.4))

    def model(x):
        side = pyro.sample("side", dist.Bernoulli(double(0.3)))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("x", dist.Normal(2 * side - 1, 1.5), obs=x)

    def guide(x):
        pyro.sample("side", dist.Bernoulli(logits=logit))

    q = logit.sigmoid()
    sides = torch.stack([dist.Normal(side, 1.5).log_prob(x).sum() for side in (1.0, -1.0)])
    kl = q * (q / 0.3).log() + (1 - q) * ((1 - q) / 0.7).log()
    exact = -(q * sides[0] + (1 - q) * sides[1] - kl)
    (expected,) = torch.autograd.grad(exact, logit)
    loss, gradients, values_ = pv.ELBO(num_particles=20), [], []
    for _ in range(400):
        logit.grad = None
        values_.append(loss.loss_and_grads(model, guide, x))
        gradients.append(logit.grad.clone())
    for draws, mean in ((torch.stack(gradients), expected), (double(values_), exact.detach())):
        assert (draws.mean() - mean).abs() <= 4 * draws.std() / 20
    assert expected.abs() > 8 * torch.stack(gradients).std() / 20


def test_save_load_and_encode(tmp_path):
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    vae = pv.build_vae((5,), 3, prior="beta-bernoulli", hidden=(4,), num_data=30)
    x = torch.bernoulli(torch.full((30, 5), 0.4))
    pv.fit(vae, x, epochs=2, progress=False, seed=0)
    pv.save(vae, tmp_path)
    again = pv.load(tmp_path)
    assert again.num_data == 30
    assert torch.equal(again.encode(x), vae.encode(x))
    assert torch.equal(again.posterior.active().mean, vae.posterior.active().mean)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: priors.BetaBernoulli(3, 0.0), "concentration must be positive"),
        (lambda: priors.BetaSpikeSlab(3, 1.0, -1.0), "concentration0 must be positive"),
        (lambda: priors.BetaSpikeSlab(0), "dim must be a positive whole number"),
        (lambda: priors.BetaBernoulli(3, slab="cauchy"), "slab must be one of"),
        (lambda: priors.BetaBernoulli(3, learned=["df"]), "learned must be a collection of names"),
        (lambda: guides.BetaSpikeSlab(Linear(3), 3, median=1.0), "median must be between 0 and 1"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_training_finds_the_activities():
    """Digits under the buffet: the held-out bound gains 10 nats, and the activities are those of the codes."""
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    data = pv.data.digits()
    vae = pv.build_vae((64,), 8, prior="beta-bernoulli", hidden=(64,), num_data=len(data.train))
    before = metrics.elbo(vae, data.test, 20).elbo.mean()
    pv.fit(vae, data, epochs=40, seed=0, progress=False, optim=pyro.optim.Adam({"lr": 6e-3}))
    assert metrics.elbo(vae, data.test, 20).elbo.mean() - before > 10
    active = vae.posterior.active().mean.detach().cumprod(0)
    with torch.no_grad():
        occupancy = (vae.posterior.distribution(data.train).sample((5,)) != 0).float().mean((0, 1))
    assert (active.diff() < 0).all()
    assert (active - occupancy).abs().max() < 0.1
