"""The base of all objectives: a loss and its gradient, for Pyro's SVI, for ``pyrovae.SVI`` and for ``pyrovae.fit``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import FrozenInstanceError, dataclass, fields, is_dataclass, replace
from typing import ClassVar, NoReturn, TypeVar

import torch
from pyro.infer import ELBO as PyroELBO
from torch import Tensor

from pyrovae.objectives.divergence import blame, is_divergence
from pyrovae.objectives.draws import check_draws
from pyrovae.objectives.schedules import Schedule
from pyrovae.objectives.sites import Args, Function, Kwargs

__all__ = ["Bounds", "Objective", "frozen"]

Bounds = tuple[Tensor, Tensor]

C = TypeVar("C", bound=type)


def frozen(cls: C) -> C:
    """Have a frozen dataclass say, where a field is assigned to, what to do instead."""
    for name in ("__setattr__", "__delattr__"):
        setattr(cls, name, _refuse)
    return cls


def _refuse(self: Objective, name: str, value: object = None) -> NoReturn:
    raise FrozenInstanceError(
        f"{type(self).__name__} cannot be changed, got a new {name!r}: make another one, such as "
        f"svi.loss = pyrovae.ELBO(beta=0.5)"
    )


@frozen
@dataclass(frozen=True)
class Objective(PyroELBO):
    """A lower bound on log p(x), which an SVI maximises: a frozen dataclass that is compared by its fields.

    A subclass is a frozen dataclass too and writes ``terms``. Numbers that change over a run are :class:`Schedule` in
    its fields; an SVI that counts steps calls :meth:`at` with their values, and then the loss of the result.

    Units: nats, summed over the batch.
    """

    uses_score_parts: ClassVar[bool] = True  # asked by the guards

    def terms(self, model: Function, guide: Function, args: Args, kwargs: Kwargs, hard: bool = False) -> Bounds:
        """The bound and a surrogate with its gradient, each ``()``; ``hard`` asks for plain draws of gates."""
        raise NotImplementedError

    def num_draws(self, model: Function, guide: Function, *args: object, **kwargs: object) -> int:
        """The number of draws that a step takes of each site."""
        return 1

    def check(self, model: Function, guide: Function, *args: object, **kwargs: object) -> None:
        """Refuse functions that are right for one draw and wrong for the several draws of a step: ``check_draws``."""
        check_draws(model, guide, args, kwargs, self.num_draws(model, guide, *args, **kwargs))

    def true_bound(self) -> Objective:
        """The bound on log p(x) itself, without schedules, weights and penalties: comparable between epochs."""
        return self

    def schedules(self) -> dict[str, Schedule]:
        """The schedules in the fields, by names such as ``"beta"`` and ``"kl.capacity"``."""
        return dict(_schedules(self, ""))

    def at(self, numbers: Mapping[str, float | Tensor]) -> Objective:
        """The same objective with these schedules, by name, replaced by numbers or by 0-dim tensors.

        Raises: ValueError for a name that is not one of ``schedules()``.
        """
        unknown = sorted(numbers.keys() - self.schedules().keys())
        if unknown:
            raise ValueError(f"numbers must be for the schedules {sorted(self.schedules())}, got {unknown}")
        return _at(self, numbers)

    def loss(self, model: Function, guide: Function, *args: object, **kwargs: object) -> float:
        """An estimate of the negative bound, with hard gates."""
        self._check_numbers()
        with torch.no_grad():
            return -self.terms(model, guide, args, kwargs, hard=True)[0].item()

    def differentiable_loss(self, model: Function, guide: Function, *args: object, **kwargs: object) -> Tensor:
        """A scalar with the value of the loss and its gradient."""
        self._check_numbers()
        bound, surrogate = self.terms(model, guide, args, kwargs)
        return -(surrogate + (bound - surrogate).detach())

    def loss_and_grads(self, model: Function, guide: Function, *args: object, **kwargs: object) -> float:
        """The loss, after its gradient is added to that of the parameters.

        Raises: FloatingPointError when it is NaN, before any gradient, with the site and the parameter that went wrong.
        """
        try:
            loss = self.differentiable_loss(model, guide, *args, **kwargs)
            value = loss.item()
        except (ValueError, RuntimeError) as error:
            if not is_divergence(error):
                raise
            value = math.nan
        if math.isnan(value):
            raise FloatingPointError(f"the loss became NaN: {blame(model, guide, args, kwargs)}")
        if loss.requires_grad:
            loss.backward()
        return value

    def _get_trace(self, *args: object) -> NoReturn:
        raise NotImplementedError  # abstract in Pyro, for its loop over particles

    def _check_numbers(self) -> None:
        for name, schedule in self.schedules().items():
            raise ValueError(
                f"{name} is a schedule in {schedule.unit}, which this SVI does not count: use pyrovae.SVI (steps) or "
                f"pyrovae.fit (epochs), or give {name} a number"
            )


def _schedules(part: object, prefix: str) -> Iterator[tuple[str, Schedule]]:
    for field in fields(part):  # type: ignore[arg-type]  # a dataclass
        value = getattr(part, field.name)
        if isinstance(value, Schedule):
            yield prefix + field.name, value
        elif is_dataclass(value):
            yield from _schedules(value, f"{prefix}{field.name}.")


D = TypeVar("D")


def _at(part: D, numbers: Mapping[str, float | Tensor], prefix: str = "") -> D:
    new: dict[str, object] = {}
    for field in fields(part):  # type: ignore[arg-type]  # a dataclass
        name, value = prefix + field.name, getattr(part, field.name)
        if name in numbers:
            new[field.name] = numbers[name]
        elif is_dataclass(value) and not isinstance(value, Schedule):
            new[field.name] = _at(value, numbers, f"{name}.")
    return replace(part, **new)  # type: ignore[type-var]  # a dataclass
