"""One picture of several models: what they cost and explain, their codes, their decoders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.metrics import Atoms
from pyrovae.plots.pictures import ImageShape, is_picture, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Portrait", "comparison"]

COLUMNS = 8  # atoms of a model


class Portrait(NamedTuple):
    """What the picture shows of one model.

    ``rate`` and ``distortion`` are means in nats per datum, None for a model without a bound; ``codes`` are ``(N, D)``.
    """

    name: str
    rate: float | None
    distortion: float | None
    codes: Tensor
    atoms: Atoms


def comparison(portraits: Sequence[Portrait], image_shape: ImageShape = None) -> Figure:
    r"""Rate against distortion, and for each model the histogram of its codes and the atoms of its decoder.

    The rate is :math:`KL(q(z|x) \,\|\, p(z))`, the distortion :math:`-E_q[\log p(x|z)]`; their sum is the negative
    ELBO, which is higher the farther down and left a model lies. The histogram is over all coordinates, exact zeros
    apart in black.

    Args:
        portraits: One for each model.
        image_shape: ``(C, H, W)``; None, or what is no picture, shows each atom as a line of a strip.

    References: Alemi et al. (2018), "Fixing a broken ELBO", figure 1.
    """
    if not portraits:
        raise ValueError("portraits must have one model or more")
    count = len(portraits)
    top, height = max(3.0, 0.9 + 0.22 * count), 1.45
    figure = new_figure(10.0, top + height * count)
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=[top, height * count])[:, 0]
    colors = [f"C{i % 10}" for i in range(count)]
    _rate_distortion(upper.subplots(), portraits, colors)
    grid = lower.subplots(count, 2, squeeze=False, width_ratios=[1.0, 2.0])
    limit = max(float(p.atoms.response.abs().max()) for p in portraits) or 1.0
    for (left, right), portrait, color in zip(grid, portraits, colors, strict=True):
        _codes(left, portrait, color)
        picture = _atoms(right, portrait.atoms, image_shape, limit)
    grid[-1, 0].set_xlabel("code, all coordinates together", fontsize=8)
    grid[0, 1].set_title("the decoder's answer to the most active coordinates", fontsize=9)
    lower.colorbar(picture, ax=list(grid[:, 1]), fraction=0.03, aspect=18).set_label(
        "change of $E[x|z]$ (units of x)\nfor one standard deviation of $z_j$", fontsize=8
    )
    return figure


def _rate_distortion(axes: Axes, portraits: Sequence[Portrait], colors: list[str]) -> None:
    shown = [(p, c) for p, c in zip(portraits, colors, strict=True) if p.rate is not None and p.distortion is not None]
    axes.set_title("Rate and distortion of the test set, with lines of equal ELBO (nats per datum)", fontsize=10)
    axes.set(xlabel="rate, KL of guide from prior (nats)", ylabel="distortion, $-E_q[\\log p(x|z)]$ (nats)")
    axes.spines[["top", "right"]].set_visible(False)
    if not shown:
        axes.text(0.5, 0.5, "no model here has a bound on log p(x)", ha="center", transform=axes.transAxes)
        return
    rates, distortions = ([float(getattr(p, name)) for p, _ in shown] for name in ("rate", "distortion"))
    (x0, x1), (y0, y1) = _padded(rates), _padded(distortions)
    axes.set(xlim=(x0, x1), ylim=(y0, y1))
    _equal_elbo_lines(axes, (x0, x1), (y0, y1))
    # names stand in a column beside the points, in their order and apart from each other
    order = sorted(range(len(shown)), key=lambda i: distortions[i])
    heights = _apart([(distortions[i] - y0) / (y1 - y0) for i in order], gap=0.95 / max(len(shown), 8))
    for i, y in zip(order, heights, strict=True):
        portrait, color = shown[i]
        axes.plot(rates[i], distortions[i], "o", color=color, zorder=3)
        axes.annotate(
            portrait.name,
            (rates[i], distortions[i]),
            xytext=(1.04, y),
            textcoords="axes fraction",
            color=color,
            fontsize=9,
            va="center",
            arrowprops={"arrowstyle": "-", "color": color, "alpha": 0.4, "linewidth": 0.6, "shrinkA": 2, "shrinkB": 4},
        )


def _padded(values: list[float]) -> tuple[float, float]:
    margin = 0.2 * (max(values) - min(values)) or 0.5
    return min(values) - margin, max(values) + margin


def _equal_elbo_lines(axes: Axes, x: tuple[float, float], y: tuple[float, float]) -> None:
    from matplotlib.ticker import MaxNLocator

    low, high = x[0] + y[0], x[1] + y[1]
    for level in MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high):
        if not low < level < high:
            continue
        axes.plot(x, [level - x[0], level - x[1]], color="0.87", linewidth=0.8, zorder=0, scalex=False, scaley=False)
        from_left = level - x[0] <= y[1]
        place = (x[0], level - x[0]) if from_left else (level - y[1], y[1])
        axes.annotate(
            f"ELBO {-level:g}".replace("-", "\N{MINUS SIGN}"),
            place,
            xytext=(3, 0) if from_left else (0, -2),
            textcoords="offset points",
            fontsize=7,
            color="0.5",
            va="center" if from_left else "top",
            annotation_clip=True,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )


def _apart(places: list[float], gap: float) -> list[float]:
    """Sorted places, moved as little as they must to lie a gap apart within [0, 1]."""
    moved = list(places)
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    moved[-1] = min(moved[-1], 1.0)
    for i in reversed(range(len(moved) - 1)):
        moved[i] = min(moved[i], moved[i + 1] - gap)
    return moved


def _codes(axes: Axes, portrait: Portrait, color: str) -> None:
    z = portrait.codes.detach().double().cpu().flatten()
    zeros = z == 0
    rest = z[~zeros]
    if len(rest):
        low, high = float(rest.min()), float(rest.max())
        low, high = (low, high) if low < high else (low - 0.5, high + 0.5)
        axes.hist(rest.numpy(), bins=60, range=(low, high), color=color, alpha=0.75)
        width = (high - low) / 60
    else:
        width = 0.05
        axes.set_xlim(-1.0, 1.0)
    axes.set_yscale("log")
    axes.set_ylim(0.7, 20 * len(z))  # room for words above the bars
    if bool(zeros.any()):
        axes.bar(0.0, int(zeros.sum()), width, color="black")
        share = f"{float(zeros.double().mean()):.1%} exact zeros"
        axes.text(0.99, 0.99, share, ha="right", va="top", fontsize=8, transform=axes.transAxes)
    axes.minorticks_off()
    axes.locator_params(axis="x", nbins=5)
    axes.set_ylabel("count", fontsize=8)
    axes.set_title(portrait.name, fontsize=9, color=color, loc="left", pad=3)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def _atoms(axes: Axes, atoms: Atoms, image_shape: ImageShape, limit: float) -> Any:
    response = atoms.response.detach().float().cpu().flatten(1)[:COLUMNS]
    names = [f"$z_{{{int(j) + 1}}}$" for j in atoms.coordinates[:COLUMNS]]
    style: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, "interpolation": "nearest"}
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=8, labeltop=True, labelbottom=False, pad=1)
    if image_shape is None or not is_picture(image_shape):
        axes.set_xticks([])
        axes.set_yticks(range(len(names)), names)
        return axes.imshow(response.numpy(), aspect="auto", **style)
    channels, height, width = image_shape
    mosaic = torch.full((height, COLUMNS * (width + 1)), math.nan)
    for i, image in enumerate(response.reshape(-1, channels, height, width).mean(1)):  # colours: their mean
        mosaic[:, i * (width + 1) : i * (width + 1) + width] = image
    axes.set_xticks([i * (width + 1) + (width - 1) / 2 for i in range(len(names))], names)
    axes.set_yticks([])
    return axes.imshow(mosaic.numpy(), **style)
