"""Networks: tensors to tensors, no Pyro. Each says its ``out_features``; a decoder's output has ``out_shape``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["MLP", "ConvDecoder", "ConvEncoder", "Dictionary"]

Shape = int | tuple[int, ...]


class MLP(nn.Module):
    """Fully connected layers.

    Args:
        in_features: Shape of one input; an image ``(C, H, W)`` is flattened.
        hidden: Width of each hidden layer; may be empty when ``out_features`` is given.
        out_features: Shape of one output, with no activation after it; None ends at the last hidden layer, activated,
            as the trunk of a guide does.
        activation: Module put after each hidden layer.

    Shape: ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``.
    """

    def __init__(
        self,
        in_features: Shape,
        hidden: Sequence[int] = (),
        out_features: Shape | None = None,
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.in_shape = _shape("in_features", in_features)
        widths = [math.prod(self.in_shape), *_widths("hidden", hidden, "[400]")]
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(widths):
            layers += [nn.Linear(n_in, n_out), activation()]
        self.out_shape = (widths[-1],) if out_features is None else _shape("out_features", out_features)
        self.out_features = math.prod(self.out_shape)
        if out_features is not None:
            layers.append(nn.Linear(widths[-1], self.out_features))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        batch = _batch_shape(x, self.in_shape)
        return self.layers(x.reshape(*batch, -1)).reshape(*batch, *self.out_shape)


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
        self.in_shape = _image_shape("in_shape", in_shape)
        channels = _widths("channels", channels, "[32, 64]")
        layers: list[nn.Module] = []
        for n_in, n_out in zip((in_shape[0], *channels[:-1]), channels, strict=True):
            layers += [nn.Conv2d(n_in, n_out, 3, stride=2, padding=1), nn.ReLU()]
        height, width = _halved(in_shape[1:], len(channels))[-1]
        features = channels[-1] * height * width
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, hidden), nn.ReLU())
        self.out_shape, self.out_features = (hidden,), hidden

    def forward(self, x: Tensor) -> Tensor:
        batch = _batch_shape(x, self.in_shape)
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
        self.in_shape = _shape("in_features", in_features)
        self.out_shape = _image_shape("out_shape", out_shape)
        self.out_features = math.prod(out_shape)
        channels = _widths("channels", channels, "[64, 32]")
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
        batch = _batch_shape(z, self.in_shape)
        return self.layers(z.reshape(-1, *self.in_shape)).reshape(*batch, *self.out_shape)


class Dictionary(nn.Module):
    r"""Linear decoder :math:`x = \Phi z + b`: each column of :math:`\Phi` is an atom.

    Args:
        in_features: Number of atoms.
        out_features: Shape of one datum.
        bias: Whether :math:`b` is there.
        unit_norm: Whether the atoms are divided by their Euclidean norm, so that the scale of the code is the prior's
            to set and sparsity cannot be undone by longer atoms.

    Shape: ``(*batch, in_features)`` to ``(*batch, *out_shape)``; ``atoms`` is ``(in_features, *out_shape)``.
    """

    def __init__(self, in_features: int, out_features: Shape, bias: bool = True, unit_norm: bool = False) -> None:
        super().__init__()
        self.in_shape = _shape("in_features", in_features)
        self.out_shape = _shape("out_features", out_features)
        self.out_features = math.prod(self.out_shape)
        self.linear = nn.Linear(in_features, self.out_features, bias=bias)
        self.unit_norm = unit_norm

    @property
    def weight(self) -> Tensor:
        """:math:`\\Phi`, ``(out_features, in_features)``, as it is used."""
        return functional.normalize(self.linear.weight, dim=0) if self.unit_norm else self.linear.weight

    @property
    def atoms(self) -> Tensor:
        """The columns of :math:`\\Phi`, each in the shape of a datum."""
        return self.weight.T.reshape(-1, *self.out_shape)

    def forward(self, z: Tensor) -> Tensor:
        x = functional.linear(z, self.weight, self.linear.bias)
        return x.reshape(*z.shape[:-1], *self.out_shape)


def _shape(name: str, shape: Shape) -> tuple[int, ...]:
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if not shape or min(shape) < 1:
        raise ValueError(f"{name} must be positive, got {shape}")
    return shape


def _widths(name: str, widths: Sequence[int], example: str) -> tuple[int, ...]:
    if not isinstance(widths, Sequence):
        raise ValueError(f"{name} must be a sequence of widths such as {example}, got {widths!r}")
    return tuple(_shape(name, width)[0] for width in widths)


def _image_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 3:
        raise ValueError(f"{name} must be (channels, height, width), got {tuple(shape)}")
    return _shape(name, shape)


def _batch_shape(x: Tensor, event_shape: tuple[int, ...]) -> torch.Size:
    if not x.is_floating_point():
        raise ValueError(f"the network takes floating-point inputs, got {x.dtype}: x.float()")
    split = x.dim() - len(event_shape)
    if split < 0 or tuple(x.shape[split:]) != event_shape:
        raise ValueError(f"the network takes inputs of shape {event_shape}, got {tuple(x.shape)}")
    return x.shape[:split]


def _halved(size: tuple[int, ...], times: int) -> list[tuple[int, ...]]:
    """The image sizes from ``size`` on, each half the last, rounded up."""
    sizes = [size]
    for _ in range(times):
        sizes.append(tuple((s + 1) // 2 for s in sizes[-1]))
    return sizes
