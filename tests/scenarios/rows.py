"""Rows of the table: a scenario, and what ``pv.SVI`` has to do in it beside giving Pyro's numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scenarios.trial import Trial

Scenario = Callable[[Trial], None]


@dataclass(frozen=True)
class Row:
    """A scenario and its expectation.

    Attributes:
        scenario: Makes SVIs by ``trial.svi``, steps them by ``trial.step``, and changes something on the way.
        kind: ``compiled``, every SVI compiles, without a warning other than that of a change; ``given up``, it is
            compiled, and later runs eagerly with one warning; ``refused``, it cannot be compiled from the beginning;
            ``trusted``, it is eager with one warning, and where the user insists it is refused or taken on trust, with
            a warning; ``foreign``, the same where following the value is right too; ``either``, it is right, compiled
            or not.
        says: Pattern of the reason, in the warning or in the error.
        most: Largest number of compilations of one SVI.
    """

    scenario: Scenario
    kind: str
    says: str = ""
    most: int | None = None


def compiled(scenario: Scenario) -> Row:
    """Followed, and compiled in both modes."""
    return Row(scenario, "compiled")


def once(scenario: Scenario) -> Row:
    """Followed by one compilation: what changes is a number or a tensor, and an input of the graph."""
    return Row(scenario, "compiled", most=1)


def twice(scenario: Scenario) -> Row:
    """Followed by two compilations at most, however often it changes to and fro."""
    return Row(scenario, "compiled", most=2)


def given_up(says: str) -> Callable[[Scenario], Row]:
    """Compiled at first; a later change makes it impossible."""
    return lambda scenario: Row(scenario, "given up", says)


def refused(says: str) -> Callable[[Scenario], Row]:
    """Cannot be compiled: RuntimeError where the user insists, else eager with one warning."""
    return lambda scenario: Row(scenario, "refused", says)


def trusted(says: str) -> Callable[[Scenario], Row]:
    """Cannot be followed: eager by default; where the user insists, refused or taken on trust with one warning."""
    return lambda scenario: Row(scenario, "trusted", says)


def foreign(says: str) -> Callable[[Scenario], Row]:
    """Followed, or eager by default; where the user insists, right, refused, or taken on trust with a warning."""
    return lambda scenario: Row(scenario, "foreign", says)


def either(says: str) -> Callable[[Scenario], Row]:
    """Right in any case; a warning or an error of ``compile=True`` has to give this reason."""
    return lambda scenario: Row(scenario, "either", says)
