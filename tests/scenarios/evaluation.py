"""The loss read between steps; clipping and accumulation beside the same loop by hand."""

from __future__ import annotations

import pyro
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.optim import SGD, Adam
from torch import nn

import pyrovae as pv
from scenarios.models import BITS, X, coder, network, no_guide, observe, regression, vae
from scenarios.rows import compiled, once, twice


@once
def the_loss_of_a_test_set_between_steps(trial):
    svi = trial.svi(*coder())
    for i in range(20):
        trial.step(svi, X[:16])
        if i % 4 == 3:
            trial.keep(svi.evaluate_loss(X[16:]))


@twice
def the_loss_of_the_same_batch_after_each_step(trial):
    svi = trial.svi(regression)
    for _ in range(16):
        trial.step(svi)
        trial.keep(svi.evaluate_loss(X))


@once
def the_loss_before_the_first_step(trial):
    svi = trial.svi(regression)
    trial.keep(svi.evaluate_loss(X), svi.evaluate_loss(X))
    trial.steps(svi, 12)


@once
def the_loss_of_another_objective(trial):
    model, guide = coder()
    svi, other = trial.svi(model, guide), TraceMeanField_ELBO(num_particles=2)
    for _ in range(12):
        trial.step(svi)
        trial.keep(other.loss(model, guide, X))


@once
def evaluation_of_an_elbo_of_pyrovae(trial):
    module = vae("spike-slab")
    svi = trial.svi(module.model, module.guide, loss=pv.ELBO())
    trial.steps(svi, 6, BITS)
    trial.keep(svi.evaluate_loss(BITS))
    trial.steps(svi, 10, BITS)


def _by_hand(trial, every, clip):
    """The loop that ``accumulate`` and ``clip_norm`` stand for, in torch."""
    net = trial.watch(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)))
    batches = [X.roll(i, 0)[:12] for i in range(18)]
    if not trial.is_pyro:
        options = {"accumulate": every} | ({"clip_norm": clip} if clip else {})
        svi = trial.svi(network(net), no_guide, SGD({"lr": 1e-3}), **options)
        for batch in batches:
            trial.step(svi, batch)
        trial.optims.clear()
        return
    optimizer, elbo, model = torch.optim.SGD(net.parameters(), lr=1e-3), Trace_ELBO(), network(net)
    for i, batch in enumerate(batches):
        loss = elbo.differentiable_loss(model, no_guide, batch)
        loss.backward()
        trial.losses.append(loss.item())
        if i % every == every - 1:
            if clip:
                nn.utils.clip_grad_norm_(net.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()


CLIPPED = {
    "clipped": once(lambda trial: _by_hand(trial, 1, 0.5)),
    "accumulated": once(lambda trial: _by_hand(trial, 3, None)),
    "clipped and accumulated": once(lambda trial: _by_hand(trial, 2, 0.5)),
}


@compiled
def the_norm_that_clips_is_set_later(trial):
    """A norm too large to clip, then one that clips, as a clip of the optimizer of a single parameter."""

    def model(x):
        observe(x @ pyro.param("w", torch.zeros(3)), x)

    if trial.is_pyro:
        first, second = (SGD({"lr": 1e-3}, {"clip_norm": norm}) for norm in (1e6, 0.5))
        svi = trial.svi(model, no_guide, first)
        trial.steps(svi, 8)
        svi.optim = second
        trial.steps(svi, 8)
    else:
        svi = trial.svi(model, no_guide, SGD({"lr": 1e-3}), clip_norm=1e6)
        trial.steps(svi, 8)
        svi.clip_norm = 0.5
        trial.steps(svi, 8)
    trial.optims.clear()


@once
def losses_are_added_up_by_the_loop(trial):
    svi, total = trial.svi(regression, optim=Adam({"lr": 0.02})), 0.0
    for _ in range(4):
        for batch in X.split(6):
            total += trial.step(svi, batch) / len(batch)
    trial.keep(total)
