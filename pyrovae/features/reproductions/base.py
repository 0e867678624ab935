"""What a published experiment is, and the section of a page that compares it with ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from torch import Tensor

from pyrovae.features.moves import Moves
from pyrovae.objectives import ELBO
from pyrovae.optim import Rate, adam
from pyrovae.train import fit
from pyrovae.vae import VAE

__all__ = ["TEST", "Reproduction", "Row", "markdown", "trained"]

TEST = 7  # seed of test data, which no training data have

Row = dict[str, float]


@dataclass(frozen=True)
class Reproduction:
    """One published experiment.

    Attributes:
        title: Its name.
        source: Where it is published.
        published: Its result, in one sentence.
        size: How ours differs from it.
        methods: For each method a function of a seed, which trains it and returns its numbers.
    """

    title: str
    source: str
    published: str
    size: str
    methods: Mapping[str, Callable[[int], Row]]


def trained(vae: VAE, x: Tensor, epochs: int, lr: Rate, batch_size: int = 512, loss: ELBO | None = None) -> float:
    """Train a model, and move the atoms of one that can be moved; the seconds that it took."""
    start = time.perf_counter()
    callbacks = [Moves(x)] if Moves.are_possible(vae) else []
    fit(vae, x, epochs=epochs, batch_size=batch_size, optim=adam(lr=lr), loss=loss or ELBO(), seed=0,
        callbacks=callbacks, progress=False)  # fmt: skip
    vae.eval()
    return time.perf_counter() - start


def markdown(reproduction: Reproduction, rows: Mapping[str, Sequence[Row]]) -> str:
    """A section of a page: what was published, and a table of our means and ranges over the seeds."""
    columns = list(dict.fromkeys(name for each in rows.values() for row in each for name in row))
    lines = [
        f"## {reproduction.title}",
        "",
        f"- Source: {reproduction.source}.",
        f"- Published: {reproduction.published}",
        f"- Size: {reproduction.size}",
        "",
        f"| method | seeds | {' | '.join(columns)} |",
        "|---" * (2 + len(columns)) + "|",
    ]
    for method, each in rows.items():
        cells = [_cell([row[name] for row in each if name in row]) for name in columns]
        lines.append(f"| {method} | {len(each)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(numbers: Sequence[float]) -> str:
    if not numbers:
        return ""
    size = max(map(abs, numbers))
    digits = 1 if size > 100 else 2 if size > 1 else 3
    text = f"{mean(numbers):.{digits}f}"
    return text if len(numbers) == 1 else f"{text} ({min(numbers):.{digits}f} to {max(numbers):.{digits}f})"
