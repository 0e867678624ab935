"""Small models whose bounds are sums: z of a few states, or of nodes of quadrature, so that every gradient is exact.

x|z ~ N(W z, s^2 I) with three features, all data alike. A law is a table of the states of z under q: their
probabilities and values, which carry the gradient in the guide's numbers.
"""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import nn

from pyrovae.distributions import Bernoulli, Categorical, Poisson, RectifiedNormal, SpikeSlab

NOISE = 0.8
X = torch.tensor([1.2, -0.9, 0.4], dtype=torch.float64)
NODES = torch.linspace(-7.0, 7.0, 90).double()  # of the trapezoidal rule, exact to 1e-5 here; Gauss-Hermite is not
WEIGHTS = torch.softmax(-(NODES**2) / 2, 0)


def double(*numbers):
    return nn.Parameter(torch.tensor(numbers, dtype=torch.float64))


class Normals:
    """z ~ N(0, 1), q = N(loc, e^raw)."""

    starts = ((-1.5, 0.5), (2.0, -1.0), (0.1, -2.0))
    dim = 1

    def __init__(self, start):
        self.loc, self.raw = double(start[0]), double(start[1])
        self.parameters = [self.loc, self.raw]

    def prior(self):
        return dist.Normal(torch.zeros(1).double(), 1.0).to_event(1)

    def guide(self):
        return dist.Normal(self.loc, self.raw.exp()).to_event(1)

    def states(self):
        return WEIGHTS, (self.loc + self.raw.exp() * NODES)[:, None]


class SpikesAndSlabs:
    """z = 0 with probability 0.7, else N(0, 1.5); q with a gate of its own and a Normal slab."""

    starts = ((-1.0, -2.5, 0.0), (2.0, -1.2, -0.5), (0.3, 2.0, -1.5))
    dim = 1

    def __init__(self, start):
        self.logit, self.loc, self.raw = (double(number) for number in start)
        self.parameters = [self.logit, self.loc, self.raw]

    def prior(self):
        logit = torch.tensor([math.log(0.3 / 0.7)]).double()
        return SpikeSlab(logit, dist.Normal(torch.zeros(1).double(), 1.5)).to_event(1)

    def guide(self):
        return SpikeSlab(self.logit, dist.Normal(self.loc, self.raw.exp())).to_event(1)

    def states(self):
        gate = torch.sigmoid(self.logit)
        open_states = (self.loc + self.raw.exp() * NODES)[:, None]
        return torch.cat([1 - gate, gate * WEIGHTS]), torch.cat([torch.zeros(1, 1).double(), open_states])


class Bits:
    """Two bits, of probability 0.3 each; q with a logit for each."""

    starts = ((-2.0, 1.5), (2.5, 2.0), (0.5, -2.5))
    dim = 2

    def __init__(self, start):
        self.logits = double(*start)
        self.parameters = [self.logits]

    def prior(self):
        return Bernoulli(logits=torch.full((2,), math.log(0.3 / 0.7)).double()).to_event(1)

    def guide(self):
        return Bernoulli(logits=self.logits).to_event(1)

    def states(self):
        z = torch.cartesian_prod(torch.arange(2.0), torch.arange(2.0)).double()
        return torch.where(z == 1, self.logits.sigmoid(), (-self.logits).sigmoid()).prod(1), z


class Counts:
    """A count of rate 1; q with a rate of its own."""

    starts = ((-1.0,), (1.2,), (0.2,))
    dim = 1

    def __init__(self, start):
        self.raw = double(*start)
        self.parameters = [self.raw]

    def prior(self):
        return Poisson(torch.ones(1).double()).to_event(1)

    def guide(self):
        return Poisson(self.raw.exp()).to_event(1)

    def states(self):
        z = torch.arange(25.0).double()[:, None]
        return self.guide().log_prob(z).exp(), z


class Categories:
    """One of three, as a one-hot vector."""

    starts = ((2.0, 0.0, -1.0), (-1.5, 1.0, 0.5), (0.0, -2.0, 1.5))
    dim = 3

    def __init__(self, start):
        self.logits = double(*start)
        self.parameters = [self.logits]

    def prior(self):
        return Categorical(torch.tensor([0.5, 0.0, -0.5]).double(), 3)

    def guide(self):
        return Categorical(self.logits, 3)

    def states(self):
        return self.logits.softmax(0), torch.eye(3).double()


class Rectified:
    """max(0, N(0, 1)); q with a location and a scale of its own."""

    starts = ((-0.5, 0.3), (1.5, -1.0), (-1.0, 0.8))
    dim = 1
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(150))

    def __init__(self, start):
        self.loc, self.raw = double(start[0]), double(start[1])
        self.parameters = [self.loc, self.raw]

    def prior(self):
        return RectifiedNormal(torch.zeros(1).double(), torch.ones(1).double()).to_event(1)

    def guide(self):
        return RectifiedNormal(self.loc, self.raw.exp()).to_event(1)

    def states(self):
        half = (self.loc + 9 * self.raw.exp()).item() / 2
        z = torch.cat([torch.zeros(1).double(), half * (1 + self.nodes)])[:, None]
        size = torch.cat([torch.ones(1).double(), half * self.weights])  # of the atom, and of the intervals
        return size * self.guide().log_prob(z).exp(), z


LAWS = (Normals, SpikesAndSlabs, Bits)
DISCRETE_OR_MIXED = (*LAWS[1:], Counts, Categories, Rectified)


class Model:
    """A law and its decoder, as two Pyro functions, and their exact bounds."""

    def __init__(self, law, start=0):
        self.law = law(law.starts[start])
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(3, self.law.dim, generator=generator).double())

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.law.prior().expand([len(x)]))
            pyro.sample("x", dist.Normal(z @ self.weight.T, NOISE).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", self.law.guide().expand([len(x)]))

    def tables(self):
        """Of each state: its probability, log p(x|z), log p(z) and log q(z)."""
        probs, z = self.law.states()
        likelihood = dist.Normal(z @ self.weight.T, NOISE).to_event(1).log_prob(X)
        return probs, likelihood, self.law.prior().log_prob(z), self.law.guide().log_prob(z)

    def terms(self):
        """E_q log p(x|z) and KL(q || p)."""
        probs, likelihood, log_p, log_q = self.tables()
        return (probs * likelihood).sum(), (probs * (log_q - log_p)).sum()

    def importance_bound(self, num_particles, alpha=0.0):
        """The expectation over the states of all draws."""
        probs, likelihood, log_p, log_q = self.tables()
        log_w, power = likelihood + log_p - log_q, 1 - alpha
        weight, table = probs, log_w[:, None]
        for _ in range(num_particles - 1):
            weight = (weight[:, None] * probs).flatten()
            table = torch.cat([table.repeat_interleave(len(probs), 0), log_w.repeat(len(table))[:, None]], 1)
        bound = ((power * table).logsumexp(1) - math.log(num_particles)) / power
        return (weight * bound).sum()

    @property
    def parameters(self):
        return [*self.law.parameters, self.weight]

    def gradient(self, bound):
        """Of minus the bound, in the guide's numbers and in the decoder's."""
        gradients = torch.autograd.grad(-bound, self.parameters)
        return torch.cat([g.flatten() for g in gradients[:-1]]), gradients[-1].flatten()


def estimates(model, loss, repeats, copies):
    """``repeats`` means of the gradient over ``copies`` data, in the guide's numbers and in the decoder's."""
    x = X.expand(copies, 3)
    draws = []
    for _ in range(repeats):
        for parameter in model.parameters:
            parameter.grad = None
        loss.loss_and_grads(model.model, model.guide, x)
        draws.append([parameter.grad.flatten() / copies for parameter in model.parameters])
    return torch.stack([torch.cat(d[:-1]) for d in draws]), torch.stack([d[-1] for d in draws])


def check_unbiased(model, loss, bound, repeats=100, copies=4000, rounds=40):
    """The mean gradient is the exact one, within 4.5 standard errors: a false alarm once in 150,000 for each number.

    As many rounds are run as bring seven standard errors below 2 % of the largest number, of the guide's and of the
    decoder's each, so that a bias of 2 % is seen 99 times in 100.
    """
    exact = model.gradient(bound)
    draws = estimates(model, loss, repeats, copies)
    while not all(map(_resolved, exact, draws)):
        assert len(draws[0]) < rounds * repeats, "too noisy to see a bias of 2 %"
        draws = [torch.cat(both) for both in zip(draws, estimates(model, loss, repeats, copies), strict=True)]
    for gradient, drawn in zip(exact, draws, strict=True):
        assert ((drawn.mean(0) - gradient).abs() <= 4.5 * _error(drawn) + 1e-9).all()


def _resolved(exact, draws):
    return bool((7 * _error(draws) < 0.02 * exact.abs().max()).all())


def _error(draws):
    return draws.std(0) / len(draws) ** 0.5
