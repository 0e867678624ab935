"""Priors under which a coordinate is exactly zero with positive probability."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pyro.distributions as dist

from pyrovae.distributions import SpikeSlab as SpikeSlabDensity
from pyrovae.hyper import Constrained
from pyrovae.priors.base import LocationScale, check_learned

__all__ = ["SpikeSlab"]

SLABS = ("normal", "laplace", "student-t")


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
        df: Degrees of freedom of a Student's t slab.
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
        df: float = 3.0,
        learned: Collection[str] = (),
    ) -> None:
        check_learned(learned, ("active", "loc", "scale", "df") if slab == "student-t" else ("active", "loc", "scale"))
        super().__init__(dim, loc, scale, [name for name in learned if name in ("loc", "scale")])
        self.slab = check_slab(slab)
        self.active = Constrained("active", active, (dim,), lower=0.0, upper=1.0, learned="active" in learned)
        if slab == "student-t":
            self.df = Constrained("df", df, (dim,), lower=0.0, learned="df" in learned)

    def distribution(self) -> dist.TorchDistribution:
        parameters = {"df": self.df()} if self.slab == "student-t" else {}
        slab = slab_family(self.slab)(loc=self.loc(), scale=self.scale(), **parameters)
        return SpikeSlabDensity(self.active().logit(), slab).to_event(1)


def check_slab(slab: str) -> str:
    """slab, or ValueError."""
    if slab not in SLABS:
        raise ValueError(f"slab must be one of {', '.join(SLABS)}, got {slab!r}")
    return slab


def slab_family(slab: str) -> Any:
    """The density of a slab by its name."""
    return {"normal": dist.Normal, "laplace": dist.Laplace, "student-t": dist.StudentT}[slab]
