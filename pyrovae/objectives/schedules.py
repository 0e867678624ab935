r"""Schedules: numbers that change over a training run, such as the weight of the KL."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Schedule", "constant", "cyclical", "warmup"]


@dataclass(frozen=True)
class Schedule:
    """A function of the epochs or of the steps done, which knows when it comes to rest.

    Args:
        value: The function.
        unit: What it counts, ``"epochs"`` (with fractions within one) or ``"steps"``.
        end: From when on its value is the same for good; a run that ends before it is refused by ``pyrovae.fit``.
    """

    value: Callable[[float], float]
    unit: str
    end: float

    def __call__(self, done: float) -> float:
        return self.value(done)


def constant(value: float) -> Schedule:
    """The same value throughout."""
    checked = _finite("value", value)
    return Schedule(lambda _: checked, "steps", 0.0)


def warmup(epochs: float | None = None, *, steps: int | None = None, start: float = 0.0, end: float = 1.0) -> Schedule:
    r"""From ``start`` to ``end`` in a straight line over so many epochs or steps, then ``end``.

    .. math:: v(t) = start + (end - start) \min(1, t / T)

    Args:
        epochs: :math:`T` in epochs.
        steps: :math:`T` in steps, in the place of epochs: what ``pyro.infer.SVI`` has, which knows of no epochs.
        start: The value at the beginning.
        end: The value from T on.

    References: Bowman et al. (2016), "Generating sentences from a continuous space", section 3.1; Sønderby et al.
        (2016), "Ladder variational autoencoders", section 3.
    """
    length, unit = _length(epochs, steps)
    first, last = _finite("start", start), _finite("end", end)
    return Schedule(lambda done: last if done >= length else first + (last - first) * done / length, unit, length)


def cyclical(
    epochs: float | None = None,
    *,
    steps: int | None = None,
    cycles: int = 4,
    rise: float = 0.5,
    start: float = 0.0,
    end: float = 1.0,
) -> Schedule:
    r"""A warm-up that begins anew in each of ``cycles`` equal parts of so many epochs or steps in all, then ``end``.

    .. math:: v(t) = start + (end - start) \min\left(1, \tau / R\right), \qquad
        \tau = \frac{t \bmod (T / M)}{T / M}

    Args:
        epochs: :math:`T`, of all cycles together, in epochs.
        steps: :math:`T` in steps, in the place of epochs.
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
    first, last = _finite("start", start), _finite("end", end)

    def value(done: float) -> float:
        if done >= length:
            return last
        part = done / length * cycles % 1.0
        return first + (last - first) * min(1.0, part / rise)

    # it is at its last value for good once the last cycle has risen
    return Schedule(value, unit, length * (cycles - 1 + rise) / cycles)


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
