"""Features of a dictionary: moves that training by gradients cannot make, and how many are active."""

from pyrovae.features.moves import Moves
from pyrovae.features.target import TargetL0

__all__ = ["Moves", "TargetL0"]
