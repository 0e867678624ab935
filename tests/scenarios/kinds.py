"""Kinds of models: mixtures, sequences, flows, images, topics, VAEs of several priors."""

from __future__ import annotations

import pyro
import pyro.contrib.gp as gp
import pyro.distributions as dist
import torch
from pyro.distributions.transforms import affine_autoregressive
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, autoguide, config_enumerate
from pyro.optim import SGD
from torch import nn
from torch.distributions import constraints

from scenarios.models import BITS, X, no_guide, regression, vae, waves
from scenarios.rows import compiled, either, twice


@either(says=r"mask|enumerat|value")
def a_mixture_whose_kinds_are_enumerated(trial):
    @config_enumerate
    def model(x):
        shares = pyro.param("shares", torch.tensor([0.3, 0.7]), constraint=constraints.simplex)
        with pyro.plate("kinds", 2):
            loc = pyro.sample("loc", dist.Normal(0.0, 2.0))
        with pyro.plate("data", len(x)):
            kind = pyro.sample("kind", dist.Categorical(shares))
            pyro.sample("y", dist.Normal(loc[kind], 0.5), obs=x.sum(-1))

    guide = autoguide.AutoDelta(pyro.poutine.block(model, expose=["loc"]))
    svi = trial.svi(model, guide, loss=TraceEnum_ELBO(max_plate_nesting=1))
    trial.steps(svi, 10)
    trial.steps(svi, 10, X[:9])


@either(says=r"mask|enumerat|value|markov")
def a_hidden_markov_model(trial):
    @config_enumerate
    def model(sequences):
        moves = pyro.param("moves", torch.full((2, 2), 0.5), constraint=constraints.simplex)
        loc = pyro.param("loc", torch.tensor([-1.0, 1.0]))
        with pyro.plate("sequences", len(sequences), dim=-1):
            state = 0
            for t in pyro.markov(range(sequences.shape[1])):
                state = pyro.sample(f"state_{t}", dist.Categorical(moves[state]))
                pyro.sample(f"x_{t}", dist.Normal(loc[state], 1.0), obs=sequences[:, t])

    svi = trial.svi(model, no_guide, loss=TraceEnum_ELBO(max_plate_nesting=1))
    trial.steps(svi, 6, X)
    trial.steps(svi, 6, X[:9])


@compiled
def a_discrete_site_of_the_guide(trial):
    encoder = nn.Linear(3, 2)

    def model(x):
        loc = pyro.param("loc", torch.tensor([-1.0, 1.0]))
        with pyro.plate("data", len(x)):
            kind = pyro.sample("kind", dist.Categorical(torch.ones(2) / 2))
            pyro.sample("y", dist.Normal(loc[kind], 1.0), obs=x.sum(-1))

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("kind", dist.Categorical(logits=encoder(x)))

    svi = trial.svi(model, guide, SGD({"lr": 1e-3}), TraceGraph_ELBO())
    trial.steps(svi, 10)
    trial.steps(svi, 10, X[:9])


@either(says="recurrent|RNN|GRU")
def a_recurrent_encoder(trial):
    encoder, head = nn.GRU(1, 4, batch_first=True), nn.Linear(4, 2)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[:, None].expand_as(x), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        pyro.module("head", head)
        loc, scale = head(encoder(x[..., None])[1][0]).unbind(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale.exp()))

    svi = trial.svi(model, guide)
    trial.steps(svi, 8)
    trial.steps(svi, 8, X[:, :2])


@compiled
def a_flow_as_a_guide(trial):
    flow = affine_autoregressive(3, hidden_dims=[8])

    def guide(x):
        pyro.module("flow", flow)
        base = dist.Normal(torch.zeros(3), 1.0).to_event(1)
        pyro.sample("w", dist.TransformedDistribution(base, [flow]))

    svi = trial.svi(regression, guide)
    trial.steps(svi, 10)
    trial.steps(svi, 10, X[:9])


@compiled
def images(trial):
    encoder = nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4, 4))
    decoder = nn.Sequential(nn.Linear(2, 6), nn.Unflatten(1, (1, 2, 3)))

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(3), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        loc, scale = encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))

    svi = trial.svi(model, guide)
    trial.steps(svi, 8, BITS.reshape(24, 1, 2, 3))
    trial.steps(svi, 8, BITS[:9].reshape(9, 1, 2, 3))


def _vae(prior):
    def scenario(trial):
        # in float32 rounding grows by a thousand within these steps of a horseshoe
        module, bits = trial.watch(vae(prior)), BITS
        if prior == "horseshoe":
            module, bits = module.double(), BITS.double()
        svi = trial.svi(module.model, module.guide, loss=Trace_ELBO())
        trial.steps(svi, 8, bits)
        trial.steps(svi, 8, bits[:9])

    return twice(scenario)


VAES = {prior: _vae(prior) for prior in ("normal", "laplace", "spike-slab", "gamma", "student-t", "horseshoe")}


@compiled
def words_of_topics(trial):
    words = (torch.arange(40).reshape(5, 8) * 7) % 6

    def model(words):
        with pyro.plate("kinds", 2):
            topics = pyro.sample("topics", dist.Dirichlet(torch.ones(6)))
        with pyro.plate("documents", 5):
            shares = pyro.sample("shares", dist.Dirichlet(torch.ones(2)))
            probs = (shares[:, :, None] * topics).sum(-2)
            counts = nn.functional.one_hot(words, 6).sum(-2).float()
            pyro.factor("words", (counts * probs.log()).sum(-1))

    guide = autoguide.AutoNormal(model)
    svi = trial.svi(model, guide)
    trial.steps(svi, 10, words)
    trial.steps(svi, 10, words.flip(0))


@compiled
def a_deep_exponential_family(trial):
    def model(x):
        with pyro.plate("data", len(x)):
            top = pyro.sample("top", dist.Gamma(torch.tensor(0.5), torch.tensor(0.5)).expand([2]).to_event(1))
            w = pyro.param("w", torch.ones(2, 6), constraint=constraints.positive)
            pyro.sample("x", dist.Poisson(top @ w + 0.01).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            shape = pyro.param("shape", torch.ones(24, 2), constraint=constraints.positive, event_dim=1)
            pyro.sample("top", dist.Gamma(shape[: len(x)] + 0.2, 1.0).to_event(1))

    trial.steps(trial.svi(model, guide, SGD({"lr": 1e-3})), 20, BITS)


@compiled
def a_gaussian_process_of_classes(trial):
    x, y = waves(12)
    kernel, likelihood = gp.kernels.RBF(1), gp.likelihoods.Binary()
    model = gp.models.VariationalGP(x, (y > 0).double(), kernel, likelihood, jitter=1e-2, whiten=True).double()
    svi = trial.svi(model.model, model.guide, SGD({"lr": 1e-3}))
    for i in range(16):
        if i == 8:
            model.set_data(x, (y < 0).double())
        trial.step_alone(svi)
