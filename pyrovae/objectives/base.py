"""What every objective here has: a loss and its gradient, for Pyro's SVI and for ``pyrovae.fit``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from pyro.infer import ELBO as PyroELBO
from torch import Tensor

from pyrovae.objectives.divergence import blame, is_divergence
from pyrovae.objectives.schedules import Schedule

__all__ = ["Number", "Objective"]

Number = float | Schedule | Callable[[float], float]  # a function that names no unit is one of epochs


class Objective(PyroELBO):
    """A bound on log p(x) of each datum, which ``pyro.infer.SVI`` and ``pyrovae.fit`` raise.

    A subclass writes ``terms``. ``epoch`` and ``step`` are what its schedules are called with: ``pyrovae.fit`` moves
    both on, ``loss_and_grads`` the second.
    """

    uses_score_parts = True  # what the guards ask an objective

    def __init__(self, num_particles: int) -> None:
        if num_particles < 1:
            raise ValueError(f"num_particles must be at least 1, got {num_particles}")
        super().__init__(num_particles=num_particles, max_plate_nesting=1)
        self.epoch: float | None = None
        self.step = 0
        self.followed: dict[str, Number] = {}  # the arguments that change, met so far
        self._given: Mapping[str, Tensor] = {}

    def terms(self, model: Any, guide: Any, args: Any, kwargs: Any, hard: bool = False) -> tuple[Tensor, Tensor]:
        """The bound of each datum, and what has its gradient, each ``(N,)``; ``hard`` asks for hard gates."""
        raise NotImplementedError

    def schedules(self) -> dict[str, Schedule]:
        """Those that the objective follows, by the name of its argument."""
        return {}

    def true_bound(self) -> Objective:
        """The bound on log p(x) itself, without schedules, weights and penalties: what is compared between epochs."""
        return self

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """An estimate of the negative bound, with hard gates."""
        with torch.no_grad():
            return -self.terms(model, guide, args, kwargs, hard=True)[0].sum().item()

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """A scalar with the value of the loss and its gradient."""
        bound, surrogate = self.terms(model, guide, args, kwargs)
        return -(surrogate + (bound - surrogate).detach()).sum()

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """The loss, after its gradient is added to the parameters'.

        Raises: FloatingPointError when it is NaN, with the step, the site and the parameter that went wrong.
        """
        try:
            loss = self.differentiable_loss(model, guide, *args, **kwargs)
            value = loss.item()
        except (ValueError, RuntimeError) as error:
            if not is_divergence(error):
                raise
            value = math.nan
        if math.isnan(value):
            raise self.diverged(model, guide, args, kwargs)
        if loss.requires_grad:
            loss.backward()
        self.step += 1
        return value

    def diverged(self, model: Any, guide: Any, args: Any, kwargs: Any) -> FloatingPointError:
        """What to raise of a loss that is NaN."""
        return FloatingPointError(f"step {self.step + 1}: the loss became NaN: {blame(model, guide, args, kwargs)}")

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError  # abstract in Pyro, for its loop over particles; here all are drawn at once

    def now(self, name: str, number: Number) -> float:
        """What an argument that may be a schedule is now."""
        if not callable(number):
            return number
        if name in self._given:
            return self._given[name]  # type: ignore[return-value]  # a tensor does what a number does
        self.followed[name] = number
        if getattr(number, "unit", "epochs") == "steps":
            return number(self.step)
        if self.epoch is None:
            raise ValueError(
                f"{name} is a schedule in epochs, and nobody counts them here: pyrovae.fit does; give it steps=... for "
                f"pyro.infer.SVI, or set the objective's epoch"
            )
        return number(self.epoch)

    @contextmanager
    def given(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """The arguments of these names are these tensors: the inputs of a graph that is right for all their values."""
        self._given = values
        try:
            yield
        finally:
            self._given = {}
