"""The rectified Normal: gradients, tails, and who serves it."""

import mpmath
import numpy as np
import pytest
import scipy.stats as st
import torch
from cases import double
from cases.clamped import Rectified
from gradients import check_gradient, exact_reconstruction, finite_differences, one_datum
from pyro.infer import RenyiELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from scipy.integrate import quad
from torch.distributions import kl_divergence, register_kl

import pyrovae as pv
from pyrovae import guides, likelihoods, priors
from pyrovae.distributions import RectifiedNormal
from pyrovae.nn import MLP


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


PRIOR_LOC, PRIOR_SCALE = -0.5, 1.3
# a location and the raw scale of two coordinates, far from the posterior in three ways
STARTS = {"shut": [[-1.5, -2.0], [0.3, 0.5]], "open": [[3.0, 2.0], [-0.5, 0.0]], "narrow": [[0.2, -0.1], [-2.0, -1.0]]}
UNBIASED = {
    "pathwise": pv.ELBO(reconstruction="sampled"),
    "Trace_ELBO": Trace_ELBO(),
    "leave-one-out": pv.ELBO(estimator=pv.LeaveOneOut(2), reconstruction="sampled"),
}


def exact_bound(head):
    """By scipy's quadrature over z > 0, and the atom."""
    means, variances, kl = [], [], 0.0
    for loc, raw in head.reshape(2, 2).T:
        scale = np.logaddexp(0.0, raw) + 1e-5
        q, p = Rectified(loc, scale), Rectified(PRIOR_LOC, PRIOR_SCALE)
        ends = (0.0, max(0.0, loc) + 12 * scale)

        def integral(f, q=q, ends=ends):
            return quad(lambda z: q.normal.pdf(z) * f(z), *ends, epsabs=1e-13, epsrel=1e-12, limit=200)[0]

        kl += integral(lambda z, q=q, p=p: q.logpdf(z) - p.logpdf(z))
        kl += q.normal.cdf(0.0) * (q.normal.logcdf(0.0) - p.normal.logcdf(0.0))
        means.append(integral(lambda z: z))
        variances.append(integral(lambda z: z**2) - means[-1] ** 2)
    return exact_reconstruction(np.array(means), np.array(variances)) - kl


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", UNBIASED)
def test_gradient_is_that_of_the_exact_bound(name, start):
    torch.manual_seed(1)
    vae = one_datum(priors.RectifiedNormal(2, PRIOR_LOC, PRIOR_SCALE), guides.RectifiedNormal, STARTS[start])
    exact = finite_differences(exact_bound, STARTS[start])
    # the plain score function has no baseline, and varies most
    resolution = 0.25 if name == "Trace_ELBO" else 0.02
    check_gradient(vae, UNBIASED[name], [vae.posterior.head.bias], exact, resolution)


def _mpmath_kl(q, p):
    """The formula of the atom and of the moments over z > 0, in 60 digits; checked by quadrature above."""
    with mpmath.workdps(60):
        mu, s, m, t = (mpmath.mpf(v) for v in (*q, *p))
        a, on, off = mu / s, mpmath.ncdf(mu / s), mpmath.ncdf(-mu / s)
        first, square = mpmath.npdf(a), on - a * mpmath.npdf(a)
        r, d = s / t, (mu - m) / t
        quadratic = (r**2 - 1) * square + 2 * r * d * first + d**2 * on
        return off * (mpmath.log(off) - mpmath.log(mpmath.ncdf(-m / t))) + quadratic / 2 - on * mpmath.log(r)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kl_and_moments_in_the_tails(dtype):
    """Locations from -10 to 10 scales, on either side: finite, with finite gradients, and right."""
    eps = torch.finfo(dtype).eps
    for q_loc, p_loc in [(-10, -10), (-10, 0), (0, -10), (10, 10), (10, -10), (-10, 10), (-9.5, -10), (3, 3.001)]:
        for q_scale, p_scale in [(1.0, 1.0), (0.1, 2.0), (3.0, 0.5)]:
            values = [torch.tensor(v, dtype=dtype, requires_grad=True) for v in (q_loc * q_scale, q_scale)]
            others = [torch.tensor(v, dtype=dtype, requires_grad=True) for v in (p_loc * p_scale, p_scale)]
            q, p = RectifiedNormal(*values), RectifiedNormal(*others)
            kl = kl_divergence(q, p)
            exact = float(_mpmath_kl([v.item() for v in values], [v.item() for v in others]))
            size = 1 + ((q.loc - p.loc) ** 2 / p.scale**2).item()
            assert kl.item() == pytest.approx(exact, rel=200 * eps, abs=20 * eps * size)
            assert kl.item() >= -20 * eps * size
            gradient = torch.autograd.grad(kl + q.mean + q.entropy(), [*values, *others])
            assert all(torch.isfinite(g) for g in gradient)
        with mpmath.workdps(60):
            scale, m = mpmath.mpf(values[1].item()), mpmath.mpf(values[0].item()) / mpmath.mpf(values[1].item())
            first = scale * (m * mpmath.ncdf(m) + mpmath.npdf(m))
            second = scale**2 * ((m**2 + 1) * mpmath.ncdf(m) + m * mpmath.npdf(m))
        assert q.mean.item() == pytest.approx(float(first), rel=2000 * eps)
        assert q.variance.item() == pytest.approx(float(second - first**2), rel=2000 * eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_at_the_extremes_have_finite_gradients(dtype):
    torch.manual_seed(2)
    loc = torch.tensor([-30.0, -10.0, -3.0, 0.0, 3.0, 10.0, 1e4], dtype=dtype, requires_grad=True)
    scale = torch.ones(7, dtype=dtype, requires_grad=True)
    for draw in (RectifiedNormal(loc, scale).rsample, RectifiedNormal(loc, scale).rsample_pathwise):
        z = draw((20_000,))
        z.sum().backward()
        assert torch.isfinite(z).all()
        assert (z >= 0).all()
        assert torch.isfinite(loc.grad).all()
        assert torch.isfinite(scale.grad).all()


def test_the_code_is_the_median():
    """100,001 draws: the middle one within 5 standard errors of the order statistic, a false alarm once in 10^6."""
    torch.manual_seed(3)
    vae = one_datum(priors.RectifiedNormal(2), guides.RectifiedNormal, [[0.8, -0.3], [0.2, 0.9]])
    x = torch.zeros(1, 3)
    draws = vae.posterior.distribution(x).sample((100_001,))[:, 0]
    code, scale = vae.encode(x)[0], torch.nn.functional.softplus(double([0.2, 0.9]))
    assert code[1] == 0
    error = scale * 0.5 / (100_001**0.5 * st.norm.pdf(0.0))
    assert ((draws.median(0).values - code).abs() <= 5 * error).all()


@pytest.mark.parametrize("guide", [guides.Gamma, guides.SpikeSlab, guides.Normal])
def test_other_guides_have_another_measure(guide):
    message = r"support .* but prior RectifiedNormal has support NonnegativeWithAtom.*fit: .*RectifiedNormal"
    with pytest.raises(ValueError, match=message):
        pv.VAE(priors.RectifiedNormal(2), likelihoods.Normal(MLP(2, [3], 3)), guide(MLP(3, [3]), 2))


@pytest.mark.parametrize(
    "loss", [TraceGraph_ELBO(), TraceMeanField_ELBO(), RenyiELBO()], ids=lambda v: type(v).__name__
)
def test_objectives_that_would_be_biased_are_refused(loss):
    vae = one_datum(priors.RectifiedNormal(2), guides.RectifiedNormal, STARTS["open"])
    with pytest.raises(ValueError, match=r"score_parts of RectifiedNormal.*use pyrovae.ELBO, Trace_ELBO"):
        pv.check(vae.model, vae.guide, loss, torch.zeros(4, 3))


class Unknown(RectifiedNormal):
    """Of which no KL is known."""


@register_kl(RectifiedNormal, Unknown)
def _kl_is_unknown(q, p):
    raise NotImplementedError


def test_a_kl_that_is_sampled_takes_the_score():
    """Of a prior that the KL does not know: log q - log p jumps at the atom, past which a path alone is biased."""

    class UnknownPrior(priors.RectifiedNormal):
        def distribution(self):
            return Unknown(self.loc(), self.scale()).to_event(1)

    torch.manual_seed(4)
    vae = one_datum(UnknownPrior(2, PRIOR_LOC, PRIOR_SCALE), guides.RectifiedNormal, STARTS["open"])
    exact = finite_differences(exact_bound, STARTS["open"])
    for loss in (pv.ELBO(), pv.ELBO(estimator=pv.StraightThrough())):
        check_gradient(vae, loss, [vae.posterior.head.bias], exact)
