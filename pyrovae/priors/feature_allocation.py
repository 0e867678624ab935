r"""Priors of codes with exact zeros whose activities are random, and shared by all data.

.. math:: P(z_k \ne 0 \mid \pi) = \pi_k , \qquad p(z_k \mid \pi) = \pi_k\, s(z_k) \quad (z_k \ne 0)

The site ``"z_active"`` stands outside the data plate (``shared``) and has a Beta law in each coordinate; ``"z"`` is
what the decoder reads. The data decide how often each coordinate is used, and how many of them.
"""

from __future__ import annotations

from collections.abc import Collection

import pyro
import torch
from torch import Tensor

from pyrovae.distributions import Beta
from pyrovae.distributions import SpikeSlab as SpikeSlabDensity
from pyrovae.distributions.unit_interval import inside_unit_interval, log1mexp
from pyrovae.hyper import Constrained
from pyrovae.priors.slabs import WithSlab

__all__ = ["BetaBernoulli", "BetaSpikeSlab"]


class _FeatureAllocation(WithSlab):
    """A slab, and gates with activities from the shared site: a subclass gives its Beta law and the function of it."""

    def beta(self) -> Beta:
        """The law of the shared site, of batch shape ``(D,)``."""
        raise NotImplementedError

    def log_active(self, shared: Tensor) -> Tensor:
        r""":math:`\log\pi` from the shared site."""
        raise NotImplementedError

    def shared(self) -> Tensor:
        """Sample ``"z_active"``, once for all data."""
        return pyro.sample("z_active", self.beta().to_event(1))

    def forward(self, shared: Tensor) -> Tensor:  # type: ignore[override]  # as of every prior with shared()
        """Sample ``"z"`` inside the data plate, given what :meth:`shared` returned."""
        log_active = self.log_active(inside_unit_interval(shared))
        gates = log_active - log1mexp(log_active)
        return pyro.sample("z", SpikeSlabDensity(gates, self.slab_distribution()).to_event(1))


class BetaSpikeSlab(_FeatureAllocation):
    r"""Spike-and-slab prior under which each activity is Beta: :math:`\pi_k \sim Beta(a, b)`, the site ``"z_active"``.

    A learned ``active`` of :class:`SpikeSlab` is one number; here it has a posterior, and its cost is in the bound.

    Args:
        dim: Number of latent coordinates :math:`D`.
        concentration1: :math:`a > 0`.
        concentration0: :math:`b > 0`; the mean activity is :math:`a / (a + b)`.
        slab: Family of the slab :math:`s`, with ``loc``, ``scale`` and ``df`` as of :class:`SpikeSlab`.
        learned: Which of ``"concentration1"``, ``"concentration0"``, ``"loc"``, ``"scale"`` and ``"df"`` are learned,
            one value for each coordinate.

    Shape: ``"z_active"`` has event_shape ``(D,)`` and stands in no plate; z ``(D,)``, under the data plate ``(N, D)``.
    Units: log_prob in nats, that of z with respect to Lebesgue measure plus a unit atom at zero.
    Raises: ValueError if ``dim < 1``, a concentration or ``scale`` is not positive, or the slab is unknown.
    See also: :class:`pyrovae.guides.BetaSpikeSlab`; :class:`~pyrovae.VAE` needs ``num_data``.
    """

    def __init__(
        self,
        dim: int,
        concentration1: float = 1.0,
        concentration0: float = 9.0,
        slab: str = "normal",
        loc: float | None = None,
        scale: float | None = None,
        df: float | None = None,
        learned: Collection[str] = (),
    ) -> None:
        super().__init__(dim, slab, learned, ("concentration1", "concentration0"), loc=loc, scale=scale, df=df)
        self.concentration1, self.concentration0 = (
            Constrained(name, value, (dim,), lower=0.0, learned=name in learned)
            for name, value in (("concentration1", concentration1), ("concentration0", concentration0))
        )

    def beta(self) -> Beta:
        return Beta(self.concentration1(), self.concentration0())

    def log_active(self, shared: Tensor) -> Tensor:
        return shared.log()


class BetaBernoulli(_FeatureAllocation):
    r"""Beta-Bernoulli prior: the Indian buffet process, truncated. Each coordinate is used less than the one before.

    .. math:: \pi_k = \prod_{j \le k} v_j , \qquad v_j \sim Beta(\alpha, 1) , \qquad
              E \pi_k = \left(\frac{\alpha}{\alpha + 1}\right)^k

    The site ``"z_active"`` is v. On average a code uses :math:`\alpha` coordinates, or a few less as D cuts them off.

    Args:
        dim: Number of latent coordinates :math:`D`, the truncation.
        concentration: :math:`\alpha > 0`.
        slab: Family of the slab :math:`s`, with ``loc``, ``scale`` and ``df`` as of :class:`SpikeSlab`.
        learned: Which of ``"concentration"`` (one number), ``"loc"``, ``"scale"`` and ``"df"`` (one for each
            coordinate) are learned.

    Shape: ``"z_active"`` has event_shape ``(D,)`` and stands in no plate; z ``(D,)``, under the data plate ``(N, D)``.
    Units: log_prob in nats, that of z with respect to Lebesgue measure plus a unit atom at zero.
    Raises: ValueError if ``dim < 1``, ``concentration`` or ``scale`` is not positive, or the slab is unknown.
    References: Teh, Görür and Ghahramani (2007), "Stick-breaking construction for the Indian buffet process", eq. 6;
        Singh, Ling and Doshi-Velez (2017), "Structured variational autoencoders for the beta-Bernoulli process".
    See also: :class:`pyrovae.guides.BetaSpikeSlab`; :class:`~pyrovae.VAE` needs ``num_data``.
    """

    def __init__(
        self,
        dim: int,
        concentration: float = 5.0,
        slab: str = "normal",
        loc: float | None = None,
        scale: float | None = None,
        df: float | None = None,
        learned: Collection[str] = (),
    ) -> None:
        if slab == "gamma":
            raise ValueError("slab must not be 'gamma', whose concentration has the name of that of the prior")
        super().__init__(dim, slab, learned, ("concentration",), loc=loc, scale=scale, df=df)
        self.concentration = Constrained("concentration", concentration, lower=0.0, learned="concentration" in learned)

    def beta(self) -> Beta:
        concentration = self.concentration().expand(self.dim)
        return Beta(concentration, torch.ones_like(concentration))

    def log_active(self, shared: Tensor) -> Tensor:
        return shared.log().cumsum(-1)
