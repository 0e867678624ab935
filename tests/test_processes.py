"""Processes of torchrun train one VAE together: equal weights, and those of one process with the whole batch."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyro
import pytest
import torch
from safetensors.torch import load_file
from together import BATCH, ROWS, Interrupt, data, fit, make
from torch import Tensor

import pyrovae as pv
from pyrovae.cli import main
from pyrovae.random_state import RandomState

NAMES = ("plain", "compiled", "no-noise", "shared", "stopped", "resumed", "nan", "bad")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def torchrun(*command: str | Path, **options: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*TORCHRUN, *map(str, command)], env=environment, text=True, stderr=subprocess.PIPE, **options
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The files that two processes wrote."""
    folder = tmp_path_factory.mktemp("together")
    process = torchrun(Path(__file__).with_name("together.py"), folder, *NAMES)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return folder


def results(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    first, second = (load_file(folder / f"{name}-{rank}.safetensors") for rank in range(2))
    return first, second


def weights(result: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.reshape(-1) for key, value in sorted(result.items()) if key.startswith("weights.")])


def weights_of(vae: pv.VAE) -> Tensor:
    return weights({f"weights.{key}": value for key, value in vae.state_dict().items()})


@pytest.mark.parametrize("name", [name for name in NAMES if name != "bad"])
def test_all_processes_end_with_equal_weights_and_losses(folder, name):
    first, second = results(folder, name)
    assert torch.equal(weights(first), weights(second))
    assert torch.equal(first["loss"], second["loss"])


def test_without_noise_the_weights_are_those_of_one_process_with_the_whole_batch(folder):
    vae = make("normal", "delta")
    history = fit(vae, val=data(41))
    result, _ = results(folder, "no-noise")
    assert len(result["loss"]) * 6 == 102  # steps
    torch.testing.assert_close(weights(result), weights_of(vae), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(result["loss"], torch.tensor(history["train_loss"]), rtol=1e-6, atol=0)


def test_with_noise_a_step_is_that_of_the_sum_of_the_shares(folder):
    """A loop by hand: the first process draws what one process would, the second what follows from epoch and step."""
    vae, elbo = make(), pv.ELBO()
    adam = torch.optim.Adam(vae.parameters(), lr=1e-2)
    random, losses = RandomState(3, torch.device("cpu")), []
    with random.in_place():
        for _ in range(17):
            start, total = random.state_dict(), 0.0
            for step, rows in enumerate(torch.randperm(ROWS, generator=random.order).split(BATCH)):
                half = len(rows) // 2
                total += float(elbo.loss_and_grads(vae.model, vae.guide, data()[rows[:half]]))
                state = random.state_dict()
                random.apart(start, 1, step)
                total += float(elbo.loss_and_grads(vae.model, vae.guide, data()[rows[half:]]))
                random.load_state_dict(state)
                adam.step()
                adam.zero_grad()
            losses.append(total / ROWS)
    result, _ = results(folder, "compiled")
    torch.testing.assert_close(result["loss"], torch.tensor(losses), rtol=2e-6, atol=0)
    torch.testing.assert_close(weights(result), weights_of(vae), rtol=1e-5, atol=1e-5)


def test_a_dataset_is_shared_as_a_tensor_is(folder):
    result, _ = results(folder, "no-noise")
    assert torch.equal(result["dataset"], result["loss"])


def test_a_callback_that_stops_in_one_process_stops_all_of_them(folder):
    for result in results(folder, "stopped"):
        assert len(result["loss"]) == 1  # step 8 is in the second epoch
        assert len(result["stopped-by-first"]) == 2


def test_a_run_is_resumed_with_the_same_numbers(folder):
    result, _ = results(folder, "resumed")
    assert torch.equal(result["loss"], result["loss-of-whole"])


def test_a_run_of_two_processes_is_resumed_by_one(folder, tmp_path):
    """Step 8 of 18 was the last: the losses of the second half of epoch 2 have other draws, and are of like size."""
    vae = make()
    history = fit(vae, epochs=3, callbacks=[Interrupt(99)], out=folder / "half", resume=True)
    result, _ = results(folder, "resumed")
    assert history["train_loss"][0] == pytest.approx(result["loss"][0].item(), rel=1e-6)
    torch.testing.assert_close(torch.tensor(history["train_loss"]), result["loss"], rtol=0.05, atol=0)


def test_a_loss_that_is_nan_in_one_process_is_an_error_of_all(folder):
    lines = [(folder / f"nan-{rank}.txt").read_text().splitlines() for rank in range(2)]
    assert all("epoch 1: 1 step was skipped" in skipped for skipped, _ in lines)
    assert sorted("another process became NaN" in error for _, error in lines) == [False, True]


def test_bad_input_is_one_line(folder):
    first, second = ((folder / f"bad-{rank}.txt").read_text().splitlines() for rank in range(2))
    expected = [
        "data comes in batches, which several processes cannot share: use a tensor or a Dataset",
        "vae must be a VAE where several processes train it, got tuple",
        "batch_size: the last batch of 103 rows in batches of 51 has 1, fewer than the 2 processes",
    ]
    for lines in (first, second):
        assert len(lines) == 6
        assert all(text in line for text, line in zip(expected, lines, strict=False))
    assert "process 1 differs from process 0 in its data" in second[3]
    assert "another process failed" in first[3]
    assert "process 1 differs from process 0 in its number of epochs, 3 and 2" in second[4]
    assert "exists: choose another folder" in first[5]
    assert "another process failed" in second[5]


def command(*options: str | Path) -> tuple[str | Path, ...]:
    return (
        "-m",
        "pyrovae",
        "fit",
        "digits",
        "--no-compile",
        "--epochs",
        "12",
        "--hidden",
        "8",
        "--num-samples",
        "1",
        *options,
    )


def test_a_killed_process_ends_the_run_with_one_line_and_a_checkpoint(tmp_path):
    out = tmp_path / "run"
    process = torchrun(*command("--out", out), stdout=subprocess.DEVNULL)
    while not (out / "history.csv").exists() or len((out / "history.csv").read_text().splitlines()) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ranks = {Path(f"/proc/{child}/environ").read_bytes().split(b"\0RANK=")[1][:1]: int(child) for child in children}
    os.kill(ranks[b"1"], signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    lines = [line for line in errors.splitlines() if line.startswith("pyrovae:")]
    assert lines == [
        "pyrovae: error: a process that trains the model ended, or cannot be reached: resume the run; the run in "
        f"{str(out)!r} goes on with --resume"
    ] or lines == ["pyrovae: error: a process that trains the model ended, or cannot be reached: resume the run"]
    epochs = len((out / "history.csv").read_text().splitlines())
    assert (out / "checkpoint.safetensors").exists()
    before = hashlib.sha256((out / "checkpoint.safetensors").read_bytes()).digest()
    pyro.clear_param_store()
    resumed = torchrun(*command("--out", out, "--resume"), stdout=subprocess.PIPE)
    output, _ = resumed.communicate(timeout=120)
    assert resumed.returncode == 0
    assert "in 2 processes" in output
    assert "run saved" in output
    assert len((out / "history.csv").read_text().splitlines()) == 13 > epochs
    assert hashlib.sha256((out / "checkpoint.safetensors").read_bytes()).digest() != before


def test_only_fit_runs_in_several_processes(monkeypatch, capsys):
    for name, value in (("TORCHELASTIC_RUN_ID", "run"), ("WORLD_SIZE", "2"), ("RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "runs/mine"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == ("pyrovae: error: torchrun starts fit; every other command runs in one process\n")
