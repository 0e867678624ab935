"""Damage to what the encoder sees: its laws, when it is there, what the guide reads and what the likelihood scores."""

from __future__ import annotations

import re
import sys

import numpy as np
import pyro
import pytest
import scipy.stats as st
import torch
from pyro import poutine
from svi_runs import adam, losses, weights
from test_cli import desk, pyrovae, read, trained  # noqa: F401  # fixtures
from torch import nn

import pyrovae as pv
from pyrovae import build
from pyrovae.nn import MLP, ConvEncoder, Corrupted, GaussianNoise, Masking, SaltAndPepper

DIM, LATENT, ROWS = 12, 3, 16
DRAWS = 200_000
FALSE_ALARM = 1e-6
ALL = [GaussianNoise(0.3), Masking(0.3), SaltAndPepper(0.4)]


@pytest.fixture(autouse=True)
def alone():
    with pyro.get_param_store().scope(), torch.random.fork_rng():
        yield


def data(rows=ROWS, seed=0):
    return torch.rand(rows, DIM, generator=torch.Generator().manual_seed(seed))


def vae(corrupt=None, **options):
    torch.manual_seed(0)
    return pv.build_vae((DIM,), LATENT, hidden=(8,), likelihood="normal", corrupt=corrupt, **options)


# --- the laws -------------------------------------------------------------------------------------------------------


def assert_rate(happened, prob):
    """Within six standard errors of the binomial law: a false alarm once in 10^8."""
    assert abs(happened.double().mean().item() - prob) < 6 * (prob * (1 - prob) / happened.numel()) ** 0.5


@pytest.mark.parametrize("scale", [0.1, 0.5, 3.0])
def test_gaussian_noise_is_normal_around_the_data(scale):
    """200,000 draws: Kolmogorov-Smirnov, and no correlation of neighbours beyond six standard errors."""
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, DRAWS, dtype=torch.float64).reshape(-1, 10)
    noise = (GaussianNoise(scale)(x) - x).flatten() / scale
    assert st.kstest(noise.numpy(), st.norm.cdf).pvalue > FALSE_ALARM
    assert abs((noise[1:] * noise[:-1]).mean()) < 6 / DRAWS**0.5


@pytest.mark.parametrize("prob", [0.01, 0.3, 0.9])
def test_masking_zeroes_each_number_by_itself_and_leaves_the_others(prob):
    torch.manual_seed(1)
    x = torch.rand(DRAWS // 10, 10) + 1
    damaged = Masking(prob)(x)
    gone = damaged == 0
    assert_rate(gone, prob)
    assert torch.equal(damaged[~gone], x[~gone])
    assert_rate(gone[:, 0] & gone[:, 1], prob**2)


@pytest.mark.parametrize("prob", [0.01, 0.3, 0.9])
def test_salt_is_as_frequent_as_pepper(prob):
    torch.manual_seed(2)
    x = torch.rand(DRAWS // 10, 10) + 1
    damaged = SaltAndPepper(prob, low=-2.0, high=5.0)(x)
    pepper, salt = damaged == -2.0, damaged == 5.0
    for kind in (pepper, salt):
        assert_rate(kind, prob / 2)
    assert torch.equal(damaged[~pepper & ~salt], x[~pepper & ~salt])
    assert_rate((pepper | salt)[:, 0] & (pepper | salt)[:, 1], prob**2)


@pytest.mark.parametrize("damage", ALL, ids=repr)
def test_damage_is_by_the_seed_in_the_data_s_dtype_and_absent_in_eval_mode(damage):
    for dtype in (torch.float32, torch.float64):
        x = data().to(dtype)
        torch.manual_seed(3)
        first, second = damage(x), damage(x)
        torch.manual_seed(3)
        assert torch.equal(damage(x), first)
        assert first.dtype == dtype
        assert not torch.equal(first, second)
        assert not torch.equal(first, x)
        damage.eval()
        assert damage(x) is x
        damage.train()
    assert repr(damage).partition("(")[0] == type(damage).__name__
    with pytest.raises(ValueError, match=rf"{type(damage).__name__} takes floating-point data, got torch.int64"):
        damage(torch.ones(3, dtype=torch.long))


# --- in front of an encoder -----------------------------------------------------------------------------------------


def test_the_encoder_keeps_its_shapes():
    for encoder, x in ((MLP(DIM, [8]), data()), (ConvEncoder((1, 8, 8), hidden=7), torch.rand(4, 1, 8, 8))):
        corrupted = Corrupted(encoder, Masking(0.5))
        for name in ("in_shape", "out_shape", "out_features"):
            assert getattr(corrupted, name) == getattr(encoder, name)
        assert corrupted(x).shape == encoder(x).shape
    with pytest.raises(ValueError, match="network must say its out_features, Corrupted does not"):
        pv.guides.Normal(Corrupted(nn.Sequential(), Masking(0.5)), 2)


def reverse(x):
    return 1 - x


def test_a_function_acts_in_train_mode_alone():
    encoder, x = MLP(DIM, [8]), data()
    corrupted = Corrupted(encoder, reverse)
    assert torch.equal(corrupted(x), encoder(1 - x))
    assert torch.equal(corrupted.eval()(x), encoder(x))


def test_the_guide_sees_the_damage_and_the_likelihood_the_data():
    torch.manual_seed(0)
    plain = pv.guides.Normal(MLP(DIM, [8]), LATENT)
    guide = pv.guides.Normal(Corrupted(plain.network, reverse), LATENT)
    guide.head = plain.head
    model = pv.VAE(pv.priors.Normal(LATENT), pv.likelihoods.Normal(MLP(LATENT, [8], DIM)), guide)
    x = data()
    for seen in (1 - x, x):
        q = poutine.trace(model.guide).get_trace(x)
        expected = plain.distribution(seen)
        assert torch.equal(q.nodes["z"]["fn"].mean, expected.mean)
        p = poutine.trace(poutine.replay(model.model, trace=q)).get_trace(x)
        assert torch.equal(p.nodes["x"]["value"], x)
        assert torch.equal(model.encode(x), plain.distribution(x).mean), "measurements see the data"
        model.eval()


@pytest.mark.parametrize("prior", ["flat", "laplace:scale=2.0"])
def test_the_gradient_is_that_of_the_denoising_autoencoder_by_hand(prior):
    model = pv.build_vae((DIM,), LATENT, prior, "normal:scale=0.5", "delta", (8,), corrupt="gaussian:scale=0.7")
    model = model.double()
    x = data().double()
    torch.manual_seed(5)
    damaged = x + 0.7 * torch.randn(ROWS, DIM, dtype=torch.float64)
    z = model.posterior.head(model.posterior.network.network(damaged))
    penalty = 0.0 if prior == "flat" else (z.abs() / 2).sum()
    expected = ((x - model.likelihood.network(z)) ** 2).sum() / (2 * 0.5**2) + penalty
    grads = torch.autograd.grad(expected, list(model.parameters()))
    torch.manual_seed(5)
    pv.ELBO().differentiable_loss(model.model, model.guide, x).backward()
    for parameter, grad in zip(model.parameters(), grads, strict=True):
        torch.testing.assert_close(parameter.grad, grad, rtol=1e-10, atol=1e-12)


# --- in a run -------------------------------------------------------------------------------------------------------


def test_svi_compiles_it_in_both_modes_with_the_draws_of_the_seed():
    def run(cls, **options):
        torch.manual_seed(0)
        damage = nn.Sequential(GaussianNoise(0.2), Masking(0.3), SaltAndPepper(0.2))
        guide = pv.guides.Normal(Corrupted(MLP(DIM, [8]), damage), LATENT)
        module = pv.VAE(pv.priors.Normal(LATENT), pv.likelihoods.Normal(MLP(LATENT, [8], DIM)), guide)
        svi = cls(module.model, module.guide, adam(), pv.ELBO(), **options)
        got = losses(svi, [data(seed=i) for i in range(6)])
        module.eval()
        got += losses(svi, [data(seed=i) for i in range(4)])
        module.train()
        got += losses(svi, [data(seed=i) for i in range(4)])
        return got, weights(module), svi

    (expected, theirs, _), (got, ours, svi) = run(pyro.infer.SVI), run(pv.SVI, compile=True)
    assert got == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert svi.compilations == 2


def test_a_scale_that_changes_is_followed(recorded):
    module = vae("gaussian:scale=0.5", prior="flat")
    svi = pv.SVI(module.model, module.guide, adam(1e-12), pv.ELBO(), compile=True)
    before = losses(svi, [data()] * 4)
    module.posterior.network.corrupt.scale = 5.0
    after = losses(svi, [data()] * 4)
    assert svi.compilations == 2
    assert after[-1] == pytest.approx(
        losses(pv.SVI(module.model, module.guide, adam(1e-12), pv.ELBO(), compile=False), [data()] * 4)[-1], rel=1e-5
    )
    assert after[-1] > before[-1]


def test_fit_measures_its_validation_loss_on_the_data_as_they_are():
    x = data(64)
    module = vae("masking:prob=0.5", prior="flat")
    history = pv.fit(module, x, epochs=3, val=x[:8], batch_size=16, seed=0, progress=False)
    with torch.no_grad():
        loss = pv.ELBO().loss(module.eval().model, module.guide, x[:8]) / 8
    assert min(history["val_loss"]) == pytest.approx(loss, rel=1e-5)
    assert module.reconstruct(x).equal(module.reconstruct(x))


class Blackout(nn.Module):
    """A class of a user's own, met by its import path."""

    def __init__(self, columns=2):
        super().__init__()
        self.columns = columns

    def forward(self, x):
        return torch.cat([torch.zeros_like(x[:, : self.columns]), x[:, self.columns :]], -1)


def shifted(x, by=1.0):
    return x + by


not_a_function = 3


@pytest.mark.parametrize(
    ("corrupt", "made"),
    [
        ("gaussian", "GaussianNoise(scale=0.5)"),
        ("gaussian:scale=0.25", "GaussianNoise(scale=0.25)"),
        ("masking:prob=0.1", "Masking(prob=0.1)"),
        ("salt-and-pepper:prob=0.1:low=-1", "SaltAndPepper(prob=0.1, low=-1, high=1)"),
        (f"{__name__}.Blackout:columns=3", "Blackout()"),
        (f"{__name__}.reverse", None),
        (f"{__name__}.shifted:by=2", None),
    ],
)
def test_by_name_saved_and_loaded(corrupt, made, tmp_path):
    module, x = vae(corrupt), data()
    assert module.config["corrupt"] == corrupt
    if made is not None:
        assert repr(module.posterior.network.corrupt) == made
    pv.save(module, tmp_path)
    loaded = pv.load(tmp_path, trust=["test_corruption"])
    assert torch.equal(loaded.reconstruct(x), module.reconstruct(x))
    both = []
    for each in (module, loaded):
        torch.manual_seed(1)
        both.append(each.train().posterior.distribution(x).mean)
    assert torch.equal(*both)
    assert not torch.equal(both[0], module.encode(x))


@pytest.mark.parametrize("corrupt", [GaussianNoise(0.25), reverse], ids=["module", "function"])
@pytest.mark.parametrize("options", [{}, {"num_labels": 3}, {"missing": True}], ids=str)
def test_a_function_itself_is_saved_as_a_part_made_by_hand(corrupt, options, tmp_path):
    module, x = vae(corrupt, **options), data()
    same = vae("gaussian:scale=0.25" if corrupt is not reverse else f"{__name__}.reverse", **options)
    rows = (x, torch.arange(len(x)) % 3) if "num_labels" in options else x
    both = [pv.fit(each, rows, 2, seed=0, progress=False)["train_loss"] for each in (module, same)]
    assert both[0] == both[1]
    assert module.config is None
    pv.save(module, tmp_path)
    with pytest.raises(ValueError, match="holds a model of parts made by hand: build it and pass it"):
        pv.load(tmp_path)
    loaded = pv.load(tmp_path, vae(corrupt, **options))
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_a_run_saved_before_there_was_corruption_is_loaded(tmp_path):
    module = vae()
    del module.config["corrupt"]
    pv.save(module, tmp_path)
    assert torch.equal(pv.load(tmp_path).encode(data()), module.encode(data()))


BAD = {
    "gausian": "unknown corrupt 'gausian': did you mean 'gaussian'?",
    "gaussian:scale=0": "scale must be positive and finite, got 0",
    "gaussian:scale=much": "scale must be positive and finite, got 'much'",
    "gaussian:sigma=1": "corrupt 'gaussian' has no option 'sigma': its options are scale",
    "masking:prob=1.5": "prob must be between 0 and 1, got 1.5",
    "masking:prob=True": "prob must be between 0 and 1, got True",
    "salt-and-pepper:low=2": "low must be below high, both finite, got 2 and 1.0",
    "nowhere.function": "corrupt 'nowhere.function' cannot be imported",
    f"{__name__}.not_a_function": "must be a function of x, or a class of torch modules, got 3",
    f"{__name__}.shifted:to=1": "has no option 'to': its options are by",
}


@pytest.mark.parametrize(("corrupt", "message"), BAD.items())
def test_bad_names_and_numbers(corrupt, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        vae(corrupt)


def test_bad_parts():
    for corrupt in (GaussianNoise, "gaussian", 0.5):
        with pytest.raises(ValueError, match="corrupt must be a function of x such as GaussianNoise"):
            Corrupted(MLP(DIM, [8]), corrupt)
    with pytest.raises(ValueError, match="network must be a torch module"):
        Corrupted(reverse, Masking())
    for corrupt in (GaussianNoise, 0.5):
        with pytest.raises(ValueError, match="corrupt must be a name, an import path or a function of x, got"):
            vae(corrupt)
    with pytest.raises(ValueError, match="guide Normal corrupts what it reads, and would the pseudo-inputs"):
        vae("masking", prior="vamp", inputs=data())
    assert set(build.CORRUPTIONS) == {"gaussian", "masking", "salt-and-pepper"}


def test_from_the_command_line(desk, monkeypatch, capsys):  # noqa: F811  # a fixture
    (desk / "mydamage.py").write_text("def halved(x):\n    return x / 2\n")
    tiny = "--epochs 1 --hidden 8 --latent-dim 2 --num-samples 5"
    for corrupt in ("masking:prob=0.3", "mydamage.halved"):
        assert pyrovae(f"fit real.csv {tiny} --corrupt {corrupt} --out out --overwrite") == 0
        assert f"parameters, corruption {corrupt}" in capsys.readouterr().out
        config = read(desk / "out/config.json")
        assert config["model"]["corrupt"] == config["fit"]["corrupt"] == corrupt
        assert pyrovae("fit real.csv --config out/config.json --out again --overwrite --trust") == 0
        assert read(desk / "again/metrics.json") == read(desk / "out/metrics.json")
        assert pyrovae("encode out --overwrite --trust") == 0
        codes = np.load(desk / "out/codes.npy")
        assert pyrovae("encode out --overwrite --trust") == 0
        assert np.array_equal(np.load(desk / "out/codes.npy"), codes)
    sys.modules.pop("mydamage")
    assert pyrovae("evaluate out --num-samples 5 --trust") == 0
    sys.modules.pop("mydamage")
