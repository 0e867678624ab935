"""Which code of a datum is meant, and how often each of its coordinates is not zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyrovae import guards
from pyrovae.distributions import Categorical
from pyrovae.distributions.hard_concrete import GatedNormal
from pyrovae.distributions.spike_slab import nonnegative_with_atom, real_with_atom
from pyrovae.rows import Rows, num_rows, tensors
from pyrovae.vae import VAE, evaluating

__all__ = ["Occupancy", "codes", "guide_draws", "nonzero_probability", "spike_occupancy"]

KINDS = ("encode", "mean", "sample")
ATOMIC = (real_with_atom, nonnegative_with_atom)  # supports with an atom at zero
CHUNK = 2**24  # numbers of one tensor of the shape (draws, N, D)


class Occupancy(NamedTuple):
    """How often each coordinate is not zero, ``(D,)``: under the guide, over the data, and under the prior.

    The sum of either is the mean number of coordinates that are not zero. ``exact`` says whether both are read off the
    laws of the sites; otherwise draws are counted.
    """

    posterior: Tensor
    prior: Tensor
    exact: bool


def codes(vae: VAE, x: Rows, kind: str = "encode", num_samples: int | None = None) -> Tensor:
    r"""The codes of x, ``(N, D)``, of the kind that is asked for.

    - ``"encode"``: the deterministic code, ``vae.encode(x)``, which each guide defines; exactly zero where a
      coordinate is more likely zero than not.
    - ``"mean"``: :math:`E_{q(z|x)}[z]` of what the decoder reads; of spike and slab :math:`\gamma_j \mu_j`, without
      zeros. It is exact where the law of the site ``"z"`` has a mean that no other site moves.
    - ``"sample"``: one draw of what the decoder reads, hard gates as they are. ``torch.manual_seed`` repeats it.

    Args:
        vae: A VAE.
        x: ``(N, *event_shape)``.
        kind: One of the three.
        num_samples: Where the mean is not exact, the number of draws whose average it is.

    Raises: ValueError if ``kind`` is none of them, x has no rows, or the mean needs ``num_samples`` and has none.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    _check_rows(x)
    if kind == "encode":
        return vae.encode(*tensors(x))
    if kind == "sample":
        return guide_draws(vae, x, 1)[0]
    if num_samples is not None:
        _check_num(num_samples)
    mean, exact = _expected(_from_guide(vae, x), _mean, lambda z: z, num_samples or 1)
    if not exact and num_samples is None:
        raise ValueError(
            f"num_samples must be given: guide {type(vae.posterior).__name__} has no mean in closed form, and it is "
            f"the average of that many draws"
        )
    return mean


def spike_occupancy(vae: VAE, x: Rows, num_samples: int = 1000) -> Occupancy:
    r"""How often each coordinate is not zero, under the guide and under the prior.

    .. math:: o_j = \frac1N \sum_n q(z_j \ne 0 | x_n) , \qquad o^0_j = p(z_j \ne 0)

    The sum of the first is the mean number of active coordinates; it need not be near that of the second. The
    probabilities are exact for spike-and-slab, thresholded, rectified and hard-concrete laws, for bits, counts and
    categories. Of others draws are counted: all of them where a law has no atom. What all data share is drawn from the
    guide, which learned it.

    Args:
        vae: A VAE.
        x: ``(N, *event_shape)``.
        num_samples: Draws to count where a probability is not exact.

    Raises: ValueError if x has no rows or ``num_samples < 1``.
    """
    posterior, q_exact = nonzero_probability(vae, x, num_samples)
    prior, p_exact = _expected(_from_prior(vae), _nonzero, _is_nonzero, num_samples)
    return Occupancy(posterior.mean(0), prior[0], q_exact and p_exact)


def nonzero_probability(vae: VAE, x: Rows, num_samples: int = 1000) -> tuple[Tensor, bool]:
    r"""P(on) of each coordinate of each datum, :math:`q(z_j \ne 0|x_n)`, ``(N, D)``, and whether it is exact.

    It is what :func:`~pyrovae.metrics.active_dimension`, :func:`~pyrovae.metrics.reliability` and
    :func:`~pyrovae.metrics.support_auprc` take.

    Args:
        vae: A VAE.
        x: ``(N, *event_shape)``.
        num_samples: Draws to count where a probability is not exact, as in :func:`spike_occupancy`.

    Raises: ValueError if x has no rows or ``num_samples < 1``.
    """
    _check_rows(x)
    _check_num(num_samples)
    return _expected(_from_guide(vae, x), _nonzero, _is_nonzero, num_samples)


def guide_draws(vae: VAE, x: Rows, num_draws: int) -> Tensor:
    """Draws from the guide of what the decoder reads, ``(num_draws, N, D)``."""
    return _from_guide(vae, x)(num_draws)[1]


Draw = Callable[[int], tuple[Any, Tensor]]  # of a number of draws: the law of "z", if there is one, and what is read


def _from_guide(vae: VAE, x: Rows) -> Draw:
    def draw(num: int) -> tuple[Any, Tensor]:
        with evaluating(vae), pyro.plate("particles", num, dim=-2):
            guide: Any = poutine.trace(vae.guide).get_trace(*tensors(x))
            prior: Any = poutine.trace()
            with prior, poutine.replay(trace=guide):
                z = _prior(vae, num_rows(x))
        guards.check_sites(prior.trace.nodes, guide.nodes)
        return _law(guide), z.expand(num, num_rows(x), -1)

    return draw


def _from_prior(vae: VAE) -> Draw:
    def draw(num: int) -> tuple[Any, Tensor]:
        with evaluating(vae), pyro.plate("particles", num, dim=-2), vae._learned(), poutine.trace() as prior:
            z = _prior(vae, 1)
        return _law(prior.trace), z.expand(num, 1, -1)

    return draw


def _prior(vae: VAE, num_rows: int) -> Tensor:
    """What the decoder reads, for each row of the data plate."""
    shared = vae._shared(vae.prior, num_rows)
    with pyro.plate("data", num_rows, dim=-1):
        return vae.prior(*shared)


def _law(trace: Any) -> Any:
    return trace.nodes["z"]["fn"] if "z" in trace.nodes else None


def _expected(
    draw: Draw, of_law: Callable[[Any], Tensor | None], of_draw: Callable[[Tensor], Tensor], num_samples: int
) -> tuple[Tensor, bool]:
    """The mean of a number of each coordinate, ``(N, D)``: exact where the law of z gives it, whatever is drawn before.

    Otherwise the average, over draws of the sites before it, of what the law of z gives, or that of ``of_draw``.
    """
    law, z = draw(2)
    value = None if law is None else of_law(law)
    if value is not None:
        value = value.expand(z.shape)
        if torch.equal(value[0], value[1]):
            return value[0].clone(), True
    total, most = torch.zeros_like(z[0]), max(1, CHUNK // z[0].numel())
    for done in range(0, num_samples, most):
        law, z = draw(min(most, num_samples - done))
        value = None if law is None else of_law(law)
        total += (of_draw(z) if value is None else value.expand(z.shape)).sum(0)
    return total / num_samples, False


def _mean(law: Any) -> Tensor | None:
    try:
        mean = law.mean
    except NotImplementedError:
        return None
    return mean if bool(torch.isfinite(mean).all()) else None


def _nonzero(law: Any) -> Tensor | None:
    """P(z_j != 0) of each coordinate; None of a law that is not known to tell."""
    if isinstance(law, (Categorical, torch.distributions.OneHotCategorical)):
        return law.mean
    while isinstance(law, torch.distributions.Independent):
        law = law.base_dist
    if isinstance(law, GatedNormal):
        return law.active  # before the gate was drawn
    known = law.support in ATOMIC or law.support.is_discrete
    if not known or law.event_shape:
        return None
    return -torch.expm1(law.log_prob(torch.zeros_like(law.mean)).clamp(max=0.0))  # rounded, it may be above 0


def _is_nonzero(z: Tensor) -> Tensor:
    return (z != 0).to(z.dtype)


def _check_rows(x: Rows) -> None:
    if not num_rows(x):
        raise ValueError("x has no rows")


def _check_num(num_samples: int) -> None:
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
