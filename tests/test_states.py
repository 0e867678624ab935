"""The file of a run's state: what comes back, and what a damaged or foreign file is answered with."""

import json
import math
import os
import random

import pytest
import safetensors.torch
import torch

from pyrovae.train import states

STATE = {
    "weights": {"a.weight": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), "b": torch.tensor(2.0)},
    "optimizer": {"a": {"state": {0: {"step": torch.tensor(7.0)}}, "param_groups": [{"betas": (0.9, 0.999)}]}},
    "random": {"cpu": torch.arange(9, dtype=torch.uint8), "python": (3, (1, 2), None)},
    "kinds": [torch.zeros(0), torch.ones(2, dtype=torch.bfloat16), torch.tensor([True, False]), torch.ones(3, 2).T],
    "stride of zero": torch.ones(()).expand(1),
    "history": {"epoch": [1.0, 2.0], "val_loss": [math.nan, -math.inf, 0.1]},
    "step": 2**60,
    "reason": None,
    "text": "Übung",
}


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


def test_a_state_comes_back_as_it_was(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    states.write_state(path, STATE)
    again = states.read_state(path)
    assert same(again, STATE)
    assert os.listdir(tmp_path) == ["checkpoint.safetensors"]
    states.write_state(path, again)
    assert same(states.read_state(path), STATE)


def test_a_tensor_in_two_places_is_written_once_and_read_apart(tmp_path):
    path, x = tmp_path / "state", torch.randn(1000)
    states.write_state(path, {"weights": x, "best": x})
    assert path.stat().st_size < 6000
    again = states.read_state(path)
    again["weights"].zero_()
    assert torch.equal(again["best"], x)


def test_the_file_is_one_of_safetensors_and_holds_every_dtype(tmp_path):
    path = tmp_path / "state"
    tensors = [torch.arange(3).to(dtype) for dtype in states.DTYPES]
    states.write_state(path, tensors)
    again = safetensors.torch.load_file(path)
    assert same([again[name] for name in sorted(again, key=lambda name: int(name.split()[0]))], tensors)
    assert same(states.read_state(path), tensors)
    with pytest.raises(TypeError, match=r"state\['x'\] is a tensor of torch.complex128, which no checkpoint can hold"):
        states.write_state(path, {"x": torch.zeros(1, dtype=torch.complex128)})


@pytest.mark.parametrize("value", [object(), {1, 2}, torch.float32, print, b"bytes", 1j])
def test_what_a_file_cannot_hold_is_named(value, tmp_path):
    with pytest.raises(TypeError, match=r"state\['callbacks'\]\[0\] is of type .*, which no checkpoint can hold"):
        states.write_state(tmp_path / "state", {"callbacks": [value]})
    assert os.listdir(tmp_path) == []


def test_damage_is_found(tmp_path):
    """Every kind of damage by one byte, and every length: never another state, never another error."""
    path, draw = tmp_path / "state", random.Random(0)
    states.write_state(path, STATE)
    whole = path.read_bytes()
    for trial in range(600):
        raw = bytearray(whole)
        place = draw.randrange(len(raw))
        if trial % 3 == 0:
            del raw[place:]
        elif trial % 3 == 1:
            raw[place] ^= 1 << draw.randrange(8)
        else:
            raw[place : place + 16] = bytes(len(raw[place : place + 16]))
        if bytes(raw) == whole:
            continue
        path.write_bytes(raw)
        said = None
        try:
            again = states.read_state(path)
        except ValueError as error:
            said = str(error)
        if said is None:
            assert same(again, STATE), "only what nobody reads may differ, such as a space"
        else:
            assert said.startswith(f"{str(path)!r} cannot be resumed from: ")
            assert "\n" not in said


def with_metadata(path, **changes):
    metadata = {"format": "1", "state": "{}", "sha256": "0", **changes}
    path.write_bytes(safetensors.torch.save({}, {name: text for name, text in metadata.items() if text is not None}))


def test_foreign_and_newer_files_are_refused(tmp_path):
    path = tmp_path / "state"
    with pytest.raises(FileNotFoundError, match="there is no file"):
        states.read_state(path)
    os.mkfifo(path)
    with pytest.raises(ValueError, match="must be a regular file, got a pipe"):
        states.read_state(path)
    path.unlink()
    with_metadata(path, format="2")
    with pytest.raises(ValueError, match="it has format 2, of a newer pyrovae; this one reads 1"):
        states.read_state(path)
    for changes in ({"format": None}, {"state": None}, {"format": "one"}):
        with_metadata(path, **changes)
        with pytest.raises(ValueError, match="it is not a checkpoint of pyrovae"):
            states.read_state(path)
    with_metadata(path)
    with pytest.raises(ValueError, match="its JSON is damaged"):
        states.read_state(path)


@pytest.mark.parametrize("tree", ['{"class": "os.system"}', '{"tensor": "x"}', "{}", "[" * 100_000, '{"dict": 3}'])
def test_a_forged_tree_executes_nothing(tree, tmp_path):
    path = tmp_path / "state"
    with_metadata(path, state=tree, sha256=states._hash(tree))
    with pytest.raises(ValueError, match="cannot be resumed from"):
        states.read_state(path)
    assert json.dumps(sorted(os.listdir(tmp_path))) == '["state"]'
