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
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate
from torch import nn
from torch._inductor import config as inductor

import pyrovae as pv
from pyrovae.compilation import Program, Uncapturable

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
    return dist.Normal(z + x[x > 0.5].mean(), 1.0).to_event(1)


WHY = {
    branches: r"Python reads the value of a tensor, in test_svi_fallback.py line \d+: return dist.Normal\(z, 1.0 if",
    counts: r"Python reads the value of a tensor, in test_svi_fallback.py line \d+: return dist.Normal\(z, 1.0 \+ int",
    lists: r"Python reads the values of a tensor, by its tolist",
    arrays: r"Python reads the values of a tensor, by its numpy",
    drawing: r"two runs did not do the same",
}


def run(cls, model, steps=8, seed=0, objective=pv.ELBO, batch=X, **options):
    random.seed(0)
    with pyro.get_param_store().scope():
        torch.manual_seed(seed)
        svi = cls(model, guide, pyro.optim.Adam({"lr": 0.05}), objective(), **options)
        return [svi.step(batch) for _ in range(steps)], svi


@pytest.mark.parametrize("likelihood", WHY, ids=lambda f: f.__name__)
def test_what_is_not_up_to_tensors_runs_as_it_is_and_says_why(recorded, likelihood, monkeypatch):
    monkeypatch.setattr("pyrovae.compilation.timings.SECONDS", 0.0)
    monkeypatch.setattr("pyrovae.compilation.timings.RUNS", 0)
    model = model_of(likelihood)
    with pytest.warns(
        UserWarning, match=r"pv.SVI: step runs without compilation from here on: " + WHY[likelihood]
    ) as got:
        losses, svi = run(pv.SVI, model)
    assert len(got) == 1
    assert svi.compilations == 0
    if likelihood is not drawing:  # of which each call is another model
        assert losses == pytest.approx(run(pyro.infer.SVI, model)[0], rel=1e-6)


@pytest.mark.parametrize("likelihood", WHY, ids=lambda f: f.__name__)
def test_compile_true_insists(recorded, likelihood):
    with pytest.raises(RuntimeError, match=r"compile=True, but step cannot be compiled: " + WHY[likelihood]):
        run(pv.SVI, model_of(likelihood), compile=True)


def test_shapes_that_depend_on_data_run_as_they_are(monkeypatch):
    monkeypatch.setattr("pyrovae.compilation.timings.SECONDS", 0.0)
    monkeypatch.setattr("pyrovae.compilation.timings.RUNS", 0)
    with pytest.warns(UserWarning, match="step runs without compilation from here on"):
        losses, _ = run(pv.SVI, model_of(shapes))
    assert losses == pytest.approx(run(pyro.infer.SVI, model_of(shapes))[0], rel=1e-6)


def test_without_a_compiler_it_runs_as_it_is(monkeypatch):
    monkeypatch.setattr("pyrovae.compilation.timings.SECONDS", 0.0)
    monkeypatch.setattr("pyrovae.compilation.timings.RUNS", 0)
    none = {"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True, "compile_threads": 1}
    plain = model_of(lambda x, z: dist.Normal(z * 1.2345, 1.0).to_event(1))
    with inductor.patch(none):
        with pytest.warns(UserWarning, match="from here on: it cannot be compiled here: ") as got:
            losses, _ = run(pv.SVI, plain)
        with pytest.raises(RuntimeError, match="compile=True, but step cannot be compiled"):
            run(pv.SVI, plain, compile=True)
    assert len(got) == 1
    assert losses == pytest.approx(run(pyro.infer.SVI, plain)[0], rel=1e-6)


def test_code_that_gives_other_numbers_is_refused(monkeypatch):
    def wrong(self, graph):
        return lambda *tensors: [1.01 * value for value in graph.module(*tensors)]

    monkeypatch.setattr(Program, "_compile", wrong)
    with pytest.raises(RuntimeError, match=r"compiled it gives [\d.]+ where it gives [\d.]+ at the same draws"):
        run(pv.SVI, model_of(lambda x, z: dist.Normal(z, 1.0).to_event(1)), compile=True)


def test_a_site_that_comes_later_is_noticed(recorded):
    calls, more = np.zeros(1), np.zeros(1)  # what is in an array is not followed

    def model(x):
        calls[0] += 1
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(DIM), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)
            if more[0]:
                pyro.sample("y", dist.Normal(z, 0.1).to_event(1), obs=x)

    svi = pv.SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), pv.ELBO(), compile=True)
    first = [svi.step(X) for _ in range(6)]
    seen = calls[0]
    [svi.step(X) for _ in range(6)]
    assert calls[0] == seen  # Python does not run any more
    more[0] = 1
    program = next(iter(svi._calls.values())).compiled[0].program
    program._next_look = 0.0
    with pytest.warns(UserWarning, match="what the model and the guide do in step has changed: compiling it anew"):
        later = svi.step(X)
    assert later > 10 * max(first)
    assert svi.compilations == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svi.step(X)


def test_it_is_looked_at_ever_more_seldom(recorded):
    svi = pv.SVI(
        model_of(lambda x, z: dist.Normal(z, 1.0).to_event(1)),
        guide,
        pyro.optim.SGD({"lr": 1e-3}),
        pv.ELBO(),
        compile=True,
    )
    for _ in range(4):
        svi.step(X)
    program = next(iter(svi._calls.values())).compiled[0].program
    pauses = []
    for _ in range(7):
        program._next_look = 0.0
        state = torch.get_rng_state()
        assert program.still_right()
        assert torch.equal(torch.get_rng_state(), state)
        pauses.append(program._pause / program._look_for)
    assert pauses == pytest.approx([20, 40, 80, 160, 200, 200, 200])


def test_what_changes_again_and_again_is_left_as_it_is(recorded):
    network = nn.Linear(DIM, DIM)

    def model(x):
        pyro.module("network", network)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(DIM), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(network.factor * network(z), 1.0).to_event(1), obs=x)

    def steps(cls, **options):
        with pyro.get_param_store().scope():
            torch.manual_seed(0)
            svi = cls(model, guide, pyro.optim.SGD({"lr": 1e-4}), pv.ELBO(), **options)
            svi.num_calls = 10**7
            losses = []
            for step in range(16):
                network.factor = 1.0 + 0.1 * step
                losses.append(svi.step(X))
            return losses, svi

    network.factor = 1.0
    start = {name: value.clone() for name, value in network.state_dict().items()}
    expected, _ = steps(pyro.infer.SVI)
    network.load_state_dict(start)
    with pytest.warns(UserWarning, match="8 shapes, modes or changes were compiled, and this is one more"):
        got, svi = steps(pv.SVI)
    assert svi.compilations == 8
    assert got == pytest.approx(expected, rel=1e-5)


def test_an_argument_that_may_change_unseen_is_not_compiled(recorded):
    def model(x, numbers):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(DIM), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, float(numbers[0])).to_event(1), obs=x)

    svi = pv.SVI(model, lambda x, _: guide(x), pyro.optim.SGD({"lr": 0.0}), pv.ELBO())
    with pytest.warns(UserWarning, match="it is called with ndarray, which is neither a tensor nor a plain value"):
        narrow = [svi.step(X, np.array([0.1])) for _ in range(4)]
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
    with poutine.scale(scale=0.5):
        half = svi.step(X)
    assert half == pytest.approx(0.5 * whole, rel=1e-6)


def test_enumeration_runs_as_it_is(recorded, monkeypatch):
    monkeypatch.setattr("pyrovae.compilation.timings.SECONDS", 0.0)
    monkeypatch.setattr("pyrovae.compilation.timings.RUNS", 0)

    @config_enumerate
    def mixture(x):
        weights = pyro.param("weights", torch.tensor([0.3, 0.7]), constraint=dist.constraints.simplex)
        with pyro.plate("data", len(x), dim=-1):
            kind = pyro.sample("kind", dist.Categorical(weights))
            pyro.sample("x", dist.Normal(torch.tensor([-1.0, 1.0])[kind], 0.5), obs=x)

    def steps(cls):
        with pyro.get_param_store().scope():
            svi = cls(mixture, lambda x: None, pyro.optim.Adam({"lr": 0.05}), TraceEnum_ELBO(max_plate_nesting=1))
            return [svi.step(X.flatten()) for _ in range(8)]

    expected = steps(pyro.infer.SVI)
    with pytest.warns(UserWarning, match=r"step runs without compilation from here on: .*"):
        assert steps(pv.SVI) == pytest.approx(expected, rel=1e-6)


def test_a_short_run_is_not_compiled_and_a_long_one_is(recorded, monkeypatch):
    plain = model_of(lambda x, z: dist.Normal(z, 1.0).to_event(1))
    assert run(pv.SVI, plain, steps=20)[1].compilations == 0  # far less than ten seconds
    assert run(pv.SVI, plain, steps=20, compile=False)[1].compilations == 0
    torch.manual_seed(0)
    svi = pv.SVI(plain, guide, pyro.optim.SGD({"lr": 1e-3}), pv.ELBO())
    svi.num_calls = 10**7
    for _ in range(8):
        svi.step(X)
    assert svi.compilations == 1
    assert svi.num_calls == 10**7 - 8
    monkeypatch.setattr("pyrovae.compilation.timings.SECONDS", 0.01)
    monkeypatch.setattr("pyrovae.compilation.timings.RUNS", 0)
    assert run(pv.SVI, plain, steps=60)[1].compilations == 1  # they have lasted that long by then


def test_the_first_steps_of_each_shape_are_checked_and_the_settings_stay():
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(DIM), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=z).to_event(1), obs=x)

    svi = pv.SVI(model, guide, pyro.optim.SGD({"lr": 1e-3}), pv.ELBO(), compile=False)
    seen = []
    spied = pv.SVI(
        model, lambda x: (seen.append(pyro.infer.util.is_validation_enabled()), guide(x)), svi.optim, pv.ELBO()
    )
    for _ in range(4):
        spied.step((X > 0).float())
    spied.step((X[:3] > 0).float())
    assert seen == [True, True, False, False, True]
    assert pyro.infer.util.is_validation_enabled()
    with pytest.raises(ValueError, match="Expected value argument"):
        svi.step(X)  # no zeros and ones


@pytest.mark.parametrize("compile", [True, False])
def test_a_nan_raises_and_leaves_the_parameters(recorded, compile):
    plain = model_of(lambda x, z: dist.Normal(z, 1.0).to_event(1))
    svi = pv.SVI(plain, guide, pyro.optim.Adam({"lr": 0.05}), pv.ELBO(), compile=compile)
    for _ in range(5):
        svi.step(X)
    before = pyro.param("loc").detach().clone()
    bad = X.clone()
    bad[3, 2] = torch.nan
    with pytest.raises(FloatingPointError, match=r"step 6: the loss became NaN: the data 'x' are NaN in row 3"):
        svi.step(bad)
    assert torch.equal(pyro.param("loc"), before)
    svi.step(X)
    assert torch.isfinite(pyro.param("loc")).all()


def test_a_nan_under_pyros_own_objective_is_its_warning(recorded):
    plain = model_of(lambda x, z: dist.Normal(z, 1.0).to_event(1))
    svi = pv.SVI(plain, guide, pyro.optim.SGD({"lr": 0.0}), Trace_ELBO(), compile=True)
    for _ in range(4):
        svi.step(X)
    with pytest.warns(UserWarning, match="Encountered NaN"):
        svi.step(torch.full_like(X, torch.nan))


def test_a_program_leaves_what_it_was_captured_from_as_it_was(recorded):
    network = nn.Sequential(nn.Linear(DIM, 4), nn.BatchNorm1d(4))
    state = {name: value.clone() for name, value in network.state_dict().items()}
    random_state = torch.get_rng_state()
    program = Program(lambda x: (network(x) + torch.randn(ROWS, 4),), [X], [network])
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    program(X)
    assert network[1].num_batches_tracked == 1


def test_a_tensor_that_a_function_closes_over_is_read_at_each_call(recorded):
    scale = torch.tensor(2.0)
    program = Program(lambda x: (x * scale + torch.tensor(1.0),), [X])
    scale.fill_(3.0)
    assert torch.allclose(program(X)[0], 3 * X + 1)
    assert [x is scale for x in program.graph.outside] == [True]


def test_uncapturable_is_an_error_of_its_own():
    with pytest.raises(Uncapturable, match="reads the value"):
        Program(lambda x: (x if x.sum() > 0 else -x,), [X])


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
    assert len(svi._calls) == 1
    assert got == pytest.approx(expected, rel=1e-5)
    assert run(pv.SVI, compile=False)[0] == pytest.approx(expected, rel=1e-5)
    with pytest.raises(RuntimeError, match="compile=True, but step cannot be compiled: it was called with 5"):
        run(pv.SVI, compile=True)
