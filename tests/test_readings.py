"""Values that a model reads from Python itself: what changes is noticed, and what the model changes is not compiled."""

from __future__ import annotations

import functools
import math
from unittest import mock

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyrovae.compilation.readings import Readings
from torch import nn

import pyrovae as pv

DIM, ROWS = 6, 10
X = torch.linspace(-1, 2, ROWS * DIM).reshape(ROWS, DIM)


@pytest.fixture(autouse=True)
def _own_store():
    with pyro.get_param_store().scope():
        yield


def guide(x):
    loc = pyro.param("loc", torch.zeros(DIM))
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))


class Settings:
    scale = 1.0


settings = Settings()
number = 1.0


def scaled(scale):
    """A model whose likelihood has a scale that Python knows."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(DIM), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, scale()).to_event(1), obs=x)

    return model


def in_a_list():
    values = [1.0]
    return scaled(lambda: values[0]), lambda scale: values.__setitem__(0, scale)


def in_a_dictionary():
    values = {"scale": 1.0}
    return scaled(lambda: values["scale"]), lambda scale: values.update(scale=scale)


def in_a_closure():
    value = 1.0

    def change(scale):
        nonlocal value
        value = scale

    return scaled(lambda: value), change


def in_a_global():
    return scaled(lambda: number), lambda scale: globals().update(number=scale)


def in_an_attribute():
    settings.__dict__.clear()
    settings.scale = 1.0
    return scaled(lambda: settings.scale), lambda scale: vars(settings).update(scale=scale)


def in_a_class():
    return scaled(lambda: Settings.scale), lambda scale: setattr(Settings, "scale", scale)


def in_a_function():
    def scale():
        return scale.value

    scale.value = 1.0
    return scaled(scale), lambda value: setattr(scale, "value", value)


def in_a_default():
    def scale(values=[1.0]):  # noqa: B006  # a default that changes is what is tested
        return values[0]

    return scaled(scale), lambda value: scale.__defaults__[0].__setitem__(0, value)


def in_a_partial():
    values = [1.0]
    return scaled(functools.partial(lambda values: values[0], values)), lambda value: values.__setitem__(0, value)


class Likelihood:
    def __init__(self):
        self.values = [1.0]

    def model(self, x):
        return scaled(lambda: self.scale)(x)

    @property
    def scale(self):
        return self._helper() * number

    def _helper(self):
        return self.values[0]


def in_a_property():
    likelihood = Likelihood()
    return likelihood.model, lambda scale: likelihood.values.__setitem__(0, scale)


def in_a_global_of_a_method():
    return Likelihood().model, lambda scale: globals().update(number=scale)


PLACES = [in_a_list, in_a_dictionary, in_a_closure, in_a_global, in_an_attribute, in_a_class, in_a_function,
          in_a_default, in_a_partial, in_a_property, in_a_global_of_a_method]  # fmt: skip


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_a_value_of_python_that_changes_is_noticed_at_the_next_step(recorded, place):
    model, change = place()
    svi = pv.SVI(model, guide, pyro.optim.SGD({"lr": 0.0}), pv.ELBO(), compile=True)
    torch.manual_seed(0)
    before = [svi.step(X) for _ in range(6)]
    assert svi.compilations == 1
    change(0.1)
    with pytest.warns(UserWarning, match="what the model and the guide do in step has changed: compiling it anew"):
        after = svi.step(X)
    assert after > 10 * max(before)
    assert svi.compilations == 2
    change(1.0)


def test_a_model_that_counts_its_calls_runs_as_it_is():
    """A site that comes with the fifth call of the model."""
    counts = {"calls": 0}

    def model(x):
        counts["calls"] += 1
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(DIM), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0 if counts["calls"] < 10 else 0.1).to_event(1), obs=x)

    svi = pv.SVI(model, guide, pyro.optim.SGD({"lr": 0.0}), pv.ELBO())
    svi.num_calls = 10**9
    with (
        mock.patch("pyrovae.compilation.timings.SECONDS", 0.0),
        pytest.warns(
            UserWarning, match=r"it changes counts.calls, of Python, when it runs: what is compiled would not"
        ),
    ):
        losses = [svi.step(X) for _ in range(12)]
    assert svi.compilations == 0
    assert counts["calls"] > 10
    assert min(losses[-2:]) > 10 * max(losses[:4])


def test_values_that_change_nothing_are_looked_at_for_a_share_of_the_time(recorded):
    unused = [0.0]
    svi = pv.SVI(scaled(lambda: 1.0 if unused else 2.0), guide, pyro.optim.SGD({"lr": 0.0}), pv.ELBO(), compile=True)
    for _ in range(4):
        svi.step(X)
    program = next(iter(svi._calls.values())).compiled[0].program
    program._next_look, looks = math.inf, []
    program._captured, captured = lambda: looks.append(0) or captured(), program._captured
    program._looked_for, program._look_for, program._ran = 0.0, 0.01, 0.0
    for step in range(50):
        unused[0] += 1.0
        svi.step(X)
        program._looked_for, program._ran = 0.01 * len(looks), 0.02 * step  # seconds
    assert 8 <= len(looks) <= 1 + max(8, 0.05 * 0.02 * 50 / 0.01)
    assert svi.compilations == 1


def test_long_lists_and_libraries_are_not_followed():
    values, model = list(range(1000)), nn.Linear(2, 2)
    readings = Readings([lambda: (values, model, np, X)])
    values[0] = 7
    model.bias = None
    assert readings.changed() is None
    values, model = [], model
    assert readings.changed() == "values"
