"""Pictures of one model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyrovae.adversarial import GAN
from pyrovae.rows import Rows, data_of, each, tensors
from pyrovae.train import History
from pyrovae.vae import VAE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "ImageShape",
    "image_grid",
    "image_rows",
    "is_picture",
    "loss_curves",
    "new_figure",
    "prior_samples",
    "reconstructions",
]

ImageShape = tuple[int, int, int] | None

MISSING = (0.70, 0.83, 0.94)  # the colour of a value that is not there


def loss_curves(history: History) -> Figure:
    """The loss of each epoch, training and validation, in nats per datum."""
    figure = new_figure(6.0, 3.6)
    axes = figure.subplots()
    axes.plot(history["epoch"], history["train_loss"], color="0.6", label="training")
    val = torch.tensor(history["val_loss"])
    if bool(torch.isfinite(val).any()):
        best = int(torch.where(torch.isfinite(val), val, torch.inf).argmin())
        axes.plot(history["epoch"], history["val_loss"], color="C0", label="validation")
        axes.plot(
            history["epoch"][best], val[best], "o", color="C0", label=f"kept: {val[best]:.2f} nats, epoch {best + 1}"
        )
    axes.set(xlabel="epoch", ylabel="loss (nats per datum)")
    axes.locator_params(axis="x", integer=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def reconstructions(vae: VAE, x: Rows, image_shape: ImageShape = None, num: int = 12) -> Figure:
    """Originals over their reconstructions.

    Args:
        vae: The VAE.
        x: ``(N, *event_shape)``, or ``(x, y)`` of a conditional VAE; the first ``num`` are shown.
        image_shape: ``(C, H, W)``; None, or what is no picture, shows each datum as a strip of its values.
        num: How many.
    """
    x = each(lambda rows: rows[:num], x)
    return image_rows({"original": data_of(x), "reconstruction": vae.reconstruct(*tensors(x))}, image_shape)


def prior_samples(vae: VAE | GAN, num: int = 60, image_shape: ImageShape = None) -> Figure:
    """The mean of p(x|z) at draws of z from the prior; of a conditional VAE that of p(x|z, y), a column for each y.

    Of a GAN it is x itself.
    """
    z, columns = vae.sample_prior(num), vae.num_labels or 12
    code: Rows = (z, torch.arange(num, device=z.device) % columns) if vae.num_labels else z
    figure = image_grid(vae.decode(*tensors(code)), image_shape, columns=columns)
    figure.suptitle(f"E[x|z{', y' if vae.num_labels else ''}] at draws of z from the prior", fontsize=8)
    return figure


def image_rows(rows: Mapping[str, Tensor], image_shape: ImageShape = None) -> Figure:
    """Rows of images, each with its name at the left: what became of the same data, one datum per column.

    Args:
        rows: ``(N, *event_shape)`` of each name, as many data in each; NaN, a value that is missing, is light blue.
        image_shape: As of :func:`reconstructions`.

    Raises: ValueError if there is no row, or the rows have different shapes.
    """
    shapes = {tuple(x.flatten(1).shape) for x in rows.values()}
    if len(shapes) != 1:
        raise ValueError(f"rows must be data of one shape under each name, got {sorted(shapes)}")
    return _rows_of_images(torch.stack([x.flatten(1) for x in rows.values()]), image_shape, list(rows))


def image_grid(x: Tensor, image_shape: ImageShape = None, columns: int = 12) -> Figure:
    """Data as images in a grid, one datum per cell."""
    x = x.flatten(1).cpu()
    columns = min(columns, len(x))
    count = math.ceil(len(x) / columns)
    padded = torch.full((count * columns, x.shape[1]), math.nan)
    padded[: len(x)] = x
    return _rows_of_images(padded.reshape(count, columns, -1), image_shape, None)


def _rows_of_images(x: Tensor, image_shape: ImageShape, labels: list[str] | None) -> Figure:
    """x is ``(rows, columns, values)``; all cells share one grey scale, from the least value to the largest."""
    from matplotlib import colormaps

    x = x.detach().float().cpu()
    rows, columns = x.shape[:2]
    if image_shape is None or not is_picture(image_shape):
        return _strips(x, labels)
    channels, height, width = image_shape
    finite = x[torch.isfinite(x)]
    low, high = (min(0.0, float(finite.min())), max(1.0, float(finite.max()))) if channels == 1 else (0.0, 1.0)
    white = low if channels == 1 else high
    tiles = torch.full((rows, columns, channels, height + 1, width + 1), white)
    x = torch.where(x.isnan().all(-1, keepdim=True), white, x)  # the cells that are left of a grid
    tiles[..., 1:, 1:] = x.reshape(rows, columns, channels, height, width)
    mosaic = tiles.permute(2, 0, 3, 1, 4).reshape(channels, rows * (height + 1), columns * (width + 1))
    size = 0.55
    figure = new_figure(size * columns + _room(labels), size * rows * height / width + 0.1)
    axes = figure.subplots()
    look: Any = {"interpolation": "nearest"}
    axes.set_anchor("E")  # the room that is left is that of the names
    if channels == 1:
        axes.imshow(mosaic[0].numpy(), cmap=colormaps["gray_r"].with_extremes(bad=MISSING), vmin=low, vmax=high, **look)
    else:
        mosaic = mosaic.permute(1, 2, 0)
        missing = mosaic.isnan().any(-1, keepdim=True)
        axes.imshow(torch.where(missing, torch.tensor(MISSING), mosaic).clamp(0, 1).numpy(), **look)
    _only_row_labels(axes, labels, [(row + 0.5) * (height + 1) for row in range(rows)])
    return figure


def _room(labels: list[str] | None) -> float:
    """Inches at the left for the longest line of the names."""
    return max([0.1, *(0.3 + 0.07 * len(line) for label in labels or [] for line in label.splitlines())])


def _strips(x: Tensor, labels: list[str] | None) -> Figure:
    """Data that are no images: one line of values per datum, each row of x in a panel of its own."""
    rows = x.shape[0]
    figure = new_figure(7.0, 1.9 * rows + 0.4)
    low, high = float(x[torch.isfinite(x)].min()), float(x[torch.isfinite(x)].max())
    panels = figure.subplots(rows, 1, squeeze=False, sharex=True)[:, 0]
    for row, axes in enumerate(panels):
        picture = axes.imshow(x[row].numpy(), aspect="auto", vmin=low, vmax=high, interpolation="nearest")
        axes.set_ylabel(f"{labels[row]}\n(datum)" if labels else "datum", fontsize=8)
        axes.tick_params(labelsize=7)
    panels[-1].set_xlabel("data dimension", fontsize=8)
    figure.colorbar(picture, ax=list(panels), label="value")
    return figure


def _only_row_labels(axes: Axes, labels: list[str] | None, places: list[float]) -> None:
    axes.spines[:].set_visible(False)
    axes.set_xticks([])
    axes.set_yticks(places if labels else [], labels or [], fontsize=8)
    axes.tick_params(length=0)


def is_picture(image_shape: ImageShape) -> bool:
    """Whether it is grey or red, green and blue, and no signal in the shape of an image."""
    channels, height, width = image_shape or (0, 1, 1)
    return channels in (1, 3) and max(height, width) <= 8 * min(height, width)


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many inches that arranges itself and that no window knows."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")
