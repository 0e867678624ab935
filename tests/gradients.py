"""What the tests of gradient estimators against enumeration share."""

import torch


def gradient_draws(vae, x, loss, repeats, copies, parameter):
    """``repeats`` estimates of d loss / d parameter of one pass over x, each a mean over ``copies`` of x."""
    tiled = x.repeat(copies, 1)
    draws = []
    for _ in range(repeats):
        vae.posterior.zero_grad()
        loss.loss_and_grads(vae.model, vae.guide, tiled)
        draws.append(parameter.grad.clone() / copies)
    return torch.stack(draws)
