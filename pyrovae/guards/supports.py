"""Supports as sets."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import constraints

__all__ = ["as_set", "same_support", "within"]

INTERVALS = (
    *(type(constraints.real), constraints.greater_than, constraints.greater_than_eq),
    *(constraints.less_than, constraints.interval, constraints.half_open_interval),
)


def same_support(p: constraints.Constraint, q: constraints.Constraint) -> bool:
    """Whether two supports are one set: event dimensions and the ends of an interval (a null set) do not count."""
    return as_set(p) == as_set(q)


def within(q: constraints.Constraint, p: constraints.Constraint) -> bool:
    """Whether q is the set p, or both are intervals of the real line and q lies inside p."""
    q, p = _coordinate(q), _coordinate(p)
    if type(q) not in INTERVALS or type(p) not in INTERVALS:
        return same_support(p, q)
    (q_lower, q_upper), (p_lower, p_upper) = _ends(q), _ends(p)
    return bool((q_lower >= p_lower).all() and (q_upper <= p_upper).all())


def as_set(support: constraints.Constraint) -> str:
    """The name of the set, equal for equal sets."""
    return repr(_coordinate(support)).replace("GreaterThanEq", "GreaterThan").replace("HalfOpenInterval", "Interval")


def _coordinate(support: constraints.Constraint) -> constraints.Constraint:
    while hasattr(support, "base_constraint"):  # of Independent and of MixtureSameFamily
        support = support.base_constraint
    return support


def _ends(interval: constraints.Constraint) -> tuple[Tensor, Tensor]:
    lower, upper = getattr(interval, "lower_bound", -math.inf), getattr(interval, "upper_bound", math.inf)
    return torch.as_tensor(lower), torch.as_tensor(upper)
