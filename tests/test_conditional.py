"""The conditional VAE: its densities against closed forms and enumeration, its training, its labels, its networks."""

from __future__ import annotations

import copy
import itertools
import math
import pickle

import numpy as np
import pyro
import pytest
import scipy.stats as st
import torch
from cases import Linear
from linear_gaussian import DIM, FEATURES, NOISE
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from scipy.special import logsumexp
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pyrovae as pv
from pyrovae import ConditionalVAE, build, guides, likelihoods, metrics, priors
from pyrovae.nn import MLP, ConvEncoder, Dictionary, Labelled

LABELS = 4


def linear_gaussian(exact=True, num_labels=LABELS):
    r"""z ~ N(0, I), x|z, y ~ N(W z + b_y, s^2 I) in float64; the guide has the posterior, or is far from it."""
    torch.manual_seed(0)
    decoder = Dictionary(DIM + num_labels, FEATURES)
    nn.init.normal_(decoder.linear.weight)
    likelihood = likelihoods.Normal(decoder, scale=NOISE)
    guide = guides.MultivariateNormal(Linear(FEATURES + num_labels), DIM)
    vae = ConditionalVAE(priors.Normal(DIM), likelihood, guide, num_labels).double()
    vae.likelihood.scale.value.fill_(NOISE)  # 0.4 in float64
    if exact:
        weight = decoder.linear.weight[:, :DIM]
        covariance = torch.linalg.inv(torch.eye(DIM).double() + weight.T @ weight / NOISE**2)
        gain = covariance @ weight.T / NOISE**2
        tril = torch.linalg.cholesky(covariance)
        with torch.no_grad():
            head = vae.posterior.head
            head.weight.zero_()
            head.weight[:DIM, :FEATURES] = gain
            head.weight[:DIM, FEATURES:] = -gain @ decoder.linear.weight[:, DIM:]  # of x - b_y
            head.bias[:DIM] = -gain @ decoder.linear.bias
            head.bias[DIM : 2 * DIM] = torch.log(torch.expm1(tril.diagonal() - guides.SCALE_FLOOR))
            head.bias[2 * DIM :] = tril[tuple(torch.tril_indices(DIM, DIM, -1))]
    return vae


def data(num=24, num_labels=LABELS, width=FEATURES):
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(num) % num_labels
    return torch.randn(num, width, generator=generator, dtype=torch.float64) + y[:, None], y


def log_density(vae, x, y):
    """log p(x|y) = log N(x; b_y, W W^T + s^2 I), by scipy."""
    linear = vae.likelihood.network.linear
    weight, bias = linear.weight.detach().numpy(), linear.bias.detach().numpy()
    covariance = weight[:, :DIM] @ weight[:, :DIM].T + NOISE**2 * np.eye(FEATURES)
    means = bias + weight[:, DIM:].T[y.numpy()]
    return torch.tensor([st.multivariate_normal(m, covariance).logpdf(row) for m, row in zip(means, x, strict=True)])


@pytest.fixture(autouse=True)
def alone():
    """Pyro's parameters and torch's random state are put back after."""
    with pyro.get_param_store().scope(), torch.random.fork_rng():
        yield


# --- densities ------------------------------------------------------------------------------------------------------


def test_at_the_exact_posterior_every_bound_is_log_p_of_x_given_y():
    vae, (x, y) = linear_gaussian(), data()
    exact = log_density(vae, x, y)
    torch.testing.assert_close(metrics.elbo(vae, (x, y), 3).elbo, exact, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(metrics.log_likelihood(vae, (x, y), 3), exact, rtol=1e-9, atol=1e-9)
    for loss in (pv.ELBO(num_particles=2), pv.IWAE(3), Trace_ELBO(num_particles=2, vectorize_particles=True)):
        svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.0}), loss)
        if not isinstance(loss, pv.ELBO):  # whose exact KL leaves the noise of the reconstruction
            assert svi.evaluate_loss(x, y) == pytest.approx(-exact.sum().item(), rel=1e-9)
    wrong = metrics.log_likelihood(vae, (x, (y + 1) % LABELS), 3)
    torch.testing.assert_close(wrong, log_density(vae, x, (y + 1) % LABELS), rtol=1e-9, atol=1e-9)
    assert (wrong - exact).abs().min() > 1e-3


def test_bounds_are_in_order_for_a_guide_that_is_wrong():
    """Means over 24 data; at 2,000 draws the ELBO's standard error is below a hundredth of the gap."""
    vae, (x, y) = linear_gaussian(exact=False), data()
    torch.manual_seed(0)
    elbo = metrics.elbo(vae, (x, y), 2000).elbo.mean()
    weighted = metrics.log_likelihood(vae, (x, y), 2000).mean()
    assert elbo < weighted < log_density(vae, x, y).mean()


def test_a_chain_of_temperatures_comes_near_log_p_from_a_guide_that_is_wrong():
    """The ELBO is tens of nats below log p(x|y); that of 60 temperatures makes up for most of it, and stays below."""
    vae, (x, y) = linear_gaussian(exact=False), data(4)
    exact = log_density(vae, x, y).mean()
    torch.manual_seed(0)
    annealed = metrics.annealed_importance_sampling(vae, (x, y), 60, 4).mean()
    elbo = metrics.elbo(vae, (x, y)).elbo.mean()
    assert elbo < exact - 10
    assert exact - 0.3 * (exact - elbo) < annealed < exact + 0.1


def bits(num_labels=3, dim=3, width=5):
    torch.manual_seed(0)
    decoder = MLP(dim + num_labels, [6], width, activation=nn.Tanh)
    guide = guides.Bernoulli(MLP(width + num_labels, [6]), dim)
    prior = priors.Bernoulli(dim, probs=0.3)
    return ConditionalVAE(prior, likelihoods.Bernoulli(decoder), guide, num_labels).double()


def enumerated(vae, x, y):
    """log p(x|y) over all codes of bits, in numpy."""
    codes = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
    log_prior = st.bernoulli(0.3).logpmf(codes).sum(-1)
    first, last = (layer for layer in vae.likelihood.network.layers if isinstance(layer, nn.Linear))
    rows = []
    for row, label in zip(x.numpy(), y.numpy(), strict=True):
        inputs = np.hstack([codes, np.tile(np.eye(3)[label], (8, 1))])
        hidden = np.tanh(inputs @ first.weight.detach().numpy().T + first.bias.detach().numpy())
        logits = hidden @ last.weight.detach().numpy().T + last.bias.detach().numpy()
        rows.append(logsumexp(log_prior + (row * logits - np.logaddexp(0, logits)).sum(-1)))
    return torch.tensor(rows)


def test_log_likelihood_of_discrete_codes_is_that_of_enumeration():
    """Within 6 standard errors for each of 12 data, from the effective sample size: a false alarm once in 10^7."""
    vae = bits()
    generator = torch.Generator().manual_seed(2)
    x = torch.bernoulli(torch.full((12, 5), 0.5, dtype=torch.float64), generator=generator)
    y = torch.arange(12) % 3
    torch.manual_seed(0)
    got = metrics.importance_sampling(vae, (x, y), 20_000)
    error = (1 / got.effective_sample_size - 1 / 20_000).sqrt()
    assert ((got.log_likelihood - enumerated(vae, x, y)).abs() < 6 * error).all()


def test_model_and_guide_are_the_densities_that_they_say():
    """The sites of a trace, by torch and by hand: p(z), p(x|z, y), q(z|x, y)."""
    vae, (x, y) = linear_gaussian(exact=False), data()
    guide = poutine.trace(vae.guide).get_trace(x, y)
    model = poutine.trace(poutine.replay(vae.model, trace=guide)).get_trace(x, y)
    z, one_hot = guide.nodes["z"]["value"], torch.eye(LABELS).double()[y]
    assert torch.equal(model.nodes["x"]["value"], x)
    mean = vae.likelihood.network(torch.cat([z, one_hot], 1))
    by_hand = (
        torch.distributions.Normal(mean, NOISE).log_prob(x).sum() + torch.distributions.Normal(0, 1).log_prob(z).sum()
    )
    assert model.log_prob_sum().item() == pytest.approx(by_hand.item(), rel=1e-12)
    q = vae.posterior.distribution(torch.cat([x, one_hot], 1))
    assert guide.log_prob_sum().item() == pytest.approx(q.log_prob(z).sum().item(), rel=1e-12)


# --- training -------------------------------------------------------------------------------------------------------


def small(seed=0, **options):
    torch.manual_seed(seed)
    return pv.build_vae((FEATURES,), 2, hidden=(6,), num_labels=LABELS, likelihood="normal", **options)


def pairs(num=24):
    x, y = data(num)
    return x.float(), y


OBJECTIVES = {
    "ELBO": ("normal", pv.ELBO),
    "gates": ("spike-slab", pv.ELBO),
    "warm-up": ("spike-slab", lambda: pv.ELBO(beta=pv.warmup(steps=4))),
    "IWAE": ("normal", lambda: pv.IWAE(3)),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_compiled_steps_are_pyros(recorded, name):
    prior, loss = OBJECTIVES[name]
    runs = []
    for compiled in (None, True, False):
        vae = small(prior=prior)
        optim = pyro.optim.Adam({"lr": 1e-2})
        counts = compiled is not None or name == "warm-up"  # schedules are counted by pv.SVI alone
        cls, options = (pv.SVI, {"compile": bool(compiled)}) if counts else (SVI, {})
        svi = cls(vae.model, vae.guide, optim, loss(), **options)
        torch.manual_seed(1)
        x, y = pairs()
        # the labels of a compiled step are its inputs, not constants
        runs.append([svi.step(x, (y + step) % LABELS) for step in range(8)])
        if options.get("compile"):
            assert svi.compilations == 1
    assert runs[1] == pytest.approx(runs[0], rel=1e-5)
    assert runs[2] == pytest.approx(runs[0], rel=1e-5)


def test_fit_takes_labels_from_wherever_they_come():
    """Under a Delta guide a loss is without noise, and the same in any order of the rows of its batch."""
    x, y = pairs(30)
    losses = []
    for given in ((x, y), TensorDataset(x, y), DataLoader(TensorDataset(x, y), 30, generator=torch.Generator())):
        losses.append(pv.fit(small(guide="delta"), given, 1, 30, seed=0, progress=False)["train_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=1e-5)
    labelled = pv.data.split("mine", x, labels=y)
    history = pv.fit(small(), labelled, 2, seed=0, progress=False)
    by_hand = pv.fit(small(), labelled.labelled("train"), 2, seed=0, progress=False, val=labelled.labelled("val"))
    assert history["train_loss"] == by_hand["train_loss"]
    assert history["val_loss"] == by_hand["val_loss"]


def test_what_a_label_says_is_learned():
    """x is its label's mean with noise of 0.1: log p(x|y) of the true label leads by far on every row."""
    torch.manual_seed(0)
    y = torch.arange(400) % LABELS
    x = 2.0 * torch.eye(LABELS, FEATURES)[y] + 0.1 * torch.randn(400, FEATURES)
    vae = small()
    pv.fit(vae, (x, y), 40, 50, pyro.optim.Adam({"lr": 1e-2}), seed=0, progress=False)
    scores = torch.stack([metrics.log_likelihood(vae, (x, torch.full_like(y, label)), 20) for label in range(LABELS)])
    assert (scores.argmax(0) == y).all()
    drawn = vae.sample(torch.full((200,), 2))
    torch.testing.assert_close(drawn.mean(0), 2.0 * torch.eye(LABELS, FEATURES)[2], atol=0.2, rtol=0)
    assert metrics.evaluate(vae, (x, y), 20)["num_data"] == 400


PRIORS = sorted(set(build.PRIORS) - {"vamp"})


@pytest.mark.parametrize("prior", PRIORS)
def test_every_prior_takes_labels(prior):
    torch.manual_seed(0)
    y = torch.arange(40) % 2
    x = torch.bernoulli(0.1 + 0.8 * y[:, None].expand(40, 5))
    vae = pv.build_vae((5,), 3, prior=prior, hidden=(8,), num_labels=2, num_data=40)
    history = pv.fit(vae, (x, y), 30, 10, pyro.optim.Adam({"lr": 1e-2}), seed=0, progress=False, compile=False)
    assert sum(history["train_loss"][-5:]) < sum(history["train_loss"][:5]) - 1
    z = vae.encode(x, y)
    assert torch.equal(z, vae.encode(x, y))
    assert vae.reconstruct(x, y).shape == vae.decode(z, 1 - y).shape == x.shape
    if prior != "flat":
        assert vae.sample(y).shape == x.shape
        assert metrics.log_likelihood(vae, (x, y), 5).shape == (40,)


# --- methods --------------------------------------------------------------------------------------------------------


def test_passes_of_many_rows_are_those_of_few():
    vae = linear_gaussian()
    x, y = data(2500)
    z = vae.encode(x, y)
    for rows in (slice(0, 7), slice(1020, 1030), slice(2490, 2500)):
        torch.testing.assert_close(vae.encode(x[rows], y[rows]), z[rows])
        torch.testing.assert_close(vae.decode(z[rows], y[rows]), vae.reconstruct(x, y)[rows])
    assert vae.sample(y).shape == x.shape


def test_draws_are_of_their_label():
    """Means of 20,000 draws within 6 standard errors of b_y: a false alarm once in 10^7."""
    vae = linear_gaussian()
    torch.manual_seed(0)
    for label in range(LABELS):
        x = vae.sample(torch.full((20_000,), label))
        linear = vae.likelihood.network.linear
        error = (x.mean(0) - linear.bias - linear.weight[:, DIM + label]).abs()
        assert (error < 6 * x.std(0) / len(x) ** 0.5).all()


def test_copies_and_what_is_saved_have_the_same_numbers(tmp_path):
    vae, (x, y) = small(), pairs()
    pv.fit(vae, (x, y), 1, progress=False)
    pv.save(vae, tmp_path)
    for other in (pv.load(tmp_path), copy.deepcopy(vae), pickle.loads(pickle.dumps(vae))):
        assert isinstance(other, ConditionalVAE)
        assert other.num_labels == LABELS
        assert torch.equal(other.encode(x, y), vae.encode(x, y))


X, Y = pairs(6)
ASKED = f"y must be labels, one for each of 6 rows, whole numbers from 0 to {LABELS - 1}, got"


@pytest.mark.parametrize(
    ("y", "got"),
    [
        (None, "None"),
        ([0, 1, 2, 3, 0, 1], r"\[0, 1, 2, 3, 0, 1\]"),
        (Y.float(), r"torch.float32 of shape \(6,\)"),
        (Y > 1, r"torch.bool of shape \(6,\)"),
        (Y[:5], r"torch.int64 of shape \(5,\)"),
        (torch.eye(4, dtype=torch.int64)[Y], r"torch.int64 of shape \(6, 4\)"),
        (Y + 1, "4 at index 3"),
        (Y - 1, "-1 at index 0"),
    ],
)
def test_bad_labels_are_one_line(y, got):
    vae = small()
    for call in (vae.model, vae.guide, vae.encode, vae.reconstruct):
        with pytest.raises(ValueError, match=f"^{ASKED} {got}$"):
            call(X, y)
    with pytest.raises(ValueError, match=f"^{ASKED} {got}$"):
        vae.decode(torch.zeros(6, 2), y)
    if y is None or (isinstance(y, torch.Tensor) and len(y) == 6):
        with pytest.raises(ValueError, match=f"^{ASKED} {got}$"):
            pv.fit(vae, X if y is None else (X, y), progress=False)


MEASURED = {
    "log_likelihood": lambda vae, x: metrics.log_likelihood(vae, x, 5),
    "elbo": lambda vae, x: metrics.elbo(vae, x, 5),
    "codes": lambda vae, x: metrics.codes(vae, x, "sample"),
    "SVI": lambda vae, x: pv.SVI(vae.model, vae.guide, pv.optim.adam(), pv.ELBO()).step(x),
    "SVI of Pyro": lambda vae, x: SVI(vae.model, vae.guide, pv.optim.adam(), Trace_ELBO()).step(x),
}


@pytest.mark.parametrize("call", MEASURED.values(), ids=MEASURED)
def test_what_is_wrong_with_an_argument_is_one_line_within_a_trace(call):
    """Where Pyro puts a table of shapes behind an error."""
    for x, message in ((X, f"{ASKED} None"), (X.double(), "x is torch.float64 on cpu, .*")):
        with pytest.raises(ValueError, match=rf"^{message}\Z") as caught:
            call(small(), x)
        assert "\n" not in str(caught.value)


def test_other_bad_input_is_one_line():
    vae = small()
    with pytest.raises(ValueError, match=r"^y must be labels, one for each row, whole numbers from 0 to 3, got None\Z"):
        vae.sample()
    for y in (3, None):
        with pytest.raises(ValueError, match=f"y must be labels, one for each row, whole numbers from 0 to 3, got {y}"):
            vae.sample(y)
    with pytest.raises(ValueError, match="y is on meta, the data or their code on cpu"):
        vae.encode(X, torch.empty(6, dtype=torch.int64, device="meta"))
    with pytest.raises(ValueError, match="data: patches has no labels of its train set"):
        pv.fit(vae, pv.data.Data("patches", X, X, X), progress=False)
    part = priors.Normal(2), likelihoods.Normal(MLP(2, [3], FEATURES)), guides.Normal(MLP(FEATURES, [3]), 2)
    with pytest.raises(ValueError, match=r"event_shape \(2,\), with 4 labels beside it \(6,\), .* reads \(2,\)"):
        ConditionalVAE(*part, LABELS)
    with pytest.raises(ValueError, match="num_labels must be a whole number, at least 2, got 1"):
        ConditionalVAE(*part, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_labels": 1}, "num_labels must be a whole number, at least 2, got 1"),
        ({"num_labels": "10"}, "num_labels must be a whole number, at least 2, got '10'"),
        ({"network": "dictionary"}, 'num_labels is of the networks "mlp" and "conv", got 4 with "dictionary"'),
        ({"prior": "vamp", "inputs": X}, "prior 'vamp' runs the encoder at inputs without labels"),
    ],
)
def test_build_refuses_what_has_no_place_for_labels(options, message):
    with pytest.raises(ValueError, match=message):
        pv.build_vae(**{"event_shape": (FEATURES,), "latent_dim": 2, "num_labels": LABELS, **options})


# --- networks -------------------------------------------------------------------------------------------------------


class Seen(nn.Module):
    """Gives back what it reads, flat."""

    def __init__(self, in_shape):
        super().__init__()
        self.in_shape, self.out_features = in_shape, 1

    def forward(self, x):
        return x


def test_an_image_network_sees_labels_as_planes_and_another_as_columns():
    image, label = torch.rand(3, 2, 4, 5), torch.eye(3)
    row = torch.cat([image.flatten(1), label], 1)
    seen = Labelled(Seen((5, 4, 5)), (2, 4, 5), 3)(row)
    assert torch.equal(seen[:, :2], image)
    assert torch.equal(seen[:, 2:], label[:, :, None, None].expand(3, 3, 4, 5))
    assert torch.equal(Labelled(Seen((43,)), (2, 4, 5), 3)(row), row)
    encoder = Labelled(ConvEncoder((5, 4, 5), hidden=7), (2, 4, 5), 3)
    assert encoder(row.expand(6, 3, -1)).shape == (6, 3, encoder.out_features)


def test_damage_is_done_to_x_and_not_to_its_label():
    row = torch.cat([torch.rand(3, 8), torch.eye(3)], 1)
    encoder = Labelled(Seen((11,)), (8,), 3, corrupt=torch.zeros_like)
    assert torch.equal(encoder(row)[:, 8:], row[:, 8:])
    assert (encoder(row)[:, :8] == 0).all()
    assert torch.equal(encoder.eval()(row), row)


def test_a_network_of_another_width_is_refused():
    with pytest.raises(ValueError, match=r"network must say an in_shape of \(11,\) or \(11,\), got \(8,\)"):
        Labelled(MLP(8, [3]), (8,), 3)


def test_labels_and_holes_go_together():
    torch.manual_seed(0)
    y = torch.arange(60) % 3
    whole = nn.functional.one_hot(y, 3).float().repeat(1, 2)  # x is what the label says, twice
    x = torch.where(torch.rand(60, 6) < 0.3, math.nan, whole)
    vae = pv.build_vae((6,), 2, num_labels=3, hidden=(32,), missing=True)
    optim = pyro.optim.Adam({"lr": 1e-2})
    pv.fit(vae, (x, y), epochs=150, batch_size=60, optim=optim, seed=0, progress=False, compile=False)
    filled = metrics.impute(vae, (x, y), num_samples=50)
    assert torch.equal(filled[~x.isnan()], x[~x.isnan()])
    assert (filled - whole).abs().max() < 0.2
