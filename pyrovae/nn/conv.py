"""Convolutional networks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from pyrovae.nn.layers import Layers, Residual, after, check_options
from pyrovae.nn.shapes import image_shape, positive_shape, widths_of

__all__ = ["ConvDecoder", "ConvEncoder"]


class ConvEncoder(Layers):
    """Convolutions that halve the image each time, then one fully connected layer: the trunk of a guide.

    Args:
        in_shape: One image, ``(C, H, W)``; colour is three channels.
        channels: Channels after each 3×3 convolution of stride 2.
        hidden: Width of the last, fully connected layer.
        norm: Normalisation before each activation, of each channel (``"batch"``), of all channels of an image
            (``"layer"``) or of up to eight groups of them (``"group"``), as in :class:`MLP`.
        dropout: Probability that a number is zero in training, after each activation.
        residual: Blocks :class:`Residual` after each convolution of stride 2.

    Shape: ``(*batch, C, H, W)`` to ``(*batch, hidden)``.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        channels: Sequence[int] = (32, 64),
        hidden: int = 256,
        norm: str | None = None,
        dropout: float = 0.0,
        residual: int = 0,
    ) -> None:
        super().__init__()
        check_options(norm, dropout, residual)
        self.in_shape, self.norm = image_shape("in_shape", in_shape), norm
        channels = widths_of("channels", channels, "[32, 64]")
        bias = norm != "batch"
        layers: list[nn.Module] = []
        for n_in, n_out in zip((in_shape[0], *channels[:-1]), channels, strict=True):
            layers += [nn.Conv2d(n_in, n_out, 3, stride=2, padding=1, bias=bias)]
            layers += after(n_out, norm, nn.ReLU, dropout, image=True)
            layers += [Residual(n_out, norm, dropout) for _ in range(residual)]
        height, width = _halved(in_shape[1:], len(channels))[-1]
        features = channels[-1] * height * width
        last = nn.Linear(features, hidden, bias=bias)
        self.layers = nn.Sequential(*layers, nn.Flatten(), last, *after(hidden, norm, nn.ReLU, dropout))
        self.out_shape, self.out_features = (hidden,), hidden


class ConvDecoder(Layers):
    """The mirror of :class:`ConvEncoder`: a fully connected layer, then transposed convolutions that double the image.

    Args:
        in_features: Width of the code.
        out_shape: One image, ``(C, H, W)``; any height and width.
        channels: Channels before each transposed convolution.
        hidden: Width of the first, fully connected layer.
        norm: As in :class:`ConvEncoder`.
        dropout: As in :class:`ConvEncoder`.
        residual: Blocks :class:`Residual` before each transposed convolution.

    Shape: ``(*batch, in_features)`` to ``(*batch, C, H, W)``.
    """

    def __init__(
        self,
        in_features: int,
        out_shape: tuple[int, int, int],
        channels: Sequence[int] = (64, 32),
        hidden: int = 256,
        norm: str | None = None,
        dropout: float = 0.0,
        residual: int = 0,
    ) -> None:
        super().__init__()
        check_options(norm, dropout, residual)
        self.in_shape, self.norm = positive_shape("in_features", in_features), norm
        self.out_shape = image_shape("out_shape", out_shape)
        self.out_features = math.prod(out_shape)
        channels = widths_of("channels", channels, "[64, 32]")
        sizes = _halved(out_shape[1:], len(channels))[::-1]
        start = (channels[0], *sizes[0])
        bias = norm != "batch"
        layers: list[nn.Module] = [
            nn.Linear(in_features, hidden, bias=bias),
            *after(hidden, norm, nn.ReLU, dropout),
            nn.Linear(hidden, math.prod(start)),
            nn.Unflatten(1, start),
        ]
        images = zip(channels, (*channels[1:], out_shape[0]), sizes[1:], strict=True)
        for num, (n_in, n_out, size) in enumerate(images, 1):
            layers += after(n_in, norm, nn.ReLU, dropout, image=True)
            layers += [Residual(n_in, norm, dropout) for _ in range(residual)]
            # stride 2, kernel 3, padding 1 gives 2n - 1: an even size wants one row and column more
            extra = (1 - size[0] % 2, 1 - size[1] % 2)
            own = bias or num == len(channels)
            layers += [nn.ConvTranspose2d(n_in, n_out, 3, stride=2, padding=1, output_padding=extra, bias=own)]
        self.layers = nn.Sequential(*layers)


def _halved(size: tuple[int, ...], times: int) -> list[tuple[int, ...]]:
    """The image sizes from ``size`` on, each half the last, rounded up."""
    sizes = [size]
    for _ in range(times):
        sizes.append(tuple((s + 1) // 2 for s in sizes[-1]))
    return sizes
