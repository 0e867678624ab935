"""Densities and divergences that torch and Pyro lack or have wrong. Importing this room registers the divergences."""

from pyrovae.distributions import kl, kl_positive
from pyrovae.distributions.discrete import Bernoulli, Categorical, Poisson
from pyrovae.distributions.fan import Fan
from pyrovae.distributions.gamma import Gamma
from pyrovae.distributions.generalized_normal import GeneralizedNormal
from pyrovae.distributions.hard_concrete import HardConcrete
from pyrovae.distributions.horseshoe import Horseshoe
from pyrovae.distributions.linear_normal import LinearNormal, linear_moments
from pyrovae.distributions.log_normal import LogNormal
from pyrovae.distributions.logistic import Logistic, inside_unit_interval
from pyrovae.distributions.normal_tails import NormalTails
from pyrovae.distributions.point import Point
from pyrovae.distributions.quadrature import kl_by_quadrature
from pyrovae.distributions.rectified_normal import RectifiedNormal
from pyrovae.distributions.simplex import Dirichlet, LogisticNormal, StickBreaking
from pyrovae.distributions.sparse_mixture import SparseMixture
from pyrovae.distributions.sphere import HypersphericalUniform, PowerSpherical, VonMisesFisher
from pyrovae.distributions.spike_slab import SpikeSlab
from pyrovae.distributions.thresholded import thresholded_laplace, thresholded_normal
from pyrovae.distributions.truncated_normal import TruncatedNormal
from pyrovae.distributions.unit_interval import Beta, Kumaraswamy
from pyrovae.distributions.weibull import Weibull

__all__ = [
    "Bernoulli",
    "Beta",
    "Categorical",
    "Dirichlet",
    "Fan",
    "Gamma",
    "GeneralizedNormal",
    "HardConcrete",
    "Horseshoe",
    "HypersphericalUniform",
    "Kumaraswamy",
    "LinearNormal",
    "LogNormal",
    "Logistic",
    "LogisticNormal",
    "NormalTails",
    "Point",
    "Poisson",
    "PowerSpherical",
    "RectifiedNormal",
    "SparseMixture",
    "SpikeSlab",
    "StickBreaking",
    "TruncatedNormal",
    "VonMisesFisher",
    "Weibull",
    "inside_unit_interval",
    "kl",
    "kl_by_quadrature",
    "kl_positive",
    "linear_moments",
    "thresholded_laplace",
    "thresholded_normal",
]
