"""Synthetic data: every distribution against its closed form, the same data in every process, and training on a stream.

Counts are compared within 5.5 standard errors, a false alarm once in 2.6 x 10^7 numbers.
"""

import hashlib
import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats as st
import torch

import pyrovae as pv
from pyrovae.data import synthetic
from pyrovae.data.synthetic import Bars, Manifolds, SparseFeatures, SparseSources, Subspaces

N, SIGMAS = 100_000, 5.5
TREE = (-1, 0, 0, 1, -1)
LINEAR = {
    "independent": SparseFeatures(12, 5, 0.2),
    "exact number": SparseFeatures.sparse_inference(),
    "copula": SparseFeatures.sparse_but_wrong(),
    "zipf": SparseFeatures.superposition(32, 12),
    "tree": SparseFeatures(5, 3, (0.5, 0.4, 0.3, 0.6, 0.2), parents=TREE, loc=1.0, scale=0.0),
    "subspaces": Subspaces.of_dimensions((2, 4, 6), 30),
    "vaease": Subspaces.vaease(),
    "bars": Bars(4, combine="sum"),
    "laplace": SparseSources(6, 4),
    "student-t": SparseSources(6, 4, "student-t", df=5.0),
    "spike-slab": SparseSources(6, 4, "spike-slab", active=0.3),
}
ALL = {**LINEAR, "noisy-or": Bars(4), "manifolds": Manifolds(LINEAR["subspaces"])}


def agrees(share, probability, num=N):
    """Whether a share of ``num`` data is that of a probability, each entry within 5.5 standard errors."""
    share, probability = (np.asarray(table, dtype=float) for table in (share, probability))
    return bool((np.abs(share - probability) <= SIGMAS * np.sqrt(probability * (1 - probability) / num) + 1e-12).all())


# --- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LINEAR)
def test_data_are_codes_times_features_of_norm_one(name):
    data, codes, features, _ = LINEAR[name].sample(300, 1)
    assert data.dtype == codes.dtype == features.dtype == torch.float32
    assert features.shape == (codes.shape[1], data.shape[1])
    torch.testing.assert_close(features.norm(dim=1), torch.ones(len(features)), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(data.double(), codes.double() @ features.double(), rtol=1e-5, atol=1e-5)
    assert torch.isfinite(data).all()


@pytest.mark.parametrize("name", ALL)
def test_a_seed_gives_the_same_data_and_another_seed_does_not(name):
    source = ALL[name]
    first, again, other = (source.sample(50, seed) for seed in (3, 3, 4))
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.codes, other.codes)
    a, b = (source.sample(50, torch.Generator().manual_seed(1)).data for _ in range(2))
    assert torch.equal(a, b)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        free = source.sample(50).data
        assert not torch.equal(source.sample(50).data, free), "without a seed every sample is another"
        torch.manual_seed(2)
        assert torch.equal(source.sample(50).data, free)


DIGEST = """
import hashlib, torch
from pyrovae.data.synthetic import Manifolds, SparseFeatures, Subspaces
batches = [SparseFeatures.sparse_but_wrong(5).sample(20, 7), next(iter(SparseFeatures(8, 4).stream(9, 2, 3)))]
batches += [Manifolds(Subspaces.vaease(1)).sample(20, 0)]
print(hashlib.sha256(b"".join(batch.codes.numpy().tobytes() for batch in batches)).hexdigest())
"""


def test_data_are_the_same_in_another_process():
    done = subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True)
    batches = [SparseFeatures.sparse_but_wrong(5).sample(20, 7), next(iter(SparseFeatures(8, 4).stream(9, 2, 3)))]
    batches += [Manifolds(Subspaces.vaease(1)).sample(20, 0)]
    assert done.stdout.strip() == hashlib.sha256(b"".join(b.codes.numpy().tobytes() for b in batches)).hexdigest()


def test_the_seed_of_a_generator_moves_its_features_and_not_the_seed_of_a_sample():
    one, two = SparseFeatures(8, 4, seed=1), SparseFeatures(8, 4, seed=2)
    assert not torch.equal(one.features, two.features)
    assert torch.equal(one.sample(3, 0).features, one.sample(3, 9).features)
    assert one == SparseFeatures(8, 4, seed=1)
    assert not torch.equal(one.sample(9, 0).codes, two.sample(9, 0).codes)


def test_noise_has_its_standard_deviation():
    for noisy in (SparseFeatures(4, 3, noise=0.3), Subspaces.of_dimensions((2,), 3, noise=0.3)):
        data, codes, features, _ = noisy.sample(N, 0)
        noise = (data - codes @ features).double()
        assert abs(noise.std().item() / 0.3 - 1) < SIGMAS / math.sqrt(2 * noise.numel())
        assert noise.mean(0).abs().max() < SIGMAS * 0.3 / math.sqrt(N)


# --- features -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["independent", "exact number", "copula", "zipf", "tree"])
def test_features_fire_as_often_as_they_should(name):
    source = LINEAR[name]
    on = source.sample(N, 0).codes != 0
    assert agrees(on.double().mean(0), source.firing_probabilities)
    l0 = on.sum(1).double()
    assert abs(l0.mean().item() - source.expected_l0) <= SIGMAS * l0.std().item() / math.sqrt(N) + 1e-9
    assert (l0.std() == 0) == (name == "exact number")


def test_the_published_probabilities():
    published = [0.345 * (50 - i) / 50 + 0.05 for i in range(1, 51)]
    source = SparseFeatures.sparse_but_wrong()
    np.testing.assert_allclose(source.firing_probabilities, published, rtol=1e-12)
    assert source.expected_l0 == pytest.approx(10.9525)
    gram = source.features.double() @ source.features.double().T
    torch.testing.assert_close(gram, torch.eye(50, dtype=torch.float64), rtol=0, atol=1e-6)


def test_zipf_probabilities_fall_as_a_power_and_sum_to_the_expected_number():
    p = synthetic.zipf_probabilities(256, 0.5, 6.0)
    assert p.sum().item() == pytest.approx(6.0)
    assert (p[0] / p[99]).item() == pytest.approx(10.0)
    with pytest.raises(ValueError, match=r"^expected_l0 must be at most 2\.08 for these features and exponent, got 3"):
        synthetic.zipf_probabilities(4, 1.0, 3.0)


def test_every_set_of_an_exact_number_is_as_likely():
    on = SparseFeatures(5, 3, num_active=2).sample(N, 0).codes != 0
    assert (on.sum(1) == 2).all()
    sets = (on.long() * 2 ** torch.arange(5)).sum(1).bincount(minlength=32)
    assert agrees(sets[sets > 0] / N, np.full(10, 0.1))


def test_the_copula_has_the_joint_probabilities_of_its_normal():
    """P(both on) is the bivariate Normal's distribution function at the two thresholds."""
    source = SparseFeatures(4, 4, (0.1, 0.3, 0.5, 0.2), correlation=(0.6, 0.8), uncorrelated=0.0, seed=1)
    on = (source.sample(N, 0).codes != 0).double()
    both, copula = on.T @ on / N, source.copula.numpy()
    thresholds = st.norm.ppf([0.1, 0.3, 0.5, 0.2])
    for i in range(4):
        for j in range(i):
            law = st.multivariate_normal(cov=[[1, copula[i, j]], [copula[i, j], 1]])
            assert agrees(both[i, j], law.cdf(thresholds[[i, j]]))
    assert np.abs(np.tril(copula, -1)).max() > 0.4, "gates that are nearly independent would show nothing"


def test_the_correlation_matrix_is_one_with_the_share_of_pairs():
    weak = SparseFeatures(20, 4, correlation=(0.05, 0.1), seed=3).copula
    pairs = weak[tuple(torch.triu_indices(20, 20, 1))]
    assert int((pairs.abs() < 1e-9).sum()) == 57, "30 % of 190; no eigenvalue needs to be raised"
    assert int((pairs > 1e-9).sum()) in (66, 67)
    assert 0.05 <= pairs[pairs.abs() > 1e-9].abs().min() <= pairs.abs().max() <= 0.1
    strong = SparseFeatures.sparse_but_wrong(2).copula
    for matrix in (weak, strong):
        assert (matrix.diagonal() == 1).all()
        torch.testing.assert_close(matrix, matrix.T)
        assert torch.linalg.eigvalsh(matrix).min() > 1e-8


def test_a_child_fires_only_with_its_parent():
    source = LINEAR["tree"]
    on = source.sample(N, 0).codes != 0
    for child, parent in enumerate(TREE):
        if parent >= 0:
            assert not (on[:, child] & ~on[:, parent]).any()
            given = on[on[:, parent], child]
            assert agrees(given.double().mean(), source.active[child], len(given))
    np.testing.assert_allclose(source.firing_probabilities, [0.5, 0.2, 0.15, 0.12, 0.2])


@pytest.mark.parametrize(("loc", "scale"), [(1.0, 0.15), (0.0, 1.0), (-1.0, 0.5), (0.5, 1.0)])
def test_magnitudes_are_normal_and_cut_at_zero(loc, scale):
    """Kolmogorov and Smirnov's test at 10^-6."""
    codes = SparseFeatures(2, 2, 1.0, loc=loc, scale=scale).sample(20_000, 0).codes
    assert (codes > 0).all()
    law = st.truncnorm(-loc / scale, np.inf, loc, scale)
    assert st.kstest(codes.double().numpy().ravel(), law.cdf).pvalue > 1e-6


def test_constant_magnitudes_are_constant():
    codes = SparseFeatures(6, 3, 0.5, loc=2.0, scale=0.0).sample(1000, 0).codes
    assert set(codes.unique().tolist()) == {0.0, 2.0}


# --- subspaces and manifolds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [Subspaces.of_dimensions((2, 4, 6, 8, 10), 30), Subspaces.vaease()], ids=str)
def test_each_label_is_a_subspace_of_its_dimension(source):
    data, codes, _, labels = source.sample(5000, 0)
    num = len(source.dimensions)
    assert agrees(labels.bincount() / 5000, np.full(num, 1 / num), 5000)
    for k, dimension in enumerate(source.dimensions):
        own = data[labels == k].double()
        assert torch.linalg.matrix_rank(own, rtol=1e-5) == dimension
        assert ((codes[labels == k] != 0).sum(1) == dimension).all()
    assert torch.linalg.matrix_rank(data.double(), rtol=1e-5) == min(sum(source.dimensions), source.dim)


def test_vaease_is_a_standard_normal_times_a_standard_normal_matrix():
    """Each z of unit variance; entries of A by the test of Kolmogorov and Smirnov at 10^-6."""
    source = Subspaces.vaease(4)
    on = sorted(j for each in source.coordinates for j in each)
    assert on == [6, 8, 9, 10, 13, 14, 17, 18, 28, 32, 33, 36]
    codes = source.sample(60_000, 0).codes
    norms = source._matrix.norm(dim=1)
    for j in on:
        z = (codes[:, j] / norms[j])[codes[:, j] != 0].double()
        assert abs(z.var().item() - 1) < SIGMAS * math.sqrt(2 / len(z))
    assert st.kstest(source._matrix.numpy().ravel(), st.norm.cdf).pvalue > 1e-6
    assert st.kstest((norms**2).numpy(), st.chi2(40).cdf).pvalue > 1e-6


def test_shared_coordinates_are_shared():
    codes, labels = (Subspaces([(0, 1), (1, 2)], 5).sample(500, 0)[i] for i in (1, 3))
    assert torch.equal(codes != 0, torch.tensor([[True, True, False], [False, True, True]])[labels])


def test_manifolds_are_curved_and_keep_their_dimension():
    """The Jacobian of the map has singular values from 1 - c to 1 + c; data span more than the subspace did."""
    flat = Subspaces.of_dimensions((2, 3), 12)
    source = Manifolds(flat, curvature=0.9)
    data, codes, features, labels = source.sample(4000, 0)
    assert features is None
    torch.testing.assert_close(data, source.curved(codes @ flat.features))
    for x in (codes[:20] @ flat.features).double():
        jacobian = torch.autograd.functional.jacobian(lambda row: source.curved(row[None])[0], x)
        values = torch.linalg.svdvals(jacobian)
        assert values.min() >= 0.1 - 1e-9
        assert values.max() <= 1.9 + 1e-9
    own = data[labels == 0].double()
    spectrum = torch.linalg.svdvals(own - own.mean(0)).square()
    assert spectrum[2:].sum() / spectrum.sum() > 0.01, "a plane would have nothing outside two directions"
    plane = Manifolds(flat, curvature=0.0).sample(4000, 0)
    torch.testing.assert_close(plane.data, codes @ flat.features)


# --- bars and sources -----------------------------------------------------------------------------------------------


def test_bars_of_a_small_image_are_those_drawn_by_hand():
    _, codes, features, _ = Bars(3).sample(5, 0)
    images = (features.view(6, 3, 3) > 0).long().tolist()
    assert images[1] == [[0, 0, 0], [1, 1, 1], [0, 0, 0]]
    assert images[5] == [[0, 0, 1], [0, 0, 1], [0, 0, 1]]
    assert set(codes.unique().tolist()) == {0.0, torch.tensor(3.0).sqrt().item()}


def test_bars_are_on_and_their_or_is_the_image():
    data, codes, features, _ = Bars(4).sample(N, 0)
    on = (codes != 0).double()
    assert agrees(on.mean(0), np.full(8, 0.25))
    assert agrees(data.double().mean(0), np.full(16, 1 - 0.75**2))
    assert torch.equal(data, ((on @ (features > 0).double()) > 0).float())


def test_noisy_or_switches_pixels_on_by_the_number_of_bars():
    data, codes, features, _ = Bars(3, 0.4, strength=0.7, leak=0.1).sample(N, 0)
    counts = (codes != 0).float() @ (features > 0).float()
    for count in range(3):
        pixels = data[counts == count].double()
        assert agrees(pixels.mean(), 1 - 0.9 * 0.3**count, len(pixels))


@pytest.mark.parametrize(
    ("source", "law"),
    [
        (SparseSources(2, 2), st.laplace()),
        (SparseSources(2, 2, "student-t", df=3.0), st.t(3)),
        (SparseSources(2, 2, "student-t", df=0.7), st.t(0.7)),
    ],
    ids=["laplace", "t", "t below Cauchy"],
)
def test_sources_have_their_distribution(source, law):
    """Kolmogorov and Smirnov's test at 10^-6."""
    codes = source.sample(50_000, 0).codes.double().numpy().ravel()
    assert st.kstest(codes, law.cdf).pvalue > 1e-6
    assert (codes != 0).all()


def test_spikes_and_slabs():
    codes = SparseSources(3, 2, "spike-slab", active=0.3).sample(N, 0).codes
    assert agrees((codes != 0).double().mean(0), np.full(3, 0.3))
    assert st.kstest(codes[codes != 0].double().numpy(), st.norm.cdf).pvalue > 1e-6


# --- streams --------------------------------------------------------------------------------------------------------


def test_a_stream_gives_the_same_batches_again_and_each_batch_is_new():
    stream = SparseFeatures(6, 4).stream(10, 3, seed=2)
    first, again = list(stream), list(stream)
    assert len(stream) == len(first) == 3
    assert all(torch.equal(a.data, b.data) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].data, first[1].data)
    other = next(iter(SparseFeatures(6, 4).stream(10, 3, seed=3)))
    assert not torch.equal(first[0].data, other.data)
    assert not torch.equal(first[0].codes, SparseFeatures(6, 4).sample(10, 2).codes)


def test_fit_on_a_stream_is_fit_on_the_list_of_its_data_and_knows_its_length():
    stream = SparseFeatures(6, 4, 0.3, noise=0.1).stream(32, 30)
    seen = set()

    class Spy(pv.train.Callback):
        def on_step_end(self, run):
            seen.add((run.data.num_rows, run.data.num_batches))

    def trained(data, **options):
        torch.manual_seed(0)
        vae = pv.build_vae((4,), 6, likelihood="normal", hidden=(8,))
        history = pv.fit(vae, data, epochs=2, seed=0, progress=False, compile=False, **options)
        return torch.cat([p.flatten() for p in vae.parameters()]), history["train_loss"]

    (weights, losses), (same, _) = trained(stream, callbacks=[Spy()]), trained([batch.data for batch in stream])
    assert seen == {(960.0, 30.0)}
    assert torch.equal(weights, same)
    assert losses[1] < losses[0]


def test_a_run_on_a_stream_is_resumed_as_if_it_had_not_stopped_and_on_no_other_stream(tmp_path):
    def weights(stream, epochs, **options):
        torch.manual_seed(0)
        vae = pv.build_vae((4,), 6, likelihood="normal", hidden=(8,), name="resumed")
        pv.fit(vae, stream, epochs=epochs, seed=0, progress=False, compile=False, **options)
        return torch.cat([p.flatten() for p in vae.parameters()])

    source = SparseFeatures(6, 4, 0.3, noise=0.1)
    whole = weights(source.stream(16, 5), 3)
    weights(source.stream(16, 5), 1, out=tmp_path / "run")
    for other in (source.stream(16, 5, seed=1), SparseFeatures(6, 4, 0.3, noise=0.1, seed=1).stream(16, 5)):
        with pytest.raises(ValueError, match="has another data"):
            weights(other, 3, out=tmp_path / "run", resume=True)
    assert torch.equal(weights(source.stream(16, 5), 3, out=tmp_path / "run", resume=True), whole)


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SparseFeatures(0, 3), "num_features must be a positive whole number, got 0"),
        (lambda: SparseFeatures(4, 3, 0.0), "active must be one or 4 probabilities above 0, at most 1, got 0.0"),
        (lambda: SparseFeatures(4, 3, (0.1, 0.2)), "active must be one or 4 probabilities"),
        (
            lambda: SparseFeatures(4, 3, orthonormal=True),
            "orthonormal features must be at most dim=3, got num_features=4",
        ),
        (lambda: SparseFeatures(4, 3, correlation=1.0), "correlation must be a strength from 0 to below 1, or two"),
        (lambda: SparseFeatures(4, 3, correlation=(0.5, 0.2)), "correlation must be a strength from 0 to below 1"),
        (lambda: SparseFeatures(4, 3, num_active=5), "num_active must be at most 4, got 5"),
        (
            lambda: SparseFeatures(2, 3, correlation=0.5, parents=(-1, 0)),
            "correlation and parents must not be given together",
        ),
        (lambda: SparseFeatures(2, 3, parents=(1, -1)), "parents must be 2 numbers, each -1 or that of an earlier"),
        (lambda: SparseFeatures(2, 3, loc=0.0, scale=0.0), "loc must be positive where scale is 0, got 0.0"),
        (lambda: SparseFeatures(2, 3, loc=-31.0, scale=1.0), "loc must be at least -30 scale"),
        (lambda: SparseFeatures(2, 3, noise=-1.0), "noise must be a finite number, at least 0, got -1.0"),
        (lambda: SparseFeatures(2, 3).sample(0), "n must be a positive whole number, got 0"),
        (lambda: SparseFeatures(2, 3).sample(1, -1), "generator must be a whole number, at least 0, got -1"),
        (lambda: SparseFeatures(2, 3).stream(0, 1), "batch_size must be a positive whole number, got 0"),
        (lambda: SparseFeatures(2, 3).stream(1, 0), "steps must be a positive whole number, got 0"),
        (lambda: Subspaces([(0, 0)], 3), "coordinates must be one or more sets of different numbers from 0"),
        (lambda: Subspaces([(0, 1)], 1), "coordinates must be at most dim=1 of each subspace, got 2"),
        (lambda: Subspaces([(0, 4)], 3, num_features=4), "num_features must be above every coordinate, 5 or more"),
        (lambda: Subspaces.of_dimensions((0,), 3), "dimensions must be a positive whole number, got 0"),
        (lambda: Manifolds(Subspaces.vaease(), 1.0), "curvature must be a number from 0 to below 1, got 1.0"),
        (lambda: Manifolds(SparseFeatures(2, 3)), "subspaces must be Subspaces, got SparseFeatures"),
        (lambda: Bars(combine="max"), "combine must be one of 'noisy-or', 'sum', got 'max'"),
        (lambda: Bars(combine="sum", leak=0.1), 'strength and leak are of combine="noisy-or"'),
        (lambda: Bars(noise=0.1), 'noise is of combine="sum"'),
        (lambda: SparseSources(2, 2, "cauchy"), "family must be one of 'laplace', 'student-t', 'spike-slab'"),
        (lambda: SparseSources(2, 2, df=0.0), "df must be a positive finite number, got 0.0"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()
