"""What a compressed file holds: little-endian numbers, in this order.

======== ============ =========================================================================
bytes    number       what
======== ============ =========================================================================
4        magic        ``pvbb``
1        version      of this format
1        dims         how many dimensions a datum has
4        rows         how many data
4        words        how many 32-bit words the stack of bits has
8        fingerprint  of the model: classes of its modules, and all its weights
4 each   shape        of a datum
4 each   words        the stack of bits
4        checksum     CRC-32 of all that stands before
======== ============ =========================================================================
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

__all__ = ["Contents", "fingerprint", "pack", "unpack"]

MAGIC = b"pvbb"
VERSION = 1
HEADER = struct.Struct("<4sBBII8s")
CHECKSUM = struct.Struct("<I")


class Contents(NamedTuple):
    """Of a compressed file: the shape of x, the stack of bits, and the model that made it."""

    shape: tuple[int, ...]
    words: NDArray[np.uint32]
    fingerprint: bytes


def pack(contents: Contents) -> bytes:
    """The bytes of a file."""
    (rows, *event_shape), words, model = contents
    body = HEADER.pack(MAGIC, VERSION, len(event_shape), rows, len(words), model)
    body += struct.pack(f"<{len(event_shape)}I", *event_shape) + words.astype("<u4").tobytes()
    return body + CHECKSUM.pack(zlib.crc32(body))


def unpack(compressed: bytes, model: bytes) -> Contents:
    """The contents of a file that the model of this fingerprint made.

    Raises: ValueError that says whether it is no such file, cut short, damaged, or of another model.
    """
    if not isinstance(compressed, (bytes, bytearray, memoryview)):
        raise ValueError(f"compressed must be bytes, got {type(compressed).__name__}")
    compressed = bytes(compressed)
    if compressed[: len(MAGIC)] != MAGIC[: len(compressed)] or not compressed:
        raise ValueError(f"compressed must start with {MAGIC!r}, as what compress() makes, got {compressed[:4]!r}")
    if len(compressed) < HEADER.size:
        raise ValueError(f"compressed is cut short: it has {len(compressed)} bytes, and its header alone {HEADER.size}")
    _, version, num_dims, rows, num_words, made_by = HEADER.unpack_from(compressed)
    if version != VERSION:
        raise ValueError(f"compressed has format {version}, and this pyrovae reads format {VERSION}")
    start = HEADER.size + 4 * num_dims
    size = start + 4 * num_words + CHECKSUM.size
    if len(compressed) != size:
        what = "is cut short" if len(compressed) < size else "has more after its end"
        raise ValueError(f"compressed {what}: its header says {size} bytes, and it has {len(compressed)}")
    if CHECKSUM.pack(zlib.crc32(compressed[: -CHECKSUM.size])) != compressed[-CHECKSUM.size :]:
        raise ValueError("compressed is damaged: its checksum is not that of its bytes")
    if made_by != model:
        raise ValueError(f"compressed is of another model, {made_by.hex()}, and this one is {model.hex()}")
    shape = (rows, *struct.unpack_from(f"<{num_dims}I", compressed, HEADER.size))
    words = np.frombuffer(compressed, "<u4", num_words, start).astype(np.uint32)
    return Contents(shape, words, made_by)


def fingerprint(module: nn.Module) -> bytes:
    """Eight bytes of a hash of the classes of a module's parts and of all its weights."""
    digest = hashlib.sha256()
    for name, part in module.named_modules():
        digest.update(f"{name}: {type(part).__name__}\n".encode())
    for name, tensor in module.state_dict().items():
        digest.update(f"{name}: {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().double().numpy().astype("<f8").tobytes())
    return digest.digest()[:8]
