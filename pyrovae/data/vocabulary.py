"""Characters as whole numbers, and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Vocabulary"]


@dataclass(frozen=True)
class Vocabulary:
    """The characters of a text; each is told by its place among them.

    Args:
        characters: Each once.

    Raises: ValueError if they are no string, if there are none, or one is there twice.
    Example:
        >>> Vocabulary("abc").encode("cab")
        tensor([2, 0, 1])
    """

    characters: str

    def __post_init__(self) -> None:
        if not isinstance(self.characters, str):
            raise ValueError(f"vocabulary must be one string of its characters, got {self.characters!r}")
        twice = next((c for i, c in enumerate(self.characters) if c in self.characters[:i]), None)
        if not self.characters or twice is not None:
            raise ValueError(
                f"vocabulary must hold each character once, got {'none' if twice is None else repr(twice)}"
            )

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """The characters of a text, in the order of their code points."""
        return cls("".join(sorted(set(text))))

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str, name: str = "text") -> Tensor:
        """The numbers of the characters of a text, ``(len(text),)``; ``name`` is what an error calls it."""
        places = {character: place for place, character in enumerate(self.characters)}
        unknown = next((i for i, character in enumerate(text) if character not in places), None)
        if unknown is not None:
            raise ValueError(
                f"{name}: the character {text[unknown]!r} at position {unknown} is not in the vocabulary of "
                f"{len(self)} characters"
            )
        return torch.tensor([places[character] for character in text])

    def decode(self, x: Tensor) -> list[str]:
        """The texts of rows ``(N, length)`` of such numbers, of any dtype."""
        return ["".join(self.characters[place] for place in row) for row in x.long().tolist()]
