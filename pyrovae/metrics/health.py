"""Which gates move with the data, and a warning while training runs that the code goes out of use."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pyrovae import guards
from pyrovae.metrics.collapse import active_units
from pyrovae.metrics.latent_codes import nonzero_probability
from pyrovae.rows import Rows, data_of, moved
from pyrovae.vae import VAE

__all__ = ["CollapseWarning", "DeadGates", "HealthCheck", "dead_gates"]


class DeadGates(NamedTuple):
    """Masks ``(D,)``: which gates are shut for all data, and which are open for all."""

    shut: Tensor
    open: Tensor


def dead_gates(vae: VAE, x: Rows, threshold: float = 0.01) -> DeadGates:
    r"""Gates that do not follow the data: :math:`q(z_j \ne 0|x)` is below the threshold for all x, or above 1 - it.

    Args:
        vae: A VAE.
        x: ``(N, *event_shape)``.
        threshold: A probability, below 1/2.

    Raises: ValueError where no coordinate of the guide is ever zero; see :func:`~pyrovae.metrics.spike_occupancy`.
    """
    if not 0.0 <= threshold < 0.5:
        raise ValueError(f"threshold must be a probability below 1/2, got {threshold}")
    gates, exact = nonzero_probability(vae, x)
    if not exact and bool((gates == 1).all()):
        raise ValueError(f"guide {type(vae.posterior).__name__} has no gates: no coordinate is zero with a probability")
    return DeadGates((gates < threshold).all(0), (gates > 1 - threshold).all(0))


class CollapseWarning(UserWarning):
    """The code is going out of use while training runs."""


class HealthCheck:
    r"""Warns, once for each problem, when a model in training stops using its code: a callback of ``pyrovae.fit``.

    It looks at the active units and, where the guide has them, at the gates: that no unit is active; that fewer are
    than ``shrink`` times the most there have been; that every gate is shut for all data, or open for all. Each is a
    :class:`CollapseWarning`, at the epoch that shows it, and training goes on. Neither the model nor torch's random
    state is changed: a run has the same weights with it and without.

    Args:
        x: Data to look at, ``(N, *event_shape)`` or ``(x, y)``; a few hundred rows are enough.
        every: Look at every so many epochs.
        by: What an active unit is, ``"kl"`` or ``"variance"``: see :func:`active_units`. None is the first, or the
            second where prior or guide has no independent coordinates.
        threshold: Of an active unit, and of a dead gate.
        shrink: Share of the most units that were active, below which a warning is due.

    ``active`` has the number of active units at each epoch that was looked at.

    Raises: ValueError if ``every`` is not a positive whole number, or ``shrink`` or ``threshold`` out of range.
    Example:
        >>> check = HealthCheck(torch.zeros(5, 2), every=10)
        >>> check.active
        {}
    """

    def __init__(
        self, x: Rows, every: int = 1, by: str | None = None, threshold: float = 0.01, shrink: float = 0.5
    ) -> None:
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"every must be a positive whole number, got {every!r}")
        if by not in (None, "variance", "kl"):
            raise ValueError(f"by must be variance or kl, got {by!r}")
        if not 0.0 <= threshold < 0.5:
            raise ValueError(f"threshold must be at least 0 and below 1/2, got {threshold}")
        if not 0.0 <= shrink <= 1.0:
            raise ValueError(f"shrink must be between 0 and 1, got {shrink}")
        self.x, self.every, self.by, self.threshold, self.shrink = x, every, by, threshold, shrink
        self.active: dict[int, int] = {}
        self._told: set[str] = set()

    def __call__(self, vae: VAE, epoch: int, history: Any = None) -> None:
        """Look, after an epoch; ``history`` is not read."""
        if epoch % self.every:
            return
        parameter = next(vae.parameters(), None) if isinstance(vae, nn.Module) else None
        x = self.x if parameter is None else moved(self.x, parameter)
        # the lock: another thread may be training, with a random state of its own
        with guards.pyro_lock, torch.random.fork_rng([data_of(x).device] if data_of(x).is_cuda else []):
            problems = list(self._problems(vae, x, epoch))
        for kind, text in problems:
            if kind not in self._told:
                self._told.add(kind)
                warnings.warn(f"epoch {epoch}: {text}", CollapseWarning, stacklevel=2)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint of a run keeps."""
        return {"active": self.active, "told": sorted(self._told)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` returned."""
        self.active, self._told = dict(state["active"]), set(state["told"])

    def _problems(self, vae: VAE, x: Rows, epoch: int) -> Iterator[tuple[str, str]]:
        mask = self._active(vae, x)
        now = self.active[epoch] = int(mask.sum())
        most = max(self.active.values())
        if now == 0:
            text = f"none of {len(mask)} latent units is active: the guide says nothing of x (posterior collapse)"
            yield "none", f"{text}; warm up the KL, loss=ELBO(beta=warmup(...)), or weaken the decoder"
        elif now < self.shrink * most:
            yield "fewer", f"{now} of {len(mask)} latent units are active, and there were {most}: warm up the KL"
        with suppress(ValueError):  # a guide without gates
            shut, open_ = dead_gates(vae, x, self.threshold)
            if shut.all():
                text = "every gate is shut for all data: every code is zero"
                yield "shut", f"{text}; start the gates open (the bias of their logits), or warm up the KL"
            if open_.all():
                yield "open", "every gate is open for all data: no code has a zero; lower the prior's activity"

    def _active(self, vae: VAE, x: Rows) -> Tensor:
        if self.by is None:
            try:
                return active_units(vae, x, self.threshold, "kl")
            except ValueError:  # a law of whole codes
                return active_units(vae, x, self.threshold, "variance")
        return active_units(vae, x, self.threshold, self.by)
