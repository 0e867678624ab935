"""Shrinkage priors: continuous, most of their mass next to zero, and free far away from it."""

from __future__ import annotations

from collections.abc import Collection

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyrovae.distributions import Horseshoe as HorseshoeDensity
from pyrovae.distributions import SparseMixture as SparseMixtureDensity
from pyrovae.hyper import Constrained
from pyrovae.priors.base import Prior, check_dim, check_learned

__all__ = ["Horseshoe", "RegularizedHorseshoe", "SparseMixture"]


class Horseshoe(Prior):
    r"""Horseshoe prior: a pole at zero and the tails of a Cauchy, so that a coordinate is either nothing or free.

    .. math:: p(z) = \prod_i \frac{1}{\sqrt{2\pi^3}\, \tau}\, e^{r_i} E_1(r_i) , \qquad r_i = \frac{z_i^2}{2\tau^2}

    which is :math:`z_i \sim N(0, \tau^2\lambda_i^2)` with :math:`\lambda_i \sim C^+(0, 1)` integrated out. The density
    is infinite at zero: a point guide falls into the pole, and every other guide has a finite KL.

    Args:
        dim: Number of latent coordinates :math:`D`.
        scale: :math:`\tau > 0`; half of the mass is within 0.6 τ of zero.
        learned: ``("scale",)`` to learn it, one value for each coordinate.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats.
    Raises: ValueError if ``dim < 1`` or ``scale <= 0``.
    References: Carvalho, Polson and Scott (2010), "The horseshoe estimator for sparse signals".
    See also: :class:`pyrovae.distributions.Horseshoe` for what is done at exactly zero.
    """

    def __init__(self, dim: int, scale: float = 1.0, learned: Collection[str] = ()) -> None:
        super().__init__()
        check_learned(learned, ("scale",))
        self.scale = Constrained("scale", scale, (check_dim(dim),), lower=0.0, learned="scale" in learned)

    def distribution(self) -> dist.TorchDistribution:
        return HorseshoeDensity(self.scale()).to_event(1)


class SparseMixture(Prior):
    r"""Sparse mixture prior: each coordinate is from a narrow Normal or, with probability a, from a wide one.

    .. math:: p(z) = \prod_i \left[(1 - a)\, N(z_i; 0, s_0^2) + a\, N(z_i; 0, s_1^2)\right]

    Args:
        dim: Number of latent coordinates :math:`D`.
        active: :math:`a`, the weight of the wide Normal, between 0 and 1. Mathieu et al. call 1 - a the weight, and
            take 0.8.
        narrow: :math:`s_0 > 0`.
        wide: :math:`s_1 > 0`.
        learned: Which of ``"active"``, ``"narrow"`` and ``"wide"`` are learned, one value for each coordinate.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats.
    Raises: ValueError if ``dim < 1``, ``active`` is not in (0, 1), ``narrow <= 0`` or ``wide <= 0``.
    References: Mathieu, Rainforth, Siddharth and Teh (2019), "Disentangling disentanglement in variational
        autoencoders", whose code has the defaults.
    """

    def __init__(
        self,
        dim: int,
        active: float = 0.2,
        narrow: float = 0.05,
        wide: float = 1.0,
        learned: Collection[str] = (),
    ) -> None:
        super().__init__()
        check_learned(learned, ("active", "narrow", "wide"))
        shape = (check_dim(dim),)
        self.active = Constrained("active", active, shape, 0.0, 1.0, learned="active" in learned)
        self.narrow = Constrained("narrow", narrow, shape, lower=0.0, learned="narrow" in learned)
        self.wide = Constrained("wide", wide, shape, lower=0.0, learned="wide" in learned)

    def distribution(self) -> dist.TorchDistribution:
        return SparseMixtureDensity(self.active(), self.narrow(), self.wide()).to_event(1)


class RegularizedHorseshoe(Prior):
    r"""Regularised horseshoe prior: a horseshoe near zero whose free coordinates are those of a Normal slab.

    .. math:: z_i \mid \lambda_i \sim N(0, \tau^2\tilde\lambda_i^2) , \quad
              \tilde\lambda_i^2 = \frac{c^2\lambda_i^2}{c^2 + \tau^2\lambda_i^2} , \quad \lambda_i \sim C^+(0, 1)

    Two sites: ``"z_scale"`` is :math:`\lambda`, and ``"z"``, given it, is what the decoder reads. It is the guide that
    avoids the funnel of such a pair: it draws z in units of λ.

    Args:
        dim: Number of latent coordinates :math:`D`.
        scale: :math:`\tau > 0`, of the coordinates that are shrunk.
        slab: :math:`c > 0`, the largest standard deviation that a coordinate can have.
        learned: Which of ``"scale"`` and ``"slab"`` are learned, one value for each coordinate.

    Shape: both sites have event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats.
    Raises: ValueError if ``dim < 1``, ``scale <= 0`` or ``slab <= 0``.
    References: Piironen and Vehtari (2017), "Sparsity information and regularization in the horseshoe and other
        shrinkage priors", eq. 2.8, with c fixed or learned where they may give it a prior.
    See also: :class:`pyrovae.guides.RegularizedHorseshoe`.
    """

    def __init__(self, dim: int, scale: float = 0.1, slab: float = 2.0, learned: Collection[str] = ()) -> None:
        super().__init__()
        check_learned(learned, ("scale", "slab"))
        shape = (check_dim(dim),)
        self.scale = Constrained("scale", scale, shape, lower=0.0, learned="scale" in learned)
        self.slab = Constrained("slab", slab, shape, lower=0.0, learned="slab" in learned)

    def forward(self) -> Tensor:
        scale, slab = self.scale(), self.slab()
        wide = scale * pyro.sample("z_scale", dist.HalfCauchy(torch.ones_like(scale)).to_event(1))
        # a draw of exactly 0, once in 2^24, would be no standard deviation
        deviation = (slab * wide / torch.hypot(slab, wide)).clamp(min=torch.finfo(wide.dtype).tiny)
        return pyro.sample("z", dist.Normal(torch.zeros_like(deviation), deviation).to_event(1))
