r"""Whether the guide is calibrated: z from the model, x from that z, and where z lies among the guide's draws given x.

Were q(z|x) the posterior, z would be one more such draw. That is asked of data that the model makes, on average over
them; it says nothing of how well the model fits others. scipy is imported when a measure runs, and
``torch.manual_seed`` repeats it. Where all data share sites, each datum has a draw of them of its own from the guide.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.metrics.latent_codes import guide_draws, nonzero_probability
from pyrovae.metrics.recovery import matched
from pyrovae.metrics.supports import check_probabilities
from pyrovae.vae import VAE, evaluating

__all__ = ["Coverage", "Ranks", "Reliability", "coverage", "gate_reliability", "reliability", "sbc"]

CHUNK = 2**24  # numbers of one tensor of the shape (draws, N, D)
MOST_BINS = 20
LEAST_EXPECTED = 5  # in a bin, for the chi-square law to hold


class Ranks(NamedTuple):
    """Of each simulated z among the guide's draws, ``(N, D)``, from 0 to ``num_draws``; and what is read off them.

    ``pit`` ``(N, D)`` is the rank as a number in (0, 1), uniform where ranks are. ``p_value`` ``(D,)`` is that of the
    chi-square test of each coordinate; of D of them the smallest is to be compared with the level over D.
    """

    ranks: Tensor
    num_draws: int
    pit: Tensor
    p_value: Tensor


class Coverage(NamedTuple):
    """Share of the simulated z inside each interval, ``(levels, D)``, beside the ``levels`` ``(levels,)``.

    ``standard_error`` ``(levels,)`` is that of a calibrated guide's shares.
    """

    share: Tensor
    levels: Tensor
    standard_error: Tensor


class Reliability(NamedTuple):
    """Per coordinate and bin, ``(D, B)``: the mean probability that was given, and the share that it came to.

    Both are NaN where ``counts`` is 0. ``error`` ``(D,)`` is the expected calibration error of each coordinate, and
    ``pooled_error`` that of all coordinates in the same bins. A calibrated probability has ``error_by_chance``.
    """

    predicted: Tensor
    observed: Tensor
    counts: Tensor
    error: Tensor

    @property
    def pooled_error(self) -> float:
        r""":math:`\sum_b \left|\sum_j n_{jb} (\bar\gamma_{jb} - \bar o_{jb})\right| / \sum_{jb} n_{jb}`."""
        gaps = (self.counts * (self.predicted - self.observed)).nansum(0)
        return (gaps.abs().sum() / self.counts.sum()).item()

    @property
    def error_by_chance(self) -> Tensor:
        r"""The ``error`` that sampling alone makes, with counts taken for Normal.

        :math:`\sum_b \sqrt{2 n_b \bar\gamma_b (1 - \bar\gamma_b) / \pi} / N`
        """
        counts, gamma = self.counts.double(), self.predicted
        spread = (2 * counts * gamma * (1 - gamma) / math.pi).clamp(min=0).sqrt()
        return spread.nansum(1) / counts.sum(1)


def sbc(vae: VAE, num_data: int = 1000, num_draws: int = 99) -> Ranks:
    r"""Simulation-based calibration: the rank of each coordinate of z among draws from the guide.

    .. math:: z^* \sim p(z) , \quad x \sim p(x|z^*) , \quad z_1, \dots, z_L \sim q(z|x) , \qquad
              r_j = \#\{l : z_{lj} < z^*_j\} + U\{0, \dots, \#\{l : z_{lj} = z^*_j\}\}

    If q is the posterior, :math:`r_j` is uniform on 0 to L. Ties, which atoms make, are broken at random. A guide that
    is too narrow has ranks at both ends, one that is too wide in the middle, a biased one at one end. Uniform ranks do
    not show that q is right: those of a guide that gives the prior for every x are uniform too.

    .. math:: u_j = (r_j + v_j) / (L + 1) , \quad v_j \sim U(0, 1)

    is the randomised probability integral transform, ``pit``. The p-value is of Pearson's test of the counts in at most
    20 bins of ranks, 5 or more expected in each.

    Args:
        vae: A VAE.
        num_data: Simulated pairs :math:`(z^*, x)`, at least 10.
        num_draws: :math:`L`, at least 1.

    Raises: ValueError if a number is too small, or draws of the guide are NaN.
    References: Talts, Betancourt, Simpson, Vehtari and Gelman (2018), "Validating Bayesian inference algorithms with
        simulation-based calibration", theorem 1. Random ties are needed for atoms, which are not in it.
    """
    from scipy.stats import chisquare

    _check_least("num_data", num_data, 2 * LEAST_EXPECTED)
    _check_least("num_draws", num_draws, 1)
    z, x = _simulate(vae, num_data)
    rows = max(1, CHUNK // (num_draws * z.shape[1]))
    parts = zip(z.split(rows), x.split(rows), strict=True)
    ranks = torch.cat([_ranks(part, guide_draws(vae, data, num_draws)) for part, data in parts])
    pit = (ranks + torch.rand(ranks.shape, dtype=torch.float64, device=ranks.device)) / (num_draws + 1)
    num_bins = min(MOST_BINS, num_draws + 1, num_data // LEAST_EXPECTED)
    bins = torch.arange(num_draws + 1) * num_bins // (num_draws + 1)  # of each rank
    expected = num_data * bins.bincount() / (num_draws + 1)
    counts = torch.stack([bins[column].bincount(minlength=num_bins) for column in ranks.T.cpu()])
    p_value = chisquare(counts.double(), expected.double(), axis=1).pvalue
    return Ranks(ranks, num_draws, pit, torch.as_tensor(p_value))


def coverage(ranks: Ranks, levels: Collection[float] = (0.5, 0.8, 0.95)) -> Coverage:
    r"""How often the guide's central intervals hold the z that made the data.

    .. math:: C_{aj} = \frac1N \sum_n 1\left[\left|u_{nj} - \tfrac12\right| \le \tfrac a2\right]

    of the transform u of :func:`sbc`, whose simulation this reads: with atoms no interval of z has a level of just a,
    while u of a calibrated guide is inside with probability a. Below a, the guide is too narrow or biased; above it, it
    is too wide.

    Args:
        ranks: What :func:`sbc` returned.
        levels: Each a in (0, 1).

    Raises: ValueError if ``levels`` are none or not all in (0, 1).
    """
    if not len(levels) or not all(0.0 < a < 1.0 for a in levels):
        raise ValueError(f"levels must be one or more numbers between 0 and 1, got {levels}")
    a = torch.tensor(list(levels), dtype=torch.float64, device=ranks.pit.device)
    inside = (ranks.pit - 0.5).abs() <= a[:, None, None] / 2
    return Coverage(inside.double().mean(1), a, (a * (1 - a) / len(ranks.pit)).sqrt())


def gate_reliability(vae: VAE, num_data: int = 1000, num_bins: int = 10, num_samples: int = 1000) -> Reliability:
    r"""Whether a coordinate is not zero as often as the guide says, over data that the model makes.

    It is :func:`reliability` of the guide's probabilities :math:`q(z_j \ne 0|x_n)` and the simulated :math:`z^*_j`.

    Args:
        vae: A VAE whose prior has exact zeros.
        num_data: Simulated pairs.
        num_bins: :math:`B`.
        num_samples: Draws to count where the guide's probability is not exact, as in
            :func:`~pyrovae.metrics.spike_occupancy`.

    Raises: ValueError if a number is not positive, or the prior's draws hold no zero.
    """
    for name, value in (("num_data", num_data), ("num_bins", num_bins), ("num_samples", num_samples)):
        _check_least(name, value, 1)
    z, x = _simulate(vae, num_data)
    if bool((z != 0).all()):
        raise ValueError(
            f"vae must have a prior with exact zeros, there is none in {num_data} draws of {type(vae.prior).__name__}"
        )
    rows = max(1, CHUNK // (num_samples * z.shape[1]))
    gamma = torch.cat([nonzero_probability(vae, part, num_samples)[0] for part in x.split(rows)])
    return reliability(gamma, z, num_bins)


def reliability(probability: Tensor, truth: Tensor, num_bins: int = 10, matching: Tensor | None = None) -> Reliability:
    r"""Whether P(on) is the share of data in which a coordinate is truly on: for codes that are known.

    Probabilities are cut in bins of equal width, and in each bin b of each coordinate j their mean is compared with the
    share of :math:`v_j \ne 0`:

    .. math:: ECE_j = \sum_b \frac{n_{jb}}{N} \left| \bar\gamma_{jb} - \overline{1[v_j \ne 0]}_{jb} \right|

    Sampling alone makes it about ``error_by_chance``.

    Args:
        probability: ``(N, D)``, such as :func:`nonzero_probability` of the data.
        truth: True gates or factors, ``(N, K)``: on where not zero.
        num_bins: B.
        matching: The coordinate of each factor, ``(K,)``, -1 for none, as of :func:`~pyrovae.metrics.decoder_mcc`; a
            factor without one has the probability 0. None takes them in order, with K = D.

    Raises: ValueError if the tables do not fit each other, or a probability is none.
    References: Naeini, Cooper and Hauskrecht (2015), "Obtaining well calibrated probabilities using Bayesian binning".
    """
    _check_least("num_bins", num_bins, 1)
    check_probabilities(probability)
    gamma = probability.detach().double()
    if matching is not None:
        gamma = matched(gamma, matching, truth.shape[-1])
    if truth.shape != gamma.shape:
        raise ValueError(f"truth must be of shape {tuple(gamma.shape)} as probability, got {tuple(truth.shape)}")
    num_data, dim = gamma.shape
    bins = (gamma * num_bins).long().clamp(max=num_bins - 1) + num_bins * torch.arange(dim, device=gamma.device)

    def totals(values: Tensor) -> Tensor:
        return torch.bincount(bins.flatten(), values.flatten(), num_bins * dim).view(dim, num_bins)

    on = (truth != 0).to(gamma)
    counts = totals(torch.ones_like(gamma))
    predicted, observed = totals(gamma) / counts, totals(on) / counts  # 0 / 0 in an empty bin
    error = ((predicted - observed).abs() * counts / num_data).nansum(1)
    return Reliability(predicted, observed, counts.long(), error)


def _simulate(vae: VAE, num_data: int) -> tuple[Tensor, Tensor]:
    """What the decoder reads and the data it makes; each with its own draw of what all data share."""
    if vae.num_labels:
        raise ValueError("vae is conditional: it has no law of labels to simulate data by")
    if hasattr(vae.prior, "shared"):
        z = torch.cat([vae.sample_prior(1) for _ in range(num_data)])
    else:
        z = vae.sample_prior(num_data)
    with evaluating(vae):
        return z, vae.likelihood(z).sample()


def _ranks(z: Tensor, draws: Tensor) -> Tensor:
    """Ranks of z ``(N, D)`` among draws ``(L, N, D)``, ties broken at random."""
    if bool(draws.isnan().any()):
        raise ValueError("vae must have a guide that draws numbers, some of its draws are NaN")
    below, ties = (draws < z).sum(0), (draws == z).sum(0)
    uniform = torch.rand(z.shape, dtype=torch.float64, device=z.device)
    return below + (uniform * (ties + 1)).long()


def _check_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
