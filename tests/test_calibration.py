"""Calibration of guides that are the posterior, and of guides that are wrong in known ways.

The posterior is known in the linear-Gaussian VAE; with spikes and slabs where each coordinate has a datum of its own;
and, with sites that all data share, under a decoder that ignores the code.
"""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.stats as st
import torch
from cases import Linear, double
from linear_gaussian import DIM, linear_gaussian, set_exact_posterior
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve

import pyrovae as pv
from pyrovae import guides, likelihoods, metrics, priors
from pyrovae.distributions import SpikeSlab
from pyrovae.metrics.calibration import _ranks, _simulate

FALSE_ALARM = 1e-5  # of a test that holds one p-value against it


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# --- ranks ----------------------------------------------------------------------------------------------------------


def test_ranks_are_counts_and_ties_are_broken_evenly():
    """300 data each in a loop; the ranks of 6,000 ties are uniform but once in 10^5 seeds."""
    torch.manual_seed(0)
    draws, z = torch.randint(0, 4, (9, 300, 2)).double(), torch.randint(0, 4, (300, 2)).double()
    ranks = _ranks(z, draws)
    for n in range(300):
        for j in range(2):
            below, ties = (sum(bool(f(draws[k, n, j], z[n, j])) for k in range(9)) for f in (torch.lt, torch.eq))
            assert below <= ranks[n, j] <= below + ties
    tied = _ranks(torch.zeros(6000, 1), torch.zeros(9, 6000, 1))
    assert st.chisquare(tied[:, 0].bincount(minlength=10)).pvalue > FALSE_ALARM
    assert _ranks(torch.ones(5, 1), torch.zeros(9, 5, 1)).unique().tolist() == [9]
    assert _ranks(-torch.ones(5, 1), torch.zeros(9, 5, 1)).unique().tolist() == [0]


@pytest.mark.parametrize(("num_data", "num_draws"), [(1000, 99), (10, 9), (400, 1), (777, 30)])
def test_the_p_value_is_that_of_scipy_over_bins_of_ranks(num_data, num_draws):
    torch.manual_seed(0)
    vae = linear_gaussian()
    got = metrics.sbc(vae, num_data, num_draws)
    assert got.ranks.shape == got.pit.shape == (num_data, DIM)
    assert (got.ranks == (got.pit * (num_draws + 1)).long()).all()
    num_bins = min(20, num_draws + 1, num_data // 5)
    bin_of = [rank * num_bins // (num_draws + 1) for rank in range(num_draws + 1)]
    for j in range(DIM):
        counts = np.bincount([bin_of[rank] for rank in got.ranks[:, j]], minlength=num_bins)
        expected = num_data * np.bincount(bin_of) / (num_draws + 1)
        assert expected.min() >= 2.5
        assert got.p_value[j].item() == pytest.approx(st.chisquare(counts, expected).pvalue, rel=1e-9, abs=1e-300)


# --- Normal posteriors ----------------------------------------------------------------------------------------------


class Wrong(guides.Guide):
    """The marginals of the posterior, moved by ``shift`` and widened by ``factor`` of their standard deviations."""

    support = torch.distributions.constraints.real

    def __init__(self, exact, shift=0.0, factor=1.0):
        super().__init__(Linear(exact.head.in_features), DIM, 1)
        self.exact, self.shift, self.factor = exact, shift, factor

    def distribution(self, x):
        q = self.exact.distribution(x)
        return dist.Normal(q.mean + self.shift * q.stddev, self.factor * q.stddev).to_event(1)


def gaussian(**wrong):
    vae = linear_gaussian()
    set_exact_posterior(vae)
    return pv.VAE(vae.prior, vae.likelihood, Wrong(vae.posterior, **wrong)) if wrong else vae


LEVELS = (0.5, 0.8, 0.95)


def test_the_posterior_is_calibrated():
    """False alarms: 3 p-values, once in 30,000; 9 shares within 5 standard errors, once in 10^5."""
    torch.manual_seed(0)
    ranks = metrics.sbc(gaussian(), 2000, 99)
    assert ranks.p_value.min() > FALSE_ALARM
    assert st.kstest(ranks.pit.ravel(), "uniform").pvalue > FALSE_ALARM
    got = metrics.coverage(ranks, LEVELS)
    np.testing.assert_allclose(got.levels, LEVELS)
    np.testing.assert_allclose(got.standard_error, [math.sqrt(a * (1 - a) / 2000) for a in LEVELS])
    assert got.share.shape == (3, DIM)
    assert ((got.share - got.levels[:, None]).abs() < 5 * got.standard_error[:, None]).all()


@pytest.mark.parametrize("wrong", [{"factor": 0.5}, {"factor": 2.0}, {"shift": 0.7}, {"shift": -0.7, "factor": 0.8}])
def test_a_wrong_guide_covers_as_much_as_its_error_says(wrong):
    """The posterior's mass of q's central interval; 9 shares of 3,000 within 6 standard errors and 1 / num_draws."""
    torch.manual_seed(0)
    ranks = metrics.sbc(gaussian(**wrong), 3000, 199)
    assert ranks.p_value.max() < 1e-12
    q = st.norm(wrong.get("shift", 0.0), wrong.get("factor", 1.0))
    got = metrics.coverage(ranks, LEVELS)
    for share, level in zip(got.share, LEVELS, strict=True):
        expected = st.norm.cdf(q.ppf((1 + level) / 2)) - st.norm.cdf(q.ppf((1 - level) / 2))
        error = 6 * math.sqrt(expected * (1 - expected) / 3000) + 1 / 199
        assert ((share - expected).abs() < error).all()
        assert abs(expected - level) > error, "the test would see a guide that is right"


def test_a_biased_guide_is_found_at_the_end_it_leaves():
    torch.manual_seed(0)
    low, high = (metrics.sbc(gaussian(shift=shift), 500, 19).pit.mean(0) for shift in (1.0, -1.0))
    # P(z* < z) = Phi(1 / sqrt 2) = 0.76 of a draw that is one standard deviation too high
    np.testing.assert_allclose(low, 1 - st.norm.cdf(0.5**0.5), atol=0.06)
    np.testing.assert_allclose(high, st.norm.cdf(0.5**0.5), atol=0.06)


# --- spikes and slabs -----------------------------------------------------------------------------------------------

WEIGHTS, NOISE, ACTIVE = (2.0, 0.8), 0.7, 0.3


class SlabPosterior(guides.Guide):
    """That of z ~ 0.3 N(0, 1) + 0.7 δ and x_j ~ N(w_j z_j, s^2), with log-odds of the gates that may be moved."""

    support = priors.SpikeSlab(2).support

    def __init__(self, shift=0.0, factor=1.0):
        super().__init__(Linear(2), 2, 1)
        self.shift, self.factor = shift, factor

    def distribution(self, x):
        w, variance = double(WEIGHTS), NOISE**2
        total = (w**2 + variance).sqrt()
        evidence = dist.Normal(0.0, total).log_prob(x) - dist.Normal(0.0, torch.tensor(NOISE)).log_prob(x)
        logits = self.factor * (math.log(ACTIVE / (1 - ACTIVE)) + evidence) + self.shift
        return SpikeSlab(logits, dist.Normal(w * x / total**2, NOISE / total)).to_event(1)


def slabs(**wrong):
    decoder = pv.nn.Dictionary(2, 2, bias=False)
    with torch.no_grad():
        decoder.linear.weight.copy_(torch.diag(double(WEIGHTS)))
    return pv.VAE(priors.SpikeSlab(2, ACTIVE), likelihoods.Normal(decoder, scale=NOISE), SlabPosterior(**wrong))


def blind(logits):
    """A decoder that ignores z, so that the posterior is the prior, of activity 0.1; and gates that are the same for
    each datum."""
    decoder = pv.nn.Dictionary(3, 2)
    guide = guides.SpikeSlab(Linear(2), 3)
    with torch.no_grad():
        decoder.linear.weight.zero_()
        guide.head.weight.zero_()
        guide.head.bias.copy_(torch.cat([torch.zeros(3), torch.full((3,), math.log(math.expm1(1.0))), double(logits)]))
    return pv.VAE(priors.SpikeSlab(3, 0.1), likelihoods.Normal(decoder, scale=1.0), guide)


def test_a_posterior_with_atoms_is_calibrated_and_needs_random_ties():
    """False alarms: 5 p-values, once in 20,000; 15 shares within 5 standard errors, once in 10^5."""
    torch.manual_seed(0)
    for vae in (slabs(), blind([logit(0.1)] * 3)):
        ranks = metrics.sbc(vae, 3000, 99)
        assert ranks.p_value.min() > FALSE_ALARM
        got = metrics.coverage(ranks)
        assert ((got.share - got.levels[:, None]).abs() < 5 * got.standard_error[:, None]).all()
    z, x = _simulate(vae, 3000)
    below = (metrics.latent_codes.guide_draws(vae, x, 99) < z).sum(0)[:, 0]
    assert (below[z[:, 0] == 0].double().mean() / 99 < 0.1).all(), "ranks below the atom are not uniform"


def test_a_guide_that_ignores_the_data_is_calibrated_as_the_docs_say():
    """And one with wrong gates is not, although ranks of atoms are random. A false alarm once in 10^5."""
    torch.manual_seed(0)
    ranks = metrics.sbc(blind([logit(0.1), logit(0.02), logit(0.6)]), 3000, 99)
    assert ranks.p_value[0] > FALSE_ALARM
    assert ranks.p_value[1:].max() < 1e-9


def test_gates_that_are_the_posterior_are_reliable():
    """In each bin of each coordinate within 5 standard errors: 20 of them, a false alarm once in 10^5."""
    torch.manual_seed(0)
    got = metrics.gate_reliability(slabs(), 20_000)
    assert got.predicted.shape == got.observed.shape == got.counts.shape == (2, 10)
    assert got.counts.sum(1).tolist() == [20_000, 20_000]
    edges = torch.arange(11) / 10
    seen = got.counts > 0
    assert seen.sum() > 12
    assert (got.predicted.isnan() == ~seen).all()
    assert ((got.predicted >= edges[:-1]) & (got.predicted <= edges[1:]))[seen].all()
    error = (got.predicted * (1 - got.predicted) / got.counts).sqrt()
    assert ((got.predicted - got.observed).abs() < 5 * error)[seen].all()
    assert got.error.max() < 0.012


@pytest.mark.parametrize("shift", [1.0, -1.5])
def test_wrong_gates_are_wrong_by_what_they_were_moved(shift):
    """All of them to one side, so that the error is the mean of what they moved: 0.1, from a simulation in numpy of
    400,000, within 6 standard errors."""
    torch.manual_seed(0)
    got = metrics.gate_reliability(slabs(shift=shift), 10_000)
    generator = np.random.default_rng(0)
    for j, w in enumerate(WEIGHTS):
        on = generator.random(400_000) < ACTIVE
        x = np.where(on, w, 0.0) * generator.normal(size=400_000) + NOISE * generator.normal(size=400_000)
        odds = st.norm.logpdf(x, 0, math.hypot(w, NOISE)) - st.norm.logpdf(x, 0, NOISE) + logit(ACTIVE)
        expected = abs((expit(odds + shift) - expit(odds)).mean())
        assert expected > 0.05
        assert got.error[j].item() == pytest.approx(expected, abs=6 * 0.5 / 10_000**0.5)
    assert metrics.sbc(slabs(shift=shift), 3000, 99).p_value.max() < 1e-6


def test_overconfident_gates_are_found_in_both_directions():
    torch.manual_seed(0)
    got = metrics.gate_reliability(slabs(factor=4.0), 10_000)
    assert got.error.min() > 0.08
    assert (got.observed > got.predicted)[:, 0].all()
    assert (got.observed < got.predicted)[0, -1]


def test_reliability_is_that_of_a_loop():
    torch.manual_seed(0)
    got = metrics.gate_reliability(slabs(shift=0.5), 200, 4)
    torch.manual_seed(0)
    vae = slabs(shift=0.5)
    z, x = _simulate(vae, 200)
    gamma = vae.posterior.distribution(x).base_dist.probs.numpy()
    for j in range(2):
        error = 0.0
        for b in range(4):
            inside = (gamma[:, j] >= b / 4) & ((gamma[:, j] < (b + 1) / 4) | (b == 3))
            assert got.counts[j, b] == inside.sum()
            if inside.any():
                on, mean = (z[inside, j] != 0).double().mean().item(), gamma[inside, j].mean()
                assert got.predicted[j, b].item() == pytest.approx(mean)
                assert got.observed[j, b].item() == pytest.approx(on)
                error += inside.sum() / 200 * abs(mean - on)
        assert got.error[j].item() == pytest.approx(error)


def test_bits_are_gates():
    """Under a decoder that ignores them; one coordinate is right, the other far off. A false alarm once in 10^5."""
    torch.manual_seed(0)
    decoder = pv.nn.Dictionary(2, 2)
    guide = guides.Bernoulli(Linear(2), 2)
    with torch.no_grad():
        decoder.linear.weight.zero_()
        guide.head.weight.zero_()
        guide.head.bias.copy_(double([0.0, 3.0]))
    vae = pv.VAE(priors.Bernoulli(2), likelihoods.Normal(decoder, scale=1.0), guide)
    got = metrics.gate_reliability(vae, 4000)
    # one bin each: half of the bits are 1, and 6 standard errors are 0.05
    assert got.error[0].item() == pytest.approx(0.0, abs=0.05)
    assert got.error[1].item() == pytest.approx(expit(3.0) - 0.5, abs=0.05)
    assert metrics.sbc(vae, 2000, 49).p_value[0] > FALSE_ALARM
    assert metrics.sbc(vae, 2000, 49).p_value[1] < 1e-9


def test_sites_that_all_data_share_are_drawn_for_each_datum():
    """Activities uniform on (0, 1) and a decoder that ignores z: for a new datum each gate is open with 1/2.

    With one draw of the activities for all data, z* would be open with another probability than 1/2. 6 standard
    errors of 1,500 data are 0.08; two p-values raise a false alarm once in 50,000 seeds.
    """
    torch.manual_seed(0)
    decoder = pv.nn.Dictionary(2, 2)
    guide = guides.BetaSpikeSlab(Linear(2), 2, median=0.5)
    with torch.no_grad():
        decoder.linear.weight.zero_()
        guide.head.weight.zero_()
        guide.head.bias.copy_(torch.tensor([0.0, 0.0, *[math.log(math.expm1(1.0))] * 2, 0.0, 0.0]))
    vae = pv.VAE(priors.BetaSpikeSlab(2), likelihoods.Normal(decoder, scale=1.0), guide, num_data=1500)
    assert guide.active().mean.tolist() == pytest.approx([0.5, 0.5])
    assert metrics.sbc(vae, 1500, 49).p_value.min() > FALSE_ALARM
    got = metrics.gate_reliability(vae, 1500)
    assert got.error.max() < 0.08
    assert got.predicted[:, 5].tolist() == pytest.approx([0.5, 0.5])


# --- what is wrong, and what repeats --------------------------------------------------------------------------------


def test_a_seed_repeats_it_and_nothing_is_trained():
    vae = slabs().train()
    first, again = (torch.manual_seed(3) and metrics.sbc(vae, 50, 9) for _ in range(2))
    assert torch.equal(first.pit, again.pit)
    assert vae.training
    assert not first.pit.requires_grad


def test_many_draws_are_ranked_in_parts(monkeypatch):
    monkeypatch.setattr(metrics.calibration, "CHUNK", 700)
    torch.manual_seed(0)
    ranks = metrics.sbc(slabs(), 1000, 9)
    assert ranks.ranks.shape == (1000, 2)
    assert ranks.p_value.min() > FALSE_ALARM
    assert metrics.gate_reliability(slabs(), 3000, num_samples=7).error.max() < 0.05


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.sbc(slabs(), 9), "num_data must be at least 10, got 9"),
        (lambda: metrics.sbc(slabs(), 10, 0), "num_draws must be at least 1, got 0"),
        (lambda: metrics.gate_reliability(slabs(), 0), "num_data must be at least 1, got 0"),
        (lambda: metrics.gate_reliability(slabs(), 5, 0), "num_bins must be at least 1, got 0"),
        (lambda: metrics.gate_reliability(slabs(), 5, 5, 0), "num_samples must be at least 1, got 0"),
        (
            lambda: metrics.gate_reliability(gaussian(), 50),
            "vae must have a prior with exact zeros, there is none in 50",
        ),
        (lambda: metrics.coverage(metrics.sbc(slabs(), 10, 1), ()), "levels must be one or more numbers between 0 and"),
        (lambda: metrics.coverage(metrics.sbc(slabs(), 10, 1), (0.5, 95)), "levels must be one or more numbers"),
        (
            lambda: _ranks(torch.zeros(2, 1), torch.full((3, 2, 1), math.nan)),
            "vae must have a guide that draws numbers",
        ),
    ],
)
def test_what_is_wrong_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


# --- probabilities against known gates ------------------------------------------------------------------------------


def test_reliability_of_tables_is_that_of_scikit_learn_and_its_error_by_hand():
    generator = torch.Generator().manual_seed(0)
    gamma = torch.rand(2000, 3, generator=generator)
    truth = (torch.rand(2000, 3, generator=generator) < gamma**2) * 7.0
    got = metrics.reliability(gamma, truth, 8)
    for j in range(3):
        observed, predicted = calibration_curve((truth[:, j] != 0).numpy(), gamma[:, j].numpy(), n_bins=8)
        np.testing.assert_allclose(got.observed[j], observed, rtol=1e-6)
        np.testing.assert_allclose(got.predicted[j], predicted, rtol=1e-6)
        assert got.error[j] == pytest.approx(
            (np.abs(observed - predicted) * got.counts[j].numpy() / 2000).sum(), rel=1e-6
        )
        assert got.error[j] == pytest.approx(1 / 6, abs=0.05)  # the mean of p - p^2
    alone = metrics.reliability(gamma.reshape(-1, 1), truth.reshape(-1, 1), 8)
    assert got.pooled_error == pytest.approx(alone.error.item())
    assert alone.pooled_error == pytest.approx(alone.error.item())


def test_pooled_errors_of_opposite_signs_cancel():
    gamma = torch.full((10, 2), 0.5)
    got = metrics.reliability(gamma, torch.tensor([[1.0, 0.0]]).expand(10, 2))
    assert (got.error.tolist(), got.pooled_error) == ([0.5, 0.5], 0.0)


def test_errors_of_two_bins_do_not_cancel():
    gamma = torch.tensor([0.2, 0.8]).repeat(10)[:, None]
    truth = torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(5)[:, None]
    got = metrics.reliability(gamma, truth)
    assert (got.error.item(), got.pooled_error) == (pytest.approx(0.3), pytest.approx(0.3))


def test_reliability_of_matched_coordinates():
    gamma, truth = torch.rand(200, 4), torch.bernoulli(torch.full((200, 3), 0.4))
    matching = torch.tensor([2, -1, 0])
    got = metrics.reliability(gamma, truth, matching=matching)
    table = torch.stack([gamma[:, 2], torch.zeros(200), gamma[:, 0]], 1)
    torch.testing.assert_close(got.error, metrics.reliability(table, truth).error)
    assert got.error[1] == pytest.approx(truth[:, 1].mean().item()), "a feature that is not found has P(on) = 0"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.reliability(torch.rand(5, 2), torch.rand(5, 3)), r"truth must be of shape \(5, 2\)"),
        (lambda: metrics.reliability(torch.rand(5, 2) + 1, torch.rand(5, 2)), "probability must be between 0 and 1"),
        (lambda: metrics.reliability(torch.rand(5, 2), torch.rand(5, 2), 0), "num_bins must be at least 1, got 0"),
        (
            lambda: metrics.reliability(torch.rand(5, 2), torch.rand(5, 1), matching=torch.tensor([2])),
            "matching must be a coordinate of z, below 2",
        ),
    ],
)
def test_bad_tables_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()
