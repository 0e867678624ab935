"""Data that are rejected at a late step, and errors of model and guide: they raise, and nothing moves."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.optim import SGD
from torch import nn

import pyrovae as pv
from scenarios.models import BITS, X, network, no_guide, observe, regression, vae, weights
from scenarios.rows import compiled, either

OUT_OF_RANGE = (ValueError, IndexError, RuntimeError)  # a kernel that reads a table checks the row itself


def _rejected(model, good, bad, error=ValueError):
    def scenario(trial):
        svi = trial.svi(model, no_guide)
        trial.steps(svi, 10, good)
        trial.rejects(svi, bad, error=error)
        trial.steps(svi, 6, good)
        trial.rejects(svi, bad, error=error)
        trial.steps(svi, 4, good)

    return compiled(scenario)


def _likelihood(make):
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", make(pyro.param("m", torch.tensor(0.3))), obs=x)

    return model


ONES = torch.ones(8)


REJECTED = {
    "NaN": _rejected(_likelihood(lambda m: dist.Normal(m, 1.0)), ONES, ONES * torch.nan),
    "one NaN": _rejected(_likelihood(lambda m: dist.Normal(m, 1.0)), ONES, torch.tensor([1.0] * 7 + [torch.nan])),
    "negative counts": _rejected(_likelihood(lambda m: dist.Poisson(m.exp())), ONES, -ONES),
    "halves": _rejected(_likelihood(lambda m: dist.Bernoulli(logits=m)), ONES, 0.5 * ONES),
    "outside of the interval": _rejected(_likelihood(lambda m: dist.Beta(m.exp(), 2.0)), 0.5 * ONES, 1.5 * ONES),
    "negative times": _rejected(_likelihood(lambda m: dist.Exponential(m.exp())), ONES, -ONES),
    "a label too many": _rejected(
        _likelihood(lambda m: dist.Categorical(logits=torch.stack([m, -m, 0 * m]))),
        ONES.long(),
        3 * ONES.long(),
        OUT_OF_RANGE,
    ),
    "off the simplex": _rejected(
        _likelihood(lambda m: dist.Dirichlet(m.exp() * torch.ones(2))), torch.full((8, 2), 0.5), torch.ones(8, 2)
    ),
}


@compiled
def a_nan_batch_under_a_network(trial):
    net = trial.watch(nn.Linear(3, 1))
    svi = trial.svi(network(net), no_guide)
    trial.steps(svi, 10)
    trial.rejects(svi, X * torch.nan)
    trial.keep(*net.parameters())
    trial.steps(svi, 6)


@compiled
def a_nan_batch_under_an_elbo_of_pyrovae(trial):
    module = trial.watch(vae())
    svi = trial.svi(module.model, module.guide, SGD({"lr": 1e-3}), pv.ELBO())
    trial.steps(svi, 10, BITS)
    trial.rejects(svi, BITS * torch.nan)
    trial.steps(svi, 6, BITS)


@compiled
def a_parameter_that_leaves_its_support(trial):
    """A scale that becomes negative is what Pyro rejects, at the step where it does."""

    def model(x):
        observe(torch.zeros(len(x)), x, pyro.param("s", torch.tensor(0.5)))

    svi = trial.svi(model, no_guide, SGD({"lr": 1e-3}))
    trial.steps(svi, 8)
    pyro.get_param_store()["s"] = torch.tensor(-1.0)
    trial.rejects(svi, X)
    pyro.get_param_store()["s"] = torch.tensor(1.0)
    trial.steps(svi, 6)


@compiled
def a_batch_of_a_wrong_shape(trial):
    svi = trial.svi(network(nn.Linear(3, 1)), no_guide)
    trial.steps(svi, 8)
    trial.rejects(svi, torch.ones(4, 5), error=RuntimeError)
    trial.steps(svi, 8)


@compiled
def a_model_that_raises_once(trial):
    broken = [False]

    def model(x):
        regression(x)
        if broken[0]:
            raise KeyError("broken")

    svi = trial.svi(model)
    trial.steps(svi, 8)
    broken[0] = True
    trial.rejects(svi, X, error=KeyError)
    broken[0] = False
    trial.steps(svi, 8)


@compiled
def a_guide_that_raises_in_its_first_steps(trial):
    broken = [True]

    def guide(x):
        if broken[0]:
            raise ValueError("not ready")
        weights(x)

    svi = trial.svi(regression, guide)
    trial.rejects(svi, X)
    trial.rejects(svi, X)
    broken[0] = False
    trial.steps(svi, 12)


@either(says="inf|finite|NaN")
def a_loss_that_is_infinite(trial):
    weight = torch.tensor(1.0)

    def model(x):
        pyro.factor("f", -weight * pyro.param("w", torch.tensor(1.0)) ** 2)

    svi = trial.svi(model, no_guide, SGD({"lr": 0.01}))
    trial.steps(svi, 8)
    weight.fill_(3.0e38)
    trial.step(svi)
    weight.fill_(0.0)
