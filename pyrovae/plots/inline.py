"""Pictures inside a page: PNG files as data URIs, and SVG paths."""

from __future__ import annotations

import base64
import functools
import io
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pyrovae.plots.pictures import MISSING

__all__ = ["GREY", "SIGNED", "bars", "picture_row", "reduced"]

GREY, SIGNED = "gray_r", "RdBu_r"  # colormaps, those of the other pictures
LEVELS = 61  # colours between the two ends: odd, so that zero is white in the signed one
GAP, ABSENT, FIRST = 0, 1, 2  # indices of the palette


def picture_row(images: Tensor, low: float, high: float, colors: str = GREY) -> str:
    """Pictures in one row, a transparent column after each of several, as the data URI of a PNG file.

    Args:
        images: ``(K, C, H, W)``, grey or red, green and blue; NaN, a value that is missing, is light blue.
        low: The value of the first colour; of red, green and blue, that of black.
        high: The value of the last.
        colors: A colormap of matplotlib.
    """
    from PIL import Image

    share = ((images.float() - low) / ((high - low) or 1.0)).clamp(0, 1)
    if images.shape[1] == 3:
        missing = torch.tensor(MISSING)[:, None, None]
        rows = (torch.where(share.isnan(), missing, share) * 255).round()
        image = Image.fromarray(_side_by_side(rows, 255).permute(1, 2, 0).byte().contiguous().numpy())
        return _uri(image)
    index = torch.where(share.isnan(), ABSENT, (share * (LEVELS - 1)).round() + FIRST)
    image = Image.fromarray(_side_by_side(index, GAP)[0].byte().contiguous().numpy())
    image.putpalette(_palette(colors))
    return _uri(image, transparency=GAP)


def _side_by_side(images: Tensor, gap: float) -> Tensor:
    """``(K, C, H, W)`` as ``(C, H, K (W + 1))``; one picture has no gap."""
    if len(images) > 1:
        images = functional.pad(images, (0, 1), value=gap)
    return images.permute(1, 2, 0, 3).flatten(2)


def _uri(image: object, **options: int) -> str:
    content = io.BytesIO()
    image.save(content, format="PNG", compress_level=9, **options)  # type: ignore[attr-defined]  # PIL is imported late
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


@functools.cache
def _palette(colors: str) -> bytes:
    """Red, green and blue of the gap, of a missing value, and of each level."""
    from matplotlib import colormaps

    levels = colormaps[colors](np.linspace(0, 1, LEVELS))[:, :3]
    table = np.concatenate([np.ones((1, 3)), [MISSING], levels])
    return bytes((table * 255).round().astype(np.uint8))


def reduced(images: Tensor, num_pictures: int, max_bytes: int) -> Tensor:
    """The images, or means of squares of their pixels, so that ``num_pictures`` take about ``max_bytes`` in a page."""
    size = num_pictures * math.prod(images.shape[1:]) * 4 / 3
    factor = min(math.ceil(math.sqrt(size / max_bytes)), *images.shape[2:])
    return images if factor <= 1 else functional.avg_pool2d(images, factor, ceil_mode=True)


def bars(heights: Sequence[float]) -> str:
    """The path of a bar chart, each bar 10 wide, the highest 100 high, and none but an empty one below 2."""
    most = max(heights, default=0) or 1
    sizes = [max(2, round(100 * height / most)) if height else 0 for height in heights]
    return "".join(f"M{10 * i} 100v-{size}h9v{size}z" for i, size in enumerate(sizes) if size)
