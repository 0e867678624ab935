"""Functions of tensors, Pyro inside or not, as one compiled graph each."""

from pyrovae.compilation.capture import Uncapturable, backwards, modules_called
from pyrovae.compilation.passes import Passes, by_rows
from pyrovae.compilation.program import Program
from pyrovae.compilation.timings import Timings, recurs

__all__ = ["Passes", "Program", "Timings", "Uncapturable", "backwards", "by_rows", "modules_called", "recurs"]
