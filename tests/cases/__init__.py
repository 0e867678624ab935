"""The table of cases: every public density, prior, likelihood and guide has a row, which the generic tests run over.

A row names a way to make the object and an independent reference for its density: scipy, with the parameters worked
out anew from the formula of the docstring. A family brings a file with its DENSITIES, PRIORS, GUIDES and KLS; those of
the families whose z is a vector of dependent coordinates, and those of discrete laws, make tables of their own.
"""

from cases import (
    clamped,
    discrete,
    exact_zeros,
    fan,
    feature_allocation,
    half_line,
    improper,
    learned,
    likelihoods,
    real_line,
    shrinkage,
    simplex,
    sphere,
    thresholded,
    unit_interval,
)
from cases.core import Linear, double, without_atoms

FAMILIES = (real_line, exact_zeros, thresholded, clamped, learned, half_line, shrinkage, unit_interval)
VECTOR_FAMILIES = (sphere, simplex, fan)
DISCRETE_FAMILIES = (discrete,)


def _rows(table, families=FAMILIES):
    return {name: row for family in families for name, row in getattr(family, table, {}).items()}


DENSITIES, PRIORS, GUIDES = (_rows(table) for table in ("DENSITIES", "PRIORS", "GUIDES"))
VECTOR_DENSITIES, VECTOR_PRIORS, VECTOR_GUIDES = (
    _rows(table, VECTOR_FAMILIES) for table in ("DENSITIES", "PRIORS", "GUIDES")
)
DISCRETE_DENSITIES, DISCRETE_PRIORS, DISCRETE_GUIDES = (
    _rows(table, DISCRETE_FAMILIES) for table in ("DENSITIES", "PRIORS", "GUIDES")
)
KLS, HIERARCHIES = (_rows(table, (*FAMILIES, *VECTOR_FAMILIES, *DISCRETE_FAMILIES)) for table in ("KLS", "HIERARCHIES"))
IMPROPER_PRIORS = improper.PRIORS
LIKELIHOODS = likelihoods.LIKELIHOODS
SHARED = feature_allocation.SHARED

__all__ = [
    "DENSITIES",
    "DISCRETE_DENSITIES",
    "DISCRETE_GUIDES",
    "DISCRETE_PRIORS",
    "GUIDES",
    "HIERARCHIES",
    "IMPROPER_PRIORS",
    "KLS",
    "LIKELIHOODS",
    "PRIORS",
    "SHARED",
    "VECTOR_DENSITIES",
    "VECTOR_GUIDES",
    "VECTOR_PRIORS",
    "Linear",
    "double",
    "without_atoms",
]
