"""``pyrovae report``: the page of a run, and one line when there is none; names of columns and shapes of images."""

import csv
import re

import numpy as np
import pytest
from html_pages import latents, number, picture, read, terms
from test_cli import pyrovae, tree

import pyrovae as pv
from pyrovae import metrics

# --- the command ----------------------------------------------------------------------------------------------------

MODEL = "--prior spike-slab --guide spike-slab --network dictionary --likelihood normal --latent-dim 6 --hidden 8"
FIT = f"{MODEL} --epochs 1 --num-samples 5"
COLUMNS = ["height; cm", "<b>weight</b>", "age"]
ROWS = np.random.default_rng(0).normal(size=(60, 3)) * [1, 10, 1000] + 5


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("desk")
    with (folder / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *ROWS.tolist()])
    np.save(folder / "narrow.npy", ROWS[:, :2])
    assert pyrovae(f"fit {folder / 'table.csv'} {FIT} --epochs 30 --out {folder / 'table'}") == 0
    assert pyrovae(f"fit digits {FIT} --out {folder / 'digits'}") == 0
    assert pyrovae(f"fit digits --epochs 1 --hidden 8 --latent-dim 3 --num-samples 5 --out {folder / 'mlp'}") == 0
    return folder


@pytest.fixture(autouse=True)
def here(request, monkeypatch):
    if "desk" in request.fixturenames:
        monkeypatch.chdir(request.getfixturevalue("desk"))


def test_the_report_of_a_run_is_of_its_test_set(desk, capsys):
    assert pyrovae("report digits --out digits.html") == 0
    assert re.fullmatch(r"6 of 6 latents, codes of 180 data, 0\.\d MB: digits.html\n", capsys.readouterr().out)
    root = read((desk / "digits.html").read_text(encoding="utf-8"))
    vae, data = pv.load(desk / "digits"), pv.data.digits(binarize=None)
    density = metrics.supports(vae.encode(data.test)).density
    assert {j: float(a.attrs["data-density"]) for j, a in latents(root).items()} == pytest.approx(
        dict(enumerate(density.tolist()))
    )
    facts = terms(root.one("dl", **{"class": "facts"}))
    explained = metrics.explained_variance(data.test, vae.reconstruct(data.test))
    assert facts == {
        "Run": "digits",
        "Data": "digits, 180 held-out test data",
        "Model": "spike-slab prior, spike-slab guide, normal likelihood, dictionary on 6 coordinates",
        "Explained variance": f"{explained:.1%}",
    }
    assert all(picture(article.one("img")).size == (8, 8) for article in latents(root).values())


def test_a_table_is_reported_in_its_own_units_under_its_own_names(desk):
    assert pyrovae("report table table.csv --out table.html") == 0
    root = read((desk / "table.html").read_text(encoding="utf-8"))
    heads = {th.text for article in latents(root).values() for th in article.all("th", **{"class": "column"})}
    assert heads == set(COLUMNS)
    shown = 0
    for article in latents(root).values():
        head, _, *rows = article.one("table").all("tr")
        order = [COLUMNS.index(th.text) for th in head.all("th", **{"class": "column"})]
        for row in rows:
            _, *values = (number(td.text) for td in row.all("td"))
            assert values == pytest.approx(ROWS[int(row.one("th").text), order].tolist(), rel=6e-3)
            shown += 1
    assert shown
    assert "standard deviations" in root.one("header").text
    assert "60 of 60 rows" in root.one("header").text


def test_a_report_in_the_run_is_written_again_only_if_asked(desk, capsys):
    assert pyrovae("report digits") == 0
    before = (desk / "digits/report.html").read_bytes()
    assert pyrovae("report digits") == 2
    assert "--out 'digits/report.html' exists: choose another file, or --overwrite" in capsys.readouterr().err
    assert pyrovae("report digits --overwrite") == 0
    assert (desk / "digits/report.html").read_bytes() == before, "the seed repeats it"
    (desk / "digits/report.html").unlink()


def test_a_run_that_is_trained_again_has_no_report_of_the_old_one(desk, tmp_path):
    run = tmp_path / "run"
    assert pyrovae(f"fit digits {FIT} --out {run}") == 0
    assert pyrovae(f"report {run}") == 0
    assert pyrovae(f"evaluate {run} --num-samples 5") == 0
    assert (run / "figures/latent_density.png").exists()
    assert pyrovae(f"fit digits {FIT} --out {run} --overwrite") == 0
    assert not (run / "report.html").exists()
    assert not (run / "figures/latent_density.png").exists()


def test_a_decoder_that_is_not_linear_shows_its_response(desk):
    assert pyrovae("report mlp --atoms response --out response.html") == 0
    root = read((desk / "response.html").read_text(encoding="utf-8"))
    assert len(latents(root)) == 3
    assert "around the mean code" in root.one("details").text


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("report mlp", "the model has no dictionary: its decoder MLP is not linear"),
        ("report nothing", "there is no run in 'nothing'"),
        ("report digits nothing.npy", "'nothing.npy' is neither"),
        ("report table narrow.npy", "data has 2 values per row, the model of 'table' takes 3"),
        ("report digits --out page.txt", "--out 'page.txt' must end in .html"),
        ("report digits --out nowhere/page.html", "must be a file in a folder that exists"),
        ("report digits --num-latents 0", "0 is not in the range"),
    ],
)
def test_an_error_is_one_line_and_leaves_nothing(command, message, desk, capsys):
    before = tree(desk)
    assert pyrovae(command) == 2
    out, err = capsys.readouterr()
    assert re.fullmatch(f"pyrovae: error: .*{re.escape(message)}.*\n", err)
    assert "Traceback" not in out + err
    assert tree(desk) == before


# --- names of columns -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a,b\n1,2\n", ["a", "b"]),
        ("\ufeffa;b\n\n1,5;2\n", ["a", "b"]),
        ('"a, of x"\tb\n1\t2\n', ["a, of x", "b"]),
        ("1,2\n3,4\n", None),
        ("1,\n3,4\n", None),
        ("a,b\n", None),
        ("", None),
    ],
)
def test_the_names_of_columns_are_the_header(text, names, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(text, encoding="utf-8")
    assert pv.data.column_names(path) == names


def test_other_data_have_no_names_of_columns(tmp_path):
    assert pv.data.column_names("digits") is None
    assert pv.data.column_names(tmp_path / "none.csv") is None


@pytest.mark.parametrize(("name", "shape"), [("digits", (1, 8, 8)), ("patches", (1, 12, 12))])
def test_the_shape_of_images_is_that_of_the_data(name, shape):
    assert pv.data.image_shape(name) == pv.data.load(name, binarize=None).image_shape == shape
