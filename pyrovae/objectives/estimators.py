"""Gradient estimators: how an :class:`~pyrovae.ELBO` draws the sites of a guide that have no path.

The draws of gates, bits, categories and counts are no smooth function of the parameters. The densities of pyrovae offer
other draws of them (``rsample_pair``, ``rsample_straight_through``, ``rsample_relaxed``, ``rsample_pathwise``), and an
estimator says which of these it takes. A site that offers none of them is drawn plainly and has the score function,
with the other draws as its baseline.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from pyro.distributions.distribution import Distribution
from torch import Tensor

__all__ = ["DisARM", "Estimator", "LeaveOneOut", "Relaxed", "StickingTheLanding", "StraightThrough"]


@dataclass(frozen=True)
class Estimator:
    """Plain draws, and the score function for those without a path; the base of the other estimators."""

    kinds: ClassVar[tuple[str, ...]] = ()  # in order of preference: "pair" stands for rsample_pair()

    def draw(self, fn: Distribution) -> tuple[str, Tensor | tuple[Tensor, Tensor, Tensor]] | None:
        """A draw and its kind; None where the density offers none of the kinds of this estimator."""
        for kind in self.kinds:
            draw: Callable[..., Tensor] | None = getattr(fn, f"rsample_{kind}", None)
            if draw is not None:
                return kind, self.call(kind, draw)
        return None

    def call(self, kind: str, draw: Callable[..., Tensor]) -> Tensor:
        """Call ``draw`` with the settings of this estimator."""
        return draw()


@dataclass(frozen=True)
class DisARM(Estimator):
    r"""An antithetic second draw of gates and bits, of which only the value of the objective is used. Unbiased.

    .. math:: \tfrac12 \left(f(b) - f(\tilde b)\right) s(b, \tilde b)

    It has the least variance of the unbiased estimators. Sites without pairs (categories, counts) are trained as by
    :class:`LeaveOneOut`.

    References: Dong, Mnih and Tucker (2020), "DisARM: an antithetic gradient estimator for binary latent variables",
        eq. 8.
    """

    kinds: ClassVar = ("pathwise", "pair")


@dataclass(frozen=True)
class LeaveOneOut(Estimator):
    r"""The score function of independent draws, each with the mean of the others as its baseline. Unbiased.

    .. math:: \frac1K \sum_k \Big(f_k - \frac{1}{K-1} \sum_{j \ne k} f_j\Big) \nabla \log q(b_k)

    Args:
        num_particles: :math:`K \ge 2`, unless the objective gives its own number.

    References: Kool, van Hoof and Welling (2019), "Buy 4 REINFORCE samples, get a baseline for free!".
    """

    num_particles: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.num_particles, int) or self.num_particles < 2:
            raise ValueError(f"num_particles of LeaveOneOut must be a whole number from 2, got {self.num_particles!r}")


@dataclass(frozen=True)
class StraightThrough(Estimator):
    """Hard gates, bits and categories with the gradient of their mean. Biased; needs the exact KL.

    References: Bengio, Léonard and Courville (2013), "Estimating or propagating gradients through stochastic neurons".
    """

    kinds: ClassVar = ("pathwise", "straight_through")


@dataclass(frozen=True)
class Relaxed(Estimator):
    """Concrete gates, bits and categories, and counts of soft arrivals. Biased; needs the exact KL.

    The loss is that of another model, whose codes have no exact zeros; ``loss`` (without gradient) has hard draws.

    Args:
        temperature: Above 0; the bias vanishes as it falls to 0, while the variance of the gradient grows.

    References: Maddison, Mnih and Teh (2017), "The concrete distribution"; Jang, Gu and Poole (2017), "Categorical
        reparameterization with Gumbel-softmax".
    """

    temperature: float = 0.5
    kinds: ClassVar = ("pathwise", "relaxed")

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be positive, got {self.temperature}")

    def call(self, kind: str, draw: Callable[..., Tensor]) -> Tensor:
        return draw(temperature=self.temperature) if kind == "relaxed" else draw()


@dataclass(frozen=True)
class StickingTheLanding(Estimator):
    """Leaves the score of q at its draws, whose expectation is zero, out of the gradient. Unbiased.

    The gradient has no noise where q is the posterior. Every KL is sampled, exact forms are not used. Sites without a
    path have the score function as under :class:`LeaveOneOut`.

    References: Roeder, Wu and Duvenaud (2017), "Sticking the landing", eq. 8.
    """
