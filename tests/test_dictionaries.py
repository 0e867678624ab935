"""Dictionaries against features and each other: every matching, rotations of known angle, and shuffled copies."""

import itertools
import math

import numpy as np
import pytest
import torch
from cases import double

from pyrovae import metrics
from pyrovae.data.synthetic import SparseFeatures


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


@pytest.mark.parametrize(("num_atoms", "num_features"), [(3, 3), (5, 3), (2, 4)])
@pytest.mark.parametrize("signed", [False, True])
def test_the_matching_is_the_best_of_all(num_atoms, num_features, signed):
    atoms, features = normal(num_atoms, 4), normal(num_features, 4, seed=1)
    table = np.array([[cosine(w, f) for f in features] for w in atoms])
    gain = table if signed else np.abs(table)
    num = min(num_atoms, num_features)
    best = max(
        sum(gain[j, k] for j, k in zip(rows, columns, strict=True))
        for rows in itertools.permutations(range(num_atoms), num)
        for columns in itertools.combinations(range(num_features), num)
    )
    got = metrics.decoder_mcc(atoms, features, signed)
    assert got.score == pytest.approx(best / num_features)
    for k, j in enumerate(got.matching.tolist()):
        assert got.correlations[k] == pytest.approx(table[j, k] if j >= 0 else 0.0)
    assert int((got.matching < 0).sum()) == num_features - num


def test_scaled_and_shuffled_features_are_recovered_and_their_sign_counts_if_asked():
    features = SparseFeatures(6, 4).features
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    atoms = features[order] * torch.tensor([1e-30, -5.0, 2.0, 1e20, 1.0, -3.0])[:, None]
    got = metrics.decoder_mcc(atoms, features)
    assert got.score == pytest.approx(1.0, abs=1e-6)
    assert torch.equal(order[got.matching], torch.arange(6))
    assert metrics.decoder_mcc(atoms.abs(), features.abs(), True).score == pytest.approx(1.0, abs=1e-6)
    assert metrics.decoder_mcc(atoms, features, True).score < 0.9
    assert metrics.decoder_mcc(-features, features, True).score < 0.9


def test_a_rotation_has_its_cosine():
    angle = 0.3
    turned = double([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    assert metrics.decoder_mcc(turned, torch.eye(2)).score == pytest.approx(math.cos(angle))


def test_a_zero_atom_finds_nothing_and_is_counted():
    atoms = torch.cat([torch.zeros(1, 3), torch.eye(3)[:1]])
    got = metrics.decoder_mcc(atoms, torch.eye(3))
    assert (got.dead, got.score) == (1, pytest.approx(1 / 3))


def test_uniqueness_counts_atoms_with_a_feature_of_their_own():
    eye = torch.eye(4)
    assert metrics.uniqueness(eye[[2, 0, 3]], eye) == 1.0
    assert metrics.uniqueness(eye[[0, 0, 1, 2]], eye) == 0.5
    assert metrics.uniqueness(-eye[[0, 0]], eye) == 0.0
    with_zero = torch.cat([eye[[0, 0, 1]], torch.zeros(1, 4)])
    assert metrics.uniqueness(with_zero, eye) == pytest.approx(1 / 3), "an atom of zeros has no best feature"


def test_shuffled_copies_are_stable():
    features = normal(5, 8)
    got = metrics.stability([features, 3 * features[[4, 2, 0, 1, 3]], -features])
    assert got.pw_mcc == pytest.approx(1.0)
    assert got.found.tolist() == [1.0, 1.0, 1.0]
    assert metrics.stability([features, -features], signed=True).pw_mcc < 0.9


def test_latents_are_counted_in_the_seeds_that_have_them():
    """Of four atoms two are in all three seeds, one in two of them, and the others in one."""
    e = torch.eye(12)
    got = metrics.stability(torch.stack([e[[0, 1, 2, 3]], e[[4, 2, 1, 0]], e[[1, 5, 0, 6]]]))
    assert got.pairwise.tolist() == [[1.0, 0.75, 0.5], [0.75, 1.0, 0.5], [0.5, 0.5, 1.0]]
    assert got.pw_mcc == pytest.approx(1.75 / 3)
    assert got.found.tolist() == pytest.approx([1.0, 8 / 12, 6 / 12])


def test_the_threshold_is_of_the_cosine():
    angle = math.acos(0.8)
    turned = double([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    pair = [torch.eye(2), turned]
    assert [metrics.stability(pair, t).found[1].item() for t in (0.79, 0.81)] == [1.0, 0.0]


def test_random_dictionaries_are_not_stable():
    """Cosines of 64 dimensions exceed 0.7 with a probability below 10^-9."""
    got = metrics.stability([normal(10, 64, seed=seed) for seed in range(3)])
    assert got.found.tolist() == [1.0, 0.0, 0.0]
    assert 0.1 < got.pw_mcc < 0.4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: metrics.decoder_mcc(torch.eye(2), torch.eye(3)),
            "features must have the 2 dimensions of the dictionary",
        ),
        (lambda: metrics.decoder_mcc(torch.ones(2), torch.eye(2)), "dictionary must be a table of finite numbers"),
        (lambda: metrics.decoder_mcc(torch.eye(2) / 0, torch.eye(2)), "dictionary must be a table of finite numbers"),
        (lambda: metrics.decoder_mcc(torch.eye(2), torch.zeros(1, 2)), "features must not be zero, row 0 is"),
        (lambda: metrics.uniqueness(torch.zeros(1, 2), torch.eye(2)), "dictionary must have an atom that is not zero"),
        (lambda: metrics.stability([torch.eye(2)]), "dictionaries must be two or more, got 1"),
        (lambda: metrics.stability([torch.eye(2), torch.eye(3)]), "dictionaries must be tables .J, D. of one shape"),
        (lambda: metrics.stability([torch.eye(2)] * 2, 0.0), "threshold must be a cosine above 0, at most 1, got 0.0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()
