"""Supports as sets."""

from __future__ import annotations

from torch.distributions import constraints

__all__ = ["as_set", "same_support"]


def same_support(p: constraints.Constraint, q: constraints.Constraint) -> bool:
    """Whether two supports are one set: event dimensions and the closure of an interval (a null set) do not count."""
    return as_set(p) == as_set(q)


def as_set(support: constraints.Constraint) -> str:
    while hasattr(support, "base_constraint"):  # of Independent and of MixtureSameFamily
        support = support.base_constraint
    return repr(support).replace("GreaterThanEq", "GreaterThan").replace("HalfOpenInterval", "Interval")
