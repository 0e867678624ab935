"""``fit``: the loop around Pyro's SVI; ``search_lr``: the learning rate that it is given."""

from pyrovae.train.fitting import History, fit, write_history
from pyrovae.train.search import LearningRate, search_lr

__all__ = ["History", "LearningRate", "fit", "search_lr", "write_history"]
