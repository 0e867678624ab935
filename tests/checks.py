"""What the tests of learned priors share: mass, moments, gradients and training of a prior without a KL of its own."""

import copy

import numpy as np
import pyro
import pytest
import scipy.stats as st
import torch
from scipy.special import log_softmax, logsumexp

import pyrovae as pv
from pyrovae import guides, likelihoods
from pyrovae.nn import MLP


def by_hand(prior, z):
    """log p(z) of a Mixture: components first, each over all coordinates, and then their sum."""
    logits, loc = prior.logits.detach().numpy(), prior.loc.detach().numpy()
    scale = np.logaddexp(0, prior.scale.raw.detach().numpy())
    each = np.stack([st.norm(m, s).logpdf(z).sum(-1) for m, s in zip(loc, scale, strict=True)], -1)
    return logsumexp(each + log_softmax(logits), axis=-1)


def check_mass(d):
    """One, by the trapezoid rule over a plane that leaves out little; mean and covariance by the same rule."""
    line = torch.linspace(-14, 14, 701, dtype=torch.float64)
    z = torch.cartesian_prod(line, line)
    with torch.no_grad():
        mass = torch.cat([d.log_prob(rows).exp() for rows in z.split(20_000)]) * (line[1] - line[0]) ** 2
    assert mass.sum().item() == pytest.approx(1.0, abs=1e-4)
    mean = mass @ z
    return mean, torch.einsum("n,ni,nj->ij", mass, z - mean, z - mean)


def check_moments(draws, mean, covariance):
    """Within 6 standard errors for each number: a false alarm once in 10^7."""
    products = (draws - mean)[:, :, None] * (draws - mean)[:, None, :]
    for values, expected in ((draws, mean), (products, covariance)):
        assert ((values.mean(0) - expected).abs() <= 6 * values.std(0) / len(draws) ** 0.5).all()


def check_gradients(prior, z):
    """A finite gradient, nowhere all zero, for each parameter."""
    prior.distribution().log_prob(z).sum().backward()
    for name, parameter in prior.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def check_training(prior_of, named, **options):
    """30 epochs on the digits under Trace_ELBO move every learned parameter and better the held-out bound by 10 nats.

    The bound's standard error over the 180 digits is about 0.3 nats.
    """
    torch.manual_seed(0)
    data = pv.data.digits()
    guide = guides.Normal(MLP(64, [32]), 4)
    vae = pv.VAE(prior_of(guide, data), likelihoods.Bernoulli(MLP(4, [32], 64)), guide)
    untrained = pv.metrics.elbo(vae, data.test)
    assert not untrained.kl_is_exact
    before = copy.deepcopy(vae.state_dict())
    pv.fit(vae, data, epochs=30, batch_size=128, seed=0, progress=False, optim=pyro.optim.Adam({"lr": 3e-3}), **options)
    assert (pv.metrics.elbo(vae, data.test).elbo - untrained.elbo).mean() > 10
    moved = {name for name, value in vae.prior.named_parameters() if not torch.equal(value, before[f"prior.{name}"])}
    assert moved == {name for name, _ in vae.prior.named_parameters()} >= named
    return vae, before
