"""What all generators share: samples with their codes, streams of batches, random numbers that depend on seeds only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyrovae.schema import check, number, whole

__all__ = ["Batch", "Stream", "Synthetic", "check_scale", "orthonormal_rows", "seeded", "unit_rows"]

FEATURES, SAMPLE, STREAM = range(3)  # what random numbers are for: seeds of one purpose never meet those of another
LARGEST_SEED = 2**63 - 1


class Batch(NamedTuple):
    """Data and the codes that made them.

    ``data`` ``(n, D)``; ``codes`` ``(n, F)``, exactly zero where a feature is off; ``features`` ``(F, D)``, rows of
    norm 1, or None where the data are not linear in the codes; ``labels`` ``(n,)``, such as the number of the subspace,
    or None.
    """

    data: Tensor
    codes: Tensor
    features: Tensor | None
    labels: Tensor | None


class Synthetic(ABC):
    """A generator of data with known codes. ``seed`` fixes its features; samples have seeds of their own.

    Subclasses are frozen dataclasses. Equal arguments give equal data in every process.
    """

    seed: int

    def sample(self, n: int, generator: torch.Generator | int | None = None) -> Batch:
        """Draw n data and their codes.

        Args:
            n: Number of data.
            generator: A seed, which always gives the same data, so that training and test data need different seeds;
                or a ``torch.Generator`` on the CPU; None is torch's own random state.

        Returns: A :class:`Batch` of float32 on the CPU.
        Raises: ValueError if ``n`` is not a positive whole number or a seed is negative.
        """
        check("n", n, whole(1))
        if generator is not None and not isinstance(generator, torch.Generator):
            check("generator", generator, whole(0, LARGEST_SEED))
            generator = seeded(self.seed, SAMPLE, int(generator))
        return self._draw(n, generator)

    def stream(self, batch_size: int, steps: int, seed: int = 0) -> Stream:
        """Batches that are drawn as they are needed; ``pyrovae.fit`` trains on their data, a pass being an epoch.

        Args:
            batch_size: Data of each batch.
            steps: Batches of a pass.
            seed: Of the batches. Every pass has the same ones, as a run that is resumed needs; for fresh data in every
                step, train for one epoch of many steps.

        Raises: ValueError if a number is not a whole number in its range.
        """
        return Stream(self, batch_size, steps, seed)

    @abstractmethod
    def _draw(self, n: int, generator: torch.Generator | None) -> Batch: ...


@dataclass(frozen=True)
class Stream:
    """Batches of a generator: what :meth:`Synthetic.stream` returns. ``len`` is the number of batches."""

    source: Synthetic
    batch_size: int
    steps: int
    seed: int = 0

    def __post_init__(self) -> None:
        check("batch_size", self.batch_size, whole(1))
        check("steps", self.steps, whole(1))
        check("seed", self.seed, whole(0, LARGEST_SEED))

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self.steps):
            yield self.source.sample(self.batch_size, seeded(self.source.seed, STREAM, self.seed, step))

    @property
    def dataset(self) -> range:
        """The numbers of the data of a pass: its length tells ``pyrovae.fit`` how many there are, as a DataLoader's."""
        return range(self.batch_size * self.steps)


def seeded(*numbers: int) -> torch.Generator:
    """A generator on the CPU whose stream is a hash of these numbers."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)


def unit_rows(num: int, dim: int, seed: int) -> Tensor:
    """Independent directions, uniform on the sphere, ``(num, dim)``."""
    rows = torch.randn(num, dim, generator=seeded(seed, FEATURES), dtype=torch.float64)
    return (rows / rows.norm(dim=1, keepdim=True)).float()


def orthonormal_rows(num: int, dim: int, generator: torch.Generator) -> Tensor:
    """``num`` orthonormal directions, uniform among all, ``(num, dim)`` in float64."""
    q, r = torch.linalg.qr(torch.randn(dim, num, generator=generator, dtype=torch.float64))
    return (q * r.diagonal().sign()).T


def check_scale(name: str, value: object) -> None:
    check(name, value, number(0.0, expected="a finite number, at least 0"))
