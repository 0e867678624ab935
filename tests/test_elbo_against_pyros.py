"""pv.ELBO against Pyro's Trace_ELBO, for every prior with each of its guides: one expectation, and no more variance.

Copies of one digit: the gradient in the outputs of the guide's head is that of each copy by itself, so that one pass
has a draw of the gradient for each. Both objectives have as many draws of z and the same random numbers, so that they
agree to rounding where they compute the same.
"""

import pytest
import torch
from pyro.infer import Trace_ELBO
from test_digits import DATA, PAIRS, made

import pyrovae as pv

COPIES, PASSES = 1000, 4


def draws(vae, loss, x):
    """The loss of each pass, per datum, and the gradient of each copy in the head's outputs."""
    outputs, losses, gradients = [], [], []
    handle = vae.posterior.head.register_forward_hook(lambda _, __, output: outputs.append(output))
    torch.manual_seed(5)
    for _ in range(PASSES):
        outputs.clear()
        value = loss.differentiable_loss(vae.model, vae.guide, x)
        own = [output for output in outputs if output.requires_grad and len(output) == len(x)]  # not of pseudo-inputs
        found = torch.autograd.grad(value, own, allow_unused=True)
        losses.append(value.detach() / len(x))
        gradients.append(torch.stack([gradient for gradient in found if gradient is not None]).sum(0))
    handle.remove()
    return torch.stack(losses), torch.cat(gradients).double()


@pytest.mark.parametrize(("prior", "guide"), PAIRS, ids=[f"{prior} by {guide}" for prior, guide in PAIRS])
def test_one_expectation_and_no_more_variance(prior, guide):
    """Means within 6 standard errors of their difference: a false alarm once in 250,000 of some 2,000 numbers."""
    vae = made(prior, guide)
    if guide == "student-t":
        with torch.no_grad():
            vae.posterior.head.bias[-vae.config["latent_dim"] :] += (
                6.0  # at fewer degrees of freedom no variance exists
            )
    x = torch.bernoulli(DATA.train[:1], generator=torch.Generator().manual_seed(1)).expand(COPIES, 64).contiguous()
    ours = pv.ELBO()
    losses, gradients = draws(vae, ours, x)
    num_draws = ours.num_draws(vae.model, vae.guide, x)
    options = {"vectorize_particles": True, "max_plate_nesting": 1} if num_draws > 1 else {}
    _, theirs = draws(vae, Trace_ELBO(num_particles=num_draws, **options), x)
    difference = gradients - theirs
    error = difference.std(0) / len(difference) ** 0.5
    assert (difference.mean(0).abs() <= 6 * error + 1e-5 * theirs.abs().mean()).all()
    variances = [found.var(0).sum().item() for found in (gradients, theirs)]
    assert variances[0] <= 1.05 * variances[1] + 1e-9
    assert torch.isfinite(losses).all()
