"""A point for a guide: autoencoders written by hand, gradient by gradient, and what an improper prior does not have."""

from __future__ import annotations

import math
import re

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import IMPROPER_PRIORS, Linear
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from test_cli import desk, pyrovae, read, trained  # noqa: F401  # fixtures
from torch.nn import functional

import pyrovae as pv
from pyrovae import guides, likelihoods, metrics
from pyrovae.priors import Flat

ROWS, WIDTH, DIM = 9, 6, 3
LAMBDA = 0.7


@pytest.fixture(autouse=True)
def double_precision():
    with pyro.get_param_store().scope():
        torch.set_default_dtype(torch.float64)
        yield
        torch.set_default_dtype(torch.float32)


def vae(prior="flat", likelihood="normal:scale=0.5", **options):
    torch.manual_seed(0)
    return pv.build_vae((WIDTH,), DIM, prior=prior, guide="delta", likelihood=likelihood, hidden=(8, 5), **options)


def data(binary=False):
    x = torch.rand(ROWS, WIDTH, generator=torch.Generator().manual_seed(1))
    return (x > 0.5).to(x) if binary else x


def by_hand(model):
    """Encoder and decoder as a user of torch writes them, at copies of the weights; and these, by the VAE's names."""
    weights = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}

    def layers(x, *names):
        for k, name in enumerate(names):
            x = functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
            x = x.relu() if k < len(names) - 1 else x
        return x

    def encode(x):
        hidden = layers(x, "posterior.network.layers.0", "posterior.network.layers.2").relu()
        return layers(hidden, "posterior.head")

    def decode(z):
        return layers(z, *(f"likelihood.network.layers.{k}" for k in (0, 2, 4)))

    return encode, decode, weights


# --- what is minimised ----------------------------------------------------------------------------------------------

S, LOG_2PI = 0.5, math.log(2 * math.pi)
NORMALISER = WIDTH * (math.log(S) + LOG_2PI / 2)
PENALTIES = {  # the prior, what it adds to |x - f(z)|^2 / 2 s^2, and the constant of its density
    "flat": (lambda z: 0.0 * z, 0.0),
    f"laplace:scale={1 / LAMBDA!r}": (lambda z: LAMBDA * z.abs(), DIM * math.log(2 / LAMBDA)),
    f"normal:scale={(2 * LAMBDA) ** -0.5!r}": (lambda z: LAMBDA * z**2, DIM / 2 * math.log(math.pi / LAMBDA)),
}


@pytest.mark.parametrize("objective", [pv.ELBO, Trace_ELBO, TraceMeanField_ELBO])
@pytest.mark.parametrize("binary", [False, True], ids=["squared error", "cross-entropy"])
@pytest.mark.parametrize("prior", PENALTIES, ids=["plain", "L1", "L2"])
def test_loss_and_gradients_are_those_of_the_autoencoder_by_hand(prior, binary, objective):
    model, x = vae(prior, "bernoulli" if binary else f"normal:scale={S}"), data(binary)
    penalty, constant = PENALTIES[prior]
    encode, decode, weights = by_hand(model)
    z = encode(x)
    if binary:
        error = functional.binary_cross_entropy_with_logits(decode(z), x, reduction="sum")
    else:
        error, constant = ((x - decode(z)) ** 2).sum() / (2 * S**2), constant + NORMALISER
    expected = error + penalty(z).sum()
    expected.backward()

    loss = objective().differentiable_loss(model.model, model.guide, x)
    loss.backward()
    np.testing.assert_allclose(loss.item(), (expected + ROWS * constant).item(), rtol=1e-12)
    for name, value in model.named_parameters():
        assert weights[name].grad.abs().sum() > 0, name
        torch.testing.assert_close(value.grad, weights[name].grad, rtol=1e-10, atol=1e-12, msg=name)


def test_variance_one_half_is_squared_error_itself():
    model, x = vae(likelihood=f"normal:scale={0.5**0.5!r}"), data()
    encode, decode, weights = by_hand(model)
    ((x - decode(encode(x))) ** 2).sum().backward()
    pv.ELBO().differentiable_loss(model.model, model.guide, x).backward()
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.grad, weights[name].grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("prior", PENALTIES, ids=["plain", "L1", "L2"])
def test_steps_of_svi_are_steps_of_adam_by_hand(prior):
    model, x = vae(prior), data()
    encode, decode, weights = by_hand(model)
    adam = torch.optim.Adam(weights.values(), lr=1e-2)
    svi = pv.SVI(model.model, model.guide, pyro.optim.Adam({"lr": 1e-2}), pv.ELBO(), compile=False)
    for _ in range(20):
        z = encode(x)
        adam.zero_grad()
        (((x - decode(z)) ** 2).sum() / (2 * S**2) + PENALTIES[prior][0](z).sum()).backward()
        adam.step()
        svi.step(x)
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.detach(), weights[name].detach(), rtol=1e-8, atol=1e-10, msg=name)


@pytest.mark.parametrize("prior", PENALTIES, ids=["plain", "L1", "L2"])
def test_the_numbers_are_the_terms_of_the_objective(prior):
    model, x = vae(prior), data()
    z = model.encode(x)
    numbers = metrics.evaluate(model, x, 5)
    error = (x - model.decode(z)) ** 2
    expected = {
        "reconstruction": -(error.sum(1) / (2 * S**2)).mean().item() - NORMALISER,
        "kl": PENALTIES[prior][0](z).sum(1).mean().item() + PENALTIES[prior][1],
        "mean_squared_error": error.mean().item(),
    }
    assert {name: numbers[name] for name in expected} == pytest.approx(expected, rel=1e-12)
    for name in ("elbo", "log_likelihood", "effective_sample_size", "bits_per_dimension"):
        assert numbers[name] is None


# --- the improper prior ---------------------------------------------------------------------------------------------


def rows(table):
    return pytest.mark.parametrize("case", table.values(), ids=table)


@rows(IMPROPER_PRIORS)
def test_improper_density_is_the_references(case):
    for dtype in (torch.float32, torch.float64):
        z = torch.randn(7, DIM, dtype=dtype) * 100
        prior = case.make(DIM).to(dtype).distribution()
        assert (prior.batch_shape, prior.event_shape) == ((), (DIM,))
        got = prior.log_prob(z)
        assert (got.dtype, got.shape) == (dtype, (7,))
        np.testing.assert_array_equal(got.numpy(), case.log_density(z.numpy()))
        wide = prior.expand((2, 7))
        assert wide.batch_shape == (2, 7)
        torch.testing.assert_close(wide.log_prob(z), got.expand(2, 7), rtol=0, atol=0)
    with pytest.raises(ValueError, match="within the support"):
        prior.log_prob(torch.full((DIM,), math.nan))


@rows(IMPROPER_PRIORS)
def test_improper_density_has_no_finite_mass(case):
    """The mass of a square of ten times the side is a hundred times as large, and so on without end."""
    prior = case.make(2).distribution()
    masses = []
    for side in (1.0, 10.0, 100.0):
        line = (torch.arange(40) + 0.5) / 40 * side - side / 2
        grid = torch.cartesian_prod(line, line)
        masses.append((prior.log_prob(grid).exp().sum() * (side / 40) ** 2).item())
    assert masses[1] / masses[0] >= 100 * (1 - 1e-9)
    assert masses[2] / masses[1] >= 100 * (1 - 1e-9)


@rows(IMPROPER_PRIORS)
def test_improper_prior_under_a_plate_scores_what_it_is_given_and_draws_nothing(case):
    prior = case.make(DIM)
    assert prior.improper
    z = torch.randn(5, DIM)
    conditioned = poutine.condition(prior, {"z": z})
    with pyro.plate("data", 5, dim=-1):
        trace = poutine.trace(conditioned).get_trace()
    trace.compute_log_prob()
    np.testing.assert_array_equal(trace.nodes["z"]["log_prob"].numpy(), case.log_density(z.numpy()))
    for draw in (prior, prior.distribution().sample, lambda: prior.distribution().sample((3,))):
        with pytest.raises(ValueError, match=f"^prior {case.cls.__name__} is improper, .*: it has no draws$"):
            draw()


NO_DRAWS, POINT = "prior Flat is improper, its density is 1 everywhere: it has no draws", "is a point (Delta)"
NEEDS = {
    "sample": (lambda m, x: m.sample(3), NO_DRAWS),
    "sample_prior": (lambda m, x: m.sample_prior(3), NO_DRAWS),
    "model without data": (lambda m, x: m.model(), NO_DRAWS),
    "model untouched": (lambda m, x: poutine.trace(m.model).get_trace(x), NO_DRAWS),
    "log_likelihood": (lambda m, x: metrics.log_likelihood(m, x, 4), POINT),
    "importance_curve": (lambda m, x: metrics.importance_curve(m, x, (1, 2)), POINT),
    "annealing from the guide": (lambda m, x: metrics.annealed_importance_sampling(m, x, 3, 2), POINT),
    "annealing from the prior": (
        lambda m, x: metrics.annealed_importance_sampling(m, x, 3, 2, start="prior"), NO_DRAWS
    ),
    "rate_distortion": (lambda m, x: metrics.rate_distortion(m, x, 4), POINT),
    "kl_per_dimension": (lambda m, x: metrics.kl_per_dimension(m, x), POINT),
    "mutual_information": (lambda m, x: metrics.mutual_information(m, x), POINT),
    "sbc": (lambda m, x: metrics.sbc(m, 20), NO_DRAWS),
    "gate_reliability": (lambda m, x: metrics.gate_reliability(m, 20), NO_DRAWS),
    "spike_occupancy": (lambda m, x: metrics.spike_occupancy(m, x), NO_DRAWS),
    "prior_samples": (lambda m, x: pv.plots.prior_samples(m), NO_DRAWS),
    "IWAE": (lambda m, x: pv.IWAE(3).loss(m.model, m.guide, x), POINT),
    "MMD": (lambda m, x: pv.ELBO(penalties=[pv.MMD(1.0)]).loss(m.model, m.guide, x), NO_DRAWS),
}  # fmt: skip


@pytest.mark.parametrize(("call", "message"), NEEDS.values(), ids=NEEDS)
def test_what_needs_draws_or_a_density_raises_one_line(call, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        call(vae(), data())
    assert "\n" not in str(caught.value).partition("Trace Shapes:")[0].strip()  # which Pyro adds


POINTS = "batch-topk, delta, gated, jump-relu, matryoshka, relu, topk, vaease"


def of_flat(guide):
    return pv.VAE(Flat(DIM), likelihoods.Normal(pv.nn.MLP(DIM, [4], WIDTH)), guide)


class OwnPoint(guides.Guide):
    support = guides.Delta.support
    is_point = True

    def __init__(self):
        super().__init__(Linear(WIDTH), DIM, DIM)

    def distribution(self, x):
        return dist.Delta(self.head(self.network(x)), event_dim=1)


class OwnSpread(guides.Guide):
    def __init__(self):
        super().__init__(Linear(WIDTH), DIM, DIM)

    def distribution(self, x):
        return dist.Normal(self.head(self.network(x)), 1.0).to_event(1)


def test_only_a_point_goes_with_it():
    for guide in (guides.Normal(Linear(WIDTH), DIM), guides.SpikeSlab(Linear(WIDTH), DIM), OwnSpread()):
        with pytest.raises(ValueError, match="is not a point, and only a point fits prior Flat") as e:
            of_flat(guide)
        listed = str(e.value).partition("guides that fit: ")[2].split(", ")
        assert {"Delta", "OwnPoint", "TopK"} <= set(listed)
        assert not {"Normal", "Laplace", "OwnSpread"} & set(listed)
    with pytest.raises(ValueError, match=rf"guides that fit: {POINTS}$"):
        pv.build_vae((WIDTH,), DIM, prior="flat", guide="normal")
    assert of_flat(OwnPoint()).encode(data()).shape == (ROWS, DIM)
    assert isinstance(pv.build_vae((WIDTH,), DIM, prior="flat").posterior, guides.Delta)
    with pytest.raises(ValueError, match="dim must be a positive whole number, got 0"):
        Flat(0)


def test_saved_and_loaded(tmp_path):
    model, x = vae(), data()
    pv.save(model, tmp_path)
    assert torch.equal(pv.load(tmp_path).reconstruct(x), model.reconstruct(x))


def test_summary_leaves_out_what_it_has_not():
    measured = metrics.summary(vae(), data(), 5, num_simulated=20)
    numbers, missing = measured.numbers, measured.missing
    assert {name for name, number in numbers.items() if number is None} == set(missing)
    assert (measured.kl, measured.occupancy, measured.ranks) == (None, None, None)
    for name in ("elbo", "rate", "log_likelihood", "nats_per_dimension", "mutual_information", "coverage_80"):
        assert POINT in missing[name]
    for name in ("occupancy", "prior_occupancy", "shut_gates", "gate_reliability_error"):
        assert missing[name] == NO_DRAWS
    assert numbers["mean_squared_error"] == pytest.approx(metrics.mean_squared_error(vae(), data()).mean().item())
    assert numbers["kl"] == 0.0


def test_codes_are_drawn_without_a_prior_beside_them():
    figure = pv.plots.code_histograms(vae(), data())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["codes of x"]
    assert all(not axes.lines for axes in figure.axes)
    assert len(pv.plots.code_histograms(vae("normal"), data()).legends[0].get_texts()) == 2


# --- the command line -----------------------------------------------------------------------------------------------

TINY = "--epochs 1 --hidden 8 --latent-dim 3 --num-samples 5"


@pytest.mark.parametrize("arguments", ["digits", "real.csv", "digits --guide delta --binarize none"])
def test_from_fit_to_evaluate(arguments, desk, capsys):  # noqa: F811  # a fixture
    torch.set_default_dtype(torch.float32)
    assert pyrovae(f"fit {arguments} --prior flat {TINY} --out out") == 0
    printed = capsys.readouterr().out
    assert "delta guide" in printed
    assert "A guide that is a point gives no bound on log p(x)" in printed
    assert not re.search(r"ELBO|KL of guide|log-likelihood", printed)
    assert re.search(r"log p\(x\|z\) at the code +-?\d+\.\d\d  nats per datum", printed)
    assert re.search(r"-log p\(z\) +0\.00  nats per datum", printed)
    numbers = read(desk / "out/metrics.json")
    assert (numbers["elbo"], numbers["log_likelihood"]) == (None, None)
    assert numbers["mean_squared_error"] > 0
    assert {path.stem for path in (desk / "out/figures").iterdir()} == {"loss", "reconstructions", "codes"}
    assert pyrovae("evaluate out --num-samples 5") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "mean squared error" in text
    assert "prior Flat is improper" in text
    assert pyrovae("encode out") == 0
    capsys.readouterr()
    for flags in ("", " --mean"):
        assert pyrovae(f"sample out{flags}") == 2
        assert "prior Flat is improper, its density is 1 everywhere: it has no draws" in capsys.readouterr().err
    assert not (desk / "out/samples.npy").exists()


def test_beside_others_in_a_comparison(desk, capsys):  # noqa: F811  # a fixture
    torch.set_default_dtype(torch.float32)
    assert pyrovae(f"compare digits --prior normal,flat {TINY} --out out") == 0
    table = {row["run"]: row for row in read(desk / "out/table.json")}
    assert table["flat"]["rate"] is None
    assert table["flat"]["distortion"] > 0
    assert table["normal"]["rate"] is not None
    assert pyrovae(f"compare digits --prior flat --guide delta,normal {TINY} --out other") == 2
    assert f"guides that fit: {POINTS}" in capsys.readouterr().err
