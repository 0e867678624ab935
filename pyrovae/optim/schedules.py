r"""Schedules of the learning rate: what an optimizer here takes in the place of a number.

``adam(lr=cosine(1e-3, epochs=50))``. The clock t is that of the schedules of the objectives: epochs with fractions
within one, or steps, from 0 at the first step. T is the length of the schedule, and :math:`\eta` the learning rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pyrovae.objectives import Schedule
from pyrovae.objectives import warmup as rise_to_one
from pyrovae.optim.numbers import at_least_zero, positive, share

__all__ = ["Plateau", "cosine", "one_cycle", "plateau", "step_decay", "warmup"]


@dataclass(frozen=True)
class Plateau:
    """A learning rate that falls where the validation loss does not; :func:`plateau` makes it."""

    lr: float
    factor: float
    patience: int
    threshold: float
    end: float


def step_decay(lr: float, epochs: float | None = None, *, steps: int | None = None, factor: float = 0.1) -> Schedule:
    r"""A fall by the same factor after every T epochs or steps.

    .. math:: \eta(t) = \eta\, \gamma^{\lfloor t / T \rfloor}

    Args:
        lr: :math:`\eta`.
        epochs: T in epochs.
        steps: T in steps, in the place of epochs.
        factor: :math:`\gamma`, in (0, 1).
    """
    clock = _clock(lr, epochs, steps)
    positive(factor=factor)
    share(factor=factor)
    return Schedule(lambda done: lr * factor ** (done // clock.end), clock.unit, math.inf)


def cosine(
    lr: float, epochs: float | None = None, *, steps: int | None = None, warmup: float = 0.0, end: float = 0.0
) -> Schedule:
    r"""Half a cosine from ``lr`` down to ``end``, after a linear warm-up where there is one, then ``end``.

    .. math:: \eta(t) = \begin{cases} \eta\, t / W & t < W \\
        \eta_{end} + (\eta - \eta_{end}) \frac12 \left(1 + \cos \pi \frac{t - W}{T - W}\right) & W \le t < T \end{cases}

    Args:
        lr: :math:`\eta`.
        epochs: T in epochs, warm-up included.
        steps: T in steps, in the place of epochs.
        warmup: W, in what T is in.
        end: :math:`\eta_{end}`.

    References: Loshchilov and Hutter (2017), "SGDR: stochastic gradient descent with warm restarts", eq. 5, of which
        this is one period.
    """
    clock = _clock(lr, epochs, steps)
    at_least_zero(warmup=warmup, end=end)
    if warmup >= clock.end:
        raise ValueError(f"warmup must be shorter than the {clock.end:g} {clock.unit} of the schedule, got {warmup}")
    rise = warmup / clock.end

    def value(done: float) -> float:
        part = clock(done)
        return lr * part / rise if part < rise else _bend(lr, end, (part - rise) / (1 - rise))

    return Schedule(value, clock.unit, clock.end)


def one_cycle(
    lr: float,
    epochs: float | None = None,
    *,
    steps: int | None = None,
    rise: float = 0.3,
    start: float | None = None,
    end: float | None = None,
) -> Schedule:
    r"""Up from ``start`` to ``lr`` and down to ``end``, each half a cosine, then ``end``.

    .. math:: \eta(t) = \begin{cases} c(\eta_0, \eta, t / RT) & t < RT \\
        c(\eta, \eta_{end}, (t - RT) / (T - RT)) & RT \le t < T \end{cases} , \qquad
        c(a, b, u) = b + (a - b) \tfrac12 (1 + \cos \pi u)

    Args:
        lr: :math:`\eta`, the largest.
        epochs: T in epochs.
        steps: T in steps, in the place of epochs.
        rise: R, the share of T over which it rises, in (0, 1).
        start: :math:`\eta_0`; None is lr / 25.
        end: :math:`\eta_{end}`; None is lr / 250,000.

    References: Smith and Topin (2019), "Super-convergence: very fast training of neural networks using large learning
        rates". Theirs rises and falls in straight lines and moves the momentum against the learning rate; the bends and
        the defaults are those of torch's ``OneCycleLR``, and the momentum stays.
    """
    clock = _clock(lr, epochs, steps)
    first, last = lr / 25 if start is None else start, lr / 25e4 if end is None else end
    positive(rise=rise)
    share(rise=rise)
    at_least_zero(start=first, end=last)

    def value(done: float) -> float:
        part = clock(done)
        return _bend(first, lr, part / rise) if part < rise else _bend(lr, last, (part - rise) / (1 - rise))

    return Schedule(value, clock.unit, clock.end)


def warmup(lr: float, epochs: float | None = None, *, steps: int | None = None, start: float = 0.0) -> Schedule:
    r"""From ``start`` to ``lr`` in a straight line, then ``lr``.

    .. math:: \eta(t) = \eta_0 + (\eta - \eta_0) \min(1, t / T)

    Args:
        lr: :math:`\eta`.
        epochs: T in epochs.
        steps: T in steps, in the place of epochs.
        start: :math:`\eta_0`.

    References: Goyal et al. (2017), "Accurate, large minibatch SGD: training ImageNet in 1 hour", section 2.2.
    """
    clock = _clock(lr, epochs, steps)
    at_least_zero(start=start)
    return Schedule(lambda done: start + (lr - start) * clock(done), clock.unit, clock.end)


def plateau(lr: float, factor: float = 0.1, patience: int = 10, *, threshold: float = 0.0, end: float = 0.0) -> Plateau:
    r"""A fall by ``factor`` after more than ``patience`` epochs in which the validation loss did not get better.

    By torch's ``ReduceLROnPlateau``; ``pyrovae.fit`` tells it the loss at the end of each epoch.

    Args:
        lr: The learning rate at first.
        factor: What it is multiplied by, in (0, 1).
        patience: Epochs that are waited, at least 0.
        threshold: By how much the loss must be below the least one so far to be better, in nats per datum.
        end: The learning rate falls no further.
    """
    positive(lr=lr, factor=factor)
    share(factor=factor)
    at_least_zero(patience=patience, threshold=threshold, end=end)
    if not isinstance(patience, int):
        raise ValueError(f"patience must be a whole number, got {patience!r}")
    return Plateau(lr, factor, patience, threshold, end)


def _clock(lr: float, epochs: float | None, steps: int | None) -> Schedule:
    """t / T, and 1 from T on."""
    positive(lr=lr, **{key: value for key, value in (("epochs", epochs), ("steps", steps)) if value is not None})
    return rise_to_one(epochs, steps=steps)


def _bend(first: float, last: float, part: float) -> float:
    """Half a cosine from the first value to the last."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * part))
