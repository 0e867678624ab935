"""A datum of several tensors: cut together, given to two functions, measured, refused where it does not fit."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import scipy.stats as st
import torch
from torch.utils.data import DataLoader, TensorDataset

import pyrovae as pv
from pyrovae import metrics
from pyrovae.data.placement import placed, sent

NOISE, ROWS = 0.5, 41
X = torch.linspace(-2, 2, ROWS, dtype=torch.float64)
Y = 1.5 * X + NOISE * torch.randn(ROWS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def model(x, y):
    """Regression through the origin, y = w x and noise, with w ~ N(0, 1)."""
    w = pyro.sample("w", dist.Normal(x.new_zeros(()), 1.0))
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("y", dist.Normal(w * x, NOISE), obs=y)


def guide(x, y):
    loc = pyro.param("loc of w", lambda: x.new_zeros(()))
    scale = pyro.param("scale of w", lambda: x.new_tensor(0.3), constraint=dist.constraints.positive)
    pyro.sample("w", dist.Normal(loc, scale))


def posterior():
    """Mean and standard deviation of w, by Bayes's rule."""
    precision = 1 + float((X**2).sum()) / NOISE**2
    return float((X * Y).sum()) / NOISE**2 / precision, precision**-0.5


@pytest.fixture(autouse=True)
def alone():
    """Pyro's parameters and torch's random state are put back after."""
    with pyro.get_param_store().scope(), torch.random.fork_rng():
        yield


def fit(data, epochs=1, batch_size=None, **options):
    optim = pyro.optim.Adam({"lr": 0.02})
    return pv.fit((model, guide), data, epochs, batch_size, optim, seed=0, progress=False, compile=False, **options)


def test_a_regression_is_fitted_to_its_posterior():
    """Adam's last step moves w by 0.02, a third of the posterior's standard deviation, at most."""
    fit((X, Y), epochs=400, loss=pv.ELBO(num_particles=50))
    mean, scale = posterior()
    assert pyro.param("loc of w").item() == pytest.approx(mean, abs=scale / 3)
    assert pyro.param("scale of w").item() == pytest.approx(scale, rel=0.2)


def test_the_predictive_density_is_the_closed_one():
    """At 20,000 draws within 6 standard errors of each datum's, from the effective sample size: once in 10^7."""
    mean, scale = posterior()
    pyro.param("loc of w", X.new_tensor(mean))
    pyro.param("scale of w", X.new_tensor(scale), constraint=dist.constraints.positive)
    exact = torch.from_numpy(st.norm(mean * X, (NOISE**2 + scale**2 * X**2) ** 0.5).logpdf(Y))
    torch.manual_seed(0)
    got = metrics.importance_sampling((model, guide), (X, Y), 20_000)
    error = (1 / got.effective_sample_size - 1 / 20_000).clamp(min=0).sqrt() + 1e-9
    assert ((got.log_likelihood - exact).abs() < 6 * error).all()
    assert metrics.elbo((model, guide), (X, Y)).elbo.shape == (ROWS,)


def test_a_tuple_a_dataset_and_a_loader_give_the_same_run():
    pairs = TensorDataset(X, Y)
    histories = []
    for data in ((X, Y), pairs, DataLoader(pairs, batch_size=ROWS, generator=torch.Generator())):
        pyro.get_param_store().clear()
        histories.append(fit(data, epochs=3, batch_size=ROWS)["train_loss"])
    # they differ in the order of the rows of the one batch, of which the loss is a sum
    assert histories[1] == pytest.approx(histories[0], rel=1e-12)
    assert histories[2] == pytest.approx(histories[0], rel=1e-12)


def test_the_order_of_the_batches_does_not_part_a_pair():
    seen = []

    def watched(x, y):
        seen.append((x, y))
        model(x, y)

    optim = pyro.optim.Adam({"lr": 0.02})
    pv.fit((watched, guide), (X, Y), 1, 8, optim, seed=1, progress=False, compile=False, val=(X[:5], Y[:5]))
    x, y = (torch.cat(parts) for parts in zip(*(pair for pair in seen if len(pair[0]) not in (5,)), strict=True))
    assert not torch.equal(x, X)
    assert {(a.item(), b.item()) for a, b in zip(x, y, strict=True)} <= set(zip(X.tolist(), Y.tolist(), strict=True))
    assert any(torch.equal(x, X[:5]) and torch.equal(y, Y[:5]) for x, y in seen)


def test_functions_in_a_handler_are_called_with_the_tuple():
    masked = pyro.poutine.mask(mask=True)(model), pyro.poutine.mask(mask=True)(guide)  # they do not say their arguments
    optim = pyro.optim.Adam({"lr": 0.02})
    got = pv.fit(masked, (X, Y), 2, None, optim, seed=0, progress=False, compile=False)["train_loss"]
    pyro.get_param_store().clear()
    assert fit((X, Y), epochs=2)["train_loss"] == pytest.approx(got, rel=1e-12)
    assert metrics.elbo(masked, (X, Y)).elbo.shape == (ROWS,)


def test_batches_of_a_tuple_and_of_a_dataset():
    x, y = torch.arange(20.0).reshape(10, 2), torch.arange(10)
    parts = list(pv.data.batches((x, y), 4, transform=torch.neg))
    assert [len(part[1]) for part in parts] == [4, 4, 2]
    assert all(torch.equal(-part[0][:, 0], 2.0 * part[1]) and part[1].dtype == torch.int64 for part in parts)
    both = list(pv.data.batches(TensorDataset(x, y, y), 4, shuffle=False, num_tensors=2))
    assert [tuple(map(len, part)) for part in both] == [(4, 4), (4, 4), (2, 2)]
    first = list(pv.data.batches(TensorDataset(x, y), 4, shuffle=False))
    assert torch.equal(torch.cat(first), x)
    (alone,) = pv.data.batches((x,), 10, shuffle=False)
    assert torch.equal(alone, x)


def test_labels_keep_their_dtype_where_data_take_that_of_the_parameters():
    like = torch.zeros(1, dtype=torch.float64)
    pixels, labels, weights = torch.ones(3, 2, dtype=torch.uint8), torch.arange(3), torch.ones(3)
    for moved in (placed((pixels, labels, weights), like), next(sent([(pixels, labels, weights)], like))):
        assert [part.dtype for part in moved] == [torch.float64, torch.int64, torch.float64]
    assert placed((pixels, labels), torch.empty(1, device="meta"))[1].device.type == "meta"


def vae():
    return pv.build_vae((2,), 1, hidden=(3,), likelihood="normal")


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (r"data must be tensors of equal numbers of rows, got shapes \(41,\), \(40,\)", lambda: fit((X, Y[:-1]))),
        (r"data must be tensors of equal numbers of rows, got shapes \(41,\), \(\)", lambda: fit((X, Y[0]))),
        (r"val must be tensors of equal numbers of rows", lambda: fit((X, Y), val=(X, Y[:2]))),
        (r"data has one tensor for each datum, and the model takes \(x, y\)", lambda: fit(X)),
        (r"data has 3 tensors for each datum, and the model takes \(x, y\)", lambda: fit((X, Y, Y))),
        (r"data: mine has no labels of its train set", lambda: fit(pv.data.split("mine", torch.rand(30, 2)))),
        ("data has no rows", lambda: fit((X[:0], Y[:0]))),
        (
            r"x must be tensors of equal numbers of rows, got shapes \(41,\), \(40,\)",
            lambda: metrics.elbo((model, guide), (X, Y[:-1])),
        ),
        (
            r"data has 2 tensors for each datum, and the guide takes \(x\)",
            lambda: pv.fit(vae(), (torch.rand(5, 2), torch.arange(5)), progress=False),
        ),
        (
            r"x has 2 tensors for each datum, and the guide takes \(x\)",
            lambda: metrics.log_likelihood(vae(), (torch.rand(5, 2), torch.arange(5))),
        ),
        (
            r"data has 2 tensors for each datum, and the trainer takes \(x\)",
            lambda: pv.fit(
                pv.GAN(pv.priors.Normal(1), pv.nn.MLP(1, [3], 2), pv.nn.MLP(2, [3], 1)),
                (torch.rand(5, 2), torch.arange(5)),
                progress=False,
            ),
        ),
    ],
)
def test_what_does_not_fit_is_one_line(message, call):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
