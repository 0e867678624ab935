"""Autoguides of Pyro, and Bayesian networks, whose learning rate, batch or prior changes."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.transforms import planar
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO, autoguide
from pyro.infer.autoguide.initialization import init_to_value
from pyro.nn import PyroModule, PyroSample
from pyro.optim import Adam
from torch import nn

from scenarios.models import BayesianNetwork, X, observe, regression
from scenarios.rows import compiled


def scaled_regression(x):
    """Regression with an unknown noise, a positive site."""
    noise = pyro.sample("noise", dist.HalfCauchy(1.0))
    regression(x, 0.1 + noise)


def _automatic(make, model=scaled_regression, loss=Trace_ELBO):
    def scenario(trial):
        guide = make(model)
        optimizer = Adam({"lr": 0.02})
        svi = trial.svi(model, guide, optimizer, loss())
        trial.steps(svi, 10)
        for each in optimizer.optim_objs.values():
            each.param_groups[0]["lr"] = 0.005
        trial.steps(svi, 10, X[:10])

    return compiled(scenario)


def _list(model):
    guide = autoguide.AutoGuideList(model)
    guide.append(autoguide.AutoNormal(pyro.poutine.block(model, expose=["w"])))
    guide.append(autoguide.AutoDelta(pyro.poutine.block(model, expose=["noise"])))
    return guide


def _start(site):
    return init_to_value(site, values={"w": torch.zeros(3), "noise": torch.tensor(1.0)})


AUTOGUIDES = {
    "AutoNormal": _automatic(autoguide.AutoNormal),
    "AutoNormal, mean field": _automatic(autoguide.AutoNormal, loss=TraceMeanField_ELBO),
    "AutoNormal, initial values": _automatic(lambda m: autoguide.AutoNormal(m, init_loc_fn=_start, init_scale=0.5)),
    "AutoDelta": _automatic(autoguide.AutoDelta),
    "AutoDiagonalNormal": _automatic(autoguide.AutoDiagonalNormal),
    "AutoMultivariateNormal": _automatic(autoguide.AutoMultivariateNormal),
    "AutoLowRankMultivariateNormal": _automatic(lambda m: autoguide.AutoLowRankMultivariateNormal(m, rank=2)),
    "AutoIAFNormal": _automatic(lambda m: autoguide.AutoIAFNormal(m, hidden_dim=[8])),
    "AutoNormalizingFlow": _automatic(lambda m: autoguide.AutoNormalizingFlow(m, planar)),
    "AutoStructured": _automatic(
        lambda m: autoguide.AutoStructured(
            m, conditionals={"w": "mvn", "noise": "delta"}, dependencies={"w": {"noise": "linear"}}
        )
    ),
    "AutoGuideList": _automatic(_list),
    "AutoLaplaceApproximation": _automatic(autoguide.AutoLaplaceApproximation),
}


@compiled
def a_bayesian_network(trial):
    model = BayesianNetwork()
    svi = trial.svi(model, autoguide.AutoNormal(model))
    trial.steps(svi, 10)
    trial.steps(svi, 10, X[:9])


@compiled
def a_bayesian_network_of_two_layers(trial):
    class Network(PyroModule):
        def __init__(self):
            super().__init__()
            self.first, self.second = PyroModule[nn.Linear](3, 4), PyroModule[nn.Linear](4, 1)
            for layer in (self.first, self.second):
                prior = dist.Normal(0.0, torch.tensor(1.0)).expand(layer.weight.shape).to_event(2)
                layer.weight = PyroSample(prior)
            self.noise = PyroSample(dist.LogNormal(0.0, 1.0))

        def forward(self, x):
            observe(self.second(self.first(x).tanh())[:, 0], x, self.noise)

    model = Network()
    svi = trial.svi(model, autoguide.AutoDiagonalNormal(model))
    trial.steps(svi, 10)
    model.first.weight = PyroSample(dist.Normal(0.0, torch.tensor(0.1)).expand([4, 3]).to_event(2))
    trial.steps(svi, 10)


@compiled
def eight_schools(trial):
    y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    sigma = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])

    def model(y, sigma):
        mu, tau = pyro.sample("mu", dist.Normal(0.0, 5.0)), pyro.sample("tau", dist.HalfCauchy(5.0))
        with pyro.plate("schools", len(y)):
            theta = pyro.sample("theta", dist.Normal(mu, tau))
            pyro.sample("y", dist.Normal(theta, sigma), obs=y)

    svi = trial.svi(model, autoguide.AutoNormal(model))
    trial.steps(svi, 10, y, sigma)
    trial.steps(svi, 10, y + 1, sigma)
