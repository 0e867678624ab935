"""fit, and several VAEs in one process."""

import copy
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, RenyiELBO, ReweightedWakeSleep, Trace_ELBO, TraceMeanField_ELBO
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pyrovae as pv

X = torch.bernoulli(torch.full((50, 8), 0.3), generator=torch.Generator().manual_seed(0))


def build(prior="normal", seed=0, **options):
    torch.manual_seed(seed)
    return pv.build_vae((8,), 2, prior=prior, hidden=(6,), **options)


def fit(vae, data=X, epochs=3, **options):
    return pv.fit(vae, data, epochs=epochs, batch_size=16, progress=False, **options)


def equal(a, b):
    return all(torch.equal(value, b[name]) for name, value in a.items())


def test_history_is_that_of_pyros_own_loop():
    """In double, for one optimizer of all parameters rounds in another place than one for each."""
    vae, by_hand = build().double(), build().double()
    history = fit(vae, seed=7, loss=Trace_ELBO())
    svi = SVI(by_hand.model, by_hand.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    order = torch.Generator().manual_seed(7)
    torch.manual_seed(7)
    losses = []
    for _ in range(3):
        rows = torch.randperm(50, generator=order)
        losses.append(sum(svi.step(X.double()[index]) for index in rows.split(16)) / 50)
    np.testing.assert_allclose(history["train_loss"], losses, rtol=1e-12)
    torch.testing.assert_close(vae.state_dict(), by_hand.state_dict(), rtol=1e-12, atol=1e-14)
    assert history["epoch"] == [1, 2, 3]
    assert all(math.isnan(value) for value in history["val_loss"])
    assert history["seconds"] == sorted(history["seconds"])


def test_same_seed_same_numbers_and_torchs_state_is_left_alone():
    one, two, other = build(), build(), build()
    torch.manual_seed(123)
    state = torch.get_rng_state()
    first = fit(one, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    second = fit(two, seed=5)
    assert first["train_loss"] == second["train_loss"]
    assert equal(one.state_dict(), two.state_dict())
    assert fit(other, seed=6)["train_loss"] != first["train_loss"]


class Session:
    """One VAE with its SVI and its own stream of random numbers."""

    def __init__(self, vae):
        self.vae = vae
        self.svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
        torch.manual_seed(11)
        self.state = torch.get_rng_state()

    def step(self):
        torch.set_rng_state(self.state)
        loss = self.svi.step(X)
        self.state = torch.get_rng_state()
        return loss


def test_two_vaes_train_side_by_side_each_as_if_alone_and_a_third_after_load(tmp_path):
    priors = ("normal", "laplace")
    alone = []
    for prior in priors:
        session = Session(build(prior))
        alone.append([session.step() for _ in range(20)])
    one, two = (Session(build(prior)) for prior in priors)
    together = [(one.step(), two.step()) for _ in range(20)]
    assert [list(losses) for losses in zip(*together, strict=True)] == alone

    pv.save(one.vae, tmp_path)
    third, same = Session(pv.load(tmp_path)), Session(copy.deepcopy(one.vae))
    before = copy.deepcopy(one.vae.state_dict())
    assert [third.step() for _ in range(5)] == [same.step() for _ in range(5)]
    assert equal(one.vae.state_dict(), before), "the first stands still while the third trains"
    assert not equal(third.vae.state_dict(), before)


def test_evaluating_moves_no_weight_no_statistic_and_no_mode():
    vae = build()
    vae.likelihood.network.layers.insert(1, nn.BatchNorm1d(6))
    fit(vae)
    vae.posterior.eval()
    before, modes = copy.deepcopy(vae.state_dict()), [m.training for m in vae.modules()]
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1.0}), Trace_ELBO())
    pv.metrics.evaluate(vae, X, 50)
    assert torch.equal(vae.encode(X), vae.encode(X))
    assert torch.equal(vae.reconstruct(X), vae.decode(vae.encode(X)))
    assert vae.sample(3).shape == (3, 8)
    assert equal(vae.state_dict(), before)
    assert [m.training for m in vae.modules()] == modes
    with pv.vae.evaluating(vae):
        svi.evaluate_loss(X)
    assert equal(vae.state_dict(), before)
    assert all(p.grad is None or not p.grad.any() for p in vae.parameters())


def test_the_best_weights_by_validation_are_kept_and_patience_stops():
    """At a learning rate of 0.3 the validation loss soon rises again; under a Delta guide it is free of noise."""
    vae = build(guide="delta")
    history = fit(vae, epochs=100, val=X[:10], optim=pyro.optim.Adam({"lr": 0.3}), patience=4, seed=0)
    best = min(history["val_loss"])
    assert len(history["epoch"]) == history["val_loss"].index(best) + 1 + 4 < 100
    assert history["val_loss"][-1] > best
    assert Trace_ELBO().loss(vae.model, vae.guide, X[:10]) / 10 == pytest.approx(best, rel=1e-6)


def test_data_may_be_a_dataset_a_loader_or_a_data_set_of_ours():
    loader = DataLoader(TensorDataset(X, torch.arange(50)), batch_size=16)
    by_tensor = build()
    svi = SVI(by_tensor.model, by_tensor.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    torch.manual_seed(0)
    expected = sum(svi.step(batch) for batch, _ in loader) / 50
    assert fit(build(), loader, epochs=1, seed=0, loss=Trace_ELBO())["train_loss"] == [expected]
    assert len(fit(build(), TensorDataset(X), seed=0)["epoch"]) == 3
    history = fit(build(), pv.data.split("mine", X, seed=0), seed=0)
    assert all(map(math.isfinite, history["val_loss"]))
    vae = build(likelihood="normal").double()
    assert math.isfinite(fit(vae, X)["train_loss"][-1])  # float32 data, float64 weights


def test_two_plain_functions_are_trained_alike():
    network = nn.Linear(8, 2)

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=z.expand(-1, 8)).to_event(1), obs=x)

    def guide(x):
        pyro.module("a network by hand", network)
        with pyro.plate("data", len(x), dim=-1):
            loc, raw = network(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))

    history = fit((model, guide), epochs=30, optim=pyro.optim.Adam({"lr": 1e-2}), val=X, seed=0)
    assert history["train_loss"][-1] < history["train_loss"][0] - 0.05
    assert math.isfinite(history["val_loss"][-1])


def test_two_plain_functions_are_guarded_alike():
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.expand(-1, 8), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("code", dist.Normal(x[:, :1], 1.0).to_event(1))

    with pytest.raises(ValueError, match=r"the guide samples the sites \['code'\], the model \['z'\]"):
        fit((model, guide))


LOSSES = [TraceMeanField_ELBO(), RenyiELBO(), ReweightedWakeSleep(num_particles=2, vectorize_particles=False)]
OPTIMS = [pyro.optim.SGD({"lr": 1e-3}), pyro.optim.ClippedAdam({"lr": 1e-2}), pyro.optim.RMSprop({"lr": 1e-3})]


@pytest.mark.parametrize(("loss", "optim"), [*zip(LOSSES, OPTIMS, strict=True)])
def test_any_pyro_objective_and_optimizer(loss, optim):
    vae = build()
    before = copy.deepcopy(vae.state_dict())
    history = fit(vae, loss=loss, optim=optim, epochs=20)
    assert history["train_loss"][-1] < history["train_loss"][0]
    assert not any(torch.equal(value, before[name]) for name, value in vae.named_parameters())


def test_a_loss_that_becomes_nan_raises_and_the_weights_are_put_back():
    vae = build(likelihood="normal")
    fit(vae, torch.randn(50, 8), epochs=2)
    before = copy.deepcopy(vae.state_dict())
    for validation in (True, False):
        with (
            pytest.raises(
                FloatingPointError, match=r"epoch 1: step \d: the loss became NaN: site '[xz]'.*learning rate"
            ),
            pyro.validation_enabled(validation),
        ):
            fit(vae, torch.randn(50, 8), optim=pyro.optim.SGD({"lr": 1e18}), epochs=1)
        assert equal(vae.state_dict(), before)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "epochs must be a positive whole number, got 0", lambda: fit(build(), epochs=0)),
        (
            ValueError,
            "batch_size must be a positive whole number",
            lambda: pv.fit(build(), X, batch_size=0, progress=False),
        ),
        (ValueError, "patience must be at least 1, with validation data", lambda: fit(build(), patience=3)),
        (TypeError, "optim must be a pyro.optim", lambda: fit(build(), optim=torch.optim.SGD([X], lr=0.1))),
        (ValueError, "data has no rows", lambda: fit(build(), X[:0])),
        (ValueError, "binarise grey values, or use ContinuousBernoulli", lambda: fit(build(), X * 0.5)),
        (ValueError, "counts", lambda: fit(build(likelihood="poisson"), X - 2)),
        (ValueError, "index .0, 0.", lambda: fit(build(likelihood="normal"), X / 0)),
        (ValueError, "takes inputs of shape .8,., got", lambda: fit(build(), X[:, :5])),
        (ValueError, "binarise", lambda: fit(build(), DataLoader(TensorDataset(X * 0.5)))),
        (ValueError, "no batch", lambda: fit(build(), iter([X]))),
    ],
)
def test_bad_input_is_named_and_no_weight_moves(error, message, call):
    with pytest.raises(error, match=message):
        call()


def test_callbacks_see_each_epoch_in_eval_mode_and_change_nothing():
    seen = []

    def callback(vae, epoch, history):
        seen.append((epoch, len(history["epoch"]), vae.training, torch.is_grad_enabled()))
        torch.rand(3)

    numbers = []
    for callbacks in ((), (callback, callback)):
        vae = build()
        numbers.append(pv.fit(vae, X, epochs=3, callbacks=callbacks, seed=0, progress=False)["train_loss"])
    assert seen == [(epoch, epoch, False, False) for epoch in (1, 2, 3) for _ in range(2)]
    assert numbers[0] == numbers[1], "what a callback draws is not taken from the run"


def two_functions(named):
    """A linear decoder, which the model names or forgets."""
    decoder = torch.nn.Linear(2, 8)

    def model(x):
        if named:
            pyro.module("decoder", decoder)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", pyro.distributions.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", pyro.distributions.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.zeros(2))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", pyro.distributions.Normal(loc.expand(len(x), 2), 1.0).to_event(1))

    return decoder, (model, guide)


@pytest.mark.parametrize("loss", [pv.ELBO, Trace_ELBO])
def test_a_network_that_nobody_would_train_is_refused(loss):
    decoder, pair = two_functions(named=False)
    with pytest.raises(ValueError, match=r"shapes \(8, 2\), \(8,\) that ask for a gradient"):
        fit(pair, loss=loss())
    decoder, pair = two_functions(named=True)
    before = decoder.weight.clone()
    fit(pair, loss=loss())
    assert not torch.equal(decoder.weight, before)
    pyro.get_param_store().clear()
    decoder, pair = two_functions(named=False)
    decoder.requires_grad_(False)
    fit(pair, epochs=1)  # what is frozen may stay unnamed


@pytest.mark.parametrize("vae", [lambda x: x, (lambda x: x,), torch.nn.Linear(2, 2), None])
def test_what_is_no_vae_and_no_pair_is_refused(vae):
    with pytest.raises(TypeError, match="vae must be a VAE, or a pair"):
        fit(vae)


def test_a_pair_in_the_wrong_order_is_refused():
    _, (model, guide) = two_functions(named=True)
    with pytest.raises(ValueError, match="observes nothing"):
        fit((guide, model))
    with pytest.raises(ValueError, match="observes nothing"):
        pv.metrics.elbo((guide, model), X)


def test_a_compiled_run_has_the_history_of_one_that_is_not(recorded, capsys):
    histories, vaes = [], []
    for compile in (False, True):
        vaes.append(build())
        history = pv.fit(vaes[-1], X, epochs=5, batch_size=16, val=X[:9], seed=3, compile=compile, clip_norm=5.0)
        histories.append(history)
    for name in ("train_loss", "val_loss"):
        assert histories[1][name] == pytest.approx(histories[0][name], rel=1e-5)
    assert "compiling the step, about" in capsys.readouterr().err
    ours, theirs = (vae.state_dict() for vae in vaes)
    assert all(torch.allclose(value, theirs[name], atol=1e-5) for name, value in ours.items())
