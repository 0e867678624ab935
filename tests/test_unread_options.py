"""An option that nothing reads, or of another kind, is one error that names it."""

from __future__ import annotations

import json

import pytest
import torch
from test_cli import pyrovae

import pyrovae as pv

BUILD = [
    ({"prior": "spike-slab:df=3"}, "df is of slab student-t, got df = 3 with slab 'normal'"),
    ({"prior": "spike-slab:df='a':slab=laplace"}, "df is of slab student-t, got df = 'a' with slab 'laplace'"),
    ({"prior": "beta-spike-slab:df=nan", "num_data": 3}, "df is of slab student-t, got df = 'nan'"),
    ({"prior": "beta-bernoulli:df=-1", "num_data": 3}, "df is of slab student-t, got df = -1"),
    ({"num_classes": "x"}, "num_classes must be a whole number, at least 2, got 'x'"),
    ({"num_classes": 4}, "num_classes is of the likelihoods categorical and autoregressive, got it with 'bernoulli'"),
    ({"inputs": 3}, "inputs must be a tensor of rows of data, or None, got int"),
    ({"num_data": 2.5}, "num_data must be a positive whole number, got 2.5"),
    ({"latent_dim": True}, "latent_dim must be a positive whole number, got True"),
    ({"latent_dim": 2**31}, "latent_dim must be at most 2147483647, got 2147483648"),
    ({"hidden": 400}, r"hidden must be positive widths such as \(400,\), got 400"),
    ({"hidden": "400"}, r"hidden must be positive widths such as \(400,\), got '400'"),
    ({"event_shape": 6}, r"event_shape must be a sequence of positive whole numbers such as \(64,\), got 6"),
    ({"event_shape": (1, 6, 6), "network": "conv", "hidden": (9, 4)}, r"hidden must be one width with network 'conv'"),
    ({"dropout": "x"}, "dropout must be at least 0 and below 1, got 'x'"),
    ({"dropout": float("nan")}, "dropout must be at least 0 and below 1, got nan"),
    ({"residual": "x"}, "residual must be a whole number, at least 0, got 'x'"),
    ({"network": 3}, "network must be a text, got 3"),
    ({"missing": 1}, "missing must be True or False, got 1"),
    ({"corrupt": "os.getcwd:by=1"}, "corrupt 'os.getcwd'"),
]


@pytest.mark.parametrize(("options", "message"), BUILD, ids=str)
def test_build_vae_names_the_argument(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        pv.build_vae(**{"event_shape": (6,), "latent_dim": 2, **options})
    assert "\n" not in str(caught.value)


def test_degrees_of_freedom_reach_the_slab_that_has_them():
    for df, expected in ((":df=7", 7.0), ("", 3.0)):
        prior = pv.build_vae((6,), 3, prior=f"spike-slab:slab=student-t{df}", likelihood="normal").prior
        assert torch.equal(prior.df(), torch.full((3,), expected))


CONFIGS = [
    ({"epochs": []}, "epochs must be a number or a text, got []"),
    ({"epochs": {}}, "epochs must be a number or a text, got {}"),
    ({"epochs": "x"}, "Invalid value for '--epochs': 'x' is not a whole number"),
    ({"epochs": 2.5}, "Invalid value for '--epochs': '2.5' is not a whole number"),
    ({"missing": 0}, "missing must be true or false, got 0"),
    ({"compile": []}, "compile must be true or false, got []"),
    ({"seed": None}, "seed must have a value, such as 0, got null"),
    ({"latent_dim": True}, "latent_dim must be a number or a text, got True"),
    ({"data_dir": [[1]]}, "data_dir must be a number or a text, got [[1]]"),
    ({"prior": "mine.Prior"}, "names prior 'mine.Prior', which is not of pyrovae: --trust imports it"),
    ({"corrupt": "os.system"}, "names corrupt 'os.system', which is not of pyrovae"),
    ('{"latent_dim": 1e400}', "is cut short or not JSON: the number 1e400 is too large"),
    ("[" * 100_000, "is cut short or not JSON: it is nested too deeply"),
]


@pytest.mark.parametrize(("content", "message"), CONFIGS, ids=lambda value: str(value)[:30])
def test_a_config_is_read_as_if_it_had_been_typed(content, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.json").write_text(content if isinstance(content, str) else json.dumps(content))
    for command in ("fit", "compare"):
        assert pyrovae(f"{command} digits --config c.json --out o") == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
    assert not (tmp_path / "o").exists()
