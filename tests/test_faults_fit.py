"""Losses and weights that become NaN, infinite or absurd: what fit does by ``on_nan``."""

import copy
import math
import warnings

import pyro
import pytest
import torch
from torch import nn

import pyrovae as pv
from pyrovae.train import checkpoints

X = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))


def build(**options):
    torch.manual_seed(0)
    return pv.build_vae((6,), 2, likelihood="normal", hidden=(16,), **options)


def fit(vae, data=X, epochs=2, batch=16, **options):
    return pv.fit(vae, data, epochs, batch, **{"progress": False, "compile": False, "seed": 0, **options})


def weights(vae):
    return copy.deepcopy(vae.state_dict())


def equal(a, b):
    return all(torch.equal(value, b[name]) for name, value in a.items())


def test_infinite_weights_after_the_last_step_are_an_error():
    vae = build()
    before = weights(vae)
    message = r"epoch 1: step 1: parameter .* became (NaN|infinite); the weights are put back to the epoch's start"
    with pytest.raises(FloatingPointError, match=message):
        fit(vae, epochs=1, batch=64, optim=pyro.optim.SGD({"lr": 1e38}))
    assert equal(weights(vae), before)


class Huge(nn.Module):
    """A trainer of its own, whose loss is absurd at one step, after the step."""

    def __init__(self, at=3, loss=1e34):
        super().__init__()
        self.mean, self.at, self.loss, self.count = nn.Parameter(torch.zeros(6)), at, loss, 0

    def trainer(self, optim, loss, **options):
        return self

    def step(self, x):
        self.count += 1
        with torch.no_grad():
            self.mean += 1
        return self.loss if self.count == self.at else 1.0

    def evaluate(self, x):
        return 1.0

    def state_dict(self, *args, **kwargs):
        return super().state_dict(*args, **kwargs) if args or kwargs else {"count": self.count}

    def load_state_dict(self, state, *args, **kwargs):
        pass


@pytest.mark.parametrize("loss", [1e34, math.inf, -1e34])
def test_an_absurd_loss_is_an_error(loss):
    with pytest.raises(FloatingPointError, match=r"epoch 1: step 3: the loss became .* nats per datum"):
        fit(Huge(loss=loss))


class Overflows(nn.Module):
    """An encoder whose output is NaN for one row."""

    def __init__(self):
        super().__init__()
        self.layer, self.out_features = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8)), 8

    def forward(self, x):
        y = self.layer(x)
        return torch.where((x == X[20]).all(-1, keepdim=True), torch.nan, y)


def overflowing():
    torch.manual_seed(0)
    likelihood = pv.likelihoods.Normal(pv.nn.MLP(2, [4], 6))
    return pv.VAE(pv.priors.Normal(2), likelihood, pv.guides.Normal(Overflows(), 2))


def test_raise_names_step_site_and_parameter_and_keeps_the_checkpoint(tmp_path):
    with pytest.raises(FloatingPointError, match=r"epoch 1: step \d: .*site 'z' of the guide: loc of Normal is NaN in"):
        fit(overflowing(), out=tmp_path / "run")
    state = checkpoints.read_state(tmp_path / "run" / "checkpoint.safetensors")["run"]
    assert state["step"] == 0


def test_skip_leaves_the_step_out():
    vae = overflowing()
    with pytest.warns(UserWarning, match=r"epoch \d: 1 step was skipped, the first because of step \d: .*site 'z'"):
        history = fit(vae, on_nan="skip")
    assert all(map(math.isfinite, history["train_loss"]))
    assert all(bool(x.isfinite().all()) for x in vae.state_dict().values())
    assert int(vae.state_dict()["posterior.network.layer.1.num_batches_tracked"]) == 6, "three steps of four"
    with pytest.raises(FloatingPointError, match=r"all 1 step was skipped, the first because of step 1: .*site 'z'"):
        fit(overflowing(), batch=64, on_nan="skip")


def test_skip_undoes_a_step_that_made_the_weights_infinite():
    vae = build()
    before = weights(vae)
    with pytest.raises(FloatingPointError, match=r"all 1 step was skipped, .*became (NaN|infinite)"):
        fit(vae, epochs=1, batch=64, optim=pyro.optim.SGD({"lr": 1e38}), on_nan="skip")
    assert equal(weights(vae), before)


OPTIMS = {
    "plain": lambda: pyro.optim.SGD({"lr": 0.3}),
    "by name": lambda: pyro.optim.SGD(lambda name: {"lr": 0.3}),
    "scheduled": lambda: pv.optim.by_name("sgd", pv.optim.cosine(0.3, 3), 1),
    "pyro's scheduler": lambda: pyro.optim.ExponentialLR(
        {"optimizer": torch.optim.SGD, "optim_args": {"lr": 0.3}, "gamma": 0.9}
    ),
}


@pytest.mark.parametrize("kind", OPTIMS)
def test_rollback_lowers_the_learning_rate_until_it_works(kind):
    with pytest.raises(FloatingPointError):
        fit(build(), epochs=3, optim=OPTIMS[kind]())
    vae = build()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        history = fit(vae, epochs=3, optim=OPTIMS[kind](), on_nan="rollback")
    assert "on_nan='rollback' tries again with 0.1 times the learning rate" in str(told[0].message)
    assert history["epoch"] == [1, 2, 3]
    assert all(map(math.isfinite, history["train_loss"]))


def test_rollback_ends_and_is_for_svi():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with pytest.raises(FloatingPointError, match="site 'z'"):
            fit(overflowing(), on_nan="rollback")
    assert len(told) == 5
    with pytest.raises(ValueError, match="on_nan='rollback' is not for a model with a trainer of its own"):
        fit(Huge(), on_nan="rollback")
    with pytest.raises(ValueError, match="on_nan must be one of raise, skip, rollback, got 'ignore'"):
        fit(build(), on_nan="ignore")


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("kind", OPTIMS)
def test_rollback_goes_further_back_where_the_epochs_start_has_diverged(kind, validated, tmp_path):
    # one step is an epoch: the weights are beyond repair some epochs before the loss is absurd
    vae = build()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        val = X[:20] if validated else None
        history = fit(vae, epochs=6, batch=64, val=val, optim=OPTIMS[kind](), on_nan="rollback", out=tmp_path / "run")
    assert any("tries again from the start of epoch" in str(each.message) for each in told)
    assert history["epoch"] == [1, 2, 3, 4, 5, 6]
    assert max(history["train_loss"]) < 100
    assert history["seconds"] == sorted(history["seconds"])
    rows = (tmp_path / "run" / "history.csv").read_text().splitlines()[1:]
    assert [float(row.split(",")[1]) for row in rows] == history["train_loss"]
    state = checkpoints.read_state(tmp_path / "run" / "checkpoint.safetensors")["run"]
    assert state["history"]["train_loss"] == history["train_loss"]
    assert state["rate"] < 0.5
