"""Soft thresholds of a Laplace and of a Normal: the law of what they leave, its numerics and its gradient."""

import itertools

import mpmath
import numpy as np
import pyro.distributions as dist
import pytest
import scipy.stats as st
import torch
from cases import double
from cases.thresholded import Tails
from gradients import check_gradient, exact_reconstruction, finite_differences, one_datum
from pyro.infer import Trace_ELBO
from scipy.integrate import quad
from torch.distributions import kl_divergence

import pyrovae as pv
from pyrovae import guides, priors
from pyrovae.distributions import NormalTails, SpikeSlab, thresholded_laplace, thresholded_normal
from pyrovae.distributions.normal_tails import log_hazard, normal_tail


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


LAWS = {"laplace": (thresholded_laplace, st.laplace), "normal": (thresholded_normal, st.norm)}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("loc", "scale", "threshold"), [(0.7, 1.0, 0.5), (-2.0, 0.3, 0.6), (0.0, 1.5, 4.0)])
def test_it_is_the_law_of_a_soft_threshold(law, loc, scale, threshold):
    """400,000 scipy draws under the threshold against as many of the density's: a false alarm once in 10^6 for each."""
    make, base = LAWS[law]
    s = base(loc, scale).rvs(400_000, random_state=np.random.default_rng(0))
    beyond = np.sign(s - loc) * np.maximum(np.abs(s - loc) - threshold, 0.0)
    z = np.where(beyond == 0, 0.0, loc + beyond)
    torch.manual_seed(0)
    d = make(double(loc), double(scale), double(threshold))
    draws = d.sample((400_000,)).numpy()
    shut = 1 - d.probs.item()
    for values in (z, draws):
        assert abs((values == 0).mean() - shut) < 5 * (shut * (1 - shut) / 400_000) ** 0.5
    assert st.ks_2samp(z[z != 0], draws[draws != 0]).pvalue > 1e-6
    assert np.log(1 - shut) == pytest.approx(np.log(2) + base.logsf(threshold / scale), abs=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("law", LAWS)
def test_the_gate_loses_nothing(law, dtype):
    """log P(z = 0) and log P(z ≠ 0) against 60 digits, for thresholds of 1e-30 to 1e4 scales, with finite gradients."""
    eps = torch.finfo(dtype).eps
    for ratio in (1e-30, 1e-8, 1e-3, 0.1, 0.7, 2.0, 10.0, 30.0, 1e4):
        threshold = torch.tensor(ratio * 0.5, dtype=dtype, requires_grad=True)
        scale = torch.tensor(0.5, dtype=dtype, requires_grad=True)
        d = LAWS[law][0](torch.zeros((), dtype=dtype), scale, threshold)
        log_on, log_off = torch.nn.functional.logsigmoid(d.logits), d.log_prob(torch.zeros((), dtype=dtype))
        with mpmath.workdps(60):
            a = mpmath.mpf(threshold.item()) / mpmath.mpf(0.5)
            if law == "laplace":
                on, off = mpmath.exp(-a), -mpmath.expm1(-a)
            else:
                on, off = mpmath.erfc(a / mpmath.sqrt(2)), mpmath.erf(a / mpmath.sqrt(2))
            expected = float(mpmath.log(on)), float(mpmath.log(off))
        assert log_on.item() == pytest.approx(expected[0], rel=20 * eps, abs=20 * eps)
        assert log_off.item() == pytest.approx(expected[1], rel=20 * eps, abs=20 * eps)
        p = SpikeSlab(torch.zeros((), dtype=dtype), dist.Laplace(torch.zeros((), dtype=dtype), 1.0))
        (log_on + log_off + kl_divergence(d, p)).backward()
        assert torch.isfinite(threshold.grad)
        assert torch.isfinite(scale.grad)


def _exact_tail(a):
    h = mpmath.npdf(a) / mpmath.ncdf(-a)
    return mpmath.log(h), h - a, 1 - a * (h - a)


@pytest.mark.parametrize("a", [-30.0, -10.0, -0.5, 0.0, 1e-6, 0.5, 3.0, 4.99, 5.0, 5.01, 8.0, 30.0, 1e3, 5e4])
@pytest.mark.parametrize(("dtype", "rel"), [(torch.float32, 2e-3), (torch.float64, 1e-8)])
def test_tail_of_a_normal(a, dtype, rel):
    """Values and slopes against 60 digits; the float32 slopes are least exact just below where the fraction starts."""
    x = torch.tensor(a, dtype=dtype, requires_grad=True)
    values = normal_tail(x)
    slopes = [torch.autograd.grad(value, x, retain_graph=True)[0] for value in values]
    with mpmath.workdps(60):
        exact = _exact_tail(mpmath.mpf(x.item()))
        exact_slopes = [mpmath.diff(lambda v, k=k: _exact_tail(v)[k], mpmath.mpf(x.item())) for k in range(3)]
    for value, expected in zip([*values, log_hazard(x)], [*exact, exact[0]], strict=True):
        assert value.item() == pytest.approx(float(expected), rel=0.1 * rel, abs=1e-30)
    for slope, expected in zip(slopes, exact_slopes, strict=True):
        assert slope.item() == pytest.approx(float(expected), rel=rel, abs=1e-12)


@pytest.mark.parametrize("ratio", [0.0, 0.5, 4.0, 12.0, 30.0])
def test_slab_in_float32_is_that_in_float64(ratio):
    torch.manual_seed(0)
    values = [0.3, 0.2, 0.2 * ratio]
    narrow, wide = (
        [torch.tensor(v, dtype=t, requires_grad=True) for v in values] for t in (torch.float32, torch.float64)
    )
    z = torch.linspace(-3, 3, 50, dtype=torch.float64)
    for f in (
        lambda d: d.log_prob(z.to(d.loc)).mean(),
        lambda d: kl_divergence(d, dist.Normal(d.loc.new_tensor(0.0), 1.0)),
        lambda d: kl_divergence(d, dist.Laplace(d.loc.new_tensor(0.0), 1.0)),
        lambda d: kl_divergence(d, dist.StudentT(d.loc.new_tensor(3.0), 0.0, 1.0)),
        lambda d: d.variance / d.variance.detach() + d.mean,
    ):
        results = []
        for parameters in (narrow, wide):
            value = f(NormalTails(*parameters))
            results.append([value, *torch.autograd.grad(value, parameters)])
        for a, b in zip(*results, strict=True):
            assert a.item() == pytest.approx(b.item(), rel=1e-3, abs=1e-3)
    draws = NormalTails(*narrow).rsample((50_000,))
    assert st.kstest(draws.detach().double().numpy(), Tails(*values).cdf).pvalue > 1e-6
    assert all(torch.isfinite(g) for g in torch.autograd.grad(draws.pow(2).sum(), narrow))


def test_batches_broadcast():
    q, p = NormalTails(torch.randn(4, 1), torch.rand(3) + 0.1, double(0.4)), dist.Laplace(torch.zeros(2, 1, 3), 1.0)
    assert kl_divergence(q, p).shape == (2, 4, 3)
    one = NormalTails(double(0.2), double(0.5), double(0.3))
    assert kl_divergence(one, NormalTails(torch.zeros(3), torch.ones(3), double(0.1))).shape == (3,)


PRIOR_THRESHOLD, PRIOR_SCALE, START_THRESHOLD = 0.8, 1.3, 0.4
GUIDES = {"laplace": guides.ThresholdedLaplace, "normal": guides.ThresholdedNormal}
PRIORS = {"laplace": priors.ThresholdedLaplace, "normal": priors.ThresholdedNormal}
# a location and the raw scale of two coordinates, far from the posterior in three ways
STARTS = {"shut": [[1.0, -0.7], [-1.2, -1.0]], "open": [[2.0, 1.5], [2.0, 0.5]], "wrong": [[-1.5, 0.8], [1.0, -1.0]]}


def _parts(law, scale, threshold, loc):
    base = LAWS[law][1]
    on = 2 * base.sf(threshold / scale)
    return on, (st.laplace(loc, scale) if law == "laplace" else Tails(loc, scale, threshold))


def exact_bound(law, values):
    """By scipy's quadrature over the slabs; the last two numbers are the raw thresholds."""
    means, variances, kl = [], [], 0.0
    prior_on, prior_slab = _parts(law, PRIOR_SCALE, PRIOR_THRESHOLD, 0.0)
    for loc, raw, raw_threshold in values.reshape(3, 2).T:
        scale = np.logaddexp(0.0, raw) + 1e-5
        on, slab = _parts(law, scale, np.logaddexp(0.0, raw_threshold), loc)

        def integral(f, slab=slab, loc=loc, scale=scale):
            ends = sorted({loc - 40 * scale, min(loc, 0.0), max(loc, 0.0), loc + 40 * scale})
            pieces = [
                quad(lambda z: np.exp(slab.logpdf(z)) * f(z), *ends, epsabs=1e-13, epsrel=1e-12, limit=200)[0]
                for ends in itertools.pairwise(ends)
            ]
            return sum(pieces)

        kl += on * integral(lambda z, slab=slab: slab.logpdf(z) - prior_slab.logpdf(z))
        kl += on * np.log(on / prior_on) + (1 - on) * np.log((1 - on) / (1 - prior_on))
        means.append(on * loc)
        variances.append(on * integral(lambda z: z**2) - means[-1] ** 2)
    return exact_reconstruction(np.array(means), np.array(variances)) - kl


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", ["disarm", "Trace_ELBO"])
def test_gradient_is_that_of_the_exact_bound(name, law, start):
    """In the head, through gate and slab at once, and in the learned thresholds."""
    torch.manual_seed(1)
    prior = PRIORS[law](2, PRIOR_THRESHOLD, PRIOR_SCALE)
    vae = one_datum(prior, lambda network, dim: GUIDES[law](network, dim, START_THRESHOLD), STARTS[start])
    raw = np.log(np.expm1(START_THRESHOLD))
    values = np.concatenate([np.array(STARTS[start]).flatten(), [raw, raw]])
    exact = finite_differences(lambda v: exact_bound(law, v), values)
    # the plain score function has no baseline, and varies most
    loss, resolution = {"disarm": (pv.ELBO(reconstruction="sampled"), 0.02), "Trace_ELBO": (Trace_ELBO(), 0.4)}[name]
    check_gradient(vae, loss, [vae.posterior.head.bias, vae.posterior.threshold.raw], exact, resolution)


def test_spike_slab_and_thresholded_laplace_serve_each_other():
    """One law under two names: the same draws' density, and a KL of zero between the two ways to write it."""
    x = torch.zeros(1, 3)
    spike = one_datum(
        priors.ThresholdedLaplace(2, 0.6, 1.5),
        lambda network, dim: guides.SpikeSlab(network, dim, "laplace"),
        [[0.0, 0.0], [np.log(np.expm1(1.5 - 1e-5))] * 2, [-0.4 - np.log(-np.expm1(-0.4))] * 2],
    )
    bound = pv.metrics.elbo(spike, x, 10)
    assert bound.kl_is_exact
    assert bound.kl.abs() < 1e-10
    soft = one_datum(
        priors.SpikeSlab(2, np.exp(-0.4), slab="laplace", scale=1.5),
        lambda network, dim: guides.ThresholdedLaplace(network, dim, 0.6),
        [[0.0, 0.0], [np.log(np.expm1(1.5 - 1e-5))] * 2],
    )
    bound = pv.metrics.elbo(soft, x, 10)
    assert bound.kl_is_exact
    assert bound.kl.abs() < 1e-10
    z = spike.posterior.distribution(x).sample((50,))
    torch.testing.assert_close(spike.posterior.distribution(x).log_prob(z), soft.posterior.distribution(x).log_prob(z))
