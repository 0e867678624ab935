"""The table of cases: every public density, prior, likelihood and guide has a row, which the generic tests run over.

A row names a way to make the object and an independent reference for its density: scipy, with the parameters worked
out anew from the formula of the docstring. A family brings a file with its DENSITIES, PRIORS, GUIDES and KLS.
"""

from cases import half_line, likelihoods, real_line, shrinkage
from cases.core import Linear, double

FAMILIES = (real_line, half_line, shrinkage)


def _rows(table):
    return {name: row for family in FAMILIES for name, row in getattr(family, table, {}).items()}


DENSITIES, PRIORS, GUIDES, KLS = (_rows(table) for table in ("DENSITIES", "PRIORS", "GUIDES", "KLS"))
HIERARCHIES = _rows("HIERARCHIES")
LIKELIHOODS = likelihoods.LIKELIHOODS

__all__ = ["DENSITIES", "GUIDES", "HIERARCHIES", "KLS", "LIKELIHOODS", "PRIORS", "Linear", "double"]
