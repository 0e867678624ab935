"""Containers that a model reads, and numbers that are others at each step."""

from __future__ import annotations

import collections
import contextvars
import threading
import types

import numpy as np
import torch

from scenarios.models import regression
from scenarios.rows import compiled, either, foreign, given_up, once


def _changed(make, read, change):
    """A value is read by the model from a container, which changes half-way."""

    def scenario(trial):
        box = make()
        svi = trial.svi(lambda x: regression(x, read(box)))
        trial.steps(svi, 10)
        change(box)
        trial.steps(svi, 10)

    return scenario


CONTAINERS = {
    "list": compiled(_changed(lambda: [1.0], lambda box: box[0], lambda box: box.__setitem__(0, 3.0))),
    "length of a list": compiled(_changed(lambda: [7], lambda box: float(len(box)), lambda box: box.append("x"))),
    "long list": compiled(
        _changed(lambda: [1.0] * 500, lambda box: sum(box) / 500, lambda box: box.extend([9.0] * 500))
    ),
    "nested": compiled(
        _changed(lambda: {"a": [{"b": 1.0}]}, lambda box: box["a"][0]["b"], lambda box: box["a"][0].update(b=3.0))
    ),
    "order of a dictionary": compiled(
        _changed(lambda: {1.0: 0, 3.0: 0}, lambda box: next(iter(box)), lambda box: box.update({1.0: box.pop(1.0)}))
    ),
    "set": compiled(_changed(set, lambda box: 3.0 if "wide" in box else 1.0, lambda box: box.add("wide"))),
    "frozen set in a list": compiled(
        _changed(lambda: [frozenset()], lambda box: 1.0 + len(box[0]), lambda box: box.__setitem__(0, frozenset("ab")))
    ),
    "default dictionary": compiled(
        _changed(lambda: collections.defaultdict(lambda: 1.0), lambda box: box["a"], lambda box: box.update(a=3.0))
    ),
    "ordered dictionary": compiled(
        _changed(
            lambda: collections.OrderedDict(a=1.0, b=3.0),
            lambda box: next(iter(box.values())),
            lambda box: box.move_to_end("a"),
        )
    ),
    "counter": compiled(
        _changed(lambda: collections.Counter("a"), lambda box: float(box["a"]), lambda box: box.update("aa"))
    ),
    "deque": foreign(says="deque")(
        _changed(lambda: collections.deque([1.0], 4), lambda box: box[-1], lambda box: box.append(3.0))
    ),
    "mapping proxy": foreign(says="mappingproxy|Mapping")(
        _changed(lambda: {"a": 1.0}, lambda box: types.MappingProxyType(box)["a"], lambda box: box.update(a=3.0))
    ),
    "chain of mappings": either(says="ChainMap|Chain")(
        _changed(
            lambda: collections.ChainMap({}, {"a": 1.0}), lambda box: box["a"], lambda box: box.maps[1].update(a=3.0)
        )
    ),
    "user's dictionary": compiled(
        _changed(lambda: collections.UserDict(a=1.0), lambda box: box["a"], lambda box: box.update(a=3.0))
    ),
    "byte array": foreign(says="bytearray|byte")(
        _changed(lambda: bytearray([1]), lambda box: float(box[0]), lambda box: box.__setitem__(0, 3))
    ),
    "thread's own": foreign(says="local|thread")(
        _changed(
            lambda: threading.local(), lambda box: getattr(box, "noise", 1.0), lambda box: setattr(box, "noise", 3.0)
        )
    ),
    "context variable": foreign(says="ContextVar|context")(
        _changed(lambda: contextvars.ContextVar("noise", default=1.0), lambda box: box.get(), lambda box: box.set(3.0))
    ),
    "array": compiled(_changed(lambda: np.ones(1), lambda box: float(box[0]), lambda box: box.__setitem__(0, 3.0))),
    "list of tensors": compiled(
        _changed(lambda: [torch.tensor(1.0)], lambda box: sum(box), lambda box: box.append(torch.tensor(2.0)))
    ),
    "tensor in a dictionary": compiled(
        _changed(
            lambda: {"noise": torch.tensor(1.0)},
            lambda box: box["noise"],
            lambda box: box.update(noise=torch.tensor(3.0)),
        )
    ),
    "tensor moved in place": once(
        _changed(lambda: [torch.tensor(1.0)], lambda box: box[0], lambda box: box[0].fill_(3.0))
    ),
}


@given_up(says="noise|schedule|each|every|box")
def a_number_that_is_another_at_each_step(trial):
    box = {"noise": 1.0}
    svi = trial.svi(lambda x: regression(x, box["noise"]))
    for i in range(30):
        box["noise"] = 1.0 + max(0, i - 8) / 10
        trial.step(svi)


@given_up(says="noise|each|every|NOISE")
def a_global_that_is_another_at_each_step(trial):
    settings = types.ModuleType("settings")
    settings.noise = 1.0
    svi = trial.svi(lambda x: regression(x, settings.noise))
    for i in range(30):
        settings.noise = 1.0 + max(0, i - 8) / 10
        trial.step(svi)
