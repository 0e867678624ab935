"""Measurements of codes: sparsity from both sides, the linear probe, and atoms of decoders that are known."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats as st
import torch

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
    assert metrics.hoyer(signs)[1:] == (0, 0)


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
    assert got[1:] == (5, 0)


def test_an_empty_code_has_no_value_and_is_counted():
    z = normal(40, 4)
    z[3] = z[8] = 0.0
    got = metrics.hoyer(z)
    assert got.value.isnan().nonzero()[:, 0].tolist() == [3, 8]
    assert got[1:] == (0, 2)
    assert got.mean == pytest.approx(got.value[~got.value.isnan()].mean().item(), rel=1e-12)


@pytest.mark.parametrize(("z", "dead"), [(torch.eye(3)[:, :1], 0), (torch.ones(1, 4), 4), (torch.zeros(5, 2), 2)])
def test_fewer_than_two_dimensions_have_no_hoyer(z, dead):
    got = metrics.hoyer(z)
    assert got.value.shape == z.shape[:1]
    assert got.value.isnan().all()
    assert (got.mean, got.dead) == (None, dead)


@pytest.mark.parametrize("measure", [metrics.hoyer, metrics.exact_zeros])
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
    assert (numbers["dead_units"], numbers["empty_codes"]) == metrics.hoyer(z)[1:]


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
