"""The commands on a run of a conditional VAE: what they do with labels, and what they refuse."""

import json
import re

import numpy as np
import pytest
import torch
from test_cli import pyrovae

import pyrovae as pv


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conditional") / "run"
    options = "--conditional --epochs 30 --lr 0.01 --hidden 64 --latent-dim 3 --num-samples 20 --no-compile"
    assert pyrovae(f"fit digits {options} --out {folder}") == 0
    return folder


def test_a_run_keeps_what_it_was_given_and_repeats_its_numbers(run):
    vae, config = pv.load(run), json.loads((run / "config.json").read_text())
    assert isinstance(vae, pv.ConditionalVAE)
    assert vae.num_labels == config["model"]["num_labels"] == 10
    assert config["fit"]["conditional"] is True
    test = pv.data.digits("dynamic").labelled("test")
    torch.manual_seed(0)
    again = pv.metrics.evaluate(vae, test, 20)
    saved = json.loads((run / "metrics.json").read_text())
    assert again["elbo"] == pytest.approx(saved["elbo"], rel=1e-5)
    wrong = pv.metrics.evaluate(vae, (test[0], (test[1] + 1) % 10), 20)
    assert wrong["log_likelihood"] < saved["log_likelihood"] - 3
    names = {path.name for path in (run / "figures").iterdir()}
    assert {"loss.png", "reconstructions.png", "prior_samples.png", "codes.png"} <= names


def test_draws_are_of_the_label_that_is_asked_for(run, tmp_path):
    out = tmp_path / "x.npy"
    assert pyrovae(f"sample {run} --label 3 -n 500 --mean --out {out}") == 0
    assert pyrovae(f"sample {run} -n 500 --mean --out {tmp_path / 'turns.npy'}") == 0
    data = pv.data.digits("dynamic")
    means = torch.stack([data.train[data.labels["train"] == label].mean(0) for label in range(10)])
    asked, in_turn = (torch.from_numpy(np.load(path)) for path in (out, tmp_path / "turns.npy"))
    assert torch.cdist(asked.mean(0)[None], means).argmin() == 3
    nearest = torch.stack([in_turn[label::10].mean(0) for label in range(10)])
    # some digits are like another
    assert (torch.cdist(nearest, means).argmin(1) == torch.arange(10)).sum() >= 8


def test_evaluate_measures_with_labels_and_says_what_it_cannot(run, capsys):
    assert pyrovae(f"evaluate {run} --num-samples 20") == 0
    numbers = json.loads((run / "metrics.json").read_text())
    printed = capsys.readouterr().out
    assert "VAE given one of 10 labels" in printed
    assert numbers["log_likelihood"] > numbers["elbo"]
    assert 0 < numbers["accuracy"] < 1
    assert "vae is conditional" in numbers["missing"]["sbc_p_value"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("encode RUN --out codes.npy", "is conditional: its codes need labels too"),
        ("compress RUN --out x.bits", "vae is conditional: labels are not coded here"),
        ("sample RUN --label 10 --out x.npy", "--label 10: the labels of run .* are whole numbers from 0 to 9"),
    ],
)
def test_what_it_cannot_do_is_one_line(command, message, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert pyrovae(command.replace("RUN", str(run))) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(f"^pyrovae: error: .*{message}", line)
    assert list(tmp_path.iterdir()) == []
