"""The objective changes: another loss, its settings; model and guide of the SVI are replaced."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro import infer
from pyro.infer import RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.optim import SGD

import pyrovae as pv
from scenarios.models import BITS, X, coder, no_guide, observe, regression, vae, weights
from scenarios.rows import compiled, either, once, twice


def _plain(make):
    def scenario(trial):
        svi = trial.svi(*coder(), loss=make())
        trial.steps(svi, 12)
        trial.steps(svi, 6, X[:7])

    return twice(scenario)


OF_PYRO = {
    "vectorized": _plain(lambda: Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1)),
    "mean field": _plain(lambda: TraceMeanField_ELBO(num_particles=2)),
    "graph": _plain(infer.TraceGraph_ELBO),
    "Renyi": _plain(lambda: RenyiELBO(alpha=0.5, num_particles=3)),
    "Renyi, vectorized": _plain(
        lambda: RenyiELBO(alpha=0.0, num_particles=3, vectorize_particles=True, max_plate_nesting=1)
    ),
    "wake-sleep": _plain(lambda: infer.ReweightedWakeSleep(num_particles=3, vectorize_particles=False)),
    "tail-adaptive": _plain(
        lambda: infer.TraceTailAdaptive_ELBO(num_particles=4, vectorize_particles=True, max_plate_nesting=1)
    ),
}


def _ours(make):
    def scenario(trial):
        module = vae()
        svi = trial.svi(module.model, module.guide, loss=make())
        trial.steps(svi, 12, BITS)
        trial.steps(svi, 6, BITS[:7])

    return twice(scenario)


OF_PYROVAE = {
    "ELBO": _ours(pv.ELBO),
    "beta": _ours(lambda: pv.ELBO(beta=4.0)),
    "two draws": _ours(lambda: pv.ELBO(num_particles=2)),
    "IWAE": _ours(lambda: pv.IWAE(3)),
    "DReG": _ours(lambda: pv.DReG(3)),
    "Renyi": _ours(lambda: pv.Renyi(0.5, 3)),
}


@compiled
def more_particles(trial):
    loss = Trace_ELBO()
    svi = trial.svi(regression, loss=loss)
    trial.steps(svi, 10)
    loss.num_particles = 3
    trial.steps(svi, 10)


@compiled
def another_alpha(trial):
    loss = RenyiELBO(alpha=0.5, num_particles=3)
    svi = trial.svi(regression, loss=loss)
    trial.steps(svi, 10)
    loss.alpha = 0.0
    trial.steps(svi, 10)


@compiled
def another_model(trial):
    svi = trial.svi(regression)
    trial.steps(svi, 10)
    svi.model = lambda x: regression(x, 3.0)
    trial.steps(svi, 10)


@compiled
def another_guide(trial):
    def narrow(x):
        pyro.sample("w", dist.Normal(pyro.param("loc"), 0.01).to_event(1))

    svi = trial.svi(regression)
    trial.steps(svi, 10)
    svi.guide = narrow
    trial.steps(svi, 10)
    svi.guide = weights
    trial.steps(svi, 10)


@either(says="it changes __baseline")
def an_objective_of_discrete_draws_with_a_baseline(trial):
    def guide(x):
        with pyro.plate("data", len(x)):
            logits = pyro.param("logits", torch.zeros(24), event_dim=0)
            baseline = {"use_decaying_avg_baseline": True, "baseline_beta": 0.9}
            pyro.sample("kind", dist.Bernoulli(logits=logits), infer={"baseline": baseline})

    def model(x):
        with pyro.plate("data", len(x)):
            kind = pyro.sample("kind", dist.Bernoulli(torch.full((len(x),), 0.5)))
            pyro.sample("y", dist.Normal(3 * kind, 1.0), obs=x.sum(-1))

    trial.steps(trial.svi(model, guide, loss=infer.TraceGraph_ELBO()), 24)


@once
def score_functions_under_trace_elbo(trial):
    def guide(x):
        pyro.sample("kind", dist.Bernoulli(logits=pyro.param("logit", torch.tensor(0.0))))

    def model(x):
        kind = pyro.sample("kind", dist.Bernoulli(0.3))
        observe(kind.expand(len(x)), x)

    trial.steps(trial.svi(model, guide, SGD({"lr": 1e-3})), 24)


@once
def a_plain_maximum_of_the_likelihood(trial):
    trial.steps(trial.svi(lambda x: observe(pyro.param("m", torch.tensor(0.0)), x), no_guide), 24)
