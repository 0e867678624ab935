"""Attributes that a model reads: of objects, classes, modules of settings, dataclasses and namespaces."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import types

import pyro
import torch
from pyro.infer import TraceMeanField_ELBO
from pyro.optim import SGD
from torch import nn

from scenarios.models import regression
from scenarios.rows import compiled, either
from scenarios.values import Settings, _stepped


class Trainer:
    """A trainer with model and guide as methods, a weight of the KL term, and counters of its own."""

    rate = 1.0

    def __init__(self):
        self.net, self.beta, self.count, self.history, self.best = nn.Linear(3, 4), 1.0, 0, [], None

    @property
    def factor(self):
        return self.beta * self.rate

    def model(self, x):
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=self.factor):
            pyro.sample("z", pyro.distributions.Normal(torch.zeros(2), 1.0).to_event(1))

    def guide(self, x):
        pyro.module("net", self.net)
        loc, scale = self.net(x).chunk(2, -1)
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=self.factor):
            pyro.sample("z", pyro.distributions.Normal(loc, scale.exp()).to_event(1))


def _trainer(trial):
    trainer = Trainer()
    svi = trial.svi(trainer.model, trainer.guide, SGD({"lr": 1e-4}), TraceMeanField_ELBO())
    return trainer, svi


@compiled
def an_attribute(trial):
    trainer, svi = _trainer(trial)
    for trainer.beta in (1.0, 0.1, 2.0):
        trial.steps(svi, 8)


@either(says="count")
def a_counter_beside_the_attribute(trial):
    trainer, svi = _trainer(trial)
    for i in range(30):
        trainer.count += 1
        trainer.beta = 1.0 if i < 15 else 2.0
        trial.step(svi)


@either(says="history|best")
def a_history_beside_the_attribute(trial):
    trainer, svi = _trainer(trial)
    for i in range(30):
        trainer.history.append(trial.step(svi))
        trainer.best = min(trainer.history)
        trainer.beta = 1.0 if i < 15 else 2.0


@compiled
def an_attribute_of_the_class(trial):
    trainer, svi = _trainer(trial)
    trial.steps(svi, 8)
    try:
        Trainer.rate = 3.0
        trial.steps(svi, 8)
    finally:
        Trainer.rate = 1.0
    trainer.rate = 0.5
    trial.steps(svi, 8)


@compiled
def a_property_of_the_class(trial):
    _, svi = _trainer(trial)
    trial.steps(svi, 8)
    before = Trainer.factor
    try:
        Trainer.factor = property(lambda self: 4.0 * self.beta)
        trial.steps(svi, 8)
    finally:
        Trainer.factor = before


@compiled
def a_method_of_the_class(trial):
    class Model:
        def noise(self):
            return 1.0

        def __call__(self, x):
            regression(x, self.noise())

    def change():
        Model.noise = lambda self: 3.0

    _stepped(trial, Model(), change)


@compiled
def an_inherited_attribute(trial):
    class Base:
        noise = 1.0

    class Model(Base):
        def __call__(self, x):
            regression(x, self.noise)

    model = Model()
    _stepped(trial, model, lambda: setattr(Base, "noise", 3.0), lambda: setattr(model, "noise", 0.5))


@compiled
def a_slot(trial):
    class Settings:
        __slots__ = ("noise",)

    settings = Settings()
    settings.noise = 1.0
    _stepped(trial, lambda x: regression(x, settings.noise), lambda: setattr(settings, "noise", 3.0))


@compiled
def a_namespace_of_the_command_line(trial):
    args = argparse.Namespace(noise=1.0, name="run")
    _stepped(trial, lambda x: regression(x, args.noise), lambda: setattr(args, "noise", 3.0))


@compiled
def a_simple_namespace_in_a_namespace(trial):
    config = types.SimpleNamespace(model=types.SimpleNamespace(noise=1.0))
    _stepped(trial, lambda x: regression(x, config.model.noise), lambda: setattr(config.model, "noise", 3.0))


@compiled
def a_dataclass(trial):
    settings = Settings()
    _stepped(trial, lambda x: regression(x, settings.noise, settings.shift), lambda: setattr(settings, "noise", 3.0))


@compiled
def a_dataclass_that_is_replaced(trial):
    settings = Settings()

    def change():
        nonlocal settings
        settings = dataclasses.replace(settings, shift=2.0)

    _stepped(trial, lambda x: regression(x, settings.noise, settings.shift), change)


class Kind(enum.Enum):
    """How wide the noise is."""

    NARROW = 0.5
    WIDE = 3.0


@compiled
def a_member_of_an_enum(trial):
    state = types.SimpleNamespace(kind=Kind.NARROW)
    _stepped(trial, lambda x: regression(x, state.kind.value), lambda: setattr(state, "kind", Kind.WIDE))


@compiled
def a_module_of_settings(trial):
    settings = types.ModuleType("settings")
    settings.NOISE = 1.0
    _stepped(trial, lambda x: regression(x, settings.NOISE), lambda: setattr(settings, "NOISE", 3.0))
