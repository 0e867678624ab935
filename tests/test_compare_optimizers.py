"""``pyrovae compare --optim ...``: equal starts and equal batches, learning rates that are found, and going on."""

import itertools
import re

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from test_cli import pyrovae, read, tree
from test_compare import REAL, TINY, rows_of, said

import pyrovae as pv
from pyrovae import runs
from pyrovae.cli.curves import Curve, optimizer_rows
from pyrovae.data import loading
from pyrovae.infer import SVI

SMALL = "real.npy --hidden 8 --latent-dim 2 --num-samples 5"


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A working folder with data; runs without figures."""
    monkeypatch.setattr(runs, "write_figures", lambda *args: None)
    np.save(tmp_path / "real.npy", REAL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def trained(monkeypatch):
    """The weights that each training of a run began with, in order."""
    begun, fit = [], pv.fit

    def recorded(vae, *args, **kwargs):
        begun.append({name: value.clone() for name, value in vae.state_dict().items()})
        return fit(vae, *args, **kwargs)

    monkeypatch.setattr(pv, "fit", recorded)
    return begun


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def without_seconds(rows):
    return {run: {key: value for key, value in row.items() if key != "seconds"} for run, row in rows.items()}


# --- what is compared -----------------------------------------------------------------------------------------------


def test_optimizers_of_one_seed_begin_alike_and_see_the_same_batches(desk, trained, monkeypatch):
    passes, batches = [], loading.batches

    def recorded(x, *args, **kwargs):
        for batch in batches(x, *args, **kwargs):
            passes[-1].append(batch.clone())
            yield batch

    monkeypatch.setattr(loading, "batches", lambda *args, **kwargs: passes.append([]) or recorded(*args, **kwargs))
    np.save(desk / "grey.npy", torch.rand(40, 6, generator=torch.Generator().manual_seed(0)).numpy())
    grey = "grey.npy --binarize dynamic --hidden 8 --latent-dim 2 --num-samples 5 --epochs 2"
    assert pyrovae(f"compare {grey} --optim sgd,adam --lr 0.01 --batch-size 8 --seed 0,1 --out out") == 0
    assert same(trained[0], trained[2])
    assert same(trained[1], trained[3])
    assert not same(trained[0], trained[1])
    seen = [torch.cat(list(itertools.chain(*passes[i : i + 4]))) for i in range(0, 16, 4)]  # two epochs, train and val
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
    assert seen[0].shape == seen[1].shape
    assert not torch.equal(seen[0], seen[1])


def test_gradient_descent_takes_a_step_of_all_in_an_epoch(desk, monkeypatch):
    sizes, step = [], SVI.step
    monkeypatch.setattr(SVI, "step", lambda self, x: sizes.append(len(x)) or step(self, x))
    assert pyrovae(f"compare {SMALL} --epochs 3 --optim gd,sgd --lr 0.01 --batch-size 16 --out out") == 0
    assert sizes == [32] * 3 + [16] * 6


def test_curves_descend_and_the_table_is_of_them(tmp_path, monkeypatch):
    """On digits with the rates found: each optimizer gains on its first epoch, and batches on the whole set."""
    monkeypatch.setattr(runs, "write_figures", lambda *args: None)
    options = "--hidden 32 --latent-dim 4 --batch-size 32 --num-samples 5 --seed 0,1 --epochs 5 --no-compile"
    status, text = said(f"compare digits {options} --optim gd,sgd,adam --out {tmp_path / 'out'}")
    assert status == 0
    files = {run: tmp_path / "out" / run / "history.csv" for run in rows_of(tmp_path / "out")}
    losses, clocks = (
        {run: np.genfromtxt(file, delimiter=",", names=True)[column] for run, file in files.items()}
        for column in ("val_loss", "seconds")
    )
    for each in losses.values():
        assert each[-1] < each[0] - 0.5, "nats"
    for row in read(tmp_path / "out/optimizers.json"):
        reached = []
        for seed in (0, 1):
            target = losses[f"normal_optim-sgd_seed-{seed}"][-1]
            there = np.flatnonzero(losses[f"normal_optim-{row['optim']}_seed-{seed}"] <= target)
            if len(there):
                reached.append((there[0] + 1, clocks[f"normal_optim-{row['optim']}_seed-{seed}"][there[0]]))
        epochs, seconds = np.mean(reached, axis=0) if len(reached) == 2 else (None, None)
        assert row["epochs_to_reference"] == (None if epochs is None else pytest.approx(epochs))
        assert row["seconds_to_reference"] == (None if seconds is None else pytest.approx(seconds))
        assert row["optim"] == "adam" or (row["optim"] == "gd") == (epochs is None)
        numbers = rf"{row['loss']:.2f} ± {row['loss_sd']:.2f} +[\d.-]+ +[\d-]+ +\d+ +[5-8] rates, [5-8] epochs"
        assert re.search(rf"^  {row['optim']} +\S+ +{numbers}", text, re.MULTILINE)
    assert (tmp_path / "out/curves.png").stat().st_size > 10_000


# --- learning rates that are found ----------------------------------------------------------------------------------


def test_a_list_of_optimizers_has_its_learning_rates_found_once_for_all_seeds(desk):
    status, text = said(f"compare {SMALL} --epochs 5 --optim sgd,adam --seed 0,1 --out out")
    assert status == 0
    assert "sgd and adam at learning rates to be found" in text
    searches = read(desk / "out/searches.json")
    assert [found["settings"]["optim"] for found in searches] == ["sgd", "adam"]
    rows, compared = rows_of(desk / "out"), read(desk / "out/optimizers.json")
    for found, row in zip(searches, compared, strict=True):
        losses = {float(lr): loss for lr, loss in found["losses"].items() if loss is not None}
        assert found["lr"] == min(losses, key=losses.__getitem__) == row["lr"]
        assert found["settings"]["epochs"] == 1, "a fifth of the run"
        assert found["epochs"] == row["search_epochs"] == len(found["losses"]) == row["search_rates"]
        assert found["settings"]["seed"] not in (0, 1)
        of_optim = [each for each in rows.values() if each["optim"] == row["optim"]]
        assert [each["lr"] for each in of_optim] == [found["lr"]] * 2
        for each in of_optim:
            assert read(desk / "out" / each["run"] / "config.json")["fit"]["lr"] == found["lr"]
        assert row["loss"] == pytest.approx(-np.mean([each["elbo"] for each in of_optim]))
        assert row["loss_sd"] == pytest.approx(np.std([each["elbo"] for each in of_optim], ddof=1))


def test_a_search_is_that_of_search_lr_on_other_weights(desk, trained, monkeypatch):
    begun, search_lr = [], pv.train.search_lr

    def recorded(vae, data, *args, **kwargs):
        begun.append(({name: value.clone() for name, value in vae.state_dict().items()}, data, args, kwargs))
        return search_lr(vae, data, *args, **kwargs)

    monkeypatch.setattr(pv.train, "search_lr", recorded)
    options = "--optim momentum --momentum 0.8 --lr search --epochs 10 --warmup 5 --batch-size 8"
    assert pyrovae(f"compare {SMALL} {options} --search-epochs 4 --out out") == 0
    ((weights, data, (make, grid, epochs), settings),) = begun
    assert not same(weights, trained[0])
    assert torch.equal(data.val, pv.data.load("real.npy", standardize=True).val)
    assert (grid, epochs, settings["batch_size"], settings["patience"]) == (
        pv.optim.usual_rates("momentum"),
        4,
        8,
        None,
    )
    assert settings["loss"].beta.end == 2, "the warm-up is as much of the short run"
    assert make(0.1).pt_optim_args == {"momentum": 0.8, "lr": 0.1 / 8}


@pytest.mark.parametrize(("options", "lr"), [("--optim adam", 1e-3), ("--optim sgd,adam --lr 0.02", 0.02)])
def test_a_learning_rate_is_not_searched_for_unasked(options, lr, desk, monkeypatch):
    monkeypatch.setattr(pv.train, "search_lr", lambda *args, **kwargs: pytest.fail("it was searched for"))
    assert pyrovae(f"compare real.npy {TINY} {options} --out out") == 0
    for run in rows_of(desk / "out"):
        assert read(desk / "out" / run / "config.json")["fit"]["lr"] == lr
    assert (desk / "out/optimizers.json").exists() == ("," in options)


def test_an_optimizer_with_a_rate_of_its_own_is_not_searched_for(desk):
    assert pyrovae(f"compare {SMALL} --epochs 2 --optim sgd:lr=0.02,rmsprop:lr=1e-3:decay=0.9,adam --out out") == 0
    assert [found["settings"]["optim"] for found in read(desk / "out/searches.json")] == ["adam"]
    rows = rows_of(desk / "out")
    assert list(rows)[:2] == ["normal_optim-sgd_lr-0.02", "normal_optim-rmsprop_lr-1e-3_decay-0.9"]
    options = [read(desk / "out" / run / "config.json")["fit"] for run in rows]
    assert [(each["optim"], each["lr"]) for each in options[:2]] == [("sgd", 0.02), ("rmsprop:decay=0.9", 0.001)]
    assert [row["search_epochs"] for row in read(desk / "out/optimizers.json")][:2] == [None, None]


def test_an_optimizer_of_which_all_rates_diverge_does_not_lose_the_others(desk, monkeypatch):
    search_lr = pv.train.search_lr

    def fails(vae, data, make, rates, *args, **kwargs):
        rates = rates if rates[0] == 1e-4 else [1e8, 1e9]
        return search_lr(vae, data, make, rates, *args, **kwargs)

    monkeypatch.setattr(pv.train, "search_lr", fails)
    assert pyrovae(f"compare {SMALL} --epochs 2 --optim sgd,adam --out out") == 1
    rows = rows_of(desk / "out")
    assert "rates: the loss diverged at each of 1e+08, 1e+09" in rows["normal_optim-sgd"]["error"]
    assert rows["normal_optim-adam"]["error"] is None


# --- going on -------------------------------------------------------------------------------------------------------


def test_what_is_interrupted_goes_on(desk, trained, monkeypatch, capsys):
    command = f"compare {SMALL} --epochs 5 --optim sgd,adam --seed 0,1"
    assert pyrovae(f"{command} --out whole") == 0
    fit, count = pv.fit, itertools.count(1)

    def interrupted(*args, **kwargs):
        if next(count) == 4:
            raise KeyboardInterrupt
        return fit(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(pv, "fit", interrupted)
        capsys.readouterr()
        assert pyrovae(f"{command} --out deep/out") == 130
    assert capsys.readouterr().err.splitlines()[-1] == ("pyrovae: stopped; 3 of 4 models in deep/out: --resume goes on")
    (desk / "deep/out/.table.json.0123abcd.partial").write_text("[")  # of a command that was killed
    before = len(trained)
    monkeypatch.setattr(pv.train, "search_lr", lambda *args, **kwargs: pytest.fail("it was searched for again"))
    assert pyrovae(f"{command} --out deep/out --resume") == 0
    assert len(trained) == before + 1
    assert without_seconds(rows_of(desk / "deep/out")) == without_seconds(rows_of(desk / "whole"))
    assert sorted(path.name for path in (desk / "deep/out").iterdir()) == sorted(
        path.name for path in (desk / "whole").iterdir()
    )
    for name in ("model.safetensors", "metrics.json"):
        run = "normal_optim-adam_seed-1"
        assert (desk / "deep/out" / run / name).read_bytes() == (desk / "whole" / run / name).read_bytes()
    assert pyrovae(f"{command} --out deep/out --resume") == 0, "with nothing left to do"
    assert len(trained) == before + 1


def test_a_longer_list_goes_on_too(desk, trained):
    assert pyrovae(f"compare real.npy {TINY} --prior normal,laplace --out out --resume") == 0, "there is nothing yet"
    assert pyrovae(f"compare real.npy {TINY} --prior normal,laplace,student-t --out out --resume") == 0
    assert len(trained) == 3
    assert list(rows_of(desk / "out")) == ["normal", "laplace", "student-t"]


def test_a_model_that_failed_is_tried_again(desk, monkeypatch, trained):
    train = pv.fit
    with monkeypatch.context() as patch:
        fail = itertools.cycle([False, True])

        def fails(*args, **kwargs):
            if next(fail):
                raise FloatingPointError("nan")
            return train(*args, **kwargs)

        patch.setattr(pv, "fit", fails)
        assert pyrovae(f"compare real.npy {TINY} --prior normal,laplace --out out") == 1
    assert pyrovae(f"compare real.npy {TINY} --prior normal,laplace --out out --resume") == 0
    assert len(trained) == 2
    assert {row["error"] for row in rows_of(desk / "out").values()} == {None}


BAD = {
    "--out out --resume --beta 2": r"--resume: the run in 'out/normal' has beta 1\.0, not 2\.0: another --out",
    "--out out --resume --epochs 2": "--resume: the run in 'out/normal' has epochs 1, not 2",
    "--out out --resume --overwrite": "--overwrite and --resume exclude each other",
    "--out run --resume": "--out 'run' is not a comparison to --resume: .*no config.json",
    "--out new --optim sgd,adan": r"unknown optimizer 'adan': did you mean 'adam'\?",
    "--out new --lr 0": r"'--lr': 0\.0 is not in the range x>0",
    "--out new --optim sgd,adam --lr 0.1,-0.1": r"'--lr': -0\.1 is not in the range x>0",
    "--out new --lr serch": "'--lr': 'serch' is not a number",
    "--out new --lr search,search": "'--lr': 'search,search' has search twice",
    "--out new --search-epochs 0": "'--search-epochs': 0 is not in the range x>=1",
    "--out new --lr search --schedule cosine:epochs=1": "--lr search: its runs are shorter than the one that",
    "--out new --optim adam:lr=0.1,sgd --lr 0.1": "--optim adam:lr=0.1: lr is given by --lr",
    "--out new --optim adam:lr=0,sgd": "lr must be positive, got 0",
    "--out new --optim adam:lr=fast,sgd": "lr must be positive, got 'fast'",
}


@pytest.mark.parametrize(("options", "message"), BAD.items())
def test_what_is_wrong_is_said_before_any_training(options, message, desk, capsys, monkeypatch):
    assert pyrovae(f"compare real.npy {TINY} --out out") == 0
    (desk / "run").mkdir()
    (desk / "run/precious.txt").write_text("mine")
    before = tree(desk)
    capsys.readouterr()
    monkeypatch.setattr(pv, "fit", lambda *args, **kwargs: pytest.fail("it was trained"))
    assert pyrovae(f"compare real.npy {TINY} {options}") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert re.search(f"^pyrovae: error: .*{message}", lines[0])
    assert tree(desk) == before


def test_other_data_are_not_gone_on_with(desk, capsys):
    assert pyrovae(f"compare real.npy {TINY} --out out") == 0
    np.save(desk / "other.npy", REAL)
    capsys.readouterr()
    assert pyrovae(f"compare other.npy {TINY} --out out --resume") == 2
    assert re.search("--resume: the run in 'out/normal' has data .*real.npy, not .*other.npy", capsys.readouterr().err)


# --- the table and the picture, of numbers that are known -----------------------------------------------------------


def history(*losses, pace=2.0):
    epochs = [float(epoch) for epoch in range(1, len(losses) + 1)]
    return {
        "epoch": epochs, "train_loss": list(losses), "val_loss": list(losses), "seconds": [pace * t for t in epochs]
    }  # fmt: skip


def curve(optim, losses, elbos, lr=0.1, search=None, **others):
    rows = dict(enumerate({"elbo": elbo} for elbo in elbos))
    return Curve({"optim": optim, "lr": lr, **others}, rows, dict(enumerate(losses)), search)


def test_the_table_of_optimizers_by_hand():
    found = {"losses": {"0.1": 9.0, "0.3": None, "1": None}, "epochs": 7, "seconds": 12.0, "at_edge": True}
    curves = [
        curve("adam", [history(12, 10, 9, 8), history(14, 12, 11, 7)], [-8.5, -9.5], search=found),
        curve("gd", [history(20, 19, 18, 17)] * 2, [-17.0, -17.0]),
        curve("sgd", [history(18, 15, 12, 10), history(18, 16, 14, 12, pace=3.0)], [-10.0, None]),
        curve("sgd", [history(20, 19, 18, 17)] * 2, [-17.0, -17.0], lr=0.001),
    ]
    adam, gd, sgd, slow = optimizer_rows(curves)
    assert (adam["loss"], adam["loss_sd"], adam["num_seeds"]) == (9.0, pytest.approx(0.5**0.5), 2)
    assert (adam["epochs_to_reference"], adam["seconds_to_reference"], adam["seconds"]) == (2.0, 4.0, 8.0)
    assert (adam["search_rates"], adam["search_epochs"], adam["search_seconds"], adam["search_at_edge"]) == (
        3, 7, 12.0, True
    )  # fmt: skip
    assert (gd["epochs_to_reference"], gd["seconds_to_reference"], gd["search_rates"]) == (None, None, None)
    assert (sgd["epochs_to_reference"], sgd["seconds_to_reference"]) == (4.0, 10.0)
    assert (sgd["loss"], sgd["loss_sd"]) == (10.0, None), "one of its runs has no bound"
    assert slow["reference"] == "sgd"
    assert slow["epochs_to_reference"] is None, "the reference is SGD at its best rate"


def test_the_reference_is_of_the_same_model_and_the_first_where_there_is_no_sgd():
    curves = [
        curve(optim, [history(5 + dim, 4 + dim)], [-4.0], latent_dim=dim)
        for optim in ("adam", "muon")
        for dim in (1, 2)
    ]
    assert [row["reference"] for row in optimizer_rows(curves)] == ["adam"] * 4
    assert [row["epochs_to_reference"] for row in optimizer_rows(curves)] == [2.0] * 4


def drawn(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return {text.get_text(): text.get_window_extent(canvas.get_renderer()) for text in texts}


@pytest.mark.parametrize("count", [1, 7, 24])
def test_learning_curves_have_a_line_a_band_and_a_name_each(count):
    models = {
        f"optimizer {i}": [history(*(100 + i / 10 + 90 / epoch + seed for epoch in range(1, 9))) for seed in range(3)]
        for i in range(count)
    }
    figure = pv.plots.learning_curves(models)
    left, right = figure.axes
    assert len(left.lines) == len(right.lines) == count
    np.testing.assert_allclose(left.lines[0].get_ydata(), [101 + 90 / epoch for epoch in range(1, 9)])
    np.testing.assert_allclose(right.lines[0].get_xdata(), [2.0 * epoch for epoch in range(1, 9)])
    band = left.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((100 + 90 / 8, 102 + 90))
    assert left.get_yscale() == "log"
    assert right.get_xscale() == "linear"
    boxes = [box for text, box in drawn(figure).items() if text.startswith("optimizer")]
    assert len(boxes) == count
    width, height = figure.get_size_inches() * figure.dpi
    for box in boxes:
        assert box.x1 <= width
        assert 0 <= box.y0 < box.y1 <= height
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)


def test_learning_curves_of_reals_of_other_clocks_and_of_gaps():
    models = {"a": [history(3.0, -1.0, -2.0), history(3.0, 2.0)], "b": [history(2.0, float("inf"), pace=9.0)]}
    left, right = pv.plots.learning_curves(models).axes
    assert left.get_yscale() == "linear", "a density may have a loss below zero"
    assert right.get_xscale() == "log"
    assert len(left.lines[0].get_xdata()) == 2, "up to where the shortest run stopped"
    assert "a  0.5" in drawn(left.figure)
    assert "b  2.0" in drawn(left.figure)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({}, "models must be one name or more"),
        ({"a": []}, "models must be one name or more, each with one history or more"),
        ({"a": [history(float("nan"))]}, "models: 'a' has a history without a val_loss that is finite"),
        ({"a": [history()]}, "models: 'a' has a history without a val_loss that is finite"),
    ],
)
def test_no_curves(models, message):
    with pytest.raises(ValueError, match=message):
        pv.plots.learning_curves(models)
