"""Measurements of codes: sparsity from both sides, the linear probe, and atoms of decoders that are known."""

import functools
import itertools
import math

import numpy as np
import pytest
import scipy.stats as st
import torch
from cases import double

import pyrovae as pv
from pyrovae import metrics
from pyrovae.metrics.probe import _stratified


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- zeros and Hoyer ------------------------------------------------------------------------------------------------


def test_exact_zeros_counts_zeros_and_no_small_number():
    z = torch.tensor([[0.0, 1e-30, -0.0, 2.0], [0.0, 3.0, 1.0, -1.0]])
    assert metrics.exact_zeros(z).item() == 3 / 8
    assert metrics.exact_zeros(z).shape == ()
    assert metrics.exact_zeros(torch.zeros(2, 3)).item() == 1.0
    assert metrics.exact_zeros(normal(50, 4)).item() == 0.0


def test_hoyer_is_one_for_one_coordinate_and_zero_for_equal_magnitudes():
    one_hot = torch.zeros(60, 6).double()
    one_hot[torch.arange(60), torch.arange(60) % 6] = normal(60)
    torch.testing.assert_close(metrics.hoyer(one_hot).value, torch.ones(60).double())
    signs = torch.tensor(list(itertools.product([-3.0, 3.0], repeat=5)))  # each column half and half
    torch.testing.assert_close(metrics.hoyer(signs).value, torch.zeros(32), atol=1e-6, rtol=0)
    assert metrics.hoyer(signs)[2:] == (0, 0)


def test_hoyer_is_the_formula_in_numpy():
    z = normal(200, 7).numpy() * np.geomspace(0.1, 10, 7)
    y = z / z.std(0)
    expected = (np.sqrt(7) - np.linalg.norm(y, 1, axis=1) / np.linalg.norm(y, 2, axis=1)) / (np.sqrt(7) - 1)
    got = metrics.hoyer(torch.tensor(z))
    np.testing.assert_allclose(got.value, expected, rtol=1e-12)
    assert got.mean == pytest.approx(expected.mean(), rel=1e-12)


@pytest.mark.parametrize("factor", [1e-25, 1e15])
def test_hoyer_knows_no_units_in_float32(factor):
    z = normal(50, 5).float()
    expected = metrics.hoyer(z).value
    z[:, 1:] *= 1e3 * torch.arange(1, 5)
    torch.testing.assert_close(metrics.hoyer(z).value, expected, rtol=1e-4, atol=1e-5)
    z[:, 0] *= max(factor, 1e-3)  # no column is dead
    torch.testing.assert_close(metrics.hoyer(z).value, expected, rtol=1e-4, atol=1e-5)


def test_a_collapsed_dimension_does_not_look_sparse():
    z = normal(500, 16)
    collapsed = z.clone()
    collapsed[:, 2:] *= 1e-4
    torch.testing.assert_close(metrics.hoyer(collapsed).value, metrics.hoyer(z).value)
    ratio = collapsed.norm(1, 1) / collapsed.norm(2, 1)
    assert ((4 - ratio) / 3).mean() > metrics.hoyer(z).mean + 0.4, "without the division they would"
    dead = torch.cat([z, torch.zeros(500, 3), torch.full((500, 2), 0.7)], 1)
    got = metrics.hoyer(dead)
    torch.testing.assert_close(got.value, metrics.hoyer(z).value)
    assert got[2:] == (5, 0)


def test_an_empty_code_has_no_value_and_is_counted():
    z = normal(40, 4)
    z[3] = z[8] = 0.0
    got = metrics.hoyer(z)
    assert (got.value == 0).nonzero()[:, 0].tolist() == [3, 8]
    assert got[2:] == (0, 2)
    assert got.mean == pytest.approx(got.value[got.value > 0].mean().item(), rel=1e-12)


@pytest.mark.parametrize(("z", "dead"), [(torch.eye(3)[:, :1], 0), (torch.ones(1, 4), 4), (torch.zeros(5, 2), 2)])
def test_fewer_than_two_dimensions_have_no_hoyer(z, dead):
    got = metrics.hoyer(z)
    assert got.value.shape == z.shape[:1]
    assert not got.value.any()
    assert (got.mean, got.dead) == (0.0, dead)
    assert got.empty == int((z == 0).all(1).sum())


# --- other measures of a code ---------------------------------------------------------------------------------------

LIFETIME = functools.partial(metrics.treves_rolls, over="lifetime")
EACH_CODE = (metrics.hoyer, metrics.gini, metrics.treves_rolls)  # from 0, even, to about 1, one-hot


def even_codes(dim=5):
    """Codes of equal magnitudes, each column half and half."""
    return 3 * double(list(itertools.product([-1.0, 1.0], repeat=dim)))


def one_hot_codes(dim=6, num=60):
    z = torch.zeros(num, dim).double()
    z[torch.arange(num), torch.arange(num) % dim] = normal(num)
    return z


def test_l0_counts_what_is_away_from_zero_in_units_of_each_coordinate():
    z = normal(400, 6)
    z[:200, 2:] = 0.0
    assert metrics.l0(z, 0.0).value.tolist() == [2.0] * 200 + [6.0] * 200
    assert metrics.l0(z, 0.0)[2:] == (0, 0)
    z = normal(300, 4).numpy() * np.geomspace(1e-3, 1e3, 4)
    for threshold in (0.01, 0.5, 3.0):
        expected = [sum(abs(z[n, j]) > threshold * z[:, j].std() for j in range(4)) for n in range(300)]
        assert metrics.l0(torch.tensor(z), threshold).value.tolist() == expected
    assert metrics.l0(torch.tensor(z)).mean > 3.9
    assert metrics.l0(torch.tensor(z), 100.0).mean == 0.0


def test_an_empty_code_has_no_active_coordinate_and_is_counted():
    z = torch.cat([normal(40, 4), torch.full((40, 1), 0.7)], 1)
    z[3, :4] = z[8, :4] = 0.0
    got = metrics.l0(z)
    assert got.value[[3, 8]].tolist() == [0.0, 0.0]
    assert got[2:] == (1, 2)
    all_zero = metrics.l0(torch.zeros(5, 2))
    assert (all_zero.value.tolist(), *all_zero[1:]) == ([0.0] * 5, 0.0, 2, 5)


@pytest.mark.parametrize("threshold", [-0.1, math.nan, math.inf])
def test_a_threshold_is_a_number_of_standard_deviations(threshold):
    with pytest.raises(ValueError, match=r"^threshold must be at least 0 and finite, got"):
        metrics.l0(normal(5, 2), threshold)


@pytest.mark.parametrize("measure", [metrics.gini, metrics.treves_rolls])
def test_equal_magnitudes_have_none_and_one_coordinate_all(measure):
    torch.testing.assert_close(measure(even_codes()).value, torch.zeros(32).double())
    top = 1 - 1 / 6 if measure is metrics.gini else 1.0
    torch.testing.assert_close(measure(one_hot_codes()).value, torch.full((60,), top).double())
    two = torch.cat([one_hot_codes(), one_hot_codes()], 1)  # two of twelve, equal after the division
    expected = 1 - 2 / 12 if measure is metrics.gini else (1 - 4 / 24) / (1 - 1 / 12)
    torch.testing.assert_close(measure(two).value, torch.full((60,), expected).double())


def test_gini_is_half_the_mean_difference_of_magnitudes_over_their_mean():
    z = normal(50, 7).numpy() * np.geomspace(0.1, 10, 7)
    a = np.abs(z / z.std(0))
    expected = np.abs(a[:, :, None] - a[:, None, :]).mean((1, 2)) / (2 * a.mean(1))
    np.testing.assert_allclose(metrics.gini(torch.tensor(z)).value, expected, rtol=1e-12)


def test_treves_rolls_is_the_formula_of_population_and_lifetime():
    z = normal(50, 7).numpy() * np.geomspace(0.1, 10, 7)
    for over, r in (("population", np.abs(z / z.std(0))), ("lifetime", np.abs(z).T)):
        m = r.shape[1]
        expected = [(1 - sum(row) ** 2 / (m * sum(row**2))) / (1 - 1 / m) for row in r]
        np.testing.assert_allclose(metrics.treves_rolls(torch.tensor(z), over).value, expected, rtol=1e-12)


def test_lifetime_is_of_each_coordinate_that_lives():
    """One datum of 50 at the first, all alike in size at the second; of a Normal 1 - 2 / pi (9 standard errors)."""
    z = torch.stack([torch.zeros(50), torch.ones(50), torch.full((50,), 0.3)], 1).double()
    z[7, 0], z[::2, 1] = 4.0, -1.0
    got = LIFETIME(z)
    torch.testing.assert_close(got.value, double([1.0, 0.0]))
    assert (got.dead, got.empty) == (1, 0)
    assert LIFETIME(normal(100_000, 1)).value.item() == pytest.approx(1 - 2 / math.pi, abs=0.015)


def test_a_thing_that_lives_once_has_no_sparseness():
    with pytest.raises(ValueError, match=r"^over must be .population. or .lifetime., got 'both'"):
        metrics.treves_rolls(normal(5, 2), "both")
    assert LIFETIME(normal(1, 3)).mean == 0.0  # every coordinate is constant
    assert LIFETIME(normal(1, 3)).dead == 3


@pytest.mark.parametrize("measure", EACH_CODE)
def test_no_measure_takes_a_dead_dimension_for_sparsity(measure):
    z = normal(300, 8)
    faded, dead = z.clone(), torch.cat([z, torch.zeros(300, 3), torch.full((300, 2), 0.7).double()], 1)
    faded[:, 2:] *= 1e-4
    torch.testing.assert_close(measure(faded).value, measure(z).value)
    torch.testing.assert_close(measure(dead).value, measure(z).value)
    assert measure(dead)[2:] == (5, 0)
    z[3] = 0.0
    assert (measure(z).value == 0).nonzero().tolist() == [[3]]
    assert measure(z)[2:] == (0, 1)
    for few in (torch.eye(3)[:, :1], torch.ones(1, 4), torch.zeros(5, 2)):
        assert measure(few).mean == 0.0
        assert measure(few).value.shape == few.shape[:1]


@pytest.mark.parametrize("measure", [*EACH_CODE, LIFETIME])
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_no_measure_knows_units_in_float32(measure, size):
    z = normal(50, 5).float()
    expected = measure(z).value
    scaled = torch.cat([z[:, :1] * max(size, 1e-3), z[:, 1:] * min(size, 1e15) if size > 1 else z[:, 1:]], 1)
    torch.testing.assert_close(measure(scaled).value, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("measure", [*EACH_CODE, LIFETIME, metrics.l0, metrics.exact_zeros])
def test_codes_are_finite(measure, bad):
    z = normal(4, 3)
    z[2, 1] = bad
    with pytest.raises(ValueError, match=rf"^z must be finite, got {bad} at \(2, 1\)"):
        measure(z)


@pytest.mark.parametrize("measure", [metrics.hoyer, metrics.exact_zeros, metrics.l0, metrics.gini, LIFETIME])
@pytest.mark.parametrize("z", [torch.zeros(3), torch.zeros(0, 3), torch.zeros(3, 0), torch.zeros(3, 3).long()])
def test_codes_are_a_table_of_real_numbers(measure, z):
    with pytest.raises(ValueError, match=r"^z must be codes \(N, D\) of real numbers, got"):
        measure(z)


def test_evaluate_reports_the_sparsity_of_the_deterministic_code():
    torch.manual_seed(0)
    vae = pv.build_vae((6,), 4, prior="spike-slab", hidden=(8,))
    x = torch.bernoulli(torch.full((30, 6), 0.5))
    numbers = metrics.evaluate(vae, x, 5)
    z = vae.encode(x)
    assert 0 < numbers["exact_zeros"] < 1
    assert numbers["exact_zeros"] == pytest.approx((z == 0).float().mean().item())
    assert numbers["hoyer"] == metrics.hoyer(z).mean
    assert (numbers["dead_units"], numbers["empty_codes"]) == metrics.hoyer(z)[2:]


# --- the probe ------------------------------------------------------------------------------------------------------


def classes(centres, each, seed):
    """Codes around centres one apart from the other, ``each`` of each class, with their labels."""
    labels = torch.arange(len(centres)).repeat_interleave(each)
    return centres[labels] + normal(len(labels), centres.shape[1], seed=seed), labels


def test_separable_codes_are_told_apart():
    centres = 20 * torch.eye(5).double()
    probe = metrics.probe_accuracy(*classes(centres, 100, 0), *classes(centres, 200, 1), num_labels=10, repeats=5)
    assert probe == (1.0, 0.0)


def test_shuffled_labels_give_chance():
    """2,000 test rows of 10 classes: 6 standard errors of one draw are 0.04, a false alarm once in 10^8."""
    centres = 20 * torch.eye(10).double()
    codes, labels = classes(centres, 100, 0)
    test_codes, test_labels = classes(centres, 200, 1)
    shuffled = [y[torch.randperm(len(y), generator=torch.Generator().manual_seed(2))] for y in (labels, test_labels)]
    probe = metrics.probe_accuracy(codes, shuffled[0], test_codes, shuffled[1], num_labels=100, repeats=10)
    assert abs(probe.accuracy - 0.1) < 0.04


def test_two_normals_are_told_apart_as_often_as_can_be():
    """N(-1, 1) against N(1, 1): the best accuracy is Phi(1). With 20,000 test rows its standard error is 0.0026, so
    that 6 of them raise a false alarm once in 10^8; a boundary that is 0.1 off costs 0.0012."""
    centres = torch.tensor([[-1.0], [1.0]]).double()
    codes, labels = classes(centres, 2000, 0)
    test_codes, test_labels = classes(centres, 10_000, 1)
    probe = metrics.probe_accuracy(codes, labels, test_codes, test_labels, num_labels=2000, repeats=5)
    assert probe.accuracy == pytest.approx(st.norm.cdf(1), abs=6 * 0.0026)
    assert 0 < probe.standard_error < 0.002


def test_the_probe_knows_no_units_and_repeats_itself():
    centres = torch.eye(4).double() * 2
    train, test = classes(centres, 50, 0), classes(centres, 50, 1)
    first = metrics.probe_accuracy(*train, *test, num_labels=40, repeats=4, seed=3)
    scale, shift = torch.tensor([1e-6, 1.0, 1e6, 1.0]), torch.tensor([0.0, 1e3, 0.0, -1e3])
    codes, test_codes = (torch.cat([z * scale + shift, torch.full((len(z), 1), 0.7)], 1) for z, _ in (train, test))
    again = metrics.probe_accuracy(codes, train[1], test_codes, test[1], num_labels=40, repeats=4, seed=3)
    assert again == pytest.approx(first, abs=1e-9)
    assert metrics.probe_accuracy(*train, *test, num_labels=40, repeats=4, seed=4) != first
    assert math.isnan(metrics.probe_accuracy(*train, *test, num_labels=40, repeats=1).standard_error)


def test_labelled_rows_are_of_all_classes_alike():
    labels = np.repeat([7, 3, 5], [500, 12, 40])
    for num, counts in ((30, [10, 10, 10]), (31, [10, 10, 11]), (3, [1, 1, 1])):
        rows = _stratified(labels, num, np.random.default_rng(0))
        assert len(set(rows)) == num
        assert sorted(np.unique(labels[rows], return_counts=True)[1]) == counts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_labels": 3}, "num_labels must be at least one for each of 2 or more classes, got 3 for 4"),
        ({"num_labels": 80}, "num_labels = 80 takes 20 rows of class ., which has 5"),
        ({"repeats": 0}, "repeats must be at least 1, got 0"),
        ({"labels": torch.zeros(20).long()}, "num_labels must be .* got 8 for 1"),
        ({"labels": torch.zeros(19)}, r"labels must be one for each row of codes, got \(19,\) for \(20, 4\)"),
        ({"test_labels": torch.zeros(3)}, "test_labels must be one for each row of test_codes"),
        ({"test_codes": torch.zeros(20, 3)}, "test_codes must have 4 columns as codes have, got 3"),
        ({"codes": torch.zeros(20)}, "labels must be one for each row of codes"),
    ],
)
def test_a_bad_probe_is_named(change, message):
    codes, labels = classes(torch.eye(4).double(), 5, 0)
    good = {"codes": codes, "labels": labels, "test_codes": codes, "test_labels": labels, "num_labels": 8}
    with pytest.raises(ValueError, match=f"^{message}"):
        metrics.probe_accuracy(**{**good, **change})


# --- atoms ----------------------------------------------------------------------------------------------------------


def test_atoms_of_a_linear_decoder_are_its_columns():
    torch.manual_seed(0)
    vae = pv.build_vae((6,), 5, likelihood="normal", network="dictionary", hidden=(8,)).double()
    x = normal(40, 6)
    atoms = metrics.decoder_atoms(vae, x, num=3)
    z = vae.encode(x).numpy()
    order = np.argsort(-z.std(0))[:3]
    assert atoms.coordinates.tolist() == order.tolist()
    np.testing.assert_allclose(atoms.steps, z.std(0)[order])
    unit = np.eye(5)
    columns = vae.decode(torch.tensor(unit)) - vae.decode(torch.zeros(5, 5).double())
    np.testing.assert_allclose(atoms.response, z.std(0)[order, None] * columns.numpy()[order], atol=1e-12)
    assert len(metrics.decoder_atoms(vae, x).response) == 5


@pytest.mark.parametrize("prior", ["dirichlet", "logistic-normal", "hyperspherical-uniform", "gamma"])
def test_the_steps_stay_where_codes_are(prior, monkeypatch):
    torch.manual_seed(0)
    vae = pv.build_vae((6,), 4, prior=prior, hidden=(8,)).double()
    x = torch.bernoulli(torch.full((30, 6), 0.5)).double()
    read = []
    decode = vae.decode
    monkeypatch.setattr(vae, "decode", lambda z: read.append(z) or decode(z))
    atoms = metrics.decoder_atoms(vae, x)
    assert vae.prior.support.check(read[0]).all()
    moved = (read[0][1:] - read[0][0]).gather(1, atoms.coordinates[:, None])[:, 0]
    assert (moved > 0).all()
    if prior != "hyperspherical-uniform":
        torch.testing.assert_close(moved, atoms.steps)
    assert atoms.response.shape == (4, 6)
    assert atoms.response.abs().amax(1).min() > 0
