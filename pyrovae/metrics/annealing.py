r"""Annealed importance sampling: log p(x) where the guide is too far from the posterior for importance sampling.

The path from the start :math:`f_0`, the guide or the prior, to the model is

.. math:: f_t(z) = f_0(z)^{1 - \beta_t}\, p(x, z)^{\beta_t} , \qquad 0 = \beta_0 < \dots < \beta_T = 1 ,

and each chain moves at :math:`f_1, \dots, f_{T-1}` by Metropolis steps, so that the mean of its weight is p(x) exactly.
"""

from __future__ import annotations

import math
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyrovae.metrics.chains import Path, flips, hamiltonian
from pyrovae.metrics.draws import Pair, chunks, functions, measuring
from pyrovae.rows import Rows
from pyrovae.vae import VAE

__all__ = ["annealed_importance_sampling"]

FIRST_STEP, PACE, WARM_UP = 0.1, 0.2, 20  # of the adaptation


def annealed_importance_sampling(
    vae: VAE | Pair,
    x: Rows,
    num_temperatures: int = 1000,
    num_chains: int = 16,
    num_leapfrog: int = 10,
    schedule: str = "sigmoid",
    start: str = "guide",
) -> Tensor:
    r"""A bound on log p(x) of each datum by annealed importance sampling, ``(N,)``.

    .. math:: \log \frac1K \sum_{k=1}^K \exp \sum_{t=1}^T (\beta_t - \beta_{t-1})
              \left[\log p(x, z_{t-1}^k) - \log f_0(z_{t-1}^k)\right]

    In expectation it is at most log p(x), as :func:`~pyrovae.metrics.log_likelihood`, which it is for T = 1; with T it
    comes nearer without a draw ever having to hit the posterior by chance.

    A chain moves by Hamiltonian Monte Carlo: leapfrog steps in an unconstrained space, to which ``biject_to(support)``
    takes z, with the Jacobian. A law with an atom at zero (spike and slab, rectified Normal) has two moves. Each
    coordinate in turn is proposed anew from the start's own law of it, zero or not, and accepted by Metropolis and
    Hastings, with densities against Lebesgue measure plus the atom; then the coordinates that are not zero move by
    Hamiltonian steps, among themselves.

    The size of the leapfrog steps is a datum's own at each temperature, adapted towards an acceptance of 0.65 in a
    pilot run of as many chains, whose weights are thrown away. (Wu et al. adapt in the one run, which is not quite a
    bound.) With draws and data of one pass in chunks of bounded memory, the cost is 2 T (1 + L) evaluations of model
    and guide and their gradients, and 2 T (D + 1) more where D coordinates have an atom.

    Where all data share sites they are drawn from the guide once for each chain, and stay.

    Args:
        vae: A VAE or a pair ``(model, guide)``.
        x: ``(N, *event_shape)``.
        num_temperatures: :math:`T`.
        num_chains: :math:`K`.
        num_leapfrog: :math:`L`, leapfrog steps of one move.
        schedule: ``"sigmoid"``, slow at both ends, :math:`\beta_t \propto \sigma(8 t/T - 4) - \sigma(-4)`; or
            ``"linear"``, :math:`\beta_t = t/T`.
        start: ``"guide"``, or ``"prior"`` where the guide misses a part of the posterior, which a chain then has to
            cross into.

    Units: nats.
    Raises: ValueError where a latent site is discrete, on the sphere, or has several atoms, for which there are no such
        moves; where the start has a site that is a point (Delta); with ``start="prior"`` where all data share sites.
    References: Neal (2001), "Annealed importance sampling"; Wu, Burda, Salakhutdinov and Grosse (2017), "On the
        quantitative analysis of decoder-based generative models", whose schedule and step sizes these are.
    """
    for name, number in (
        ("num_temperatures", num_temperatures), ("num_chains", num_chains), ("num_leapfrog", num_leapfrog)
    ):  # fmt: skip
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"{name} must be a positive whole number, got {number!r}")
    beta = _schedule(schedule, num_temperatures)
    model, guide = functions(vae)
    if start not in ("guide", "prior"):
        raise ValueError(f"start must be guide or prior, got {start!r}")
    first = guide if start == "guide" else _prior(model)
    values = []
    with measuring(vae):
        for rows, chains in chunks(x, num_chains, times=4):  # chains of one pass find their step sizes together
            steps: list[Tensor] | None = [] if num_temperatures == 1 else None
            sums = []
            for k in chains:
                path = Path(model, first, rows, k)
                if start == "prior" and len(path.sites) < len(path.drawn):
                    raise ValueError('start must be "guide" where all data share sites: it has learned them')
                if steps is None:
                    _, steps = _run(path, beta, num_leapfrog)
                    path = Path(model, first, rows, k)
                log_w, _ = _run(path, beta, num_leapfrog, steps)
                sums.append(log_w.logsumexp(0))
            values.append(torch.stack(sums).logsumexp(0) - math.log(num_chains))
    return torch.cat(values)


def _schedule(name: str, num_temperatures: int) -> list[float]:
    share = torch.linspace(0, 1, num_temperatures + 1, dtype=torch.float64)
    if name == "sigmoid":
        share = torch.sigmoid(8 * share - 4)
    elif name != "linear":
        raise ValueError(f"schedule must be sigmoid or linear, got {name!r}")
    return ((share - share[0]) / (share[-1] - share[0])).tolist()


def _prior(model: Any) -> Any:
    """The latent sites of the model, as a guide."""
    return poutine.block(model, hide_fn=lambda site: site["type"] == "sample" and site["is_observed"])


def _run(
    path: Path, beta: list[float], num_leapfrog: int, steps: list[Tensor] | None = None
) -> tuple[Tensor, list[Tensor]]:
    """The log-weight of each chain, ``(K, N)``, and the step size of each datum at each temperature between.

    The sizes are adapted where none are given.
    """
    state, log_w = path.state, torch.zeros_like(path.state.log_joint)
    adapting, used = steps is None, []
    log_step = torch.full_like(log_w[0], math.log(FIRST_STEP))
    with pyro.validation_enabled(False):  # the first draws were validated; a step that leaves every bound is refused
        for _ in range(WARM_UP if adapting else 0):
            state, change = hamiltonian(path, state, 0.0, log_step.exp(), num_leapfrog)
            log_step = log_step + PACE * change
        for t in range(1, len(beta)):
            log_w = log_w + (beta[t] - beta[t - 1]) * (state.log_joint - state.log_start)
            if t == len(beta) - 1:
                break
            if any(site.has_atom for site in path.sites.values()):
                state = flips(path, state, beta[t])
            step = log_step.exp() if steps is None else steps[t - 1]
            state, change = hamiltonian(path, state, beta[t], step, num_leapfrog)
            log_step = log_step + PACE * change
            used.append(step)
    return log_w, used
