"""Priors of bits, counts and categories, and of the relaxation of bits."""

from __future__ import annotations

from collections.abc import Collection

import pyro
import pyro.distributions as dist
from torch import Tensor

from pyrovae.distributions import Bernoulli as BernoulliDensity
from pyrovae.distributions import Categorical as CategoricalDensity
from pyrovae.distributions import Logistic, inside_unit_interval
from pyrovae.distributions import Poisson as PoissonDensity
from pyrovae.distributions.discrete import check_categories
from pyrovae.hyper import Constrained
from pyrovae.priors.base import Prior, check_dim, check_learned

__all__ = ["Bernoulli", "Categorical", "Poisson", "RelaxedBernoulli"]


class Bernoulli(Prior):
    r"""Bernoulli prior: independent bits.

    .. math:: P(z) = \prod_i \pi_i^{z_i} (1 - \pi_i)^{1 - z_i} , \qquad z_i \in \{0, 1\}

    Args:
        dim: Number of latent coordinates :math:`D`.
        probs: :math:`\pi`, the probability of 1, in (0, 1).
        learned: ``("probs",)`` to learn it, one value for each coordinate.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats.
    Raises: ValueError if ``dim < 1`` or ``probs`` is not in (0, 1).
    See also: :class:`pyrovae.guides.Bernoulli`, :class:`pyrovae.ELBO`.
    """

    def __init__(self, dim: int, probs: float = 0.5, learned: Collection[str] = ()) -> None:
        super().__init__()
        check_learned(learned, ("probs",))
        self.probs = Constrained("probs", probs, (check_dim(dim),), 0.0, 1.0, learned="probs" in learned)

    def distribution(self) -> dist.TorchDistribution:
        return BernoulliDensity(self.probs().logit()).to_event(1)


class Poisson(Prior):
    r"""Poisson prior: independent counts, most of them zero when the rate is small.

    .. math:: P(z) = \prod_i \frac{\lambda_i^{z_i} e^{-\lambda_i}}{z_i!} , \qquad z_i \in \{0, 1, 2, \dots\}

    Args:
        dim: Number of latent coordinates :math:`D`.
        rate: :math:`\lambda > 0`, the mean count.
        learned: ``("rate",)`` to learn it, one value for each coordinate.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats.
    Raises: ValueError if ``dim < 1`` or ``rate <= 0``.
    References: Vafaii, Galor and Yates (2024), "Poisson variational autoencoder".
    See also: :class:`pyrovae.guides.Poisson`, :class:`pyrovae.ELBO`.
    """

    def __init__(self, dim: int, rate: float = 1.0, learned: Collection[str] = ()) -> None:
        super().__init__()
        check_learned(learned, ("rate",))
        self.rate = Constrained("rate", rate, (check_dim(dim),), lower=0.0, learned="rate" in learned)

    def distribution(self) -> dist.TorchDistribution:
        return PoissonDensity(self.rate()).to_event(1)


class Categorical(Prior):
    r"""Categorical prior: concatenated one-hot vectors.

    .. math:: P(z) = \prod_b \prod_k \pi_{bk}^{z_{bk}} , \qquad \pi_b = softmax(\ell_b) , \quad
              z_{bk} \in \{0, 1\} , \; \sum_k z_{bk} = 1

    Args:
        dim: Number of coordinates :math:`D` that the decoder reads: D / K variables of K categories each.
        num_categories: :math:`K`, at least 2, which divides D; None is one variable of D categories.
        logits: :math:`\ell` of each category, for all variables alike: 0 for equal probabilities, or a tensor ``(K,)``.
        learned: ``("logits",)`` to learn them, for each variable its own.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats.
    Raises: ValueError if ``dim < 1``, ``num_categories`` is below 2 or does not divide D, or ``logits`` are not finite.
    See also: :class:`pyrovae.guides.Categorical`, with the same ``num_categories``; :class:`pyrovae.ELBO`.
    """

    def __init__(
        self,
        dim: int,
        num_categories: int | None = None,
        logits: float | Tensor = 0.0,
        learned: Collection[str] = (),
    ) -> None:
        super().__init__()
        check_learned(learned, ("logits",))
        self.num_categories = check_categories(check_dim(dim), num_categories)
        shape = (dim // self.num_categories, self.num_categories)
        self.logits = Constrained("logits", logits, shape, learned="logits" in learned)

    def distribution(self) -> dist.TorchDistribution:
        return CategoricalDensity(self.logits().flatten(), self.num_categories)


class RelaxedBernoulli(Prior):
    r"""Relaxed Bernoulli prior (binary concrete): numbers in the open unit interval, most of them near its ends.

    .. math:: z_i = \sigma(y_i) , \qquad y_i \sim Logistic\left(\frac{1}{T} \log\frac{\pi_i}{1 - \pi_i} ,
              \frac{1}{T}\right)

    The one site is ``"z_logit"``, y, whose density is finite where z rounds to 0 or 1; the decoder reads z, which never
    is. The bound is a true one, of this model and not of that with bits.

    Args:
        dim: Number of latent coordinates :math:`D`.
        probs: :math:`\pi`, the probability of z above 1/2, in (0, 1).
        temperature: :math:`T > 0`; z is uniform at 1 and π = 1/2, and tends to a bit as T tends to 0.
        learned: Which of ``"probs"`` and ``"temperature"`` are learned, one value for each coordinate.

    Shape: y and z are ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats, with respect to Lebesgue measure on y.
    Raises: ValueError if ``dim < 1``, ``probs`` is not in (0, 1) or ``temperature <= 0``.
    References: Maddison, Mnih and Teh (2017), "The concrete distribution", appendix C.3.
    See also: :class:`pyrovae.guides.RelaxedBernoulli`.
    """

    def __init__(self, dim: int, probs: float = 0.5, temperature: float = 0.5, learned: Collection[str] = ()) -> None:
        super().__init__()
        check_learned(learned, ("probs", "temperature"))
        shape = (check_dim(dim),)
        self.probs = Constrained("probs", probs, shape, 0.0, 1.0, learned="probs" in learned)
        self.temperature = Constrained("temperature", temperature, shape, lower=0.0, learned="temperature" in learned)

    def forward(self) -> Tensor:
        temperature = self.temperature()
        logistic = Logistic(self.probs().logit() / temperature, 1 / temperature)
        return inside_unit_interval(pyro.sample("z_logit", logistic.to_event(1)))
