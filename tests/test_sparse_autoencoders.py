"""Sparse autoencoders: each code by a loop, each loss and gradient by hand, compiled, saved, and features recovered."""

from __future__ import annotations

import copy
import math
import re

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from scipy.optimize import linear_sum_assignment
from test_cli import desk, pyrovae, read, trained  # noqa: F401  # fixtures
from torch.nn import functional

import pyrovae as pv
from pyrovae import guides, likelihoods, metrics
from pyrovae.nn import MLP, Centred, Dictionary
from pyrovae.priors import Flat, Normal

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
every_guide = pytest.mark.parametrize("guide", GUIDES.values(), ids=GUIDES)


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


# --- the same loop, metrics and files as every VAE --------------------------------------------------------------------


@every_guide
def test_objectives_of_pyro_pay_the_same(guide):
    model, x = vae(guide), data()
    losses = []
    for objective in (pv.ELBO(), Trace_ELBO(), TraceMeanField_ELBO()):
        torch.manual_seed(2)
        losses.append(objective.differentiable_loss(copy.deepcopy(model).model, copy.deepcopy(model).guide, x).item())
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-12)


def test_beta_weighs_what_the_guide_adds():
    model, x = vae("jump-relu:penalty=0.3").eval(), data()
    none, whole = (pv.ELBO(beta=beta).loss(model.model, model.guide, x) for beta in (0.0, 1.0))
    assert whole - none == pytest.approx(0.3 * (model.encode(x) != 0).sum().item(), rel=1e-10)
    terms = metrics.elbo(model, x)
    torch.testing.assert_close(terms.kl.flatten(), 0.3 * (model.encode(x) != 0).sum(-1).double(), rtol=1e-12, atol=0)


@every_guide
def test_codes_have_exact_zeros_and_nothing_bounds_the_likelihood(guide):
    model, x = vae(guide), data()
    assert 0.05 < (model.encode(x) == 0).double().mean() < 1
    assert torch.equal(model.encode(x), model.encode(x))
    with pytest.raises(ValueError, match="has no draws"):
        model.sample()
    with pytest.raises(ValueError, match="is a point"):
        metrics.log_likelihood(model, x, 4)


@every_guide
def test_compiled_steps_give_the_same_numbers(guide):
    runs = []
    for compiled in (False, True):
        model, x = vae(guide, "normal"), data(60)
        svi = pv.SVI(model.model, model.guide, pyro.optim.Adam({"lr": 0.02}), pv.ELBO(), compile=compiled)
        torch.manual_seed(5)
        losses = [svi.step(x[20 * (i % 3) :][:20]) for i in range(12)]
        assert svi.compilations == compiled
        runs.append((losses, model.state_dict()))
    (losses, state), (others, other) = runs
    assert losses == pytest.approx(others, rel=1e-9)
    assert losses[-1] < losses[0]
    for name, value in state.items():
        torch.testing.assert_close(value, other[name], rtol=1e-7, atol=1e-9, msg=name)


@every_guide
def test_saved_and_loaded(guide, tmp_path):
    model, x = vae(guide), data()
    pv.fit(model, x, epochs=3, batch_size=4, seed=0, progress=False)
    pv.save(model, tmp_path)
    loaded = pv.load(tmp_path)
    assert torch.equal(loaded.encode(x), model.encode(x))
    assert torch.equal(loaded.reconstruct(x), model.reconstruct(x))
    own, other = dict(model.named_buffers()), dict(loaded.named_buffers())
    assert all(torch.equal(value, other[name]) for name, value in own.items())
    if "batch-topk" in guide:
        assert loaded.posterior.threshold > 0
    network = loaded.posterior.network
    assert not isinstance(network, Centred) or network.dictionary is loaded.likelihood.network


def test_linear_encoder_starts_at_the_transpose_and_shares_the_bias():
    model = pv.build_vae((2, 3), DIM, prior="flat", guide="topk", network="dictionary", likelihood="normal", hidden=())
    guide, dictionary = model.posterior, model.likelihood.network
    assert torch.equal(guide.head.weight, dictionary.weight.T)
    assert (guide.head.bias == 0).all()
    x = data().reshape(ROWS, 2, 3)
    by_hand = (x.flatten(1) - dictionary.linear.bias) @ dictionary.weight
    torch.testing.assert_close(guide.head(guide.network(x)), by_hand)
    names = [name for name, _ in model.named_parameters()]
    assert names == ["likelihood.network.linear.weight", "likelihood.network.linear.bias", "likelihood.scale.raw",
                     "posterior.head.weight", "posterior.head.bias"]  # fmt: skip
    assert dictionary.weight.norm(dim=0).allclose(torch.ones(DIM))
    for other in ("bernoulli", "poisson"):  # their decoder gives no x, from which to take its bias
        made = pv.build_vae((WIDTH,), DIM, network="dictionary", likelihood=other, hidden=())
        assert torch.equal(made.posterior.network(data()), data())
    assert Centred(Dictionary(2, 3, bias=False))(torch.ones(4, 3)).eq(1).all()


def test_parts_by_hand_are_those_by_name():
    torch.manual_seed(0)
    dictionary = Dictionary(DIM, WIDTH, unit_norm=True)
    likelihood = likelihoods.Normal(dictionary, scale=HALF)
    model = pv.VAE(Flat(DIM), likelihood, guides.BatchTopK(Centred(dictionary), DIM, likelihood, k=3))
    torch.manual_seed(0)
    named = pv.build_vae(
        (WIDTH,), DIM, prior="flat", guide="batch-topk:k=3", network="dictionary",
        likelihood=f"normal:scale={HALF!r}", hidden=(),
    )  # fmt: skip
    state = dict(model.named_parameters())
    named.load_state_dict(model.state_dict())
    assert state.keys() == dict(named.named_parameters()).keys()
    assert pv.ELBO().loss(named.model, named.guide, data()) == pv.ELBO().loss(model.model, model.guide, data())


def test_other_decoders_train_too_without_auxk():
    x = torch.bernoulli(torch.full((40, WIDTH), 0.3), generator=torch.Generator().manual_seed(0))
    for guide in ("topk:k=2", "batch-topk:k=2", "matryoshka:k=2", "gated:penalty=0.1"):
        model = vae(guide, "bernoulli", hidden=(8,), network="mlp")
        assert getattr(model.posterior, "aux_weight", 0.0) == 0.0
        history = pv.fit(model, x, epochs=20, batch_size=10, seed=0, progress=False)
        assert history["train_loss"][-1] < history["train_loss"][0]


@pytest.mark.parametrize("guide", ["topk:k=2", "batch-topk:k=2"])
def test_orthonormal_features_are_recovered(guide):
    """8 features in 12 dimensions, two of them active, 12 latents; deterministic at this seed."""
    generator = torch.Generator().manual_seed(0)
    features = torch.linalg.qr(torch.randn(12, 8, generator=generator)).Q.T
    gates = torch.rand(4000, 8, generator=generator).argsort(1) < 2
    x = gates * (1 + 0.1 * torch.randn(4000, 8, generator=generator)) @ features
    torch.manual_seed(1)
    options = {"prior": "flat", "network": "dictionary", "likelihood": f"normal:scale={HALF!r}", "hidden": ()}
    model = pv.build_vae((12,), 12, guide=guide, **options)
    optim = pyro.optim.Adam({"lr": 0.01})
    pv.fit(model, x, epochs=30, batch_size=200, optim=optim, seed=0, progress=False, compile=False)
    cosines = (model.likelihood.network.weight.T @ features.T).detach().abs()
    matched = cosines[linear_sum_assignment(-cosines)]
    assert matched.min() > 0.97
    assert (model.encode(x) != 0).double().sum(1).mean() == pytest.approx(2.0, abs=0.1)


# --- what is refused ------------------------------------------------------------------------------------------------


def linear() -> likelihoods.Normal:
    return likelihoods.Normal(Dictionary(4, WIDTH, unit_norm=True), scale=0.5)


def trunk() -> MLP:
    return MLP(WIDTH, [3])


REFUSED = {
    "k": (lambda: guides.TopK(trunk(), 4, k=5), "k must be a whole number from 1 to 4, got 5"),
    "k 0": (lambda: guides.BatchTopK(trunk(), 4, k=0), "k must be a whole number from 1 to 4, got 0"),
    "k real": (lambda: guides.BatchTopK(trunk(), 4, k=1.5), "k must be a whole number from 1 to 4, got 1.5"),
    "aux_k": (lambda: guides.TopK(trunk(), 4, linear(), k=1, aux_k=9), "aux_k must be a whole number from 1 to 4"),
    "dead_after": (lambda: guides.TopK(trunk(), 4, k=1, dead_after=0), "dead_after must be a whole number at least 1"),
    "aux_weight": (
        lambda: guides.TopK(trunk(), 4, likelihoods.Bernoulli(MLP(4, [3], WIDTH)), k=1, aux_weight=0.1),
        "aux_weight must be 0 unless the likelihood is Normal with a linear decoder (Dictionary), got 0.1 with",
    ),
    "aux_weight below 0": (
        lambda: guides.TopK(trunk(), 4, linear(), k=1, aux_weight=-1.0),
        "aux_weight must be a number, at least 0, got -1.0",
    ),
    "gated": (lambda: guides.Gated(trunk(), 4), "likelihood must be that of the VAE for guide Gated"),
    "gated penalty": (lambda: guides.Gated(trunk(), 4, linear(), penalty=-1), "penalty must be a number, at least 0"),
    "matryoshka": (lambda: guides.Matryoshka(trunk(), 4), "likelihood must be that of the VAE for guide Matryoshka"),
    "prefixes": (
        lambda: guides.Matryoshka(trunk(), 4, linear(), prefixes=(2, 4)),
        "prefixes must be different whole numbers from 1 to 3, got (2, 4)",
    ),
    "same prefixes": (lambda: guides.Matryoshka(trunk(), 4, linear(), prefixes=[2, 2]), "prefixes must be different"),
    "penalty": (lambda: guides.JumpReLU(trunk(), 4, penalty=math.nan), "penalty must be a number, at least 0, got nan"),
    "bandwidth": (lambda: guides.JumpReLU(trunk(), 4, bandwidth=0), "bandwidth must be positive and finite, got 0"),
    "threshold": (lambda: guides.JumpReLU(trunk(), 4, threshold=0.0), "threshold must be positive and finite, got 0.0"),
    "another likelihood": (
        lambda: pv.VAE(Flat(4), linear(), guides.TopK(trunk(), 4, linear(), k=1)),
        "guide TopK was made for another prior or likelihood: give it those of this VAE",
    ),
    "a prior beside VAEase's own": (
        lambda: pv.VAE(Normal(4), linear(), guides.VAEase(trunk(), 4)),
        "guide VAEase costs the KL from a prior of its own, and fits an improper prior (Flat) alone, got prior Normal",
    ),
    "centred": (lambda: Centred(MLP(3, [2])), "dictionary must be a nn.Dictionary, got MLP"),
    "an option": (lambda: vae("topk:n=3"), "guide 'topk' has no option 'n': its options are k, aux_weight, aux_k"),
    "labels": (
        lambda: vae("gated", likelihood="bernoulli", network="mlp", num_labels=3),
        "likelihood must be that of the VAE for guide Gated",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        make()
    assert "\n" not in str(caught.value)


# --- the command line -----------------------------------------------------------------------------------------------


def test_from_fit_to_compare(desk, capsys):  # noqa: F811  # a fixture
    torch.set_default_dtype(torch.float32)
    tiny = "--prior flat --network dictionary --hidden none --epochs 1 --latent-dim 6 --num-samples 5"
    assert pyrovae(f"fit real.csv {tiny} --guide batch-topk:k=2 --likelihood normal:scale=0.7 --out out") == 0
    printed = capsys.readouterr().out
    assert "batch-topk:k=2 guide" in printed
    assert "dictionary with a linear encoder" in printed
    assert read(desk / "out/metrics.json")["elbo"] is None
    assert pv.load(desk / "out").posterior.threshold > 0
    assert pyrovae("evaluate out --num-samples 5") == 0
    assert pyrovae("encode out") == 0
    names = "relu,topk:k=2,matryoshka:k=2,jump-relu:penalty=0.1,gated,vaease"
    assert pyrovae(f"compare real.csv {tiny} --guide {names} --out outs") == 0
    assert len(read(desk / "outs/table.json")) == 6
    assert pyrovae(f"compare real.csv {tiny} --guide {names} --out outs --resume") == 0
