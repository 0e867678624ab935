"""``Trainer``: what ``fit`` asks of the object that takes the steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import pyro
import torch
from torch import Tensor

from pyrovae.infer import SVI
from pyrovae.objectives import ELBO

__all__ = ["Model", "Optim", "Pair", "Trainer", "functions_of", "make_trainer"]

Pair = tuple[Callable[..., object], Callable[..., object]]
Model = object  # a VAE, a pair, or a model with a method `trainer`
Optim = pyro.optim.PyroOptim | tuple[pyro.optim.PyroOptim, ...] | None


class Trainer(Protocol):
    """Takes the steps of a run; :class:`~pyrovae.SVI` and :class:`~pyrovae.adversarial.Updates` are trainers.

    An attribute ``comparable = False`` says that losses of two epochs cannot be compared: no epoch is then the best.
    """

    def step(self, *batch: Tensor) -> float:
        """Take one training step on a batch and return its loss before the step, in nats summed over the batch."""

    def evaluate(self, *batch: Tensor) -> float:
        """The validation loss of a batch, in nats summed over the batch; takes no step."""

    def state_dict(self) -> Mapping[str, object]:
        """The optimizer's state by names of parameters, and whatever the trainer counts."""

    def load_state_dict(self, state: Any) -> None:
        """Put back what :meth:`state_dict` returned, also where it was taken before the first step."""


def functions_of(vae: Model) -> Pair | None:
    """Model and guide; None where the model makes its own trainer."""
    if hasattr(vae, "trainer"):
        return None
    return vae if isinstance(vae, tuple) else (vae.model, vae.guide)  # type: ignore[attr-defined]  # checked before


def make_trainer(vae: Model, optim: Optim, loss: object, **options: object) -> Trainer:
    """The trainer that a model makes, or an :class:`~pyrovae.SVI` of its two functions."""
    if hasattr(vae, "trainer"):
        return vae.trainer(optim, loss, **options)
    optim = pyro.optim.PyroOptim(torch.optim.Adam, {"lr": 1e-3}) if optim is None else optim
    svi = SVI(*functions_of(vae), optim, ELBO() if loss is None else loss, **options)  # type: ignore[misc, arg-type]  # checked
    svi.checks = True
    return svi
