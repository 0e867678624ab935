"""``pyrovae reproduce``: the table of published experiments, and its page."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from pyrovae.cli import cli
from pyrovae.data.synthetic import SparseFeatures
from pyrovae.features import reproductions
from pyrovae.features.reproductions import AUTOENCODER, DICTIONARY, REPRODUCTIONS, Reproduction, markdown

COLUMNS = {"L0", "true L0", "MCC of features", "MCC of codes", "F1", "seconds"}


def small(seed: int) -> SparseFeatures:
    return SparseFeatures(4, 6, 0.3, orthonormal=True, seed=seed)


@pytest.mark.parametrize(
    ("names", "columns"),
    [(DICTIONARY, COLUMNS | {"ECE of P(on)"}), ({**AUTOENCODER, "guide": "batch-topk:k=1"}, COLUMNS)],
)
def test_a_method_trains_a_model_and_measures_it(names, columns):
    method = reproductions._AgainstFeatures(small, 500, 4, names, 2, 1e-2, 100)
    first, second = method(0), method(0)
    assert first.keys() == columns
    assert {**first, "seconds": 0.0} == {**second, "seconds": 0.0}
    assert first["true L0"] == pytest.approx(1.2, abs=0.07)  # 5 standard errors of 4,000 data


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


def test_an_unknown_experiment_is_one_line():
    result = CliRunner().invoke(cli, ["reproduce", "nothing"])
    assert result.exit_code == 2
    assert "'nothing' is not one of" in result.output
