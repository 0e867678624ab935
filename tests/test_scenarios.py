"""``pv.SVI`` gives the numbers of ``pyro.infer.SVI`` whatever changes during training, or runs eagerly and says why.

Every row of ``tests/scenarios`` runs under Pyro's SVI and under ``pv.SVI`` from one seed: eager, compiled because the
user insists, and compiled because it pays. Losses, parameters, buffers, the optimizer's state and the next random
number agree. Here each row runs in one compiled mode, and the recorded graph as it is. ``--all-modes`` runs each row in
all three; ``--compiler`` too, with the real compiler.
"""

from __future__ import annotations

import functools
import gc
import importlib
import pkgutil
import re

import pytest
import scenarios
import torch
from scenarios.rows import Row
from scenarios.trial import run

ANEW = re.compile(r"pv\.SVI: .*\banew\b")  # it followed a change by another compilation
MODES = {"eager": False, "insisted": True, "automatic": None}


def _rows():
    for found in pkgutil.iter_modules(scenarios.__path__):
        module = importlib.import_module(f"scenarios.{found.name}")
        for name, value in vars(module).items():
            rows = value if isinstance(value, dict) else {"": value}
            for key, row in rows.items():
                if isinstance(row, Row):
                    yield f"{found.name}-{name}{f'-{key}' if key else ''}", row


ROWS = dict(_rows())


@functools.cache
def expected(name):
    """The numbers and warnings under Pyro's SVI."""
    _, numbers, messages, _ = run(ROWS[name].scenario)
    return numbers, messages


def test_there_are_two_hundred_rows_at_least():
    assert len(ROWS) >= 200


def pytest_generate_tests(metafunc):
    """Every row in every mode; in the usual suite insisted and automatic by turns, for a recording takes a second."""
    if "mode" not in metafunc.fixturenames:
        return
    option = metafunc.config.getoption
    if option("compiler") or option("all_modes"):
        cases = [(mode, name) for mode in MODES for name in ROWS]
    else:
        cases = [("automatic" if i % 2 else "insisted", name) for i, name in enumerate(ROWS)]
    metafunc.parametrize(("mode", "name"), cases)


@pytest.fixture(autouse=True, scope="module")
def _old_objects_are_not_collected():
    """A collection of garbage looks at all that was imported, a quarter of the time of a recording."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def test_a_change_during_training_is_followed(mode, name, request):
    if not request.config.getoption("compiler"):
        request.getfixturevalue("recorded")
    row = ROWS[name]
    numbers, messages = expected(name)
    trial, got, caught, refusal = run(row.scenario, compile=MODES[mode])
    said = [message for message in caught if message.startswith("pv.SVI")]
    assert set(caught) - set(said) <= set(messages), "a warning that Pyro's SVI does not give"
    on_trust = mode == "insisted" and row.kind in ("trusted", "foreign") and said
    if refusal is None and not on_trust:
        _assert_equal(got, numbers)
    if mode == "eager":
        assert not said
    else:
        _assert_said(row, mode, trial, [message for message in said if not ANEW.match(message)], refusal)


def _assert_said(row, mode, trial, said, refusal):
    counts = [svi.compilations for svi in trial.svis]
    if row.kind == "compiled":
        assert refusal is None, refusal
        assert not said, said
        assert min(counts) >= 1, f"it was not compiled: {counts}"
        assert row.most is None or max(counts) <= row.most, f"it was compiled too often: {counts}"
        return
    if row.kind == "refused" and mode == "insisted":
        assert refusal is not None, "compile=True did not raise"
    if row.kind in ("given up", "refused", "trusted") and refusal is None:
        assert len(said) == 1, f"one warning was expected, got {said}"
    if row.kind in ("refused", "trusted") and mode == "automatic":
        assert max(counts) == 0, f"it was compiled: {counts}"
    if row.kind == "given up":
        assert refusal is None, refusal
    assert len(said) <= len(trial.svis), said
    for message in [*said, *([refusal] if refusal else [])]:
        assert re.search(row.says, message), message


def _assert_equal(got, expected):
    assert list(got) == list(expected)
    for name, value in expected.items():
        same = got[name].shape == value.shape and torch.allclose(got[name], value, rtol=1e-4, atol=1e-5, equal_nan=True)
        assert same, f"{name}: {got[name].tolist()[:6]} where Pyro's SVI has {value.tolist()[:6]}"
