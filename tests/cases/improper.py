"""Rows of priors whose density has no integral: there is no mass of one, and no draws to compare with it.

What the other rows are tested for and these cannot have stands in :mod:`test_autoencoders`, as what raises.
"""

from __future__ import annotations

import numpy as np

from cases.core import ImproperPriorCase
from pyrovae import priors

PRIORS = {
    "flat": ImproperPriorCase(priors.Flat, priors.Flat, lambda z: np.zeros(z.shape[:-1])),
}
