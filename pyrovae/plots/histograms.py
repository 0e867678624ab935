"""Histograms, a panel for each coordinate of a code or each column of a table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyrovae.plots.pictures import new_figure
from pyrovae.rows import Rows, tensors
from pyrovae.vae import VAE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["code_histograms", "column_histograms", "latent_density"]

PRIOR_DRAWS = 50_000
LEAST_DENSITY = 1e-6


def code_histograms(vae: VAE, x: Rows, bins: int = 41, max_dims: int = 32) -> Figure:
    """The codes of x, a panel for each latent coordinate with the prior's beside it, most varying first.

    The exact zeros of a coordinate are no bar, which would hide all others: their share stands over the panel, and bars
    and line are of what is not zero, each with the area of its share. An improper prior has no line.
    """
    z = vae.encode(*tensors(x)).double().cpu()
    improper = getattr(vae.prior, "improper", False)
    prior = None if improper else vae.sample_prior(PRIOR_DRAWS).double().cpu()
    drawn = z if prior is None else prior
    order = z.var(0, correction=0).argsort(descending=True)[:max_dims]
    sparse = bool((z == 0).any())
    edge = float(torch.cat([z.abs().flatten(), drawn[:5000].abs().flatten().quantile(0.99)[None]]).max())
    low = 0.0 if bool((z >= 0).all() and (drawn >= 0).all()) else -1.0
    edges = torch.linspace(low, 1.0, bins + 1).double() * (edge or 1.0)
    figure, panels = _panels(len(order))
    for axes, j in zip(panels, order.tolist(), strict=True):
        _bars_and_line(axes, edges, z[:, j], None if prior is None else prior[:, j], sparse)
        note = (
            f"{float((z[:, j] == 0).double().mean()):.0%} zeros"
            if sparse
            else f"sd {float(z[:, j].std(correction=0)):.2f}"
        )
        axes.set_title(f"$z_{{{j + 1}}}$, {note}", fontsize=7, pad=2)
    _legend(figure, panels[0], "codes of x", "prior")
    figure.supxlabel("code, vae.encode(x)" + (", where it is not zero" if sparse else "") + "; density", fontsize=8)
    return figure


def column_histograms(x: Tensor, draws: Tensor, bins: int = 31, max_columns: int = 32) -> Figure:
    """Each column of a table of data, with draws of the model beside it.

    Args:
        x: Data ``(N, D)``; what is missing, NaN, is no part of a bar.
        draws: Of p(x), ``(M, D)``, in the units of the data.
    """
    x, draws = x.flatten(1).double().cpu(), draws.flatten(1).double().cpu()
    figure, panels = _panels(min(x.shape[1], max_columns), free=True)
    for j, axes in enumerate(panels):
        column = x[~x[:, j].isnan(), j]
        both = torch.cat([column, draws[:, j]])
        low, high = both.quantile(0.002).item(), both.quantile(0.998).item()
        edges = torch.linspace(low, high if high > low else low + 1, bins + 1, dtype=torch.float64)
        _bars_and_line(axes, edges, column, draws[:, j], sparse=False)
        axes.set_title(f"column {j + 1}", fontsize=7, pad=2)
    _legend(figure, panels[0], "data", "draws of the model")
    figure.supxlabel("value of the column; density", fontsize=8)
    return figure


def latent_density(density: Tensor) -> Figure:
    """How many latents are on in which share of the data: a histogram on a logarithmic scale.

    Latents on for less than 1e-6 of the data are dead: a bar of their own, at the left. Those on for more than half of
    them, right of the line, are dense.

    Args:
        density: ``(D,)``, as of :func:`~pyrovae.metrics.supports`.
    """
    from matplotlib.ticker import MaxNLocator

    shares = density.detach().double().cpu()
    alive = shares[shares >= LEAST_DENSITY].log10()
    dead, dense = len(shares) - len(alive), int((shares > 0.5).sum())
    low = min(-1.0, math.floor(float(alive.min()))) if len(alive) else -1.0
    num_bins = 8 * round(-low)
    counts = alive.histc(num_bins, low, 0.0)
    width = 1 / 8
    figure = new_figure(5.6, 3.2)
    axes = figure.subplots()
    axes.bar([low + width * (i + 0.5) for i in range(num_bins)], counts.tolist(), width=0.9 * width, color="C0")
    axes.bar([1.12 * low], [dead], width=0.9 * width, color="C3")
    axes.axvline(math.log10(0.5), color="0.4", linewidth=1.0, linestyle="--")
    powers = range(round(low), 1)
    step = max(1, len(powers) // 4)
    ticks = [0, *range(-step, round(low) - 1, -step)]
    axes.set_xticks([1.12 * low, *ticks], ["dead", *(f"{10.0**power:g}" for power in ticks)], fontsize=8)
    axes.set(xlabel="share of data in which a latent is on", ylabel=f"latents, of {len(shares)}")
    axes.set_title(f"{dead} dead, below {LEAST_DENSITY:g}; {dense} dense, above 0.5", fontsize=9)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _panels(num: int, free: bool = False) -> tuple[Figure, list[Any]]:
    """So many panels, with one axis of values unless each has its own."""
    columns = min(8, num)
    count = math.ceil(num / columns)
    figure = new_figure(max(1.35 * columns + 0.6, 3.2), 1.15 * count + 0.7)
    grid = figure.subplots(count, columns, squeeze=False, sharex=not free)
    for axes in grid.flat[num:]:
        axes.set_visible(False)
    return figure, list(grid.flat[:num])


def _bars_and_line(axes: Any, edges: Tensor, values: Tensor, others: Tensor | None, sparse: bool) -> None:
    """The density of some numbers as bars, of others, where there are any, as a line; without zeros where sparse."""
    width, centres = edges[1] - edges[0], (edges[1:] + edges[:-1]) / 2
    heights = []
    for numbers in (values,) if others is None else (values, others):
        kept = numbers[numbers != 0] if sparse else numbers
        heights.append(torch.histogram(kept, edges).hist / (max(1, len(numbers)) * width))
    axes.bar(centres.numpy(), heights[0].numpy(), width.item(), color="C0", label="bars")
    if others is not None:
        axes.plot(centres.numpy(), heights[1].numpy(), color="0.3", linewidth=0.8, label="line")
    axes.set_ylim(0, float(torch.stack(heights).max()) * 1.08 or 1.0)
    axes.tick_params(labelsize=6, left=False, labelleft=False)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _legend(figure: Figure, axes: Any, bars: str, line: str) -> None:
    handles, labels = axes.get_legend_handles_labels()
    names = {"bars": bars, "line": line}
    figure.legend(handles, [names[k] for k in labels], loc="outside upper right", ncols=2, frameon=False, fontsize=8)
