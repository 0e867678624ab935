"""The linear-Gaussian VAE, whose log p(x) and posterior are known: z ~ N(0, I), x|z ~ N(W z + b, s^2 I)."""

import math

import torch
from cases import Linear
from torch import nn

from pyrovae import VAE, guides, likelihoods, priors
from pyrovae.nn import Dictionary

DIM, FEATURES, NOISE = 3, 6, 0.4


def linear_gaussian(guide=guides.MultivariateNormal):
    """The VAE with a guide that is linear in x, in float64; the model's weights are drawn from seed 0."""
    generator = torch.Generator().manual_seed(0)
    decoder = Dictionary(DIM, FEATURES)
    vae = VAE(priors.Normal(DIM), likelihoods.Normal(decoder, scale=NOISE), guide(Linear(FEATURES), DIM)).double()
    vae.likelihood.scale.value.fill_(NOISE)  # 0.4 in float64
    with torch.no_grad():
        decoder.linear.weight.copy_(torch.randn(FEATURES, DIM, generator=generator).double())
        decoder.linear.bias.copy_(torch.randn(FEATURES, generator=generator).double())
    for parameter in (*vae.prior.parameters(), *vae.likelihood.parameters()):
        parameter.requires_grad_(False)
    return vae


def marginal(vae):
    """p(x) = N(b, W W^T + s^2 I)."""
    linear = vae.likelihood.network.linear
    covariance = linear.weight @ linear.weight.T + NOISE**2 * torch.eye(FEATURES).double()
    return torch.distributions.MultivariateNormal(linear.bias, covariance)


def set_exact_posterior(vae):
    """p(z|x) = N(S W^T (x - b) / s^2, S), S = (I + W^T W / s^2)^-1, written into the head of the guide."""
    linear, head = vae.likelihood.network.linear, vae.posterior.head
    covariance = torch.linalg.inv(torch.eye(DIM).double() + linear.weight.T @ linear.weight / NOISE**2)
    gain = covariance @ linear.weight.T / NOISE**2
    tril = torch.linalg.cholesky(covariance)
    with torch.no_grad():
        head.weight.zero_()
        head.weight[:DIM] = gain
        head.bias[:DIM] = -gain @ linear.bias
        head.bias[DIM : 2 * DIM] = torch.log(torch.expm1(tril.diagonal() - guides.SCALE_FLOOR))
        head.bias[2 * DIM :] = tril[tuple(torch.tril_indices(DIM, DIM, -1))]


def data(vae, num=40):
    torch.manual_seed(1)
    return marginal(vae).sample((num,))


def set_bad_start(guide: nn.Module, seed=3):
    """Far from the posterior, with the wrong sign and scale."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        guide.head.weight.copy_(torch.randn(guide.head.weight.shape, generator=generator) / math.sqrt(FEATURES))
        guide.head.bias.copy_(torch.randn(guide.head.bias.shape, generator=generator))
