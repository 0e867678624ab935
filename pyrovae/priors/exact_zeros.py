"""Priors under which a coordinate is exactly zero with positive probability."""

from __future__ import annotations

from collections.abc import Callable, Collection

import pyro.distributions as dist

from pyrovae.distributions import RectifiedNormal as RectifiedNormalDensity
from pyrovae.distributions import SpikeSlab as SpikeSlabDensity
from pyrovae.distributions import thresholded_laplace, thresholded_normal
from pyrovae.hyper import Constrained
from pyrovae.priors.base import LocationScale, check_learned
from pyrovae.priors.slabs import WithSlab

__all__ = ["RectifiedNormal", "SpikeSlab", "ThresholdedLaplace", "ThresholdedNormal"]

USUAL_ACTIVE = 0.1


class SpikeSlab(WithSlab):
    r"""Spike-and-slab prior: each coordinate is zero, or drawn from a slab.

    .. math:: P(z_i = 0) = 1 - \gamma_i , \qquad p(z_i) = \gamma_i\, s(z_i) \quad (z_i \ne 0)

    with respect to Lebesgue measure plus a unit atom at zero.

    ====================  ====================================================================
    slab                  s(z)
    ====================  ====================================================================
    ``normal``            :math:`N(loc, scale^2)`
    ``laplace``           :math:`e^{-|z - loc|/scale} / (2\, scale)`
    ``student-t``         Student's t with ``df``, ``loc`` and ``scale``
    ``truncated-normal``  :math:`N(loc, scale^2)` given that z > 0
    ``half-normal``       :math:`N(0, scale^2)` given that z > 0
    ``exponential``       :math:`e^{-z/scale} / scale`, z > 0
    ``gamma``             Gamma of shape ``concentration`` and mean ``concentration * scale``
    ====================  ====================================================================

    Args:
        dim: Number of latent coordinates :math:`D`.
        active: :math:`\gamma`, the probability to be non-zero, in (0, 1); 0.1 where neither it nor ``num_active`` is
            given.
        slab: Family of :math:`s`, by its name in the table. The last four are for non-negative codes.
        loc: Location of the slab, 0 where it is not given; only of the slabs that have one.
        scale: Scale of the slab, positive; 1 where it is not given.
        df: Degrees of freedom of a Student's t slab, 3 where it is not given; other slabs have none.
        concentration: Shape of a Gamma slab, 2 where it is not given: below 1 the density has a pole at zero.
        num_active: The expected number of active coordinates, :math:`\gamma D`, in place of ``active``.
        learned: Which of ``"active"`` and the hyper-parameters of the slab are learned, one value for each coordinate.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats, with respect to the measure above.
    Raises: ValueError if ``dim < 1``, ``active`` is not in (0, 1), a hyper-parameter is not positive or is not of the
        slab, or the slab is unknown.
    References: Mitchell and Beauchamp (1988), "Bayesian variable selection in linear regression"; Tonolini, Jensen and
        Murray-Smith (2019), "Variational sparse coding", with ``active`` fixed.
    See also: :class:`pyrovae.guides.SpikeSlab`, :class:`pyrovae.guides.CoordinateAscent`, :class:`pyrovae.ELBO`.
    """

    def __init__(
        self,
        dim: int,
        active: float | None = None,
        slab: str = "normal",
        loc: float | None = None,
        scale: float | None = None,
        df: float | None = None,
        concentration: float | None = None,
        num_active: float | None = None,
        learned: Collection[str] = (),
    ) -> None:
        super().__init__(dim, slab, learned, ("active",), loc=loc, scale=scale, df=df, concentration=concentration)
        if num_active is not None:
            if active is not None:
                raise ValueError(f"give active or num_active, not both: got {active!r} and {num_active!r}")
            if not 0 < num_active < dim:
                raise ValueError(
                    f"num_active must be above 0 and below the number of latents, {dim}, got {num_active!r}"
                )
            active = num_active / dim
        active = USUAL_ACTIVE if active is None else active
        self.active = Constrained("active", active, (dim,), lower=0.0, upper=1.0, learned="active" in learned)

    def distribution(self) -> dist.TorchDistribution:
        return SpikeSlabDensity(self.active().logit(), self.slab_distribution()).to_event(1)


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
