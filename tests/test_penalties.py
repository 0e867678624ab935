"""Total correlation and MMD against quadrature and closed forms."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.distributions import Bernoulli
from pyrovae.objectives import draw_sites

COVARIANCE = torch.tensor([[1.0, 0.8], [0.8, 1.0]]).double()


def two_functions(loc, scale=0.6, likelihood=False):
    """q(z|x_n) = N(loc_n, scale^2) over a table of locations, which x indexes; the prior is N(0, 1)."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(loc.new_zeros(len(x), loc.shape[1]), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1) if likelihood else 0.0 * z.sum(-1), 1.0), obs=x.to(loc))

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(loc[x], scale).to_event(1))

    return model, guide


def value(penalty, model, guide, x, num_particles=1):
    return penalty(*draw_sites(model, guide, (x,), {}, num_particles)).mean()


def mixture_correlation(loc, scale, nodes=400):
    """KL(q(z) || q(z_1) q(z_2)) of a mixture of Normals, by the trapezoidal rule on a square."""
    grid = torch.linspace(-6, 6, nodes).double()
    each = dist.Normal(loc[:, :, None], scale).log_prob(grid).exp()  # (N, 2, nodes)
    joint = torch.einsum("na,nb->ab", each[:, 0], each[:, 1]) / len(loc)
    marginals = each.mean(0)
    step = (grid[1] - grid[0]) ** 2
    return (joint * (joint.log() - marginals[0][:, None].log() - marginals[1].log())).sum() * step


def locations(num=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(num, 2, generator=generator).double() @ torch.linalg.cholesky(COVARIANCE).T
    return draws.requires_grad_()


def test_total_correlation_of_all_data_is_quadratures():
    """Value and gradient on the whole set, 240,000 passes; within 5 standard errors, and resolved to 2 %."""
    loc = locations()
    exact = mixture_correlation(loc, 0.6)
    gradient = torch.autograd.grad(exact, loc)[0]
    torch.manual_seed(0)
    penalty = pv.TotalCorrelation(1.0, num_data=6)
    values, gradients = [], []
    for _ in range(40):
        sites = draw_sites(*two_functions(loc), (torch.arange(6),), {}, 6000)
        values.append(penalty(*sites).mean())
        gradients.append(torch.autograd.grad(values[-1], loc)[0])
    values, gradients = torch.stack(values).detach(), torch.stack(gradients)
    assert abs(values.mean() - exact.detach()) <= 5 * values.std() / 40**0.5 < 0.05 * exact
    error = gradients.std(0) / 40**0.5
    assert ((gradients.mean(0) - gradient).abs() <= 5 * error).all()
    assert (7 * error < 0.02 * gradient.abs().max()).all()


def test_total_correlation_is_zero_of_independent_coordinates_and_large_of_copies():
    torch.manual_seed(0)
    penalty = pv.TotalCorrelation(1.0, num_data=400)
    x = torch.arange(400)
    independent = torch.randn(400, 2).double()
    copies = independent[:, :1].expand(400, 2)
    # a plug-in of 400 data: its own bias is some hundredths
    assert value(penalty, *two_functions(independent, 0.3), x).abs() < 0.1
    assert value(penalty, *two_functions(copies, 0.3), x) > 0.6


def test_bias_of_total_correlation_on_batches_is_what_is_said():
    """The weights are unbiased for q(z): their mean over batches is 1/N for each datum. The logarithm is not: with 64
    data the gradient's part along the exact one is 19 % too long on batches of 8, and right on all."""
    torch.manual_seed(0)
    penalty = pv.TotalCorrelation(1.0, num_data=64)
    weights = torch.zeros(64).double()
    for _ in range(5000):
        row = penalty._log_weights(8).exp()[0].double()
        weights[0] += row[0]
        weights[1 + torch.randperm(63)[:7]] += row[1:]
    torch.testing.assert_close(weights / 5000, torch.full((64,), 1 / 64).double(), rtol=0.2, atol=0)
    loc = locations(64, 1)
    exact = torch.autograd.grad(mixture_correlation(loc, 0.3), loc)[0]
    for rows, low, high in ((8, 1.1, 1.3), (64, 0.99, 1.01)):
        gradients = []
        for _ in range(300):
            batch = value(penalty, *two_functions(loc, 0.3), torch.randperm(64)[:rows], 20)
            gradients.append(torch.autograd.grad(batch, loc)[0])
        assert low < (torch.stack(gradients).mean(0) * exact).sum() / exact.square().sum() < high


def test_mmd_is_its_closed_form_for_normals():
    """E k of two Normals has a closed form; value and gradient, 5 standard errors, resolved to 2 %."""
    loc = torch.full((1, 2), 1.5).double().requires_grad_()
    scale, h2 = 0.6, 2.0

    def kernel(mean, variance):
        return torch.exp(-(mean**2) / (2 * (h2 + variance))).prod() * (h2 / (h2 + variance)) ** 1.0

    zero = torch.zeros(2).double()
    exact = kernel(zero, 2 * scale**2) - 2 * kernel(loc[0], scale**2 + 1.0) + kernel(zero, torch.tensor(2.0).double())
    # the locations of two data are the same parameter
    exact = exact * 3.0
    gradient = torch.autograd.grad(exact, loc)[0]
    torch.manual_seed(0)
    penalty = pv.MMD(3.0)
    values, gradients = [], []
    for _ in range(40):
        model, guide = two_functions(loc.expand(200, 2), scale)
        values.append(value(penalty, model, guide, torch.arange(200), 20))
        gradients.append(torch.autograd.grad(values[-1], loc)[0])
    values, gradients = torch.stack(values).detach(), torch.stack(gradients)
    assert abs(values.mean() - exact.detach()) <= 5 * values.std() / 40**0.5
    error = gradients.std(0) / 40**0.5
    assert ((gradients.mean(0) - gradient).abs() <= 5 * error).all()
    assert (7 * error < 0.02 * gradient.abs().max()).all()


def test_mmd_is_zero_at_the_prior_and_not_elsewhere():
    torch.manual_seed(0)
    x = torch.arange(500)
    at_prior = torch.zeros(500, 2).double()
    assert abs(value(pv.MMD(1.0), *two_functions(at_prior, 1.0), x, 10)) < 0.005
    assert value(pv.MMD(1.0), *two_functions(at_prior + 3.0, 1.0), x, 10) > 0.5


@pytest.mark.parametrize("estimator", [pv.LeaveOneOut(16), pv.DisARM()])
def test_penalties_train_what_has_no_path(estimator):
    """The gradient of the MMD of bits from a prior of bits, in the logits of all data: sums over states, within 5
    standard errors, resolved to 2 %."""
    logit = torch.tensor([0.5, -0.8]).double().requires_grad_()
    prior = torch.tensor([-2.5, 2.0]).double()

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", Bernoulli(logits=prior).expand([len(x), 2]).to_event(1))
            pyro.sample("x", dist.Normal(torch.zeros(len(x)).double(), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", Bernoulli(logits=logit).expand([len(x), 2]).to_event(1))

    # |a - b|^2 of bits is how many differ, each by itself; h^2 = 1/4
    def kernel(p, q):
        differ = p * (1 - q) + q * (1 - p)
        return (1 - differ + differ * math.exp(-2.0)).prod()

    p, q = prior.sigmoid(), logit.sigmoid()
    exact = torch.autograd.grad(kernel(q, q) - 2 * kernel(q, p), logit)[0]
    # both arguments of kernel(q, q) move: the sum over a batch has that too
    x = torch.zeros(40).double()
    loss = pv.ELBO(0.0, num_particles=16, estimator=estimator, penalties=[pv.MMD(1.0, bandwidth=0.5)])
    torch.manual_seed(0)
    draws = []
    for _ in range(1500):
        logit.grad = None
        loss.loss_and_grads(model, guide, x)
        draws.append(logit.grad / 40)
    draws = torch.stack(draws)
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - exact).abs() <= 5 * error).all()
    assert (7 * error < 0.02 * exact.abs().max()).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pv.TotalCorrelation(-1.0, 10), "weight must be finite and at least 0"),
        (lambda: pv.TotalCorrelation(1.0, 0), "num_data must be a positive whole number"),
        (lambda: pv.MMD(float("nan")), "weight must be finite and at least 0"),
        (lambda: pv.MMD(1.0, bandwidth=0.0), "bandwidth must be positive"),
        (lambda: value(pv.MMD(1.0), *two_functions(torch.zeros(4, 2)), torch.arange(2)), "at least 3 rows"),
        (
            lambda: value(pv.MMD(1.0, site="w"), *two_functions(torch.zeros(4, 2)), torch.arange(4)),
            "site 'w' is not a site",
        ),
        (
            lambda: value(pv.TotalCorrelation(1.0, 3), *two_functions(torch.zeros(4, 2)), torch.arange(4)),
            "num_data is 3, and the batch has 4 rows",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
