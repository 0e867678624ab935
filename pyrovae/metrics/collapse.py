r"""What each coordinate of the code carries, and which have collapsed.

A coordinate carries :math:`KL_j = KL(q(z_j|x) \,\|\, p(z_j))` nats of a datum. Where KL_j stays near zero the guide
tells nothing of x there (posterior collapse), which is another thing than a code that stays near zero.
"""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal

from pyrovae.metrics.draws import Pair, Sites, check_points, chunks, drawn, local, measuring
from pyrovae.objectives import coordinate_kl
from pyrovae.rows import Rows, tensors
from pyrovae.vae import VAE

__all__ = ["active_units", "coefficient_collapse", "kl_per_dimension", "posterior_collapse"]


def kl_per_dimension(vae: VAE | Pair, x: Rows, num_samples: int = 100) -> Tensor:
    r"""What each coordinate of the code of each datum carries, ``(N, D)``, in nats.

    .. math:: KL_j(x) = KL(q(z_j|x) \,\|\, p(z_j)) , \qquad
              \sum_j KL_j(x) = KL(q(z|x) \,\|\, p(z)) \text{ where q has independent coordinates too}

    Exact where the KL of the coordinate's two laws is registered, and the mean of log q - log p over draws where not.
    A guide with a full or low-rank covariance has its marginals compared, whose sum leaves out the total correlation.
    Where a coordinate has several sites (a scale and a value) theirs are added, each given the draws of those before.

    Args:
        vae: A VAE or a pair ``(model, guide)``.
        x: ``(N, *event_shape)``.
        num_samples: Draws of z, where they are needed.

    Raises: ValueError naming the site where the prior's law is of whole codes (Mixture, Vamp, Flow, simplex, sphere),
        or the guide's is, and where the guide is a point (Delta).
    """
    parts = []
    with measuring(vae):
        for rows, draws in chunks(x, num_samples):
            kl, enough = _kl_terms(*drawn(vae, rows, 1))
            if not enough:
                kl = sum(k / num_samples * _kl_terms(*drawn(vae, rows, k))[0] for k in draws)  # type: ignore[assignment]  # there are draws
            parts.append(kl)
    return torch.cat(parts)


def active_units(vae: VAE, x: Rows, threshold: float = 0.01, by: str = "variance") -> Tensor:
    r"""Which latent coordinates follow the data; a mask ``(D,)``.

    .. math:: Var_x(E[z_j|x]) > \epsilon \quad (\text{by variance}) , \qquad
              E_x\, KL(q(z_j|x) \,\|\, p(z_j)) > \epsilon \quad (\text{by KL})

    By variance the threshold is on the scale of z, so it compares models of one prior, and E[z|x] is ``vae.encode(x)``.
    By KL it is in nats, on no scale, but asks for a prior of independent coordinates; a coordinate whose q differs from
    the prior and is the same for all x counts there, as it does not in :func:`~pyrovae.metrics.mutual_information`.

    Args:
        vae: A VAE; by KL a pair ``(model, guide)`` too.
        x: ``(N, *event_shape)``.
        threshold: :math:`\epsilon`.
        by: ``"variance"`` or ``"kl"``.

    Raises: ValueError as of :func:`kl_per_dimension` by KL.
    References: Burda, Grosse and Salakhutdinov (2016), section 5.2, for the variance.
    """
    if by not in ("variance", "kl"):
        raise ValueError(f"by must be variance or kl, got {by!r}")
    if by == "kl":
        return kl_per_dimension(vae, x).mean(0) > threshold
    return vae.encode(*tensors(x)).var(0, correction=0) > threshold


def posterior_collapse(vae: VAE | Pair, x: Rows, threshold: float = 0.01, share: float = 0.95) -> Tensor:
    r"""The share of coordinates that carry nothing of nearly all data, ``()``: 0 is healthy, 1 is a model that has
    decoded nothing.

    A coordinate has collapsed where :math:`KL_j(x) \le` threshold, in nats, for at least the given share of the data.

    Args:
        vae: A VAE or a pair ``(model, guide)``.
        x: ``(N, *event_shape)``.
        threshold: In nats. A sampled KL has an error that may be above it.
        share: Of the data, in (0, 1].

    Raises: ValueError as of :func:`kl_per_dimension`.
    References: Fallah and Rozell (2022), "Variational sparse coding with learned thresholding", section 5.
    """
    return share_of_coordinates(kl_per_dimension(vae, x) <= threshold, share)


def coefficient_collapse(z: Tensor, threshold: float = 0.01, share: float = 0.95) -> Tensor:
    r"""The share of coordinates that stay near zero, ``()``: :math:`|z_j| \le` threshold for nearly all codes.

    A sparse coordinate that a twentieth of the data uses, or fewer, counts as collapsed: it is a measure of codes, and
    :func:`posterior_collapse` one of what they carry.

    Args:
        z: Codes ``(N, D)``.
        threshold: On the scale of z.
        share: Of the codes, in (0, 1].

    References: Fallah and Rozell (2022), section 5.
    """
    if z.dim() != 2 or z.numel() == 0:
        raise ValueError(f"z must be codes (N, D), got shape {tuple(z.shape)}")
    return share_of_coordinates(z.abs() <= threshold, share)


def share_of_coordinates(small: Tensor, share: float) -> Tensor:
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share must be in (0, 1], got {share}")
    small = small.double()
    return (small.mean(0) >= share - 1e-12).double().mean()


def _kl_terms(model: Sites, guide: Sites) -> tuple[Tensor, bool]:
    """The KL of each coordinate of each datum, and whether more draws would not change it."""
    check_points(local(guide))
    total: Tensor | None = None
    exact = True
    for name, site in local(guide).items():
        alone = {**site, "fn": _marginals(site["fn"]), "scale": 1.0}
        kl, is_exact = coordinate_kl(name, model, {**guide, name: alone})
        kl, exact = kl.mean(0), exact and is_exact
        if total is not None and total.shape != kl.shape:
            raise ValueError(f"site {name!r} has {kl.shape[-1]} coordinates, and a site before it {total.shape[-1]}")
        total = kl if total is None else total + kl
    if total is None:
        raise ValueError("the guide has no site for each datum")
    return total, exact and len(guide) == 1


def _marginals(fn: Any) -> Any:
    """The laws of the coordinates, where a Normal has a covariance."""
    if isinstance(fn, MultivariateNormal | LowRankMultivariateNormal):
        return dist.Normal(fn.loc, fn.variance.sqrt()).to_event(1)
    return fn
