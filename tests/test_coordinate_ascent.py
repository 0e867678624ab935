"""Coordinate ascent: the exact posterior where that is independent, a bound that never falls, and its gradient."""

from __future__ import annotations

import itertools

import pyro
import pytest
import torch
from torch import Tensor

import pyrovae as pv
from pyrovae.distributions import SpikeSlab
from pyrovae.guides import CoordinateAscent

D, OUT, N = 5, 7, 30


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make(steps: int = 10, seed: int = 0, orthonormal: bool = False, noise: float = 0.5) -> pv.VAE:
    torch.manual_seed(seed)
    prior = pv.priors.SpikeSlab(D, active=0.3, loc=0.7, scale=0.8, learned=("active", "loc", "scale"))
    likelihood = pv.likelihoods.Normal(pv.nn.Dictionary(D, (OUT,), unit_norm=True), noise)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
        if orthonormal:
            likelihood.network.linear.weight.copy_(torch.linalg.qr(torch.randn(OUT, D))[0])
    return pv.VAE(prior, likelihood, CoordinateAscent(prior, likelihood, steps))


def data(seed: int = 1) -> Tensor:
    return torch.randn(N, OUT, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bounds(vae: pv.VAE, q: SpikeSlab, x: Tensor) -> Tensor:
    kl = torch.distributions.kl_divergence(q, vae.prior.distribution().base_dist).sum(-1)
    return vae.likelihood(q.mean).expected_log_prob(q.to_event(1), x) - kl


def joint_by_gates(vae: pv.VAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """Every set of open gates, ``(2^D, D)``, and log p(x, gates) with the slabs integrated out, ``(2^D, N)``."""
    p, network = vae.prior.distribution().base_dist, vae.likelihood.network
    noise = vae.likelihood.scale().detach() ** 2 * torch.eye(OUT)
    gates = torch.tensor(list(itertools.product((0.0, 1.0), repeat=D)))
    rows = []
    for gate in gates:
        weight = network.weight * gate
        mean = network.linear.bias + weight @ p.slab.loc
        covariance = noise + weight @ torch.diag(p.slab.scale**2) @ weight.T
        log_gate = torch.distributions.Bernoulli(logits=p.logits).log_prob(gate).sum()
        rows.append(torch.distributions.MultivariateNormal(mean, covariance).log_prob(x) + log_gate)
    return gates, torch.stack(rows)


@pytest.mark.parametrize("seed", range(3))
def test_with_orthonormal_atoms_it_is_the_posterior_and_the_bound_is_the_likelihood(seed):
    """The posterior of independent coordinates is independent; all 32 sets of open gates are enumerated.

    The bound is flat at its best q: an error of its rounding, 1e-15, is one of its root in q.
    """
    vae, x = make(60, seed, orthonormal=True), data(seed)
    with torch.no_grad():
        q = vae.posterior.distribution(x).base_dist
        gates, joint = joint_by_gates(vae, x)
        open_ = torch.einsum("gd,gn->nd", gates, joint.softmax(0))
        torch.testing.assert_close(q.probs, open_, rtol=0, atol=1e-7)
        torch.testing.assert_close(bounds(vae, q, x), joint.logsumexp(0), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("noise", [1.0, 0.1, 0.02])
@pytest.mark.parametrize("seed", range(5))
def test_more_sweeps_never_lower_the_bound_of_a_datum_and_it_stays_below_the_likelihood(noise, seed):
    vae, x = make(seed=seed, noise=noise), data(seed)
    with torch.no_grad():
        start = vae.prior.distribution().base_dist.expand((N, D)).to_event(1)
        reached = bounds(vae, start.base_dist, x)
        likelihood = joint_by_gates(vae, x)[1].logsumexp(0)
        for steps in (1, 2, 5, 10, 50):
            before, reached = reached, bounds(vae, vae.posterior.refined(start, x, steps), x)
            assert bool((reached >= before - 1e-9 * before.abs()).all())
            assert bool((reached <= likelihood + 1e-9 * likelihood.abs()).all())


def test_the_gradient_is_that_of_the_bound_with_the_codes_held():
    vae, x = make(), data()
    pv.ELBO(reconstruction="exact").differentiable_loss(vae.model, vae.guide, x).backward()
    q, step = vae.posterior.distribution(x).base_dist, 1e-5
    for parameter in vae.parameters():
        direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            parameter += step * direction
            up = bounds(vae, q, x).sum()
            parameter -= 2 * step * direction
            down = bounds(vae, q, x).sum()
            parameter += step * direction
        expected = -(up - down) / (2 * step)
        assert (parameter.grad * direction).sum().item() == pytest.approx(expected.item(), rel=1e-6)


def test_after_many_sweeps_that_is_the_gradient_of_the_best_bound():
    """The envelope theorem: finite differences of the bound that is reached, codes and all."""
    vae, x = make(400), data()
    loss = pv.ELBO(reconstruction="exact")
    loss.differentiable_loss(vae.model, vae.guide, x).backward()
    parameter, step = vae.likelihood.network.linear.weight, 1e-5
    direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        parameter += step * direction
        up = loss.loss(vae.model, vae.guide, x)
        parameter -= 2 * step * direction
        down = loss.loss(vae.model, vae.guide, x)
    assert (parameter.grad * direction).sum().item() == pytest.approx((up - down) / (2 * step), rel=1e-5)


def test_a_compiled_step_gives_the_same_numbers():
    torch.set_default_dtype(torch.float32)
    ends = []
    for compiled in (False, True):
        vae = make(3)  # two annealed sweeps and a plain one
        svi = pv.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), pv.ELBO(), compile=compiled)
        losses = [svi.step(data(seed).float()) for seed in range(8)]
        assert any(calls.is_compiled for calls in svi._state.calls.values()) == compiled
        ends.append((torch.tensor(losses), torch.cat([p.detach().flatten() for p in vae.parameters()])))
    for got, expected in zip(*ends, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_it_is_the_guide_of_a_dictionary_by_name_starts_at_the_data_and_is_saved(tmp_path):
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    x = 3 + 0.2 * torch.randn(500, OUT)
    names = {"prior": "spike-slab", "likelihood": "normal", "network": "dictionary"}
    vae = pv.build_vae((OUT,), D, **names, inputs=x)
    assert isinstance(vae.posterior, CoordinateAscent)
    assert list(vae.posterior.parameters()) == []
    torch.testing.assert_close(vae.likelihood.network.linear.bias, x.mean(0))
    assert vae.likelihood.scale().item() == pytest.approx(x.var(0, correction=0).mean().sqrt().item(), rel=1e-5)
    p = vae.prior.distribution().base_dist
    energy = (p.probs * (p.slab.loc**2 + p.slab.scale**2)).sum().item()
    assert energy == pytest.approx(x.var(0, correction=0).sum().item(), rel=1e-4)
    pv.save(vae, tmp_path)
    assert torch.equal(pv.load(tmp_path).encode(x), vae.encode(x))
    fixed = pv.build_vae((OUT,), D, **{**names, "prior": "spike-slab:loc=0:scale=2"}, inputs=x).prior
    assert (fixed.loc().unique().item(), fixed.scale().unique().item()) == (0.0, 2.0)


@pytest.mark.parametrize(
    ("options", "guide"),
    [
        ({"guide": "spike-slab"}, "SpikeSlab"),
        ({"refine": 2}, "Refined"),
        ({"prior": "spike-slab:slab=laplace"}, "SpikeSlab"),
        ({"likelihood": "laplace"}, "SpikeSlab"),
        ({"missing": True}, "SpikeSlab"),
        ({"corrupt": "gaussian"}, "SpikeSlab"),
    ],
)
def test_another_model_has_an_encoder(options, guide):
    names = {"prior": "spike-slab", "likelihood": "normal", "network": "dictionary", "hidden": (8,)}
    assert type(pv.build_vae((OUT,), D, **{**names, **options}).posterior).__name__ == guide


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        *(
            (
                lambda option=option: pv.build_vae(
                    (OUT,), D, "spike-slab", "normal", "coordinate-ascent", network="dictionary", **option
                ),
                f"{next(iter(option))} is for a guide with an encoder, got it with guide 'coordinate-ascent'",
            )
            for option in (
                {"corrupt": "gaussian"},
                {"norm": "layer"},
                {"dropout": 0.1},
                {"missing": True},
                {"refine": 1},
            )
        ),
        (lambda: make(0), "steps must be a positive whole number, got 0"),
        (
            lambda: pv.build_vae((OUT,), D, guide="coordinate-ascent"),
            "prior must be a spike-and-slab whose slabs are Normal",
        ),
        (
            lambda: pv.build_vae((OUT,), D, prior="spike-slab", guide="coordinate-ascent"),
            "likelihood must be Normal with",
        ),
        (lambda: pv.build_vae((OUT,), D, prior="vamp", guide="coordinate-ascent", inputs=data()), "take another guide"),
        (
            lambda: pv.build_vae((OUT,), D, "spike-slab", "normal", network="dictionary", inputs=torch.ones(9, OUT)),
            "inputs must be finite and vary, got 9 rows that are all equal",
        ),
    ],
)
def test_what_has_no_such_guide_is_refused_in_one_line(make_it, message):
    with pytest.raises(ValueError, match=message):
        make_it()


def test_fewer_data_than_latents_are_refused():
    names = {"prior": "spike-slab", "likelihood": "normal", "network": "dictionary"}
    with pytest.raises(ValueError, match="latent_dim must be at most the number of rows of inputs, 4, got 5"):
        pv.build_vae((OUT,), D, **names, inputs=data()[:4])


POSITIVE = {
    "truncated-normal": {"loc": -0.3, "scale": 0.8},
    "half-normal": {"scale": 0.9},
    "exponential": {"scale": 0.6},
}


def make_positive(slab: str, steps: int, noise: float = 0.5, seed: int = 0, orthonormal: bool = True) -> pv.VAE:
    vae = make(steps, seed, orthonormal, noise)
    prior = pv.priors.SpikeSlab(D, active=0.3, slab=slab, **POSITIVE[slab])
    return pv.VAE(prior, vae.likelihood, CoordinateAscent(prior, vae.likelihood, steps))


@pytest.mark.parametrize("slab", POSITIVE)
def test_with_positive_slabs_and_orthonormal_atoms_it_is_the_posterior(slab):
    """The posterior of each coordinate is known: its integrals are by quadrature on 20,000 points."""
    vae, x = make_positive(slab, 60), data()
    p, likelihood = vae.prior.distribution().base_dist, vae.likelihood
    z = torch.linspace(0.0, 12.0, 20_001)[1:]
    with torch.no_grad():
        q = vae.posterior.distribution(x).base_dist
        along = (x - likelihood.network.linear.bias) @ likelihood.network.weight
        log_joint = p.slab.log_prob(z[:, None]) + (z[:, None] * along[..., None, :] - 0.5 * z[:, None] ** 2) / 0.25
    weight = log_joint.exp() * (z[1] - z[0])
    # the density does not vanish at 0, where the trapezoidal rule has half a step
    first = (p.slab.log_prob(torch.full((D,), 1e-300)).exp() * (z[1] - z[0])) / 2
    evidence = weight.sum(1) + first
    odds = torch.logit(torch.tensor(0.3)) + evidence.log()
    torch.testing.assert_close(q.logits, odds, rtol=0, atol=2e-5)
    torch.testing.assert_close(q.slab.mean, (weight * z[:, None]).sum(1) / evidence, rtol=1e-5, atol=1e-6)
    assert bool((vae.encode(x) >= 0).all())


@pytest.mark.parametrize("slab", POSITIVE)
@pytest.mark.parametrize("noise", [1.0, 0.02])
def test_more_sweeps_never_lower_the_bound_with_positive_slabs(slab, noise):
    vae, x = make_positive(slab, 10, noise, orthonormal=False), data()
    p = vae.prior.distribution().base_dist
    slabs = pv.distributions.TruncatedNormal(
        torch.full((N, D), 0.3), vae.posterior.distribution(x).base_dist.slab.scale
    )
    start = SpikeSlab(p.logits.expand(N, D), slabs).to_event(1)
    with torch.no_grad():
        reached = bounds(vae, start.base_dist, x)
        for steps in (1, 2, 5, 20):
            before, reached = reached, bounds(vae, vae.posterior.refined(start, x, steps), x)
            assert bool((reached >= before - 1e-9 * before.abs()).all())


@pytest.mark.parametrize("seed", range(3))
def test_annealed_sweeps_find_codes_that_plain_sweeps_do_not(seed):
    """24 atoms in 12 dimensions, 3 on in each datum, noise 0.03: the true dictionary is given."""
    torch.set_default_dtype(torch.float32)
    source = pv.data.synthetic.SparseFeatures(24, 12, 3 / 24, seed=seed)
    batch = source.sample(1000, 1)
    prior = pv.priors.SpikeSlab(24, active=3 / 24, loc=1.0, scale=0.15)
    likelihood = pv.likelihoods.Normal(pv.nn.Dictionary(24, (12,), unit_norm=True), 0.03)
    with torch.no_grad():
        likelihood.network.linear.weight.copy_(batch.features.T)
        likelihood.network.linear.bias.zero_()
    guide = CoordinateAscent(prior, likelihood, 10)
    vae = pv.VAE(prior, likelihood, guide)
    annealed = bounds(vae, guide.distribution(batch.data).base_dist, batch.data)
    wrong = ((guide.encode(batch.data) != 0) != (batch.codes != 0)).double().mean()
    guide.annealed = 0.0
    plain = bounds(vae, guide.distribution(batch.data).base_dist, batch.data)
    wrong_plain = ((guide.encode(batch.data) != 0) != (batch.codes != 0)).double().mean()
    assert annealed.mean() > plain.mean() + 50
    assert wrong < 0.05
    assert wrong_plain > 3 * wrong


def test_the_amortization_gap_is_that_of_the_bounds_and_ends_below_the_likelihood():
    """The likelihood is by enumeration of the 2^D sets of open gates."""
    best, x = make(100), data()
    encoder = pv.VAE(best.prior, best.likelihood, pv.guides.SpikeSlab(pv.nn.MLP(OUT, [8]), D))
    gap = pv.metrics.amortization_gap(encoder, x)
    assert gap.gap.shape == (N,)
    assert bool((gap.gap > 0).all())
    assert bool((gap.refined <= joint_by_gates(best, x)[1].logsumexp(0) + 1e-9).all())
    torch.testing.assert_close(gap.bound, bounds(encoder, encoder.posterior.distribution(x).base_dist, x))
    assert pv.metrics.amortization_gap(best, x).gap.abs().max() < 1e-6


def test_an_amortization_gap_of_another_model_is_refused():
    vae, x = make(), data()
    encoder = pv.guides.SpikeSlab(pv.nn.MLP(OUT, [8]), D)
    other = pv.VAE(vae.prior, pv.likelihoods.Normal(pv.nn.MLP(D, [8], OUT)), encoder)
    with pytest.raises(ValueError, match="likelihood must be Normal with a linear decoder"):
        pv.metrics.amortization_gap(other, x)
    vae.posterior = torch.nn.Identity()
    with pytest.raises(ValueError, match="vae must have a guide of spikes and slabs"):
        pv.metrics.amortization_gap(vae, x)
