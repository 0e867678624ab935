"""Recovery of known factors, from both sides: scipy, scikit-learn, all matchings, and codes whose score is known."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats as st
import torch
from cases import double
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    mutual_info_score,
    precision_recall_fscore_support,
    precision_score,
    recall_score,
)
from sklearn.neighbors import KNeighborsClassifier

from pyrovae import metrics
from pyrovae.metrics.disentanglement import _concentration


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sparse(num, dim, active=0.3, seed=0):
    """Spike-and-slab factors."""
    return normal(num, dim, seed=seed) * (torch.rand(num, dim, generator=torch.Generator().manual_seed(seed)) < active)


def discrete(num=600, values=(2, 3, 4), seed=0):
    """Independent discrete factors, every combination as often as the others."""
    rows = list(itertools.product(*(range(n) for n in values)))
    return torch.tensor(rows).repeat(num // len(rows), 1)


# --- correlations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("correlation", ["pearson", "spearman"])
def test_permuted_and_scaled_factors_are_recovered(correlation):
    v = sparse(300, 4)
    order, scale = [2, 0, 3, 1], double([-3.0, 1e-4, 7.0, -1e5])
    got = metrics.mcc(v[:, order] * scale, v, correlation)
    assert got.score == pytest.approx(1.0, abs=1e-12)
    assert [order[j] for j in got.matching] == [0, 1, 2, 3]
    torch.testing.assert_close(got.correlations, scale[got.matching].sign())
    assert got.dead == 0


def test_only_ranks_see_through_a_monotone_function():
    v = normal(500, 3)
    z = torch.exp(3 * v[:, [1, 2, 0]])
    assert metrics.mcc(z, v, "spearman").score == pytest.approx(1.0, abs=1e-12)
    assert metrics.mcc(z, v, "pearson").score < 0.6


def test_rotated_factors_are_not_recovered():
    """At 45 degrees each correlation is 1 / sqrt 2; of 10^5 rows its standard error is 0.0016, and 6 are allowed."""
    v = normal(100_000, 2)
    z = v @ double([[1.0, 1.0], [-1.0, 1.0]])
    assert metrics.mcc(z, v).score == pytest.approx(0.5**0.5, abs=6 * 0.0016)


def test_unrelated_codes_score_near_zero():
    """The largest of 8 correlations of 10^5 rows exceeds 6 standard errors, 0.019, once in 10^8."""
    got = metrics.mcc(normal(100_000, 4), normal(100_000, 2, seed=1))
    assert got.score < 6 / 100_000**0.5
    assert got.score > 0


@pytest.mark.parametrize(("dim", "num_factors"), [(5, 3), (3, 3), (2, 4), (1, 3), (4, 1)])
@pytest.mark.parametrize("correlation", ["pearson", "spearman"])
def test_the_matching_is_the_best_of_all(dim, num_factors, correlation):
    """Against scipy's correlations, whose ranks of ties are means, and every matching one by one."""
    v = sparse(40, num_factors, 0.5)
    z = v @ normal(num_factors, dim, seed=1) + sparse(40, dim, 0.4, seed=2)
    z[::3] = 0.0
    one = st.pearsonr if correlation == "pearson" else st.spearmanr
    table = np.array([[one(z[:, j], v[:, k])[0] for k in range(num_factors)] for j in range(dim)])
    got = metrics.mcc(z, v, correlation)
    pairs = [
        list(zip(rows, columns, strict=True))
        for num in [min(dim, num_factors)]
        for rows in itertools.permutations(range(dim), num)
        for columns in itertools.combinations(range(num_factors), num)
    ]
    best = max(sum(abs(table[pair]) for pair in matching) for matching in pairs)
    assert got.score == pytest.approx(best / num_factors, rel=1e-12)
    matched = [(int(j), k) for k, j in enumerate(got.matching) if j >= 0]
    assert len({j for j, _ in matched}) == len(matched) == min(dim, num_factors)
    for j, k in matched:
        assert got.correlations[k].item() == pytest.approx(table[j, k], rel=1e-9)
    assert (got.correlations[got.matching < 0] == 0).all()


def test_ranks_of_ties_are_not_orders_of_a_sort():
    """Codes that are zero in 90 rows of 100: an argsort gives the zeros ranks in the order of the rows."""
    v = torch.arange(100.0).double()[:, None]
    z = torch.zeros(100, 1).double()
    z[::10, 0] = 1.0
    exact = st.spearmanr(z[:, 0], v[:, 0])[0]
    argsort = abs(np.corrcoef(z[:, 0].argsort(stable=True), v[:, 0])[0, 1])
    assert metrics.mcc(z, v, "spearman").score == pytest.approx(abs(exact), rel=1e-12)
    assert abs(argsort - abs(exact)) > 0.1


def test_a_dead_coordinate_recovers_nothing_and_is_counted():
    v = sparse(200, 2)
    z = torch.cat([torch.full((200, 1), 0.1).double(), v[:, :1], torch.zeros(200, 1).double()], 1)
    got = metrics.mcc(z, v)
    assert (got.dead, got.matching[0].item(), got.correlations[1].item()) == (2, 1, 0.0)
    assert got.score == pytest.approx(0.5, abs=1e-12)


# --- support --------------------------------------------------------------------------------------------------------


def test_the_support_of_the_factors_themselves_is_right():
    v = sparse(300, 3)
    got = metrics.support_f1(-2 * v[:, [2, 0, 1]], v)
    num = int((v != 0).sum())
    assert got == (1.0, 1.0, 1.0, num, num, num)


def test_support_counts_are_those_of_scikit_learn():
    v, wrong = sparse(200, 3), sparse(200, 3, 0.2, seed=5)
    z = torch.cat([v[:, [1]], normal(200, 1, seed=6), v[:, [2]], v[:, [0]]], 1)
    z[:, [0, 2, 3]] = torch.where(wrong != 0, 1e-9 * (z[:, [0, 2, 3]] == 0), z[:, [0, 2, 3]])
    got = metrics.support_f1(z, v)
    truth, found = (v != 0).numpy().ravel(), (z[:, [3, 0, 2]] != 0).numpy().ravel()
    for value, measure in zip(got[:3], (f1_score, precision_score, recall_score), strict=True):
        assert value == pytest.approx(measure(truth, found), rel=1e-12)
        assert 0.5 < value < 0.95
    assert got[3:] == (found.sum(), truth.sum(), (found & truth).sum())
    assert metrics.support_f1(z, v, metrics.mcc(z, v).matching) == got


def test_dense_codes_find_all_and_are_as_precise_as_factors_are_active():
    v = sparse(500, 4)
    got = metrics.support_f1(v + 1e-12 * (1 + normal(500, 4, seed=3) ** 2), v)
    share = (v != 0).double().mean().item()
    assert (got.precision, got.recall) == (pytest.approx(share), 1.0)
    assert got.f1 == pytest.approx(2 * share / (1 + share))


def test_codes_without_support_find_nothing():
    v = sparse(50, 2)
    num = int((v != 0).sum())
    matching = torch.tensor([1, 0])
    assert metrics.support_f1(torch.zeros(50, 3), v, matching) == (0.0, 0.0, 0.0, 0, num, 0)
    shut = metrics.support_f1(v * torch.tensor([1.0, 0.0]), v)
    first = int((v[:, 0] != 0).sum())
    assert shut == (2 * first / (first + num), 1.0, first / num, first, num, first)
    assert metrics.support_f1(v, v, torch.tensor([0, -1])) == shut, "a factor without a coordinate is not found"


# --- firing ---------------------------------------------------------------------------------------------------------


def test_firing_scores_of_each_factor_are_those_of_scikit_learn():
    v, z = sparse(200, 3), sparse(200, 4, 0.4, seed=5)
    z[:, [2, 0, 3]] += v * (torch.rand(v.shape, generator=torch.Generator().manual_seed(2)) < 0.8)
    matching = torch.tensor([2, 0, 3])
    got = metrics.firing_scores(z, v, matching)
    truth, found = (v != 0).numpy(), (z[:, matching] != 0).numpy()
    precision, recall, f1, _ = precision_recall_fscore_support(truth, found, average=None)
    for value, expected in ((got.precision, precision), (got.recall, recall), (got.f1, f1)):
        np.testing.assert_allclose(value, expected, rtol=1e-12)
        assert len(set(expected)) == 3
    assert got.mean_f1 == pytest.approx(f1.mean())
    assert metrics.firing_scores(v[:, [1, 0, 2]], v).mean_f1 == 1.0


def test_factors_without_a_coordinate_and_factors_that_never_fire():
    v = torch.cat([sparse(50, 2), torch.zeros(50, 1).double()], 1)
    got = metrics.firing_scores(v, v, torch.tensor([0, -1, 2]))
    assert got.f1.nan_to_num(-1).tolist() == [1.0, 0.0, -1.0]
    assert got.precision.nan_to_num(-1).tolist() == [1.0, 0.0, -1.0]
    assert got.recall.nan_to_num(-1).tolist() == [1.0, 0.0, -1.0]
    assert got.mean_f1 == 0.5


@pytest.mark.parametrize("digits", [1, 15])
def test_support_auprc_is_that_of_scikit_learn(digits):
    """With one digit most scores are equal to others."""
    v = sparse(200, 3)
    score = torch.rand(200, 4, generator=torch.Generator().manual_seed(3)).double().round(decimals=digits)
    score[:, [2, 0, 3]] += 0.3 * (v != 0)
    matching = torch.tensor([2, 0, 3])
    expected = average_precision_score((v != 0).numpy().ravel(), score[:, matching].numpy().ravel())
    assert metrics.support_auprc(score, v, matching) == pytest.approx(expected, rel=1e-12)
    assert metrics.support_auprc(score[:, matching], v) == pytest.approx(expected, rel=1e-12)
    assert 0.3 < expected < 0.95
    partly = torch.tensor([2, -1, 3])
    last = score[:, matching].clone()
    last[:, 1] = -1.0
    expected = average_precision_score((v != 0).numpy().ravel(), last.numpy().ravel())
    assert metrics.support_auprc(score, v, partly) == pytest.approx(expected, rel=1e-12)


def test_equal_scores_have_the_share_that_is_on():
    v = sparse(100, 2)
    assert metrics.support_auprc(torch.ones(100, 2), v) == pytest.approx((v != 0).double().mean().item())
    assert metrics.support_auprc(v.abs(), v) == 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.support_auprc(normal(9, 4), sparse(9, 3)), "factors must be 4 columns as score, got 3"),
        (lambda: metrics.support_auprc(normal(9, 3), torch.zeros(9, 3)), "factors are all zero"),
        (lambda: metrics.firing_scores(normal(9, 3), sparse(9, 3), torch.tensor([0, 1, 3])), "matching must be"),
    ],
)
def test_bad_tables_of_firing_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


# --- disentanglement ------------------------------------------------------------------------------------------------


def test_mig_of_a_coordinate_for_each_factor_is_one_and_of_a_copy_zero():
    v = discrete()
    z = torch.cat([v[:, [1]] * -0.3, torch.zeros(len(v), 1), v[:, [2]] + 7.0, v[:, [0]] * 1e4], 1).double()
    got = metrics.mig(z, v)
    torch.testing.assert_close(got.gaps, torch.ones(3).double())
    assert got.score == pytest.approx(1.0)
    torch.testing.assert_close(got.table.amax(0), double([math.log(2), math.log(3), math.log(4)]))
    assert metrics.mig(torch.cat([z, z], 1), v).score == pytest.approx(0.0, abs=1e-12)
    assert metrics.mig(z[:, [0]], v).gaps.tolist() == pytest.approx([0.0, 1.0, 0.0], abs=1e-12)
    assert metrics.mig(torch.zeros(len(v), 2).double(), v).score == 0.0


@pytest.mark.parametrize("num_bins", [2, 5, 20])
def test_mutual_information_is_that_of_scikit_learn(num_bins):
    v = discrete()
    z = v.double() @ normal(3, 4, seed=2) + 0.5 * normal(len(v), 4)
    bins = [np.digitize(c, np.histogram(c, num_bins)[1][:-1]) for c in z.numpy().T]
    table = np.array([[mutual_info_score(c, f) for f in v.T] for c in bins])
    got = metrics.mig(z, v, num_bins)
    np.testing.assert_allclose(got.table, table, rtol=1e-9, atol=1e-12)
    top = -np.sort(-table, 0)
    np.testing.assert_allclose(got.gaps, (top[0] - top[1]) / np.log([2, 3, 4]), rtol=1e-9)
    continuous = metrics.mig(z, z[:, :2], num_bins)  # factors are cut as the codes are
    np.testing.assert_allclose(
        continuous.table, [[mutual_info_score(a, b) for b in bins[:2]] for a in bins], rtol=1e-9, atol=1e-12
    )
    assert continuous.score < 1.0


def test_sap_of_continuous_factors_is_the_gap_of_squared_correlations():
    v = normal(400, 3)
    z = torch.cat([v @ normal(3, 4, seed=1) + normal(400, 4, seed=2), torch.full((400, 1), 2.0).double()], 1)
    table = np.array([[st.linregress(z[:, j], v[:, k]).rvalue ** 2 for k in range(3)] for j in range(4)] + [[0.0] * 3])
    got = metrics.sap(z, v)
    np.testing.assert_allclose(got.table, table, rtol=1e-9, atol=1e-12)
    top = -np.sort(-table, 0)
    np.testing.assert_allclose(got.gaps, top[0] - top[1], rtol=1e-9)
    own = metrics.sap(v[:, [2, 0, 1]] * 1e-5 + 3.0, v)
    assert own.score > 0.95
    assert metrics.sap(torch.cat([v, v], 1), v).score == pytest.approx(0.0, abs=1e-12)
    assert metrics.sap(v[:, :1], v[:, :1]).score == pytest.approx(1.0)


def test_sap_of_discrete_factors_is_a_gap_of_accuracies():
    """A coordinate for each factor predicts it; the others guess, one half of two values (6 standard errors: 0.1)."""
    v = discrete(2400, (2, 2))
    z = torch.cat([v[:, [1]] * 1e-3, v[:, [0]] * -50.0, torch.ones(len(v), 1)], 1).double() + 1e-5 * normal(len(v), 3)
    got = metrics.sap(z, v)
    assert got.table[0, 1] == got.table[1, 0] == 1.0
    assert got.gaps.numpy() == pytest.approx([0.5, 0.5], abs=0.1)
    assert metrics.sap(torch.cat([z, z], 1), v).score == 0.0
    assert metrics.sap(torch.ones(len(v), 2), v).score == 0.0
    assert torch.equal(metrics.sap(z, v, seed=0).table, got.table)


def test_dci_of_a_coordinate_for_each_factor_is_one():
    v = discrete(480)
    z = torch.cat([v[:, [1]] * -1e3, v[:, [2]], v[:, [0]], torch.zeros(len(v), 1)], 1).double()
    got = metrics.dci(z, v)
    assert got[:3] == (pytest.approx(1.0, abs=1e-9), pytest.approx(1.0, abs=1e-9), 1.0)
    expected = torch.zeros(4, 3).double()
    expected[[2, 0, 1], [0, 1, 2]] = 1.0
    torch.testing.assert_close(got.importances, expected)


def test_dci_is_low_where_factors_are_mixed_or_absent():
    """Two rotated factors need both coordinates alike: 1 - H(1/2) = 0, and the trees' noise."""
    v = normal(1500, 2)
    mixed = metrics.dci(v @ double([[1.0, 1.0], [-1.0, 1.0]]), v)
    assert mixed.disentanglement < 0.05
    assert mixed.completeness < 0.05
    assert mixed.informativeness > 0.9
    own = metrics.dci(v[:, [1, 0]], v)
    assert own.disentanglement > 0.95
    assert own.completeness > 0.95
    assert own.informativeness > 0.98
    absent = metrics.dci(normal(1500, 2, seed=3), v)
    assert absent.informativeness < 0.0
    split = metrics.dci(torch.cat([v[:, :1], v[:, :1] ** 3, v[:, 1:]], 1), v)  # one factor twice is no mixture
    assert split.disentanglement > 0.95


def test_sap_gives_no_credit_for_the_frequent_value():
    """One value in ten: who says nothing but the other is right nine times of ten, and balanced classes forbid it."""
    v = (torch.arange(2000) % 10 == 0).long()[:, None]
    z = torch.cat([v + 0.01 * normal(2000, 1), normal(2000, 1, seed=4)], 1)
    got = metrics.sap(z, v)
    assert got.table[0, 0] == 1.0
    assert got.table[1, 0] < 0.7


@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_dci_is_the_formula_of_importances_that_scikit_learn_gives(kind):
    v = discrete(240)
    z = v.double() @ normal(3, 4, seed=2) + 0.3 * normal(len(v), 4)
    factors, trees = (
        (v.double(), GradientBoostingRegressor) if kind == "continuous" else (v, GradientBoostingClassifier)
    )
    test, train = np.split(np.random.default_rng(3).permutation(240), [60])
    models = [trees(random_state=3).fit(z[train], f[train]) for f in factors.T.numpy()]
    table = np.stack([model.feature_importances_ for model in models], 1)
    got = metrics.dci(z, factors, 0.25, seed=3)
    np.testing.assert_allclose(got.importances, table, rtol=1e-9)
    weights = table.sum(1) / table.sum()
    expected = sum(w * (1 - st.entropy(row / row.sum(), base=3)) for w, row in zip(weights, table, strict=True))
    assert got.disentanglement == pytest.approx(expected, rel=1e-9)
    assert got.completeness == pytest.approx(np.mean([1 - st.entropy(c, base=4) for c in table.T]), rel=1e-9)
    scores = [model.score(z[test], f[test]) for model, f in zip(models, factors.T.numpy(), strict=True)]
    assert got.informativeness == pytest.approx(np.mean(scores), rel=1e-9)


def test_concentration_is_one_less_the_normalised_entropy():
    table = np.array([[1.0, 3.0, 0.0], [0.0, 0.0, 0.0], [2.0, 2.0, 2.0], [0.0, 5.0, 0.0]])
    expected = [1 - st.entropy([0.25, 0.75, 0.0], base=3), 0.0, 0.0, 1.0]
    np.testing.assert_allclose(_concentration(table), expected, atol=1e-12)


# --- the probe of neighbours ----------------------------------------------------------------------------------------


def rings(num, seed):
    """Two classes that no line separates and neighbours do."""
    labels = torch.arange(num) % 2
    angle = 2 * math.pi * torch.rand(num, generator=torch.Generator().manual_seed(seed)).double()
    radius = 1.0 + 3.0 * labels
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1), labels


def test_neighbours_tell_rings_apart_and_lines_do_not():
    train, test = rings(1000, 0), rings(1000, 1)
    options = {"num_labels": 200, "repeats": 3}
    assert metrics.probe_accuracy(*train, *test, **options, classifier="knn") == (1.0, 0.0)
    assert metrics.probe_accuracy(*train, *test, **options).accuracy < 0.75


def test_neighbours_are_those_of_a_loop():
    codes, test_codes = normal(30, 3), normal(50, 3, seed=1)
    labels, test_labels = (torch.arange(n) % 3 for n in (30, 50))
    scaled = [((z - codes.mean(0)) / codes.std(0, correction=0)).numpy() for z in (codes, test_codes)]
    right = 0
    for row, label in zip(scaled[1], test_labels, strict=True):
        nearest = np.argsort(((scaled[0] - row) ** 2).sum(1))[:4]
        right += np.bincount(labels[nearest], minlength=3).argmax() == label.item()
    options = {"num_labels": 30, "repeats": 1, "classifier": "knn", "num_neighbors": 4}
    probe = metrics.probe_accuracy(codes, labels, test_codes, test_labels, **options)
    assert probe.accuracy == pytest.approx(right / 50)
    unscaled = KNeighborsClassifier(4).fit(codes, labels).score(test_codes, test_labels)
    scale = double([1e-6, 1.0, 1e6])
    again = metrics.probe_accuracy(codes * scale, labels, test_codes * scale, test_labels, **options)
    assert again.accuracy == probe.accuracy
    assert 0.2 < unscaled < 0.5


# --- what is wrong --------------------------------------------------------------------------------------------------

V = sparse(60, 2)
NAN = torch.where(torch.arange(60)[:, None] == 7, math.nan, V)
STILL = torch.cat([V[:, :1], torch.ones(60, 1)], 1)


@pytest.mark.parametrize("measure", [metrics.mcc, metrics.support_f1, metrics.mig, metrics.sap, metrics.dci])
@pytest.mark.parametrize(
    ("z", "factors", "message"),
    [
        (V[:0], V, r"z must be a table \(N, columns\) of numbers, got shape \(0, 2\)"),
        (V[:, 0], V, r"z must be a table .* got shape \(60,\)"),
        (V, V[:, :0], r"factors must be a table .* got shape \(60, 0\)"),
        (NAN, V, "z must be finite, got NaN or infinity in row 7"),
        (V, NAN / 0, "factors must be finite, got NaN or infinity in row"),
        (V, V[:59], "factors must be one row for each of the 60 codes, got 59"),
        (V, STILL, "factors must vary, column 1 is constant"),
    ],
)
def test_bad_tables_are_named(measure, z, factors, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        measure(z, factors)


LAST = torch.cat([torch.zeros(59), torch.ones(1)]).long()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.mcc(V, V, "kendall"), "correlation must be .pearson. or .spearman., got 'kendall'"),
        (lambda: metrics.mcc(torch.ones(60, 3), V), "z is constant in every coordinate"),
        (lambda: metrics.dci(torch.ones(60, 3), V), "z is constant in every coordinate"),
        (lambda: metrics.support_f1(V, torch.zeros(60, 2), torch.tensor([0, 1])), "factors are all zero"),
        (lambda: metrics.support_f1(V, V, torch.tensor([0, 2])), "matching must be a coordinate of z, below 2, or -1"),
        (lambda: metrics.support_f1(V, V, torch.tensor([0])), "matching must be a coordinate of z"),
        (lambda: metrics.support_f1(V, V, torch.tensor([0.0, 1.0])), "matching must be a coordinate of z"),
        (lambda: metrics.mig(V, V, 1), "num_bins must be at least 2, got 1"),
        (lambda: metrics.dci(V[:, :1], V), "z must have 2 columns or more, got 1"),
        (lambda: metrics.dci(V, V[:, :1]), "factors must have 2 columns or more, got 1"),
        (lambda: metrics.dci(V, V, test_share=1.0), "test_share must be between 0 and 1, got 1.0"),
        (lambda: metrics.dci(V[:2], V[:2] + normal(2, 2)), "z has too few rows, 2, to hold 1 out"),
        (lambda: metrics.dci(V, torch.stack([LAST.roll(-k) for k in (31, 43)], 1)[:, :2]), "factors: the rows to"),
        (lambda: metrics.sap(V, torch.stack([LAST.roll(k) for k in range(40)], 1)), "factors: the rows to train on"),
    ],
)
def test_what_is_wrong_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classifier": "trees"}, "classifier must be .linear. or .knn., got 'trees'"),
        ({"classifier": "knn", "num_neighbors": 9}, "num_neighbors must be between 1 and num_labels = 8, got 9"),
        ({"classifier": "knn", "num_neighbors": 0}, "num_neighbors must be between 1 and num_labels = 8, got 0"),
        ({"codes": NAN}, "codes must be finite"),
        ({"test_codes": NAN}, "test_codes must be finite"),
    ],
)
def test_a_bad_probe_of_neighbours_is_named(change, message):
    labels = torch.arange(60) % 2
    good = {"codes": V, "labels": labels, "test_codes": V, "test_labels": labels, "num_labels": 8}
    with pytest.raises(ValueError, match=f"^{message}"):
        metrics.probe_accuracy(**{**good, **change})
