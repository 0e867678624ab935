"""Faults that ``pv.SVI`` and the objectives had beside Pyro's own SVI, with the numbers that showed them.

The numbers in the assertions are those of Pyro; the comments say which number the fault gave.
"""

from __future__ import annotations

import collections
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO, config_enumerate
from pyro.infer.autoguide import AutoNormal
from pyro.optim import SGD, Adam
from scenarios.models import BayesianNetwork, sparse_gp, waves
from torch import nn

import pyrovae as pv

X = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
MODES = pytest.mark.parametrize("compile", [True, None], ids=["insisted", "automatic"])

pytestmark = pytest.mark.usefixtures("recorded", "_own_store")


@pytest.fixture
def _own_store():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    pyro.clear_param_store()


def nothing(*args):
    """A guide without a site."""


def make(model, guide=nothing, optim=None, loss=None, **options):
    """``pv.SVI``, which in the automatic mode is told that compiling pays."""
    svi = pv.SVI(model, guide, optim or Adam({"lr": 0.1}), loss or Trace_ELBO(), **options)
    svi.expected_calls = {"step": 1e9}
    return svi


def observe(mean, x):
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=x.sum(-1))


def shared(x):
    """One weight for all data."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(w, 1.0), obs=x[:, 0])


@MODES
def test_minibatches_of_a_gaussian_process_are_all_seen(compile):
    x, y = waves(64)
    model = sparse_gp(x[:32], y[:32], num_data=64)
    svi = make(model.model, model.guide, Adam({"lr": 0.05}), compile=compile)
    halves = slice(0, 32), slice(32, 64)
    for i in range(120):
        model.set_data(x[halves[i % 2]], y[halves[i % 2]])
        svi.step()
    with torch.no_grad():
        errors = [((model(x)[0] - y)[half] ** 2).mean().item() for half in halves]
    assert max(errors) < 0.002  # compiled it was 0.16 on the half that was not seen


@MODES
def test_a_parameter_that_comes_later_is_trained(compile):
    config = {"bias": False}

    def model(x):
        pyro.factor("f", -(pyro.param("a", torch.tensor(1.0)) ** 2))
        b = pyro.param("b", torch.tensor(0.0)) if config["bias"] else 0.0
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(b, 1.0), obs=x[:, 0] + 3.0)

    svi = make(model, compile=compile)
    for i in range(60):
        config["bias"] = i >= 10
        loss = svi.step(X)
    assert loss == pytest.approx(85.0, abs=0.05)  # compiled it was 376.0
    assert pyro.param("b").item() == pytest.approx(3.18, abs=0.005)


@MODES
@pytest.mark.filterwarnings("ignore:.* was not registered in the param store")
def test_frozen_parameters_stay(compile):
    net = nn.Linear(3, 1)

    def model(x):
        pyro.module("net", net)
        observe(net(x)[:, 0] + pyro.param("s", torch.tensor(1.0)), x)

    svi = make(model, optim=SGD({"lr": 1e-3}), compile=compile)
    for _ in range(10):
        svi.step(X)
    net.requires_grad_(False)
    before, other = net.weight.clone(), pyro.param("s").item()
    for _ in range(50):
        svi.step(X)
    assert torch.equal(net.weight, before)  # compiled it was 0.668 away
    assert pyro.param("s").item() != other


def _linear(x):
    w = pyro.param("w", torch.zeros(3))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ w, 1.0), obs=100 * x.sum(-1))


@MODES
def test_the_bias_correction_is_that_of_the_parameter(compile):
    optim = Adam({"lr": 0.01})
    main, other = make(_linear, optim=optim, compile=compile), SVI(_linear, nothing, optim, Trace_ELBO())
    for _ in range(6):
        main.step(X)
    for _ in range(300):
        other.step(X)
    before = pyro.param("w").detach().clone()
    for _ in range(20):
        main.step(X)
    assert (pyro.param("w") - before).norm().item() == pytest.approx(0.341, abs=0.0006)  # compiled it was 0.104


def _both(run):
    """What a run gives under Pyro's SVI and under ``pv.SVI``."""
    found = []
    for cls in (lambda *args, **options: SVI(args[0], args[1], args[2], Trace_ELBO()), make):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        found.append(torch.tensor(run(cls)))
    return found


@MODES
def test_a_signature_with_a_new_parameter_has_a_bias_correction_of_its_own(compile):
    def model(x, flag):
        b = pyro.param("b", torch.tensor(0.0)) if flag else 0.0
        observe(x @ pyro.param("w", torch.zeros(3)) + b, x)

    def run(cls):
        svi = cls(model, nothing, Adam({"lr": 0.05}), compile=compile)
        return [svi.step(X, i > 8 and i % 2 == 0) for i in range(40)]

    expected, got = _both(run)
    assert torch.allclose(got, expected, rtol=1e-5)  # it was off by 0.5 %


@MODES
def test_two_svis_share_an_optimizer(compile):
    def run(cls):
        optim = Adam({"lr": 0.05})
        svis = [cls(model, nothing, optim, compile=compile) for model in (_linear, lambda x: _linear(x[:9]))]
        return [svis[i % 2].step(X) for i in range(40)]

    expected, got = _both(run)
    assert torch.allclose(got, expected, rtol=1e-5)  # it was off by 4e-4


class Trainer:
    def __init__(self):
        self.net, self.beta, self.steps = nn.Linear(3, 4), 1.0, 0

    def model(self, x):
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=self.beta):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    def guide(self, x):
        pyro.module("net", self.net)
        m, s = self.net(x).chunk(2, -1)
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=self.beta):
            pyro.sample("z", dist.Normal(m, s.exp()).to_event(1))


@MODES
@pytest.mark.filterwarnings("ignore:pv.SVI")
def test_an_object_that_counts_steps_hides_no_other_change(compile):
    trainer = Trainer()
    svi = make(trainer.model, trainer.guide, Adam({"lr": 0.0}), TraceMeanField_ELBO(), compile=compile)
    for _ in range(60):
        trainer.steps += 1
        one = svi.step(X)
    trainer.beta = 2.0
    assert svi.step(X) == pytest.approx(2 * one, rel=1e-5)  # it took 42,419 steps


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(3, 1)
        self.register_buffer("shift", torch.tensor(0.0))

    def mean(self, x):
        return self.l(x)[:, 0] + self.shift


@MODES
def test_a_buffer_that_is_replaced_is_read(compile):
    net = Net()

    def model(x):
        pyro.module("net", net)
        observe(net.mean(x), x)

    svi = make(model, optim=Adam({"lr": 1e-2}), compile=compile)
    for i in range(30):
        if i == 15:
            net.shift = torch.tensor(10.0)
        loss = svi.step(X)
    assert loss == pytest.approx(2928.6, abs=0.1)  # compiled it was 137.8


@MODES
def test_a_buffer_of_a_bare_module_is_read(compile):
    holder = nn.Module()
    holder.register_buffer("beta", torch.tensor(1.0))
    svi = make(lambda x: observe(pyro.param("m", torch.tensor(0.0)) + holder.beta, x), compile=compile)
    early = [svi.step(X) for _ in range(10)][-1]
    holder.beta = torch.tensor(50.0)
    assert svi.step(X) > 100 * early


@MODES
def test_a_bayesian_network_is_compiled(compile):
    model = BayesianNetwork()
    svi = make(model, AutoNormal(model), Adam({"lr": 0.01}), compile=compile)
    for _ in range(8):
        svi.step(X)
    assert svi.compilations == 1


BAD = {
    "NaN": (lambda x: observe(_net(x)[:, 0], x), X, X * float("nan")),
    "negative counts": (lambda x: _poisson(x), X.abs().round(), -X.abs().round() - 1),
}


def _net(x):
    return x @ pyro.param("weight", torch.zeros(3, 1)) + pyro.param("bias", torch.zeros(1))


def _poisson(x):
    rate = (_net(x)[:, 0] / 10).exp()
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Poisson(rate), obs=x[:, 0])


@pytest.mark.parametrize("compile", [False, True, None], ids=["eager", "insisted", "automatic"])
@pytest.mark.parametrize("name", BAD)
def test_bad_data_raise_at_a_late_step_and_move_nothing(name, compile):
    model, good, bad = BAD[name]
    svi = make(model, optim=Adam({"lr": 0.05}), compile=compile)
    for _ in range(8):
        svi.step(good)
    before = {name: value.detach().clone() for name, value in pyro.get_param_store().items()}
    with pytest.raises((ValueError, FloatingPointError)):
        svi.step(bad)
    assert all(torch.equal(value, before[name]) for name, value in pyro.get_param_store().items())
    assert svi.step(good) < 1e4


@pytest.mark.parametrize("cls", [SVI, pv.SVI], ids=["Pyro", "pyrovae"])
def test_evaluate_loss_changes_no_objective(cls):
    vae = pv.build_vae((6,), 3, prior="spike-slab", likelihood="normal", hidden=(8,))
    x, elbo = torch.randn(40, 6), pv.ELBO()
    svi = cls(vae.model, vae.guide, Adam({"lr": 1e-3}), elbo)
    svi.step(x)
    before = dict(vars(elbo))
    svi.evaluate_loss(x)
    assert elbo.num_particles == before["num_particles"]  # it was 1, and then 2


@pytest.mark.parametrize("objective", [lambda: pv.DReG(3), lambda: pv.IWAE(3), lambda: pv.Renyi(0.5, 3)])
def test_objectives_of_several_draws_where_all_data_share_the_latents(objective):
    losses = []
    for loss in (objective(), pv.ELBO()):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that several draws gain nothing may be said
            svi = pv.SVI(shared, AutoNormal(shared), Adam({"lr": 0.1}), loss, compile=False)
            losses.append([svi.step(X) for _ in range(5)])
    assert np.isfinite(losses).all()
    assert losses[0][0] == pytest.approx(losses[1][0], rel=0.3)


@MODES
def test_attributes_of_the_svi_that_are_set_later(compile):
    def fresh(loss=None):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        svi = make(shared, AutoNormal(shared), Adam({"lr": 0.0}), loss, compile=compile)
        for _ in range(6):
            svi.step(X)
        return svi

    svi = fresh()
    svi.optim = Adam({"lr": 0.5})
    before = pyro.param("AutoNormal.locs.w").item()
    svi.step(X)
    assert abs(pyro.param("AutoNormal.locs.w").item() - before) == pytest.approx(0.5, rel=1e-3)

    svi = fresh()
    old = svi.step(X)
    svi.model = pyro.poutine.scale(shared, scale=100.0)
    assert svi.step(X) > 10 * old

    elbo = Trace_ELBO()
    svi = fresh(elbo)
    elbo.num_particles = 64
    pyro.set_rng_seed(1)
    got = svi.step(X)
    pyro.set_rng_seed(1)
    assert got == pytest.approx(SVI(svi.model, svi.guide, svi.optim, elbo).step(X), rel=1e-5)

    svi = fresh()
    svi.loss_and_grads = lambda model, guide, *args: 7.0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pv.SVI: .*loss_and_grads")
        assert svi.step(X) == 7.0  # compiled it was 86.4


def _nested(x):
    with pyro.plate("a", 2, dim=-2):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("y", dist.Normal(w, 1.0), obs=x[:, 0])


def _without_plate(x):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(w, 1.0).expand([len(x)]).to_event(1), obs=x[:, 0])


OBJECTIVES = {
    "ELBO": pv.ELBO,
    "IWAE": lambda: pv.IWAE(3),
    "DReG": lambda: pv.DReG(3),
    "Renyi": lambda: pv.Renyi(0.5, 3),
}


@pytest.mark.parametrize("model", [_nested, _without_plate])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_other_plates_work_or_the_message_says_what_to_change(name, model):
    svi = pv.SVI(model, AutoNormal(model), Adam({"lr": 0.1}), OBJECTIVES[name](), compile=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert np.isfinite(svi.step(X))
        except ValueError as error:
            message = str(error)
            assert "plate" in message
            assert "-1" in message
            assert "Try moving" not in message
            assert "particles" not in message.split("\n")[0]


@pytest.mark.parametrize("density", ["SpikeSlab", "RectifiedNormal", "HardConcrete"])
def test_an_autoguide_of_a_site_with_an_atom_is_refused_by_name(density):
    cases = {
        "SpikeSlab": lambda: pv.distributions.SpikeSlab(torch.zeros(3), dist.Normal(torch.zeros(3), 1.0)),
        "RectifiedNormal": lambda: pv.distributions.RectifiedNormal(torch.zeros(3), torch.ones(3)),
        "HardConcrete": lambda: pv.distributions.HardConcrete(torch.zeros(3)),
    }

    def model(x):
        w = pyro.sample("w", cases[density]().to_event(1))
        observe(x @ w, x)

    with pytest.raises(NotImplementedError, match=r"(?is)atom.*guide|guide.*atom"):
        AutoNormal(model)(X)


def _chosen(x):
    return observe(pyro.param("m", torch.tensor(0.0)) + len(x[x[:, 0] > 0]), x)


def _rounded(x):
    return observe(pyro.param("m", torch.tensor(0.0)) + round(x[0, 0].item()), x)


@pytest.mark.parametrize("model", [_chosen, _rounded])
def test_a_refusal_names_the_line_of_the_user(model):
    svi = make(model, compile=True)
    with pytest.raises(RuntimeError, match=r"test_faults_svi\.py line \d+") as refusal:
        [svi.step(X) for _ in range(5)]
    assert "Exception(" not in str(refusal.value)
    assert "TypeError(" not in str(refusal.value)


@MODES
def test_enumerated_sites_are_compiled(compile):
    @config_enumerate
    def mixture(x):
        weights = pyro.param("weights", torch.tensor([0.3, 0.7]), constraint=dist.constraints.simplex)
        with pyro.plate("data", len(x), dim=-1):
            kind = pyro.sample("kind", dist.Categorical(weights))
            pyro.sample("x", dist.Normal(torch.tensor([-1.0, 1.0])[kind], 0.5), obs=x[:, 0])

    def steps(svi):
        return [svi.step(X) for _ in range(10)]

    theirs = steps(SVI(mixture, nothing, Adam({"lr": 0.05}), TraceEnum_ELBO(max_plate_nesting=1)))
    pyro.clear_param_store()
    svi = make(mixture, nothing, Adam({"lr": 0.05}), TraceEnum_ELBO(max_plate_nesting=1), compile=compile)
    assert steps(svi) == pytest.approx(theirs, rel=1e-5)
    assert svi.compilations == 1


@MODES
def test_a_number_of_numpy_is_a_plain_argument(compile):
    svi = make(lambda x, beta: observe(pyro.param("m", torch.tensor(0.0)) * float(beta), x), compile=compile)
    for beta in (0.5, 0.25):
        for _ in range(6):
            svi.step(X, np.float32(beta))
    assert svi.compilations >= 1


@pytest.mark.parametrize("compile", [False, True, None], ids=["eager", "insisted", "automatic"])
def test_gradients_are_zero_after_a_step(compile):
    net = nn.Linear(3, 1)

    def model(x):
        pyro.module("net", net)
        observe(net(x)[:, 0], x)

    svi = make(model, compile=compile)
    for _ in range(6):
        svi.step(X)
        assert net.weight.grad.norm() == 0  # the gradient was None


def _hooked(seen):
    net = nn.Linear(3, 1)
    net.register_forward_hook(lambda module, inputs, output: seen.append(1))
    return lambda x: observe(net(x)[:, 0] + pyro.param("m", torch.tensor(0.0)), x)


def _logging(seen):
    def model(x):
        seen.append(len(x))
        observe(pyro.param("m", torch.tensor(0.0)), x)

    return model


def _printing(seen):
    def model(x):
        print("step", file=seen)
        observe(pyro.param("m", torch.tensor(0.0)), x)

    return model


class Written(collections.deque):
    """A deque with the write of a file, which counts the calls."""

    def write(self, text):
        if text.strip():
            self.append(text)


@MODES
@pytest.mark.parametrize("make_model", [_hooked, _logging, _printing])
def test_code_beside_the_loss_runs_or_a_warning_says_that_it_does_not(make_model, compile):
    seen = Written()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        svi = make(make_model(seen), compile=compile)
        try:
            for _ in range(12):
                svi.step(X)
        except RuntimeError as refusal:
            if compile and str(refusal).startswith("compile=True"):
                return
            raise
    said = [str(warning.message) for warning in caught if str(warning.message).startswith("pv.SVI")]
    assert len(seen) == 12 or len(said) == 1
    if compile is None:
        assert len(seen) == 12


@MODES
def test_a_value_that_is_another_at_each_step_costs_few_compilations(compile):
    settings = {"shift": 0.0}
    svi = make(lambda x: observe(pyro.param("m", torch.tensor(0.0)) + settings["shift"], x), compile=compile)

    def run():
        for i in range(30):
            settings["shift"] = float(max(0, i - 6))
            svi.step(X)

    with pytest.warns(UserWarning, match=r"pv\.SVI: .*shift") as said:
        run()
    assert len([warning for warning in said if "shift" in str(warning.message)]) == 1
    assert svi.compilations <= 3  # it was eight


@MODES
@pytest.mark.filterwarnings("ignore:pv.SVI")
def test_a_scope_of_the_store_around_each_step_is_compiled_once(compile):
    store = pyro.get_param_store()
    svi = make(_linear, compile=compile)
    with store.scope() as state:
        svi.step(X)
    for _ in range(15):
        with store.scope(state) as state:
            svi.step(X)
    assert svi.compilations <= 1
    assert state["params"]["w"].abs().min() > 0.5
