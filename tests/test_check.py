"""``pv.check`` with two functions of plain Pyro: what it lets through, what it finds, and that it leaves no trace."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    SVI,
    EnergyDistance,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceMeanField_ELBO,
    config_enumerate,
)
from pyro.infer import autoguide as auto
from pyro.optim import Adam
from torch import Tensor, nn
from torch.distributions import constraints

import pyrovae as pv

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
Y = X[:, 0] + 0.1


@pytest.fixture(autouse=True)
def own_store() -> object:
    with pyro.get_param_store().scope():
        yield


def nothing(*args: object) -> None:
    """A guide without sites."""


def regression(x: Tensor, y: Tensor | None = None) -> Tensor:
    """A Bayesian regression, with a site in each of four supports and no plate around the latent ones."""
    tau = pyro.sample("tau", dist.HalfNormal(1.0))
    share = pyro.sample("share", dist.Beta(2.0, 2.0))
    simplex = pyro.sample("simplex", dist.Dirichlet(torch.ones(3)))
    weights = pyro.sample("weights", dist.Normal(torch.zeros(3), tau).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(x @ (weights * simplex) * share, 1.0), obs=y)


def of_two_parts(model: Callable[..., object]) -> auto.AutoGuideList:
    guide = auto.AutoGuideList(model)
    guide.append(auto.AutoNormal(poutine.block(model, expose=["tau", "share"])))
    guide.append(auto.AutoDelta(poutine.block(model, expose=["simplex", "weights"])))
    return guide


AUTOGUIDES = {
    "normal": auto.AutoNormal,
    "diagonal": auto.AutoDiagonalNormal,
    "multivariate": auto.AutoMultivariateNormal,
    "low-rank": auto.AutoLowRankMultivariateNormal,
    "flow": auto.AutoIAFNormal,
    "delta": auto.AutoDelta,
    "laplace": auto.AutoLaplaceApproximation,
    "structured": auto.AutoStructured,
    "messenger": auto.AutoNormalMessenger,
    "list": of_two_parts,
}


@pytest.mark.parametrize("make", AUTOGUIDES.values(), ids=AUTOGUIDES)
def test_autoguides_pass_and_the_run_after_the_check_is_the_run_without_it(make: Callable[..., auto.AutoGuide]) -> None:
    ends = []
    for checked in (False, True):
        pyro.clear_param_store()
        pyro.set_rng_seed(1)
        guide, loss = make(regression), Trace_ELBO()
        svi = SVI(regression, guide, Adam({"lr": 0.01}), loss)
        if checked:
            pv.check(regression, guide, loss, X, Y)
            assert len(pyro.get_param_store()) == 0
        losses = [svi.step(X, Y) for _ in range(3)]
        ends.append((losses, {name: value.clone() for name, value in pyro.get_param_store().items()}))
    (losses, params), (checked_losses, checked_params) = ends
    assert checked_losses == losses
    assert checked_params.keys() == params.keys()
    assert all(torch.equal(checked_params[name], value) for name, value in params.items())


def test_a_point_outside_of_the_support_is_refused() -> None:
    def model() -> None:
        pyro.sample("s", dist.HalfNormal(torch.ones(2)).to_event(1))

    def guide(value: float) -> Callable[[], object]:
        return lambda: pyro.sample("s", dist.Delta(torch.tensor([1.0, value])).to_event(1))

    pv.check(model, guide(2.0), None)
    with pytest.raises(ValueError, match=r"site 's' has support Greater.* but a Delta with a value outside of it"):
        pv.check(model, guide(-2.0), None)


@pytest.mark.parametrize(
    ("p", "q", "fits"),
    [
        (dist.Normal(0.0, 1.0), dist.LogNormal(0.0, 1.0), True),
        (dist.Uniform(0.0, 4.0), dist.Uniform(torch.tensor(1.0), torch.tensor(2.0)), True),
        (dist.HalfNormal(1.0), dist.Uniform(0.0, 1.0), True),
        (dist.Uniform(0.0, 1.0), dist.Uniform(0.0, 2.0), False),
        (dist.Beta(1.0, 1.0), dist.HalfNormal(1.0), False),
        (dist.HalfNormal(1.0), dist.Normal(0.0, 1.0), False),
        (dist.Normal(0.0, 1.0), dist.Poisson(1.0), False),
        (dist.Poisson(1.0), dist.Gamma(1.0, 1.0), False),
    ],
    ids=str,
)
def test_the_support_of_the_guide_lies_in_that_of_the_model(
    p: dist.TorchDistribution, q: dist.TorchDistribution, fits: bool
) -> None:
    def run() -> None:
        pv.check(lambda: pyro.sample("s", p), lambda: pyro.sample("s", q), None)

    if fits:
        run()
    else:
        with pytest.raises(ValueError, match=r"site 's' has support \w+"):
            run()


def test_nested_plates_pass_and_plates_of_another_size_do_not() -> None:
    def model(size: int) -> None:
        with pyro.plate("groups", 4, dim=-2):
            loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
            with pyro.plate("data", size, dim=-1):
                z = pyro.sample("z", dist.Normal(loc, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=torch.zeros(4, size))

    guide = auto.AutoNormal(model)
    pv.check(model, guide, Trace_ELBO(), 5)

    def other(size: int) -> None:
        with pyro.plate("groups", 4, dim=-2):
            pyro.sample("loc", dist.Normal(0.0, 1.0))
            with pyro.plate("data", 1, dim=-1):
                pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match=r"site 'z' has scale 5.0 .* plates of the same size around both"):
        pv.check(model, other, Trace_ELBO(), 5)


def test_a_model_may_have_sites_that_are_summed_over() -> None:
    @config_enumerate
    def model(x: Tensor) -> None:
        z: int | Tensor = 0
        probs = pyro.param("probs", torch.full((2, 2), 0.5), constraint=constraints.simplex)
        for t in pyro.markov(range(len(x))):
            z = pyro.sample(f"z_{t}", dist.Categorical(probs[z]))
            pyro.sample(f"x_{t}", dist.Normal(torch.tensor([-1.0, 1.0])[z], 1.0), obs=x[t])

    for loss in (TraceEnum_ELBO(), None):
        pv.check(model, nothing, loss, X[:5, 0])
    with pytest.raises(ValueError, match=r"the guide samples the sites \[\], the model \['z_0', "):
        pv.check(model, nothing, Trace_ELBO(), X[:5, 0])


def test_a_hidden_markov_model_has_data_of_any_length() -> None:
    def model(x: Tensor) -> None:
        normal = dist.MultivariateNormal(torch.zeros(1), torch.eye(1))
        pyro.sample("x", dist.GaussianHMM(normal, torch.eye(1), normal, torch.eye(1), normal), obs=x)

    pv.check(model, nothing, Trace_ELBO(), X[:, :1])


def test_an_objective_is_known_by_its_methods_too() -> None:
    def pair() -> None:
        pyro.sample("k", dist.Poisson(1.0))

    with pytest.raises(ValueError, match="RenyiELBO gives a Poisson guide"):
        pv.check(pair, pair, RenyiELBO().loss_and_grads)
    for loss in (Trace_ELBO().differentiable_loss, lambda model, guide: 0.0):
        pv.check(pair, pair, loss)


def test_a_network_that_pyro_was_not_told_of_is_found() -> None:
    net = nn.Linear(3, 1)

    def model(x: Tensor, named: bool) -> None:
        if named:
            pyro.module("net", net)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(net(x)[:, 0], 1.0), obs=x[:, 0])

    pv.check(model, nothing, Trace_ELBO(), X, True)
    pv.check(model, nothing, Trace_ELBO(), X.clone().requires_grad_(), True)  # data may ask for a gradient
    with pytest.raises(ValueError, match=r"tensors of shapes \(1, 3\), \(1,\) that ask for a gradient"):
        pv.check(model, nothing, Trace_ELBO(), X, False)
    pyro.module("net", nn.Linear(3, 1))  # as a cell of a notebook that runs a second time
    with pytest.raises(ValueError, match=r"call pyro.clear_param_store\(\) first"):
        pv.check(model, nothing, Trace_ELBO(), X, True)
    net.requires_grad_(False)
    pv.check(model, nothing, Trace_ELBO(), X, False)


def test_a_tensor_that_the_model_makes_is_no_parameter() -> None:
    own = torch.tensor(0.5, requires_grad=True)

    def model(outer: bool) -> None:
        loc = own if outer else torch.tensor(0.5, requires_grad=True)
        pyro.sample("x", dist.Normal(loc, 1.0), obs=torch.tensor(1.0))

    pv.check(model, nothing, Trace_ELBO(), False)
    with pytest.raises(ValueError, match=r"tensors of shapes \(\) that ask for a gradient"):
        pv.check(model, nothing, Trace_ELBO(), True)


def test_a_model_that_counts_on_the_dimensions_of_an_objective_is_left_to_it() -> None:
    @config_enumerate
    def model() -> None:
        z = pyro.sample("z", dist.Categorical(torch.ones(3)))
        assert z.shape == (3,)

    assert TraceEnum_ELBO(max_plate_nesting=0).loss(model, nothing) == pytest.approx(0.0, abs=1e-6)
    pv.check(model, nothing, TraceEnum_ELBO(max_plate_nesting=0))
    with pytest.raises(AssertionError):
        pv.check(model, nothing, Trace_ELBO())


class Counting:
    """A model with a state in Python, a running statistic, a parameter with a random start, and all kinds of draws."""

    def __init__(self) -> None:
        self.calls, self.past = 0, {"first": 0.0}
        self.net = nn.BatchNorm1d(3, affine=False)

    def model(self, x: Tensor) -> None:
        self.calls += 1
        self.past[str(self.calls)] = random.random() + np.random.rand()  # noqa: NPY002  # the global state
        shift = pyro.param("shift", lambda: torch.randn(3))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(self.net(x) + shift + z[:, None], 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.net(x)[:, 0], 1.0))


def test_a_check_leaves_no_trace() -> None:
    counting, states = Counting(), []
    for _ in range(2):
        states.append(pyro.util.get_rng_state())
        pv.check(counting.model, counting.guide, TraceMeanField_ELBO(), X)
    for before, after in zip(*(torch.utils._pytree.tree_leaves(state) for state in states), strict=True):
        np.testing.assert_array_equal(before, after)
    assert (counting.calls, counting.past) == (0, {"first": 0.0})
    assert counting.net.num_batches_tracked == 0
    assert torch.equal(counting.net.running_mean, torch.zeros(3))
    assert len(pyro.get_param_store()) == 0
    with torch.no_grad():
        pv.check(counting.model, counting.guide, None, X)


def test_a_check_that_fails_leaves_no_trace() -> None:
    counting, before = Counting(), torch.get_rng_state()
    with pytest.raises(ValueError, match="the guide samples the sites"):
        pv.check(counting.model, nothing, EnergyDistance(), X)
    assert counting.calls == 0
    assert torch.equal(torch.get_rng_state(), before)


def test_an_optimizer_of_torch_is_refused() -> None:
    with pytest.raises(TypeError, match=r"got Adam: an optimizer of torch is given as pyro.optim.PyroOptim"):
        pv.guards.check_optim(torch.optim.Adam([torch.zeros(1)]))
    pv.guards.check_optim(Adam({"lr": 0.1}, {"clip_value": 1.0}))
    pv.guards.check_optim(Adam({"lr": 0.1}, lambda module, name: {"clip_value": 1.0}))
