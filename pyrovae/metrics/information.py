"""What the codes of a data set say of it: mutual information, and how far the codes as a whole are from the prior."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.metrics import draws
from pyrovae.metrics.draws import Pair, Sites, check_points, chunks, drawn, functions, local, measuring, replayed
from pyrovae.objectives import is_shared
from pyrovae.rows import Rows, cut, num_rows
from pyrovae.vae import VAE

__all__ = ["Information", "mutual_information"]


class Information(NamedTuple):
    """The two parts of the mean KL of N data, each ``()``, in nats; the first is at most ``cap``, log N."""

    mutual_information: Tensor
    marginal_kl: Tensor
    cap: float


def mutual_information(vae: VAE | Pair, x: Rows, num_samples: int = 10) -> Information:
    r"""The mutual information of data and codes under the guide, and the KL of the aggregated posterior from the prior.

    .. math::
        I_q(x; z) = \frac1N \sum_n KL(q(z|x_n) \,\|\, q(z)) , \qquad q(z) = \frac1N \sum_m q(z|x_m)

    .. math::
        \frac1N \sum_n KL(q(z|x_n) \,\|\, p(z)) = I_q(x; z) + KL(q(z) \,\|\, p(z))

    The aggregated posterior is that of the N data given, all of them, and no estimate of what a larger set would have:
    x is one of N rows, and :math:`I_q \le \log N`. A value near ``cap`` says that the codes tell the rows apart, and
    not what the information would be with more rows. At zero the codes do not depend on x (posterior collapse); a large
    marginal KL says that draws from the prior are no codes of the data.

    Both are means over draws of z, and neither is clamped: a value may lie below zero by its error. The cost is
    :math:`K N^2` densities of the guide, in chunks of bounded memory.

    Args:
        vae: A VAE or a pair ``(model, guide)``. What all data share is given: both are means over its draws.
        x: ``(N, *event_shape)``.
        num_samples: :math:`K`, draws of z for each datum.

    Raises: ValueError when a guide's site is a point (Delta), whose information is infinite.
    References: Hoffman and Johnson (2016), "ELBO surgery", eq. 8; Dieng, Kim, Rush and Blei (2019), "Avoiding latent
        variable collapse with generative skip models", section 4, for the estimate.
    """
    information: list[Tensor] = []
    marginal: list[Tensor] = []
    with measuring(vae):
        for rows, passes in chunks(x, num_samples):
            for k in passes:
                model, guide = drawn(vae, rows, k)
                check_points(local(guide))
                points = {name: _flat(site, k, num_rows(rows)) for name, site in guide.items()}
                log_q, log_p = (
                    sum(site["log_prob"] for name, site in local(sites).items() if name in guide).reshape(-1)
                    for sites in (guide, model)
                )
                log_mean = _log_aggregate(functions(vae)[1], x, points, len(log_q)) - math.log(num_rows(x))
                information.append(log_q - log_mean)
                marginal.append(log_mean - log_p)
    return Information(torch.cat(information).mean(), torch.cat(marginal).mean(), math.log(num_rows(x)))


def _flat(site: Any, num_draws: int, num_rows: int) -> dict[str, Any]:
    """The site with its draws for each datum as draws of their own, ``(num_draws * num_rows, 1, *event_shape)``."""
    event = site["fn"].event_shape
    value = site["value"].expand(num_draws, num_rows, *event).reshape(-1, 1, *event)
    return {**site, "value": value}


def _log_aggregate(guide: Any, x: Rows, points: Sites, num_points: int) -> Tensor:
    r""":math:`\log\sum_m q(z|x_m)` at each point."""
    width = max(site["value"][0].numel() for site in points.values())
    sums = []
    for rows in cut(x, max(1, draws.CHUNK // (num_points * width))):
        here = {name: site if is_shared(site) else _repeated(site, num_rows(rows)) for name, site in points.items()}
        _, at = replayed(guide, guide, rows, num_points, here)  # on both sides: the decoder is not needed
        sums.append(sum(site["log_prob"] for site in local(at).values()).logsumexp(-1))
    return torch.stack(sums).logsumexp(0)


def _repeated(site: Any, num_rows: int) -> dict[str, Any]:
    value = site["value"]
    return {**site, "value": value.expand(-1, num_rows, *value.shape[2:])}
