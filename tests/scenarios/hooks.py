"""Hooks on gradients and modules, gradients that are added or read by hand, code that runs beside the loss."""

from __future__ import annotations

import pyro
import torch
from pyro.optim import SGD
from torch import nn

from scenarios.models import X, coder, network, no_guide, observe, regression, weights
from scenarios.rows import compiled, either, given_up, once
from scenarios.trial import stored

SLOW = {"lr": 1e-3}


@given_up(says="hook")
def a_gradient_hook_appears(trial):
    net = nn.Linear(3, 1)
    svi = trial.svi(network(net), no_guide, SGD(SLOW))
    trial.steps(svi, 10)
    net.weight.register_hook(lambda grad: 0.1 * grad)
    trial.steps(svi, 10)


@either(says="hook")
def a_gradient_hook_from_the_beginning(trial):
    """Clipping by a hook, as Pyro's tutorial on the deep Markov model does by its optimizer."""
    net = nn.Linear(3, 1)
    net.weight.register_hook(lambda grad: grad.clamp(-0.5, 0.5))
    trial.steps(trial.svi(network(net), no_guide, SGD(SLOW)), 20)


@either(says="hook")
def a_gradient_hook_is_removed(trial):
    net = nn.Linear(3, 1)
    svi = trial.svi(network(net), no_guide, SGD(SLOW))
    hook = net.weight.register_hook(lambda grad: 0.0 * grad)
    trial.steps(svi, 10)
    hook.remove()
    trial.steps(svi, 10)


@given_up(says="hook")
def a_hook_on_a_pyro_parameter(trial):
    svi = trial.svi(regression)
    trial.steps(svi, 10)
    norms = []
    stored()["loc"].register_hook(lambda grad: norms.append(grad.norm()))
    trial.steps(svi, 10)
    trial.keep(*norms)


@either(says="hook")
def a_hook_on_parameters_for_a_log(trial):
    """The example of gradient norms in Pyro's first tutorial on SVI."""
    svi, norms = trial.svi(regression), {}
    for i in range(20):
        trial.step(svi)
        if i == 0:
            for name, value in pyro.get_param_store().named_parameters():
                value.register_hook(lambda grad, name=name: norms.setdefault(name, []).append(grad.norm().item()))
    trial.keep(*norms["loc"])


@given_up(says="hook")
def a_hook_after_gradients_are_added(trial):
    net = nn.Linear(3, 1)
    svi = trial.svi(network(net), no_guide, SGD(SLOW))
    trial.steps(svi, 10)

    def shrink(param):
        param.grad.mul_(0.1)

    net.weight.register_post_accumulate_grad_hook(shrink)
    trial.steps(svi, 10)


@either(says="hook")
def a_forward_hook_changes_the_output(trial):
    net = nn.Linear(3, 1)
    svi = trial.svi(network(net), no_guide)
    trial.steps(svi, 8)
    hook = net.register_forward_hook(lambda module, inputs, output: 2 * output)
    trial.steps(svi, 8)
    hook.remove()
    trial.steps(svi, 8)


@either(says="hook")
def a_hook_before_forward(trial):
    net = nn.Linear(3, 1)
    svi = trial.svi(network(net), no_guide)
    trial.steps(svi, 8)
    net.register_forward_pre_hook(lambda module, inputs: (inputs[0].tanh(),))
    trial.steps(svi, 8)


@either(says="hook|activations|list")
def a_forward_hook_that_keeps_activations(trial):
    net, activations = nn.Linear(3, 1), []
    svi = trial.svi(network(net), no_guide)
    trial.steps(svi, 8)
    net.register_forward_hook(lambda module, inputs, output: activations.append(output.detach().mean()))
    trial.steps(svi, 8)
    trial.keep(*activations)


@either(says="hook")
def a_backward_hook_of_a_module(trial):
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    svi = trial.svi(network(net), no_guide, SGD(SLOW))
    trial.steps(svi, 8)
    net[1].register_full_backward_hook(lambda module, grad_in, grad_out: (0.1 * grad_in[0],))
    trial.steps(svi, 8)


@either(says="hook")
def a_hook_of_all_modules(trial):
    net = nn.Linear(3, 1)
    svi = trial.svi(network(net), no_guide)
    trial.steps(svi, 8)
    hook = nn.modules.module.register_module_forward_hook(
        lambda module, inputs, output: output + 1.0 if module is net else None
    )
    try:
        trial.steps(svi, 8)
    finally:
        hook.remove()
    trial.steps(svi, 8)


@either(says="hook")
def a_hook_on_a_tensor_inside_of_the_model(trial):
    def model(x):
        mean = x @ pyro.param("w", torch.zeros(3))
        mean.register_hook(lambda grad: grad.clamp(-0.1, 0.1))
        observe(mean, x)

    trial.steps(trial.svi(model, no_guide, SGD(SLOW)), 16)


@either(says="grad")
def a_gradient_added_before_the_step(trial):
    svi = trial.svi(regression, optim=SGD(SLOW))
    for i in range(20):
        if i >= 10:
            stored()["loc"].grad = torch.full((3,), 50.0)
        trial.step(svi)


@either(says="grad")
def the_gradient_of_a_penalty_added_before_the_step(trial):
    net = trial.watch(nn.Linear(3, 1))
    svi = trial.svi(network(net), no_guide, SGD({"lr": 1e-4}))
    for i in range(20):
        if i % 4 == 3:
            (100 * net.weight.abs().sum()).backward()
        trial.step(svi)


@once
def gradients_are_zero_after_a_step(trial):
    net = nn.Linear(3, 1)
    svi = trial.svi(network(net), no_guide)
    for _ in range(12):
        trial.step(svi)
        trial.keep(net.weight.grad.norm(), net.bias.grad)


@once
def gradients_are_set_to_none_between_steps(trial):
    net = nn.Linear(3, 1)
    svi = trial.svi(network(net), no_guide)
    for i in range(16):
        trial.step(svi)
        if i % 4 == 3:
            net.zero_grad(set_to_none=True)


@once
def another_loss_is_differentiated_between_steps(trial):
    net, probe = nn.Linear(3, 1), nn.Linear(1, 1)
    optimizer = torch.optim.SGD(probe.parameters(), lr=0.01)
    trial.watch(probe)
    svi = trial.svi(network(net), no_guide)
    for _ in range(16):
        trial.step(svi)
        optimizer.zero_grad()
        (probe(net(X).detach()) ** 2).mean().backward()
        optimizer.step()


@either(says="anomaly")
def anomalies_are_looked_for(trial):
    svi = trial.svi(*coder())
    trial.steps(svi, 8)
    with torch.autograd.detect_anomaly(check_nan=True):
        trial.steps(svi, 4)
    trial.steps(svi, 8)


@either(says="hook|saved")
def saved_tensors_are_packed(trial):
    svi = trial.svi(*coder())
    trial.steps(svi, 8)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x.clone(), lambda x: x):
        trial.steps(svi, 4)
    trial.steps(svi, 8)


@compiled
def a_function_with_a_gradient_of_its_own(trial):
    class Halved(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return 0.5 * grad

    def model(x):
        observe(Halved.apply(x @ pyro.param("w", torch.zeros(3))), x)

    trial.steps(trial.svi(model, no_guide), 16)


@either(says="handler|Messenger|stack")
def a_handler_around_some_steps(trial):
    class Doubled(pyro.poutine.messenger.Messenger):
        def _pyro_sample(self, msg):
            msg["scale"] = 2.0 * msg["scale"]

    svi = trial.svi(regression)
    trial.steps(svi, 8)
    with Doubled():
        trial.steps(svi, 4)
    trial.steps(svi, 8)


@compiled
def a_handler_in_the_model(trial):
    strength = [1.0]

    def scaled(function):
        def run(x):
            with pyro.poutine.scale(scale=strength[0]):
                function(x)

        return run

    svi = trial.svi(scaled(regression), scaled(weights))
    for strength[0] in (1.0, 0.1, 5.0):
        trial.steps(svi, 7)
