"""Rows of the learned priors, at parameters set by hand under which all coordinates have one marginal."""

from __future__ import annotations

import numpy as np
import scipy.stats as st
import torch
import zuko
from pyro.distributions import transforms as T
from scipy.optimize import brentq
from scipy.special import logsumexp

from cases.core import Linear, PriorCase, scale
from pyrovae import guides, priors

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


# pseudo-inputs, and a head that gives every coordinate the same location and scale at each
INPUTS = np.array([[0.2, -0.5, 0.0], [-0.7, 0.1, 0.6], [0.4, 0.9, -0.3]])
TO_LOC, TO_RAW = np.array([1.0, 0.4, -0.6]), np.array([0.5, -0.3, 0.2])


def vamp(d):
    guide = guides.Normal(Linear(3), d).requires_grad_(False)
    guide.head.weight.copy_(torch.tensor(np.repeat([TO_LOC, TO_RAW], d, axis=0)))
    guide.head.bias.zero_()
    prior = priors.Vamp(guide, 3, inputs=torch.tensor(INPUTS)).requires_grad_(False)
    prior.logits.copy_(prior.inputs()[:, 0])  # the rows come in an order of their own
    return prior


VAMP = NormalMixture(np.exp(INPUTS[:, 0]) / np.exp(INPUTS[:, 0]).sum(), INPUTS @ TO_LOC, scale(INPUTS @ TO_RAW))


def flow(d):
    """z = (0.2 + 1.5 e + 0.1) / 3 in two steps, one of them an inverse."""
    steps = T.ComposeTransform([T.AffineTransform(0.2, 1.5), T.AffineTransform(-0.1, 3.0).inv])
    return priors.Flow(d, [steps])


def zuko_flow(d):
    """e = 0.4 + SLOPE z: Zuko's maps lead from the code to the noise."""
    affine = zuko.transforms.MonotonicAffineTransform
    transform = zuko.lazy.UnconditionalTransform(affine, torch.full((d,), 0.4), torch.full((d,), -0.3))
    base = zuko.lazy.UnconditionalDistribution(zuko.distributions.DiagNormal, torch.zeros(d), torch.ones(d))
    return priors.ZukoFlow(zuko.lazy.Flow([transform], base)).requires_grad_(False)


SLOPE = np.exp(-0.3 / (1 + 0.3 / np.log(1e3)))  # Zuko keeps slopes between 1e-3 and 1e3

PRIORS = {
    "vamp": PriorCase(priors.Vamp, vamp, VAMP),
    "mixture": PriorCase(priors.Mixture, mixture, NormalMixture(WEIGHTS, LOCS, SCALES)),
    "flow": PriorCase(priors.Flow, flow, st.norm(0.1, 0.5)),
    "zuko-flow": PriorCase(priors.ZukoFlow, zuko_flow, st.norm(-0.4 / SLOPE, 1 / SLOPE)),
}
