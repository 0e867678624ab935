r"""Likelihoods p(x|z): a network that maps z to one tensor of the shape of x, and the distribution around it.

Every data dimension is in the event: ``log_prob`` is one number per datum, in nats.
"""

from pyrovae.likelihoods.base import Likelihood
from pyrovae.likelihoods.counts import NegativeBinomial, Poisson
from pyrovae.likelihoods.masked import Masked
from pyrovae.likelihoods.real import Laplace, Normal
from pyrovae.likelihoods.symbols import Autoregressive, Categorical
from pyrovae.likelihoods.unit_interval import Bernoulli, ContinuousBernoulli

__all__ = [
    "Autoregressive",
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "Laplace",
    "Likelihood",
    "Masked",
    "NegativeBinomial",
    "Normal",
    "Poisson",
]
