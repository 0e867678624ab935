"""Losses of one's own, and loss_and_grads of the SVI set by hand."""

from __future__ import annotations

import functools

import torch
from pyro import poutine
from pyro.infer import RenyiELBO, TraceMeanField_ELBO
from torch import nn

from scenarios.models import X, coder, regression
from scenarios.rows import compiled, either, once, twice
from scenarios.trial import stored


class Weighted(TraceMeanField_ELBO):
    """The KL term has a weight, an attribute that a loop sets."""

    beta = 1.0

    def differentiable_loss(self, model, guide, *args, **kwargs):
        with poutine.scale(scale=self.beta):
            return super().differentiable_loss(model, guide, *args, **kwargs)

    def loss_and_grads(self, model, guide, *args, **kwargs):
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward()
        return loss.item()


@compiled
def a_weight_of_the_loss_that_is_set_twice(trial):
    loss = Weighted()
    svi = trial.svi(*coder(), loss=loss)
    for loss.beta in (0.1, 0.5, 1.0):
        trial.steps(svi, 8)


@either(says="beta")
def a_weight_of_the_loss_that_is_set_at_each_step(trial):
    loss = Weighted()
    svi = trial.svi(*coder(), loss=loss)
    for i in range(24):
        loss.beta = 0.1 + i / 20
        trial.step(svi)


@once
def a_weight_of_the_loss_that_is_a_tensor(trial):
    loss = Weighted()
    loss.beta = torch.tensor(0.1)
    svi = trial.svi(*coder(), loss=loss)
    for _ in range(24):
        trial.step(svi)
        loss.beta.add_(0.1)


def simple_elbo(model, guide, *args, **kwargs):
    """The loss of Pyro's tutorial on objectives of one's own."""
    guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
    return -1 * (model_trace.log_prob_sum() - guide_trace.log_prob_sum())


@once
def a_function_as_a_loss(trial):
    trial.steps(trial.svi(regression, loss=simple_elbo), 24)


@compiled
def a_loss_that_closes_over_a_number(trial):
    strength = 0.0

    def loss(model, guide, *args):
        penalty = sum((param**2).sum() for param in stored().values())
        return simple_elbo(model, guide, *args) + strength * penalty

    svi = trial.svi(regression, loss=loss)
    for strength in (0.0, 5.0, 1.0):  # noqa: B007
        trial.steps(svi, 8)


@compiled
def a_loss_with_a_number_of_draws(trial):
    settings = {"draws": 1}

    def loss(*args):
        return sum(simple_elbo(*args) for _ in range(settings["draws"])) / settings["draws"]

    svi = trial.svi(regression, loss=loss)
    for settings["draws"] in (1, 3, 2):
        trial.steps(svi, 8)


@compiled
def a_partial_loss_with_other_keywords(trial):
    def loss(model, guide, x, factor):
        return factor * simple_elbo(model, guide, x)

    partial = functools.partial(loss, factor=1.0)
    svi = trial.svi(regression, loss=partial)
    trial.steps(svi, 8)
    partial.keywords["factor"] = 3.0
    trial.steps(svi, 8)


@once
def a_term_of_the_module_in_the_loss(trial):
    encoder, decoder = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4)), nn.Linear(2, 3)
    from scenarios.models import coded

    def loss(model, guide, x):
        return simple_elbo(model, guide, x) + decoder.weight.abs().sum()

    trial.steps(trial.svi(*coded(encoder, decoder), loss=loss), 24)


@twice
def a_differentiable_loss_of_pyro_in_a_function(trial):
    elbo = TraceMeanField_ELBO()

    def loss(model, guide, x, both):
        found = elbo.differentiable_loss(model, guide, x)
        return found + 0.5 * elbo.differentiable_loss(model, guide, 2 * x) if both else found

    model, guide = coder()
    svi = trial.svi(model, guide, loss=loss)
    for i in range(24):
        trial.step(svi, X, i // 6 % 2 == 1)


@either(says="gradient|no loss|nothing")
def a_loss_without_a_gradient(trial):
    svi = trial.svi(regression, loss=lambda model, guide, x: simple_elbo(model, guide, x).detach())
    trial.steps(svi, 12)


@either(says="loss_and_grads")
def loss_and_grads_that_does_nothing(trial):
    svi = trial.svi(regression)
    trial.steps(svi, 8)
    svi.loss_and_grads = lambda model, guide, *args: 7.0
    trial.steps(svi, 4)


@compiled
def loss_and_grads_of_another_objective(trial):
    svi = trial.svi(regression)
    trial.steps(svi, 10)
    svi.loss_and_grads = RenyiELBO(num_particles=3).loss_and_grads
    trial.steps(svi, 10)


@compiled
def loss_and_grads_of_ones_own(trial):
    def loss_and_grads(model, guide, *args):
        loss = simple_elbo(model, guide, *args)
        (0.5 * loss).backward()
        return loss

    trial.svi(regression, loss=simple_elbo, loss_and_grads=loss_and_grads)
    trial.steps(trial.svis[0], 20)


@compiled
def another_loss_and_its_gradients(trial):
    svi = trial.svi(*coder())
    trial.steps(svi, 10)
    other = TraceMeanField_ELBO()
    svi.loss, svi.loss_and_grads = other.loss, other.loss_and_grads
    trial.steps(svi, 10)
    trial.keep(svi.evaluate_loss(X))


@compiled
def another_loss_for_evaluation(trial):
    svi = trial.svi(regression)
    trial.steps(svi, 8)
    svi.loss = lambda model, guide, x: torch.tensor(3.0)
    trial.steps(svi, 8)
    trial.keep(svi.evaluate_loss(X))
