"""Pictures of a model's health: what its coordinates carry, how often they are in use, whether its guide is right."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyrovae.metrics import Elbo, Occupancy, Ranks
from pyrovae.plots.pictures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["importance_curve", "kl_spectrum", "sbc_ranks", "spike_occupancy"]

MOST_PANELS = 16
MOST_BINS = 20


def kl_spectrum(kl: Tensor, threshold: float = 0.01) -> Figure:
    r"""What each coordinate carries, :math:`E_x KL_j`, the largest first, with the threshold of an active unit.

    Args:
        kl: ``(N, D)``, what :func:`~pyrovae.metrics.kl_per_dimension` gives.
        threshold: In nats.
    """
    mean = kl.detach().double().cpu().mean(0)
    order = mean.argsort(descending=True)
    sorted_kl = mean[order].numpy()
    active = int((mean > threshold).sum())
    floor = threshold / 100
    figure = new_figure(max(5.0, min(10.0, 1.5 + 0.22 * len(mean))), 3.4)
    axes = figure.subplots()
    places = range(len(mean))
    colors = ["C0" if value > threshold else "0.7" for value in sorted_kl]
    axes.bar(places, sorted_kl.clip(min=0), color=colors, width=0.8)
    axes.set_yscale("log")
    axes.set_ylim(floor, max(2 * float(sorted_kl.max()), 10 * threshold))
    axes.axhline(threshold, color="C3", linewidth=1.0, label=f"active above {threshold:g} nats")
    step = max(1, math.ceil(len(mean) / 32))
    axes.set_xticks(list(places)[::step], [str(int(j) + 1) for j in order[::step]], fontsize=7)
    axes.set_xlim(-0.6, len(mean) - 0.4)
    axes.set(xlabel="coordinate of z, by what it carries", ylabel="KL, mean of the data (nats per datum)")
    total = float(mean.sum())
    axes.set_title(f"{active} of {len(mean)} coordinates are active; together {total:.2f} nats per datum", fontsize=9)
    _plain(axes)
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    return figure


def spike_occupancy(occupancy: Occupancy) -> Figure:
    r"""How often each coordinate is not zero: under the guide, the largest first, and under the prior.

    Args:
        occupancy: What :func:`~pyrovae.metrics.spike_occupancy` gives.
    """
    posterior, prior = (table.detach().double().cpu() for table in occupancy[:2])
    order = posterior.argsort(descending=True)
    places = list(range(len(order)))
    figure = new_figure(max(5.0, min(10.0, 1.5 + 0.22 * len(order))), 3.4)
    axes = figure.subplots()
    sums = [f"{float(table.sum()):.2f} of {len(order)} coordinates" for table in (posterior, prior)]
    axes.bar(places, posterior[order].numpy(), color="C0", width=0.8, label=f"guide, mean of the data: {sums[0]}")
    axes.plot(places, prior[order].numpy(), "_", color="black", markersize=9, label=f"prior: {sums[1]}")
    step = max(1, math.ceil(len(order) / 32))
    axes.set_xticks(places[::step], [str(int(j) + 1) for j in order[::step]], fontsize=7)
    axes.set_xlim(-0.6, len(order) - 0.4)
    axes.set_ylim(0, 1.08 * max(float(posterior.max()), float(prior.max()), 1e-3))
    axes.set(xlabel="coordinate of z, by how often it is in use", ylabel="probability of $z_j \\neq 0$")
    _plain(axes)
    figure.legend(loc="outside upper center", ncols=1, frameon=False, fontsize=8)
    return figure


def sbc_ranks(ranks: Ranks, level: float = 0.99) -> Figure:
    r"""Histograms of the ranks of simulation-based calibration, with the band of a calibrated guide.

    Each bar of a calibrated guide is in the band with the probability ``level``, exactly by the binomial law or a
    little above. Bars high at both ends: the guide is too narrow; high in the middle: too wide; at one end: biased.
    Coordinates of the smallest p-values come first, 16 at most.

    Args:
        ranks: What :func:`~pyrovae.metrics.sbc` gives.
        level: Of the band, for each bar by itself.
    """
    num_data = len(ranks.ranks)
    bins = max(b for b in range(1, MOST_BINS + 1) if (ranks.num_draws + 1) % b == 0)
    low, high = _band(num_data, 1 / bins, level)
    order = ranks.p_value.argsort()[:MOST_PANELS].tolist()
    columns = min(4, len(order))
    rows = math.ceil(len(order) / columns)
    figure = new_figure(max(1.9 * columns, 5.0), 1.35 * rows + 0.8)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey="row")
    index = (ranks.ranks.cpu() * bins // (ranks.num_draws + 1)).T
    for axes in grid.flat[len(order) :]:
        axes.set_visible(False)
    centres = [(i + 0.5) / bins for i in range(bins)]
    for axes, j in zip(grid.flat, order, strict=False):
        band = f"{level:.0%} of a calibrated guide's counts"
        axes.axhspan(low, high, color="0.3", alpha=0.25, linewidth=0, zorder=2, label=band)
        axes.axhline(num_data / bins, color="0.2", linewidth=0.8, zorder=3)
        counts = index[j].bincount(minlength=bins)
        axes.bar(centres, counts.tolist(), width=0.85 / bins, color="C0", zorder=1, label="simulated z")
        axes.set_title(f"$z_{{{j + 1}}}$, p = {float(ranks.p_value[j]):.2g}", fontsize=8, pad=3)
        axes.set_xlim(0, 1)
        axes.tick_params(labelsize=7)
        _plain(axes)
    figure.supxlabel(f"rank of z among {ranks.num_draws} draws of the guide, as a share", fontsize=8)
    figure.supylabel(f"count, of {num_data} data", fontsize=8)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    return figure


def importance_curve(curve: Mapping[int, Tensor], elbo: Elbo | None = None) -> Figure:
    r"""The importance-weighted bound against the number of draws K, with a band of one standard error of the mean.

    The band is of the choice of data, which all K have in common, so that it says nothing against a rise.

    Args:
        curve: What :func:`~pyrovae.metrics.importance_curve` gives.
        elbo: The ELBO of the same data, which the bound of one draw estimates too.
    """
    draws = sorted(curve)
    values = torch.stack([curve[k].detach().double().cpu() for k in draws])
    mean = values.mean(1)
    error = values.std(1) / math.sqrt(values.shape[1]) if values.shape[1] > 1 else torch.zeros_like(mean)
    figure = new_figure(6.0, 3.6)
    axes = figure.subplots()
    axes.fill_between(draws, (mean - error).numpy(), (mean + error).numpy(), color="C0", alpha=0.15, linewidth=0)
    label = f"bound of K draws: {_number(mean[-1])} at K = {draws[-1]}"
    axes.plot(draws, mean.numpy(), "o-", color="C0", markersize=4, label=label)
    if elbo is not None:
        level = float(elbo.elbo.mean())
        axes.axhline(level, color="C3", linewidth=1.0, linestyle="--", label=f"ELBO: {_number(level)}")
    axes.set_xscale("log")
    axes.set_xticks(draws, [str(k) for k in draws])
    axes.minorticks_off()
    axes.set(xlabel="draws K from the guide", ylabel="bound on log p(x) (nats per datum)")
    title = f"Mean of {values.shape[1]} data; band: one standard error of the choice of data"
    axes.set_title(title, fontsize=9)
    _plain(axes)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def _band(num: int, probability: float, level: float) -> tuple[int, int]:
    """The smallest counts below which lie (1 - level) / 2 and (1 + level) / 2 of a binomial law."""
    law = torch.distributions.Binomial(num, torch.tensor(probability, dtype=torch.float64))
    below = law.log_prob(torch.arange(num + 1, dtype=torch.float64)).exp().cumsum(0)
    low, high = (int((below < share).sum()) for share in ((1 - level) / 2, (1 + level) / 2))
    return low, min(high, num)


def _number(value: Tensor | float) -> str:
    return f"{float(value):.2f}".replace("-", "\N{MINUS SIGN}")


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
