"""Densities on the unit sphere: the uniform, the power spherical and the von Mises-Fisher."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyrovae.distributions.axial import Axial, log_area
from pyrovae.distributions.bessel import bessel_ratio, log_bessel
from pyrovae.distributions.univariate import SCALAR, Shape

__all__ = ["HypersphericalUniform", "PowerSpherical", "VonMisesFisher"]


class HypersphericalUniform(TorchDistribution):
    r"""Uniform distribution on the unit sphere in D coordinates.

    .. math:: p(z) = \frac{\Gamma(D/2)}{2\pi^{D/2}} , \qquad |z| = 1

    Args:
        dim: D, the number of coordinates of the unit vector, two or more.
        dtype: Of the draws; torch's default when None.
        device: Of the draws.

    Shape: event_shape ``(D,)``.
    Units: log_prob in nats, with respect to the area of the sphere.
    Raises: ValueError if ``dim < 2``.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.sphere
    has_rsample = True

    def __init__(
        self,
        dim: int,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if dim < 2:
            raise ValueError(f"dim must be 2 or more coordinates of a unit vector, got {dim}")
        self._like = torch.zeros(dim, dtype=dtype, device=device)
        super().__init__(torch.Size(), torch.Size((dim,)), validate_args=validate_args)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Any:
        new = self._get_checked_instance(HypersphericalUniform, _instance)
        new._like = self._like
        TorchDistribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: Shape = SCALAR) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        e = torch.randn(shape, dtype=self._like.dtype, device=self._like.device)
        return e / torch.linalg.vector_norm(e, dim=-1, keepdim=True)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return value.new_full(shape, -log_area(self.event_shape[0]))

    def entropy(self) -> Tensor:
        return self._like.new_full(self.batch_shape, log_area(self.event_shape[0]))

    @property
    def mean(self) -> Tensor:
        return self._like.expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        return (self._like + 1 / self.event_shape[0]).expand(self.batch_shape + self.event_shape)


class PowerSpherical(Axial):
    r"""Power spherical distribution: bell-shaped about a direction, drawn without rejection.

    .. math:: p(z) = \frac{(1 + \mu^T z)^\kappa}{2^{\alpha+\beta} \pi^\beta\, \Gamma(\alpha) / \Gamma(\alpha+\beta)} ,
              \qquad \alpha = \beta + \kappa , \quad \beta = \tfrac{D-1}{2}

    :math:`(1 + \mu^T z)/2` is :math:`Beta(\alpha, \beta)`. At :math:`\kappa = 0` the law is uniform; at the far pole,
    :math:`z = -\mu`, the density is zero.

    Args:
        loc: :math:`\mu`, a unit vector, the mean direction.
        concentration: :math:`\kappa \ge 0`.

    Shape: event_shape ``(D,)``, :math:`D \ge 2`.
    Units: log_prob in nats, with respect to the area of the sphere.
    Raises: ValueError if ``loc`` is no unit vector or ``concentration < 0``.
    References: De Cao and Aziz (2020), "The power spherical distribution". The density, the entropy and the KL from the
        uniform are theirs; the gradient of the draws is that of :mod:`pyrovae.distributions.axial` in place of the one
        that torch has for a Beta.
    """

    @staticmethod
    def statistic(cos_minus_one: Tensor, cos_plus_one: Tensor) -> Tensor:
        near = cos_plus_one > 1
        away = torch.where(near, 1.0, cos_plus_one)  # each branch without the other's infinite gradient
        return torch.where(near, torch.log1p(torch.where(near, cos_minus_one / 2, 0.0)), torch.log(away / 2))

    def _shapes(self) -> tuple[Tensor, float]:
        beta = (self.event_shape[0] - 1) / 2
        return self.concentration.double() + beta, beta

    def _mean_statistic(self) -> Tensor:
        alpha, beta = self._shapes()
        return torch.digamma(alpha) - torch.digamma(alpha + beta)

    def _log_normalizer(self) -> Tensor:
        alpha, beta = self._shapes()
        return 2 * beta * math.log(2) + beta * math.log(math.pi) + torch.lgamma(alpha) - torch.lgamma(alpha + beta)

    def _cosine_moments(self) -> tuple[Tensor, Tensor]:
        alpha, beta = self._shapes()
        total = alpha + beta
        first = (alpha - beta) / total
        return first, first**2 + 4 * alpha * beta / (total**2 * (total + 1))

    def _draw_angle(self, concentration: Tensor) -> Tensor:
        beta = torch.full_like(concentration, (self.event_shape[0] - 1) / 2)
        # tan²(θ/2) = (1 - cos θ) / (1 + cos θ), a ratio of two Gammas
        a, b = torch._standard_gamma(beta), torch._standard_gamma(beta + concentration)
        return 2 * torch.atan2(a.sqrt(), b.sqrt())


class VonMisesFisher(Axial):
    r"""Von Mises-Fisher distribution: the Normal of the sphere.

    .. math:: p(z) = \frac{\kappa^{v}}{(2\pi)^{D/2}\, I_v(\kappa)} \exp(\kappa\, \mu^T z) , \qquad v = \tfrac D2 - 1

    Args:
        loc: :math:`\mu`, a unit vector, the mean direction.
        concentration: :math:`\kappa \ge 0`; at 0 the law is uniform.

    Shape: event_shape ``(D,)``, :math:`D \ge 2`.
    Units: log_prob in nats, with respect to the area of the sphere.
    Raises: ValueError if ``loc`` is no unit vector or ``concentration < 0``.
    References: Davidson, Falorsi, De Cao, Kipf and Tomczak (2018), "Hyperspherical variational auto-encoders"; the
        draws are those of Wood (1994), "Simulation of the von Mises Fisher distribution". Their gradient is that of
        :mod:`pyrovae.distributions.axial`, not one through the accepted proposal, and the Bessel function that of
        :mod:`pyrovae.distributions.bessel`, finite in every dimension.
    """

    @staticmethod
    def statistic(cos_minus_one: Tensor, cos_plus_one: Tensor) -> Tensor:
        return cos_minus_one

    def _mean_statistic(self) -> Tensor:
        return self._cosine_moments()[0] - 1

    def _log_normalizer(self) -> Tensor:
        dim, kappa = self.event_shape[0], self.concentration.double()
        v = dim / 2 - 1
        return dim / 2 * math.log(2 * math.pi) - v * math.log(2) + (log_bessel(v, kappa) - kappa)

    def _cosine_moments(self) -> tuple[Tensor, Tensor]:
        dim, kappa = self.event_shape[0], self.concentration.double()
        ratio = bessel_ratio(dim / 2 - 1, kappa)
        return kappa * ratio, 1 - (dim - 1) * ratio

    def _draw_angle(self, concentration: Tensor) -> Tensor:
        """Proposals of a density that falls as a power, accepted with a probability above 0.6."""
        n, kappa = self.event_shape[0] - 1, concentration
        b = n / (2 * kappa + torch.sqrt(4 * kappa**2 + n**2))
        x = (1 - b) / (1 + b)
        half = torch.full_like(kappa, n / 2)
        angle, waiting = torch.zeros_like(kappa), torch.ones_like(kappa, dtype=torch.bool)
        while waiting.any():
            tan2 = b * torch._standard_gamma(half) / torch._standard_gamma(half)
            cos = (1 - tan2) / (1 + tan2)
            log_ratio = kappa * (cos - x) + n * (torch.log1p(-x * cos) - torch.log1p(-(x**2)))
            accepted = waiting & (log_ratio >= torch.log1p(-torch.rand_like(kappa)))
            angle = torch.where(accepted, 2 * torch.atan(tan2.sqrt()), angle)
            waiting = waiting & ~accepted
        return angle
