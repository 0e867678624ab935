"""A search for the learning rate: short runs from the same weights, judged on held-out rows."""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pyro
from torch import Tensor

from pyrovae.data import Data
from pyrovae.train.fitting import fit
from pyrovae.vae import VAE

__all__ = ["LearningRate", "search_lr"]

RISE = 0.1  # of a loss, as a share of what it had fallen, that noise and a good rate do not have
FINE = 2.5  # between two rates, up to which there is none between them to try


class LearningRate(NamedTuple):
    """What a search found, and what it cost."""

    lr: float  # of the least loss among the steady rates
    losses: dict[float, float]  # the last validation loss of each rate, in nats per datum; infinite where it diverged
    unsteady: tuple[float, ...]  # rates whose loss rose on its way
    at_edge: bool  # lr is the least or the largest rate, and a better one may lie beyond it
    epochs: int  # of all trials together
    seconds: float


def search_lr(
    vae: VAE,
    data: Data | Tensor,
    optim: Callable[[float], pyro.optim.PyroOptim],
    rates: Sequence[float] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    epochs: int = 2,
    *,
    val: Tensor | None = None,
    seed: int = 0,
    **options: Any,
) -> LearningRate:
    r"""The learning rate after whose few epochs the validation loss is least.

    .. math:: \eta^* = \arg\min_\eta\, \mathcal{L}_{val}(\theta_\eta)

    where :math:`\theta_\eta` are the last weights of a run of ``epochs`` at the rate :math:`\eta`. All runs start from
    the weights that ``vae`` has, which it has again at the end, and see the same batches and draws. A run that diverges
    has an infinite loss. A rate at which the loss rises, by more than a tenth of what it had fallen since the first
    epoch, is too high to be relied upon, and is taken only where all others do so too. Where the best rate is the first
    or the last, one more is tried beyond it. Then one is tried between the best and each neighbour that is more than
    2.5 times as large or as small.

    Args:
        vae: The VAE before its training.
        data: A :class:`~pyrovae.data.Data`, of which training and validation set are used, or a tensor.
        optim: Makes the optimizer of a rate, such as ``pyrovae.optim.adam``.
        rates: The grid, rising, two or more; :func:`pyrovae.optim.usual_rates` has one for each optimizer.
        epochs: Of each run. A rate may be too high for a longer run than this one, and too low for none.
        val: Validation data, where ``data`` brings none.
        seed: Of the order and the draws.
        options: Whatever else :func:`~pyrovae.fit` takes.

    Units: losses in nats per datum.
    Raises: ValueError without validation data, for a grid that does not rise from above 0, and where all runs diverge.
    Example:
        >>> import pyrovae as pv
        >>> data = pv.data.digits()
        >>> vae = pv.build_vae(data.event_shape, 4, hidden=(16,))
        >>> found = pv.train.search_lr(vae, data, pv.optim.adam, epochs=1)
        >>> history = pv.fit(vae, data, epochs=2, optim=pv.optim.adam(found.lr), progress=False)
    """
    if val is None and not isinstance(data, Data):
        raise ValueError("val must be given where data is no pyrovae.data.Data: held-out rows choose the rate")
    grid = [float(rate) for rate in rates]
    if len(grid) < 2 or not 0 < grid[0] < grid[-1] < math.inf or any(b <= a for a, b in itertools.pairwise(grid)):
        raise ValueError(f"rates must be two or more that rise from above 0, got {list(rates)}")
    weights = copy.deepcopy(vae.state_dict())
    losses: dict[float, float] = {}
    unsteady: list[float] = []
    epochs_done = 0
    start = time.perf_counter()

    def count(*_: Any) -> None:
        nonlocal epochs_done
        epochs_done += 1

    def attempt(rate: float) -> None:
        vae.load_state_dict(weights)
        settings = {"progress": False, **options, "callbacks": (*options.get("callbacks", ()), count)}
        try:
            history = fit(vae, data, epochs, optim=optim(rate), val=val, seed=seed, **settings)
        except FloatingPointError:
            losses[rate] = math.inf
            unsteady.append(rate)
            count()  # the epoch it diverged in
        else:
            losses[rate] = history["val_loss"][-1]
            if not _falls(history["val_loss"]):
                unsteady.append(rate)

    def best_rate() -> float:
        return min(losses, key=lambda rate: (rate in unsteady, losses[rate]))

    try:
        for rate in grid:
            attempt(rate)
        best = best_rate()
        ratio = (grid[-1] / grid[0]) ** (1 / (len(grid) - 1))
        if best in (grid[0], grid[-1]) and math.isfinite(losses[best]):
            beyond = best * ratio if best == grid[-1] else best / ratio
            attempt(float(f"{beyond:.1g}") if ratio > FINE else beyond)  # 1, 3, 10, and 30 after it
        best = best_rate()
        for low, high in itertools.pairwise(sorted(losses)):
            if best in (low, high) and high > FINE * low and math.isfinite(losses[best]):
                attempt(float(f"{math.sqrt(low * high):.1g}"))  # 2 between 1 and 3
    finally:
        vae.load_state_dict(weights)
    best = best_rate()
    if math.isinf(losses[best]):
        raise ValueError(f"rates: the loss diverged at each of {', '.join(f'{rate:g}' for rate in losses)}")
    at_edge = best in (min(losses), max(losses))
    return LearningRate(best, losses, tuple(sorted(unsteady)), at_edge, epochs_done, time.perf_counter() - start)


def _falls(losses: Sequence[float]) -> bool:
    """Whether a loss never rises by more than a share of what it had fallen since the first epoch."""
    least = losses[0]
    for loss in losses[1:]:
        if loss > least + RISE * (losses[0] - least):
            return False
        least = min(least, loss)
    return True
