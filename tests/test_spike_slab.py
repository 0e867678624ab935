"""Spike-and-slab against enumeration: a linear decoder and four gates, so 16 patterns of zeros.

With x|z ~ N(W z, s^2 I) and Normal slabs, p(x, b) is Normal for each pattern b of gates, so that log p(x),
P(z_j != 0|x), the ELBO and its gradient in the gates' logits are sums over patterns.
"""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import Linear, double
from gradients import gradient_draws
from pyro.infer import (
    SVI,
    EnergyDistance,
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)

import pyrovae as pv
from pyrovae import guides, likelihoods, metrics, priors
from pyrovae.distributions import SpikeSlab

D, P, NOISE, ACTIVE, SCALE = 4, 5, 0.6, 0.3, 1.5
PATTERNS = double(list(itertools.product([0.0, 1.0], repeat=D)))
# logits of the guide's gates, far from the posterior in three ways: all shut, all open, the wrong ones open
STARTS = {"shut": -2.5, "open": 2.5, "wrong": None}


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class FreeGuide(guides.SpikeSlab):
    """q(z|x) with parameters of its own, the same for each datum."""

    def __init__(self, logits):
        super().__init__(Linear(P), D)
        self.logits = torch.nn.Parameter(logits)
        self.loc = torch.nn.Parameter(double([0.5, -0.7, 1.1, 0.2]))
        self.raw = torch.nn.Parameter(double([-0.5, 0.3, 0.0, -1.0]))

    def distribution(self, x):
        slab = dist.Normal(self.loc, self.raw.exp())
        return SpikeSlab(self.logits, slab).expand((len(x), D)).to_event(1)


def model_and_data(start="shut", num=2):
    generator = torch.Generator().manual_seed(0)
    decoder = pv.nn.Dictionary(D, P, bias=False)
    with torch.no_grad():
        decoder.linear.weight.copy_(torch.randn(P, D, generator=generator))
    x = torch.randn(num, P, generator=generator) * 1.5
    logits = double([3.0, -3.0, 2.0, -2.0]) if start == "wrong" else torch.full((D,), STARTS[start])
    vae = pv.VAE(priors.SpikeSlab(D, ACTIVE, scale=SCALE), likelihoods.Normal(decoder, scale=NOISE), FreeGuide(logits))
    decoder.requires_grad_(False)
    return vae, x


def log_joint_of_patterns(vae, x):
    """log p(x, b), ``(patterns, N)``: the slab is integrated out."""
    weight = vae.likelihood.network.weight
    values = []
    for b in PATTERNS:
        on = weight * b
        covariance = NOISE**2 * torch.eye(P) + SCALE**2 * on @ on.T
        log_prior = (b * math.log(ACTIVE) + (1 - b) * math.log1p(-ACTIVE)).sum()
        values.append(log_prior + torch.distributions.MultivariateNormal(torch.zeros(P), covariance).log_prob(x))
    return torch.stack(values)


def exact_elbo(vae, x, logits):
    """E_q log p(x|z) - KL by enumeration of the gates; given them log p(x|z) is quadratic in the slabs."""
    weight, loc, variance = vae.likelihood.network.weight, vae.posterior.loc, vae.posterior.raw.exp() ** 2
    total = 0.0
    for b in PATTERNS:
        probability = torch.where(b == 1, logits.sigmoid(), (-logits).sigmoid()).prod()
        residual = ((x - (b * loc) @ weight.T) ** 2).sum(-1) + (weight**2 @ (b * variance)).sum()
        total = total + probability * (-residual / (2 * NOISE**2) - P / 2 * math.log(2 * math.pi * NOISE**2))
    gamma = logits.sigmoid()
    gates = gamma * (gamma / ACTIVE).log() + (1 - gamma) * ((1 - gamma) / (1 - ACTIVE)).log()
    slabs = (SCALE / variance.sqrt()).log() + (variance + loc**2) / (2 * SCALE**2) - 0.5
    return (total - (gates + gamma * slabs).sum()).sum()


UNBIASED = {
    "Trace_ELBO": Trace_ELBO(),
    "disarm": pv.ELBO(reconstruction="sampled"),
    "leave-one-out": pv.ELBO(estimator=pv.LeaveOneOut(2), reconstruction="sampled"),
    "disarm of 3": pv.ELBO(num_particles=3, reconstruction="sampled"),
    "leave-one-out of 4": pv.ELBO(estimator=pv.LeaveOneOut(4), reconstruction="sampled"),
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", UNBIASED)
def test_gate_gradient_is_the_enumerated_one(name, start):
    """200,000 draws, four gates within 4 standard errors: a false alarm once in 4,000 seeds for each case."""
    torch.manual_seed(1)
    vae, x = model_and_data(start)
    logits = vae.posterior.logits.detach().clone().requires_grad_()
    (exact,) = torch.autograd.grad(-exact_elbo(vae, x, logits), logits)
    draws = gradient_draws(vae, x, UNBIASED[name], 100, 2000, vae.posterior.logits)
    error = (draws.mean(0) - exact).abs()
    assert (error <= 4 * draws.std(0) / 100**0.5).all()
    assert exact.abs().max() > 0.5, "far enough from the optimum for a gradient to be seen"
    # a bias of 6 % of the largest entry would be seen, but by the plain score function, whose draws vary more
    if name != "Trace_ELBO":
        assert (4 * draws.std(0) / 100**0.5 < 0.06 * exact.abs().max()).all()


def test_variance_of_the_estimators_is_in_the_documented_order():
    torch.manual_seed(2)
    vae, x = model_and_data("open")
    spread = {
        name: gradient_draws(vae, x, loss, 60, 500, vae.posterior.logits).var(0).sum()
        for name, loss in UNBIASED.items()
    }
    assert spread["disarm"] < spread["leave-one-out"] < spread["Trace_ELBO"]


@pytest.mark.parametrize("estimator", [pv.StraightThrough(), pv.Relaxed()])
def test_biased_estimators_are_biased(estimator):
    """Their docstring says so: by more than 6 standard errors here, and with the sign of the gradient kept."""
    torch.manual_seed(3)
    vae, x = model_and_data("open")
    logits = vae.posterior.logits.detach().clone().requires_grad_()
    (exact,) = torch.autograd.grad(-exact_elbo(vae, x, logits), logits)
    draws = gradient_draws(
        vae, x, pv.ELBO(estimator=estimator, reconstruction="sampled"), 60, 1000, vae.posterior.logits
    )
    assert ((draws.mean(0) - exact).abs() > 6 * draws.std(0) / 60**0.5).any()
    assert torch.nn.functional.cosine_similarity(draws.mean(0), exact, dim=0) > 0.5


def test_slab_gradients_are_the_enumerated_ones():
    torch.manual_seed(4)
    vae, x = model_and_data("open")
    slab = [vae.posterior.loc, vae.posterior.raw]
    exact = torch.autograd.grad(-exact_elbo(vae, x, vae.posterior.logits), slab)
    for loss in (pv.ELBO(reconstruction="sampled"), Trace_ELBO()):
        draws = [gradient_draws(vae, x, loss, 100, 500, parameter) for parameter in slab]
        for draw, expected in zip(draws, exact, strict=True):
            # 16 numbers in all within 5 standard errors: a false alarm once in 10^5 seeds
            assert ((draw.mean(0) - expected).abs() <= 5 * draw.std(0) / 100**0.5).all()
            assert (5 * draw.std(0) / 100**0.5 < 0.1 * expected.abs().max()).all()


@pytest.mark.parametrize("estimator", [pv.DisARM(), pv.LeaveOneOut()])
def test_gate_gradient_under_a_scale_is_scaled_once(estimator):
    """A weight of 1/4 around model and guide: within 4 standard errors of a quarter, an alarm once in 4,000 seeds."""
    torch.manual_seed(7)
    vae, x = model_and_data("open")
    logits = vae.posterior.logits.detach().clone().requires_grad_()
    (exact,) = torch.autograd.grad(-exact_elbo(vae, x, logits), logits)
    model, guide = (pyro.poutine.scale(function, 0.25) for function in (vae.model, vae.guide))
    draws, loss = [], pv.ELBO(estimator=estimator, reconstruction="sampled")
    for _ in range(100):
        vae.posterior.zero_grad()
        loss.loss_and_grads(model, guide, x.repeat(1000, 1))
        draws.append(vae.posterior.logits.grad / 1000)
    draws = torch.stack(draws)
    assert ((draws.mean(0) - exact / 4).abs() <= 4 * draws.std(0) / 10).all()
    assert (4 * draws.std(0) / 10 < 0.1 * exact.abs().max()).all()


def test_log_likelihood_and_posterior_activity_are_the_enumerated_ones():
    vae, x = model_and_data("open", num=6)
    torch.manual_seed(5)
    log_joint = log_joint_of_patterns(vae, x)
    exact = log_joint.logsumexp(0)
    with torch.no_grad():
        vae.posterior.loc.zero_()
        vae.posterior.raw.fill_(math.log(SCALE))
        vae.posterior.logits.zero_()
    estimates = torch.stack([metrics.log_likelihood(vae, x, 20_000) for _ in range(10)])
    error = estimates.mean(0) - exact
    assert (error.abs() <= 5 * estimates.std(0) / 10**0.5 + 0.02).all()  # the bound itself lies 0.02 nats below
    bound = metrics.elbo(vae, x, 20_000)
    assert bound.kl_is_exact
    assert (bound.elbo < exact).all()
    # P(z_j != 0|x) by the same importance weights, against enumeration
    expected = torch.softmax(log_joint, 0).T @ PATTERNS
    with torch.no_grad():
        model, guide = metrics.draws.drawn(vae, x, 200_000)
        weights = torch.softmax(sum(s["log_prob"] for s in model.values()) - guide["z"]["log_prob"], 0)
        on = (guide["z"]["value"] != 0).double()
        active = (weights[..., None] * on).sum(0)
        error = (weights[..., None] ** 2 * (on - active) ** 2).sum(0).sqrt()  # of a self-normalised mean
    # 24 numbers within 5 standard errors: a false alarm once in 70,000 seeds
    assert ((active - expected).abs() <= 5 * error).all()
    assert error.max() < 0.05


def test_fit_finds_the_gates():
    """An amortised guide, trained from shut gates, against P(z_j != 0|x) by enumeration of 200 data.

    The atoms are orthogonal, so the posterior has independent coordinates and the guide can be exact.
    """
    torch.manual_seed(6)
    vae, _ = model_and_data()
    with torch.no_grad():
        vae.likelihood.network.linear.weight.copy_(1.5 * torch.linalg.qr(torch.randn(P, D)).Q)
    vae.posterior = guides.SpikeSlab(pv.nn.MLP(P, [64]), D)
    x = vae.sample(2000)
    with torch.no_grad():
        vae.posterior.head.bias[2 * D :] = -3.0
    pv.fit(vae, x, epochs=60, batch_size=100, optim=pyro.optim.Adam({"lr": 5e-3}), seed=0, progress=False)
    log_joint = log_joint_of_patterns(vae, x[:200])
    expected = torch.softmax(log_joint, 0).T @ PATTERNS
    got = vae.posterior.distribution(x[:200]).base_dist.probs
    assert torch.corrcoef(torch.stack([got.flatten(), expected.flatten()]))[0, 1] > 0.98
    gap = (log_joint.logsumexp(0) - metrics.elbo(vae, x[:200], 200).elbo).mean()
    assert 0 < gap < 0.2
    z = vae.encode(x)
    assert 0.4 < (z == 0).double().mean() < 0.95


OTHERS = [
    TraceGraph_ELBO(),
    TraceMeanField_ELBO(),
    TraceEnum_ELBO(max_plate_nesting=1),
    RenyiELBO(),
    EnergyDistance(),
]


@pytest.mark.parametrize("loss", OTHERS, ids=lambda loss: type(loss).__name__)
def test_objectives_that_would_be_biased_say_which_are_not(loss):
    vae, x = model_and_data()
    with pytest.raises(ValueError, match=r"score_parts of SpikeSlab.*use pyrovae.ELBO, Trace_ELBO"):
        pv.check(vae.model, vae.guide, loss, x)


def test_wake_sleep_takes_it():
    vae, x = model_and_data()
    loss = ReweightedWakeSleep(num_particles=3, vectorize_particles=False)
    assert all(map(math.isfinite, SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), loss).step(x)))


def test_a_normal_guide_has_another_measure():
    with pytest.raises(
        ValueError, match=r"support Real\(\) but prior SpikeSlab has support RealWithAtom.*fit: .*SpikeSlab"
    ):
        pv.VAE(priors.SpikeSlab(2), likelihoods.Normal(pv.nn.MLP(2, [3], P)), guides.Normal(Linear(P), 2))


def test_gradients_at_zero_are_finite_for_every_slab():
    for slab in (dist.Normal(0.0, 1.0), dist.Laplace(0.0, 1.0), dist.StudentT(2.0, 0.0, 1.0)):
        logits = double(0.3).requires_grad_()
        z = double([0.0, 1e-300, -2.0]).requires_grad_()
        SpikeSlab(logits, slab).log_prob(z).sum().backward()
        assert torch.isfinite(z.grad).all()
        assert torch.isfinite(logits.grad)


@pytest.mark.parametrize("active", [0.0, 1.0, -0.1, float("nan")])
def test_activity_is_checked(active):
    with pytest.raises(ValueError, match="active must be between 0 and 1"):
        priors.SpikeSlab(3, active=active)


def test_other_arguments_are_checked():
    with pytest.raises(ValueError, match=r"slab must be one of normal, laplace, .*, gamma, got 'nrmal'"):
        priors.SpikeSlab(3, slab="nrmal")
    with pytest.raises(ValueError, match="scale must be positive and finite, got -1"):
        priors.SpikeSlab(3, scale=-1.0)
    with pytest.raises(ValueError, match=r"learned must be a collection of names of \['active', 'loc', 'scale'\]"):
        priors.SpikeSlab(3, learned=["df"])
    with pytest.raises(TypeError, match=r"estimator must be such as pyrovae.DisARM\(\), got 'concrete'"):
        pv.ELBO(estimator="concrete")
    with pytest.raises(ValueError, match="beta must be finite and at least 0"):
        pv.ELBO(beta=-1.0)


def test_a_site_that_follows_the_gates_is_trained_right():
    """Its own gates depend on those before it, so that the pair of the first would need a second pair of the second."""
    logits = torch.nn.Parameter(double([0.4, -0.8]))
    slab = dist.Normal(double(1.0), double(0.1))

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            a = pyro.sample("a", SpikeSlab(double(0.0), slab))
            b = pyro.sample("z", SpikeSlab(double(0.0), slab))
            pyro.sample("x", dist.Normal(a - 2 * b, 0.5), obs=x)

    def guide(x):
        pyro.param("logits", logits)
        with pyro.plate("data", len(x), dim=-1):
            a = pyro.sample("a", SpikeSlab(logits[0], slab))
            pyro.sample("z", SpikeSlab(logits[1] + 3.0 * (a != 0), slab))

    x = double([1.0]).expand(2000)
    means, errors = [], []
    for loss in (pv.ELBO(), Trace_ELBO()):
        torch.manual_seed(7)
        draws = []
        for _ in range(200):
            logits.grad = None
            loss.loss_and_grads(model, guide, x)
            draws.append(logits.grad.clone() / 2000)
        draws = torch.stack(draws)
        means.append(draws.mean(0))
        errors.append(draws.std(0) / 200**0.5)
    # two numbers within 5 standard errors: a false alarm once in 10^6 seeds
    assert ((means[0] - means[1]).abs() <= 5 * torch.hypot(*errors)).all()
    assert (torch.hypot(*errors) < 0.01 * means[1].abs().max()).all()
