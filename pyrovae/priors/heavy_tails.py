"""Priors on the real line, from the Normal's tails to the Cauchy's."""

from __future__ import annotations

from collections.abc import Collection

import pyro.distributions as dist

from pyrovae.distributions import GeneralizedNormal as GeneralizedNormalDensity
from pyrovae.distributions import Logistic as LogisticDensity
from pyrovae.hyper import Constrained
from pyrovae.priors.base import LocationScale, check_learned

__all__ = ["Cauchy", "GeneralizedNormal", "Laplace", "Logistic", "Normal", "StudentT"]


class Normal(LocationScale):
    r"""Normal prior, independent coordinates: the usual VAE.

    .. math:: p(z) = \prod_i \frac{1}{\sqrt{2\pi}\, s} \exp\left(-\frac{(z_i - m)^2}{2 s^2}\right)

    Args:
        dim: Number of latent coordinates :math:`D`.
        loc: :math:`m`.
        scale: :math:`s > 0`, the standard deviation.
        learned: Which of ``"loc"`` and ``"scale"`` are learned, one value for each coordinate.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats.
    Raises: ValueError if ``dim < 1`` or ``scale <= 0``.
    Example:
        >>> Normal(3).distribution().event_shape
        torch.Size([3])
    """

    def distribution(self) -> dist.TorchDistribution:
        return dist.Normal(self.loc(), self.scale()).to_event(1)


class Laplace(LocationScale):
    r"""Laplace prior: independent coordinates that lean to zero.

    .. math:: p(z) = \prod_i \frac{1}{2b} \exp\left(-|z_i - m| / b\right)

    Args:
        dim: Number of latent coordinates :math:`D`.
        loc: :math:`m`.
        scale: :math:`b > 0`; the standard deviation is :math:`\sqrt 2\, b`.
        learned: Which of ``"loc"`` and ``"scale"`` are learned, one value for each coordinate.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats.
    Raises: ValueError if ``dim < 1`` or ``scale <= 0``.
    See also: :class:`pyrovae.guides.Laplace`, :class:`pyrovae.guides.Normal`; both KLs are exact.
    """

    def distribution(self) -> dist.TorchDistribution:
        return dist.Laplace(self.loc(), self.scale()).to_event(1)


class Logistic(LocationScale):
    r"""Logistic prior: a Normal's shape with a Laplace's tails, smooth at its mode.

    .. math:: p(z) = \prod_i \frac{e^{-y_i}}{s\,(1 + e^{-y_i})^2} , \qquad y_i = (z_i - m)/s

    Args:
        dim: Number of latent coordinates :math:`D`.
        loc: :math:`m`.
        scale: :math:`s > 0`; the standard deviation is :math:`\pi s/\sqrt 3`.
        learned: Which of ``"loc"`` and ``"scale"`` are learned, one value for each coordinate.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats.
    Raises: ValueError if ``dim < 1`` or ``scale <= 0``.
    """

    def distribution(self) -> dist.TorchDistribution:
        return LogisticDensity(self.loc(), self.scale()).to_event(1)


class Cauchy(LocationScale):
    r"""Cauchy prior: tails so heavy that no moment exists; a few coordinates may go as far as the data ask.

    .. math:: p(z) = \prod_i \frac{1}{\pi s} \left(1 + \frac{(z_i - m)^2}{s^2}\right)^{-1}

    Args:
        dim: Number of latent coordinates :math:`D`.
        loc: :math:`m`, the median.
        scale: :math:`s > 0`, half of the interquartile range.
        learned: Which of ``"loc"`` and ``"scale"`` are learned, one value for each coordinate.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats.
    Raises: ValueError if ``dim < 1`` or ``scale <= 0``.
    """

    def distribution(self) -> dist.TorchDistribution:
        return dist.Cauchy(self.loc(), self.scale()).to_event(1)


class StudentT(LocationScale):
    r"""Student's t prior: independent coordinates, many near zero and a few far away.

    .. math:: p(z) = \prod_i \frac{\Gamma((\nu+1)/2)}{\Gamma(\nu/2)\sqrt{\pi\nu}\, s}
              \left(1 + \frac{(z_i - m)^2}{\nu s^2}\right)^{-(\nu+1)/2}

    Args:
        dim: Number of latent coordinates :math:`D`.
        df: :math:`\nu > 0`, degrees of freedom; the tails fall as :math:`|z|^{-\nu-1}`.
        loc: :math:`m`.
        scale: :math:`s > 0`; the standard deviation is :math:`s\sqrt{\nu/(\nu-2)}` for :math:`\nu > 2`.
        learned: Which of ``"df"``, ``"loc"`` and ``"scale"`` are learned, one value for each coordinate.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats.
    Raises: ValueError if ``dim < 1``, ``df <= 0`` or ``scale <= 0``.
    See also: :class:`pyrovae.guides.StudentT`.
    """

    def __init__(
        self, dim: int, df: float = 3.0, loc: float = 0.0, scale: float = 1.0, learned: Collection[str] = ()
    ) -> None:
        check_learned(learned, ("df", "loc", "scale"))
        super().__init__(dim, loc, scale, [name for name in learned if name != "df"])
        self.df = Constrained("df", df, (dim,), lower=0.0, learned="df" in learned)

    def distribution(self) -> dist.TorchDistribution:
        return dist.StudentT(self.df(), self.loc(), self.scale()).to_event(1)


class GeneralizedNormal(LocationScale):
    r"""Generalised Normal prior: a Laplace at power 1, a Normal at power 2, sparser than either below.

    .. math:: p(z) = \prod_i \frac{p}{2\alpha\,\Gamma(1/p)} \exp\left(-|z_i - m|^p / \alpha^p\right)

    Args:
        dim: Number of latent coordinates :math:`D`.
        power: :math:`p`, from 0.5 to 4; learned, it stays in between.
        loc: :math:`m`.
        scale: :math:`\alpha > 0`; the standard deviation is :math:`\alpha\sqrt{\Gamma(3/p)/\Gamma(1/p)}`.
        learned: Which of ``"power"``, ``"loc"`` and ``"scale"`` are learned, one value for each coordinate.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats.
    Raises: ValueError if ``dim < 1``, ``power`` is not in (0.49, 4.01) or ``scale <= 0``.
    References: Stühmer, Turner and Nowozin (2020), "Independent subspace analysis for unsupervised learning of
        disentangled representations", use the family for the same purpose.
    """

    def __init__(
        self, dim: int, power: float = 1.0, loc: float = 0.0, scale: float = 1.0, learned: Collection[str] = ()
    ) -> None:
        check_learned(learned, ("power", "loc", "scale"))
        super().__init__(dim, loc, scale, [name for name in learned if name != "power"])
        self.power = Constrained("power", power, (dim,), lower=0.49, upper=4.01, learned="power" in learned)

    def distribution(self) -> dist.TorchDistribution:
        return GeneralizedNormalDensity(self.loc(), self.scale(), self.power()).to_event(1)
