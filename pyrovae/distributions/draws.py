"""Draws of a density other than its plain one, from which an objective takes gradients of low variance.

A density with parts that have no path (gates, counts, categories) offers those that it can:

- ``rsample_pathwise()``: a draw of the density that is a continuous function of noise and of the parameters, so that
  the gradient of :math:`E f(z)` is wholly pathwise; unbiased for f without the density, that is beside an exact KL;
- ``rsample_pair()``: two antithetic draws and a score s: with f the objective, :math:`\\tfrac12 (f_1 - f_2) s` has the
  gradient of :math:`E f` in what has no path; unbiased;
- ``rsample_straight_through()``: a draw of the density with a gradient that is not its own; biased;
- ``rsample_relaxed()``: a draw of a continuous relaxation, which this density must not score; biased.
"""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.score_parts import ScoreParts
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.distributions.util import sum_rightmost
from torch import Tensor

__all__ = ["IndependentDraws", "OtherDraws", "antithetic_bits", "concrete_bits"]

DRAWS = ("rsample_pathwise", "rsample_pair", "rsample_straight_through", "rsample_relaxed")


class OtherDraws(TorchDistribution):
    """A density that has some of these draws, which its ``to_event`` keeps."""

    def to_event(self, reinterpreted_batch_ndims: int | None = None) -> Any:
        """As of any Pyro distribution; the other draws and the score parts stay, which Pyro's ``Independent`` drops."""
        ndims = len(self.batch_shape) if reinterpreted_batch_ndims is None else reinterpreted_batch_ndims
        return IndependentDraws(self, ndims) if ndims else self


class IndependentDraws(dist.Independent):
    """An ``Independent`` that keeps its base's score parts, which Pyro's own drops, and its other draws."""

    base_dist: Any

    def __getattr__(self, name: str) -> Any:
        if name not in DRAWS:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        draw = getattr(self.base_dist, name)
        return self._pair if name == "rsample_pair" else draw

    def score_parts(self, x: Any, *args: Any, **kwargs: Any) -> ScoreParts:
        parts = self.base_dist.score_parts(x)
        return ScoreParts(*(sum_rightmost(part, self.reinterpreted_batch_ndims) for part in parts))

    def to_event(self, reinterpreted_batch_ndims: int | None = None) -> Any:
        ndims = len(self.batch_shape) if reinterpreted_batch_ndims is None else reinterpreted_batch_ndims
        return IndependentDraws(self.base_dist, self.reinterpreted_batch_ndims + ndims)

    def _pair(self) -> Any:
        first, second, score = self.base_dist.rsample_pair()
        return first, second, sum_rightmost(score, self.reinterpreted_batch_ndims)


def antithetic_bits(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Two draws of bits from one uniform number each, and the score of the first against the second.

    References: Dong, Mnih and Tucker (2020), "DisARM: an antithetic gradient estimator for binary latent variables",
        eq. 8.
    """
    uniform, probs = torch.rand_like(logits), torch.sigmoid(logits.detach())
    first, second = (1 - uniform < probs).to(probs), (uniform < probs).to(probs)
    return first, second, (first - second) * torch.sigmoid(logits.detach().abs()) * logits


def concrete_bits(logits: Tensor, temperature: float) -> Tensor:
    """A draw of the binary concrete law, in [0, 1], which tends to bits as the temperature tends to zero.

    References: Maddison, Mnih and Teh (2017), "The concrete distribution", eq. 14; Jang, Gu and Poole (2017).
    """
    uniform = torch.rand_like(logits)
    noise = torch.log(uniform.clamp(min=torch.finfo(uniform.dtype).tiny)) - torch.log1p(-uniform)
    return torch.sigmoid((logits + noise) / temperature)
