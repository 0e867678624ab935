"""What the measurements share: passes of bounded memory, the sites at draws of z, and the weights of these draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from torch import Tensor, nn

from pyrovae import guards
from pyrovae.compilation import Passes
from pyrovae.objectives import draw_sites, is_shared
from pyrovae.objectives.sites import check_data_plate, check_observed, check_points, is_point
from pyrovae.rows import Rows, check_rows, cut, data_of, each, joined, num_rows, tensors
from pyrovae.vae import VAE, evaluating

__all__ = [
    "CHUNK",
    "Pair",
    "Sites",
    "check_points",
    "chunks",
    "drawn",
    "functions",
    "local",
    "log_weights",
    "measuring",
    "passing",
    "point_site",
    "replayed",
    "weighing",
]

Pair = tuple[Callable[..., Any], Callable[..., Any]]
Sites = dict[str, Any]
CHUNK = 2**20  # numbers of one tensor of the shape (draws, data, one datum): 4 MiB in float32


@contextmanager
def measuring(vae: VAE | Pair) -> Iterator[None]:
    """No gradients, no Pyro code in another thread, and ``eval`` mode for a VAE."""
    with guards.pyro_lock, evaluating(vae) if isinstance(vae, nn.Module) else torch.no_grad():
        yield


def functions(vae: VAE | Pair) -> Pair:
    """The model and the guide."""
    return vae if isinstance(vae, tuple) else (vae.model, vae.guide)


def chunks(x: Rows, num_samples: int, times: int = 1) -> Iterator[tuple[Rows, list[int]]]:
    """Rows of x with the numbers of draws to take for them: no tensor of a pass is much larger than times CHUNK."""
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    check_rows("x", x)
    if num_rows(x) == 0:
        raise ValueError("x has no rows")
    passes = max(1, times * CHUNK // max(data_of(x)[0].numel(), 512))
    size = min(num_rows(x), passes, max(16, passes // num_samples))
    num_draws = max(1, passes // size)
    draws = [min(num_draws, num_samples - done) for done in range(0, num_samples, num_draws)]
    for rows in cut(x, size):
        yield rows, draws


def drawn(vae: VAE | Pair, x: Rows, num_draws: int) -> tuple[Sites, Sites]:
    """The sites of the model and of the guide at ``num_draws`` draws for each datum; log_prob is ``(num_draws, N)``."""
    pair = functions(vae)
    if isinstance(x, tuple):
        guards.check_arguments("x", x, model=pair[0], guide=pair[1])
    model, guide = draw_sites(*pair, tensors(x), {}, num_draws)
    check_observed(model)
    check_data_plate("a measurement", model, guide)
    return _scored(model, guide)


def replayed(model: Any, guide: Any, x: Rows, num_draws: int, sites: Sites) -> tuple[Sites, Sites]:
    """As :func:`drawn`, at the values of ``sites``."""
    trace = poutine.Trace()
    for name, site in sites.items():
        trace.add_node(name, **site)
    return _scored(*draw_sites(model, poutine.replay(guide, trace=trace), tensors(x), {}, num_draws))


def _scored(model: Sites, guide: Sites) -> tuple[Sites, Sites]:
    for site in (*model.values(), *guide.values()):
        site["scale"] = 1.0  # that of a subsampled plate belongs to a loss: here each datum has its own value
        site["log_prob"] = scale_and_mask(site["fn"].log_prob(site["value"]), mask=site["mask"])
    return model, guide


def local(sites: Sites) -> Sites:
    """The sites of which each datum has its own."""
    return {name: site for name, site in sites.items() if not is_shared(site)}


def weighing(vae: VAE | Pair, x: Rows, num_samples: int) -> Callable[[Rows, int], Tensor]:
    """:func:`log_weights` for all the :func:`chunks` of x, compiled where there are enough of them."""
    weighed = passing(_weighed, vae, x, num_samples)
    return lambda rows, num_draws: weighed(rows, num_draws)[0]


def passing(
    function: Callable[..., Sequence[Tensor]], vae: VAE | Pair, x: Rows, num_samples: int
) -> Callable[[Rows, int], Sequence[Tensor]]:
    """``function(vae, num_draws, *tensors)`` for all :func:`chunks` of x, compiled where there are enough of them."""
    passes = Counter(k for _, draws in chunks(x, num_samples) for k in draws)
    of_draws = {k: Passes(partial(function, vae, k), num) for k, num in passes.items()}
    return lambda rows, num_draws: of_draws[num_draws](*tensors(rows))


def _weighed(vae: VAE | Pair, num_draws: int, *x: Tensor) -> tuple[Tensor]:
    return (log_weights(vae, joined(x), num_draws),)


def log_weights(vae: VAE | Pair, x: Rows, num_draws: int) -> Tensor:
    """log p(x, z_k) - log q(z_k|x), ``(num_draws, N)``."""
    model, guide = map(local, drawn(vae, x, num_draws))
    check_points(guide)
    return sum(s["log_prob"] for s in model.values()) - sum(s["log_prob"] for s in guide.values())


def point_site(vae: VAE, x: Rows) -> str | None:
    """The first site of the guide that is a point, if there is one."""
    with evaluating(vae):
        nodes = poutine.trace(vae.guide).get_trace(*tensors(each(lambda t: t[:1], x))).nodes
    latent = {name: site for name, site in nodes.items() if site["type"] == "sample"}
    return next((name for name, site in local(latent).items() if is_point(site["fn"])), None)
