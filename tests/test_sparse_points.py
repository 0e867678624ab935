"""Codes of sparse autoencoders by loops; their losses, and every gradient of these, by hand."""

from __future__ import annotations

import copy
import math

import pyro
import pytest
import torch
from torch.nn import functional

import pyrovae as pv
from pyrovae import guides, likelihoods
from pyrovae.nn import MLP, Dictionary

ROWS, WIDTH, DIM = 7, 6, 10
HALF = 0.5**0.5  # the scale at which -log p(x|z) is the squared error and a constant
CONSTANT = WIDTH * math.log(HALF * math.sqrt(2 * math.pi))
GUIDES = {
    "relu": "relu",
    "topk": "topk:k=3:dead_after=20",
    "batch-topk": "batch-topk:k=3:dead_after=20",
    "matryoshka": "matryoshka:k=3:prefixes=(2,5):dead_after=20",
    "jump-relu": "jump-relu:penalty=0.3:threshold=0.2:bandwidth=0.6",
    "gated": "gated:penalty=0.3",
    "vaease": "vaease",
}


@pytest.fixture(autouse=True)
def double_precision():
    with pyro.get_param_store().scope():
        torch.set_default_dtype(torch.float64)
        yield
        torch.set_default_dtype(torch.float32)


def vae(guide: str, likelihood: str = f"normal:scale={HALF!r}", hidden: tuple[int, ...] = (), **options) -> pv.VAE:
    torch.manual_seed(0)
    options = {"prior": "flat", "network": "dictionary", **options}
    made = pv.build_vae((WIDTH,), DIM, guide=guide, likelihood=likelihood, hidden=hidden, **options)
    with torch.no_grad():  # away from the start, where encoder and decoder are each other's transpose
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def data(rows: int = ROWS) -> torch.Tensor:
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def pre_activations(model: pv.VAE, x: torch.Tensor) -> torch.Tensor:
    head, bias = model.posterior.head, model.likelihood.network.linear.bias
    return (x - bias) @ head.weight.T + head.bias


def squared_error(model: pv.VAE, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Of each datum, with atoms normalised by hand."""
    weight = model.likelihood.network.linear.weight
    return (x - z @ (weight / weight.norm(dim=0)).T - model.likelihood.network.linear.bias).square().sum(-1)


def largest_by_loops(pre: torch.Tensor, k: int) -> torch.Tensor:
    z = torch.zeros_like(pre)
    for place in sorted(range(pre.numel()), key=lambda i: -pre.flatten()[i].item())[:k]:
        z.view(-1)[place] = max(0.0, pre.flatten()[place].item())
    return z


def same(code: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal up to rounding, with zeros in the same places."""
    torch.testing.assert_close(code, expected, rtol=1e-11, atol=0)


def loss_and_gradients(model: pv.VAE, loss: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    grads = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    zeros = map(torch.zeros_like, parameters)
    return loss, dict(zip(names, (z if g is None else g for g, z in zip(grads, zeros, strict=True)), strict=True))


def check_loss(model: pv.VAE, x: torch.Tensor, expected: torch.Tensor, constants: int = 1) -> None:
    """The loss of a step, less the constants of its log-densities, and every gradient of it; no buffer has moved."""
    before = copy.deepcopy(dict(model.named_buffers()))
    step = pv.ELBO().differentiable_loss(model.model, model.guide, x)
    loss, gradients = loss_and_gradients(model, step)
    other, by_hand = loss_and_gradients(model, expected)
    torch.testing.assert_close(loss - len(x) * constants * CONSTANT, other, rtol=1e-11, atol=1e-11)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, by_hand[name], rtol=1e-9, atol=1e-11, msg=name)
    for name, buffer in model.named_buffers():
        buffer.copy_(before[name])


# --- codes and losses -----------------------------------------------------------------------------------------------


def test_relu_under_a_laplace_prior_is_the_l1_autoencoder():
    model, x = vae("relu", prior="laplace:scale=2.5"), data()
    z = pre_activations(model, x).clamp(min=0)
    same(model.encode(x), z)
    expected = (squared_error(model, x, z) + z.sum(-1) / 2.5).sum()
    check_loss(model, x, expected + ROWS * DIM * math.log(2 * 2.5))


def test_topk_keeps_the_largest_of_each_datum():
    model, x = vae("topk:k=3"), data()
    pre = pre_activations(model, x)
    by_loops = torch.stack([largest_by_loops(row, 3) for row in pre])
    same(model.encode(x), by_loops)
    check_loss(model, x, squared_error(model, x, pre.relu() * (by_loops != 0)).sum())


def test_topk_of_few_positive_numbers_has_fewer():
    guide = guides.TopK(MLP(WIDTH, [4]), 3, k=2)
    assert torch.equal(guide.code(torch.tensor([[-1.0, -2.0, 4.0], [-1.0, -2.0, -3.0]])), double([[0, 0, 4], [0] * 3]))


def double(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_batch_topk_keeps_the_largest_of_the_batch_and_a_threshold_in_eval_mode():
    model, batches = vae("batch-topk:k=3"), data(3 * ROWS).split(ROWS)
    smallest = []
    for x in batches:
        pre = pre_activations(model, x)
        by_loops = largest_by_loops(pre, 3 * ROWS)
        check_loss(model, x, squared_error(model, x, pre.relu() * (by_loops != 0)).sum())
        same(model.guide(x), by_loops)
        smallest.append(by_loops[by_loops > 0].min())
        torch.testing.assert_close(model.posterior.threshold, torch.stack(smallest).mean(), rtol=1e-12, atol=0)
    x = batches[0]
    pre = pre_activations(model, x)
    same(model.encode(x), torch.where(pre > torch.stack(smallest).mean(), pre, 0.0))
    same(torch.cat([model.encode(row) for row in x.split(1)]), model.encode(x))
    assert model.posterior.num_batches == 3


def test_threshold_forgets_after_a_hundred_batches_and_leaves_out_those_without_an_active_latent():
    guide = guides.BatchTopK(MLP(WIDTH, [4]), 3, k=1)
    guide.threshold.fill_(2.0)
    guide.num_batches.fill_(500)
    guide.observe(double([[0.0, 0.0, 3.0], [5.0, 0.0, 0.0]]))
    assert guide.threshold.item() == pytest.approx(2.01, rel=1e-12)
    guide.observe(torch.zeros(2, 3))
    assert (guide.threshold.item(), guide.num_batches.item()) == (pytest.approx(2.01, rel=1e-12), 501)


class Jump(torch.autograd.Function):
    """The published pseudo-derivatives, written as a backward pass."""

    @staticmethod
    def forward(ctx, pre, threshold, width):
        ctx.save_for_backward(pre, threshold)
        ctx.width = width
        return pre * (pre > threshold), (pre > threshold).to(pre)

    @staticmethod
    def backward(ctx, of_z, of_gate):
        pre, threshold = ctx.saved_tensors
        kernel = ((pre - threshold) / ctx.width > -0.5) & ((pre - threshold) / ctx.width < 0.5)
        slope = -(threshold * of_z + of_gate) * kernel / ctx.width
        return of_z * (pre > threshold), slope, None


def test_jump_relu_has_the_published_pseudo_derivatives():
    model, x = vae("jump-relu:penalty=0.3:threshold=0.2:bandwidth=0.6"), data(50)
    pre, threshold = pre_activations(model, x), functional.softplus(model.posterior.threshold.raw)
    z, gates = Jump.apply(pre, threshold.expand_as(pre), 0.6)
    same(model.encode(x), z)
    assert ((pre - threshold).abs() < 0.3).sum() > 50
    check_loss(model, x, (squared_error(model, x, z) + 0.3 * gates.sum(-1)).sum())


def test_gated_has_the_published_losses():
    model, x = vae("gated:penalty=0.3"), data()
    guide, pre = model.posterior, pre_activations(model, x)
    magnitudes = (x - model.likelihood.network.linear.bias) @ (
        guide.head.weight * guide.log_ratio.exp()[:, None]
    ).T + guide.bias
    z = magnitudes.clamp(min=0) * (pre > 0)
    same(model.encode(x), z)
    active, network = pre.clamp(min=0), model.likelihood.network
    frozen = x - active @ network.weight.detach().T - network.linear.bias.detach()
    expected = squared_error(model, x, z) + 0.3 * active.sum(-1) + frozen.square().sum(-1)
    check_loss(model, x, expected.sum(), constants=2)
    model.eval()  # the auxiliary loss is of training alone
    check_loss(model, x, (squared_error(model, x, z) + 0.3 * active.sum(-1)).sum())


def test_matryoshka_adds_the_losses_of_its_prefixes():
    model, x = vae("matryoshka:k=3:prefixes=(2,5)"), data()
    pre = pre_activations(model, x)
    z = pre.relu() * (largest_by_loops(pre, 3 * ROWS) != 0)
    expected = squared_error(model, x, z)
    for size in (2, 5):
        expected = expected + squared_error(model, x, torch.cat([z[:, :size], torch.zeros(ROWS, DIM - size)], 1))
    check_loss(model, x, expected.sum(), constants=3)
    assert guides.Matryoshka(MLP(WIDTH, [4]), 16, likelihoods.Normal(Dictionary(16, WIDTH))).masks.sum(1).tolist() == [
        1,
        2,
        4,
        8,
    ]


@pytest.mark.parametrize("kind", ["topk", "batch-topk"])
def test_dead_latents_explain_the_residual_and_only_dead_ones(kind):
    model, x = vae(f"{kind}:k=1:dead_after=20:aux_k=2:aux_weight=0.25"), data()
    pre = pre_activations(model, x)
    z = pre.relu() * ((torch.stack([largest_by_loops(row, 1) for row in pre]) != 0)
                      if kind == "topk" else (largest_by_loops(pre, ROWS) != 0))  # fmt: skip
    check_loss(model, x, squared_error(model, x, z).sum())  # none is dead
    model.posterior.unseen.fill_(20 - ROWS)
    model.posterior.unseen[0] = 0
    dead = (z == 0).all(0)
    dead[0] = False
    assert 2 < dead.sum() < DIM - 1
    explained = torch.zeros(ROWS, DIM)
    for n in range(ROWS):
        candidates = torch.where(dead, pre[n].detach(), -torch.inf)
        explained[n, candidates.topk(2).indices] = 1.0
    weight, bias = model.likelihood.network.weight, model.likelihood.network.linear.bias
    residual = (x - z @ weight.T - bias).detach() - (pre.relu() * explained) @ weight.T
    expected = squared_error(model, x, z) + 0.25 * residual.square().sum(-1)
    check_loss(model, x, expected.sum())
    model.eval()
    assert model.posterior.distribution(x).log_density.abs().sum() == 0


def test_data_since_a_latent_was_active_are_counted():
    guide = guides.TopK(MLP(WIDTH, [4]), 3, k=1, dead_after=5)
    for rows in (2, 3):
        guide.observe(double([[0.0, 1.0, 0.0]] * rows))
    assert guide.unseen.tolist() == [5, 0, 5]
    guide.observe(double([[2.0, 0.0, 0.0]]))
    assert guide.unseen.tolist() == [0, 1, 6]


def test_vaease_is_the_published_loss_at_its_noise():
    model, x = vae("vaease", hidden=(5,)), data()
    loc, raw = model.posterior.head(model.posterior.network(x)).chunk(2, -1)
    variance = raw.sigmoid()
    torch.manual_seed(3)
    z = loc + variance.sqrt() * torch.randn(ROWS, DIM)
    kl = torch.distributions.kl_divergence(
        torch.distributions.Normal(loc, variance.sqrt()), torch.distributions.Normal(0.0, 1.0)
    ).sum(-1)
    torch.manual_seed(3)
    check_loss(model, x, (squared_error(model, x, (1 - variance.sqrt()) * z) + kl).sum())
    code = model.encode(x)
    torch.testing.assert_close(code, torch.where(variance < 0.5, (1 - variance.sqrt()) * loc, 0.0))
    assert 0 < (code == 0).double().mean() < 1
