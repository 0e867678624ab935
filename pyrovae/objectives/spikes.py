"""A warm-up of spike-and-slab guides that trains the spikes before the slabs."""

from __future__ import annotations

from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrovae.distributions import SpikeSlab
from pyrovae.objectives.sites import Site

__all__ = ["SpikesFirst"]


class SpikesFirst(Messenger):
    r"""A handler around a guide that tempers its slabs: standard ones at :math:`\lambda = 0`, the guide's own at 1.

    .. math:: (\mu, \sigma) \mapsto (\lambda \mu, \sigma^\lambda)

    for the location and the scale of each spike-and-slab site. At 0 a code tells the decoder only which gates are open.

    References: Tonolini, Jensen and Murray-Smith (2020), "Variational sparse coding", section 3.4 and its supplement.
    """

    def __init__(self, weight: float | Tensor) -> None:
        super().__init__()
        self.weight = weight
        self.found = False

    def _pyro_sample(self, msg: Site) -> None:
        fn = msg["fn"]
        while isinstance(fn, torch.distributions.Independent):
            fn = fn.base_dist
        if isinstance(fn, SpikeSlab):
            self.found = True
            tempered = SpikeSlab(fn.logits, self._tempered(fn.slab, msg["name"]))
            msg["fn"] = tempered.to_event(msg["fn"].event_dim) if msg["fn"].event_dim else tempered

    def _tempered(self, slab: Any, name: str) -> Any:
        if not {"loc", "scale"} <= set(slab.arg_constraints):
            raise ValueError(f"spikes_first: the slab {type(slab).__name__} of site {name!r} has no location and scale")
        values = {key: getattr(slab, key) for key in slab.arg_constraints}
        return type(slab)(**{**values, "loc": self.weight * slab.loc, "scale": slab.scale**self.weight})

    def check_found(self) -> None:
        """Raise a ValueError if the guide had no spike-and-slab site."""
        if not self.found:
            raise ValueError("spikes_first: the guide has no spike-and-slab site")
