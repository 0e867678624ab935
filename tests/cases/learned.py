"""Rows of the learned priors, at parameters set by hand under which all coordinates have one marginal."""

from __future__ import annotations

import numpy as np
import scipy.stats as st
import torch
from scipy.optimize import brentq
from scipy.special import logsumexp

from cases.core import PriorCase
from pyrovae import priors

# They overlap: coordinates share their component, and the test of fit counts them as independent draws. At 10,000
# components drawn the shares' error moves the cdf by 0.0025 (one standard deviation), the test's bound is 0.012.
WEIGHTS, LOCS, SCALES = np.array([0.5, 0.3, 0.2]), np.array([-0.5, 0.4, 1.0]), np.array([1.0, 0.5, 0.7])


class NormalMixture:
    """A mixture of Normals on the line, in scipy."""

    def __init__(self, weights, locs, scales):
        self.weights, self.parts = weights, st.norm(locs, scales)

    def logpdf(self, z):
        return logsumexp(self.parts.logpdf(np.asarray(z)[..., None]) + np.log(self.weights), axis=-1)

    def cdf(self, z):
        return (self.weights * self.parts.cdf(np.asarray(z)[..., None])).sum(-1)

    def median(self):
        return brentq(lambda z: self.cdf(z) - 0.5, -50, 50)


def mixture(d):
    prior = priors.Mixture(d, num_components=3).requires_grad_(False)
    prior.logits.copy_(torch.tensor(np.log(WEIGHTS) + 1.7))
    prior.loc.copy_(torch.tensor(LOCS)[:, None].expand(3, d))
    prior.scale.raw.copy_(torch.tensor(np.log(np.expm1(SCALES)))[:, None].expand(3, d))
    return prior


PRIORS = {"mixture": PriorCase(priors.Mixture, mixture, NormalMixture(WEIGHTS, LOCS, SCALES))}
