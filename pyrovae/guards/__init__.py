"""What Pyro would train wrongly in silence, caught at the first step.

:class:`~pyrovae.VAE` opens :class:`ModelSites` and :class:`GuideSites` around the sites of its two functions. Each is a
Pyro ``Messenger`` that only looks: it reads the finished sites, compares them with those of the other function (which
Pyro's replay handler holds) and raises where the objective that runs would be wrong without saying so. The ``S``
numbers are those of the list in ``docs/guards.md``.
"""

from pyrovae.guards.data import check_arguments, check_labels, check_tensors, signature
from pyrovae.guards.parts import check_parts, check_shared, check_support, check_widths
from pyrovae.guards.registration import register, state, stored
from pyrovae.guards.sites import GuideSites, ModelSites, check_sites, has_own_score_parts
from pyrovae.guards.supports import same_support
from pyrovae.guards.switch import pyro_lock, unchecked

__all__ = [
    "GuideSites",
    "ModelSites",
    "check_arguments",
    "check_labels",
    "check_parts",
    "check_shared",
    "check_sites",
    "check_support",
    "check_tensors",
    "check_widths",
    "has_own_score_parts",
    "pyro_lock",
    "register",
    "same_support",
    "signature",
    "state",
    "stored",
    "unchecked",
]
