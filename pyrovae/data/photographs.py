"""Natural image patches: whitened cuts of the two photographs that scikit-learn ships."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["read_patches", "read_photographs", "whiten"]

CUTOFF = 0.4  # cycles per pixel
FAINT = 0.1  # of the variance of all regions; below it are sky and blur, and the blocks of JPEG
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601
SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}
# columns, as fractions of the width: pagoda and flower stand in all three splits
STRIPS = {"train": ((0.0, 0.4), (0.6, 1.0)), "val": ((0.4, 0.5),), "test": ((0.5, 0.6),)}


def read_patches(size: int, num: int, seed: int) -> dict[str, Tensor]:
    """Patches by split, each ``(n, size * size)``, see :func:`pyrovae.data.patches`."""
    if not isinstance(size, int) or not 2 <= size <= 64:
        raise ValueError(f"size must be a whole number from 2 to 64, got {size!r}")
    if not isinstance(num, int) or num < 20:
        raise ValueError(f"num must be a whole number from 20 on, got {num!r}")
    photographs = read_photographs()
    regions = {split: [_strips(photograph, split) for photograph in photographs] for split in STRIPS}
    scale = torch.cat([strip.flatten() for strips in regions["train"] for strip in strips]).std()
    parts = {}
    for split, share in SHARES.items():
        generator = torch.Generator().manual_seed(seed)
        count = round(share * num / len(photographs))
        x = torch.cat([_draw(strips, size, count, FAINT * scale**2, generator) for strips in regions[split]])
        x = x[torch.randperm(len(x), generator=generator)]  # the photographs mixed
        parts[split] = x - x.mean(1, keepdim=True)
    unit = parts["train"].square().mean().sqrt()
    return {split: (x / unit).float() for split, x in parts.items()}


def read_photographs() -> list[Tensor]:
    """china.jpg and flower.jpg, 427×640 each, grey from 0 to 1."""
    try:
        from sklearn.datasets import load_sample_images
    except ImportError as error:
        raise ImportError(
            "patches are cut from photographs that scikit-learn brings: pip install scikit-learn"
        ) from error

    weights = torch.tensor(LUMINANCE, dtype=torch.float64)
    return [torch.tensor(image).double() @ weights / 255 for image in load_sample_images().images]


def whiten(image: Tensor) -> Tensor:
    r"""An image ``(H, W)`` through :math:`R(f) = f e^{-(f/f_0)^4}`, its borders mirrored."""
    height, width = image.shape
    mirrored = torch.cat([image, image.flip(0)])
    mirrored = torch.cat([mirrored, mirrored.flip(1)], 1)
    rows = torch.fft.fftfreq(2 * height, dtype=image.dtype)
    f = torch.hypot(rows[:, None], torch.fft.rfftfreq(2 * width, dtype=image.dtype))
    spectrum = torch.fft.rfft2(mirrored) * f * torch.exp(-((f / CUTOFF) ** 4))
    return torch.fft.irfft2(spectrum, s=mirrored.shape)[:height, :width]


def _strips(photograph: Tensor, split: str) -> list[Tensor]:
    """The regions of a split, each whitened by itself."""
    width = photograph.shape[1]
    return [whiten(photograph[:, round(start * width) : round(end * width)]) for start, end in STRIPS[split]]


def _draw(strips: list[Tensor], size: int, count: int, faint: Tensor, generator: torch.Generator) -> Tensor:
    """Patches at places drawn without replacement from those of more than ``faint`` variance."""
    places = []
    for number, strip in enumerate(strips):
        mean, square = (functional.avg_pool2d(x[None], size, 1)[0] for x in (strip, strip**2))
        places.append(functional.pad((square - mean**2 > faint).nonzero(), (1, 0), value=number))
    bright = torch.cat(places)
    if count > len(bright):
        raise ValueError(f"num asks for {count} patches of a region that has {len(bright)}: it must be smaller")
    chosen = bright[torch.randperm(len(bright), generator=generator)[:count]]
    windows = [strip.unfold(0, size, 1).unfold(1, size, 1) for strip in strips]
    return torch.stack([windows[strip][row, column].flatten() for strip, row, column in chosen.tolist()])
