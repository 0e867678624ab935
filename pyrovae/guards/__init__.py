"""What Pyro would train wrongly without an error, refused before training.

:func:`check` is the one function for a model, a guide and their objective. The rest are its parts, the checks of the
parts of a VAE and of its arguments, and what they stand on: names in Pyro's parameter store, the lock of Pyro's global
state, and the switch that turns the checks off. ``docs/guards.md`` has the list.
"""

from pyrovae.guards.data import check_arguments, check_labels, check_tensors, signature
from pyrovae.guards.pair import check, check_optim, undone
from pyrovae.guards.parts import check_parts, check_shared, check_support, check_widths
from pyrovae.guards.registration import check_name, register, state, stored
from pyrovae.guards.sites import check_sites, has_own_score_parts
from pyrovae.guards.supports import same_support
from pyrovae.guards.switch import checking, pyro_lock, unchecked

__all__ = [
    "check",
    "check_arguments",
    "check_labels",
    "check_name",
    "check_optim",
    "check_parts",
    "check_shared",
    "check_sites",
    "check_support",
    "check_tensors",
    "check_widths",
    "checking",
    "has_own_score_parts",
    "pyro_lock",
    "register",
    "same_support",
    "signature",
    "state",
    "stored",
    "unchecked",
    "undone",
]
