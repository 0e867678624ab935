"""Priors under which a coordinate is exactly zero with positive probability."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import pyro.distributions as dist

from pyrovae.distributions import RectifiedNormal as RectifiedNormalDensity
from pyrovae.distributions import SpikeSlab as SpikeSlabDensity
from pyrovae.distributions import thresholded_laplace, thresholded_normal
from pyrovae.hyper import Constrained
from pyrovae.priors.base import LocationScale, check_learned

__all__ = ["RectifiedNormal", "SpikeSlab", "ThresholdedLaplace", "ThresholdedNormal"]

SLABS = ("normal", "laplace", "student-t")
USUAL_DF = 3.0  # of a Student's t slab


class SpikeSlab(LocationScale):
    r"""Spike-and-slab prior: each coordinate is zero, or drawn from a slab.

    .. math:: P(z_i = 0) = 1 - \gamma_i , \qquad p(z_i) = \gamma_i\, s(z_i) \quad (z_i \ne 0)

    with respect to Lebesgue measure plus a unit atom at zero.

    Args:
        dim: Number of latent coordinates :math:`D`.
        active: :math:`\gamma`, the probability to be non-zero, in (0, 1).
        slab: Family of :math:`s`: ``"normal"``, ``"laplace"`` or ``"student-t"``.
        loc: Location of the slab.
        scale: Scale of the slab, positive.
        df: Degrees of freedom of a Student's t slab, 3 where it is not given; other slabs have none.
        learned: Which of ``"active"``, ``"loc"``, ``"scale"`` and ``"df"`` are learned, one value for each coordinate.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats, with respect to the measure above.
    Raises: ValueError if ``dim < 1``, ``active`` is not in (0, 1), ``scale <= 0``, ``df <= 0`` or the slab is unknown.
    References: Tonolini, Jensen and Murray-Smith (2019), "Variational sparse coding", with ``active`` fixed.
    See also: :class:`pyrovae.guides.SpikeSlab`, :class:`pyrovae.ELBO`.
    """

    def __init__(
        self,
        dim: int,
        active: float = 0.1,
        slab: str = "normal",
        loc: float = 0.0,
        scale: float = 1.0,
        df: float | None = None,
        learned: Collection[str] = (),
    ) -> None:
        check_learned(learned, ("active", "loc", "scale", "df") if slab == "student-t" else ("active", "loc", "scale"))
        super().__init__(dim, loc, scale, [name for name in learned if name in ("loc", "scale")])
        self.slab = check_slab(slab, df)
        self.active = Constrained("active", active, (dim,), lower=0.0, upper=1.0, learned="active" in learned)
        if slab == "student-t":
            self.df = Constrained("df", USUAL_DF if df is None else df, (dim,), lower=0.0, learned="df" in learned)

    def distribution(self) -> dist.TorchDistribution:
        parameters = {"df": self.df()} if self.slab == "student-t" else {}
        slab = slab_family(self.slab)(loc=self.loc(), scale=self.scale(), **parameters)
        return SpikeSlabDensity(self.active().logit(), slab).to_event(1)


class _Thresholded(LocationScale):
    """Soft thresholds: a subclass only chooses the law that they cut."""

    law: Callable[..., SpikeSlabDensity]

    def __init__(
        self,
        dim: int,
        threshold: float,
        scale: float = 1.0,
        loc: float = 0.0,
        learned: Collection[str] = (),
    ) -> None:
        check_learned(learned, ("threshold", "loc", "scale"))
        super().__init__(dim, loc, scale, [name for name in learned if name != "threshold"])
        self.threshold = Constrained("threshold", threshold, (dim,), lower=0.0, learned="threshold" in learned)

    def distribution(self) -> dist.TorchDistribution:
        return type(self).law(self.loc(), self.scale(), self.threshold()).to_event(1)


class ThresholdedLaplace(_Thresholded):
    r"""Thresholded Laplace prior: a Laplace draw, zero where it is within a threshold of its location.

    .. math:: z_i = 0 \;\text{ if } |s_i - \mu| \le \lambda , \qquad z_i = s_i - \lambda\, sign(s_i - \mu)
              \;\text{ otherwise} , \qquad s_i \sim Laplace(\mu, b)

    A Laplace tail is a Laplace tail again, so this is the spike-and-slab law with :math:`P(z_i \ne 0) = e^{-\lambda/b}`
    and the slab Laplace(μ, b): every guide of that law serves, with an exact KL. Scale and activity are one here where
    spike-and-slab has two parameters; the default is active with probability 0.1.

    Args:
        dim: Number of latent coordinates :math:`D`.
        threshold: :math:`\lambda > 0`.
        scale: :math:`b > 0`.
        loc: :math:`\mu`.
        learned: Which of ``"threshold"``, ``"scale"`` and ``"loc"`` are learned, one value for each coordinate.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats, with respect to Lebesgue measure plus a unit atom at zero.
    Raises: ValueError if ``dim < 1``, ``threshold <= 0`` or ``scale <= 0``.
    References: Fallah and Rozell (2022), "Variational sparse coding with learned thresholding", who take the KL of s;
        here it is that of z, so that the objective is a bound.
    See also: :class:`pyrovae.guides.ThresholdedLaplace`.
    """

    law = staticmethod(thresholded_laplace)

    def __init__(
        self,
        dim: int,
        threshold: float = 2.3,
        scale: float = 1.0,
        loc: float = 0.0,
        learned: Collection[str] = (),
    ) -> None:
        super().__init__(dim, threshold, scale, loc, learned)


class ThresholdedNormal(_Thresholded):
    r"""Thresholded Normal prior: a Normal draw, zero where it is within a threshold of its location.

    .. math:: P(z_i \ne 0) = 2\Phi(-\lambda/\sigma) , \qquad
              p(z_i) = \frac{1}{\sigma}\, \phi\left(\frac{|z_i - \mu| + \lambda}{\sigma}\right) \quad (z_i \ne 0)

    The default is active with probability 0.1.

    Args:
        dim: Number of latent coordinates :math:`D`.
        threshold: :math:`\lambda > 0`.
        scale: :math:`\sigma > 0`.
        loc: :math:`\mu`.
        learned: Which of ``"threshold"``, ``"scale"`` and ``"loc"`` are learned, one value for each coordinate.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats, with respect to Lebesgue measure plus a unit atom at zero.
    Raises: ValueError if ``dim < 1``, ``threshold <= 0`` or ``scale <= 0``.
    References: Fallah and Rozell (2022), "Variational sparse coding with learned thresholding".
    See also: :class:`pyrovae.distributions.NormalTails`, the slab.
    """

    law = staticmethod(thresholded_normal)

    def __init__(
        self,
        dim: int,
        threshold: float = 1.645,
        scale: float = 1.0,
        loc: float = 0.0,
        learned: Collection[str] = (),
    ) -> None:
        super().__init__(dim, threshold, scale, loc, learned)


class RectifiedNormal(LocationScale):
    r"""Rectified Normal prior: the positive part of a Normal draw, for codes that are non-negative with exact zeros.

    .. math:: z_i = \max(0, s_i) , \qquad s_i \sim N(\mu, \sigma^2) , \qquad P(z_i \ne 0) = \Phi(\mu/\sigma)

    Args:
        dim: Number of latent coordinates :math:`D`.
        loc: :math:`\mu`; at -1.28 σ a coordinate is active with probability 0.1.
        scale: :math:`\sigma > 0`.
        learned: Which of ``"loc"`` and ``"scale"`` are learned, one value for each coordinate.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats, with respect to Lebesgue measure plus a unit atom at zero.
    Raises: ValueError if ``dim < 1`` or ``scale <= 0``.
    See also: :class:`pyrovae.guides.RectifiedNormal`.
    """

    def distribution(self) -> dist.TorchDistribution:
        return RectifiedNormalDensity(self.loc(), self.scale()).to_event(1)


def check_slab(slab: str, df: float | None = None) -> str:
    """slab, or ValueError, also for degrees of freedom of a slab that has none."""
    if slab not in SLABS:
        raise ValueError(f"slab must be one of {', '.join(SLABS)}, got {slab!r}")
    if df is not None and slab != "student-t":
        raise ValueError(f"df is of slab student-t, got df = {df!r} with slab {slab!r}")
    return slab


def slab_family(slab: str) -> Any:
    """The density of a slab by its name."""
    return {"normal": dist.Normal, "laplace": dist.Laplace, "student-t": dist.StudentT}[slab]
