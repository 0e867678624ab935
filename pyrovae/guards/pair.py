"""``check``: a model, a guide and the objective that trains them, looked at once before training."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import cast

import pyro
import torch
from pyro import poutine
from pyro.infer import ELBO, EnergyDistance, JitTraceMeanField_ELBO, TraceEnum_ELBO, TraceTMC_ELBO
from torch import Tensor, nn

from pyrovae import private
from pyrovae.guards.registration import stored
from pyrovae.guards.sites import Sites, check_guide_site, check_sites, is_drawn
from pyrovae.guards.switch import pyro_lock

__all__ = ["check", "check_optim", "undone"]

Function = Callable[..., object]
_SUMMING = (TraceEnum_ELBO, TraceTMC_ELBO)  # over the values of discrete sites, which the guide may leave out


def check(model: Function, guide: Function, loss: object, *args: object, **kwargs: object) -> None:
    """Refuse a model and a guide that Pyro would train wrongly without an error; the list is in ``docs/guards.md``.

    ``pyrovae.SVI`` and ``pyrovae.fit`` call it at their first step if the objective, the model or the guide comes from
    pyrovae. In front of Pyro's own SVI, call it once.

    Guide and model run once, on a batch; several times where the objective draws each site more than once, to see that
    each draw has the log-density that it has by itself. Afterwards everything that the runs moved is as before: the
    random state of torch, Python and NumPy, Pyro's parameter store, gradients, the buffers and attributes of modules,
    and the attributes of an object whose methods model and guide are. A global variable that they change stays changed.

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
    with pyro_lock, undone(model, guide), torch.enable_grad(), pyro.validation_enabled(False):
        unknown = _run(model, guide, objective, args, kwargs)
        if hasattr(objective, "check"):
            objective.check(model, guide, *args, **kwargs)
    shapes = [str(tuple(leaf.shape)) for leaf in (ref() for ref in unknown) if leaf is not None]
    if shapes:
        raise ValueError(
            f"model and guide use tensors of shapes {', '.join(shapes)} that ask for a gradient and are no parameters "
            f"of Pyro, so that nobody would train them: call pyro.module(name, network) in the function that uses "
            f"them, or pyro.param. If an earlier network had that name, call pyro.clear_param_store() first"
        )


def _run(
    model: Function, guide: Function, objective: object, args: tuple[object, ...], kwargs: dict[str, object]
) -> list[weakref.ref[Tensor]]:
    """Check the sites of a run; the tensors that ask for a gradient and that Pyro was not told of.

    References to these are weak: a tensor that the functions make and drop is nobody's parameter.
    """
    try:
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
    except Exception:
        if isinstance(objective, _SUMMING) or getattr(objective, "vectorize_particles", False):
            return []  # the functions may count on the dimensions that this objective adds, and it runs them itself
        raise
    q, p = (cast(Sites, trace.nodes) for trace in (guide_trace, model_trace))
    for site in q.values():
        if is_drawn(site):
            check_guide_site(site, objective)
    check_sites(p, q, enumerated=isinstance(objective, _SUMMING) or not isinstance(objective, ELBO | EnergyDistance))
    known, log_probs = {id(x) for x in (*args, *kwargs.values())}, []
    for site in (*q.values(), *p.values()):
        if site["type"] == "param":
            known.add(id(vars(site["value"])["unconstrained"]()))
        elif site["type"] == "sample":
            with suppress(NotImplementedError, ValueError, RuntimeError):  # the objective says what is wrong there
                log_probs.append(site["fn"].log_prob(site["value"]))
    return [weakref.ref(leaf) for leaf in _leaves(log_probs) if id(leaf) not in known]


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
def undone(*functions: Function) -> Iterator[None]:
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
            private.take_out(name)
        for now, before in attributes:
            for key in now.keys() - before.keys():
                del now[key]
            now.update({key: value for key, value in before.items() if now.get(key, now) is not value})
        with torch.no_grad():
            for buffer, values in buffers:
                if not torch.equal(buffer, values):
                    buffer.copy_(values)
