"""What each coordinate carries, which gates move, and the warnings of a model that stops using its code."""

import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import Linear
from linear_gaussian import data, linear_gaussian, set_exact_posterior
from torch.distributions import kl_divergence

import pyrovae as pv
from pyrovae import guides, likelihoods, metrics, priors
from pyrovae.distributions import SpikeSlab


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class FreeSpikes(guides.SpikeSlab):
    """q(z|x) with logits that are a column of x each, and the prior's slab."""

    def distribution(self, x):
        return SpikeSlab(x, dist.Normal(torch.zeros(()), 1.0)).to_event(1)


def spikes(active=0.3):
    return pv.VAE(priors.SpikeSlab(3, active), likelihoods.Normal(pv.nn.Dictionary(3, 3)), FreeSpikes(Linear(3), 3))


# --- KL per dimension -----------------------------------------------------------------------------------------------


def test_kl_per_dimension_is_the_closed_form():
    vae, x = spikes(), torch.randn(20, 3) * 3
    gamma = x.sigmoid()
    expected = gamma * (gamma / 0.3).log() + (1 - gamma) * ((1 - gamma) / 0.7).log()
    got = metrics.kl_per_dimension(vae, x, 1)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(got.sum(1), metrics.elbo(vae, x, 1).kl)
    normal = pv.build_vae((6,), 4, likelihood="normal", hidden=(8,)).double()
    x = torch.randn(20, 6)
    q = normal.posterior.distribution(x).base_dist
    expected = kl_divergence(q, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(metrics.kl_per_dimension(normal, x), expected)
    torch.testing.assert_close(metrics.kl_per_dimension((normal.model, normal.guide), x), expected)


def test_kl_that_has_no_form_is_sampled():
    """Logistic from Normal: -H(q) - E log p with H(q) = log s + 2; 40 numbers within 6 standard errors."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.5).to_event(1))
            pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Logistic(torch.stack([x, 0 * x], -1), 0.4).to_event(1))

    torch.manual_seed(0)
    x = torch.randn(20)
    loc = torch.stack([x, 0 * x], -1)
    second = loc**2 + 0.4**2 * math.pi**2 / 3
    expected = -math.log(0.4) - 2 + 0.5 * math.log(2 * math.pi * 1.5**2) + second / (2 * 1.5**2)
    estimates = torch.stack([metrics.kl_per_dimension((model, guide), x, 400) for _ in range(20)])
    assert ((estimates.mean(0) - expected).abs() <= 6 * estimates.std(0) / 20**0.5).all()
    assert (estimates.std(0) / 20**0.5 < 0.03).all()


def test_marginals_of_a_correlated_guide_and_two_sites_of_a_coordinate():
    vae = linear_gaussian()
    set_exact_posterior(vae)
    x = data(vae, 8)
    q = vae.posterior.distribution(x)
    marginals = torch.distributions.Normal(q.mean, q.variance.sqrt())
    got = metrics.kl_per_dimension(vae, x)
    torch.testing.assert_close(got, kl_divergence(marginals, torch.distributions.Normal(0.0, 1.0)))
    assert (got.sum(1) < metrics.elbo(vae, x, 1).kl).all(), "the total correlation is left out"
    torch.manual_seed(1)
    for prior in ("regularized-horseshoe", "hard-concrete"):
        two = pv.build_vae((6,), 4, prior=prior, likelihood="normal", hidden=(8,)).double()
        estimates = torch.stack([metrics.kl_per_dimension(two, x, 200) for _ in range(20)])
        kl = torch.stack([metrics.elbo(two, x, 200).kl for _ in range(20)])
        difference, error = estimates.sum(2).mean(0) - kl.mean(0), torch.hypot(estimates.sum(2).std(0), kl.std(0))
        assert (difference.abs() <= 6 * error / 20**0.5 + 1e-9).all(), prior


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": "mixture"}, "the model's MixtureSameFamily is a law of whole codes"),
        ({"prior": "flow"}, "the model's TransformedDistribution is a law of whole codes"),
        ({"prior": "dirichlet"}, "the guide's Dirichlet is a law of whole codes"),
        ({"prior": "hyperspherical-uniform"}, "the guide's PowerSpherical is a law of whole codes"),
        ({"guide": "delta"}, "site 'z' of the guide is a point"),
    ],
)
def test_laws_of_whole_codes_are_refused(options, message):
    vae = pv.build_vae((6,), 4, likelihood="normal", hidden=(8,), **options).double()
    with pytest.raises(ValueError, match=message):
        metrics.kl_per_dimension(vae, torch.randn(3, 6))


# --- units and collapse ---------------------------------------------------------------------------------------------


def collapsed(coordinates):
    """The exact guide of a linear-Gaussian model, but for coordinates at which it is the prior."""
    vae = linear_gaussian(guides.Normal)
    with torch.no_grad():
        vae.posterior.head.bias[3:] = -1.0
        for j in coordinates:
            vae.posterior.head.weight[[j, 3 + j]] = 0.0
            vae.posterior.head.bias[j] = 0.0
            vae.posterior.head.bias[3 + j] = math.log(math.expm1(1 - guides.SCALE_FLOOR))
    return vae


@pytest.mark.parametrize("gone", [(), (1,), (0, 1, 2)])
def test_collapse_is_the_share_of_coordinates_at_the_prior(gone):
    vae = collapsed(gone)
    x = data(vae, 200)
    for by in ("variance", "kl"):
        assert metrics.active_units(vae, x, by=by).tolist() == [j not in gone for j in range(3)]
    assert metrics.posterior_collapse(vae, x).item() == pytest.approx(len(gone) / 3)
    with pytest.raises(ValueError, match="by must be variance or kl, got 'mean'"):
        metrics.active_units(vae, x, by="mean")


def test_collapse_of_a_given_share_of_the_data():
    """A gate at the prior's activity carries nothing, one far from it 2 nats; 95 % of the data are just enough."""
    vae, at = spikes(), math.log(0.3 / 0.7)
    x = torch.full((100, 3), at)
    x[:5, 0] = x[:6, 1] = 10.0
    assert metrics.posterior_collapse(vae, x).item() == pytest.approx(2 / 3)
    assert metrics.posterior_collapse(vae, x, share=1.0).item() == pytest.approx(1 / 3)
    assert metrics.posterior_collapse(vae, x, threshold=10.0).item() == 1.0


def test_coefficient_collapse_counts_what_stays_near_zero():
    z = torch.zeros(100, 4)
    z[:5, 0], z[:6, 1], z[:, 2] = 3.0, -3.0, 0.009
    assert metrics.coefficient_collapse(z).item() == 0.75
    assert metrics.coefficient_collapse(z, threshold=1e-3).item() == 0.5
    assert metrics.coefficient_collapse(z, share=1.0).item() == 0.5
    assert metrics.coefficient_collapse(torch.ones(5, 2)).item() == 0.0
    for bad, message in ((0.0, r"share must be in \(0, 1\], got 0.0"), (1.1, "got 1.1")):
        with pytest.raises(ValueError, match=message):
            metrics.coefficient_collapse(z, share=bad)
    with pytest.raises(ValueError, match=r"z must be codes \(N, D\)"):
        metrics.coefficient_collapse(z[0])


# --- gates ----------------------------------------------------------------------------------------------------------


def test_dead_gates_are_always_shut_or_always_open():
    vae = spikes()
    x = torch.tensor([[-9.0, 9.0, -9.0], [-8.0, 8.0, 9.0]])
    assert [mask.tolist() for mask in metrics.dead_gates(vae, x)] == [[True, False, False], [False, True, False]]
    assert [mask.any().item() for mask in metrics.dead_gates(vae, x, threshold=1e-5)] == [False, False]
    with pytest.raises(ValueError, match=r"threshold must be a probability below 1/2, got 0\.5"):
        metrics.dead_gates(vae, x, threshold=0.5)


def test_a_guide_without_gates_has_none():
    vae = linear_gaussian()
    with pytest.raises(ValueError, match="guide MultivariateNormal has no gates"):
        metrics.dead_gates(vae, data(vae, 3))


# --- the check ------------------------------------------------------------------------------------------------------


def caught(check, vae, *epochs):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for epoch in epochs:
            check(vae, epoch, {"epoch": list(range(1, epoch + 1))})
    assert all(warning.category is metrics.CollapseWarning and warning.filename == __file__ for warning in seen)
    return [str(warning.message) for warning in seen]


def test_a_healthy_model_is_not_warned_of():
    vae = collapsed(())
    check = metrics.HealthCheck(data(vae, 50), every=2)
    assert caught(check, vae, 1, 2, 3, 4) == []
    assert check.active == {2: 3, 4: 3}


def test_units_that_go_are_warned_of_once():
    x = data(collapsed(()), 50)
    check = metrics.HealthCheck(x)
    assert caught(check, collapsed(()), 1) == []
    assert caught(check, collapsed((0,)), 2) == []
    assert caught(check, collapsed((0, 1)), 3) == [
        "epoch 3: 1 of 3 latent units are active, and there were 3: warm up the KL"
    ]
    (message,) = caught(check, collapsed((0, 1, 2)), 4, 5)
    assert message.startswith("epoch 4: none of 3 latent units is active")
    assert caught(check, collapsed((0, 1)), 6) == []
    assert check.active == {1: 3, 2: 2, 3: 1, 4: 0, 5: 0, 6: 1}
    assert len(caught(metrics.HealthCheck(x, by="variance"), collapsed((0, 1, 2)), 1)) == 1


def test_gates_that_stand_still_are_warned_of():
    vae = spikes()
    for logit, word in ((-9.0, "shut"), (9.0, "open")):
        check = metrics.HealthCheck(torch.full((4, 3), logit) + torch.rand(4, 3))
        (message,) = caught(check, vae, 1, 2)
        assert f"every gate is {word} for all data" in message
    some = torch.tensor([[-9.0, -9.0, -9.0], [-9.0, -9.0, 2.0]])
    assert caught(metrics.HealthCheck(some), vae, 1) == []


def test_the_check_leaves_the_run_as_it_is():
    """Neither a random number nor a mode is taken, also where the KL is sampled."""
    vae = pv.build_vae((6,), 4, prior="laplace", guide="multivariate-normal", likelihood="normal", hidden=(8,))
    vae.double()
    check = metrics.HealthCheck(torch.randn(9, 6))
    state = torch.get_rng_state()
    caught(check, vae, 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert vae.training
    mixture = pv.build_vae((6,), 4, prior="mixture", likelihood="normal", hidden=(8,)).double()
    with pytest.raises(ValueError, match="law of whole codes"):
        metrics.HealthCheck(torch.randn(9, 6), by="kl")(mixture, 1, {})
    caught(check, mixture, 1)
    assert check.active[1] <= 4, "by variance"
    metrics.HealthCheck(torch.randn(9, 6) * 5, by="variance", threshold=0.0)(mixture, 1, {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every must be a positive whole number, got 0"),
        ({"by": "mean"}, "by must be variance or kl, got 'mean'"),
        ({"threshold": 0.5}, "threshold must be at least 0 and below 1/2, got 0.5"),
        ({"shrink": 2.0}, "shrink must be between 0 and 1, got 2.0"),
    ],
)
def test_bad_arguments_of_the_check_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        metrics.HealthCheck(torch.zeros(2, 3), **options)
