"""Texts as rows of whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from pyrovae.data.limits import check_size
from pyrovae.data.sets import Data, split
from pyrovae.data.vocabulary import Vocabulary
from pyrovae.files import check_regular

__all__ = ["text"]

END = "\n"
MEMORY = 20  # bytes for each byte of a file: a character takes up to 4, its number 8 in a list and 8 in a tensor


def text(
    source: str | Path | Sequence[str],
    length: int | None = None,
    vocabulary: Vocabulary | str | None = None,
    seed: int = 0,
    max_bytes: int | None = None,
) -> Data:
    r"""A text as rows of whole numbers, one for each character: for ``network="gru"``.

    ``Data.vocabulary`` tells the characters by them: ``data.vocabulary.decode(vae.sample(5))``.

    Args:
        source: A text, cut into windows that do not overlap, without what is left at its end; or a ``Path``, of a file
            in UTF-8 that holds one; or a sequence of lines, each a row, which ``"\n"`` ends and fills up.
        length: Characters of a row; None, where there are lines, is one more than the longest has.
        vocabulary: The characters that there are; None takes those of the source.
        seed: Of the split 80/10/10.
        max_bytes: Memory that a file may take, which is known before it is read; None is half of the machine's.

    Shape: each split ``(N, length)``, of dtype int64.
    Raises: ValueError for a character outside of the vocabulary, with its position; for a line that is too long, or has
        an end within; and for a text of fewer than three windows.
    """
    if isinstance(source, Path):
        source = _read(source, max_bytes)
    if vocabulary is not None and not isinstance(vocabulary, Vocabulary):
        vocabulary = Vocabulary(vocabulary)
    if length is not None and length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    if isinstance(source, str):
        if length is None:
            raise ValueError("length must be given with a text, of how many characters its windows are")
        if len(source) < 3 * length:
            raise ValueError(f"text: {len(source)} characters are fewer than three windows of length {length}")
        vocabulary = vocabulary or Vocabulary.of(source)
        x = vocabulary.encode(source)[: len(source) // length * length].reshape(-1, length)
    else:
        vocabulary = vocabulary or Vocabulary.of("".join(source) + END)
        x = _lines(source, length or 1 + max(map(len, source), default=0), vocabulary)
    return replace(split("text", x, seed=seed), vocabulary=vocabulary)


def _read(path: Path, max_bytes: int | None) -> str:
    try:
        size = check_regular(path)
        check_size(MEMORY * size, max_bytes)
        with path.open("rb") as file:
            content = file.read(size).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"text: {path.name} is not in UTF-8: {error}") from error
    except ValueError as error:
        raise ValueError(f"text: {path.name} cannot be read: {error}") from error
    return content.replace("\r\n", END).replace("\r", END)


def _lines(lines: Sequence[str], length: int, vocabulary: Vocabulary) -> Tensor:
    for number, line in enumerate(lines):
        if END in line or len(line) >= length:
            wrong = "has an end within" if END in line else f"has {len(line)} characters and no room for its end"
            raise ValueError(f"text: line {number} {wrong}, where length is {length}: {line!r}")
    rows = [vocabulary.encode(line.ljust(length, END), f"text, line {number}") for number, line in enumerate(lines)]
    return torch.stack(rows) if rows else torch.zeros(0, length, dtype=torch.long)
