"""Coverage of classes, nearest neighbours and the two-sample test, each against something independent."""

import math

import numpy as np
import pytest
import scipy.stats as st
import torch

from pyrovae.metrics import class_coverage, mmd_test, nearest_neighbors


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_coverage_counts_classes():
    x = torch.tensor([[0.0], [1.0], [1.0], [3.0]] * 1000)
    coverage = class_coverage(lambda rows: rows[:, 0].long(), x, num_classes=4)
    assert coverage.share.tolist() == [0.25, 0.5, 0.0, 0.25]
    assert coverage.missing == 1
    assert coverage.kl == pytest.approx(st.entropy([0.25, 0.5, 0.0, 0.25], [0.25] * 4))
    alone = class_coverage(lambda rows: torch.zeros(len(rows), dtype=torch.long), x, num_classes=4)
    assert alone.kl == pytest.approx(math.log(4))


@pytest.mark.parametrize(
    "classify", [lambda x: x[:, 0], lambda x: x.long(), lambda x: x[:, 0].long() + 4, lambda x: x[:, 0].long() - 1]
)
def test_coverage_refuses_what_is_no_label(classify):
    with pytest.raises(ValueError, match="classify must return"):
        class_coverage(classify, torch.zeros(5, 1), num_classes=4)
    with pytest.raises(ValueError, match="x has no rows"):
        class_coverage(classify, torch.zeros(0, 1))


def test_nearest_neighbors_are_those_of_a_loop():
    samples, train, held_out = normal(30, 2, 3), normal(40, 2, 3, seed=1), normal(50, 2, 3, seed=2)
    found = nearest_neighbors(samples, train, held_out)
    for x, distances in ((samples, found.samples), (held_out, found.held_out)):
        expected = [min((row - other).norm().item() for other in train) for row in x]
        assert distances.tolist() == pytest.approx(expected, rel=1e-4)
    nearer = [float(s < h) + float(s == h) / 2 for s in found.samples for h in found.held_out]
    assert found.nearer == pytest.approx(np.mean(nearer))


def test_copies_are_nearer_than_new_data():
    train, held_out = normal(500, 5), normal(500, 5, seed=1)
    assert nearest_neighbors(train[:100], train, held_out).nearer == 1.0
    assert nearest_neighbors(held_out, train, held_out).nearer == 0.5
    # new draws of one law: within 5 standard errors of the rank statistic, some 0.018 each
    assert nearest_neighbors(normal(500, 5, seed=2), train, held_out).nearer == pytest.approx(0.5, abs=0.09)
    with pytest.raises(ValueError, match="samples must have rows"):
        nearest_neighbors(normal(5, 4), train, held_out)


def test_squared_mmd_is_the_sum_and_is_what_the_penalty_is_of():
    a, b = normal(9, 2).double(), normal(12, 2, seed=1).double() + 0.5
    result = mmd_test(a, b, bandwidth=0.7, num_permutations=9)

    def k(x, y):
        return math.exp(-((x - y) ** 2).sum() / (2 * 0.7**2))

    within = [
        sum(k(x, y) for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j) / (len(rows) * (len(rows) - 1))
        for rows in (a, b)
    ]
    across = sum(k(x, y) for x in a for y in b) / (9 * 12)
    assert result.squared_mmd == pytest.approx(sum(within) - 2 * across, rel=1e-10)


def test_squared_mmd_is_unbiased_of_two_normals():
    """N(0, 1) and N(m, 1) have E k = h / sqrt(h^2 + 2) exp(-m^2 / (2 (h^2 + 2))); within 5 standard errors."""
    h, m = 1.2, 0.8
    same = h / (h**2 + 2) ** 0.5
    exact = 2 * same * (1 - math.exp(-(m**2) / (2 * (h**2 + 2))))
    torch.manual_seed(0)
    found = torch.tensor(
        [mmd_test(torch.randn(20, 1), torch.randn(15, 1) + m, h, num_permutations=1).squared_mmd for _ in range(1000)]
    )
    assert abs(found.mean() - exact) <= 5 * found.std() / 1000**0.5 < 0.2 * exact


def test_p_values_are_uniform_under_one_law():
    """500 tests of 20 and 25 rows of a plane with 99 permutations: p is uniform on 0.01, 0.02, ..., 1.

    A chi-squared of ten bins, whose false alarm is 1 in 10^4; and p <= 0.05 as often as a binomial has it, 5 sigma.
    """
    torch.manual_seed(0)
    p = np.array([mmd_test(torch.randn(20, 2), torch.randn(25, 2), None, 99, seed).p_value for seed in range(500)])
    counts = np.bincount(np.ceil(10 * p - 1e-9).astype(int) - 1, minlength=10)
    assert st.chisquare(counts).pvalue > 1e-4
    assert abs((p < 0.055).sum() - 25) <= 5 * (500 * 0.05 * 0.95) ** 0.5


def test_a_shift_is_seen():
    """20 tests of 50 rows, one law shifted by one standard deviation of two: each p is the least there is."""
    torch.manual_seed(0)
    for seed in range(20):
        assert mmd_test(torch.randn(50, 2), torch.randn(50, 2) + 1, None, 199, seed).p_value == 1 / 200


def test_other_laws_of_one_mean_and_variance_are_told_apart():
    torch.manual_seed(0)
    signs = 2 * torch.bernoulli(torch.full((300, 1), 0.5)) - 1
    assert mmd_test(signs, torch.randn(300, 1), bandwidth=0.3).p_value == 0.001


def test_equal_rows_are_no_evidence():
    x = torch.ones(5, 2)
    result = mmd_test(x, x, num_permutations=19)
    assert (result.squared_mmd, result.p_value) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda x: mmd_test(x, x[:, :1]), "a and b must have"),
        (lambda x: mmd_test(x[:1], x), "a and b must have"),
        (lambda x: mmd_test(x, x * math.nan), "finite"),
        (lambda x: mmd_test(x, x, bandwidth=0.0), "bandwidth"),
        (lambda x: mmd_test(x, x, num_permutations=0), "num_permutations"),
    ],
)
def test_bad_arguments_are_named(call, named):
    with pytest.raises(ValueError, match=named):
        call(torch.randn(5, 2))
