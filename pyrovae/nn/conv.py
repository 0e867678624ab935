"""Convolutional networks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from pyrovae.nn.shapes import batch_shape, image_shape, positive_shape, widths_of

__all__ = ["ConvDecoder", "ConvEncoder"]


class ConvEncoder(nn.Module):
    """Convolutions that halve the image each time, then one fully connected layer: the trunk of a guide.

    Args:
        in_shape: One image, ``(C, H, W)``.
        channels: Channels after each 3×3 convolution of stride 2.
        hidden: Width of the last, fully connected layer.

    Shape: ``(*batch, C, H, W)`` to ``(*batch, hidden)``.
    """

    def __init__(self, in_shape: tuple[int, int, int], channels: Sequence[int] = (32, 64), hidden: int = 256) -> None:
        super().__init__()
        self.in_shape = image_shape("in_shape", in_shape)
        channels = widths_of("channels", channels, "[32, 64]")
        layers: list[nn.Module] = []
        for n_in, n_out in zip((in_shape[0], *channels[:-1]), channels, strict=True):
            layers += [nn.Conv2d(n_in, n_out, 3, stride=2, padding=1), nn.ReLU()]
        height, width = _halved(in_shape[1:], len(channels))[-1]
        features = channels[-1] * height * width
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, hidden), nn.ReLU())
        self.out_shape, self.out_features = (hidden,), hidden

    def forward(self, x: Tensor) -> Tensor:
        batch = batch_shape(x, self.in_shape)
        return self.layers(x.reshape(-1, *self.in_shape)).reshape(*batch, self.out_features)


class ConvDecoder(nn.Module):
    """The mirror of :class:`ConvEncoder`: a fully connected layer, then transposed convolutions that double the image.

    Args:
        in_features: Width of the code.
        out_shape: One image, ``(C, H, W)``; any height and width.
        channels: Channels before each transposed convolution.
        hidden: Width of the first, fully connected layer.

    Shape: ``(*batch, in_features)`` to ``(*batch, C, H, W)``.
    """

    def __init__(
        self,
        in_features: int,
        out_shape: tuple[int, int, int],
        channels: Sequence[int] = (64, 32),
        hidden: int = 256,
    ) -> None:
        super().__init__()
        self.in_shape = positive_shape("in_features", in_features)
        self.out_shape = image_shape("out_shape", out_shape)
        self.out_features = math.prod(out_shape)
        channels = widths_of("channels", channels, "[64, 32]")
        sizes = _halved(out_shape[1:], len(channels))[::-1]
        start = (channels[0], *sizes[0])
        layers: list[nn.Module] = [
            nn.Linear(in_features, hidden),
            nn.ReLU(),
            nn.Linear(hidden, math.prod(start)),
            nn.Unflatten(1, start),
        ]
        for n_in, n_out, size in zip(channels, (*channels[1:], out_shape[0]), sizes[1:], strict=True):
            # stride 2, kernel 3, padding 1 gives 2n - 1: an even size wants one row and column more
            extra = (1 - size[0] % 2, 1 - size[1] % 2)
            layers += [nn.ReLU(), nn.ConvTranspose2d(n_in, n_out, 3, stride=2, padding=1, output_padding=extra)]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        batch = batch_shape(z, self.in_shape)
        return self.layers(z.reshape(-1, *self.in_shape)).reshape(*batch, *self.out_shape)


def _halved(size: tuple[int, ...], times: int) -> list[tuple[int, ...]]:
    """The image sizes from ``size`` on, each half the last, rounded up."""
    sizes = [size]
    for _ in range(times):
        sizes.append(tuple((s + 1) // 2 for s in sizes[-1]))
    return sizes
