"""What each latent coordinate does to the data, as pictures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyrovae.metrics import Atoms, Traversals
from pyrovae.plots.pictures import ImageShape, is_picture, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["CHANGE", "decoder_atoms", "draw_atoms", "traversals"]

CHANGE = "change of $E[x|z]$ (units of x)\nfor one standard deviation of $z_j$"
COLUMNS = 8
LEAST = 2.0  # inches of height, for the words beside the colours
DEAD = 1e-6  # standard deviation of the codes below which a coordinate is left out


def decoder_atoms(atoms: Atoms, image_shape: ImageShape = None) -> Figure:
    r"""The decoder's answer to each coordinate, the most active first, blue where x falls and red where it rises.

    A coordinate whose codes do not vary is left out.

    Args:
        atoms: What :func:`~pyrovae.metrics.decoder_atoms` gives.
        image_shape: ``(C, H, W)``; None, or what is no picture, shows each atom as a line of a strip.
    """
    atoms = Atoms(*(table[atoms.steps > DEAD] for table in atoms))
    count = len(atoms.coordinates)
    if not count:
        return _words("no coordinate of the codes varies")
    limit = float(atoms.response.abs().max()) or 1.0
    if image_shape is None or not is_picture(image_shape):
        figure = new_figure(7.5, max(LEAST, 0.8 + 0.2 * count))
        panels = [figure.subplots()]
        picture = draw_atoms(panels[0], atoms, None, count, limit)
        panels[0].set_xlabel("data dimension", fontsize=8)
    else:
        rows = math.ceil(count / COLUMNS)
        figure = new_figure(7.5, max(LEAST, 0.1 + rows * (0.78 * image_shape[1] / (image_shape[2] + 1) + 0.25)))
        panels = list(figure.subplots(rows, 1, squeeze=False)[:, 0])
        for row, axes in enumerate(panels):
            part = Atoms(*(table[row * COLUMNS : (row + 1) * COLUMNS] for table in atoms))
            picture = draw_atoms(axes, part, image_shape, COLUMNS, limit)
    bar = figure.colorbar(picture, ax=panels, fraction=0.03, aspect=18)
    bar.ax.tick_params(labelsize=7)
    bar.set_label(CHANGE, fontsize=7)
    return figure


def draw_atoms(axes: Axes, atoms: Atoms, image_shape: ImageShape, columns: int, limit: float) -> Any:
    """The first atoms in one row of pictures, or as a strip; what a colour bar takes."""
    response = atoms.response.detach().float().cpu().flatten(1)[:columns]
    names = [_name(j) for j in atoms.coordinates[:columns]]
    style: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, "interpolation": "nearest"}
    _bare(axes)
    axes.tick_params(labeltop=True, labelbottom=False)
    if image_shape is None or not is_picture(image_shape):
        axes.set_xticks([])
        axes.set_yticks(range(len(names)), names)
        return axes.imshow(response.numpy(), aspect="auto", **style)
    axes.set_yticks([])
    mosaic, centres = _mosaic(response, image_shape, columns)
    axes.set_xticks(centres[: len(names)], names)
    return axes.imshow(mosaic.numpy(), **style)


def traversals(runs: Traversals, image_shape: ImageShape = None) -> Figure:
    r"""What the decoder makes of the mean code as one coordinate runs over its values, a row for each coordinate.

    All pictures share one grey scale.

    Args:
        runs: What :func:`~pyrovae.metrics.traversals` gives.
        image_shape: ``(C, H, W)``; None, or what is no picture, shows each datum as a line of a strip.
    """
    count, steps = runs.values.shape
    decoded = runs.decoded.detach().float().cpu().flatten(2)
    pictures = image_shape is not None and is_picture(image_shape)
    low, high = min(0.0, float(decoded.min())), max(1.0, float(decoded.max()))
    if not pictures:
        low, high = float(decoded.min()), float(decoded.max())
    ratio = image_shape[1] / image_shape[2] if image_shape is not None and pictures else 0.12
    figure = new_figure(7.5, 0.25 + count * (6.6 / steps * ratio + 0.24) if pictures else 0.4 + 0.9 * count)
    panels = figure.subplots(count, 1, squeeze=False)[:, 0]
    for axes, j, values, x in zip(panels, runs.coordinates, runs.values.cpu(), decoded, strict=True):
        numbers = [f"{float(v):.2f}".replace("-", "\N{MINUS SIGN}") for v in values]
        _bare(axes)
        axes.set_ylabel(_name(j), rotation=0, ha="right", va="center", fontsize=9)
        if image_shape is None or not pictures:
            picture = axes.imshow(x.numpy(), aspect="auto", vmin=low, vmax=high, interpolation="nearest")
            axes.set_yticks([0, steps - 1], [numbers[0], numbers[-1]], fontsize=6)
            axes.set_xticks([])
            continue
        mosaic, centres = _mosaic(x, image_shape, steps)
        axes.imshow(mosaic.numpy(), cmap="gray_r", vmin=low, vmax=high, interpolation="nearest")
        axes.set_xticks(centres, numbers, fontsize=7)
        axes.set_yticks([])
    if pictures:
        figure.supxlabel("value of the coordinate; the others stay at the mean code", fontsize=8)
    else:
        panels[-1].set_xlabel("data dimension; from top to bottom the coordinate rises", fontsize=8)
        figure.colorbar(picture, ax=list(panels), label="$E[x|z]$ (units of x)")
    return figure


def _mosaic(rows: Tensor, image_shape: tuple[int, int, int], columns: int) -> tuple[Tensor, list[float]]:
    """Pictures in one row with room for ``columns``, and where their centres are; of colours their mean."""
    channels, height, width = image_shape
    mosaic = torch.full((height, columns * (width + 1)), math.nan)
    for i, image in enumerate(rows.reshape(-1, channels, height, width).mean(1)):
        mosaic[:, i * (width + 1) : i * (width + 1) + width] = image
    return mosaic, [i * (width + 1) + (width - 1) / 2 for i in range(columns)]


def _words(text: str) -> Figure:
    figure = new_figure(5.0, 1.0)
    figure.text(0.5, 0.5, text, ha="center", va="center")
    return figure


def _name(coordinate: Tensor) -> str:
    return f"$z_{{{int(coordinate) + 1}}}$"


def _bare(axes: Axes) -> None:
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=8, pad=1)
