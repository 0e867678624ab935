"""What a run prints on standard error: a bar on a terminal, lines elsewhere, nothing when it is told to be quiet."""

import json
import os
import pty
import re
import sys

import numpy as np
import pytest
import torch

import pyrovae as pv
from pyrovae.cli import main
from pyrovae.train import Callback, progress

X = torch.bernoulli(torch.full((50, 8), 0.3), generator=torch.Generator().manual_seed(0))
LAST = r"\d+ of \d+ epochs? in \d+\.\d s.*"


def fit(epochs=3, **options):
    torch.manual_seed(0)
    vae = pv.build_vae((8,), 2, hidden=(6,))
    return pv.fit(vae, X, epochs, 16, **{"seed": 0, "compile": False, **options})


@pytest.fixture
def terminal(monkeypatch):
    """Puts standard error on a terminal, and returns what reads it, with ``|`` for each carriage return."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    with os.fdopen(theirs, "w") as stderr:

        def written():
            stderr.flush()
            parts = []
            while True:
                try:
                    parts.append(os.read(ours, 1 << 16))
                except BlockingIOError:
                    return b"".join(parts).decode().replace("\r\n", "\n").replace("\r", "|")

        def begin():  # in the test itself: pytest has a standard error of its own for each phase
            monkeypatch.setattr(sys, "stderr", stderr)
            return written

        yield begin
    os.close(ours)


@pytest.fixture
def log(tmp_path, monkeypatch):
    """Puts standard error into a file, as a batch system does, and returns what reads it."""
    path = tmp_path / "log"
    with path.open("w") as file:

        def written():
            file.flush()
            return path.read_bytes().decode()

        def begin():
            monkeypatch.setattr(sys, "stderr", file)
            return written

        yield begin


def test_on_a_terminal_a_bar_counts_epochs(terminal, monkeypatch):
    written = terminal()
    monkeypatch.setattr(progress, "LONG", 1e9)
    fit(val=X[:9])
    text = written()
    assert re.search(r"\|  0%\|.*\| 0/3 \[", text)
    assert re.search(r"\|100%\|.*\| 3/3 \[.*epoch.*loss \d\.\d\d, validation \d\.\d\d\]", text)
    assert "batch" not in text
    last = text.splitlines()[-1]
    assert re.fullmatch(
        r"3 of 3 epochs in \d+\.\d s, loss \d\.\d\d, validation \d\.\d\d nats per datum; "
        r"the weights are those of epoch \d",
        last,
    )


def test_on_a_terminal_a_long_epoch_has_a_bar_of_its_batches(terminal, monkeypatch):
    written = terminal()
    monkeypatch.setattr(progress, "LONG", 0.0)
    fit(epochs=2)
    text = written()
    for epoch in (1, 2):
        assert re.search(rf"epoch {epoch}: +\d+%\|.*\| \d/4 \[", text)
    assert re.fullmatch(LAST, text.splitlines()[-1])


def test_in_a_file_there_are_readable_lines(log, monkeypatch):
    written = log()
    fit(epochs=30)
    lines = written().splitlines()
    assert re.fullmatch(r"epoch 1 of 30: loss \d\.\d\d nats per datum", lines[0])
    assert len(lines) < 10, "one line every few seconds"
    monkeypatch.setattr(progress, "EVERY", 0.0)
    fit(epochs=3)
    text = written()
    assert "\r" not in text
    assert "\x1b" not in text
    lines = text.splitlines()[len(lines) :]
    assert [line.partition(":")[0] for line in lines[:-1]] == [f"epoch {epoch} of 3" for epoch in (1, 2, 3)]
    assert re.fullmatch(r"3 of 3 epochs in \d+\.\d s, loss \d\.\d\d nats per datum", lines[-1])


def test_in_a_file_a_very_long_epoch_says_where_it_is(log, monkeypatch):
    written = log()
    monkeypatch.setattr(progress, "LONG", 0.0)
    monkeypatch.setattr(progress, "REST", 0.0)
    fit(epochs=1)
    assert re.match(r"epoch 1: batch 1 of 4, loss \d\.\d\d nats per datum\nepoch 1: batch 2 of 4", written())


def test_the_last_line_says_why_a_run_ended(log):
    written = log()

    class Stop(Callback):
        def on_epoch_end(self, run):
            run.stop("enough")

    def fails(vae, epoch, history):
        raise KeyboardInterrupt

    fit(callbacks=[Stop()])
    assert written().splitlines()[-1].endswith("; stopped: enough")
    with pytest.raises(KeyboardInterrupt):
        fit(callbacks=[fails])
    assert re.fullmatch(r"1 of 3 epochs in .*; ended by KeyboardInterrupt", written().splitlines()[-1])


def test_compiling_is_said_before_it_happens(log, recorded):
    written = log()
    fit(epochs=2, compile=True)
    lines = written().splitlines()
    assert lines[0] == "compiling the step, about 10 s"
    assert "epoch" in lines[-1]


def test_no_progress_is_silence(log):
    written = log()
    fit(progress=False)
    assert written() == ""


@pytest.mark.parametrize("command", ["fit", "compare"])
def test_quiet_on_the_command_line(command, tmp_path, log):
    written = log()
    np.save(tmp_path / "x.npy", X.numpy())
    short = "--likelihood bernoulli --latent-dim 2 --hidden 4 --epochs 1 --num-samples 2 --no-compile --quiet"
    with pytest.raises(SystemExit) as ended:
        main(f"{command} {tmp_path / 'x.npy'} --out {tmp_path / 'run'} {short}".split())
    assert not ended.value.code
    assert written() == ""
    run = tmp_path / "run" / ("normal" if command == "compare" else "")
    assert "quiet" not in json.loads((run / "config.json").read_text())["fit"]
