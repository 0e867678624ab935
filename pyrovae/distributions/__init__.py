"""Densities and divergences that torch and Pyro lack or have wrong. Importing this room registers the divergences."""

from pyrovae.distributions import kl
from pyrovae.distributions.generalized_normal import GeneralizedNormal
from pyrovae.distributions.logistic import Logistic
from pyrovae.distributions.quadrature import kl_by_quadrature
from pyrovae.distributions.simplex import Dirichlet, LogisticNormal
from pyrovae.distributions.sphere import HypersphericalUniform, PowerSpherical, VonMisesFisher
from pyrovae.distributions.spike_slab import SpikeSlab

__all__ = [
    "Dirichlet",
    "GeneralizedNormal",
    "HypersphericalUniform",
    "Logistic",
    "LogisticNormal",
    "PowerSpherical",
    "SpikeSlab",
    "VonMisesFisher",
    "kl",
    "kl_by_quadrature",
]
