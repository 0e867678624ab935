"""``fit_many``: models from several seeds, whose steps are compiled once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import nn

from pyrovae.infer import sharing
from pyrovae.random_state import RandomState
from pyrovae.train.fitting import fit
from pyrovae.train.run import History
from pyrovae.train.trainer import Model

__all__ = ["Many", "fit_many"]

OWN = ("optim", "callbacks")  # have state
ONE_ONLY = {"seed": "give seeds", "out": "train one model with pyrovae.fit", "resume": "train one with pyrovae.fit"}


class Many(NamedTuple):
    """Models and their histories, in the order of the seeds."""

    vaes: list[Any]
    histories: list[History]


def fit_many(
    make: Callable[[int], Model],
    data: object,
    seeds: Iterable[int] = range(10),
    **settings: Any,
) -> Many:
    """Train a model from each of several seeds, with one compilation for all of them.

    Each model is the one that it would be alone:

        torch.manual_seed(seed)
        vae = make(seed)
        history = pv.fit(vae, data, seed=seed, **settings)

    It has its own weights, order of the batches and draws. Every number is the same to the last bit, except for the
    rounding of compiled steps where only one of the two runs was compiled.

    The models are trained one after the other. A step is compiled once, as soon as that pays for all models together,
    and every model whose recorded graph is equal uses that code. A model with another graph is compiled for itself,
    and a step that cannot be compiled runs as it does alone.

    Args:
        make: Builds the model of a seed. torch, Python and NumPy draw from that seed inside.
        data: As of :func:`~pyrovae.fit`.
        seeds: Whole numbers, all different.
        settings: Further arguments of :func:`~pyrovae.fit`, all but ``seed``, ``out`` and ``resume``. Each model gets a
            copy of ``optim`` and of ``callbacks``, so that they may have state.

    Returns: ``vaes`` and ``histories``, a list each.
    Raises: ValueError or TypeError for seeds that are equal, none or no whole numbers, and for settings that one model
        alone can have; whatever :func:`~pyrovae.fit` raises, with the seed in front of its message.
    See also: :func:`~pyrovae.metrics.stability`, which says how many latents all seeds have in common.
    """
    seeds = list(seeds)
    if bad := [seed for seed in seeds if not isinstance(seed, Integral) or isinstance(seed, bool)]:
        raise TypeError(f"seeds must be whole numbers, got {bad[0]!r}")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be one or more, all different, got {seeds}")
    if not callable(make) or isinstance(make, nn.Module):
        raise TypeError(f"make must be a function of a seed that builds a model, got {type(make).__name__}")
    for name, instead in ONE_ONLY.items():
        if name in settings:
            raise TypeError(f"{name} is for one model, and fit_many trains several: {instead}")
    if getattr(settings.get("optim"), "optim_objs", None):
        raise ValueError("optim has the state of a model that it trained: give a new optimizer")
    result = Many([_made(make, seed) for seed in seeds], [])
    if len(set(map(id, result.vaes))) < len(seeds):
        raise ValueError("make must build a new model for each seed, and it returned the same one twice")
    with sharing(len(seeds)) as programs:
        for seed, vae in zip(seeds, result.vaes, strict=True):
            own: dict[str, Any] = {name: copy.deepcopy(settings[name]) for name in OWN if name in settings}
            with _named(seed):
                result.histories.append(fit(vae, data, seed=seed, **{**settings, **own}))  # type: ignore[arg-type]
            programs.num_runs -= 1
    return result


def _made(make: Callable[[int], Model], seed: int) -> Any:
    with _named(seed), RandomState(seed, torch.device("cpu")).in_place():
        return make(seed)


@contextmanager
def _named(seed: int) -> Iterator[None]:
    """Put the seed in front of the message of an error."""
    try:
        yield
    except Exception as error:
        if len(error.args) == 1:
            error.args = (f"seed {seed}: {error.args[0]}",)
        raise
