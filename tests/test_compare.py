"""``pyrovae compare``: its runs are those of ``fit``, its numbers those of ``evaluate``, its picture can be read."""

import contextlib
import csv
import io
import itertools
import math
import re
import shutil
import sys

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image
from test_cli import pyrovae, read, tree

import pyrovae as pv
from pyrovae import runs
from pyrovae.metrics import Atoms, decoder_atoms
from pyrovae.plots import Portrait
from pyrovae.plots.rate_distortion import apart

TINY = "--epochs 1 --hidden 8 --latent-dim 2 --num-samples 5"
DIGITS = "digits --epochs 2 --hidden 16 --latent-dim 8 --num-samples 20"
REAL = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
MODULE = """
import pyrovae as pv
class Breaks(pv.priors.Normal):
    def forward(self):
        raise RuntimeError("boom")
class Overflows(pv.priors.Normal):
    def __init__(self, dim):
        super().__init__(dim, loc=1e30)
"""


def said(command):
    """The exit status of a command and what it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = pyrovae(command)
    return status, out.getvalue()


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    status, text = said(f"compare {DIGITS} --prior normal,spike-slab --out {folder / 'out'}")
    assert status == 0
    return folder / "out", text


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A working folder with data without labels, and a module of priors that fail in training; runs without figures."""
    monkeypatch.setattr(runs, "write_figures", lambda *args: None)
    np.save(tmp_path / "real.npy", REAL)
    (tmp_path / "mymodule.py").write_text(MODULE)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("mymodule", None)


def rows_of(folder):
    """The rows of table.json, which table.csv holds too."""
    rows = read(folder / "table.json")
    with (folder / "table.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [list(row) for row in written] == [list(row) for row in rows]
    for row, cells in zip(rows, written, strict=True):
        assert {key: "" if value is None else str(value) for key, value in row.items()} == cells
    return {row["run"]: row for row in rows}


# --- what a comparison is -------------------------------------------------------------------------------------------


def test_a_comparison_is_a_folder_of_runs(compared):
    out, _ = compared
    assert sorted(path.name for path in out.iterdir()) == [
        "compare.png", "config.json", "curves.png", "normal", "spike-slab", "table.csv", "table.json"
    ]  # fmt: skip
    for name in ("compare.png", "curves.png"):
        with Image.open(out / name) as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 50


def test_its_runs_are_those_of_fit(compared, tmp_path):
    out, _ = compared
    for prior in ("normal", "spike-slab"):
        assert pyrovae(f"fit {DIGITS} --prior {prior} --out {tmp_path / prior}") == 0
        assert (out / prior / "model.safetensors").read_bytes() == (tmp_path / prior / "model.safetensors").read_bytes()
        for name in ("config.json", "metrics.json"):
            assert read(out / prior / name) == read(tmp_path / prior / name), name


def test_its_numbers_are_those_of_evaluate(compared, tmp_path):
    out, text = compared
    rows = rows_of(out)
    assert list(rows) == ["normal", "spike-slab"]
    for prior, row in rows.items():
        shutil.copytree(out / prior, tmp_path / prior)
        (tmp_path / prior / "metrics.json").unlink()
        assert pyrovae(f"evaluate {tmp_path / prior} --num-samples 20") == 0
        numbers = read(tmp_path / prior / "metrics.json")
        same = {
            "elbo", "standard_error", "log_likelihood", "exact_zeros", "hoyer", "support_jaccard", "num_supports",
            "active_units", "latent_dim",
        }  # fmt: skip
        assert {key: row[key] for key in same} == {key: numbers[key] for key in same}
        assert (row["rate"], row["distortion"]) == (numbers["kl"], -numbers["reconstruction"])
        assert row["elbo"] == pytest.approx(-row["rate"] - row["distortion"], abs=1e-4)
        assert row["seconds"] == np.genfromtxt(out / prior / "history.csv", delimiter=",", names=True)["seconds"][-1]
        cells = re.split(r" {2,}", next(line for line in text.splitlines() if line.startswith(f"  {prior}")).strip())
        assert cells == [
            prior,
            f"{numbers['elbo']:.2f} ± {numbers['standard_error']:.2f}",
            f"{numbers['log_likelihood']:.2f}",
            f"{numbers['kl']:.2f}",
            f"{-numbers['reconstruction']:.2f}",
            f"{numbers['exact_zeros']:.1%}",
            f"{numbers['hoyer']:.2f}",
            f"{numbers['active_units']} of 8",
            f"{100 * row['accuracy']:.1f} ± {100 * row['accuracy_standard_error']:.1f}",
            f"{row['seconds']:.0f}",
        ]
    assert rows["spike-slab"]["exact_zeros"] > rows["normal"]["exact_zeros"] == 0


def test_its_accuracy_is_that_of_the_codes(compared):
    out, text = compared
    for prior, row in rows_of(out).items():
        vae, data = pv.load(out / prior), pv.data.digits("dynamic")
        torch.manual_seed(0)
        codes = vae.encode(data.transform(data.train)), data.labels["train"]
        probe = pv.metrics.probe_accuracy(*codes, vae.encode(data.test), data.labels["test"], 100, 20, 0)
        assert (row["accuracy"], row["accuracy_standard_error"]) == pytest.approx(probe)
    assert "with 100 labels, mean ± error over 20 draws" in text


def test_lists_make_a_model_of_each_combination(desk):
    lists = "--prior laplace,normal --latent-dim 2,3 --beta 0.5,4 --seed 7"
    status, text = said(f"compare real.npy {TINY} {lists} --out out")
    assert status == 0
    rows = rows_of(desk / "out")
    combinations = list(itertools.product(["laplace", "normal"], [2, 3], [0.5, 4.0]))
    assert [(row["prior"], row["latent_dim"], row["beta"]) for row in rows.values()] == combinations
    assert list(rows)[1] == "laplace_latent-dim-2_beta-4"
    for run, row in rows.items():
        options = read(desk / "out" / run / "config.json")["fit"]
        assert {name: options[name] for name in ("prior", "latent_dim", "beta", "seed")} == {
            "prior": row["prior"], "latent_dim": row["latent_dim"], "beta": row["beta"], "seed": 7
        }  # fmt: skip
    assert re.search(r"^  prior +latent dim +beta +ELBO", text, re.MULTILINE)
    assert re.search(r"^  normal +3 +0\.5 +-", text, re.MULTILINE)
    assert {row["accuracy"] for row in rows.values()} == {None}, "data without labels"
    assert "accuracy:" not in text


def test_guides_and_seeds_are_lists_too(desk):
    assert pyrovae(f"compare real.npy {TINY} --guide laplace,delta --seed 0,1 --out out") == 0
    rows = rows_of(desk / "out")
    assert list(rows) == [f"normal_guide-{guide}_seed-{seed}" for guide in ("laplace", "delta") for seed in (0, 1)]
    assert rows["normal_guide-laplace_seed-0"]["elbo"] != rows["normal_guide-laplace_seed-1"]["elbo"]
    for key in ("elbo", "log_likelihood", "rate"):
        assert rows["normal_guide-delta_seed-0"][key] is None


def test_optimizers_learning_rates_and_batch_sizes_are_lists_too(desk):
    status, text = said(f"compare real.npy {TINY} --optim gd,adam:eps=1e-6 --lr 0.001,0.01 --batch-size 8,16 --out out")
    assert status == 0
    rows = rows_of(desk / "out")
    combinations = list(itertools.product(["gd", "adam:eps=1e-6"], [0.001, 0.01], [8, 16]))
    assert [(row["optim"], row["lr"], row["batch_size"]) for row in rows.values()] == combinations
    assert list(rows)[-1] == "normal_optim-adam_eps-1e-6_lr-0.01_batch-size-16"
    assert "1 epoch of batches of 32, 8 and 16, gd and adam:eps=1e-6 at learning rate 0.001 and 0.01, on cpu" in text


def test_components_are_of_the_priors_that_have_them(desk):
    assert pyrovae(f"compare real.npy {TINY} --prior normal,mixture,vamp --num-components 3 --out out") == 0
    given = {run: read(desk / f"out/{run}/config.json")["fit"]["num_components"] for run in rows_of(desk / "out")}
    assert given == {"normal": None, "mixture": 3, "vamp": 3}


def test_its_config_repeats_it_and_overwrite_replaces_it(desk):
    assert pyrovae(f"compare real.npy {TINY} --prior normal,laplace --beta 2 --out out") == 0
    assert pyrovae("compare real.npy --config out/config.json --out again") == 0
    for run, name in itertools.product(("normal", "laplace"), ("config.json", "metrics.json")):
        assert read(desk / "out" / run / name) == read(desk / "again" / run / name)
    assert pyrovae("compare real.npy --config out/laplace/config.json --prior student-t --out out --overwrite") == 0
    assert list(rows_of(desk / "out")) == ["student-t"]
    assert not (desk / "out/normal").exists()
    assert read(desk / "out/config.json")["compare"]["beta"] == "2"
    assert sorted(path.name for path in desk.iterdir()) == ["again", "mymodule.py", "out", "real.npy"]


# --- what cannot be done --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prior", "message"), [("mymodule.Overflows", "epoch 1: "), ("mymodule.Breaks", "fails: boom")]
)
def test_a_model_that_fails_does_not_lose_the_others(prior, message, desk, capsys):
    assert pyrovae(f"compare real.npy {TINY} --prior normal,{prior},laplace --out out") == 1
    out, err = capsys.readouterr()
    rows = rows_of(desk / "out")
    assert list(rows) == ["normal", prior, "laplace"]
    assert message in rows[prior]["error"]
    assert rows[prior]["elbo"] is None
    assert rows["laplace"]["elbo"] < 0
    assert re.search(rf"^  {re.escape(prior)} +failed: .*{message}", out, re.MULTILINE)
    assert err.splitlines()[-1] == f"pyrovae: error: 1 of 3 models failed: {prior}"
    assert ("Traceback" in err) == ("Breaks" in prior), "a bug says where it is"
    assert sorted(path.name for path in (desk / "out").iterdir() if path.is_dir()) == ["laplace", "normal"]


BAD = {  # what is asked for, and what the one line says
    "--prior normal,lapalce": r"unknown prior 'lapalce': did you mean 'laplace'\?",
    "--prior normal,spike-slab --guide normal": "guide Normal has support .* but prior SpikeSlab",
    "--prior normal,normal": "'--prior': 'normal,normal' has normal twice",
    "--prior normal,,laplace": "'--prior': 'normal,,laplace' has an empty item",
    "--beta 1,1.0": "'--beta': '1,1.0' has 1.0 twice",
    "--beta 1,-2": "'--beta': -2.0 is not in the range x>=0",
    "--latent-dim 2,two": "'--latent-dim': 'two' is not a whole number",
    "--optim adan": r"unknown optimizer 'adan': did you mean 'adam'\?",
    "--num-components 3": "num_components is of the priors mixture and vamp",
    "--out real.npy": "--out 'real.npy' exists",
    "--out real.npy --overwrite": "--out 'real.npy' is not a comparison, so --overwrite leaves it alone",
    "--out run --overwrite": "--out 'run' is not a comparison, so --overwrite leaves it alone: .*no config.json",
    "--config bad.json": "--config 'bad.json' must hold options of compare by name",
}


@pytest.mark.parametrize(("options", "message"), BAD.items())
def test_what_is_wrong_is_said_before_any_training(options, message, desk, capsys, monkeypatch):
    (desk / "run").mkdir()
    (desk / "bad.json").write_text('{"priors": 1}')
    before = tree(desk)
    monkeypatch.setattr(pv, "fit", lambda *args, **kwargs: pytest.fail("it was trained"))
    assert pyrovae(f"compare real.npy {TINY} --out out {options}") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert re.search(f"^pyrovae: error: .*{message}", lines[0])
    assert tree(desk) == before


def test_a_run_is_no_comparison(desk):
    assert pyrovae(f"fit real.npy {TINY} --out run") == 0
    before = tree(desk)
    assert pyrovae(f"compare real.npy {TINY} --out run --overwrite") == 2
    assert pyrovae("evaluate .") == 2
    assert tree(desk) == before


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (FloatingPointError("nan"), 2)])
def test_nothing_is_left_where_nothing_was_trained(error, status, desk, capsys, monkeypatch):
    def fail(*args, **kwargs):
        raise error

    before = tree(desk)
    monkeypatch.setattr(pv, "fit", fail)
    assert pyrovae(f"compare real.npy {TINY} --prior normal,laplace --out deep/out") == status
    expected = {
        130: "pyrovae: stopped; nothing was written",
        2: "pyrovae: error: no model could be trained; normal: nan",
    }
    assert capsys.readouterr().err.strip() == expected[status]
    assert tree(desk) == before


# --- the picture ----------------------------------------------------------------------------------------------------


def portrait(name, rate=5.0, distortion=18.0, shape=(8, 8), num=8, codes=None):
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(100, num, generator=generator) if codes is None else codes
    atoms = Atoms(torch.arange(num), torch.ones(num), torch.randn(num, *shape, generator=generator))
    return Portrait(name, rate, distortion, codes, atoms)


HEADING = "the decoder's answer to the most active coordinates"


def texts_of(figure):
    """Every text that shows something, with its box in pixels, the line from a name to its point not counted."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return [(text, Text.get_window_extent(text, canvas.get_renderer())) for text in found]


@pytest.mark.parametrize(("count", "spread"), [(1, 0.0), (2, 0.0), (3, 1e-3), (6, 1.0), (12, 0.0)])
def test_no_two_names_overlap_and_all_are_inside(count, spread):
    names = [f"generalized-normal, latent dim {i}, beta 4" for i in range(count)]
    portraits = [portrait(name, 5 + spread * math.sin(i), 18 + spread * i**2) for i, name in enumerate(names)]
    figure = pv.plots.comparison(portraits, (1, 8, 8))
    texts = texts_of(figure)
    assert {name for text, _ in texts for name in [text.get_text()] if name in names} == set(names)
    width, height = figure.get_size_inches() * figure.dpi
    boxes = [box for text, box in texts if text.get_text() in (*names, HEADING)]
    assert len(boxes) == 2 * count + 1, "beside its point, and over its codes"
    for box in boxes:
        assert box.x0 >= 0
        assert box.x1 <= width
        assert box.y0 >= 0
        assert box.y1 <= height
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)


def test_names_are_movedapart_in_their_order():
    for places, gap in (([0.5, 0.5, 0.5], 0.1), ([0.0, 0.9, 0.95, 1.0], 0.1), ([0.1, 0.4, 0.8], 0.1), ([0.3], 0.1)):
        moved = apart(places, gap)
        assert all(b - a >= gap - 1e-12 for a, b in itertools.pairwise(moved))
        assert -1e-12 <= min(moved) <= max(moved) <= 1 + 1e-12
    assert apart([0.1, 0.4, 0.8], 0.1) == [0.1, 0.4, 0.8]


@pytest.mark.parametrize(
    ("change", "image_shape"),
    [
        ({"shape": (64,)}, (1, 8, 8)),
        ({"shape": (5,)}, None),
        ({"shape": (300,)}, (1, 1, 300)),
        ({"shape": (3, 8, 8)}, (3, 8, 8)),
        ({"shape": (2, 8, 8)}, (2, 8, 8)),
        ({"num": 1}, (1, 8, 8)),
        ({"num": 20}, (1, 8, 8)),
        ({"codes": torch.zeros(50, 8)}, (1, 8, 8)),
        ({"codes": torch.full((50, 8), 0.125)}, (1, 8, 8)),
        ({"rate": None, "distortion": None}, (1, 8, 8)),
    ],
)
def test_every_kind_of_model_is_drawn(change, image_shape):
    portraits = [portrait("one", **change), portrait("two", 6.0, 17.0, **{"shape": (8, 8), **_shape_of(change)})]
    assert texts_of(pv.plots.comparison(portraits, image_shape))


def _shape_of(change):
    return {"shape": change["shape"]} if "shape" in change else {}


def test_exact_zeros_are_a_bar_of_their_own():
    codes = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    codes[:, :6] = 0.0
    figure = pv.plots.comparison([portrait("sparse", codes=codes)], (1, 8, 8))
    axes = next(
        axes for axes in figure.findobj(lambda a: hasattr(a, "patches") and hasattr(a, "get_yscale")) if axes.patches
    )
    heights = [(patch.get_facecolor()[:3], patch.get_height()) for patch in axes.patches]
    assert [height for color, height in heights if color == (0, 0, 0)] == [600]
    assert sum(height for color, height in heights if color != (0, 0, 0)) == 200
    assert [text.get_text() for text in axes.texts] == ["75.0% exact zeros"]


@pytest.mark.parametrize(
    "prior", ["dirichlet", "hyperspherical-uniform", "gamma", "regularized-horseshoe", "spike-slab"]
)
def test_codes_of_every_support_are_drawn(prior):
    torch.manual_seed(0)
    vae = pv.build_vae((64,), 4, prior=prior, hidden=(8,))
    x = pv.data.digits().test[:50]
    drawn = Portrait(prior, 1.0, 2.0, vae.encode(x), decoder_atoms(vae, x))
    assert any(text.get_text().startswith(prior) for text, _ in texts_of(pv.plots.comparison([drawn], (1, 8, 8))))


def test_no_portraits():
    with pytest.raises(ValueError, match="portraits must have one model or more"):
        pv.plots.comparison([])
