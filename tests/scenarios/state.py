"""Models that write state of their own, and values from outside of the program."""

from __future__ import annotations

import collections
import itertools
import math
import os
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import pyro
import torch

from scenarios.models import X, no_guide, observe, regression
from scenarios.rows import compiled, either, foreign, trusted


@either(says="calls|count|each|every|changes|same")
def a_model_that_counts_its_calls(trial):
    calls = [0]

    def model(x):
        calls[0] += 1
        regression(x, 1.0 + 1.0 / calls[0])

    trial.steps(trial.svi(model), 20)
    trial.keep(calls[0])


@either(says="history|log|list|each|every|same")
def a_model_that_keeps_a_log(trial):
    history = []

    def model(x):
        history.append(len(x))
        regression(x)

    trial.steps(trial.svi(model), 20)
    trial.keep(len(history))


@foreign(says="history|deque|each|every|same")
def a_model_that_keeps_its_last_means(trial):
    history = collections.deque(maxlen=3)

    def model(x):
        history.append(x.mean())
        regression(x, 1.0 + sum(history).abs())

    svi = trial.svi(model)
    for i in range(20):
        trial.step(svi, X * (1 + i / 10))
    trial.keep(*history)


@foreign(says="count|iterat|next|each|every|same")
def an_iterator(trial):
    numbers = itertools.count(1)
    trial.steps(trial.svi(lambda x: regression(x, float(next(numbers)))), 20)


@foreign(says="generator|batches|iterat|each|every|same")
def a_generator_of_batches(trial):
    def batches():
        while True:
            yield from X.split(8)

    source = batches()
    svi = trial.svi(lambda: regression(next(source)))
    for _ in range(20):
        trial.step_alone(svi)


@trusted(says="random|draw|same")
def a_draw_of_python(trial):
    trial.steps(trial.svi(lambda x: regression(x, 1.0 + random.random())), 20)


@trusted(says="random|NumPy|numpy|draw|same")
def a_draw_of_numpy(trial):
    trial.steps(trial.svi(lambda x: regression(x, 1.0 + float(np.random.rand()))), 20)  # noqa: NPY002


@trusted(says=r"environ|\bos\b")
def an_environment_variable(trial):
    svi = trial.svi(lambda x: regression(x, float(os.environ.get("SCENARIO_NOISE", "1.0"))))
    trial.steps(svi, 10)
    try:
        os.environ["SCENARIO_NOISE"] = "3.0"
        trial.steps(svi, 10)
    finally:
        del os.environ["SCENARIO_NOISE"]


@trusted(says="open|file|Path|path")
def a_file(trial):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise.txt"
        path.write_text("1.0")
        svi = trial.svi(lambda x: regression(x, float(path.read_text())))
        trial.steps(svi, 10)
        path.write_text("3.0")
        trial.steps(svi, 10)


@foreign(says="time")
def the_clock(trial):
    def model(x):
        start = time.perf_counter()
        regression(x)
        assert time.perf_counter() - start < 100

    trial.steps(trial.svi(model), 16)


@compiled
def a_module_imported_in_the_model(trial):
    def model(x):
        import math

        regression(x, math.sqrt(2.0))

    trial.steps(trial.svi(model), 16)


@compiled
def a_constant_of_math_is_replaced(trial):
    svi = trial.svi(lambda x: regression(x, math.e))
    trial.steps(svi, 10)
    before = math.e
    try:
        math.e = 1.0
        trial.steps(svi, 10)
    finally:
        math.e = before


@compiled
def a_mean_that_the_model_moves(trial):
    """A running mean in a closure, moved in place once a step, also while the step is recorded."""
    mean = torch.zeros(3)

    def model(x):
        with torch.no_grad():
            mean.mul_(0.9).add_(0.1 * x.mean(0))
        observe((x - mean) @ pyro.param("w", torch.zeros(3)), x)

    svi = trial.svi(model, no_guide)
    for i in range(20):
        trial.step(svi, X + i / 10)
    trial.keep(mean)


@either(says="mean|state|same")
def a_mean_that_the_model_replaces(trial):
    state = {"mean": torch.zeros(3)}

    def model(x):
        state["mean"] = 0.9 * state["mean"] + 0.1 * x.mean(0)
        observe((x - state["mean"]) @ pyro.param("w", torch.zeros(3)), x)

    svi = trial.svi(model, no_guide)
    for i in range(20):
        trial.step(svi, X + i / 10)
    trial.keep(state["mean"])


@compiled
def a_count_of_steps_in_a_tensor(trial):
    count = torch.zeros(())

    def model(x):
        count.add_(1.0)
        regression(x, 1.0 + 1.0 / count)

    trial.steps(trial.svi(model), 20)
    trial.keep(count)
