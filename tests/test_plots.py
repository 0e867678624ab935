"""The pictures of one run show the numbers that they are given, with units, and words that do not overlap."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats as st
import torch
from matplotlib.collections import PolyCollection
from matplotlib.text import Text
from test_compare import texts_of

import pyrovae as pv
from pyrovae import metrics, plots
from pyrovae.metrics import Atoms, Elbo, Occupancy, RateDistortion, Traversals


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def double(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def labels_of(axes):
    return axes.get_xlabel(), axes.get_ylabel()


def ranks_of(values, num_draws=99, p_value=None):
    ranks = torch.as_tensor(values)
    p_value = torch.linspace(0.9, 0.1, ranks.shape[1]) if p_value is None else p_value
    return metrics.Ranks(ranks, num_draws, (ranks + 0.5) / (num_draws + 1), p_value)


def sparse_vae():
    vae = pv.build_vae((6,), 3, prior="spike-slab", likelihood="normal", hidden=(8,))
    with torch.no_grad():  # one gate shut for all data, one open, and one that follows x
        vae.posterior.head.weight.mul_(5)
        vae.posterior.head.bias[-3:] = torch.tensor([-60.0, 60.0, 0.0])
    return vae


# --- what they show -------------------------------------------------------------------------------------------------


def test_kl_spectrum_shows_each_coordinate_and_which_are_active():
    kl = torch.tensor([[0.002, 1.0, 0.3], [0.004, 3.0, 0.1]])
    (axes,) = plots.kl_spectrum(kl).axes
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([2.0, 0.2, 0.003])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "3", "1"], "counted from 1"
    assert len({bar.get_facecolor() for bar in axes.patches[:2]}) == 1
    assert axes.patches[2].get_facecolor() != axes.patches[0].get_facecolor()
    assert [line.get_ydata()[0] for line in axes.lines] == [0.01]
    assert axes.get_yscale() == "log"
    assert axes.get_title() == "2 of 3 coordinates are active; together 2.20 nats per datum"
    assert "nats" in labels_of(axes)[1]


def test_a_sampled_kl_below_zero_is_drawn():
    (axes,) = plots.kl_spectrum(torch.tensor([[-0.1, 0.0, 0.2]])).axes
    assert axes.get_title().startswith("1 of 3")
    assert axes.get_ylim()[0] == pytest.approx(1e-4)


def test_spike_occupancy_sets_the_guide_beside_the_prior():
    figure = plots.spike_occupancy(Occupancy(torch.tensor([0.1, 0.9, 0.5]), torch.tensor([0.2, 0.3, 0.4]), True))
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([0.9, 0.5, 0.1])
    assert axes.lines[0].get_ydata() == pytest.approx([0.3, 0.4, 0.2])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "3", "1"]
    words = {text.get_text() for legend in figure.legends for text in legend.get_texts()}
    assert words == {"guide, mean of the data: 1.50 of 3 coordinates", "prior: 0.90 of 3 coordinates"}


def test_latent_density_counts_latents_on_a_logarithmic_scale_with_the_dead_apart():
    density = double([0.0, 1e-7, 0.0015, 0.0016, 0.02, 0.3, 0.6, 1.0])
    (axes,) = plots.latent_density(density).axes
    *bars, dead = axes.patches
    assert dead.get_height() == 2
    assert sum(bar.get_height() for bar in bars) == 6
    for value in density[2:].log10().tolist():
        assert any(b.get_height() and abs(b.get_x() + b.get_width() / 2 - value) <= 1 / 16 + 1e-9 for b in bars)
    assert axes.get_title() == "2 dead, below 1e-06; 2 dense, above 0.5"
    assert axes.lines[0].get_xdata()[0] == pytest.approx(math.log10(0.5))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["dead", "1", "0.1", "0.01", "0.001"]
    assert labels_of(axes) == ("share of data in which a latent is on", "latents, of 8")


@pytest.mark.parametrize(("num_data", "num_draws", "bins"), [(500, 99, 20), (60, 9, 10), (40, 12, 13)])
def test_rank_histograms_have_the_binomial_band(num_data, num_draws, bins):
    rng = np.random.default_rng(0)
    figure = plots.sbc_ranks(ranks_of(rng.integers(0, num_draws + 1, (num_data, 3)), num_draws), level=0.99)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    low, high = (st.binom(num_data, 1 / bins).ppf(share) for share in (0.005, 0.995))
    for axes in panels:
        band, *bars = axes.patches
        assert (band.get_y(), band.get_y() + band.get_height()) == (low, high)
        assert len(bars) == bins
        assert sum(bar.get_height() for bar in bars) == num_data
    names = [axes.get_title().split(",")[0] for axes in panels]
    assert names == ["$z_{3}$", "$z_{2}$", "$z_{1}$"], "the smallest p-value first"


def test_a_narrow_guide_leaves_the_band_at_both_ends():
    edges = torch.cat([torch.zeros(250).long(), torch.full((250,), 99)])[:, None]
    (axes,) = plots.sbc_ranks(ranks_of(edges)).axes
    band, *bars = axes.patches
    assert [bar.get_height() for bar in bars] == [250, *[0] * 18, 250]
    assert 0 < band.get_y() < band.get_y() + band.get_height() < 250


def test_histograms_leave_zeros_to_a_number_and_give_the_rest_its_share():
    torch.manual_seed(0)
    vae, x = sparse_vae(), torch.randn(400, 6)
    z = vae.encode(x)
    figure = plots.code_histograms(vae, x)
    for axes in figure.axes:
        j = int(axes.get_title().split("_{")[1].split("}")[0]) - 1
        on = (z[:, j] != 0).double().mean().item()
        assert axes.get_title().endswith(f"{1 - on:.0%} zeros")
        area = sum(bar.get_height() * bar.get_width() for bar in axes.patches)
        assert area == pytest.approx(on, abs=1e-6)
        (line,) = axes.lines
        width = line.get_xdata()[1] - line.get_xdata()[0]
        assert line.get_ydata().sum() * width == pytest.approx(vae.prior.active()[j].item(), abs=0.02)
    assert [axes.get_title().split(",")[0] for axes in figure.axes][-1] == "$z_{1}$", "the shut one varies least"


def test_columns_of_a_table_have_a_panel_each_in_their_own_units():
    x, draws = normal(300, 2) * double([1.0, 100.0]), normal(1000, 2, seed=1) * double([1.0, 50.0]) + 7
    figure = plots.column_histograms(x, draws)
    for j, axes in enumerate(figure.axes):
        low, high = (
            bar.get_x() + side * bar.get_width() for bar, side in ((axes.patches[0], 0), (axes.patches[-1], 1))
        )
        assert low < x[:, j].quantile(0.01) < x[:, j].quantile(0.99) < high
        assert sum(bar.get_height() * bar.get_width() for bar in axes.patches) == pytest.approx(1.0, abs=0.03)
        assert axes.get_title() == f"column {j + 1}"
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"data", "draws of the model"}


def test_only_the_worst_sixteen_coordinates_have_a_histogram():
    ranks = ranks_of(np.random.default_rng(0).integers(0, 100, (100, 40)))
    titles = [axes.get_title() for axes in plots.sbc_ranks(ranks).axes if axes.get_visible()]
    assert [title.split(",")[0] for title in titles] == [f"$z_{{{j}}}$" for j in range(40, 24, -1)]


def test_importance_curve_rises_from_the_elbo():
    curve = {10: torch.tensor([-1.0, -3.0]), 1: torch.tensor([-2.0, -6.0])}
    (axes,) = plots.importance_curve(curve, Elbo(torch.tensor([-2.0, -4.0]), torch.tensor([1.0, 2.0]), True)).axes
    bound, level = axes.lines
    assert bound.get_xdata().tolist() == [1, 10]
    assert bound.get_ydata().tolist() == [-4.0, -2.0]
    assert level.get_ydata()[0] == -4.5
    (band,) = axes.findobj(PolyCollection)
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((-6.0, -1.0))  # errors 2 and 1
    assert axes.get_xscale() == "log"
    words = [text.get_text() for text in axes.get_legend().get_texts()]
    assert words == ["bound of K draws: −2.00 at K = 10", "ELBO: −4.50"]
    (alone,) = plots.importance_curve({5: torch.tensor([-1.0])}).axes
    assert len(alone.lines) == 1


def test_rate_distortion_joins_the_models_of_one_name():
    def model(rate, distortion):
        return RateDistortion(torch.tensor([rate - 1, rate + 1]), torch.tensor([distortion - 2, distortion + 2]))

    figure = plots.rate_distortion({"normal": [model(8.0, 10.0), model(2.0, 20.0)], "laplace": [model(5.0, 14.0)]})
    (axes,) = figure.axes
    curves = [line for line in axes.lines if line.get_marker() == "o"]
    assert [[tuple(point) for point in line.get_xydata()] for line in curves] == [
        [(2.0, 20.0), (8.0, 10.0)],
        [(5.0, 14.0)],
    ]
    for line in axes.lines:  # the others are of equal ELBO
        if line not in curves:
            assert np.ptp(line.get_xydata().sum(1)) < 1e-9
    assert {"normal", "laplace"} <= {text.get_text() for text, _ in texts_of(figure)}
    assert all("nats" in label for label in labels_of(axes))
    for nothing in ({}, {"normal": []}):
        with pytest.raises(ValueError, match="models must be one name or more, each with one model or more"):
            plots.rate_distortion(nothing)


def test_atoms_that_do_nothing_are_left_out():
    atoms = Atoms(torch.arange(12), torch.tensor([1.0] * 10 + [0.0, 0.0]), normal(12, 1, 4, 4))
    figure = plots.decoder_atoms(atoms, (1, 4, 4))
    *rows, bar = figure.axes
    names = [label.get_text() for axes in rows for label in axes.get_xticklabels()]
    assert names == [f"$z_{{{j}}}$" for j in range(1, 11)]
    image = rows[0].images[0]
    np.testing.assert_allclose(image.get_array()[:, 5:9], atoms.response[1, 0].numpy(), rtol=1e-6)
    assert image.get_clim() == rows[1].images[0].get_clim()
    assert -image.get_clim()[0] == image.get_clim()[1] == pytest.approx(float(atoms.response[:10].abs().max()))
    assert "one standard deviation" in bar.get_ylabel()
    nothing = plots.decoder_atoms(Atoms(torch.arange(2), torch.zeros(2), normal(2, 5)))
    assert [text.get_text() for text, _ in texts_of(nothing)] == ["no coordinate of the codes varies"]


def test_rows_of_images_are_the_data_under_their_names():
    clean = torch.arange(12.0).reshape(3, 4) / 11
    holes = clean.clone()
    holes[1, 2] = math.nan
    (axes,) = plots.image_rows({"clean": clean, "with a hole": holes}, (1, 2, 2)).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["clean", "with a hole"]
    shown = np.asarray(axes.images[0].get_array(), dtype=float)
    assert shown.shape == (2 * 3, 3 * 3), "each image has a white line above and at its left"
    images = shown.reshape(2, 3, 3, 3).transpose(0, 2, 1, 3)[:, :, 1:, 1:].reshape(2, 3, 4)
    np.testing.assert_allclose(images, torch.stack([clean, holes]).numpy(), rtol=1e-6)
    assert np.isnan(shown).sum() == 1, "the lines between are white, what is missing has a colour of its own"
    colours = axes.images[0].to_rgba(axes.images[0].get_array())
    np.testing.assert_allclose(colours[np.isnan(shown)][0, :3], plots.pictures.MISSING, atol=1e-6)
    assert (colours[0] == 1).all()


def test_a_value_that_is_missing_of_an_image_in_colour_has_that_colour_too():
    x = torch.full((1, 12), 0.25)
    x[0, 1] = math.nan  # the red of the second pixel
    (axes,) = plots.image_rows({"x": x}, (3, 2, 2)).axes
    shown = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(shown[1, 2], plots.pictures.MISSING, atol=1e-6)
    np.testing.assert_allclose(shown[1, 1], (0.25, 0.25, 0.25), atol=1e-6)
    assert (shown[0] == 1).all()


def test_rows_of_different_numbers_of_images_are_refused():
    with pytest.raises(ValueError, match=r"rows must be data of one shape .* got \[\(2, 4\), \(3, 4\)\]"):
        plots.image_rows({"a": torch.zeros(3, 4), "b": torch.zeros(2, 4)}, (1, 2, 2))


def test_traversals_are_rows_of_pictures_over_their_values():
    runs = Traversals(torch.tensor([4, 0]), torch.tensor([[-1.0, 0.0, 2.5], [0.0, 1.0, 2.0]]), normal(2, 3, 1, 4, 5))
    first, second = plots.traversals(runs, (1, 4, 5)).axes
    assert (first.get_ylabel(), second.get_ylabel()) == ("$z_{5}$", "$z_{1}$")
    assert [label.get_text() for label in first.get_xticklabels()] == ["−1.00", "0.00", "2.50"]
    np.testing.assert_allclose(second.images[0].get_array()[:, 12:17], runs.decoded[1, 2, 0].numpy(), rtol=1e-6)
    assert first.images[0].get_clim() == second.images[0].get_clim()
    lines = plots.traversals(Traversals(*runs[:2], normal(2, 3, 7)))
    assert [axes.images[0].get_array().shape for axes in lines.axes[:2]] == [(3, 7), (3, 7)]


# --- the traversals themselves --------------------------------------------------------------------------------------


def test_traversals_of_a_linear_decoder_are_straight():
    torch.manual_seed(0)
    vae = pv.build_vae((6,), 5, likelihood="normal", network="dictionary", hidden=(8,)).double()
    x = normal(400, 6)
    runs = metrics.traversals(vae, x, num=3, num_values=4)
    z = vae.encode(x).numpy()
    order = np.argsort(-z.std(0))[:3]
    assert runs.coordinates.tolist() == order.tolist()
    for row, j in enumerate(order):
        low, high = np.quantile(z[:, j], [0.01, 0.99])
        np.testing.assert_allclose(runs.values[row], np.linspace(low, high, 4))
        expected = np.repeat(z.mean(0, keepdims=True), 4, 0)
        expected[:, j] = np.linspace(low, high, 4)
        np.testing.assert_allclose(runs.decoded[row], vae.decode(torch.tensor(expected)), atol=1e-12)
    with pytest.raises(ValueError, match="num_values must be at least 2, got 1"):
        metrics.traversals(vae, x, num_values=1)


def test_traversals_of_sparse_codes_pass_zero_and_go_to_the_rare_values(monkeypatch):
    vae = pv.build_vae((6,), 2, prior="spike-slab", hidden=(8,)).double()
    z = torch.zeros(1000, 2).double()
    z[:5, 0], z[:500, 1] = torch.linspace(2, 4, 5).double(), -1.0
    monkeypatch.setattr(vae, "encode", lambda x: z)
    runs = metrics.traversals(vae, torch.zeros(1000, 6).double(), num_values=3)
    values = dict(zip(runs.coordinates.tolist(), runs.values.tolist(), strict=True))
    assert values[0] == pytest.approx([0, 1.99, 3.98])
    assert values[1] == pytest.approx([-1, -0.5, 0])


@pytest.mark.parametrize("prior", ["dirichlet", "logistic-normal", "hyperspherical-uniform", "gamma"])
def test_traversals_stay_where_codes_are(prior, monkeypatch):
    torch.manual_seed(0)
    vae = pv.build_vae((6,), 4, prior=prior, hidden=(8,)).double()
    read, decode = [], vae.decode
    monkeypatch.setattr(vae, "decode", lambda z: read.append(z) or decode(z))
    runs = metrics.traversals(vae, torch.bernoulli(torch.full((30, 6), 0.5)).double())
    (z,) = read
    assert vae.prior.support.check(z).all()
    if prior != "hyperspherical-uniform":
        moved = z.unflatten(0, (4, 9)).gather(2, runs.coordinates[:, None, None].expand(4, 9, 1))[..., 0]
        torch.testing.assert_close(moved, runs.values)


# --- legible --------------------------------------------------------------------------------------------------------


def pictures(dim, image_shape, size):
    atoms = Atoms(torch.arange(dim), torch.ones(dim), normal(dim, size))
    values = -20 * normal(min(dim, 8), 9).abs()
    runs = Traversals(torch.arange(dim)[:8], values, normal(min(dim, 8), 9, size))
    ranks = ranks_of(np.random.default_rng(0).integers(0, 100, (300, dim)), p_value=torch.full((dim,), 1.2e-17))
    curve = {k: normal(50) + math.log(k) - 1234 for k in (1, 5, 50, 500, 5000)}
    yield plots.kl_spectrum(normal(10, dim).abs())
    yield plots.spike_occupancy(Occupancy(torch.rand(dim), torch.rand(dim), True))
    yield plots.latent_density(torch.linspace(0, 1, dim) ** 6)
    yield plots.sbc_ranks(ranks)
    yield plots.importance_curve(curve, Elbo(-1234 + normal(50), torch.ones(50), False))
    yield plots.decoder_atoms(atoms, image_shape)
    yield plots.traversals(runs, image_shape)
    yield plots.image_rows(
        dict.fromkeys(("a short and a\nlong name", "original", "x"), torch.rand(dim, size)), image_shape
    )


@pytest.mark.parametrize(
    ("dim", "image_shape", "size"), [(1, (1, 8, 8), 64), (16, (1, 8, 8), 64), (128, None, 30), (5, (3, 8, 16), 384)]
)
def test_no_words_overlap_and_all_are_inside(dim, image_shape, size, monkeypatch):
    drawn, draw = [], Text.draw
    monkeypatch.setattr(Text, "draw", lambda text, *args, **kwargs: drawn.append(text) or draw(text, *args, **kwargs))
    for number, figure in enumerate(pictures(dim, image_shape, size)):
        width, height = figure.get_size_inches() * figure.dpi
        drawn.clear()
        texts = [(text, box) for text, box in texts_of(figure) if text in drawn]  # without ticks out of sight
        assert len(texts) >= 3
        for text, box in texts:
            inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
            assert inside, (number, text.get_text())
        for (one, box), (other, its) in itertools.combinations(texts, 2):
            assert not box.padded(-1).overlaps(its.padded(-1)), (number, one.get_text(), other.get_text())
