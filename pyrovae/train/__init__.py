"""``fit``: the loop around Pyro's SVI."""

from pyrovae.train.fitting import History, fit, write_history

__all__ = ["History", "fit", "write_history"]
