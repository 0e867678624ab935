"""Values of Python that a model reads: globals, closures, defaults, functions, code."""

from __future__ import annotations

import dataclasses
import functools

import pyro
import torch

from scenarios.models import X, regression, weights
from scenarios.rows import compiled

NOISE = 1.0


TABLE = {"noise": 1.0}


def _stepped(trial, model, *changes, between=7):
    """Steps, and each of the changes followed by as many."""
    svi = trial.svi(model)
    trial.steps(svi, between)
    for change in changes:
        change()
        trial.steps(svi, between)
    return svi


@dataclasses.dataclass
class Settings:
    """Settings of a model."""

    noise: float = 1.0
    shift: float = 0.0


@compiled
def a_global(trial):
    global NOISE
    svi = trial.svi(lambda x: regression(x, NOISE))
    for NOISE in (1.0, 3.0, 0.5):  # noqa: B007
        trial.steps(svi, 7)


@compiled
def a_global_of_another_function(trial):
    global NOISE

    def read():
        return NOISE

    svi = trial.svi(lambda x: regression(x, read()))
    for NOISE in (1.0, 3.0, 0.5):  # noqa: B007
        trial.steps(svi, 7)


@compiled
def a_dictionary_that_is_a_global(trial):
    svi = trial.svi(lambda x: regression(x, TABLE["noise"]))
    for TABLE["noise"] in (1.0, 3.0, 1.0):
        trial.steps(svi, 7)


@compiled
def a_name_of_the_enclosing_function(trial):
    noise = 1.0

    def grow():
        nonlocal noise
        noise = 3.0

    _stepped(trial, lambda x: regression(x, noise), grow)


@compiled
def a_default(trial):
    def model(x, noise=1.0):
        regression(x, noise)

    def change():
        model.__defaults__ = (3.0,)

    _stepped(trial, model, change)


@compiled
def a_default_of_a_keyword(trial):
    def model(x, *, noise=1.0):
        regression(x, noise)

    _stepped(trial, model, lambda: model.__kwdefaults__.update(noise=3.0))


@compiled
def a_default_of_a_lambda_over_a_list(trial):
    box = [1.0]
    _stepped(trial, lambda x, box=box: regression(x, box[0]), lambda: box.__setitem__(0, 3.0))


@compiled
def an_attribute_of_a_function(trial):
    def model(x):
        regression(x, model.noise)

    model.noise = 1.0
    _stepped(trial, model, lambda: setattr(model, "noise", 3.0))


@compiled
def the_code_of_a_function(trial):
    def model(x):
        regression(x, 1.0)

    def other(x):
        regression(x, 3.0)

    def change():
        model.__code__ = other.__code__

    _stepped(trial, model, change)


@compiled
def a_partial_model(trial):
    model = functools.partial(regression, noise=1.0)
    _stepped(trial, model, lambda: model.keywords.update(noise=3.0))


@compiled
def a_partial_over_an_object(trial):
    settings = Settings()
    model = functools.partial(lambda settings, x: regression(x, settings.noise), settings)
    _stepped(trial, model, lambda: setattr(settings, "noise", 3.0))


@compiled
def a_nested_function(trial):
    noise = [1.0]

    def model(x):
        def inner():
            return noise[0]

        regression(x, inner())

    _stepped(trial, model, lambda: noise.__setitem__(0, 3.0))


@compiled
def a_decorated_model(trial):
    settings = {"factor": 1.0}

    def scaled(function):
        @functools.wraps(function)
        def run(*args):
            with pyro.poutine.scale(scale=settings["factor"]):
                return function(*args)

        return run

    svi = trial.svi(scaled(regression), scaled(weights))
    for settings["factor"] in (1.0, 0.2, 1.0):
        trial.steps(svi, 7)


@compiled
def the_strategy_in_a_dictionary(trial):
    links = {"link": torch.tanh}
    svi = trial.svi(lambda x: regression(x, y=links["link"](x.sum(-1))))
    for links["link"] in (torch.tanh, torch.relu, lambda y: 2 * y):
        trial.steps(svi, 7)


@compiled
def a_cell_that_holds_the_guide(trial):
    def narrow(x):
        pyro.sample("w", pyro.distributions.Normal(pyro.param("loc"), 0.01).to_event(1))

    inner = weights

    def guide(x):
        inner(x)

    svi = trial.svi(regression, guide)
    for inner in (weights, narrow, weights):  # noqa: B007
        trial.steps(svi, 7)


@compiled
def a_tensor_in_a_closure_is_replaced(trial):
    noise = torch.tensor(1.0)
    svi = trial.svi(lambda x: regression(x, noise))
    for noise in (torch.tensor(1.0), torch.tensor(3.0), torch.tensor(0.5), X[0, 0].abs()):  # noqa: B007
        trial.steps(svi, 6)
