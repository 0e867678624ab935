"""Forms of the KL term of an :class:`~pyrovae.ELBO`: the KL itself, with free bits, or held at a capacity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.objectives.schedules import Number, checked_number
from pyrovae.objectives.sites import Sites, Term, coordinate_kl, is_shared, plates, site_kl

__all__ = ["Capacity", "Exact", "FreeBits", "SiteKL"]


class SiteKL(NamedTuple):
    """The KL of one site, ``(K, *plates)``, or ``(K, *plates, groups)`` where it is given by groups of coordinates."""

    value: Tensor
    plates: Mapping[str, int]
    scale: Tensor | float
    exact: bool
    grouped: bool = False


KLs = Sequence[SiteKL]


@dataclass(frozen=True)
class Exact:
    r"""The KL of each site: exact where a closed form or quadrature is registered, sampled (log q - log p) elsewhere.

    ``pyrovae.ELBO().report(model, guide, x)`` says which of the two each site has.
    """

    def of(self, name: str, model: Sites, guide: Sites) -> SiteKL:
        """The KL of a site of the guide."""
        value, exact = site_kl(name, model, guide)
        return SiteKL(value, plates(guide[name]), guide[name]["scale"], exact)

    def price(self, drawn: KLs, num_data: Tensor | float, num_draws: int) -> Callable[[KLs], list[Term]]:
        """A function from the KLs of all sites to their price before beta; ``drawn`` decides about thresholds.

        ``num_data`` is the number of data, each counted with the scale around it.
        """
        return lambda kls: [Term(kl.value, kl.plates) for kl in kls]


@dataclass(frozen=True)
class FreeBits(Exact):
    r"""A number of nats of KL that cost nothing.

    .. math:: \sum_g \max\left(\lambda,\, \overline{KL}_g\right)

    with the mean over the data of the batch, for each group g of coordinates of a site. Sites that all data share pay
    their whole KL. On batches the bound is biased: the mean of the batch stands for the mean of the data.

    Args:
        nats: :math:`\lambda \ge 0`, for each group.
        group: Coordinates in a group, in their order; None makes each site one group.

    Raises: ValueError where coordinates have no KL of their own, such as those of a mixture; ``group=None`` serves.
    References: Kingma et al. (2016), "Improved variational inference with inverse autoregressive flow", eq. 15.
    """

    nats: float
    group: int | None = 1

    def __post_init__(self) -> None:
        checked_number("nats of FreeBits", self.nats)
        if self.group is not None and self.group < 1:
            raise ValueError(f"group must be at least 1, or None, got {self.group}")

    def of(self, name: str, model: Sites, guide: Sites) -> SiteKL:
        if is_shared(guide[name]):
            return super().of(name, model, guide)
        if self.group is None:
            kl = super().of(name, model, guide)
            return kl._replace(value=kl.value[..., None], grouped=True)
        value, exact = coordinate_kl(name, model, guide)
        groups = torch.cat([part.sum(-1, keepdim=True) for part in value.split(self.group, -1)], -1)
        return SiteKL(groups, plates(guide[name]), guide[name]["scale"], exact, grouped=True)

    def price(self, drawn: KLs, num_data: Tensor | float, num_draws: int) -> Callable[[KLs], list[Term]]:
        limits = [self._limits(kl) if kl.grouped else None for kl in drawn]

        def paid(kls: KLs) -> list[Term]:
            values = [
                kl.value if limit is None else torch.where(limit[0], kl.value, limit[1]).sum(-1)
                for kl, limit in zip(kls, limits, strict=True)
            ]
            return [Term(value, kl.plates) for value, kl in zip(values, kls, strict=True)]

        return paid

    def _limits(self, kl: SiteKL) -> tuple[Tensor, Tensor | float]:
        """Which groups are above the free nats, and the price of the others in each cell."""
        scale = kl.scale[..., None] if isinstance(kl.scale, Tensor) else kl.scale
        return (kl.value.detach() / scale).flatten(0, -2).mean(0) > self.nats, self.nats * scale


@dataclass(frozen=True)
class Capacity(Exact):
    r"""A KL that costs its distance from a capacity.

    .. math:: \left|\overline{KL} - C\right|

    of each datum, with the mean over the batch; biased on batches as :class:`FreeBits` is.

    Args:
        capacity: :math:`C \ge 0`, in nats for each datum, or a schedule of it: ``pyrovae.warmup(50, end=25.0)``.

    References: Burgess et al. (2018), "Understanding disentangling in beta-VAE", eq. 8.
    """

    capacity: Number

    def __post_init__(self) -> None:
        object.__setattr__(self, "capacity", checked_number("capacity", self.capacity))

    def price(self, drawn: KLs, num_data: Tensor | float, num_draws: int) -> Callable[[KLs], list[Term]]:
        mean = torch.stack([kl.value.detach().sum() for kl in drawn]).sum() / num_draws
        capacity = self.capacity * num_data  # type: ignore[operator]  # no schedule is left when it is priced
        side = torch.sign(mean - capacity)
        return lambda kls: [*(Term(side * kl.value, kl.plates) for kl in kls), Term(-side * capacity, {})]
