"""Slabs of spike-and-slab priors: their families, their hyper-parameters, and where these start."""

from __future__ import annotations

from collections.abc import Collection

import pyro.distributions as dist
from torch.distributions import constraints

from pyrovae.distributions import Gamma, TruncatedNormal
from pyrovae.distributions.spike_slab import nonnegative_with_atom, real_with_atom
from pyrovae.hyper import Constrained
from pyrovae.priors.base import Prior, check_dim, check_learned

__all__ = ["SLABS", "WithSlab"]

SLABS: dict[str, tuple[str, ...]] = {  # the hyper-parameters of each
    "normal": ("loc", "scale"),
    "laplace": ("loc", "scale"),
    "student-t": ("loc", "scale", "df"),
    "truncated-normal": ("loc", "scale"),
    "half-normal": ("scale",),
    "exponential": ("scale",),
    "gamma": ("scale", "concentration"),
}
POSITIVE = ("truncated-normal", "half-normal", "exponential", "gamma")
USUAL = {"loc": 0.0, "scale": 1.0, "df": 3.0, "concentration": 2.0}


class WithSlab(Prior):
    """A prior with a spike at zero and a slab: a subclass adds the gates.

    Args:
        dim: Number of latent coordinates :math:`D`.
        slab: A name of ``SLABS``.
        learned: Which hyper-parameters are learned, one value for each coordinate; ``own`` names those of the gates.
        given: Hyper-parameters of the slab; those that are None start at their usual values.
    """

    def __init__(
        self, dim: int, slab: str, learned: Collection[str], own: Collection[str], **given: float | None
    ) -> None:
        super().__init__()
        if slab not in SLABS:
            raise ValueError(f"slab must be one of {', '.join(SLABS)}, got {slab!r}")
        for name, value in given.items():
            if value is not None and name not in SLABS[slab]:
                slabs = [each for each, names in SLABS.items() if name in names]
                one_of = f"slab{'s' * (len(slabs) > 1)} {', '.join(slabs)}"
                raise ValueError(f"{name} is of {one_of}, got {name} = {value!r} with slab {slab!r}")
        check_learned(learned, (*own, *SLABS[slab]))
        self.slab, self.dim = slab, check_dim(dim)
        for name in SLABS[slab]:
            value, lower = given.get(name), -float("inf") if name == "loc" else 0.0
            start = USUAL[name] if value is None else value
            setattr(self, name, Constrained(name, start, (dim,), lower=lower, learned=name in learned))

    @property
    def support(self) -> constraints.Constraint:
        return nonnegative_with_atom if self.slab in POSITIVE else real_with_atom

    def slab_distribution(self) -> dist.TorchDistribution:
        """The slab of each coordinate, with batch_shape ``(D,)``."""
        values = {name: getattr(self, name)() for name in SLABS[self.slab]}
        if self.slab == "half-normal":
            return TruncatedNormal(0.0, values["scale"])
        if self.slab == "exponential":
            return dist.Exponential(1 / values["scale"])
        if self.slab == "gamma":
            return Gamma(values["concentration"], 1 / values["scale"])
        families = {
            "normal": dist.Normal,
            "laplace": dist.Laplace,
            "student-t": dist.StudentT,
            "truncated-normal": TruncatedNormal,
        }
        return families[self.slab](**values)
