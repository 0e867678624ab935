"""To be deleted with the move of these guards into ``pyrovae.guards`` and ``pyrovae.SVI``."""

from __future__ import annotations

from typing import Any

import torch
from pyro.infer import Trace_ELBO
from torch import Tensor

from pyrovae import guards
from pyrovae.rows import Rows, data_of, tensors

__all__ = ["check_registered", "guarded"]


def guarded(vae: Any) -> Any:
    """Model and guide, with the guards around those of a pair."""
    if isinstance(vae, tuple):
        return guards.ModelSites()(vae[0]), guards.GuideSites()(vae[1])
    return vae.model, vae.guide


def check_registered(pair: Any, batch: Rows) -> None:
    """Refuse two functions with a tensor that asks for a gradient and is no Pyro parameter: it would stay as it is."""
    with torch.random.fork_rng(devices=[data_of(batch).device] if data_of(batch).is_cuda else []):
        loss: Any = Trace_ELBO().differentiable_loss(*pair, *tensors(batch))
    known = set(map(id, guards.stored().values()))
    unknown = [leaf for leaf in _leaves(loss) if id(leaf) not in known]
    if unknown:
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in unknown)
        raise ValueError(
            f"the pair has tensors of shapes {shapes} that ask for a gradient and are no Pyro parameters: nobody would "
            f"train them (S17); pyro.module(name, network) in the function that uses them, or pyro.param, names them"
        )


def _leaves(loss: Tensor) -> list[Tensor]:
    """The tensors that a backward pass would give a gradient to."""
    nodes, seen, leaves = [getattr(loss, "grad_fn", None)], set(), []
    while nodes:
        node: Any = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        nodes += [parent for parent, _ in node.next_functions]
    return leaves
