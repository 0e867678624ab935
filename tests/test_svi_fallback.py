"""What cannot be compiled runs as it is, with a warning that says why; what changes is noticed; what is NaN raises."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import nn
from torch._inductor import config as inductor

import pyrovae as pv

DIM, ROWS = 6, 10


@pytest.fixture(autouse=True)
def _own_store():
    with pyro.get_param_store().scope():
        yield


X = torch.linspace(-1, 2, ROWS * DIM).reshape(ROWS, DIM)


def guide(x):
    loc = pyro.param("loc", torch.zeros(DIM))
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))


def model_of(likelihood):
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(DIM), 1.0).to_event(1))
            pyro.sample("x", likelihood(x, z), obs=x)

    return model


def branches(x, z):
    return dist.Normal(z, 1.0 if x.mean() > 100 else 2.0).to_event(1)


def counts(x, z):
    return dist.Normal(z, 1.0 + int((x > 0).sum())).to_event(1)


def lists(x, z):
    return dist.Normal(z, torch.tensor(x.abs().mean(0).tolist())).to_event(1)


def arrays(x, z):
    return dist.Normal(z, float(x.numpy().std())).to_event(1)


def drawing(x, z):
    return dist.Normal(z, 1.0 + random.random()).to_event(1)


def shapes(x, z):
    return dist.Normal(z, 1.0 + len(x[x > 0.5])).to_event(1)


VALUE = r"Python reads the value of a tensor, in test_svi_fallback.py line \d+: return dist.Normal\(z, "
WHY = {
    branches: VALUE + "1.0 if",
    counts: VALUE + r"1.0 \+ int",
    lists: VALUE + r"torch.tensor",
    arrays: VALUE + r"float\(x.numpy",
    shapes: VALUE + r"1.0 \+ len",
    drawing: r"it can read what cannot be followed: random \(a module whose results vary\)",
}


def run(cls, model, steps=8, seed=0, objective=pv.ELBO, batch=X, long=True, **options):
    random.seed(0)
    with pyro.get_param_store().scope():
        torch.manual_seed(seed)
        svi = cls(model, guide, pyro.optim.Adam({"lr": 0.05}), objective(), **options)
        svi.expected_calls = {"step": 1e9} if long else {}
        return [svi.step(batch) for _ in range(steps)], svi


@pytest.mark.parametrize("likelihood", WHY, ids=lambda f: f.__name__)
def test_a_step_that_depends_on_values_runs_as_it_is_and_says_why(recorded, likelihood):
    model = model_of(likelihood)
    with pytest.warns(
        UserWarning, match="pv.SVI: the step runs without compilation from here on: " + WHY[likelihood]
    ) as got:
        losses, svi = run(pv.SVI, model)
    assert len(got) == 1
    assert svi.compilations == 0
    assert losses == pytest.approx(run(pyro.infer.SVI, model)[0], rel=1e-6)


@pytest.mark.parametrize("likelihood", [f for f in WHY if f is not drawing], ids=lambda f: f.__name__)
def test_compile_true_insists(recorded, likelihood):
    with pytest.raises(RuntimeError, match="compile=True, but the step cannot be compiled: " + WHY[likelihood]):
        run(pv.SVI, model_of(likelihood), compile=True)


def test_compile_true_takes_the_word_of_the_user(recorded):
    with pytest.warns(UserWarning, match=r"takes your word that these do not change .* random") as got:
        _, svi = run(pv.SVI, model_of(drawing), compile=True)
    assert len(got) == 1
    assert svi.compilations == 1


def test_without_a_compiler_it_runs_as_it_is():
    none = {"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True, "compile_threads": 1}
    plain = model_of(lambda x, z: dist.Normal(z * 1.2345, 1.0).to_event(1))
    with inductor.patch(none):
        with pytest.warns(UserWarning, match="from here on: the compiler failed: ") as got:
            losses, _ = run(pv.SVI, plain)
        with pytest.raises(RuntimeError, match="compile=True, but the step cannot be compiled: the compiler failed"):
            run(pv.SVI, plain, compile=True)
    assert len(got) == 1
    assert losses == pytest.approx(run(pyro.infer.SVI, plain)[0], rel=1e-6)


def steps(svi, number):
    return [svi.step(X) for _ in range(number)]


def normal(x, z):
    return dist.Normal(z, 1.0).to_event(1)


def compiled_as(monkeypatch, change):
    """The compiler's code is that of a graph, with a change to each run of it."""

    def wrong(module, inputs):
        return lambda *tensors: change(module, tensors)

    monkeypatch.setattr("pyrovae.private.compiled_by_inductor", wrong)


def test_code_that_gives_another_loss_is_refused(monkeypatch):
    compiled_as(monkeypatch, lambda module, tensors: [1.01 * value for value in module(*tensors)])
    with pytest.raises(RuntimeError, match=r"compiled it gives [\d.]+ where it should be [\d.]+"):
        run(pv.SVI, model_of(normal), compile=True)
    with pytest.warns(UserWarning, match=r"compiled it gives [\d.]+ where it should be [\d.]+"):
        losses, svi = run(pv.SVI, model_of(normal))
    assert svi.compilations == 0
    assert losses == pytest.approx(run(pyro.infer.SVI, model_of(normal))[0], rel=1e-6)


@pytest.mark.parametrize("lr", [0.05, 1e-8])
def test_code_that_moves_nothing_is_refused(monkeypatch, lr):
    compiled_as(monkeypatch, lambda module, tensors: module(*(x.clone() for x in tensors)))
    svi = pv.SVI(model_of(normal), guide, pyro.optim.Adam({"lr": lr}), pv.ELBO())
    svi.expected_calls = {"step": 1e9}
    with pytest.warns(UserWarning, match="compiled it gives a displacement of"):
        steps(svi, 8)
    assert svi.compilations == 0


def test_code_that_moves_the_parameters_another_way_is_refused(monkeypatch):
    def wrong(module, tensors):
        before = [x.clone() for x in tensors]
        results = module(*tensors)
        for x, old in zip(tensors, before, strict=True):
            if x.shape == (DIM,) and x.requires_grad is False and not torch.equal(x, old):
                x.copy_(old - (x - old))
        return results

    compiled_as(monkeypatch, wrong)
    with pytest.raises(RuntimeError, match="compiled it gives a"):
        run(pv.SVI, model_of(normal), compile=True)


def changing(recorded, network):
    """The losses of steps before each of which a number of the network is another one."""

    def model(x):
        pyro.module("network", network)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(DIM), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(network.factor * network(z), 1.0).to_event(1), obs=x)

    start = {name: value.clone() for name, value in network.state_dict().items()}

    def steps(cls, repeats, **options):
        network.load_state_dict(start)
        with pyro.get_param_store().scope():
            torch.manual_seed(0)
            svi = cls(model, guide, pyro.optim.SGD({"lr": 1e-4}), pv.ELBO(), **options)
            svi.expected_calls = {"step": 1e9}
            losses = []
            for step in range(16 * repeats):
                network.factor = 1.0 + 0.1 * (step // repeats)
                losses.append(svi.step(X))
            return losses, svi

    return steps


def test_a_number_that_changes_at_each_step_costs_no_compilation(recorded):
    steps = changing(recorded, nn.Linear(DIM, DIM))
    expected, _ = steps(pyro.infer.SVI, 1)
    with pytest.warns(UserWarning, match=r"factor changes from call to call; .* name it in ignore"):
        got, svi = steps(pv.SVI, 1)
    assert svi.compilations == 0
    assert got == pytest.approx(expected, rel=1e-6)


def test_a_number_that_changes_now_and_then_is_compiled_eight_times_at_most(recorded, monkeypatch):
    monkeypatch.setattr("pyrovae.infer.calls.BRIEF", 0)  # however soon it changes
    steps = changing(recorded, nn.Linear(DIM, DIM))
    expected, _ = steps(pyro.infer.SVI, 5)
    with pytest.warns(UserWarning, match="8 different steps were compiled, and this is one more"):
        got, svi = steps(pv.SVI, 5)
    assert svi.compilations == 8
    assert got == pytest.approx(expected, rel=1e-5)


def test_an_argument_that_may_change_unseen_is_not_compiled(recorded):
    def model(x, numbers):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(DIM), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, float(numbers[0])).to_event(1), obs=x)

    svi = pv.SVI(model, lambda x, _: guide(x), pyro.optim.SGD({"lr": 0.0}), pv.ELBO())
    svi.expected_calls = {"step": 1e9}
    with pytest.warns(UserWarning, match="it is called with a ndarray, which is neither a tensor nor a plain value"):
        narrow = [svi.step(X, np.array([0.1])) for _ in range(6)]
    wide = [svi.step(X, np.array([10.0])) for _ in range(4)]
    assert min(narrow) > 3 * max(wide)


def test_inside_a_handler_of_pyro_it_runs_as_it_is(recorded):
    plain = model_of(lambda x, z: dist.Normal(z, 1.0).to_event(1))
    svi = pv.SVI(plain, guide, pyro.optim.SGD({"lr": 0.0}), Trace_ELBO(), compile=True)
    for _ in range(4):
        svi.step(X)
    torch.manual_seed(3)
    whole = svi.step(X)
    torch.manual_seed(3)
    with poutine.scale(scale=0.5), pytest.warns(UserWarning, match="it is called inside a handler of Pyro"):
        half = svi.step(X)
    assert half == pytest.approx(0.5 * whole, rel=1e-6)


def test_a_short_run_is_not_compiled_and_a_long_one_is(recorded, monkeypatch):
    plain = model_of(lambda x, z: dist.Normal(z, 1.0).to_event(1))
    assert run(pv.SVI, plain, steps=20, long=False)[1].compilations == 0  # far less than ten seconds
    assert run(pv.SVI, plain, steps=20, compile=False)[1].compilations == 0
    torch.manual_seed(0)
    svi = pv.SVI(plain, guide, pyro.optim.SGD({"lr": 1e-3}), pv.ELBO())
    svi.expected_calls = {"step": 10**7}
    for _ in range(8):
        svi.step(X)
    assert svi.compilations == 1
    assert svi.expected_calls == {"step": 10**7 - 8}
    monkeypatch.setattr("pyrovae.compilation.timings.SECONDS", 0.01)
    monkeypatch.setattr("pyrovae.compilation.timings.RUNS", 0)
    assert run(pv.SVI, plain, steps=60, long=False)[1].compilations == 1  # they have lasted that long by then


@pytest.mark.parametrize("compile", [True, False])
def test_data_outside_of_the_support_raise_at_any_step_and_move_nothing(recorded, compile):
    svi = pv.SVI(
        model_of(lambda x, z: dist.Bernoulli(logits=z).to_event(1)),
        guide,
        pyro.optim.Adam({"lr": 0.05}),
        pv.ELBO(),
        compile=compile,
    )
    for _ in range(8):
        svi.step((X > 0).float())
    assert svi.compilations == compile
    before = pyro.param("loc").detach().clone()
    with pytest.raises(ValueError, match="Expected value argument"):
        svi.step(X)  # no zeros and ones
    assert torch.equal(pyro.param("loc"), before)
    svi.step((X > 0).float())


@pytest.mark.parametrize("objective", [pv.ELBO, Trace_ELBO])
@pytest.mark.parametrize("compile", [True, False])
def test_a_nan_raises_and_leaves_the_parameters(recorded, compile, objective):
    svi = pv.SVI(model_of(normal), guide, pyro.optim.Adam({"lr": 0.05}), objective(), compile=compile)
    for _ in range(5):
        svi.step(X)
    before = pyro.param("loc").detach().clone()
    bad = X.clone()
    bad[3, 2] = torch.nan
    with (
        warnings.catch_warnings(action="ignore"),  # of Pyro's objective
        pyro.validation_enabled(False),
        pytest.raises(FloatingPointError, match=r"step 6: .*the loss became NaN"),
    ):
        svi.step(bad)
    assert torch.equal(pyro.param("loc"), before)
    svi.step(X)
    assert torch.isfinite(pyro.param("loc")).all()


def test_a_number_that_changes_at_each_step_is_told_of_once(recorded, monkeypatch):
    monkeypatch.setattr("pyrovae.infer.svi.MANY", 5)

    def model(x, scale):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(DIM), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, scale).to_event(1), obs=x)

    def run(cls, **options):
        pyro.clear_param_store()
        svi = cls(model, lambda x, scale: guide(x), pyro.optim.Adam({"lr": 0.1}), pv.ELBO(), **options)
        torch.manual_seed(0)
        return [svi.step(X, 1 + 0.1 * step) for step in range(12)], svi

    expected, _ = run(pyro.infer.SVI)
    with pytest.warns(UserWarning, match="5 different shapes or values .* can be given as a tensor") as told:
        got, svi = run(pv.SVI)
    assert len(told) == 1
    assert len(svi._state.calls) <= 6
    assert got == pytest.approx(expected, rel=1e-5)
    assert run(pv.SVI, compile=False)[0] == pytest.approx(expected, rel=1e-5)
    with pytest.raises(RuntimeError, match="compile=True, but the step cannot be compiled: it was called with 5"):
        run(pv.SVI, compile=True)
