"""``pyrovae reproduce``: the table of published experiments, and its page."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from click.testing import CliRunner

import pyrovae as pv
from pyrovae import data
from pyrovae.cli import cli
from pyrovae.data.synthetic import SparseFeatures
from pyrovae.features.reproductions import REPRODUCTIONS, Reproduction, markdown
from pyrovae.features.reproductions.images import LinearDecoder, OnDigits, OnPatches, squared_error
from pyrovae.features.reproductions.known_features import AUTOENCODER, DICTIONARY, AgainstFeatures

COLUMNS = {"L0", "true L0", "MCC of features", "MCC of codes", "F1", "seconds"}


def small(seed: int) -> SparseFeatures:
    return SparseFeatures(4, 6, 0.3, orthonormal=True, seed=seed)


@pytest.mark.parametrize(
    ("names", "columns"),
    [(DICTIONARY, COLUMNS | {"ECE of P(on)"}), ({**AUTOENCODER, "guide": "batch-topk:k=1"}, COLUMNS)],
)
def test_a_method_trains_a_model_and_measures_it(names, columns):
    method = AgainstFeatures(small, 500, 4, names, 2, 1e-2, 100)
    first, second = method(0), method(0)
    assert first.keys() == columns
    assert {**first, "seconds": 0.0} == {**second, "seconds": 0.0}
    assert first["true L0"] == pytest.approx(1.2, abs=0.07)  # 5 standard errors of 4,000 data


@pytest.mark.parametrize("family", ["poisson", "normal"])
def test_a_linear_decoder_is_trained_on_squared_errors(family):
    method = LinearDecoder(family, width=8, epochs=2, data=partial(data.digits, None))
    row = method(0)
    assert row.keys() == {"SSE + KL", "SSE", "KL", "seconds"} | ({"zeros"} if family == "poisson" else set())
    assert row["SSE + KL"] == pytest.approx(row["SSE"] + row["KL"])
    assert min(row["SSE"], row["KL"]) > 0


def test_the_squared_error_is_that_of_draws():
    torch.manual_seed(0)
    likelihood = pv.likelihoods.Normal(pv.nn.Dictionary(3, 5, bias=False), scale=math.sqrt(0.5))
    vae = pv.VAE(pv.priors.Poisson(3), likelihood, pv.guides.Poisson(pv.nn.MLP(5, []), 3))
    x = torch.randn(4, 5)
    row, q = squared_error(vae, x), vae.posterior.distribution(x)
    z = q.sample((100_000,))
    errors = (x - likelihood.network(z)).square().sum(-1).mean(1)
    kl = (q.log_prob(z) - vae.prior.distribution().log_prob(z)).mean(1)
    drawn = {"SSE": errors, "KL": kl, "SSE + KL": errors + kl, "zeros": (z == 0).float().mean((1, 2))}
    for name, draws in drawn.items():
        error = draws.std().item() / len(z) ** 0.5
        assert abs(row[name] - draws.mean().item()) < 5 * error, name  # false alarms: 3 in a million


@pytest.mark.parametrize("prior", ["spike-slab:active=0.2:scale=1", "normal"])
def test_codes_of_digits_are_classified(prior):
    row = OnDigits(prior, 8, 16, 2, 100, data.digits)(0)
    assert row.keys() == {"accuracy", "ELBO", "zeros", "active units", "Jaccard distance", "seconds"}
    assert 0.1 < row["accuracy"] <= 1
    assert (row["zeros"] > 0) == (prior != "normal")


@pytest.mark.parametrize("prior", ["spike-slab", "laplace:learned=scale", "normal"])
def test_atoms_of_patches_are_counted(prior):
    row = OnPatches(prior, epochs=1, batch_size=50, hidden=(8,), data=partial(data.patches, 6, 200))(0)
    assert 0 <= row["Gabor-like"] <= 1
    assert 0 < row["atoms in use"] <= 72
    assert math.isfinite(row["ELBO"])


def test_digits_that_are_not_there_are_one_line(tmp_path, monkeypatch):
    (tmp_path / "MNIST").mkdir()
    monkeypatch.setenv("PYROVAE_DATA", str(tmp_path))
    for name in ("poisson-vae", "vsc-mnist"):
        result = CliRunner().invoke(cli, ["reproduce", name, "--seeds", "1"])
        assert isinstance(result.exception, FileNotFoundError)
        assert str(result.exception).startswith(f"data: {str(tmp_path / 'MNIST')!r} is there but not whole")


def test_every_experiment_says_what_was_published_and_how_ours_differs():
    for make in REPRODUCTIONS.values():
        reproduction = make()
        assert all((reproduction.title, reproduction.source, reproduction.published, reproduction.size))
        assert reproduction.methods


def test_the_section_of_an_experiment_is_replaced_and_the_others_stay(tmp_path, monkeypatch):
    methods = {"a": lambda seed: {"L0": 10.0 + seed}, "b": lambda seed: {"F1": 0.5}}
    fake = Reproduction("Fake", "here", "Ten.", "None.", methods)
    monkeypatch.setitem(REPRODUCTIONS, "sparse-but-wrong", lambda: fake)
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n## Other\n\nkept\n\n## Fake\n\nold\n", encoding="utf-8")
    result = CliRunner().invoke(cli, ["reproduce", "sparse-but-wrong", "--seeds", "3", "--page", str(page)])
    assert result.exit_code == 0, result.output
    text = page.read_text(encoding="utf-8")
    assert "kept" in text
    assert "old" not in text
    assert "| a | 3 | 11.00 (10.00 to 12.00) |  |" in text
    assert "| b | 3 |  | 0.500 (0.500 to 0.500) |" in text
    assert text.endswith(markdown(fake, {"a": [{"L0": 10.0 + k} for k in range(3)], "b": [{"F1": 0.5}] * 3}))
    again = CliRunner().invoke(cli, ["reproduce", "sparse-but-wrong", "--seeds", "3", "--page", str(page)])
    assert again.exit_code == 0
    assert page.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("numbers", "cell"),
    [([0.25], "0.250"), ([40.72, 40.84], "40.78 (40.72 to 40.84)"), ([-128.84, -128.4], "-128.6 (-128.8 to -128.4)")],
)
def test_numbers_have_the_digits_that_tell_them_from_the_published(numbers, cell):
    fake = Reproduction("Fake", "here", "Ten.", "None.", {})
    assert f"| a | {len(numbers)} | {cell} |" in markdown(fake, {"a": [{"n": number} for number in numbers]})


def test_an_unknown_experiment_is_one_line():
    result = CliRunner().invoke(cli, ["reproduce", "nothing"])
    assert result.exit_code == 2
    assert "'nothing' is not one of" in result.output
