"""What each process does for tests/test_processes.py; torchrun starts it: ``together.py FOLDER NAME ...``."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import save_file

import pyrovae as pv
from pyrovae import private
from pyrovae.processes import Processes

ROWS, BATCH, EPOCHS = 103, 20, 17  # six batches, the last of three rows: 102 steps


def data(rows: int = ROWS) -> torch.Tensor:
    return torch.bernoulli(torch.full((rows, 12), 0.4), generator=torch.Generator().manual_seed(1))


def make(prior: str = "laplace", guide: str | None = None, seed: int = 0) -> pv.VAE:
    torch.manual_seed(seed)
    return pv.build_vae((12,), 3, prior=prior, guide=guide, hidden=(8,), num_data=ROWS)


def fit(vae: pv.VAE, x: object = None, **options: object) -> dict[str, list[float]]:
    given = {"epochs": EPOCHS, "batch_size": BATCH, "seed": 3, "progress": False, "compile": False, **options}
    return pv.fit(vae, data() if x is None else x, optim=pv.optim.adam(1e-2), **given)


class StopHere(pv.train.Callback):
    """Stops the run in one process alone."""

    def __init__(self, rank: int, step: int) -> None:
        self.rank, self.step = rank, step

    def on_step_end(self, run: pv.train.Run) -> None:
        if run.processes.rank == self.rank and run.step == self.step:
            run.stop("enough")

    def state_dict(self) -> dict[str, object]:
        return {}


class StopEpoch(StopHere):
    def on_step_end(self, run: pv.train.Run) -> None: ...

    def on_epoch_end(self, run: pv.train.Run) -> None:
        if run.processes.rank == self.rank and run.epoch == self.step:
            run.stop("enough")


class Interrupt(pv.train.Callback):
    """Sends the process a SIGINT, as Ctrl-C does, after some step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, run: pv.train.Run) -> None:
        if run.step == self.step:
            os.kill(os.getpid(), signal.SIGINT)

    def state_dict(self) -> dict[str, object]:
        return {}


class Numbers(torch.utils.data.Dataset):
    """Rows by index, as a Dataset."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> torch.Tensor:
        return data()[index]


def main(name: str, folder: Path) -> None:
    processes = Processes.found(torch.device("cpu"))
    rank = processes.rank
    vae, history, out = make(seed=rank), {"train_loss": []}, {}
    if name == "plain":  # weights of the first process, a validation set of an odd number of rows
        history = fit(vae, val=data(41))
    elif name == "compiled":
        private.compiled_by_inductor = lambda module, inputs: module
        history = fit(vae, compile=True)
    elif name == "no-noise":
        vae = make("normal", "delta", seed=rank)
        history = fit(vae, val=data(41))
        other = make("normal", "delta", seed=rank)
        out = {"dataset": torch.tensor(fit(other, Numbers(), val=data(41))["train_loss"])}
    elif name == "shared":
        vae = make("beta-bernoulli", seed=rank)
        history = fit(vae, epochs=3)
    elif name == "stopped":
        history = fit(vae, callbacks=[StopHere(1, 8)])
        out = {"stopped-by-first": torch.tensor(fit(make(), callbacks=[StopEpoch(0, 2)])["train_loss"])}
    elif name == "resumed":
        out = {"loss-of-whole": torch.tensor(fit(make(), epochs=3)["train_loss"])}
        with suppress(KeyboardInterrupt):
            fit(make(), epochs=3, callbacks=[pv.train.Checkpoint(folder / "run"), Interrupt(8)])
        if rank == 0:
            shutil.copytree(folder / "run", folder / "half")
        history = fit(vae, epochs=3, callbacks=[Interrupt(99)], out=folder / "run", resume=True)
    elif name == "bad":
        messages = []
        for call in (
            lambda: fit(vae, [data()]),
            lambda: fit((vae.model, vae.guide)),
            lambda: fit(vae, batch_size=51),
            lambda: fit(vae, data().flip(0) if rank else data()),
            lambda: fit(vae, epochs=2 + rank),
            lambda: fit(vae, out=folder),
        ):
            try:
                call()
            except Exception as error:
                messages.append(f"{type(error).__name__}: {error}")
        (folder / f"bad-{rank}.txt").write_text("\n".join(messages))
    elif name == "nan":
        normal = [pv.build_vae((12,), 3, likelihood="normal", hidden=(8,)) for _ in range(2)]
        x = torch.cat([data()[:19], torch.full((1, 12), 3e38), data()[:80]])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            history = fit(normal[0], x, epochs=2, on_nan="skip")
        try:
            fit(normal[1], x, epochs=1)
        except FloatingPointError as error:
            (folder / f"nan-{rank}.txt").write_text(f"{caught[0].message}\n{error}")
        vae = normal[0]
    weights = {f"weights.{key}": value.contiguous() for key, value in vae.state_dict().items()}
    save_file({**weights, "loss": torch.tensor(history["train_loss"]), **out}, folder / f"{name}-{rank}.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for each in sys.argv[2:]:
        main(each, Path(sys.argv[1]))
