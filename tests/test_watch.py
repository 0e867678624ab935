"""Equal keys of ``Watch`` are equal steps: every value that code can read from Python is in the key."""

from __future__ import annotations

import collections
import functools
import os
import pathlib
import random
import sys
import time
import types

import numpy as np
import pytest
import torch
from torch import nn

from pyrovae.compilation import Watch


class Settings:
    scale = 1.0

    def __init__(self):
        self.width = 1.0

    @property
    def doubled(self):
        return self.width * 2


settings = Settings()
number = 1.0
user_module = types.ModuleType("user_module")
user_module.scale = 1.0
sys.modules["user_module"] = user_module


def in_a_global():
    return (lambda: number), lambda x: globals().update(number=x)


def in_a_closure():
    value = 1.0

    def change(x):
        nonlocal value
        value = x

    return (lambda: value), change


def in_a_default():
    def read(value=1.0, *, other=1.0):
        return value + other

    return read, lambda x: setattr(read, "__defaults__", (x,))


def in_a_keyword_default():
    def read(*, value=1.0):
        return value

    return read, lambda x: read.__kwdefaults__.update(value=x)


def in_a_partial():
    values = [1.0]
    return functools.partial(lambda values: values[0], values), lambda x: values.__setitem__(0, x)


def in_a_function():
    def read():
        return read.value

    read.value = 1.0
    return read, lambda x: setattr(read, "value", x)


def in_an_attribute():
    return (lambda: settings.width), lambda x: setattr(settings, "width", x)


def in_a_property():
    return (lambda: settings.doubled), lambda x: setattr(settings, "width", x)


def in_a_class():
    return (lambda: Settings.scale), lambda x: setattr(Settings, "scale", x)


def in_a_module_of_the_user():
    import user_module

    return (lambda: user_module.scale), lambda x: setattr(user_module, "scale", x)


def in_a_list():
    values = [[1.0]]
    return (lambda: values[0][0]), lambda x: values[0].__setitem__(0, x)


def in_a_deque():
    values = collections.deque([1.0])
    return (lambda: values[0]), lambda x: values.__setitem__(0, x)


def in_a_set():
    values = {1.0}

    def change(x):
        values.clear()
        values.add(x)

    return (lambda: max(values)), change


def in_a_dictionary():
    values = {"a": 1.0}
    return (lambda: values["a"]), lambda x: values.update(a=x)


def in_a_new_key():
    values = {}
    return (lambda: len(values)), lambda x: values.clear() if x == 1.0 else values.update(a=x)


def in_the_order_of_keys():
    values = {"a": 1.0, "b": 2.0}
    return (
        lambda: next(iter(values))
    ), lambda x: values.update(a=values.pop("a")) or (values.update(b=values.pop("b")) if x == 1.0 else None)


def in_a_small_array():
    values = np.ones(3)
    return (lambda: values[0]), lambda x: values.__setitem__(0, x)


def in_the_type_of_a_number():
    values = [1.0]
    return (lambda: values[0]), lambda x: values.__setitem__(0, 1.0 if x == 1.0 else True)


def in_a_path():
    values = [pathlib.Path("a")]
    return (lambda: values[0].name), lambda x: values.__setitem__(0, pathlib.Path("a" if x == 1.0 else "b"))


def in_a_module_of_torch():
    network = nn.Dropout(0.1)
    return network, lambda x: network.train(x == 1.0)


def in_the_layout_of_a_tensor():
    values = [torch.zeros(2)]
    return (lambda: values[0]), lambda x: values.__setitem__(0, torch.zeros(2 if x == 1.0 else 3))


PLACES = [value for name, value in list(globals().items()) if name.startswith("in_")]


def of(read, **options):
    return Watch({"it": read}, **options)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_a_change_changes_the_key_and_its_end_brings_it_back(place):
    read, change = place()
    watch = of(read)
    assert not watch.opaque
    assert watch.same()
    assert of(read).key == watch.key
    change(2.0)
    assert not watch.same()
    assert of(read).key != watch.key
    assert watch.difference(of(read))
    change(1.0)
    assert of(read).key == watch.key


def test_values_of_tensors_are_not_in_the_key():
    x = torch.zeros(2)
    watch = of(lambda: x)
    x.fill_(3.0)
    assert watch.same()
    assert [each is x for each in watch.tensors] == [True]


def test_two_equal_functions_have_one_key():
    def make(value):
        return lambda: value

    assert of(make(2.0)).key == of(make(2.0)).key != of(make(3.0)).key


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (lambda: random.random(), "random"),
        (lambda: time.time(), "time"),
        (lambda: os.getpid(), "os"),
        (lambda: np.random.rand(), "random"),  # noqa: NPY002
        (lambda: print(1), "print()"),
        (lambda: pathlib.Path("a").read_text(), "read_text"),
    ],
    ids=["random", "time", "os", "numpy.random", "print", "read_text"],
)
def test_code_whose_results_vary_or_that_has_effects_is_opaque(read, name):
    assert any(name in each for each in of(read).opaque)


def test_numpy_without_its_random_numbers_is_followed():
    assert not of(lambda: np.sqrt(2.0) * np.pi).opaque


def test_a_large_array_is_opaque_and_named():
    values = np.zeros(10_000)
    assert of(lambda: values[0]).opaque == {
        "values": "a NumPy array of 80,000 bytes, whose values are not compared at each step"
    }


def test_iterators_and_generators_are_named():
    iterator, generator = iter([1, 2]), (i for i in range(3))
    assert of(lambda: next(iterator)).moving == ["iterator"]
    assert of(lambda: next(generator)).moving == ["generator"]
    assert list(iterator) == [1, 2], "the walk moves none"


def test_a_module_with_a_hook_is_named():
    network = nn.Linear(2, 2)
    watch = of(network)
    handle = network.register_forward_hook(lambda *args: None)
    assert not watch.same()
    assert of(network).hooked
    handle.remove()
    assert watch.same()


class Owner:
    """Its model reads one of its attributes, and its training the other."""

    def __init__(self):
        self.scale, self.epoch, self.history = 1.0, 0, iter([])

    def model(self):
        return self.scale


def test_attributes_of_the_owner_of_a_model_are_followed_if_the_code_names_them():
    owner = Owner()
    watch = Watch({"model": owner.model})
    assert not watch.moving
    owner.epoch += 1
    assert watch.same()
    owner.scale = 2.0
    assert not watch.same()


def test_attributes_of_another_object_are_all_followed():
    owner = Owner()
    watch = of(lambda: owner)
    assert watch.moving
    owner.epoch += 1
    assert of(lambda: owner).key != watch.key


def test_ignored_names_are_not_followed():
    values, counter = {"a": 1.0}, [0]

    def read():
        counter[0] += 1
        return values["a"], settings.width

    watch = of(read, ignore=frozenset({"counter", "width"}))
    read()
    settings.width = 5.0
    assert watch.same()
    settings.width = 1.0
    values["a"] = 2.0
    assert not watch.same()


def test_values_that_were_replaced_added_or_removed_are_put_back():
    values, counts, items = {"a": 1.0, "b": 2.0}, [1, 2], collections.deque([3])
    kept = {4}
    network = nn.Linear(2, 2)
    weight = network.weight

    def read():
        return values, counts, items, kept, network, settings.width

    watch = of(read)
    assert watch.put_back() is None
    values.update(a=5.0, c=7.0)
    counts.append(3)
    items.clear()
    kept.add(5)
    network.extra = 1
    network.weight = nn.Parameter(torch.zeros(2, 3))
    settings.width = 9.0
    assert watch.put_back() is not None
    assert (values, counts, list(items), kept) == ({"a": 1.0, "b": 2.0}, [1, 2], [3], {4})
    assert network.weight is weight
    assert not hasattr(network, "extra")
    assert settings.width == 1.0
    assert watch.same()


def test_deep_values_end_in_a_name_and_not_in_an_error():
    values = []
    for _ in range(100_000):
        values = [values]
    assert of(lambda: values).opaque
