"""``check``: a model, a guide and the objective that trains them, looked at once before training."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import cast

import pyro
import torch
from pyro import poutine
from pyro.infer import ELBO, EnergyDistance, JitTraceMeanField_ELBO, TraceEnum_ELBO, TraceTMC_ELBO
from torch import Tensor, nn

from pyrovae.guards.registration import stored, take_out
from pyrovae.guards.sites import Site, Sites, check_guide_site, check_sites, is_drawn
from pyrovae.guards.switch import pyro_lock

__all__ = ["check", "check_optim"]


def check(
    model: Callable[..., object], guide: Callable[..., object], loss: object, *args: object, **kwargs: object
) -> None:
    """Refuse a model and a guide that Pyro would train wrongly without an error; the list is in ``docs/guards.md``.

    ``pyrovae.SVI`` and ``pyrovae.fit`` call it at their first step. In front of Pyro's own SVI, call it once.

    Guide and model run once, on a batch. Afterwards everything that the run moved is as before: the random state of
    torch, Python and NumPy, Pyro's parameter store, gradients, the buffers and attributes of modules, and the
    attributes of an object whose methods model and guide are. A global variable that they change stays changed.

    Args:
        model: p(x, z), a function with Pyro statements.
        guide: q(z|x), likewise.
        loss: The objective, of pyrovae or of Pyro. Of any other callable nothing is known, as of None: then only what
            is wrong under every objective is refused.
        args: A batch: what ``svi.step`` is called with.
        kwargs: Likewise.

    Raises: ValueError that names the site, what was expected, what came and what to do.
    """
    objective = getattr(loss, "__self__", loss)
    if isinstance(objective, JitTraceMeanField_ELBO):
        raise ValueError("loss: JitTraceMeanField_ELBO traces anew at every step: use TraceMeanField_ELBO")
    with pyro_lock, _undone(model, guide), torch.enable_grad(), pyro.validation_enabled(False):
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
        q, p = (cast(Sites, trace.nodes) for trace in (guide_trace, model_trace))
        for site in q.values():
            if is_drawn(site):
                check_guide_site(site, objective)
        known = isinstance(objective, ELBO | EnergyDistance)
        check_sites(p, q, enumerated=not known or isinstance(objective, TraceEnum_ELBO | TraceTMC_ELBO))
        _check_trained([*q.values(), *p.values()], {id(x) for x in (*args, *kwargs.values())})


def check_optim(optim: object) -> None:
    """Refuse an optimizer that is not Pyro's, and one that clips each tensor by itself."""
    if not isinstance(optim, pyro.optim.PyroOptim):
        raise TypeError(
            f"optim must be an optimizer of pyro.optim or pyrovae.optim, got {type(optim).__name__}: an optimizer of "
            f'torch is given as pyro.optim.PyroOptim(torch.optim.Adam, {{"lr": 1e-3}})'
        )
    if isinstance(optim.pt_clip_args, Mapping) and "clip_norm" in optim.pt_clip_args:
        raise ValueError(
            "optim: Pyro's clip_norm clips each tensor by itself, which turns the gradient: use clip_value, or "
            "clip_norm of pyrovae.SVI or pyrovae.fit, the norm of all parameters together"
        )


def _check_trained(sites: Sequence[Site], given: set[int]) -> None:
    """Refuse a tensor that asks for a gradient and that Pyro was not told of: SVI would leave it as it is."""
    known = given | {id(vars(site["value"])["unconstrained"]()) for site in sites if site["type"] == "param"}
    log_probs = []
    for site in sites:
        with suppress(NotImplementedError, ValueError, RuntimeError):  # the objective says better what is wrong there
            log_probs += [site["fn"].log_prob(site["value"])] if site["type"] == "sample" else []
    shapes = [str(tuple(leaf.shape)) for leaf in _leaves(log_probs) if id(leaf) not in known]
    if shapes:
        raise ValueError(
            f"model and guide use tensors of shapes {', '.join(shapes)} that ask for a gradient and are no parameters "
            f"of Pyro, so that nobody would train them: call pyro.module(name, network) in the function that uses "
            f"them, or pyro.param. Is the name that of an earlier network, call pyro.clear_param_store() first"
        )


def _leaves(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors that a backward pass would give a gradient to."""
    nodes, seen = [t.grad_fn for t in tensors], set()
    leaves = [t for t in tensors if t.is_leaf and t.requires_grad]
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            leaves += [node.variable] if hasattr(node, "variable") else []
            nodes += [parent for parent, _ in node.next_functions]
    return leaves


@contextmanager
def _undone(*functions: Callable[..., object]) -> Iterator[None]:
    """Put back what a run inside changes, also where a module makes its parameters in it, as an autoguide does."""
    names, random, thread = set(stored()), pyro.util.get_rng_state(), threading.get_ident()
    on_cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    owners: dict[int, object] = {}
    attributes: list[tuple[dict[str, object], dict[str, object]]] = []
    buffers: list[tuple[Tensor, Tensor]] = []

    def keep(owner: object, *_: object) -> None:
        if id(owner) in owners or threading.get_ident() != thread or not hasattr(owner, "__dict__"):
            return
        owners[id(owner)] = owner
        dicts = (vars(owner), *(value for value in vars(owner).values() if isinstance(value, dict)))
        attributes.extend((now, dict(now)) for now in dicts)
        if isinstance(owner, nn.Module):
            buffers.extend((buffer, buffer.clone()) for buffer in owner.buffers(recurse=False))
            for module in owner.children():
                keep(module)

    for function in functions:
        keep(getattr(function, "__self__", function))
    hook = nn.modules.module.register_module_forward_pre_hook(keep)
    try:
        yield
    finally:
        hook.remove()
        pyro.util.set_rng_state(random)
        if on_cuda:
            torch.cuda.set_rng_state_all(on_cuda)
        for name in set(stored()) - names:
            take_out(name)
        for now, before in attributes:
            for key in now.keys() - before.keys():
                del now[key]
            now.update({key: value for key, value in before.items() if now.get(key, now) is not value})
        with torch.no_grad():
            for buffer, values in buffers:
                if not torch.equal(buffer, values):
                    buffer.copy_(values)
