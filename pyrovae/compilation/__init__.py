"""Functions of tensors, Pyro inside or not, as one compiled graph each."""

from pyrovae.compilation.passes import Passes, by_rows
from pyrovae.compilation.program import Program, disagreement
from pyrovae.compilation.recording import Graph, Unrecordable, backward_roots, record
from pyrovae.compilation.timings import Timings
from pyrovae.compilation.watch import Watch

__all__ = [
    "Graph",
    "Passes",
    "Program",
    "Timings",
    "Unrecordable",
    "Watch",
    "backward_roots",
    "by_rows",
    "disagreement",
    "record",
]
