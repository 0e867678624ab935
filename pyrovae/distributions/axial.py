r"""What the laws on the sphere that turn about one direction share.

.. math:: p(z) = \frac{1}{N(\kappa)} \exp(\kappa\, s(\cos\theta)) , \qquad \cos\theta = \mu^T z , \quad |z| = 1

with s increasing from the far pole to s(1) = 0. A draw is an angle θ, of density :math:`g(\theta) \propto e^{\kappa s}
\sin^{D-2}\theta`, and a direction v, uniform among those perpendicular to the pole e_1:

.. math:: z = H (\cos\theta\, e_1 + \sin\theta\, v) , \qquad H \text{ orthogonal}, \; H e_1 = \mu

**The gradient in μ** goes through H, a Householder reflection up to sign: of the two, :math:`e_1 \to \mu` and
:math:`e_1 \to -\mu` with z negated, the one whose vectors are further apart, so that the gradient has no pole.

**The gradient in κ** is implicit: θ follows its cumulative distribution function G at a fixed level u. Rejected
proposals do not enter, so it is unbiased however θ was drawn.

.. math:: \frac{d\theta}{d\kappa} = -\frac{\partial G / \partial\kappa}{g(\theta)}
          = -\int_0^\theta (s(t) - E s)\, \frac{g(t)}{g(\theta)}\, dt
          = \int_\theta^\pi (s(t) - E s)\, \frac{g(t)}{g(\theta)}\, dt

Of the two integrals the one in which s - E s keeps its sign is summed, by Gauss-Legendre quadrature up to where
g(t) has fallen to e^-40 of g(θ). Nothing cancels: in float64 the relative error is below 1e-8 for κ from 0 to 1e5 and
D from 2 to 512.

References: Figurnov, Mohamed and Mnih (2018), "Implicit reparameterization gradients".
"""

from __future__ import annotations

import functools
import math
from typing import Any, ClassVar

import numpy as np
import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyrovae.distributions.univariate import SCALAR, Shape

__all__ = ["Axial", "log_area"]

NODES = 40
DEPTH = 40.0  # the integral ends where its integrand is e^-DEPTH of its start
HALVINGS = 20  # of the range, to find that place


class Axial(TorchDistribution):
    """A law on the sphere that turns about ``loc``: a subclass gives s, its mean, its normaliser, and draws of θ.

    Numbers of κ and D alone are worked out in float64 and rounded to the dtype of the parameters.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "loc": constraints.sphere,
        "concentration": constraints.nonnegative,
    }
    support = constraints.sphere
    has_rsample = True
    loc: Tensor
    concentration: Tensor

    def __init__(self, loc: Tensor, concentration: Tensor | float, validate_args: bool | None = None) -> None:
        if loc.dim() < 1 or loc.shape[-1] < 2:
            raise ValueError(f"loc must be unit vectors of two coordinates or more, got shape {tuple(loc.shape)}")
        concentration = torch.as_tensor(concentration, dtype=loc.dtype, device=loc.device)
        shape = torch.broadcast_shapes(loc.shape[:-1], concentration.shape)
        self.loc, self.concentration = loc.expand(*shape, -1), concentration.expand(shape)
        super().__init__(shape, loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Any:
        new = self._get_checked_instance(type(self), _instance)
        new.loc = self.loc.expand(*batch_shape, -1)
        new.concentration = self.concentration.expand(batch_shape)
        TorchDistribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @staticmethod
    def statistic(cos_minus_one: Tensor, cos_plus_one: Tensor) -> Tensor:
        """s, from 1 - cos θ with its sign turned and 1 + cos θ, neither of which has cancelled."""
        raise NotImplementedError

    def _mean_statistic(self) -> Tensor:
        """E s, float64."""
        raise NotImplementedError

    def _log_normalizer(self) -> Tensor:
        """log N, float64."""
        raise NotImplementedError

    def _cosine_moments(self) -> tuple[Tensor, Tensor]:
        """E cos θ and E cos² θ, float64."""
        raise NotImplementedError

    def _draw_angle(self, concentration: Tensor) -> Tensor:
        """θ, float64, one for each value."""
        raise NotImplementedError

    def rsample(self, sample_shape: Shape = SCALAR) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        concentration = self.concentration.expand(shape[:-1])
        mean = self._mean_statistic().detach().expand(shape[:-1])
        with torch.no_grad():
            angle = self._draw_angle(concentration.double())
            v = torch.randn(*shape[:-1], shape[-1] - 1, dtype=self.loc.dtype, device=self.loc.device)
            v = v / torch.linalg.vector_norm(v, dim=-1, keepdim=True)
        angle = _Angle.apply(concentration, angle, mean, shape[-1], self.statistic)
        x = torch.cat([angle.cos()[..., None], angle.sin()[..., None] * v], -1)
        sign = torch.where(self.loc[..., :1] > 0, -1.0, 1.0).to(x)
        pole = torch.zeros_like(self.loc)
        pole[..., 0] = 1.0
        u = pole - sign * self.loc
        u = u / torch.linalg.vector_norm(u, dim=-1, keepdim=True)
        return sign * (x - 2 * (x * u).sum(-1, keepdim=True) * u)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        # for unit vectors 1 - cos θ = |z - μ|²/2, and both are exact where cos θ is rounded to 1 or -1
        minus = -0.5 * (value - self.loc).square().sum(-1)
        plus = 0.5 * (value + self.loc).square().sum(-1)
        log_norm = self._log_normalizer().to(self.loc.dtype)
        return torch.mul(self.concentration, self.statistic(minus, plus)) - log_norm

    def entropy(self) -> Tensor:
        return (self._log_normalizer() - self.concentration * self._mean_statistic()).to(self.loc.dtype)

    @property
    def mean(self) -> Tensor:
        return self._cosine_moments()[0].to(self.loc.dtype)[..., None] * self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        first, second = (moment.to(self.loc.dtype)[..., None] for moment in self._cosine_moments())
        across = (1 - second) / (self.event_shape[0] - 1)
        return across * (1 - self.loc**2) + (second - first**2) * self.loc**2


def log_area(dim: int) -> float:
    r"""Log of the area of the unit sphere in D coordinates, :math:`2\pi^{D/2} / \Gamma(D/2)`."""
    return math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)


class _Angle(torch.autograd.Function):
    """A drawn angle, with the gradient of the head of this file in the concentration."""

    @staticmethod
    def forward(
        ctx: Any, concentration: Tensor, angle: Tensor, mean_statistic: Tensor, dim: int, statistic: Any
    ) -> Tensor:
        ctx.save_for_backward(concentration, angle, mean_statistic)
        ctx.dim, ctx.statistic = dim, statistic
        return angle.to(concentration.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        concentration, angle, mean = ctx.saved_tensors
        kappa, mean, theta = concentration.double(), mean.double(), angle

        def s(t: Tensor) -> Tensor:
            return ctx.statistic(-2 * torch.sin(t / 2) ** 2, 2 * torch.cos(t / 2) ** 2)

        s_theta, log_sin = s(theta), torch.log(torch.sin(theta))
        low = s_theta > mean  # so that s - E s is positive from 0 to θ
        span = torch.where(low, -theta, math.pi - theta)

        def log_ratio(t: Tensor) -> Tensor:  # log g(t) / g(θ)
            return kappa * (s(t) - s_theta) + (ctx.dim - 2) * (torch.log(torch.sin(t)) - log_sin)

        near, far = torch.zeros_like(theta), torch.ones_like(theta)
        for _ in range(HALVINGS):
            middle = (near + far) / 2
            fallen = log_ratio(theta + middle * span) < -DEPTH
            near, far = torch.where(fallen, near, middle), torch.where(fallen, middle, far)
        span = span * far
        total = torch.zeros_like(theta)
        for node, weight in zip(*_gauss_legendre(NODES), strict=True):
            t = theta + node * span
            total = total + weight * (s(t) - mean) * torch.exp(log_ratio(t))
        return grad * (total * span).to(grad.dtype), None, None, None, None


@functools.lru_cache
def _gauss_legendre(num: int) -> tuple[list[float], list[float]]:
    """Nodes in (0, 1) and weights, cubed towards 1: at the far pole the power spherical's s is a logarithm."""
    nodes, weights = np.polynomial.legendre.leggauss(num)
    rest = (1 - nodes) / 2
    return (1 - rest**3).tolist(), (1.5 * weights * rest**2).tolist()
