"""Tables of a user's own in units of their own: standardised for the model, and put back for the user."""

import json
import math
import re

import numpy as np
import pytest
import torch
from scipy import stats
from test_cli import pyrovae, read

import pyrovae as pv
from pyrovae.data import Standardization

SCALES = np.array([1.0, 10.0, 100.0, 1.0, 1.0])
LOCS = np.array([0.0, -30.0, 500.0, 2.0, 0.0])
TABLE = (LOCS + SCALES * np.random.default_rng(0).normal(size=(300, 5))).astype(np.float32)
TABLE[:, 4] = 7.0  # a constant
TINY = "--epochs 1 --hidden 8 --latent-dim 2 --num-samples 5"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    np.savetxt(tmp_path / "table.csv", TABLE, delimiter=",", fmt="%.9g")
    np.savetxt(tmp_path / "counts.csv", np.random.default_rng(1).poisson(30.0, (60, 5)), delimiter=",", fmt="%d")
    np.save(tmp_path / "grey.npy", np.random.default_rng(1).random((60, 5)))
    np.save(tmp_path / "images.npy", 9 * np.random.default_rng(1).random((60, 4, 4)))
    monkeypatch.setattr(pv.runs, "write_figures", lambda *args: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_training_columns_have_mean_0_and_standard_deviation_1(folder):
    raw, data = (pv.data.load("table.csv", standardize=value) for value in (False, True))
    train = raw.train.double().numpy()
    scale = np.array([*train.std(0)[:4], 1.0])
    for split in ("train", "val", "test"):
        x = getattr(raw, split)
        np.testing.assert_allclose(getattr(data, split), (x.numpy() - train.mean(0)) / scale, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(data.standardization.inverse(getattr(data, split)).float(), x, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(data.standardization(x), getattr(data, split))
    np.testing.assert_allclose(data.train.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(data.train.std(0, correction=0), [1, 1, 1, 1, 0], atol=1e-5)
    assert pv.data.from_file("table.csv", standardize=True).standardization.log_scale == data.standardization.log_scale
    shaped = data.reshape((5, 1))
    own = shaped.standardization.inverse(shaped.test)[..., 0]
    torch.testing.assert_close(own.float(), raw.test, rtol=1e-5, atol=1e-4)


def test_log_scale_is_the_jacobian():
    x = torch.tensor(TABLE[:, :4], dtype=torch.float64)
    standardization = Standardization.of(x)
    y = standardization(x)
    loc, scale = standardization.loc.numpy(), standardization.scale.numpy()
    of_data = stats.norm(loc, scale).logpdf(x.numpy()).sum(1)
    of_standardised = stats.norm.logpdf(y.numpy()).sum(1)
    np.testing.assert_allclose(of_standardised - standardization.log_scale, of_data, rtol=1e-10)


def test_a_constant_column_of_any_size_keeps_scale_1():
    for value in (0.1, 1e-30, -3e7, 1e30):
        assert Standardization.of(torch.full((301, 1), value)).scale.item() == 1.0
    almost = torch.full((301, 1), 1e-44)
    almost[0] = 0.0
    assert torch.isfinite(Standardization.of(almost)(almost)).all()


@pytest.mark.parametrize(
    ("arguments", "standardised"),
    [
        ("table.csv", True),
        ("table.csv --likelihood laplace", True),
        ("table.csv --likelihood normal:scale=0.5", True),
        ("table.csv --no-standardize", False),
        ("table.csv --likelihood pyrovae.likelihoods.Normal", False),
        ("table.csv --likelihood pyrovae.likelihoods.Normal --standardize", True),
        ("counts.csv", True),  # whole numbers under a normal likelihood are measurements
        ("counts.csv --likelihood poisson", False),
        ("grey.npy", False),
        ("grey.npy --likelihood normal", False),
        ("grey.npy --likelihood normal --standardize", True),
        ("images.npy", False),
        ("digits --likelihood normal --binarize none", False),
    ],
)
def test_which_data_are_standardised(arguments, standardised, folder, capsys):
    assert pyrovae(f"fit {arguments} {TINY} --out run") == 0
    out = capsys.readouterr().out
    config = read(folder / "run/config.json")
    assert config["fit"]["standardize"] is standardised
    assert (config["data"]["standardization"] is not None) is standardised
    assert ("standardised: each column" in out) is standardised


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("counts.csv --likelihood poisson --standardize", "--standardize is of real data, got likelihood 'poisson'"),
        ("grey.npy --standardize", "--standardize is of real data, got likelihood 'continuous-bernoulli'"),
        ("images.npy --standardize", "images.npy cannot be standardised, its rows are images"),
        ("patches --standardize", "patches cannot be standardised, its rows are images"),
    ],
)
def test_what_cannot_be_standardised(arguments, message, folder, capsys):
    assert pyrovae(f"fit {arguments} {TINY} --out run") == 2
    assert re.search(f"^pyrovae: error: .*{message}", capsys.readouterr().err)


def test_in_python_too(folder):
    with pytest.raises(ValueError, match=r"grey\.npy cannot be both binarised and standardised"):
        pv.data.load("grey.npy", binarize="static", standardize=True)
    with pytest.raises(ValueError, match=r"table\.csv cannot be standardised, its rows are standardised already"):
        pv.data.load("table.csv", standardize=True).standardize()


def test_a_run_remembers_and_puts_back(folder, capsys):
    assert pyrovae(f"fit table.csv --epochs 3 {TINY[10:]} --out run") == 0
    out = capsys.readouterr().out
    data = pv.data.load("table.csv", standardize=True)
    log_scale = math.log(np.prod(data.standardization.scale.double().numpy()))
    assert f"those of the data are {log_scale:.2f} nats lower per datum" in out
    vae, numbers = pv.load(folder / "run"), read(folder / "run/metrics.json")
    assert numbers["reconstruction"] == pytest.approx(
        pv.metrics.elbo(vae, data.test).reconstruction.mean().item(), rel=0.3
    )

    assert pyrovae("evaluate run --num-samples 5") == 0
    assert numbers.items() <= read(folder / "run/metrics.json").items(), "evaluate has more of them"
    assert "standardised: each column" in capsys.readouterr().out
    assert pyrovae("fit table.csv --config run/config.json --out again") == 0
    assert read(folder / "again/metrics.json") == numbers

    np.save("new.npy", TABLE[:7])  # of few rows, whose own mean is another
    assert pyrovae("encode run new.npy --out codes.npy") == 0
    expected = vae.encode(data.standardization(torch.tensor(TABLE[:7])))
    np.testing.assert_allclose(np.load("codes.npy"), expected, rtol=1e-5, atol=1e-6)

    assert pyrovae("sample run -n 2000 --seed 1") == 0
    torch.manual_seed(1)
    y = vae.sample(2000)
    np.testing.assert_allclose(np.load("run/samples.npy"), data.standardization.inverse(y), rtol=1e-5, atol=1e-5)


def test_a_run_of_before_is_not_standardised(folder):
    assert pyrovae(f"fit table.csv {TINY} --no-standardize --out run") == 0
    config, numbers = read(folder / "run/config.json"), read(folder / "run/metrics.json")
    del config["data"]["standardization"], config["format"], config["sha256"]
    (folder / "run/config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match="before runs had a hash"):
        assert pyrovae("evaluate run --num-samples 5") == 0
    assert numbers.items() <= read(folder / "run/metrics.json").items(), "evaluate has more of them"
    with pytest.warns(UserWarning, match="before runs had a hash"):
        assert pyrovae("encode run") == 0


def test_ordinary_measurements_are_fitted_about_as_well_as_by_a_normal_law(folder):
    """Of independent Normals the best density is theirs; unstandardised the model was 200 nats below it."""
    table = SCALES * np.random.default_rng(0).normal(size=(300, 5))
    np.savetxt("scales.csv", table, delimiter=",", fmt="%.9g")
    assert pyrovae("fit scales.csv --latent-dim 2 --hidden 50 --epochs 30 --num-samples 50 --out run") == 0
    data = pv.data.load("scales.csv", standardize=True)
    raw = data.standardization.inverse(data.test).double().numpy()
    entropy = stats.norm(0, SCALES).logpdf(raw).sum(1).mean()
    assert read(folder / "run/metrics.json")["elbo"] - data.standardization.log_scale > entropy - 1.0
