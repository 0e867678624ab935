"""Sparse autoencoders on the loop of every VAE: compiled, saved, by name; recovered features; what is refused."""

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
from test_sparse_points import DIM, GUIDES, HALF, ROWS, WIDTH, data, double_precision, vae  # noqa: F401  # a fixture

import pyrovae as pv
from pyrovae import guides, likelihoods, metrics
from pyrovae.nn import MLP, Centred, Dictionary
from pyrovae.priors import Flat, Normal

every_guide = pytest.mark.parametrize("guide", GUIDES.values(), ids=GUIDES)

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
