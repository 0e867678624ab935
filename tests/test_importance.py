"""Importance sampling: the order of its bounds, and diagnostics that are high and low where they must be."""

import itertools
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import data, linear_gaussian, marginal, set_bad_start, set_exact_posterior
from pyro.ops.stats import fit_generalized_pareto
from test_spike_slab import NOISE, PATTERNS, SCALE, log_joint_of_patterns, model_and_data
from torch.utils._python_dispatch import TorchDispatchMode

import pyrovae as pv
from pyrovae import guides, metrics


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def exponential(rate):
    """Weights p(z)/q(z) with q = Exponential(1) and p = Exponential(r): Pareto, with exactly k = 1 - r, and mean 1.

    x does not depend on z, so that log p(x) is that of x alone.
    """

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Exponential(x.new_full((), rate)))
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Exponential(x.new_ones(())))

    return model, guide


def linear_and_gaussian():
    """A guide of independent coordinates, 3 nats from the posterior."""
    vae = linear_gaussian(guides.Normal)
    exact = linear_gaussian()
    set_exact_posterior(exact)
    with torch.no_grad():
        vae.posterior.head.weight.copy_(exact.posterior.head.weight[:6])
        vae.posterior.head.bias[:3] = exact.posterior.head.bias[:3] + 0.1
        vae.posterior.head.bias[3:] = -1.0
    x = data(vae, 12)
    return vae, x, marginal(vae).log_prob(x)


def spikes_and_slabs():
    """A guide of each datum's own, with the gates and the slabs' first two moments of its posterior, 1.5 times as wide.

    Given the pattern of gates the slabs' posterior is Normal, so that the moments are sums over patterns.
    """
    vae, x = model_and_data("open", num=12)
    log_joint = log_joint_of_patterns(vae, x)
    weight, on, first, second = vae.likelihood.network.weight, 0.0, 0.0, 0.0
    for b, probability in zip(PATTERNS, torch.softmax(log_joint, 0), strict=True):
        covariance = torch.linalg.inv((weight * b).T @ (weight * b) / NOISE**2 + torch.eye(4) / SCALE**2)
        mean = x @ (weight * b) @ covariance / NOISE**2
        share = probability[:, None] * b
        on, first = on + share, first + share * mean
        second = second + share * (mean**2 + covariance.diagonal())
    loc = first / on
    with torch.no_grad():
        vae.posterior.logits = torch.nn.Parameter(torch.logit(on))
        vae.posterior.loc = torch.nn.Parameter(loc)
        vae.posterior.raw = torch.nn.Parameter((1.5 * (second / on - loc**2).sqrt()).log())
    return vae, x, log_joint.logsumexp(0)


# --- the bounds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [linear_and_gaussian, spikes_and_slabs])
def test_bounds_are_in_order_up_to_log_p(model):
    """ELBO <= IWAE_5 <= IWAE_50 <= IWAE_500 <= IWAE_5000 <= log p(x), for each datum, and the last within 0.02 nats.

    The order of the bounds has no exception. The last is below log p(x) in expectation: its mean over 12 data and 40
    repeats may be 4 standard errors above (a false alarm once in 30,000 seeds), which are less than 0.01 nats.
    """
    vae, x, log_p = model()
    torch.manual_seed(0)
    curves = [metrics.importance_curve(vae, x) for _ in range(40)]
    for curve in curves:
        assert list(curve) == [1, 5, 50, 500, 5000]
        for lower, upper in itertools.pairwise(curve.values()):
            assert (upper - lower >= -1e-12).all()
    mean = {k: torch.stack([curve[k] for curve in curves]) for k in curves[0]}
    gap = (log_p - mean[5000]).mean(1).detach()
    error = gap.std() / 40**0.5
    assert 4 * error < 0.01
    assert -4 * error < gap.mean() < 0.02
    bound = metrics.elbo(vae, x, 5000).elbo
    assert (log_p - bound).mean() > 2, "the guide is far enough from the posterior to see a gap"
    # two estimates of one number, 40 repeats and one: a false alarm once in 10^5 seeds
    first = mean[1].mean(1)
    assert abs(first.mean() - bound.mean()) <= 5 * first.std() * 1.025**0.5
    steps = [mean[k].mean() for k in (1, 5, 50)]
    assert steps[1] - steps[0] > 0.05
    assert steps[2] - steps[1] > 0.02


def test_the_curve_is_the_mean_over_groups_of_one_set_of_draws(monkeypatch):
    table = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)) * 3
    monkeypatch.setattr(metrics.draws, "log_weights", lambda vae, rows, k: table[:k])
    curve = metrics.importance_curve(linear_gaussian(), torch.zeros(3, 6), (1, 3, 7))
    w = table.numpy()
    np.testing.assert_allclose(curve[1], w.mean(0))
    np.testing.assert_allclose(curve[3], np.mean([np.log(np.exp(w[i : i + 3]).mean(0)) for i in (0, 3)], axis=0))
    np.testing.assert_allclose(curve[7], np.log(np.exp(w).mean(0)))


# --- the diagnostics ------------------------------------------------------------------------------------------------


def test_exact_posterior_has_every_draw_and_no_tail():
    vae = linear_gaussian()
    set_exact_posterior(vae)
    x = data(vae, 5)
    for num_samples in (1, 30, 1000):
        got = metrics.importance_sampling(vae, x, num_samples)
        torch.testing.assert_close(got.log_likelihood, marginal(vae).log_prob(x), rtol=1e-9, atol=0)
        torch.testing.assert_close(got.effective_sample_size, torch.full((5,), float(num_samples)))
        expected = 0.0 if num_samples >= 21 else math.nan
        torch.testing.assert_close(got.pareto_k, torch.full((5,), expected), equal_nan=True)
    single = metrics.importance_sampling(vae.float(), x.float(), 1000)
    assert (single.pareto_k == 0).all(), "rounding is no tail"


@pytest.mark.parametrize(("rate", "draws"), [(0.9, 1000), (0.6, 1000), (0.2, 1000), (0.2, 5000)])
def test_the_tail_index_is_that_of_a_known_tail(rate, draws):
    """k = 1 - r, drawn to 1/2 by ten observations among M, in the mean over 400 data.

    The estimate's standard deviation is (1 + k) / sqrt(M) and its own bias, at M = 95 and more, below 0.03; the mean is
    allowed that and 4 standard errors, a false alarm once in 16,000 seeds.
    """
    torch.manual_seed(1)
    x = torch.zeros(400)
    got = metrics.importance_sampling(exponential(rate), x, draws)
    tail = math.ceil(min(draws / 5, 3 * draws**0.5))
    expected = (tail * (1 - rate) + 5) / (tail + 10)
    spread = (2 - rate) / tail**0.5 * tail / (tail + 10)
    assert got.pareto_k.mean().item() == pytest.approx(expected, abs=0.03 + 4 * spread / 20)
    assert got.pareto_k.std().item() == pytest.approx(spread, rel=0.25)
    assert ((got.pareto_k > 0.7).double().mean() > 0.5) == (rate == 0.2), (
        "the alarm is where it must be, and only there"
    )


def test_effective_sample_size_is_that_of_known_weights():
    """E[w]^2 / E[w^2] = (2 r - 1) / r^2 for those weights, where finite; the mean over 400 data within 2 %."""
    torch.manual_seed(2)
    for rate in (0.95, 0.8):
        got = metrics.importance_sampling(exponential(rate), torch.zeros(400), 4000).effective_sample_size / 4000
        assert got.mean().item() == pytest.approx((2 * rate - 1) / rate**2, rel=0.02)
    few = metrics.importance_sampling(exponential(0.05), torch.zeros(400), 4000).effective_sample_size
    assert few.min() >= 1
    assert few.mean() < 400


def test_a_bad_guide_is_seen():
    vae = linear_gaussian()
    set_bad_start(vae.posterior)
    x = data(vae, 20)
    torch.manual_seed(3)
    got = metrics.importance_sampling(vae, x, 2000)
    assert (got.pareto_k > 0.7).all()
    assert (got.effective_sample_size < 100).all()
    assert (marginal(vae).log_prob(x) - got.log_likelihood).mean() > 1


def test_the_fit_is_that_of_pyro():
    """An implementation of its own of Zhang and Stephens with the same prior, over tails light and heavy."""
    log_w = torch.randn(900, 4, generator=torch.Generator().manual_seed(4)) * torch.tensor([0.1, 1.0, 3.0, 8.0])
    for num in (30, 100, 900):
        got = metrics.pareto_k(log_w[:num])
        tail = math.ceil(min(num / 5, 3 * num**0.5))
        for column, k in zip(log_w[:num].T, got, strict=True):
            w = torch.sort((column - column.max()).exp(), descending=True).values
            assert k.item() == pytest.approx(fit_generalized_pareto(w[:tail] - w[tail])[0], abs=1e-6)


def test_the_tail_index_is_defined_where_there_is_no_tail():
    one = torch.zeros(100, 1)
    one[3] = 2000.0  # all others underflow
    tied = torch.zeros(100, 1)
    tied[:50] = 1.0  # two values, and the tail is of one
    cases = {"constant": (torch.zeros(100, 1), 0.0), "one": (one, math.inf), "tied": (tied, 0.0)}
    cases["nothing"] = (torch.full((100, 1), -math.inf), math.inf)
    for name, (log_w, expected) in cases.items():
        assert metrics.pareto_k(log_w).item() == expected, name
    partly = torch.cat([torch.full((60, 1), -math.inf), torch.linspace(0, 1, 40)[:, None]])
    assert math.isfinite(metrics.pareto_k(partly).item())
    assert metrics.pareto_k(torch.randn(20, 2)).isnan().all()
    for bad in (torch.zeros(5), torch.zeros(5, 2, dtype=torch.long)):
        with pytest.raises(ValueError, match=r"log_weights must be \(K, N\) of real numbers"):
            metrics.pareto_k(bad)


# --- passes ---------------------------------------------------------------------------------------------------------


def test_sums_over_chunks_are_those_of_the_whole(monkeypatch):
    table = torch.randn(300, 5, generator=torch.Generator().manual_seed(5)) * torch.linspace(0.1, 6, 5)
    x = torch.arange(5.0)[:, None]
    done = torch.zeros(5, dtype=torch.long)

    def rows_of_the_table(vae, rows, k):
        i = rows[:, 0].long()
        first = done[i[0]].item()
        done[i] += k
        return table[first : first + k, i]

    monkeypatch.setattr(metrics.draws, "log_weights", rows_of_the_table)
    monkeypatch.setattr(metrics.draws, "CHUNK", 512 * 7)
    got = metrics.importance_sampling(linear_gaussian(), x, 300)
    assert (done == 300).all()
    w = np.exp(table.numpy())
    np.testing.assert_allclose(got.log_likelihood, np.log(w.mean(0)), rtol=1e-12)
    np.testing.assert_allclose(got.effective_sample_size, w.sum(0) ** 2 / (w**2).sum(0), rtol=1e-12)
    torch.testing.assert_close(got.pareto_k, metrics.pareto_k(table))


class Largest(TorchDispatchMode):
    """The most numbers that one tensor of a pass holds."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        # an expanded tensor takes no memory
        for tensor in (t for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, torch.Tensor)):
            self.numel = max(self.numel, tensor.untyped_storage().nbytes() // tensor.element_size())
        return out


@pytest.mark.parametrize("num_samples", [20, 200])
def test_no_tensor_of_a_pass_is_larger_than_a_chunk(monkeypatch, num_samples):
    """Images of 784 numbers: as many draws as are asked for pass through tensors of one size.

    The chunk is a 64th of its size here, and the images and draws the fewer; all of them scale together.
    """
    chunk = metrics.draws.CHUNK // 64
    monkeypatch.setattr(metrics.draws, "CHUNK", chunk)
    vae = pv.build_vae((784,), 5, prior="spike-slab", hidden=(8,))
    x = torch.zeros(20, 784)
    for measure in (metrics.importance_sampling, metrics.elbo):
        with Largest() as largest:
            measure(vae, x, num_samples)
        assert 0.5 * chunk < largest.numel <= chunk


# --- one value per datum --------------------------------------------------------------------------------------------


def test_a_batch_has_the_values_of_its_rows_with_a_shared_site():
    """What is shared is known to 1e-6 under the guide, and its prior wide: its KL, 12 nats, must not be in a value."""
    where = torch.tensor(0.3)

    def model(x):
        s = pyro.sample("s", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + s, 1.0), obs=x)

    def guide(x):
        s = pyro.sample("s", dist.Normal(where, 1e-6))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal((x - s) / 2, math.sqrt(0.5)))

    check_rows((model, guide), torch.randn(6), dist.Normal(where, math.sqrt(2.0)).log_prob)


@pytest.mark.parametrize("size", [6, 1000])
def test_a_batch_has_the_values_of_its_rows_whatever_plate_it_is_a_subsample_of(size):
    def model(x):
        with pyro.plate("data", size, subsample=x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", size, subsample=x):
            pyro.sample("z", dist.Normal(x / 2, math.sqrt(0.5)))

    check_rows((model, guide), torch.randn(6), dist.Normal(0.0, math.sqrt(2.0)).log_prob)


def check_rows(pair, x, log_p):
    """The guide is the posterior, so that each value is log p(x) whatever is drawn."""
    torch.manual_seed(6)
    kl = metrics.elbo(pair, x, 3).kl
    for rows in (x, x[1:2]):
        bound = metrics.elbo(pair, rows, 3)
        assert bound.kl_is_exact
        for value in (
            metrics.log_likelihood(pair, rows, 50),
            bound.elbo,
            metrics.importance_curve(pair, rows, (1, 4))[4],
            metrics.annealed_importance_sampling(pair, rows, 3, 4, 2),
        ):
            torch.testing.assert_close(value, log_p(rows), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(bound.kl, kl[1:2], rtol=1e-4, atol=1e-5)
    # KL(N(m, 1/2) || N(0, 1)), m the mean of z
    m = pyro.poutine.trace(pair[1]).get_trace(x).nodes["z"]["fn"].mean
    torch.testing.assert_close(kl, (m**2 + 0.5 - 1 - math.log(0.5)) / 2, rtol=1e-4, atol=1e-5)
