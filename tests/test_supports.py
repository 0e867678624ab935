"""Supports of codes against counts by hand, every pair, scipy, and the enumeration of all gates."""

import itertools
import math

import numpy as np
import pytest
import scipy.spatial.distance as sd
import scipy.stats as st
import torch
from cases import double

import pyrovae as pv
from pyrovae import metrics
from pyrovae.metrics.supports import _masses


def gates(num, dim, active=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, dim, generator=generator) * (torch.rand(num, dim, generator=generator) < active)


def mean_distance(on, pairs):
    """Of pairs of rows, by scipy, in which two empty supports have distance 0."""
    return np.mean([sd.jaccard(on[i], on[j]) for i, j in pairs])


# --- counts ---------------------------------------------------------------------------------------------------------


def test_counts_of_a_table_by_hand():
    z = double([[0.0, 1.0, 1e-300, 0.0], [0.0, -2.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0]])
    got = metrics.supports(z)
    assert got.l0.tolist() == [2, 1, 1]
    assert got.density.tolist() == pytest.approx([0.0, 1.0, 1 / 3, 0.0])
    assert (got.dead, got.dense, got.always_on) == (2, 1, 0.25)


def test_l0_and_density_are_two_sums_of_one_table():
    z = gates(200, 7)
    got = metrics.supports(z)
    assert got.l0.sum() == pytest.approx(200 * got.density.sum().item())
    assert got.l0.bincount(minlength=8).tolist() == [int((got.l0 == k).sum()) for k in range(8)]
    assert metrics.exact_zeros(z).item() == pytest.approx(1 - got.density.mean().item())


def test_a_constant_coordinate_is_on():
    """The other L0 leaves it out, as one that does not follow the data."""
    z = torch.cat([torch.ones(50, 1), gates(50, 2)], 1)
    assert metrics.supports(z).l0.float().mean().item() == pytest.approx(metrics.l0(z, 0.0).mean + 1)


# --- variety --------------------------------------------------------------------------------------------------------


def test_all_pairs_are_those_of_scipy_with_and_without_a_label():
    z, labels = gates(40, 5), torch.arange(40) % 3
    z[:4] = 0.0
    on, pairs = (z != 0).numpy(), list(itertools.combinations(range(40), 2))
    got = metrics.support_variety(z, labels)
    assert (got.exact, got.num_pairs) == (True, 780)
    assert got.jaccard == pytest.approx(mean_distance(on, pairs))
    for value, same in ((got.within, True), (got.between, False)):
        assert value == pytest.approx(mean_distance(on, [p for p in pairs if (labels[p[0]] == labels[p[1]]) == same]))
    assert got.num_supports == len({tuple(row) for row in on.tolist()})
    without = metrics.support_variety(z)
    assert (without.jaccard, without.within, without.between) == (got.jaccard, None, None)


def test_random_pairs_have_the_mean_of_all_pairs():
    """20,000 pairs, each of a distance in [0, 1]: 5.5 standard errors are below 0.0195."""
    z = gates(300, 8, seed=1)
    every, some = metrics.support_variety(z), metrics.support_variety(z, num_pairs=20_000)
    assert (every.exact, some.exact, some.num_pairs) == (True, False, 20_000)
    assert some.jaccard != every.jaccard
    assert abs(some.jaccard - every.jaccard) < 5.5 * 0.5 / math.sqrt(20_000)
    assert metrics.support_variety(z, num_pairs=20_000) == some
    assert metrics.support_variety(z, num_pairs=20_000, seed=1).jaccard != some.jaccard
    assert some.num_supports == every.num_supports


def test_no_random_pair_is_a_datum_with_itself():
    z = torch.eye(3)
    assert metrics.support_variety(z, num_pairs=2).jaccard == 1.0
    assert metrics.support_variety(z, num_pairs=2, labels=torch.arange(3)).within is None


def test_independent_gates_have_the_expected_distance():
    """E|A and B| / |A or B| of two coordinates, enumerated; 100,000 pairs within 5.5 standard errors."""
    p = 0.4
    expected = 0.0
    for a in itertools.product((0, 1), repeat=4):
        (i, j), (k, m) = a[:2], a[2:]
        union, both = max(i, k) + max(j, m), i * k + j * m
        expected += p ** sum(a) * (1 - p) ** (4 - sum(a)) * (1 - both / union if union else 0.0)
    got = metrics.support_variety(gates(200_000, 2, p, seed=3))
    assert abs(got.jaccard - expected) < 5.5 * 0.5 / math.sqrt(100_000)
    assert got.num_supports == 4


def test_one_support_for_all_data_has_no_variety():
    z = torch.randn(100, 6) * torch.tensor([1.0, 0, 1, 0, 0, 1])
    got = metrics.support_variety(z)
    assert got[:4] == (0.0, None, None, 1)
    assert metrics.support_variety(torch.zeros(5, 3)).jaccard == 0.0
    apart = metrics.support_variety(torch.eye(6))
    assert (apart.jaccard, apart.num_supports) == (1.0, 6)


def test_wide_codes_are_cut_in_parts():
    z = gates(300, 3000, 0.01)
    on = (z != 0).numpy()
    got = metrics.support_variety(z, num_pairs=44_850)
    assert got.exact
    assert got.jaccard == pytest.approx(sd.pdist(on, "jaccard").mean())
    assert got.num_supports == 300


# --- active dimension -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_the_interval_is_that_of_all_gates_enumerated(level):
    gamma = torch.rand(20, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    got = metrics.active_dimension(gamma, level)
    for n, row in enumerate(gamma.tolist()):
        mass = np.zeros(7)
        for open_ in itertools.product((0, 1), repeat=6):
            mass[sum(open_)] += math.prod(p if o else 1 - p for o, p in zip(open_, row, strict=True))
        below = mass.cumsum()
        assert got.low[n] == np.searchsorted(below, (1 - level) / 2)
        assert got.high[n] == np.searchsorted(below, (1 + level) / 2)
        assert mass[got.low[n] : got.high[n] + 1].sum() >= level
        assert got.num_active[n] == sum(p > 0.5 for p in row)
        assert got.mean[n] == pytest.approx(sum(row))


def test_equal_gates_have_the_quantiles_of_a_binomial():
    got = metrics.active_dimension(torch.full((2, 300), 0.2, dtype=torch.float64), 0.9)
    law = st.binom(300, 0.2)
    assert got.low.tolist() == [law.ppf(0.05)] * 2
    assert got.high.tolist() == [law.ppf(0.95)] * 2


@pytest.mark.parametrize("dim", [1, 2, 3, 257])
def test_the_distribution_is_the_convolution_of_one_gate_after_another(dim):
    gamma = torch.rand(5, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64) ** 3
    for row, got in zip(gamma.numpy(), _masses(gamma), strict=True):
        mass = np.ones(1)
        for p in row:
            mass = np.convolve(mass, [1 - p, p])
        np.testing.assert_allclose(got, mass, rtol=0, atol=1e-14)


def test_certain_gates_have_an_interval_of_one_number():
    gamma = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    got = metrics.active_dimension(gamma, 0.999)
    assert got.num_active.tolist() == got.low.tolist() == got.high.tolist() == [2, 0, 3]


def test_a_guide_gives_probabilities_and_their_number():
    torch.manual_seed(0)
    vae = pv.build_vae((6,), 3, prior="spike-slab", likelihood="normal", hidden=(8,))
    x = torch.randn(30, 6)
    gamma, exact = metrics.nonzero_probability(vae, x)
    assert exact
    got = metrics.active_dimension(gamma)
    assert got.mean.mean().item() == pytest.approx(metrics.spike_occupancy(vae, x).posterior.sum().item(), rel=1e-6)
    assert torch.equal(got.num_active, (vae.encode(x) != 0).sum(1)), "the code is on where on is more likely"


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.supports(torch.zeros(3)), r"z must be codes \(N, D\) of real numbers, got torch.float32"),
        (lambda: metrics.supports(torch.full((2, 2), math.nan)), "z must be numbers, got NaN"),
        (lambda: metrics.support_variety(torch.zeros(1, 2)), "z must be two codes or more to compare, got 1"),
        (lambda: metrics.support_variety(torch.zeros(2, 2), torch.zeros(3)), "labels must be one for each of 2 codes"),
        (lambda: metrics.support_variety(torch.zeros(2, 2), num_pairs=0), "num_pairs must be at least 1, got 0"),
        (lambda: metrics.active_dimension(torch.full((2, 2), 1.5)), "probability must be between 0 and 1"),
        (lambda: metrics.active_dimension(torch.full((2, 2), math.nan)), "probability must be between 0 and 1"),
        (lambda: metrics.active_dimension(torch.zeros(2)), r"probability must be a table \(N, D\) of real numbers"),
        (lambda: metrics.active_dimension(torch.zeros(2, 2), 1.0), "level must be between 0 and 1, got 1.0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()
