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


def weights(module):
    return torch.cat([p.detach().double().flatten() for p in module.parameters()])


def assert_same_run(make, batches, *, rel=1e-5, prior="normal", optim=adam, **options):
    """Losses and parameters after the steps are those of Pyro's SVI from the same seed."""
    theirs, ours = vae(prior), vae(prior)
    expected = losses(pyro.infer.SVI(theirs.model, theirs.guide, optim(), make()), batches)
    svi = pv.SVI(ours.model, ours.guide, optim(), make(), **options)
    assert losses(svi, batches) == pytest.approx(expected, rel=rel)
    assert torch.allclose(weights(ours), weights(theirs), rtol=1e-4, atol=1e-5)
    return svi
