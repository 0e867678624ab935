"""Priors on the simplex: a code is a vector of proportions."""

from __future__ import annotations

from collections.abc import Collection

import pyro.distributions as dist
import torch
from torch import Tensor

from pyrovae.distributions import Beta
from pyrovae.distributions import Dirichlet as DirichletDensity
from pyrovae.distributions import LogisticNormal as LogisticNormalDensity
from pyrovae.distributions import StickBreaking as StickBreakingDensity
from pyrovae.hyper import Constrained
from pyrovae.priors.base import Prior, check_learned

__all__ = ["Dirichlet", "LogisticNormal", "StickBreaking"]


class Dirichlet(Prior):
    r"""Dirichlet prior: proportions, few of them large where the concentration is below 1.

    .. math:: p(z) = \frac{\Gamma(\sum_i a_i)}{\prod_i \Gamma(a_i)} \prod_i z_i^{a_i - 1} ,
              \qquad z_i > 0 , \quad \sum_i z_i = 1

    Args:
        dim: Number of proportions :math:`D \ge 2`.
        concentration: :math:`a > 0`; the prior is uniform at 1.
        learned: ``["concentration"]`` learns it, one value for each coordinate.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats, with respect to Lebesgue measure on the first D - 1 coordinates.
    Raises: ValueError if ``dim < 2`` or ``concentration <= 0``.
    See also: :class:`pyrovae.guides.Dirichlet`, whose KL is exact; that of :class:`pyrovae.guides.LogisticNormal` is
        sampled.
    """

    def __init__(self, dim: int, concentration: float | Tensor = 1.0, learned: Collection[str] = ()) -> None:
        super().__init__()
        check_learned(learned, ("concentration",))
        self.concentration = Constrained(
            "concentration", concentration, (_check_dim(dim),), lower=0.0, learned="concentration" in learned
        )

    def distribution(self) -> dist.TorchDistribution:
        return DirichletDensity(self.concentration())


class LogisticNormal(Prior):
    r"""Logistic-normal prior: proportions that are the softmax of independent Normals.

    .. math:: z = softmax(\eta) , \qquad \eta_i \sim N(\mu_i, \sigma_i^2)

    Args:
        dim: Number of proportions :math:`D \ge 2`.
        loc: :math:`\mu`.
        scale: :math:`\sigma > 0`: near 0 all proportions are alike, from 3 on one of them takes nearly all.
        learned: Which of ``"loc"`` and ``"scale"`` are learned, one value for each coordinate.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats, with respect to Lebesgue measure on the first D - 1 coordinates.
    Raises: ValueError if ``dim < 2`` or ``scale <= 0``.
    See also: :class:`pyrovae.guides.LogisticNormal`, :class:`pyrovae.guides.Dirichlet`; both KLs are exact. The density
        is written out at :class:`pyrovae.distributions.LogisticNormal`.
    """

    def __init__(
        self, dim: int, loc: float | Tensor = 0.0, scale: float | Tensor = 1.0, learned: Collection[str] = ()
    ) -> None:
        super().__init__()
        check_learned(learned, ("loc", "scale"))
        shape = (_check_dim(dim),)
        self.loc = Constrained("loc", loc, shape, learned="loc" in learned)
        self.scale = Constrained("scale", scale, shape, lower=0.0, learned="scale" in learned)

    @classmethod
    def from_dirichlet(
        cls, dim: int, concentration: float | Tensor = 1.0, learned: Collection[str] = ()
    ) -> LogisticNormal:
        r"""The logistic normal nearest to Dirichlet(a): none has a smaller KL from it.

        .. math:: \mu_i = \psi(a_i) , \qquad \sigma_i^2 = \psi'(a_i)

        These give every log-ratio its mean and covariance under the Dirichlet. The KL falls as 1/a; below a = 1 it is
        large, and the result another sparse prior. ProdLDA has Laplace's approximation before softmax instead,

        .. math:: \mu_i = \log a_i - \tfrac1D \sum_j \log a_j , \qquad
                  \sigma_i^2 = \frac{1}{a_i}\left(1 - \tfrac2D\right) + \tfrac{1}{D^2} \sum_j \frac{1}{a_j} ,

        with independent coordinates, which it does not give: at equal and large a the variance of a log-ratio is too
        small by the factor 1 - 1/D. To have it, pass its numbers as ``loc`` and ``scale``.

        References: Aitchison and Shen (1980), "Logistic-normal distributions: some properties and uses"; Srivastava and
            Sutton (2017), "Autoencoding variational inference for topic models".
        """
        a = torch.as_tensor(concentration, dtype=torch.get_default_dtype()).expand(_check_dim(dim))
        if not bool((a > 0).all()):
            raise ValueError(f"concentration must be positive and finite, got {concentration}")
        loc = torch.digamma(a)
        variance = torch.special.zeta(2.0, a)  # trigamma, of which torch.polygamma has nine digits
        return cls(dim, loc - loc.mean(), variance.sqrt(), learned)

    def distribution(self) -> dist.TorchDistribution:
        return LogisticNormalDensity(self.loc(), self.scale())


class StickBreaking(Prior):
    r"""Stick-breaking prior: proportions of which the first have the most, as a truncated Dirichlet process has them.

    .. math:: z_k = v_k \prod_{j<k} (1 - v_j) , \qquad v_k \sim Beta(1, \alpha) , \quad v_D = 1

    The mean of :math:`z_k` is :math:`\alpha^{k-1} / (1 + \alpha)^k`, and that of the last one what is left.

    Args:
        dim: Number of proportions :math:`D \ge 2`, the truncation.
        concentration: :math:`\alpha > 0`: the larger, the more proportions share the stick.
        learned: ``["concentration"]`` learns it, one number.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats, with respect to Lebesgue measure on the first D - 1 coordinates.
    Raises: ValueError if ``dim < 2`` or ``concentration <= 0``.
    References: Nalisnick and Smyth (2017), "Stick-breaking variational autoencoders", whose code has the default.
    See also: :class:`pyrovae.guides.StickBreaking`, whose KL is exact, as is that of :class:`pyrovae.guides.Dirichlet`.
    """

    def __init__(self, dim: int, concentration: float = 5.0, learned: Collection[str] = ()) -> None:
        super().__init__()
        check_learned(learned, ("concentration",))
        self.dim = _check_dim(dim)
        self.concentration = Constrained("concentration", concentration, lower=0.0, learned="concentration" in learned)

    def distribution(self) -> dist.TorchDistribution:
        concentration = self.concentration().expand(self.dim - 1)
        return StickBreakingDensity(Beta(torch.ones_like(concentration), concentration))


def _check_dim(dim: int) -> int:
    if not isinstance(dim, int) or dim < 2:
        raise ValueError(f"dim must be 2 or more proportions, got {dim!r}")
    return dim
