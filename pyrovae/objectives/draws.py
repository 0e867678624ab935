"""Whether a model and a guide that are right for one draw are right for several."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from pyro import poutine
from torch import Tensor, nn

from pyrovae.objectives.sites import (
    Args,
    Function,
    Functions,
    Kwargs,
    Sites,
    as_trace,
    is_point,
    log_prob,
    random_state_kept,
)

__all__ = ["check_draws"]

ADVICE = (
    "With several draws every site has a dimension more, left of its plates: put the data in a plate at dim=-1, index "
    "dimensions from the right, and reduce none except those of one datum; or give the objective one draw"
)


def check_draws(model: Function, guide: Function, args: Args, kwargs: Kwargs, num_draws: int) -> None:
    """Raise unless model and guide at several draws give each draw the log-densities that it has by itself.

    Both functions run once at ``num_draws`` draws; the first and the last draw are then replayed alone, and the
    log-densities of all sites compared, to 1e-3 of the largest in float32. Modules that are called stand in ``eval``
    mode meanwhile, so that dropout and batch statistics do not count. Functions that draw noise outside of their sites
    cannot be compared and pass. The random state and the buffers of the modules are left as they were.

    Args:
        model, guide: A pair for ``pyro.infer.SVI``, that is called with ``args`` and ``kwargs``.
        num_draws: K, such as ``objective.num_draws(model, guide, *args, **kwargs)``; 1 checks nothing.

    Raises: ValueError that names the site.
    """
    if num_draws < 2:
        return
    functions = Functions(model, guide, args, kwargs)
    with torch.no_grad(), random_state_kept(), poutine.block(), _evaluating():
        alone = functions.draw_guide(1)
        functions.replay_model(alone, 1)  # an error at one draw is none about several
        try:
            guide_sites = functions.draw_guide(num_draws)
            model_sites = functions.replay_model(guide_sites, num_draws)
        except (ValueError, RuntimeError, IndexError) as error:
            cause = str(error.__cause__ or error).splitlines()[0]
            raise ValueError(
                f"model and guide run at one draw and fail at {num_draws} draws: {cause}. {ADVICE}"
            ) from error
        for draw in (0, num_draws - 1):
            single = _single(functions, guide_sites, model_sites, alone, draw)
            again = _single(functions, guide_sites, model_sites, alone, draw)
            for side, sites in enumerate((guide_sites, model_sites)):
                for name, site in sites.items():
                    if is_point(site["fn"]):
                        continue
                    expected, repeated, got = (log_prob(s) for s in (single[side][name], again[side][name], site))
                    if _close(repeated, expected) and not _close(got[draw], expected):
                        raise ValueError(
                            f"the {('guide', 'model')[side]} is right for one draw and not for {num_draws}: the "
                            f"log-density of site {name!r} at draw {draw + 1} is {got[draw].sum().item():.6g} among "
                            f"{num_draws} draws, and {expected.sum().item():.6g} by itself. {ADVICE}"
                        )


def _single(functions: Functions, guide: Sites, model: Sites, alone: Sites, draw: int) -> tuple[Sites, Sites]:
    """The sites of guide and model at one of several draws, run without the plate of draws."""
    trace = as_trace(guide)
    for name, site in guide.items():
        if is_point(site["fn"]):  # an automatic guide computes its points from its auxiliary site
            trace.remove_node(name)
            continue
        value, shape = site["value"].expand(site["fn"].shape())[draw], alone[name]["value"].shape
        if value.numel() != shape.numel():
            raise ValueError(
                f"site {name!r} of the guide has shape {tuple(shape)} at one draw, and {tuple(value.shape)} for each "
                f"of several. {ADVICE}"
            )
        trace.nodes[name]["value"] = value.reshape(shape)
    replayed = Functions(
        functions.model, poutine.replay(functions.guide, trace=trace), functions.args, functions.kwargs
    )
    sites = replayed.draw_guide(1)
    rows = next(iter(model.values()))["subsamples"]  # of plates that the model alone has
    for site in sites.values():
        site["subsamples"] = {**rows, **site["subsamples"]}
    return sites, replayed.replay_model(sites, 1)


def _close(a: Tensor, b: Tensor) -> bool:
    if a.numel() != b.numel():
        return False
    tolerance = 1e-6 if b.dtype == torch.float64 else 1e-3
    limit = tolerance * (1.0 + b.nan_to_num(0.0, 0.0, 0.0).abs().max().item())
    return torch.allclose(a.reshape(-1), b.reshape(-1), rtol=0.0, atol=limit, equal_nan=True)


@contextmanager
def _evaluating() -> Iterator[None]:
    """``eval`` mode for each module that is called inside; its mode and its buffers are put back afterwards."""
    met: dict[nn.Module, tuple[bool, dict[str, tuple[Tensor, Tensor]]]] = {}

    def enter(module: nn.Module, inputs: object) -> None:
        if module not in met:
            buffers = {name: (b, b.clone()) for name, b in module._buffers.items() if b is not None}
            met[module] = module.training, buffers
            module.training = False

    hook = nn.modules.module.register_module_forward_pre_hook(enter)
    try:
        yield
    finally:
        hook.remove()
        for module, (training, buffers) in met.items():
            module.training = training
            for name, (buffer, before) in buffers.items():
                module._buffers[name] = buffer.copy_(before)
