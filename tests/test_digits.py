"""Every prior with each of its guides trains on digits, under Pyro's Trace_ELBO and under the exact KL."""

from __future__ import annotations

import itertools

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from test_build import SPARSE_POINTS

import pyrovae as pv
from pyrovae.build import GUIDES, PRIORS
from pyrovae.objectives import draw_sites

DATA = pv.data.digits()
DIM, EPOCHS = 8, 8
MISFITS = (
    "guides that fit",
    "the guide samples the sites",
    "is no density",
    "has no distribution(x)",
    "samples sites that all data share",
)


def made(prior: str, guide: str) -> pv.VAE | None:
    """A VAE of the two names, or None where they do not fit: another support, or other sites."""
    torch.manual_seed(0)
    try:
        options = {"inputs": DATA.train, "num_data": len(DATA.train)}
        vae = pv.build_vae((64,), DIM, prior=prior, guide=guide, hidden=(64,), **options)
        with torch.no_grad():
            draw_sites(vae.model, vae.guide, (DATA.train[:2],), {}, num_draws=1)
    except ValueError as error:
        if any(reason in str(error) for reason in MISFITS):
            return None
        raise
    return vae


PAIRS = [
    (prior, guide)
    for prior, guide in itertools.product(PRIORS, GUIDES)
    if (prior == "flat" or guide not in SPARSE_POINTS) and made(prior, guide) is not None
]


def test_every_prior_and_every_guide_has_a_partner() -> None:
    assert {prior for prior, _ in PAIRS} == set(PRIORS)
    assert {guide for _, guide in PAIRS} == set(GUIDES)


@pytest.mark.parametrize("loss", [Trace_ELBO, pv.ELBO])
@pytest.mark.parametrize(("prior", "guide"), PAIRS, ids=[f"{prior} by {guide}" for prior, guide in PAIRS])
def test_it_trains(prior: str, guide: str, loss: type) -> None:
    """The held-out bound rises by more than 10 nats per datum, and no parameter stays where it was."""
    vae = made(prior, guide)
    assert vae is not None
    before = {name: value.detach().clone() for name, value in vae.named_parameters()}
    first = bound(vae)
    warm = {"beta": pv.warmup(EPOCHS)} if loss is pv.ELBO else {}
    pv.fit(vae, DATA, EPOCHS, optim=pyro.optim.Adam({"lr": 5e-3}), loss=loss(**warm), seed=0, progress=False)
    gain = bound(vae) - first
    print(f"{prior} by {guide} under {loss.__name__}: {first:.1f} nats, {gain:+.1f}")
    assert gain > 10.0
    for name, value in vae.named_parameters():
        assert (value != before[name]).any(), name


def bound(vae: pv.VAE) -> float:
    """The ELBO of the test set, 20 draws for each datum (under a Delta guide that minus an infinite constant)."""
    torch.manual_seed(0)
    return pv.metrics.elbo(vae, DATA.test, 20).elbo.mean().item()
