r"""Measurements of a model and a guide, one value per datum, in nats.

Each function takes a VAE or a pair ``(model, guide)`` of Pyro functions whose data plate is the rightmost dimension.
Nothing here trains: no gradient is taken and a VAE is put in ``eval`` mode.

Where all data share sites s, the guide's q(s) is what was learned of them: p(x) stands for :math:`E_{q(s)}\, p(x|s)`,
the predictive density of a new datum, and p(x, z) for p(x, z|s), with a new s for each draw of z. The KL of s is not in
it: it belongs to the training set, which paid it once. The data of one pass have their draws of s in common.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from pyrovae.metrics.sparsity import exact_zeros, hoyer
from pyrovae.objectives import draw_sites, is_shared, site_kl
from pyrovae.vae import VAE, evaluating

__all__ = ["Elbo", "active_units", "elbo", "evaluate", "log_likelihood", "mean_squared_error"]

Pair = tuple[Callable[..., Any], Callable[..., Any]]
CHUNK = 2**22  # numbers of one tensor of the shape (draws, data, one datum): 16 MiB in float32


class Elbo(NamedTuple):
    """The evidence lower bound and its two terms, each ``(N,)``, in nats.

    ``kl_is_exact`` says whether each site's KL came from a closed form; otherwise it is log q - log p at the draws.
    """

    reconstruction: Tensor
    kl: Tensor
    kl_is_exact: bool

    @property
    def elbo(self) -> Tensor:
        """``reconstruction - kl``."""
        return self.reconstruction - self.kl


def elbo(vae: VAE | Pair, x: Tensor, num_samples: int = 100) -> Elbo:
    r"""The evidence lower bound of each datum.

    .. math:: E_{q(z|x)}[\log p(x|z)] - KL(q(z|x) \,\|\, p(z)) = E_{q(z|x)}[\log p(x, z) - \log q(z|x)] \le \log p(x)

    The bound is averaged in its second form, which does not vary where q is the posterior; the KL is exact where a
    closed form is registered, and the reconstruction is the bound plus the KL.

    Args:
        vae: A VAE or a pair ``(model, guide)``.
        x: ``(N, *event_shape)``.
        num_samples: Draws of z over which each datum's terms are averaged.

    References: Kingma and Welling (2014), eq. 3.
    """
    reconstruction, kl, exact = [], [], True
    with _evaluating(vae):
        for rows, draws in _chunks(x, num_samples):
            terms = [_elbo_terms(vae, rows, k) for k in draws]
            weights = [k / num_samples for k in draws]
            bound = sum(w * t.elbo for w, t in zip(weights, terms, strict=True))
            kl.append(sum(w * t.kl for w, t in zip(weights, terms, strict=True)))
            reconstruction.append(bound + kl[-1])
            exact = exact and all(t.kl_is_exact for t in terms)
    return Elbo(torch.cat(reconstruction), torch.cat(kl), exact)


def log_likelihood(vae: VAE | Pair, x: Tensor, num_samples: int = 5000) -> Tensor:
    r"""The importance-weighted bound on log p(x) of each datum, ``(N,)``.

    .. math:: \log \frac{1}{K} \sum_{k=1}^K \frac{p(x, z_k)}{q(z_k|x)} , \qquad z_k \sim q(z|x)

    In expectation it is at most log p(x) and grows with K. With sites s that all data share so it is too: the weight of
    the pair :math:`(s_k, z_k)` is :math:`p(x, z_k|s_k) / q(z_k|x, s_k)`, whose mean is :math:`E_{q(s)}\, p(x|s)`. The
    weights are averaged for each datum by itself, in chunks of bounded memory.

    Args:
        vae: A VAE or a pair ``(model, guide)``.
        x: ``(N, *event_shape)``.
        num_samples: :math:`K`.

    Raises: ValueError when a guide's site is a point (Delta), whose weights are no density ratio.
    References: Burda, Grosse and Salakhutdinov (2016), "Importance weighted autoencoders", eq. 8.
    """
    values = []
    with _evaluating(vae):
        for rows, draws in _chunks(x, num_samples):
            sums = [_log_weights(vae, rows, k).logsumexp(0) for k in draws]
            values.append(torch.stack(sums).logsumexp(0) - math.log(num_samples))
    return torch.cat(values)


def active_units(vae: VAE, x: Tensor, threshold: float = 0.01) -> Tensor:
    r"""Which latent coordinates follow the data: :math:`Var_x(E[z_j|x]) >` threshold; a mask ``(D,)``.

    The threshold is on the scale of z, so it compares models of one prior.

    References: Burda, Grosse and Salakhutdinov (2016), section 5.2.
    """
    return vae.encode(x).var(0, correction=0) > threshold


def mean_squared_error(vae: VAE, x: Tensor) -> Tensor:
    """Squared error of the reconstruction of each datum, averaged over its dimensions; ``(N,)``."""
    return ((vae.reconstruct(x) - x) ** 2).flatten(1).mean(1)


def evaluate(vae: VAE, x: Tensor, num_samples: int = 5000) -> dict[str, Any]:
    """The numbers of the table that ``pyrovae fit`` ends with; means over the data, in nats per datum.

    ``log_likelihood`` is None under a Delta guide, which gives no bound. ``standard_error`` is of the ELBO's mean over
    the data. ``exact_zeros`` and ``hoyer`` are of the deterministic code ``vae.encode(x)``, and
    ``dead_units`` and ``empty_codes`` count what the second leaves out (see :func:`~pyrovae.metrics.hoyer`).
    """
    bound = elbo(vae, x)
    z = vae.encode(x)
    sparsity = hoyer(z)
    bounded = _point_site(vae, x) is None
    return {
        "elbo": bound.elbo.mean().item() if bounded else None,
        "reconstruction": bound.reconstruction.mean().item(),
        "kl": bound.kl.mean().item(),
        "kl_is_exact": bound.kl_is_exact,
        "standard_error": bound.elbo.std().item() / math.sqrt(len(x)) if len(x) > 1 else math.nan,
        "log_likelihood": log_likelihood(vae, x, num_samples).mean().item() if bounded else None,
        "num_samples": num_samples,
        "active_units": int(active_units(vae, x).sum()),
        "latent_dim": z.shape[-1],
        "exact_zeros": exact_zeros(z).item(),
        "hoyer": sparsity.mean,
        "dead_units": sparsity.dead,
        "empty_codes": sparsity.empty,
        "mean_squared_error": mean_squared_error(vae, x).mean().item(),
        "num_data": len(x),
    }


def _evaluating(vae: VAE | Pair) -> Any:
    return evaluating(vae) if isinstance(vae, nn.Module) else torch.no_grad()


def _chunks(x: Tensor, num_samples: int) -> Any:
    """Rows of x with the numbers of draws to take for them, so that no tensor of a pass is much larger than CHUNK."""
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    if len(x) == 0:
        raise ValueError("x has no rows")
    passes = max(1, CHUNK // max(x[0].numel(), 512))
    num_rows = min(len(x), passes, max(16, passes // num_samples))
    num_draws = max(1, passes // num_rows)
    draws = [min(num_draws, num_samples - done) for done in range(0, num_samples, num_draws)]
    for rows in x.split(num_rows):
        yield rows, draws


def _sites(vae: VAE | Pair, x: Tensor, num_draws: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sites of the model and of the guide at ``num_draws`` draws for each datum; log_prob is ``(num_draws, N)``."""
    model, guide = vae if isinstance(vae, tuple) else (vae.model, vae.guide)
    sites = draw_sites(model, guide, (x,), {}, num_draws)
    for site in (*sites[0].values(), *sites[1].values()):
        site["log_prob"] = site["fn"].log_prob(site["value"])
    return sites


def _local(sites: dict[str, Any]) -> dict[str, Any]:
    """The sites of which each datum has its own."""
    return {name: site for name, site in sites.items() if not is_shared(site)}


def _log_weights(vae: VAE | Pair, x: Tensor, num_draws: int) -> Tensor:
    """log p(x, z_k) - log q(z_k|x), ``(num_draws, N)``."""
    model, guide = map(_local, _sites(vae, x, num_draws))
    name = next((name for name, site in guide.items() if _is_point(site["fn"])), None)
    if name is not None:
        raise ValueError(
            f"site {name!r} of the guide is a point (Delta): it has no density and gives no bound on log p(x)"
        )
    return sum(s["log_prob"] for s in model.values()) - sum(s["log_prob"] for s in guide.values())


def _elbo_terms(vae: VAE | Pair, x: Tensor, num_draws: int) -> Elbo:
    model, guide = _sites(vae, x, num_draws)
    # the KL of an only site is the same at each draw, and quadrature is not to be repeated
    alone = _sites(vae, x, 1) if len(guide) == 1 else (model, guide)
    kl, exact = x.new_zeros(len(x)), True
    for name in _local(guide):
        term, is_exact = site_kl(name, *alone)
        kl = kl + (term if is_exact else site_kl(name, model, guide)[0]).mean(0)
        exact = exact and is_exact
    log_p, log_q = (sum(site["log_prob"] for site in _local(sites).values()) for sites in (model, guide))
    return Elbo((log_p - log_q).mean(0) + kl, kl, exact)


def _is_point(fn: Any) -> bool:
    while isinstance(fn, torch.distributions.Independent):
        fn = fn.base_dist
    return isinstance(fn, dist.Delta)


def _point_site(vae: VAE, x: Tensor) -> str | None:
    """The first site of the guide that is a point, if there is one."""
    with evaluating(vae):
        nodes = poutine.trace(vae.guide).get_trace(x[:1]).nodes
    latent = {name: site for name, site in nodes.items() if site["type"] == "sample"}
    return next((name for name, site in _local(latent).items() if _is_point(site["fn"])), None)
