"""The Bessel function in log space, and what the spherical laws make of it, against mpmath and scipy."""

import math

import mpmath
import numpy as np
import pytest
import scipy.special
import torch
from cases import double

from pyrovae.distributions import PowerSpherical, VonMisesFisher
from pyrovae.distributions.bessel import bessel_ratio, log_bessel

ORDERS = (0, 0.5, 1, 3.5, 15, 31.5, 127, 255)


@pytest.mark.parametrize("v", ORDERS)
def test_log_and_ratio_are_mpmaths(v):
    mpmath.mp.dps = 40
    for x in (0.0, 1e-9, 0.1, 5.0, 30.0, 1e3, 1e5):
        if x == 0:
            log, ratio = -mpmath.loggamma(v + 1), 1 / mpmath.mpf(2 * v + 2)
        else:
            below, above = mpmath.besseli(v, x), mpmath.besseli(v + 1, x)
            log, ratio = mpmath.log(below) - v * mpmath.log(mpmath.mpf(x) / 2), above / below / x
        assert log_bessel(v, double(x)).item() == pytest.approx(float(log), rel=1e-13, abs=1e-12)
        assert bessel_ratio(v, double(x)).item() == pytest.approx(float(ratio), rel=1e-13)


def test_log_is_scipys_where_scipy_is_finite():
    x = np.geomspace(0.1, 600, 50)
    for v in (0, 1.5, 31.5):
        expected = np.log(scipy.special.ive(v, x)) + x - v * np.log(x / 2)
        np.testing.assert_allclose(log_bessel(v, torch.from_numpy(x)).numpy(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("v", [0, 0.5, 20.0, 127.0])
def test_gradients(v):
    x = double([1e-3, 0.7, 12.0, 300.0]).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: log_bessel(v, x), x)
    assert torch.autograd.gradgradcheck(lambda x: log_bessel(v, x), x)
    zero = double(0.0).requires_grad_()
    (slope,) = torch.autograd.grad(log_bessel(v, zero), zero)
    assert slope == 0


@pytest.mark.parametrize("family", [PowerSpherical, VonMisesFisher])
@pytest.mark.parametrize("dim", [2, 3, 64])
@pytest.mark.parametrize("concentration", [0.0, 0.5, 30.0, 1e4])
def test_implicit_gradient_of_the_angle_is_mpmaths(family, dim, concentration):
    """dθ/dκ of a draw, against the derivative of the cumulative distribution function by mpmath, to 1e-8."""
    torch.manual_seed(0)
    mpmath.mp.dps = 30
    kappa = torch.full((2,), concentration, dtype=torch.float64, requires_grad=True)
    loc = torch.eye(dim, dtype=torch.float64)[0]
    d = family(loc, kappa)
    z = d.rsample()
    angle = torch.atan2(z[..., 1:].norm(dim=-1), z[..., 0])
    (got,) = torch.autograd.grad(angle.sum(), kappa)
    step = mpmath.pi / 2 / math.sqrt(concentration + dim)

    def s(t):
        return mpmath.cos(t) if family is VonMisesFisher else 2 * mpmath.log(mpmath.cos(t / 2))

    def weigh(f, theta, a, b):
        """The integral of f g / g(θ), cut finely about the mass."""
        cuts = sorted({a, b} | {c for c in (k * step / 2 for k in range(1, 40)) if a < c < b})
        return mpmath.quad(
            lambda t: (
                f(t) * mpmath.exp(concentration * (s(t) - s(theta))) * (mpmath.sin(t) / mpmath.sin(theta)) ** (dim - 2)
            ),
            cuts,
        )

    for theta, slope in zip(angle.tolist(), got.tolist(), strict=True):
        theta = mpmath.mpf(theta)
        mass = weigh(lambda t: 1, theta, mpmath.mpf(0), mpmath.pi)
        mean = weigh(s, theta, mpmath.mpf(0), mpmath.pi) / mass
        expected = -weigh(lambda t, mean=mean: s(t) - mean, theta, mpmath.mpf(0), theta)
        assert slope == pytest.approx(float(expected), rel=1e-8)
