"""The state of a run as one file: tensors as safetensors, everything else as JSON, nothing that could be executed."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from pyrovae.files import check_regular, write_whole

__all__ = ["FORMAT", "parts", "read_state", "write_state"]

FORMAT = 1
SCALARS = (str, int, float, bool, type(None))
DTYPES = {  # as safetensors calls them
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.complex64: "C64",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def write_state(path: str | Path, state: Any) -> None:
    """Write a state to a file that is there completely or not at all.

    Args:
        path: The file; its folder exists.
        state: Tensors, numbers, texts and None, in dictionaries, lists and tuples.

    Raises: TypeError for a value of another type, with its place in the state; OSError that names the file.
    """
    write_whole(path, parts(state))


def parts(state: Any) -> list[bytes | memoryview]:
    """The content of the file: the tensors, each under its number and checksum, and the JSON with its hash beside.

    A checksum notices damage in half the time of a hash, and the file holds nothing that could be executed. The bytes
    of a tensor are not copied; ``safetensors.torch.save`` copies them, and ``save_file`` leaves a file of another name
    when it is killed.
    """
    encoder = Encoder()
    text = json.dumps(encoder.encoded(state, "state"))
    tensors = dict(sorted(encoder.tensors.items(), key=lambda item: -item[1].element_size()))  # each is then aligned
    metadata = {"format": str(FORMAT), "state": text, "sha256": _hash(text)}
    header: dict[str, Any] = {"__metadata__": metadata}
    start = 0
    for name, tensor in tensors.items():
        end = start + tensor.nbytes
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return [len(head).to_bytes(8, "little"), head, *(_raw(tensor) for tensor in tensors.values() if tensor.numel())]


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
        if _hash(metadata["state"]) != metadata["sha256"]:
            raise ValueError("its JSON is damaged")
        if any(_checksum(tensor) != name.partition(" ")[2] for name, tensor in tensors.items()):
            raise ValueError("a tensor is damaged")
        return _decoded(json.loads(metadata["state"]), tensors)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} cannot be resumed from: {error}") from error


class Encoder:
    """Tells tensors of a state from everything else, which becomes JSON. Each tensor is there once."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[int, str] = {}  # by the identity of a tensor

    def encoded(self, value: Any, place: str) -> Any:
        if isinstance(value, Tensor):
            return {"tensor": self._names.get(id(value)) or self._add(value, place)}
        if isinstance(value, dict):  # keys may be whole numbers, as those of torch's optimizers are
            return {
                "dict": [
                    [self.encoded(key, place), self.encoded(each, f"{place}[{key!r}]")] for key, each in value.items()
                ]
            }
        if isinstance(value, (list, tuple)):
            items = [self.encoded(each, f"{place}[{i}]") for i, each in enumerate(value)]
            return {"tuple": items} if isinstance(value, tuple) else items
        if not isinstance(value, SCALARS):
            raise TypeError(
                f"{place} is of type {type(value).__name__}, which no checkpoint can hold: use tensors, numbers and "
                f"texts in dictionaries and lists"
            )
        return value

    def _add(self, value: Tensor, place: str) -> str:
        if value.dtype not in DTYPES:
            raise TypeError(f"{place} is a tensor of {value.dtype}, which no checkpoint can hold")
        tensor = value.detach().cpu().contiguous()
        name = self._names[id(value)] = f"{len(self.tensors)} {_checksum(tensor)}"
        self.tensors[name] = tensor
        return name


def _decoded(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decoded(each, tensors) for each in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content].clone()  # a tensor that was in two places is two
    if kind == "tuple":
        return tuple(_decoded(each, tensors) for each in content)
    if kind != "dict":
        raise ValueError(f"it has an unknown kind of value {kind!r}")
    return {_decoded(key, tensors): _decoded(each, tensors) for key, each in content}


def _checksum(tensor: Tensor) -> str:
    """Of dtype, shape and content."""
    return f"{zlib.crc32(_raw(tensor), zlib.crc32(f'{tensor.dtype} {tuple(tensor.shape)}'.encode())):08x}"


def _raw(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor."""
    flat = tensor.reshape(-1)
    if flat.stride(0) != 1:  # of one number, whose stride torch does not care about
        flat = flat.clone(memory_format=torch.contiguous_format)
    raw: memoryview = flat.view(torch.uint8).numpy().data
    return raw


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
