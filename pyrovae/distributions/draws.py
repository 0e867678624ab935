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
from pyro.distributions.score_parts import ScoreParts
from pyro.distributions.util import sum_rightmost

__all__ = ["IndependentDraws", "KeepsDraws"]

DRAWS = ("rsample_pathwise", "rsample_pair", "rsample_straight_through", "rsample_relaxed")


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


class KeepsDraws:
    """A density whose ``to_event`` keeps its score parts and its other draws."""

    batch_shape: Any

    def to_event(self, reinterpreted_batch_ndims: int | None = None) -> Any:
        """As of any Pyro distribution, and the score parts stay (Pyro's own ``Independent`` drops them)."""
        ndims = len(self.batch_shape) if reinterpreted_batch_ndims is None else reinterpreted_batch_ndims
        return IndependentDraws(self, ndims) if ndims else self
