"""The state of a run as one file: tensors as safetensors, everything else as JSON, nothing that could be executed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from pyrovae.files import check_regular, write_whole

__all__ = ["FORMAT", "as_bytes", "read_state", "write_state"]

FORMAT = 1
SCALARS = (str, int, float, bool, type(None))


def write_state(path: str | Path, state: Any) -> None:
    """Write a state to a file that is there completely or not at all.

    Args:
        path: The file; its folder exists.
        state: Tensors, numbers, texts and None, in dictionaries, lists and tuples.

    Raises: TypeError for a value of another type, with its place in the state; OSError that names the file.
    """
    write_whole(path, as_bytes(state))


def as_bytes(state: Any) -> bytes:
    """The content of the file: each tensor once, under the hash of its content, and the JSON with its hash beside."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_encoded(state, tensors, "state"))
    metadata = {"format": str(FORMAT), "state": text, "sha256": _hash(text.encode())}
    return safetensors.torch.save(tensors, metadata)


def read_state(path: str | Path) -> Any:
    """The state that :func:`write_state` wrote, with tensors on the CPU.

    Raises: FileNotFoundError; ValueError of one line for a file that is cut short, damaged, foreign or of a newer
        version.
    """
    check_regular(path)
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            if not {"format", "state", "sha256"} <= metadata.keys() or not metadata["format"].isdecimal():
                raise ValueError("it is not a checkpoint of pyrovae")
            if int(metadata["format"]) > FORMAT:
                raise ValueError(f"it has format {metadata['format']}, of a newer pyrovae; this one reads {FORMAT}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is not a dictionary
        if _hash(metadata["state"].encode()) != metadata["sha256"]:
            raise ValueError("its JSON is damaged")
        if any(_hash_of(tensor) != name for name, tensor in tensors.items()):
            raise ValueError("a tensor is damaged")
        return _decoded(json.loads(metadata["state"]), tensors)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} cannot be resumed from: {error}") from error


def _encoded(value: Any, tensors: dict[str, Tensor], place: str) -> Any:
    if isinstance(value, Tensor):
        tensor = value.detach().cpu().contiguous()
        name = _hash_of(tensor)
        tensors.setdefault(name, tensor)
        return {"tensor": name}
    if isinstance(value, dict):  # keys may be whole numbers, as those of torch's optimizers are
        pairs = [
            [_encoded(key, tensors, place), _encoded(each, tensors, f"{place}[{key!r}]")] for key, each in value.items()
        ]
        return {"dict": pairs}
    if isinstance(value, (list, tuple)):
        items = [_encoded(each, tensors, f"{place}[{i}]") for i, each in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if not isinstance(value, SCALARS):
        raise TypeError(
            f"{place} is of type {type(value).__name__}, which no checkpoint can hold: use tensors, numbers and texts "
            f"in dictionaries and lists"
        )
    return value


def _decoded(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decoded(each, tensors) for each in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content].clone()  # the file has equal tensors once
    if kind == "tuple":
        return tuple(_decoded(each, tensors) for each in content)
    if kind != "dict":
        raise ValueError(f"it has an unknown kind of value {kind!r}")
    return {_decoded(key, tensors): _decoded(each, tensors) for key, each in content}


def _hash_of(tensor: Tensor) -> str:
    """Of dtype, shape and content."""
    head = f"{tensor.dtype} {tuple(tensor.shape)} ".encode()
    flat = tensor.reshape(-1)
    if flat.stride(0) != 1:  # of one number, whose stride torch does not care about
        flat = flat.clone(memory_format=torch.contiguous_format)
    return _hash(head, flat.view(torch.uint8).numpy().data)


def _hash(*parts: bytes | memoryview) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
