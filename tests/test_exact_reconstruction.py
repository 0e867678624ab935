"""The reconstruction term in closed form: against all gates, against many draws, and where it is refused.

False alarms: the comparisons with draws take 4 standard errors, 1 in 16,000 for each of 34 numbers, at fixed seeds.
"""

from __future__ import annotations

import itertools
import re

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.nn import functional

import pyrovae as pv
from pyrovae.distributions import LinearNormal, SpikeSlab, linear_moments
from pyrovae.likelihoods import Masked, Normal
from pyrovae.nn import Dictionary

D, OUT, N = 6, 5, 4
DRAWS = 50_000  # of each datum; 500,000 were taken once
GUIDES = (
    "spike-slab", "laplace", "rectified-normal", "gamma", "poisson", "bernoulli", "categorical", "hard-concrete",
    "thresholded-laplace", "thresholded-normal", "horseshoe", "normal", "logistic", "generalized-normal",
    "exponential", "half-normal", "sparse-mixture", "spike-slab:slab=truncated-normal", "spike-slab:slab=half-normal",
    "spike-slab:slab=exponential", "spike-slab:slab=gamma",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make(prior: str, network: str = "dictionary", likelihood: str = "normal", **options: object) -> pv.VAE:
    torch.manual_seed(0)
    vae = pv.build_vae((OUT,), D, prior=prior, likelihood=likelihood, network=network, hidden=(8,), **options)
    with torch.no_grad():  # far from the start, where gates are alike and atoms short
        for parameter in vae.parameters():
            parameter.add_(0.7 * torch.randn_like(parameter))
    return vae


def data(rows: int = N) -> torch.Tensor:
    return 2 * torch.randn(rows, OUT, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("scale", ["0.7", "shared", "per-pixel"])
def test_it_is_the_sum_over_all_gates_in_value_and_gradient(scale):
    """E over the 2^D gates; given them the code is Normal, with moments by hand."""
    vae, x = make("spike-slab", likelihood=f"normal:scale={scale}"), data()
    q = vae.posterior.distribution(x).base_dist
    atoms, bias = vae.likelihood.network.weight, vae.likelihood.network.linear.bias
    sigma = vae.likelihood.scale().expand(OUT)
    total = torch.zeros(())
    for gates in itertools.product((0.0, 1.0), repeat=D):
        g = torch.tensor(gates)
        weight = (g * q.probs + (1 - g) * (1 - q.probs)).prod(-1)
        mean = (g * q.slab.loc) @ atoms.T + bias
        covariance = torch.einsum("ij,nj,kj->nik", atoms, g * q.slab.scale**2, atoms)
        variance = covariance.diagonal(dim1=-2, dim2=-1)
        normal = torch.distributions.Normal(mean, sigma)
        total = total + (weight * (normal.log_prob(x) - 0.5 * variance / sigma**2).sum(-1)).sum()
    p = vae.prior.distribution().base_dist
    gate = torch.distributions.kl_divergence(
        torch.distributions.Bernoulli(logits=q.logits),
        torch.distributions.Bernoulli(logits=p.logits.expand_as(q.logits)),
    )
    expected = (gate + q.probs * torch.distributions.kl_divergence(q.slab, p.slab)).sum() - total
    loss = pv.ELBO().differentiable_loss(vae.model, vae.guide, x)
    parameters = [parameter for parameter in vae.parameters() if parameter.requires_grad]
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    ours, theirs = (torch.autograd.grad(value, parameters) for value in (loss, expected))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", GUIDES)
def test_it_is_the_mean_over_draws(name):
    vae, x = make(name), data(2)
    term = pv.ELBO(reconstruction="exact")
    report = term.report(vae.model, vae.guide, x)
    assert report.reconstruction == {"x": True}
    torch.manual_seed(2)
    trace = pyro.poutine.trace(vae.guide).get_trace(x)
    q = trace.nodes["z"]["fn"]  # of a hierarchy, given the sites before it
    fn = vae.likelihood(q.sample())
    draws = vae.likelihood(q.sample((DRAWS,))).log_prob(x)
    exact = fn.expected_log_prob(q, x)
    error = draws.std(0) / draws.shape[0] ** 0.5
    assert bool(((draws.mean(0) - exact).abs() <= 4 * error).all())


@pytest.mark.parametrize("name", ["spike-slab", "poisson", "categorical"])
def test_two_steps_at_one_state_have_one_gradient(name):
    vae, x = make(name), data()
    parameters = [parameter for parameter in vae.parameters() if parameter.requires_grad]

    def gradient() -> torch.Tensor:
        loss = pv.ELBO().differentiable_loss(vae.model, vae.guide, x)
        grads = torch.autograd.grad(loss, parameters, allow_unused=True)
        return torch.cat([grad.reshape(-1) for grad in grads if grad is not None])

    assert torch.equal(gradient(), gradient())
    assert pv.ELBO().report(vae.model, vae.guide, x)[-1].gradient == "exact, no draw is read"
    sampled = pv.ELBO(reconstruction="sampled").report(vae.model, vae.guide, x)
    assert sampled.reconstruction == {"x": False}
    assert "exact" not in sampled[-1].gradient


def test_missing_values_are_left_out_of_the_expectation():
    vae, x = make("spike-slab"), data()
    holes = torch.zeros(N, OUT, dtype=torch.bool).bernoulli_(0.4, generator=torch.Generator().manual_seed(3))
    masked = Masked(vae.likelihood)
    q = vae.posterior.distribution(x)
    term = masked(q.sample()).expected_log_prob(q, x.masked_fill(holes, torch.nan))
    each = vae.likelihood(q.sample()).expected_log_probs(q, x)
    torch.testing.assert_close(term, torch.where(holes, 0.0, each).sum(-1))


def test_one_hot_blocks_covary():
    """Against the covariance of all values of two blocks of three categories."""
    logits, weight = torch.randn(N, D), torch.randn(OUT, D)
    q = pv.distributions.Categorical(logits, 3)
    values = q.enumerate_support()
    probs = q.log_prob(values).exp()
    out = functional.linear(values, weight)
    mean = (probs[..., None] * out).sum(0)
    variance = (probs[..., None] * (out - mean).square()).sum(0)
    for mine, theirs in zip(linear_moments(q, weight), (mean, variance), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_plain_pyro_function_has_it_too():
    weight = torch.randn(OUT, D)
    loc, scale = torch.randn(N, D, requires_grad=True), torch.rand(N, D) + 0.5
    x = data()

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Laplace(torch.zeros(D), 1.0).to_event(1))
            pyro.sample("x", LinearNormal(z, weight, None, torch.tensor(0.5)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    elbo = pv.ELBO(reconstruction="exact")
    assert elbo.loss(model, guide, x) == elbo.loss(model, guide, x)
    many = pv.ELBO(reconstruction="sampled", num_particles=20_000).loss(model, guide, x)
    assert elbo.loss(model, guide, x) == pytest.approx(many, rel=0.02)


def test_the_scale_of_a_plate_and_several_draws_change_nothing_else():
    vae, x = make("spike-slab"), data()
    one = pv.ELBO().loss(vae.model, vae.guide, x)
    assert pv.ELBO(num_particles=3).loss(vae.model, vae.guide, x) == pytest.approx(one, rel=1e-12)

    def scaled(function):
        return pyro.poutine.scale(function, 2.0)

    assert pv.ELBO().loss(scaled(vae.model), scaled(vae.guide), x) == pytest.approx(2 * one, rel=1e-12)


def test_a_compiled_step_trains_it(recorded):
    torch.set_default_dtype(torch.float32)
    losses = []
    for compile in (False, True):
        pyro.clear_param_store()
        vae, x = make("spike-slab"), data(20).float()
        svi = pv.SVI(vae.model, vae.guide, pv.optim.adam(1e-2), pv.ELBO(), compile=compile)
        losses.append([svi.step(x) for _ in range(8)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[0][-1] < losses[0][0]


@pytest.mark.parametrize(
    ("vae", "reason"),
    [
        (lambda: make("spike-slab", network="mlp"), "the likelihood must be Normal with a linear decoder"),
        (lambda: make("spike-slab", likelihood="laplace"), "and Laplace is another one"),
        (lambda: make("student-t"), "mean and variance of the guide's StudentT at site 'z' are not known"),
        (
            lambda: make("normal", guide="multivariate-normal"),
            "the guide's MultivariateNormal at site 'z' are not known",
        ),
    ],
)
def test_what_has_no_closed_form_says_why(vae, reason):
    vae = vae()
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        pv.ELBO(reconstruction="exact").loss(vae.model, vae.guide, data())
    assert "reconstruction='exact' is not known for site 'x'" in str(caught.value)
    assert pv.ELBO().report(vae.model, vae.guide, data()).reconstruction == {"x": False}


def test_a_network_that_does_more_is_not_taken_for_linear():
    class Bent(Dictionary):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return super().forward(z).tanh()

    hooked = Dictionary(D, (OUT,))
    hooked.register_forward_hook(lambda module, args, out: 2 * out)
    z = torch.randn(N, D)
    for network in (Bent(D, (OUT,)), hooked):
        fn = Normal(network)(z)
        assert not isinstance(fn, LinearNormal)
        torch.testing.assert_close(fn.mean, network(z))
    linear = Normal(nn.Linear(D, OUT))
    assert isinstance(linear(z), LinearNormal)
    torch.testing.assert_close(linear(z).mean, linear.network(z))


def test_an_unknown_word_is_refused():
    with pytest.raises(ValueError, match="reconstruction must be auto, exact or sampled, got 'closed'"):
        pv.ELBO(reconstruction="closed")


def test_a_function_of_the_code_is_no_code():
    """A prior that hands something else than its site to the decoder is drawn."""

    class Doubled(pv.priors.Normal):
        def forward(self) -> torch.Tensor:
            return 2 * super().forward()

    likelihood = Normal(Dictionary(D, (OUT,)))
    vae = pv.VAE(Doubled(D), likelihood, pv.guides.Normal(pv.nn.MLP(OUT, [8]), D))
    with pytest.raises(ValueError, match="the decoder must read the value of a site of the guide itself"):
        pv.ELBO(reconstruction="exact").loss(vae.model, vae.guide, data())


def test_draws_of_the_distribution_are_those_of_the_normal():
    z, weight, bias = torch.randn(3, D), torch.randn(4, D), torch.randn(4)
    fn = LinearNormal(z, weight, bias, torch.tensor(0.3), (2, 2))
    normal = dist.Normal((z @ weight.T + bias).reshape(3, 2, 2), 0.3).to_event(2)
    x = normal.sample()
    torch.testing.assert_close(fn.log_prob(x), normal.log_prob(x))
    torch.testing.assert_close(fn.entropy(), normal.entropy())
    assert fn.batch_shape == normal.batch_shape
    assert fn.event_shape == normal.event_shape
    assert fn.expand((2, 3)).log_prob(x).shape == (2, 3)
    torch.manual_seed(0)
    first = fn.sample((5,))
    torch.manual_seed(0)
    assert torch.equal(first, normal.sample((5,)))


def test_a_spike_slab_of_a_heavy_tailed_slab_is_drawn():
    q = SpikeSlab(torch.zeros(N, D), dist.StudentT(3.0, torch.zeros(N, D), 1.0)).to_event(1)
    assert linear_moments(q, torch.randn(OUT, D)) is None


def leading_on(shared: bool):
    """A guide whose second site depends on z, and a model whose x is as wide as that site says."""

    def model(x):
        data = pyro.plate("data", len(x), dim=-1)
        with data:
            z = pyro.sample("z", dist.Normal(torch.zeros(D), 1.0).to_event(1))
        if shared:
            s = pyro.sample("s", dist.Normal(z.mean(), 0.1))
        with data:
            s = s if shared else pyro.sample("s", dist.Normal(z[..., 0], 0.1))
            pyro.sample("x", LinearNormal(z, torch.ones(OUT, D), None, s.abs() + 0.1), obs=x)

    def guide(x):
        data = pyro.plate("data", len(x), dim=-1)
        with data:
            z = pyro.sample("z", dist.Normal(torch.zeros(D), 1.0).to_event(1))
        if shared:
            pyro.sample("s", dist.Normal(z.mean(), 0.1))
        else:
            with data:
                pyro.sample("s", dist.Normal(z[..., 0], 0.1))

    return model, guide


def test_a_scale_that_depends_on_the_code_is_refused_or_drawn():
    """With s at its draw, an expectation over z alone is another number: 4.2 instead of 0.9 in one dimension."""
    with pytest.raises(ValueError, match="scale must be a number or of shape"):
        pv.ELBO().loss(*leading_on(shared=False), data())
    report = pv.ELBO().report(*leading_on(shared=True), data())
    assert report.reconstruction == {"x": False}
    with pytest.raises(ValueError, match="no later site of the guide outside of that plate"):
        pv.ELBO(reconstruction="exact").loss(*leading_on(shared=True), data())


def test_a_code_without_a_plate_is_drawn():
    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(D), 1.0).to_event(1))
        pyro.sample("x", LinearNormal(z, torch.ones(OUT, D), None, z.abs().sum() + 0.1), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(torch.zeros(D), 1.0).to_event(1))

    assert pv.ELBO().report(model, guide, data()[0]).reconstruction == {"x": False}


def test_sticking_the_landing_keeps_its_draws():
    estimator = pv.StickingTheLanding()
    vae, x = make("normal"), data()
    assert pv.ELBO(estimator=estimator).report(vae.model, vae.guide, x).reconstruction == {"x": False}
    with pytest.raises(ValueError, match="reconstruction='exact' has no draws, and StickingTheLanding"):
        pv.ELBO(estimator=estimator, reconstruction="exact")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": torch.ones(N, OUT)}, r"scale must be a number or of shape \(5,\)"),
        ({"scale": -1.0}, "scale"),
        ({"weight": torch.ones(OUT, D + 1)}, r"weight must be \(I, 6\) for this z"),
        ({"bias": torch.ones(N, OUT)}, r"bias must be \(5,\), the same for all data"),
        ({"out_shape": ()}, "out_shape must be the shape of 5 numbers"),
    ],
)
def test_shapes_that_are_not_those_of_a_linear_map_are_refused(arguments, message):
    given = {"reads": torch.zeros(N, D), "weight": torch.ones(OUT, D), "bias": None, "scale": 0.5, **arguments}
    with pytest.raises(ValueError, match=message):
        LinearNormal(**given, validate_args=True)


def test_a_likelihood_with_an_output_of_its_own_is_no_linear_one():
    class Positive(Normal):
        def output(self, z: torch.Tensor) -> torch.Tensor:
            return super().output(z).relu()

    network = nn.Linear(D, OUT)
    assert Positive(network).mean(torch.randn(100, D)).min() == 0
    network.forward = lambda z: nn.functional.linear(z, network.weight).relu()
    assert Normal(network).mean(torch.randn(100, D)).min() == 0
