"""The table of cases: every public density, prior, likelihood and guide has a row, which the generic tests run over.

A row names a way to make the object and an independent reference for its density: scipy, with the parameters worked
out anew from the formula of the docstring. A family brings a file with its DENSITIES, PRIORS, GUIDES and KLS; those of
the families whose z is a vector of dependent coordinates make tables of their own.
"""

from cases import (
    clamped,
    exact_zeros,
    half_line,
    learned,
    likelihoods,
    real_line,
    shrinkage,
    simplex,
    sphere,
    thresholded,
)
from cases.core import Linear, double, without_atoms

FAMILIES = (real_line, exact_zeros, thresholded, clamped, learned, half_line, shrinkage)
VECTOR_FAMILIES = (sphere, simplex)


def _rows(table, families=FAMILIES):
    return {name: row for family in families for name, row in getattr(family, table, {}).items()}


DENSITIES, PRIORS, GUIDES, HIERARCHIES = (_rows(table) for table in ("DENSITIES", "PRIORS", "GUIDES", "HIERARCHIES"))
VECTOR_DENSITIES, VECTOR_PRIORS, VECTOR_GUIDES = (
    _rows(table, VECTOR_FAMILIES) for table in ("DENSITIES", "PRIORS", "GUIDES")
)
KLS = _rows("KLS", (*FAMILIES, *VECTOR_FAMILIES))
LIKELIHOODS = likelihoods.LIKELIHOODS

__all__ = [
    "DENSITIES",
    "GUIDES",
    "HIERARCHIES",
    "KLS",
    "LIKELIHOODS",
    "PRIORS",
    "VECTOR_DENSITIES",
    "VECTOR_GUIDES",
    "VECTOR_PRIORS",
    "Linear",
    "double",
    "without_atoms",
]
