"""The random state: seeds, states and generators that are set during training, draws of every sort."""

from __future__ import annotations

import random

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import TraceGraph_ELBO
from pyro.optim import SGD
from torch import nn
from torch.distributions import constraints

from scenarios.models import X, coder, no_guide, observe, regression, weights
from scenarios.rows import compiled, foreign, once


@once
def a_seed_is_set(trial):
    svi = trial.svi(*coder())
    for _ in range(4):
        torch.manual_seed(3)
        trial.steps(svi, 5)


@once
def a_seed_is_set_before_each_step(trial):
    svi = trial.svi(regression)
    for i in range(20):
        pyro.set_rng_seed(i % 3)
        trial.step(svi)


@once
def a_fork_of_the_random_state(trial):
    svi = trial.svi(*coder())
    for i in range(10):
        with torch.random.fork_rng():
            torch.manual_seed(i)
            trial.step(svi)
        trial.step(svi)


@once
def the_random_state_is_put_back(trial):
    svi = trial.svi(regression)
    trial.steps(svi, 6)
    state = pyro.util.get_rng_state()
    trial.steps(svi, 6)
    pyro.util.set_rng_state(state)
    trial.steps(svi, 6)
    trial.keep(torch.rand(2), random.random(), np.random.rand())  # noqa: NPY002


@once
def draws_between_steps(trial):
    svi = trial.svi(*coder())
    for i in range(20):
        trial.step(svi)
        trial.keep(torch.rand(i % 3 + 1))


@once
def draws_between_steps_of_other_kinds(trial):
    svi = trial.svi(regression)
    for _ in range(12):
        trial.step(svi)
        trial.keep(torch.randperm(5), torch.randn(16), torch.randint(9, (3,)), torch.bernoulli(torch.full((4,), 0.3)))


@foreign(says="[Gg]enerator")
def a_generator_of_the_model(trial):
    generator = torch.Generator().manual_seed(4)
    svi = trial.svi(lambda x: regression(x + 0.3 * torch.randn(x.shape, generator=generator), y=x.sum(-1)))
    trial.steps(svi, 10)
    generator.manual_seed(4)
    trial.steps(svi, 10)
    trial.keep(torch.rand(2, generator=generator))


@foreign(says="[Gg]enerator")
def a_generator_as_an_argument(trial):
    def model(x, generator):
        regression(x + 0.3 * torch.randn(x.shape, generator=generator), y=x.sum(-1))

    svi = trial.svi(model)
    for i in range(16):
        trial.step(svi, X, torch.Generator().manual_seed(i))


@once
def noise_on_the_inputs(trial):
    svi = trial.svi(lambda x: regression(x + 0.3 * torch.randn_like(x), y=x.sum(-1)))
    trial.steps(svi, 16)


@once
def dropout_and_draws(trial):
    trial.steps(trial.svi(*coder(nn.Dropout(0.3))), 16)


@once
def rows_in_a_random_order_inside_of_the_model(trial):
    def model(x):
        observe(x[torch.randperm(len(x))] @ pyro.param("w", torch.zeros(3)), x)

    trial.steps(trial.svi(model, no_guide), 16)


def _drawn(make, support):
    """A guide whose draws come from another sampler of torch."""

    def scenario(trial):
        def model(x):
            rate = pyro.sample("rate", make(torch.tensor(2.0), torch.tensor(2.0)))
            observe(rate.sum() + x[:, 0], x)

        def guide(x):
            first = pyro.param("first", torch.tensor(3.0), constraint=constraints.positive)
            second = pyro.param("second", torch.tensor(2.0), constraint=constraints.positive)
            pyro.sample("rate", make(first, second))

        svi = trial.svi(model, guide)
        trial.steps(svi, 8)
        trial.steps(svi, 8, X[:9])

    return support(scenario)


def _bounded(a, b):
    return dist.TransformedDistribution(dist.Cauchy(a, 0.01 * b), dist.transforms.TanhTransform())


def _correlated(a, b):
    return dist.MultivariateNormal(torch.zeros(2), torch.diag(torch.stack([a, b])))


def _relaxed(a, b):
    return dist.RelaxedBernoulliStraightThrough(torch.tensor(0.5), logits=a - b)


SAMPLERS = {
    "Gamma": _drawn(dist.Gamma, compiled),
    "Beta": _drawn(dist.Beta, compiled),
    "Weibull": _drawn(dist.Weibull, compiled),
    "LogNormal": _drawn(dist.LogNormal, compiled),
    "Laplace": _drawn(dist.Laplace, compiled),
    "Gumbel": _drawn(dist.Gumbel, compiled),
    "StudentT": _drawn(lambda a, b: dist.StudentT(a + 2, 0.0, b), compiled),
    "Dirichlet": _drawn(lambda a, b: dist.Dirichlet(torch.stack([a, b, a + b])), compiled),
    "Cauchy": _drawn(_bounded, compiled),
    "Kumaraswamy": _drawn(dist.Kumaraswamy, compiled),
    "MultivariateNormal": _drawn(_correlated, compiled),
    "relaxed Bernoulli": _drawn(_relaxed, compiled),
}


def _counted(make, name):
    """Discrete draws, whose gradient is that of the score."""

    def scenario(trial):
        def model(x):
            count = pyro.sample("count", make(torch.tensor(0.4)))
            observe(count.float().sum() * torch.ones(len(x)), x)

        def guide(x):
            pyro.sample("count", make(pyro.param(name, torch.tensor(0.5), constraint=constraints.unit_interval)))

        trial.steps(trial.svi(model, guide, SGD({"lr": 1e-4}), TraceGraph_ELBO()), 16)

    return compiled(scenario)


DISCRETE = {
    "Bernoulli": _counted(dist.Bernoulli, "p"),
    "Poisson": _counted(dist.Poisson, "p"),
    "Geometric": _counted(dist.Geometric, "p"),
    "Categorical": _counted(lambda p: dist.Categorical(torch.stack([p, 1 - p])), "p"),
    "Binomial": _counted(lambda p: dist.Binomial(4, p), "p"),
}


@compiled
def draws_of_a_scale_that_is_another(trial):
    width = torch.tensor(0.1)

    def guide(x):
        pyro.sample("w", dist.Normal(pyro.param("loc", torch.zeros(3)), width).to_event(1))

    svi = trial.svi(regression, guide)
    for i in range(20):
        width.fill_(0.1 + i / 20)
        trial.step(svi)


@once
def two_svis_draw_from_one_state(trial):
    svis = [trial.svi(regression), trial.svi(*coder())]
    for i in range(24):
        trial.step(svis[i % 3 == 0])


@compiled
def particles_drawn_in_a_plate(trial):
    from pyro.infer import Trace_ELBO

    svi = trial.svi(regression, weights, loss=Trace_ELBO(num_particles=2, vectorize_particles=False))
    trial.steps(svi, 10)
    trial.steps(svi, 10, X[:5])
