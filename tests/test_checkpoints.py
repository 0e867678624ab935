"""A run that was ended at any moment goes on from its folder, and ends as the run that was not ended, bit for bit."""

import csv
import json
import os
import random
import signal
import threading
from types import SimpleNamespace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import safetensors
import torch
from torch.utils.data import Dataset

import pyrovae as pv
from pyrovae.train import Callback, Checkpoint, checkpoints

X = torch.bernoulli(torch.full((50, 8), 0.3), generator=torch.Generator().manual_seed(0))


def build(seed=0, prior="normal", **options):
    torch.manual_seed(seed)
    return pv.build_vae((8,), 2, prior=prior, hidden=(6,), **options)


def fit(vae, data=X, epochs=3, **options):
    return pv.fit(vae, data, epochs, 16, **{"progress": False, "compile": False, "seed": 0, **options})


def equal(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def same(a, b):
    return str({**a, "seconds": 0}) == str({**b, "seconds": 0})


class Death(BaseException):
    """Ends a run without an answer, as SIGKILL does."""


class Dies(Callback):
    def __init__(self, at):
        self.at = at

    def on_step_end(self, run):
        if run.step == self.at:
            raise Death

    def load_state_dict(self, state):
        pass


def every(folder, resume=False):
    return Checkpoint(folder, every_steps=1, resume=resume)


def killed_and_resumed(make, train, folder, at):
    """The model and the history of a run that dies at step ``at``, and of the call that resumes it."""
    vae = make()
    with pytest.raises(Death):
        train(vae, [Dies(at), every(folder)])
    again = make(1)
    torch.manual_seed(99)
    return again, train(again, [Dies(-1), every(folder, resume=True)])


CASES = {
    "normal": {},
    "gates": {"prior": "spike-slab"},
    "shared": {"prior": "beta-bernoulli", "num_data": 50},
    "batch norm and dropout": {"norm": "batch", "dropout": 0.3},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("compiled", "at"), [(False, 1), (False, 2), (False, 4), (False, 5), (False, 11), (True, 2), (True, 9)]
)
def test_a_killed_run_equals_the_whole_one(case, at, compiled, tmp_path, recorded):
    def make(seed=0):
        return build(seed, **CASES[case])

    def train(vae, callbacks):
        optim = pv.optim.adam(pv.optim.cosine(0.05, 3))
        return fit(
            vae, optim=optim, loss=pv.ELBO(pv.warmup(2)), val=X[:9], patience=3, compile=compiled, callbacks=callbacks
        )

    whole = make()
    expected = train(whole, [Dies(-1)])
    again, history = killed_and_resumed(make, train, tmp_path / "run", at)
    assert same(history, expected)
    assert equal(again, whole)
    assert equal(pv.load(tmp_path / "run"), whole)


class Noisy(Dataset):
    """Draws from the random states of Python and NumPy."""

    def __len__(self):
        return 20

    def __getitem__(self, i):
        return X[i] * (random.random() < 0.9) * float(np.random.rand() < 0.9)  # noqa: NPY002  # the global state


def test_random_states_of_python_and_numpy_too(tmp_path):
    def train(vae, callbacks):
        return fit(vae, Noisy(), callbacks=callbacks)

    outside = random.getstate()
    expected = train(whole := build(), [Dies(-1)])
    assert random.getstate() == outside
    again, history = killed_and_resumed(build, train, tmp_path / "run", 3)
    assert same(history, expected)
    assert equal(again, whole)


def test_a_pair_of_functions_and_a_gan(tmp_path):
    def make(seed=0):
        def model(x):
            loc = pyro.param(f"{name}.loc", torch.zeros(8))
            with pyro.plate("rows", len(x)):
                pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

        return model, lambda x: None

    def train(pair, callbacks):
        return fit(pair, loss=pyro.infer.Trace_ELBO(), callbacks=callbacks)

    name = "whole"
    expected = train(make(), [Dies(-1)])
    name = "killed"
    with pytest.raises(Death):
        train(make(), [Dies(6), every(tmp_path / "pair")])
    del pyro.get_param_store()["killed.loc"]  # as in a new process
    history = train(make(), [Dies(-1), every(tmp_path / "pair", resume=True)])
    assert same(history, expected)
    assert torch.equal(pyro.param("killed.loc"), pyro.param("whole.loc"))

    def gan(seed=0):
        torch.manual_seed(seed)
        return pv.GAN(pv.priors.Normal(2), pv.nn.MLP(2, [4], 8), pv.nn.MLP(8, [4], 1))

    def play(model, callbacks):
        return fit(model, callbacks=callbacks, compile=None)

    expected = play(whole := gan(), [Dies(-1)])
    again, history = killed_and_resumed(gan, play, tmp_path / "gan", 6)
    assert same(history, expected)
    assert equal(again, whole)


def rows_of(folder):
    with (folder / "history.csv").open(newline="") as file:
        return [{name: float(text) for name, text in row.items()} for row in csv.DictReader(file)]


def test_the_folder_says_at_any_time_how_far_the_run_is(tmp_path):
    folder, seen = tmp_path / "deep" / "run", []

    class Looks(Callback):
        def on_epoch_start(self, run):
            assert (folder / "checkpoint.safetensors").exists()
            finished = json.loads((folder / "config.json").read_text())["training"]["finished"]
            seen.append((finished, len(rows_of(folder))))

    vae = build()
    history = fit(vae, out=folder, callbacks=[Looks()])
    assert seen == [(False, 0), (False, 1), (False, 2)]
    assert json.loads((folder / "config.json").read_text())["training"]["finished"]
    assert [row["train_loss"] for row in rows_of(folder)] == history["train_loss"]
    assert sorted(os.listdir(folder)) == ["checkpoint.safetensors", "config.json", "history.csv", "model.safetensors"]
    assert equal(pv.load(folder), vae)
    again, looks = build(1), Looks()
    assert str(fit(again, out=folder, callbacks=[looks], resume=True)) == str(history), (
        "a finished run is left as it is"
    )
    assert equal(again, vae)


def test_a_longer_run_goes_on_from_a_finished_one(tmp_path):
    expected = fit(whole := build(), epochs=5, val=X[:9])
    fit(build(), epochs=2, val=X[:9], out=tmp_path / "run")
    history = fit(again := build(1), epochs=5, val=X[:9], out=tmp_path / "run", resume=True)
    assert same(history, expected)
    assert equal(again, whole)


def test_a_run_that_stopped_early_stays_stopped(tmp_path):
    options = {"epochs": 100, "val": X[:9], "optim": pyro.optim.Adam({"lr": 0.3}), "patience": 2}
    history = fit(vae := build(), out=tmp_path / "run", **options)
    assert len(history["epoch"]) < 100
    again = build(1)
    assert (
        fit(again, out=tmp_path / "run", resume=True, **{**options, "optim": pyro.optim.Adam({"lr": 0.3})}) == history
    )
    assert equal(again, vae)


REFUSED = {  # what is given in the second call, and what is said to differ
    "model": ({"vae": "laplace"}, "another model"),
    "data": ({"data": X.flip(0)}, "another data"),
    "rows": ({"data": X[:40]}, "another data"),
    "validation": ({"val": X[:7]}, "another validation data"),
    "optimizer": ({"optim": pyro.optim.SGD({"lr": 1e-3})}, "another optimizer, Adam .*, and this call has SGD"),
    "learning rate": (
        {"optim": pyro.optim.Adam({"lr": 1e-2})},
        "another optimizer, .*0.001.*, and this call has .*0.01",
    ),
    "schedule": ({"optim": pv.optim.adam(pv.optim.cosine(0.05, 3))}, "another optimizer"),
    "loss": ({"loss": pv.ELBO(beta=2.0)}, "another loss"),
    "clip": ({"clip_norm": 1.0}, "another clip_norm"),
    "seed": ({"seed": None}, "seed: the state is of a run with a seed"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_run_of_another_call_is_refused_and_stays(what, tmp_path):
    changes, message = REFUSED[what]
    options = {"optim": pyro.optim.Adam({"lr": 1e-3})}
    fit(build(), val=X[:9], out=tmp_path / "run", **options)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    changes = {"val": X[:9], "optim": pyro.optim.Adam({"lr": 1e-3}), **changes}
    vae = build(prior=changes.pop("vae", "normal"))
    with pytest.raises(ValueError, match=message) as caught:
        fit(vae, changes.pop("data", X), out=tmp_path / "run", resume=True, **changes)
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_folders_that_are_not_for_this_run(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"out: '.*mine' exists: choose another folder, or resume=True"):
        fit(build(), out=tmp_path / "mine")
    assert os.listdir(tmp_path / "mine") == ["precious.txt"]
    with pytest.raises(ValueError, match="resume needs out="):
        fit(build(), resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/run' cannot be written: Not a directory"):
        fit(build(), out=tmp_path / "file" / "run")
    fit(build(), out=tmp_path / "run")
    (tmp_path / "run" / "checkpoint.safetensors").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"checkpoint.safetensors' cannot be resumed from: "):
        fit(build(), out=tmp_path / "run", resume=True)
    (tmp_path / "empty").mkdir()
    fit(build(), out=tmp_path / "empty")


@pytest.mark.parametrize("place", ["file", "file/run", "link"])
def test_a_place_that_can_be_no_folder_is_named(place, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OSError, match=f"^out: .*{place}") as caught:
        fit(build(), out=tmp_path / place)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "mine"


def test_one_writer(tmp_path):
    class Second(Callback):
        def on_step_end(self, run):
            if run.step == 2:
                thread = threading.Thread(target=self.go)
                thread.start()
                thread.join()

        def go(self):
            try:
                Checkpoint(tmp_path / "run", resume=True).opened(SimpleNamespace(processes=None), {}).__enter__()
            except BlockingIOError as error:
                self.said = str(error)

    second = Second()
    fit(build(), callbacks=[second], out=tmp_path / "run")
    assert second.said.endswith("run' is being written by another process: wait for its end, or choose another folder")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_step_and_loses_none(number, tmp_path):
    class Sends(Callback):
        def on_step_end(self, run):
            if run.step == 6:
                os.kill(os.getpid(), number)

        def load_state_dict(self, state):
            pass

    def train(vae, folder, callback, **options):
        return fit(vae, val=X[:9], out=folder, callbacks=[callback], **options)

    expected = train(whole := build(), tmp_path / "whole", Dies(-1))
    handler = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit) as caught:
        train(build(), tmp_path / "run", Sends())
    assert getattr(caught.value, "code", 143) == 143
    assert caught.value.history["epoch"] == [1]
    assert signal.getsignal(number) == handler
    state = checkpoints.read_state(tmp_path / "run" / "checkpoint.safetensors")["run"]
    assert (state["step"], state["step_in_epoch"]) == (6, 2)
    history = train(again := build(1), tmp_path / "run", Sends(), resume=True)
    assert same(history, expected)
    assert equal(again, whole)


def test_a_checkpoint_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch):
    def full(path, state):
        raise OSError(f"{str(path)!r} cannot be written: No space left on device")

    class Fills(Callback):
        def on_epoch_start(self, run):
            if run.epoch == 2:
                next(each for each in run.callbacks if isinstance(each, Checkpoint))._wait()  # for that of epoch 1
                monkeypatch.setattr(checkpoints, "write_state", full)

    with pytest.warns(UserWarning, match="no checkpoint was written, and the one before it stays: .*checkpoint.safet"):
        history = fit(build(), out=tmp_path / "run", callbacks=[Fills()])
    assert len(history["epoch"]) == 3
    monkeypatch.undo()
    state = checkpoints.read_state(tmp_path / "run" / "checkpoint.safetensors")["run"]
    assert state["history"]["epoch"] == [1]


def test_a_checkpoint_has_each_weight_once(tmp_path):
    """As the weight of the model and as the parameter of the trainer; Adam has two more numbers for it."""
    fit(vae := build(), out=tmp_path / "run")
    state = checkpoints.read_state(tmp_path / "run" / "checkpoint.safetensors")["run"]
    assert torch.equal(state["weights"]["likelihood.network.layers.0.weight"], vae.likelihood.network.layers[0].weight)
    with safetensors.safe_open(tmp_path / "run" / "checkpoint.safetensors", "pt") as file:
        sizes = [file.get_tensor(name).numel() for name in file.keys() if file.get_tensor(name).is_floating_point()]  # noqa: SIM118
    num_weights = sum(param.numel() for param in vae.parameters())
    assert 3 * num_weights <= sum(sizes) <= 3 * num_weights + 2 * len(vae.state_dict())


def test_what_is_asked_for_is_checked(tmp_path):
    with pytest.raises(ValueError, match="every_steps must be positive or None, got 0"):
        Checkpoint(tmp_path / "run", every_steps=0)
    with pytest.raises(ValueError, match=r"two Checkpoint are given, one of them perhaps by patience= or out="):
        fit(build(), out=tmp_path / "run", callbacks=[Checkpoint(tmp_path / "run")])
    assert os.listdir(tmp_path) == []
