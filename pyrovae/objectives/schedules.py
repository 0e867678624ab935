r"""Schedules: numbers that change over a training run, such as the weight of the KL."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Number", "Schedule", "checked_number", "constant", "cyclical", "warmup"]


@dataclass(frozen=True)
class Schedule:
    """A function of the number of epochs or steps done, with the point after which it is constant.

    Args:
        value: The function.
        unit: ``"epochs"``, with fractions within an epoch, or ``"steps"``.
        end: The number of epochs or steps after which the value is constant. ``pyrovae.fit`` refuses a run that ends
            before it.
    """

    value: Callable[[float], float]
    unit: str
    end: float

    def __call__(self, done: float) -> float:
        return self.value(done)


Number = float | Tensor | Schedule | Callable[[float], float]  # a plain function is a function of epochs


def checked_number(name: str, number: Number, most: float = math.inf) -> Number:
    """Check a number, and make a plain function a schedule in epochs.

    The values of tensors are not checked, because tensors are inputs of a recorded step.

    Raises: ValueError for a Python number outside [0, most], or infinite.
    """
    if isinstance(number, int | float) and not (0 <= number <= most and math.isfinite(number)):
        upper = "" if math.isinf(most) else f" and at most {most:g}"
        raise ValueError(f"{name} must be finite and at least 0{upper}, got {number}")
    if callable(number) and not isinstance(number, Schedule):
        return Schedule(number, "epochs", 0.0)
    return number


def constant(value: float) -> Schedule:
    """The same value throughout."""
    return Schedule(_Line(1.0, _finite("value", value), value), "steps", 0.0)


def warmup(epochs: float | None = None, *, steps: int | None = None, start: float = 0.0, end: float = 1.0) -> Schedule:
    r"""A schedule that goes from ``start`` to ``end`` in a straight line over a number of epochs or steps.

    .. math:: v(t) = start + (end - start) \min(1, t / T)

    Args:
        epochs: :math:`T` in epochs, which ``pyrovae.fit`` counts.
        steps: :math:`T` in steps, which ``pyrovae.SVI`` counts; give one of the two.
        start: The value at the beginning.
        end: The value from T on.

    References: Bowman et al. (2016), "Generating sentences from a continuous space", section 3.1; Sønderby et al.
        (2016), "Ladder variational autoencoders", section 3.
    """
    length, unit = _length(epochs, steps)
    return Schedule(_Line(length, _finite("start", start), _finite("end", end)), unit, length)


def cyclical(
    epochs: float | None = None,
    *,
    steps: int | None = None,
    cycles: int = 4,
    rise: float = 0.5,
    start: float = 0.0,
    end: float = 1.0,
) -> Schedule:
    r"""A warm-up that is repeated ``cycles`` times over a number of epochs or steps, then ``end``.

    .. math:: v(t) = start + (end - start) \min\left(1, \tau / R\right), \qquad
        \tau = \frac{t \bmod (T / M)}{T / M}

    Args:
        epochs: :math:`T`, of all cycles together, in epochs.
        steps: :math:`T` in steps, instead of epochs.
        cycles: :math:`M`.
        rise: :math:`R`, the share of a cycle over which the value rises, in (0, 1].
        start: The value at the beginning of a cycle.
        end: The value at its end, and from T on.

    References: Fu et al. (2019), "Cyclical annealing schedule: a simple approach to mitigating KL vanishing", eq. 6.
    """
    length, unit = _length(epochs, steps)
    if cycles < 1:
        raise ValueError(f"cycles must be at least 1, got {cycles}")
    if not 0 < rise <= 1:
        raise ValueError(f"rise must be in (0, 1], got {rise}")
    cycle = _Cycles(length, _finite("start", start), _finite("end", end), cycles, rise)
    # constant once the last cycle has risen
    return Schedule(cycle, unit, length * (cycles - 1 + rise) / cycles)


# Dataclasses instead of closures, so that two schedules of the same numbers are equal.
@dataclass(frozen=True)
class _Line:
    length: float
    start: float
    end: float

    def __call__(self, done: float) -> float:
        return self.end if done >= self.length else self.start + (self.end - self.start) * done / self.length


@dataclass(frozen=True)
class _Cycles(_Line):
    cycles: int
    rise: float

    def __call__(self, done: float) -> float:
        if done >= self.length:
            return self.end
        part = done / self.length * self.cycles % 1.0
        return self.start + (self.end - self.start) * min(1.0, part / self.rise)


def _length(epochs: float | None, steps: int | None) -> tuple[float, str]:
    if (epochs is None) == (steps is None):
        raise ValueError(f"one of epochs and steps must be given, got epochs={epochs} and steps={steps}")
    unit, length = ("epochs", epochs) if steps is None else ("steps", steps)
    if not 0 < length < math.inf:  # type: ignore[operator]  # one is given
        raise ValueError(f"{unit} must be positive, got {length}")
    return float(length), unit  # type: ignore[arg-type]  # one is given


def _finite(name: str, value: float) -> float:
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} must be finite and at least 0, got {value}")
    return float(value)
