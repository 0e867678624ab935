"""Callbacks, trainers, what ends a run early, and a run that goes on where another one was."""

import copy
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pyro
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import pyrovae as pv
from pyrovae.train import BestWeights, Callback, CallbackError, EarlyStopping, Progress

X = torch.bernoulli(torch.full((50, 8), 0.3), generator=torch.Generator().manual_seed(0))
STEPS = 4  # of an epoch in batches of 16


def build(seed=0, **options):
    torch.manual_seed(seed)
    return pv.build_vae((8,), 2, hidden=(6,), **options)


def fit(vae, data=X, epochs=3, **options):
    return pv.fit(vae, data, epochs, 16, **{"progress": False, "compile": False, **options})


def weights(vae):
    return copy.deepcopy(dict(vae.state_dict()))


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


class Recorder(Callback):
    """Every moment, with what the run says at that moment."""

    def __init__(self):
        self.seen, self.modes, self.error = [], set(), None

    def note(self, run, moment):
        self.seen.append((moment, run.epoch, run.step, run.step_in_epoch, len(run.history["epoch"])))
        self.modes.add((moment, run.vae.training))
        torch.rand(3)

    def on_fit_start(self, run):
        self.note(run, "fit start")

    def on_epoch_start(self, run):
        self.note(run, "epoch start")

    def on_step_end(self, run):
        self.note(run, "step end")
        assert math.isfinite(run.loss)
        assert run.epochs_done == pytest.approx(run.epoch - 1 + min(run.step_in_epoch * 16, 50) / 50)

    def on_epoch_end(self, run):
        self.note(run, "epoch end")
        assert run.epochs_done == run.epoch

    def on_fit_end(self, run):
        self.note(run, "fit end")

    def on_error(self, run, error):
        self.error = error


def test_the_moments_of_a_run_in_their_order():
    record, plain, vae = Recorder(), build(), build()
    history = fit(vae, epochs=2, seed=0, callbacks=[record])
    expected = [("fit start", 0, 0, 0, 0)]
    for epoch in (1, 2):
        before = (epoch - 1) * STEPS
        expected.append(("epoch start", epoch, before, 0, epoch - 1))
        expected += [("step end", epoch, before + k, k, epoch - 1) for k in range(1, STEPS + 1)]
        expected.append(("epoch end", epoch, before + STEPS, 0, epoch))
    assert record.seen == [*expected, ("fit end", 2, 2 * STEPS, 0, 2)]
    assert {mode for mode in record.modes if mode[1]} == {("step end", True)}
    assert record.error is None
    assert fit(plain, epochs=2, seed=0)["train_loss"] == history["train_loss"], "draws of a callback change no run"


class Counting:
    """A trainer of one's own: gradient steps of a mean, and the protocol."""

    def __init__(self, module, comparable=True):
        self.module, self.comparable, self.count = module, comparable, 0

    def step(self, x):
        self.count += 1
        loss = (x - self.module.mean).square().sum()
        (grad,) = torch.autograd.grad(loss, [self.module.mean])
        with torch.no_grad():
            self.module.mean -= 0.002 * grad
        return loss.item()

    def evaluate(self, x):
        return (x - self.module.mean).square().sum().item()

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(8))
        self.comparable = True

    def trainer(self, optim, loss, **options):
        assert options == {"compile": False, "clip_norm": 2.0, "precision": None}
        self.made = Counting(self, self.comparable)
        return self.made


def test_a_model_that_makes_its_trainer_is_trained_by_it():
    model = Mean()
    history = fit(model, X, 20, val=X, clip_norm=2.0, patience=20)
    assert model.made.count == 20 * STEPS
    torch.testing.assert_close(model.mean.detach(), X.mean(0), atol=0.05, rtol=0)
    best = min(history["val_loss"])
    assert (X - model.mean).square().sum().item() / 50 == pytest.approx(best, rel=1e-5)
    model = Mean()
    model.comparable = False
    with pytest.raises(ValueError, match="patience is not for a GAN"):
        fit(model, X, val=X, clip_norm=2.0, patience=2)
    with pytest.raises(ValueError, match=r"data has 2 tensors for each datum, and the trainer takes \(x\)"):
        fit(model, (X, X), clip_norm=2.0)


def test_a_trainer_is_all_that_the_protocol_says():
    vae = build()
    svi = pv.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), pv.ELBO(beta=0.5))
    gan = pv.GAN(pv.priors.Normal(2), pv.nn.MLP(2, [4], 8), pv.nn.MLP(8, [4], 1))
    for trainer, model in ((svi, vae), (gan.trainer(), gan)):
        start, at_start = weights(model), copy.deepcopy(trainer.state_dict())
        for _ in range(3):
            trainer.step(X)
        state, before = copy.deepcopy(trainer.state_dict()), weights(model)
        trainer.evaluate(X)
        assert equal(weights(model), before)
        losses = []
        for _ in range(2):
            model.load_state_dict(before)
            trainer.load_state_dict(copy.deepcopy(state))
            torch.manual_seed(1)
            losses.append(([trainer.step(X) for _ in range(3)], weights(model)))
        assert losses[0][0] == losses[1][0]
        assert equal(losses[0][1], losses[1][1])
        model.load_state_dict(start)
        trainer.load_state_dict(at_start)  # of before the first step
        assert trainer.state_dict() == at_start
    torch.manual_seed(0)
    bound = svi.evaluate(X)
    torch.manual_seed(0)
    assert bound == pytest.approx(pv.ELBO().loss(vae.model, vae.guide, X)), "the bound itself, without beta"


class Checkpoint(Callback):
    """Saves the state of a run at a step or at the end of an epoch, and loads the one that it is given."""

    def __init__(self, at=None, load=None):
        self.at, self.load, self.state = at, load, None

    def on_fit_start(self, run):
        if self.load is not None:
            run.load_state_dict(self.load)

    def on_step_end(self, run):
        if ("step", run.step) == self.at:
            self.state = run.state_dict()

    def on_epoch_end(self, run):
        if ("epoch", run.epoch) == self.at:
            self.state = run.state_dict()

    def state_dict(self):
        return {}


def noisy(x):
    return torch.bernoulli(0.9 * x)


@pytest.mark.parametrize("seed", [3, None])
@pytest.mark.parametrize("at", [("step", 1), ("step", 4), ("step", 6), ("epoch", 1), ("epoch", 3)])
@pytest.mark.parametrize("kind", ["tensor", "data", "dataset", "loader"])
def test_a_run_goes_on_where_another_one_was(at, seed, kind):
    """Bit for bit: dropout, order, transform, Adam's moments, beta, the learning rate, best weights and patience."""
    split = pv.data.split("mine", X, seed=0)
    val = None if kind == "data" else X[:9]
    data = {
        "tensor": X,
        "data": pv.data.Data("mine", X, X[:9], X[:9], transform=noisy) if kind == "data" else split,
        "dataset": TensorDataset(X),
        "loader": DataLoader(TensorDataset(X), 16, shuffle=True),
    }[kind]

    def run(vae, checkpoint, seed):
        optim = pv.optim.adam(pv.optim.cosine(0.05, 3))
        loss = pv.ELBO(pv.warmup(2))
        return fit(vae, data, 4, val=val, optim=optim, loss=loss, patience=3, seed=seed, callbacks=[checkpoint])

    vae = build(dropout=0.3)
    torch.manual_seed(11)
    checkpoint = Checkpoint(at)
    whole, after = run(vae, checkpoint, seed), weights(vae)
    draw = torch.rand(1)
    vae.load_state_dict(weights(build(1, dropout=0.3)))
    torch.manual_seed(12)
    again = run(vae, Checkpoint(load=checkpoint.state), seed)
    assert equal(weights(vae), after)
    assert {**again, "seconds": 0} == {**whole, "seconds": 0}
    assert again["seconds"] == sorted(again["seconds"])
    if seed is None:
        assert torch.rand(1) == draw, "torch's random state is that of the whole run"


def test_a_callable_object_keeps_its_state():
    health = [pv.metrics.HealthCheck(X) for _ in range(2)]
    checkpoint, vae = Checkpoint(("epoch", 2)), build()
    fit(vae, epochs=3, seed=0, callbacks=[health[0], checkpoint])
    fit(vae, epochs=3, seed=0, callbacks=[health[1], Checkpoint(load=checkpoint.state)])
    assert list(health[0].active) == [1, 2, 3]
    assert health[1].active == health[0].active


def test_a_state_of_another_run_is_refused():
    checkpoint, vae = Checkpoint(("epoch", 1)), build()
    fit(vae, seed=0, callbacks=[checkpoint])
    load = Checkpoint(load=checkpoint.state)
    with pytest.raises(
        CallbackError, match=r"callbacks: the state is of a run with .*, and this one has .*EarlyStopping"
    ):
        fit(vae, seed=0, val=X, patience=2, callbacks=[load])
    with pytest.raises(CallbackError, match=r"vae: the state is of a model with other parameters: .*likelihood"):
        fit(build(likelihood="normal"), seed=0, callbacks=[load])
    with pytest.raises(CallbackError, match="seed: the state is of a run with a seed"):
        fit(vae, callbacks=[load])


@pytest.mark.parametrize(("moment", "epochs", "steps"), [("on_step_end", 1, 6), ("on_epoch_end", 2, 8)])
def test_a_callback_stops_a_run(moment, epochs, steps):
    def stop(self, run):
        if run.step >= 6:
            run.stop("enough")

    record = Recorder()
    history = fit(build(), epochs=9, callbacks=[type("Stop", (Callback,), {moment: stop})(), record])
    assert len(history["epoch"]) == epochs
    assert record.seen[-1][:3] == ("fit end", 2, steps)


def test_best_weights_and_early_stopping_as_callbacks():
    best, vae = BestWeights(), build(guide="delta")
    optim = pyro.optim.Adam({"lr": 0.3})
    history = fit(vae, epochs=100, val=X[:10], optim=optim, seed=0, callbacks=[EarlyStopping(4), best])
    by_words = fit(build(guide="delta"), epochs=100, val=X[:10], optim=pyro.optim.Adam({"lr": 0.3}), seed=0, patience=4)
    assert {**history, "seconds": 0} == {**by_words, "seconds": 0}
    assert best.loss == min(history["val_loss"])
    assert history["epoch"][-1] == best.epoch + 4 < 100
    assert equal(weights(vae), best.weights)


def test_an_error_of_a_callback_names_it_and_undoes_nothing():
    vae, optim, found = build(), pyro.optim.Adam({"lr": 1e-2}), {}

    def fails(vae, epoch, history):
        if epoch == 2:
            found.update(weights(vae))
            torch.rand(3)
            raise KeyError("nothing here")

    record = Recorder()
    torch.manual_seed(5)
    expected = "callbacks: fails raised KeyError in on_epoch_end, epoch 2, step 8: 'nothing here'"
    with pytest.raises(CallbackError, match=expected) as caught:
        fit(vae, optim=optim, callbacks=[record, fails])
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.history["epoch"] == [1, 2]
    assert equal(weights(vae), found)
    assert {int(each.state_dict()["state"][0]["step"]) for each in optim.optim_objs.values()} == {8}
    assert record.error is caught.value
    draw = torch.rand(1)
    torch.manual_seed(5)
    fit(build(), epochs=2)  # build seeds
    torch.manual_seed(5)
    fit(vae, epochs=2)
    assert torch.rand(1) == draw, "what the callback drew is put back"


def test_an_error_of_a_callback_at_a_step_undoes_nothing():
    class Fails(Callback):
        def on_step_end(self, run):
            if run.step == 6:
                self.found = weights(run.vae)
                raise ValueError("at step 6")

    vae, fails = build(), Fails()
    with pytest.raises(
        CallbackError, match="Fails raised ValueError in on_step_end, epoch 2, step 6: at step 6"
    ) as caught:
        fit(vae, seed=0, callbacks=[fails])
    assert equal(weights(vae), fails.found)
    assert caught.value.history["epoch"] == [1]


def test_an_error_while_another_is_handled_is_a_warning():
    class Worse(Callback):
        def on_epoch_end(self, run):
            raise ValueError("first")

        def on_error(self, run, error):
            raise ValueError("second")

    with (
        pytest.warns(UserWarning, match=r"callback Worse, in on_error: ValueError.'second'"),
        pytest.raises(CallbackError, match="first"),
    ):
        fit(build(), callbacks=[Worse()])


@pytest.mark.parametrize("moment", ["on_step_end", "on_epoch_end"])
def test_ctrl_c_keeps_history_and_best_weights(moment):
    def stop(self, run):
        if run.epoch == 12:
            raise KeyboardInterrupt

    best, vae = BestWeights(), build(guide="delta")
    stops = type("Stops", (Callback,), {moment: stop})()
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(vae, epochs=100, val=X[:10], optim=pyro.optim.Adam({"lr": 0.3}), seed=0, callbacks=[best, stops])
    history = caught.value.history
    assert len(history["epoch"]) == (11 if moment == "on_step_end" else 12)
    assert best.loss == min(history["val_loss"]) < history["val_loss"][-1]
    assert equal(weights(vae), best.weights)


class Tape:
    """The weights, the moments of Adam and the random state, all of which an epoch that fails puts back."""

    def __init__(self, vae, optim):
        self.weights, self.random = weights(vae), torch.get_rng_state()
        self.optim = {p: copy.deepcopy(o.state_dict()) for p, o in optim.optim_objs.items()}

    def check(self, vae, optim):
        assert equal(weights(vae), self.weights)
        assert torch.equal(torch.get_rng_state(), self.random)
        assert optim.optim_objs.keys() == self.optim.keys()
        for param, state in self.optim.items():
            torch.testing.assert_close(optim.optim_objs[param].state_dict(), state, rtol=0, atol=0)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_epoch_that_fails_has_not_happened(trained, error):
    vae, optim = build(), pyro.optim.Adam({"lr": 1e-2})
    if trained:
        fit(vae, optim=optim)

    class Stream:
        def __iter__(self):
            yield from X.split(16)[:2]
            raise error("the file ends here")

    torch.manual_seed(3)
    tape = Tape(vae, optim)
    with pytest.raises(error, match="the file ends here"):
        fit(vae, Stream(), optim=optim)
    tape.check(vae, optim)


def in_mode(mode):
    def call():
        with mode():
            fit(build())

    return call


def frozen():
    fit(build().requires_grad_(False))


def on_two_devices():
    vae = build()
    vae.likelihood.to("meta")
    fit(vae)


def made_in_inference_mode():
    with torch.inference_mode():
        vae = build()
    fit(vae)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (in_mode(torch.no_grad), ValueError, "fit needs gradients: call it outside of torch.no_grad"),
        (in_mode(torch.inference_mode), ValueError, "fit needs gradients: .*inference_mode"),
        (made_in_inference_mode, ValueError, "vae was made within torch.inference_mode"),
        (frozen, ValueError, "vae has no parameter to train"),
        (on_two_devices, ValueError, "vae has parameters on cpu and meta"),
        (
            lambda: fit(build(), optim=torch.optim.Adam([X.clone().requires_grad_()])),
            TypeError,
            "optim must be a pyro.optim optimizer, such as pyrovae.optim.adam",
        ),
        (lambda: fit(build(), epochs=2.5), ValueError, "epochs must be a positive whole number, got 2.5"),
        (lambda: EarlyStopping(0), ValueError, "patience must be a positive whole number, got 0"),
        (lambda: fit(build(), callbacks=[EarlyStopping(3)]), ValueError, "patience must be .* with validation data"),
        (
            lambda: fit(build(), val=X, patience=2, callbacks=[EarlyStopping(3)]),
            ValueError,
            "two EarlyStopping are given, one of them perhaps by patience=",
        ),
        (lambda: fit(build(), callbacks=[Progress(), Progress()]), ValueError, "two Progress are given"),
        (lambda: fit(build(), callbacks=[3]), TypeError, "callbacks: 3 is neither a Callback nor a function"),
        (lambda: fit(build(), callbacks=[EarlyStopping]), TypeError, "callbacks: .* is a class: call it"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_two_fits_in_two_threads_give_what_each_gives_alone():
    def one(seed, vae):
        order = []
        callbacks = [lambda vae, epoch, _: order.append(epoch), pv.metrics.HealthCheck(X)]
        history = fit(vae, epochs=8, val=X[:9], seed=seed, callbacks=callbacks)
        assert order == list(range(1, 9))
        return {**history, "seconds": 0}, weights(vae)

    def tasks():
        return [(seed, build(prior=prior, dropout=0.2)) for seed, prior in enumerate(("normal", "laplace", "normal"))]

    alone = [one(*task) for task in tasks()]
    both = tasks()  # building draws from the random state that all threads share
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(one, *zip(*both, strict=True)))
    for (history, after), (other, other_after) in zip(alone, together, strict=True):
        assert history == other
        assert equal(after, other_after)
    assert alone[0][0] != alone[2][0]


def test_a_pair_in_a_thread_leaves_the_weights_of_others_alone():
    """Its best weights are put back at the end, and the parameters of another model are in the same store."""
    other = build(1)
    fit(other)

    def train_other(vae, epoch, history):
        if epoch == 3:
            with torch.no_grad():
                next(other.parameters()).fill_(7.0)

    vae = build()
    pair = (lambda x: vae.model(x), lambda x: vae.guide(x))
    fit(pair, val=X[:9], optim=pyro.optim.Adam({"lr": 1.0}), callbacks=[train_other])
    assert bool((next(other.parameters()) == 7.0).all())


def test_callbacks_do_not_hold_the_lock():
    """One run waits in a callback for an epoch of the other."""
    done = threading.Event()

    def wait(vae, epoch, history):
        assert done.wait(60)

    vaes = [build(seed) for seed in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(fit, vae, callbacks=[each])
            for vae, each in zip(vaes, (wait, lambda *_: done.set()), strict=True)
        ]
        assert [run.result()["epoch"] for run in runs] == [[1, 2, 3]] * 2


def test_best_weights_are_those_of_one_run():
    best, checkpoint = BestWeights(), Checkpoint(("epoch", 2))
    vae = build()
    fit(vae, val=X, seed=0, callbacks=[best, checkpoint])
    first = best.loss
    fit(vae, val=X, epochs=1, seed=0, optim=pyro.optim.SGD({"lr": 1e-9}), callbacks=[best])
    vae.load_state_dict(weights(build(1)))
    history = fit(vae, val=X, epochs=1, seed=0, callbacks=[best])
    assert best.loss == history["val_loss"][0] != first
    history = fit(vae, val=X, seed=0, callbacks=[best, Checkpoint(load=checkpoint.state)])
    assert best.loss == min(history["val_loss"]) == first, "a resumed run goes on with the best weights that it had"


def test_validation_data_that_end_are_named():
    with pytest.raises(ValueError, match="val gave no batch"):
        fit(build(), val=iter([X[:9]]))


class Stream(IterableDataset):
    def __iter__(self):
        return iter(X)


@pytest.mark.parametrize("data", [Stream(), DataLoader(Stream(), 16)])
def test_a_stream_of_torch_is_trained_on(data):
    history = fit(build(), data, epochs=2, val=DataLoader(Stream(), 16))
    assert all(map(math.isfinite, history["train_loss"] + history["val_loss"]))
