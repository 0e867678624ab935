"""Bits, categories and counts against enumeration: a linear decoder and few enough codes to sum over.

With x|z ~ N(W z, s^2 I) the sums over every z (for counts, all but 1e-12 of the mass) give log p(x), E[z|x], the ELBO
and its gradient.
"""

import itertools
import math

import pyro
import pytest
import scipy.stats as st
import torch
from cases import Linear, double
from gradients import gradient_draws
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO

import pyrovae as pv
from pyrovae import guides, likelihoods, metrics, priors
from pyrovae.distributions import Bernoulli, Categorical, Poisson

P, NOISE = 5, 0.8


def one_hots(num_variables, num):
    eye = torch.eye(num, dtype=torch.float64)
    return torch.stack([eye[list(k)].flatten() for k in itertools.product(range(num), repeat=num_variables)])


def grid(rates):
    return torch.cartesian_prod(*(torch.arange(st.poisson(rate).isf(1e-13) + 1, dtype=torch.float64) for rate in rates))


# the prior, the law of the guide's parameter, three of its values far from the optimum, all z
FAMILIES = {
    "bits": (
        lambda: priors.Bernoulli(4, 0.3),
        lambda logits: Bernoulli(logits).to_event(1),
        {"off": [-2.5] * 4, "on": [2.5] * 4, "wrong": [3.0, -3.0, 2.0, -2.0]},
        double(list(itertools.product([0.0, 1.0], repeat=4))),
    ),
    "categories": (
        lambda: priors.Categorical(6, 3, logits=double([0.5, 0.0, -0.5])),
        lambda logits: Categorical(logits, 3),
        {"even": [0.0] * 6, "one": [2.5, 0.0, 0.0] * 2, "wrong": [-1.0, 1.5, -2.0, 0.0, -2.0, 2.0]},
        one_hots(2, 3),
    ),
    "counts": (
        lambda: priors.Poisson(3, 0.8),
        lambda log_rate: Poisson(log_rate.exp()).to_event(1),
        {"few": [-1.5] * 3, "many": [1.0] * 3, "mixed": [1.2, -2.0, 0.3]},
        grid([math.exp(1.2)] * 3),
    ),
}
UNBIASED = {
    "Trace_ELBO": Trace_ELBO(),
    "TraceGraph_ELBO": TraceGraph_ELBO(),
    "TraceEnum_ELBO": TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False),
    "ELBO": pv.ELBO(reconstruction="sampled"),
    "leave-one-out": pv.ELBO(estimator=pv.LeaveOneOut(2), reconstruction="sampled"),
    "ELBO of 3": pv.ELBO(num_particles=3, reconstruction="sampled"),
}
NOISY = ("Trace_ELBO", "TraceGraph_ELBO", "TraceEnum_ELBO")


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class FreeGuide(guides.Guide):
    """q(z|x) with a parameter of its own, the same for each datum."""

    def __init__(self, law, parameter, infer):
        super().__init__(Linear(P), len(parameter), 1)
        self.law, self.infer = law, infer
        self.parameter = torch.nn.Parameter(double(parameter))

    def forward(self, x):
        return pyro.sample("z", self.law(self.parameter).expand((len(x),)), infer=self.infer)


def model_and_data(family, start, num=2, **infer):
    prior, law, starts, _ = FAMILIES[family]
    generator = torch.Generator().manual_seed(0)
    guide = FreeGuide(law, starts[start], infer)
    decoder = pv.nn.Dictionary(len(guide.parameter), P, bias=False)
    with torch.no_grad():
        decoder.linear.weight.copy_(torch.randn(P, len(guide.parameter), generator=generator))
    x = torch.randn(num, P, generator=generator) * 1.5
    vae = pv.VAE(prior(), likelihoods.Normal(decoder, scale=NOISE), guide)
    decoder.requires_grad_(False)
    return vae, x


def log_joint(family, vae, x):
    """log p(x, z) of every z, ``(values, N)``."""
    values = FAMILIES[family][3]
    means = values @ vae.likelihood.network.weight.T
    log_x = torch.distributions.Normal(means[:, None], NOISE).log_prob(x).sum(-1)
    return vae.prior.distribution().log_prob(values)[:, None] + log_x


def exact_gradient(family, vae, x):
    """Of the negative ELBO, summed over the data."""
    _, law, _, values = FAMILIES[family]
    parameter = vae.posterior.parameter.detach().clone().requires_grad_()
    log_q = law(parameter).log_prob(values)[:, None]
    elbo = (log_q.exp() * (log_joint(family, vae, x) - log_q)).sum()
    return torch.autograd.grad(-elbo, parameter)[0]


# without pairs, ELBO is leave-one-out of two; Pyro's other two objectives are the plain score function again
CASES = [
    (name, family, start)
    for name, (family, (_, _, starts, _)) in itertools.product(UNBIASED, FAMILIES.items())
    for start in (list(starts)[2:] if name in ("TraceGraph_ELBO", "TraceEnum_ELBO") else starts)
    if family == "bits" or name not in ("leave-one-out", "ELBO of 3")
]


@pytest.mark.parametrize(("name", "family", "start"), CASES)
def test_gradient_is_the_enumerated_one(name, family, start):
    """200,000 draws, at most six numbers within 4 standard errors: a false alarm once in 2,600 seeds for each case."""
    torch.manual_seed(1)
    vae, x = model_and_data(family, start)
    exact = exact_gradient(family, vae, x)
    draws = gradient_draws(vae, x, UNBIASED[name], 100, 2000, vae.posterior.parameter)
    error = 4 * draws.std(0) / 100**0.5
    assert ((draws.mean(0) - exact).abs() <= error).all()
    assert exact.abs().max() > 0.5, "far enough from the optimum for a gradient to be seen"
    # what a bias would have to be to pass, of the largest entry; the plain score function varies more
    assert error.max() < (0.5 if name in NOISY else 0.1) * exact.abs().max()


def test_enumerated_categories_have_the_exact_gradient():
    vae, x = model_and_data("categories", "wrong", enumerate="parallel")
    TraceEnum_ELBO(max_plate_nesting=1).loss_and_grads(vae.model, vae.guide, x)
    torch.testing.assert_close(vae.posterior.parameter.grad, exact_gradient("categories", vae, x))


@pytest.mark.parametrize("family", ["bits", "counts"])
def test_bits_and_counts_of_one_site_are_not_enumerated(family):
    start = next(iter(FAMILIES[family][2]))
    vae, x = model_and_data(family, start, enumerate="parallel")
    with pytest.raises(NotImplementedError):
        TraceEnum_ELBO(max_plate_nesting=1).loss_and_grads(vae.model, vae.guide, x)


def test_antithetic_bits_vary_less_than_independent_ones():
    """Two pairs, whose second draws have no gradient, against two draws: as many passes with a gradient."""
    torch.manual_seed(2)
    vae, x = model_and_data("bits", "on")
    spread = [
        gradient_draws(vae, x, loss, 60, 500, vae.posterior.parameter).var(0).sum()
        for loss in (
            pv.ELBO(num_particles=2, reconstruction="sampled"),
            UNBIASED["leave-one-out"],
            UNBIASED["Trace_ELBO"],
        )
    ]
    assert spread == sorted(spread)


@pytest.mark.parametrize(
    ("family", "start", "estimator"),
    [
        ("bits", "on", pv.StraightThrough()),
        ("bits", "on", pv.Relaxed()),
        ("categories", "wrong", pv.StraightThrough()),
        ("categories", "wrong", pv.Relaxed()),
        ("counts", "many", pv.Relaxed(0.1)),
    ],
)
def test_biased_estimators_are_biased(family, start, estimator):
    """Their docstring says so: by more than 6 standard errors here, and with the sign of the gradient kept."""
    torch.manual_seed(3)
    vae, x = model_and_data(family, start)
    exact = exact_gradient(family, vae, x)
    draws = gradient_draws(
        vae, x, pv.ELBO(estimator=estimator, reconstruction="sampled"), 60, 1000, vae.posterior.parameter
    )
    assert ((draws.mean(0) - exact).abs() > 6 * draws.std(0) / 60**0.5).any()
    assert torch.nn.functional.cosine_similarity(draws.mean(0), exact, dim=0) > 0.5


@pytest.mark.parametrize("family", FAMILIES)
def test_log_likelihood_and_posterior_mean_are_the_enumerated_ones(family):
    torch.manual_seed(5)
    vae, x = model_and_data(family, next(iter(FAMILIES[family][2])), num=6)
    with torch.no_grad():
        vae.posterior.parameter.zero_()
    joint = log_joint(family, vae, x)
    exact = joint.logsumexp(0)
    estimates = torch.stack([metrics.log_likelihood(vae, x, 20_000) for _ in range(10)])
    error = (estimates.mean(0) - exact).abs()
    assert (error <= 5 * estimates.std(0) / 10**0.5 + 0.02).all()  # the bound itself lies up to 0.02 nats below
    bound = metrics.elbo(vae, x, 20_000)
    assert bound.kl_is_exact
    assert (bound.elbo < exact).all()
    expected = torch.softmax(joint, 0).T @ FAMILIES[family][3]
    with torch.no_grad():
        model, guide = metrics.draws.drawn(vae, x, 200_000)
        weights = torch.softmax(sum(s["log_prob"] for s in model.values()) - guide["z"]["log_prob"], 0)
        z = guide["z"]["value"]
        mean = (weights[..., None] * z).sum(0)
        error = (weights[..., None] ** 2 * (z - mean) ** 2).sum(0).sqrt()  # of a self-normalised mean
    # at most 36 numbers within 5 standard errors: a false alarm once in 50,000 seeds
    assert ((mean - expected).abs() <= 5 * error + 1e-9).all()
    assert error.max() < 0.05


def test_fit_finds_the_bits():
    """An amortised guide against P(z_j = 1|x) by enumeration of 200 data; orthogonal atoms, so that it can be exact."""
    torch.manual_seed(6)
    vae, _ = model_and_data("bits", "off")
    with torch.no_grad():
        vae.likelihood.network.linear.weight.copy_(1.5 * torch.linalg.qr(torch.randn(P, 4)).Q)
    vae.posterior = guides.Bernoulli(pv.nn.MLP(P, [64]), 4)
    x = vae.sample(2000)
    pv.fit(vae, x, epochs=40, batch_size=100, optim=pyro.optim.Adam({"lr": 5e-3}), seed=0, progress=False)
    joint = log_joint("bits", vae, x[:200])
    expected = torch.softmax(joint, 0).T @ FAMILIES["bits"][3]
    got = vae.posterior.distribution(x[:200]).base_dist.probs
    assert torch.corrcoef(torch.stack([got.flatten(), expected.flatten()]))[0, 1] > 0.98
    assert 0 < (joint.logsumexp(0) - metrics.elbo(vae, x[:200], 200).elbo).mean() < 0.2
    assert torch.equal(vae.encode(x[:200]), (got > 0.5).double())
