"""Features of a dictionary: moves that training by gradients cannot make."""

from pyrovae.features.moves import Moves

__all__ = ["Moves"]
