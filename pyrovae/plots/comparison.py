"""One picture of several models: what they cost and explain, their codes, their decoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from pyrovae.metrics import Atoms
from pyrovae.plots.decoders import CHANGE, draw_atoms
from pyrovae.plots.pictures import ImageShape, new_figure
from pyrovae.plots.rate_distortion import Point, draw_plane

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
    draw_plane(upper.subplots(), {p.name: _place(p) for p in portraits}, colors)
    grid = lower.subplots(count, 2, squeeze=False, width_ratios=[1.0, 2.0])
    limit = max(float(p.atoms.response.abs().max()) for p in portraits) or 1.0
    for (left, right), portrait, color in zip(grid, portraits, colors, strict=True):
        _codes(left, portrait, color)
        picture = draw_atoms(right, portrait.atoms, image_shape, COLUMNS, limit)
    grid[-1, 0].set_xlabel("code, all coordinates together", fontsize=8)
    grid[0, 1].set_title("the decoder's answer to the most active coordinates", fontsize=9)
    lower.colorbar(picture, ax=list(grid[:, 1]), fraction=0.03, aspect=18).set_label(CHANGE, fontsize=8)
    return figure


def _place(portrait: Portrait) -> list[Point]:
    """The model's point of the plane, or none without a bound."""
    if portrait.rate is None or portrait.distortion is None:
        return []
    return [(portrait.rate, portrait.distortion)]


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
