"""The models of the scenarios: small, random, and written as Pyro users write them."""

from __future__ import annotations

import pyro
import pyro.contrib.gp as gp
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, PyroSample
from torch import nn
from torch.distributions import constraints

import pyrovae as pv

X = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
BITS = (torch.rand(24, 6, generator=torch.Generator().manual_seed(1)) < 0.4).float()
BATCHES = X.split(8)


def regression(x, noise=1.0, shift=0.0, y=None):
    """Bayesian linear regression of the sum of three columns."""
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ w + shift, noise), obs=x.sum(-1) if y is None else y)


def weights(*args, **kwargs):
    """The guide of ``regression``, whatever its arguments are: a Normal of two Pyro parameters."""
    loc = pyro.param("loc", torch.zeros(3))
    scale = pyro.param("scale", torch.full((3,), 0.3), constraint=constraints.positive)
    pyro.sample("w", dist.Normal(loc, scale).to_event(1))


def no_guide(*args, **kwargs):
    """The guide of a model without latent variables."""


def observe(mean, x, noise=1.0):
    """The sum of the columns, observed around a mean."""
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(mean, noise), obs=x.sum(-1))


def network(net, noise=1.0):
    """Model without latent variables around a network of three inputs and one output."""

    def model(x):
        pyro.module("net", net)
        observe(net(x)[:, 0], x, noise)

    return model


def coded(encoder, decoder, noise=1.0):
    """Model and guide of a local code of two dimensions, as in Pyro's VAE tutorial, by two networks."""

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), noise).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            loc, scale = encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))

    return model, guide


def coder(*layers):
    """Model and guide of ``coded``; layers go between the encoder's two."""
    return coded(nn.Sequential(nn.Linear(3, 8), *layers, nn.Tanh(), nn.Linear(8, 4)), nn.Linear(2, 3))


def vae(prior="normal", **options):
    """A small VAE of pyrovae for six bits."""
    return pv.build_vae((6,), 2, prior=prior, hidden=(8,), **options)


class BayesianNetwork(PyroModule):
    """A linear layer with a prior over its weights."""

    def __init__(self):
        super().__init__()
        self.linear = PyroModule[nn.Linear](3, 1)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 3]).to_event(2))

    def forward(self, x):
        observe(self.linear(x)[:, 0], x)


def sparse_gp(x, y, num_data=None):
    """A sparse variational Gaussian process of Pyro with eight inducing points."""
    points = torch.linspace(-3, 3, 8, dtype=x.dtype)[:, None]
    kernel, likelihood = gp.kernels.RBF(1), gp.likelihoods.Gaussian()
    model = gp.models.VariationalSparseGP(x, y, kernel, points, likelihood, num_data=num_data, whiten=True)
    return model.double()  # in single precision the Cholesky factor of near points has few digits


def waves(number=32):
    """Inputs and values of a sine."""
    x = torch.linspace(-3, 3, number, dtype=torch.float64)[:, None]
    return x, x[:, 0].sin()
