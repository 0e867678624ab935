"""Draws of an objective's gradient, and one datum with two latent coordinates whose exact bound has finite differences.

The decoder is linear with Normal noise, and the guide's head is its bias alone, so that the bound is a function of a
few numbers and a sum over the two coordinates of integrals of one variable.
"""

import numpy as np
import torch
from cases import Linear

import pyrovae as pv

WEIGHT, NOISE = np.array([[1.0, -0.6], [0.4, 1.3], [-0.8, 0.5]]), 0.7
X = np.array([1.2, -0.9, 0.4])


def gradient_draws(vae, x, loss, repeats, copies, parameter):
    """``repeats`` estimates of d loss / d parameter of one pass over x, each a mean over ``copies`` of x."""
    tiled = x.repeat(copies, 1)
    draws = []
    for _ in range(repeats):
        vae.posterior.zero_grad()
        loss.loss_and_grads(vae.model, vae.guide, tiled)
        draws.append(parameter.grad.clone() / copies)
    return torch.stack(draws)


def one_datum(prior, guide_of, start):
    """A VAE of float64 whose guide starts at ``start``, a row of the head's output for each of its numbers."""
    guide = guide_of(Linear(3), 2)
    with torch.no_grad():
        guide.head.weight.zero_()
        guide.head.bias.copy_(torch.tensor(start, dtype=torch.float64).flatten())
    decoder = pv.nn.Dictionary(2, 3, bias=False)
    with torch.no_grad():
        decoder.linear.weight.copy_(torch.from_numpy(WEIGHT))
    decoder.requires_grad_(False)
    guide.head.weight.requires_grad_(False)
    return pv.VAE(prior, pv.likelihoods.Normal(decoder, scale=NOISE), guide)


def exact_reconstruction(mean, variance):
    """E log p(x|z) from E z and Var z of the two independent coordinates."""
    residual = ((X - WEIGHT @ mean) ** 2).sum() + (WEIGHT**2 @ variance).sum()
    return -residual / (2 * NOISE**2) - len(X) / 2 * np.log(2 * np.pi * NOISE**2)


def finite_differences(bound, values, step=1e-5):
    """The gradient of -bound in each number of ``values``."""
    flat = np.asarray(values, dtype=float).flatten()
    gradient = np.zeros_like(flat)
    for k in range(len(flat)):
        high, low = (np.where(np.arange(len(flat)) == k, flat + sign * step, flat) for sign in (1, -1))
        gradient[k] = -(bound(high) - bound(low)) / (2 * step)
    return torch.from_numpy(gradient)


def check_gradient(vae, loss, parameters, exact, resolution=0.02, repeats=20, copies=10_000, rounds=60):
    """Each number of ``parameters`` within 4.5 standard errors: a false alarm once in 150,000 for each.

    As many rounds of 200,000 draws are run as bring seven standard errors below ``resolution`` of the largest number:
    such a bias is seen 99 times in 100.
    """
    x = torch.from_numpy(X).expand(copies, 3)
    draws = []
    for _ in range(rounds):
        for _ in range(repeats):
            vae.zero_grad()
            loss.loss_and_grads(vae.model, vae.guide, x)
            draws.append(torch.cat([parameter.grad for parameter in parameters]) / copies)
        drawn = torch.stack(draws)
        error = drawn.std(0) / len(draws) ** 0.5
        if (7 * error < resolution * exact.abs().max()).all():
            break
    else:
        raise AssertionError(f"too noisy to see a bias of {resolution:.0%}")
    assert ((drawn.mean(0) - exact).abs() <= 4.5 * error).all()
