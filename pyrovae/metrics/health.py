"""Which gates move with the data, and a warning while training runs that the code goes out of use."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from pyrovae.distributions.hard_concrete import unit_interval_with_atoms
from pyrovae.distributions.rectified_normal import nonnegative_with_atom
from pyrovae.distributions.spike_slab import real_with_atom
from pyrovae.guards import same_support
from pyrovae.metrics.collapse import active_units
from pyrovae.metrics.draws import Pair, Sites, chunks, drawn, local, measuring
from pyrovae.vae import VAE

__all__ = ["CollapseWarning", "DeadGates", "HealthCheck", "dead_gates", "gate_probabilities"]

WITH_ATOM = (real_with_atom, nonnegative_with_atom, unit_interval_with_atoms)


def gate_probabilities(vae: VAE | Pair, x: Tensor) -> Tensor:
    r""":math:`q(z_j \ne 0|x)` of each coordinate of each datum, ``(N, D)``; its mean over x is how often it is used.

    Of the guide's first site whose coordinates are zero with a probability: a law with an atom there, bits or counts.

    Args:
        vae: A VAE or a pair ``(model, guide)``.
        x: ``(N, *event_shape)``.

    Raises: ValueError where the guide has no such site.
    """
    parts = []
    with measuring(vae):
        for rows, _ in chunks(x, 1):
            gates = _gates(local(drawn(vae, rows, 1)[1]))
            if gates is None:
                raise ValueError("the guide has no site whose coordinates are zero with a probability: no gates")
            parts.append(gates.reshape(len(rows), -1))
    return torch.cat(parts)


class DeadGates(NamedTuple):
    """Masks ``(D,)``: which gates are shut for all data, and which are open for all."""

    shut: Tensor
    open: Tensor


def dead_gates(vae: VAE | Pair, x: Tensor, threshold: float = 0.01) -> DeadGates:
    r"""Gates that do not follow the data: :math:`q(z_j \ne 0|x)` is below the threshold for all x, or above 1 - it.

    Args:
        vae: A VAE or a pair ``(model, guide)``.
        x: ``(N, *event_shape)``.
        threshold: A probability, below 1/2.

    Raises: ValueError where the guide has no gates; see :func:`gate_probabilities`.
    """
    if not 0.0 <= threshold < 0.5:
        raise ValueError(f"threshold must be a probability below 1/2, got {threshold}")
    gates = gate_probabilities(vae, x)
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
        x: Data to look at, ``(N, *event_shape)``; a few hundred rows are enough.
        every: Look at every so many epochs.
        by: What an active unit is: ``"kl"``, or ``"variance"`` where the prior has no independent coordinates; see
            :func:`active_units`.
        threshold: Of an active unit, and of a dead gate.
        shrink: Share of the most units that were active, below which a warning is due.

    ``active`` has the number of active units at each epoch that was looked at.

    Raises: ValueError if ``every`` is not a positive whole number, or ``shrink`` or ``threshold`` out of range.
    Example:
        >>> check = HealthCheck(torch.zeros(5, 2), every=10)
        >>> check.active
        {}
    """

    def __init__(self, x: Tensor, every: int = 1, by: str = "kl", threshold: float = 0.01, shrink: float = 0.5) -> None:
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"every must be a positive whole number, got {every!r}")
        if by not in ("variance", "kl"):
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
        x = self.x if parameter is None else self.x.to(parameter)
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            problems = list(self._problems(vae, x, epoch))
        for kind, text in problems:
            if kind not in self._told:
                self._told.add(kind)
                warnings.warn(f"epoch {epoch}: {text}", CollapseWarning, stacklevel=2)

    def _problems(self, vae: VAE, x: Tensor, epoch: int) -> Iterator[tuple[str, str]]:
        mask = active_units(vae, x, self.threshold, self.by)
        now = self.active[epoch] = int(mask.sum())
        most = max(self.active.values())
        if now == 0:
            text = f"none of {len(mask)} latent units is active: the guide says nothing of x (posterior collapse)"
            yield "none", f"{text}; warm up the KL, loss=ELBO(beta=warmup(...)), or weaken the decoder"
        elif now < self.shrink * most:
            yield "fewer", f"{now} of {len(mask)} latent units are active, and there were {most}: warm up the KL"
        with measuring(vae):
            has_gates = _gates(local(drawn(vae, x[:1], 1)[1])) is not None
        if has_gates:
            shut, open_ = dead_gates(vae, x, self.threshold)
            if shut.all():
                text = "every gate is shut for all data: every code is zero"
                yield "shut", f"{text}; start the gates open (the bias of their logits), or warm up the KL"
            if open_.all():
                yield "open", "every gate is open for all data: no code has a zero; lower the prior's activity"


def _gates(guide: Sites) -> Tensor | None:
    """The probability of not being zero, of the first site that has one."""
    for site in guide.values():
        law = site["fn"]
        while isinstance(law, Independent):
            law = law.base_dist
        if law.event_shape:
            continue
        if any(same_support(law.support, atom) for atom in WITH_ATOM) or law.support.is_discrete:
            zero = torch.zeros(law.batch_shape).to(site["value"])
            return -torch.expm1(law.log_prob(zero))
    return None
