"""Runs of ``pv.SVI`` and of ``pyro.infer.SVI`` from the same seed, on a small VAE."""

from __future__ import annotations

import pyro
import pytest
import torch

import pyrovae as pv

DIM, WIDTH, LATENT, ROWS = 12, 8, 3, 16


def data(rows=ROWS, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.bernoulli(torch.full((rows, DIM), 0.4, dtype=dtype), generator=generator)


def vae(prior="normal", seed=0):
    torch.manual_seed(seed)
    return pv.build_vae((DIM,), LATENT, prior=prior, hidden=(WIDTH,))


def adam(lr=1e-2):
    return pyro.optim.Adam({"lr": lr})


def losses(svi, batches, seed=1):
    torch.manual_seed(seed)
    return [svi.step(batch) for batch in batches]


def pyros_losses(module, optim, objective, batches):
    """Those of Pyro's SVI, which counts no steps: it is given the numbers of each."""
    svi = pyro.infer.SVI(module.model, module.guide, optim, objective)
    torch.manual_seed(1)
    every = []
    for step, batch in enumerate(batches):
        if isinstance(objective, pv.objectives.Objective):
            now = objective.at({name: schedule(step) for name, schedule in objective.schedules().items()})
            svi.loss_and_grads = now.loss_and_grads
        every.append(svi.step(batch))
    return every


def weights(module):
    return torch.cat([p.detach().double().flatten() for p in module.parameters()])


def assert_same_run(make, batches, *, rel=1e-5, prior="normal", optim=adam, **options):
    """Losses and parameters after the steps are those of Pyro's SVI from the same seed."""
    theirs, ours = vae(prior), vae(prior)
    expected = pyros_losses(theirs, optim(), make(), batches)
    svi = pv.SVI(ours.model, ours.guide, optim(), make(), **options)
    assert losses(svi, batches) == pytest.approx(expected, rel=rel)
    assert torch.allclose(weights(ours), weights(theirs), rtol=1e-4, atol=1e-5)
    return svi
