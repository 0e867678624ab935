"""Priors on the half line: codes that only add, and lean to zero."""

from __future__ import annotations

from collections.abc import Collection

import pyro.distributions as dist

from pyrovae.distributions import Gamma as GammaDensity
from pyrovae.hyper import Constrained
from pyrovae.priors.base import Prior, check_dim, check_learned

__all__ = ["Exponential", "Gamma", "HalfNormal"]


class Gamma(Prior):
    r"""Gamma prior: non-negative coordinates, most of them nearly zero when the concentration is small.

    .. math:: p(z) = \prod_i \frac{\beta^\alpha}{\Gamma(\alpha)}\, z_i^{\alpha-1} e^{-\beta z_i}

    Args:
        dim: Number of latent coordinates :math:`D`.
        concentration: :math:`\alpha > 0`; below 1 the density has a pole at zero. Below 0.05 more than 1 % of the
            mass is under the smallest float32: see :class:`pyrovae.distributions.Gamma`.
        rate: :math:`\beta > 0`; the mean is :math:`\alpha/\beta`, the variance :math:`\alpha/\beta^2`.
        learned: Which of ``"concentration"`` and ``"rate"`` are learned, one value for each coordinate.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats.
    Raises: ValueError if ``dim < 1``, ``concentration <= 0`` or ``rate <= 0``.
    See also: :class:`pyrovae.guides.Weibull`, :class:`pyrovae.guides.LogNormal`, :class:`pyrovae.guides.Gamma`; the
        KLs are exact.
    """

    def __init__(self, dim: int, concentration: float = 0.5, rate: float = 1.0, learned: Collection[str] = ()) -> None:
        super().__init__()
        check_learned(learned, ("concentration", "rate"))
        shape = (check_dim(dim),)
        self.concentration = Constrained(
            "concentration", concentration, shape, lower=0.0, learned="concentration" in learned
        )
        self.rate = Constrained("rate", rate, shape, lower=0.0, learned="rate" in learned)

    def distribution(self) -> dist.TorchDistribution:
        return GammaDensity(self.concentration(), self.rate()).to_event(1)


class Exponential(Prior):
    r"""Exponential prior: the non-negative half of a Laplace.

    .. math:: p(z) = \prod_i \beta e^{-\beta z_i} , \qquad z_i \ge 0

    Args:
        dim: Number of latent coordinates :math:`D`.
        rate: :math:`\beta > 0`; mean and standard deviation are :math:`1/\beta`.
        learned: ``("rate",)`` to learn it, one value for each coordinate.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats.
    Raises: ValueError if ``dim < 1`` or ``rate <= 0``.
    See also: :class:`pyrovae.guides.Weibull`, :class:`pyrovae.guides.LogNormal`, :class:`pyrovae.guides.Gamma`; the
        KLs are exact.
    """

    def __init__(self, dim: int, rate: float = 1.0, learned: Collection[str] = ()) -> None:
        super().__init__()
        check_learned(learned, ("rate",))
        self.rate = Constrained("rate", rate, (check_dim(dim),), lower=0.0, learned="rate" in learned)

    def distribution(self) -> dist.TorchDistribution:
        return dist.Exponential(self.rate()).to_event(1)


class HalfNormal(Prior):
    r"""Half-Normal prior: the non-negative half of a Normal.

    .. math:: p(z) = \prod_i \frac{\sqrt 2}{s\sqrt\pi} \exp\left(-\frac{z_i^2}{2 s^2}\right) , \qquad z_i \ge 0

    Args:
        dim: Number of latent coordinates :math:`D`.
        scale: :math:`s > 0`; the mean is :math:`s\sqrt{2/\pi}`.
        learned: ``("scale",)`` to learn it, one value for each coordinate.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats.
    Raises: ValueError if ``dim < 1`` or ``scale <= 0``.
    See also: :class:`pyrovae.guides.Weibull`, :class:`pyrovae.guides.LogNormal`, :class:`pyrovae.guides.Gamma`; the
        KLs are exact.
    """

    def __init__(self, dim: int, scale: float = 1.0, learned: Collection[str] = ()) -> None:
        super().__init__()
        check_learned(learned, ("scale",))
        self.scale = Constrained("scale", scale, (check_dim(dim),), lower=0.0, learned="scale" in learned)

    def distribution(self) -> dist.TorchDistribution:
        return dist.HalfNormal(self.scale()).to_event(1)
