"""What every prior is."""

from __future__ import annotations

from collections.abc import Collection

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from pyrovae.hyper import Constrained

__all__ = ["LocationScale", "Prior", "check_dim", "check_learned"]


class Prior(nn.Module):
    """p(z): write ``distribution()``; override ``forward`` only when p(z) needs several sites.

    Learned hyper-parameters are ``nn.Parameter``s and fixed ones buffers, so both follow ``.to(device)`` and
    ``.double()``. The distribution is built at each call: one kept from the last step would hold a freed graph.

    ``improper`` says that the density has no integral: the guide is then a point, and nothing is drawn from the prior.
    """

    improper = False

    def distribution(self) -> dist.TorchDistribution:
        """p(z), with ``event_shape (D,)`` and no batch dimension."""
        if type(self).forward is Prior.forward:
            raise ValueError(f"prior {type(self).__name__} must define distribution(), or override forward()")
        raise NotImplementedError(f"{type(self).__name__} has sites of its own in place of one distribution()")

    def forward(self) -> Tensor:
        """Sample the latent sites inside the data plate; return what the decoder reads."""
        return pyro.sample("z", self.distribution())

    @property
    def support(self) -> constraints.Constraint | None:
        """The set that z lives in, or None where only the sites can tell."""
        try:
            return self.distribution().support
        except NotImplementedError:
            return None

    @property
    def event_shape(self) -> torch.Size | None:
        """The shape of one code, or None where only the sites can tell."""
        return self.distribution().event_shape if type(self).forward is Prior.forward else None


class LocationScale(Prior):
    """Independent coordinates, each with a location and a scale: a subclass only chooses the family.

    Args:
        dim: Number of latent coordinates :math:`D`.
        loc: Location, the median.
        scale: Scale, positive; what it means is the family's to say.
        learned: Which of ``"loc"`` and ``"scale"`` are learned, one value for each coordinate.
    """

    def __init__(self, dim: int, loc: float = 0.0, scale: float = 1.0, learned: Collection[str] = ()) -> None:
        super().__init__()
        check_learned(learned, ("loc", "scale"))
        shape = (check_dim(dim),)
        self.loc = Constrained("loc", loc, shape, learned="loc" in learned)
        self.scale = Constrained("scale", scale, shape, lower=0.0, learned="scale" in learned)


def check_dim(dim: int) -> int:
    """dim, or ValueError."""
    if not isinstance(dim, int) or dim < 1:
        raise ValueError(f"dim must be a positive whole number, got {dim!r}")
    return dim


def check_learned(learned: Collection[str], names: Collection[str]) -> None:
    """ValueError unless each name of ``learned`` is a hyper-parameter."""
    if isinstance(learned, str) or not set(learned) <= set(names):
        raise ValueError(f"learned must be a collection of names of {sorted(names)}, got {learned!r}")
