"""What the networks are made of: normalisation, dropout, residual blocks, and a forward pass over any batch shape."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from pyrovae.nn.shapes import batch_shape

__all__ = ["NORMS", "Layers", "Residual", "after", "check_options"]

NORMS = (None, "batch", "layer", "group")
MOST_GROUPS, SMALLEST_GROUP = 8, 4  # of channels


class Layers(nn.Module):
    """Layers between two shapes, which see all batch dimensions as one: batch statistics are over all of them."""

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    norm: str | None
    layers: nn.Sequential

    def forward(self, x: Tensor) -> Tensor:
        batch = batch_shape(x, self.in_shape)
        if self.norm == "batch" and self.training and batch.numel() == 1:
            raise ValueError(
                'norm "batch" trains on two rows or more, got a batch of one: take another batch_size, or norm "layer"'
            )
        return self.layers(self.rows(x)).reshape(*batch, *self.out_shape)

    def rows(self, x: Tensor) -> Tensor:
        """x with one batch dimension."""
        return x.reshape(-1, *self.in_shape)


class Residual(nn.Module):
    r"""A residual block: :math:`relu(x + f(x))`, where f is two 3×3 convolutions.

    Args:
        channels: Of the image, which keeps its shape.
        norm: Normalisation after each convolution, as in :class:`~pyrovae.nn.ConvEncoder`.
        dropout: Between the two.

    Shape: ``(N, channels, H, W)`` to the same.
    References: He, Zhang, Ren and Sun (2016), "Deep residual learning for image recognition", fig. 2.
    """

    def __init__(self, channels: int, norm: str | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        check_options(norm, dropout)
        bias = norm != "batch"
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=bias),
            *after(channels, norm, nn.ReLU, dropout, image=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=bias),
            *_normalization(channels, norm, image=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.layers(x))


def check_options(norm: str | None, dropout: float, residual: int = 0) -> None:
    """Refuse what is no normalisation, no probability or no number of blocks."""
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(map(repr, NORMS))}, got {norm!r}")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
    if not isinstance(residual, int) or residual < 0:
        raise ValueError(f"residual must be a number of blocks, at least 0, got {residual!r}")


def after(
    channels: int, norm: str | None, activation: type[nn.Module], dropout: float, image: bool = False
) -> list[nn.Module]:
    """What follows a layer: normalisation, activation, dropout."""
    drop = [nn.Dropout(dropout)] if dropout else []
    return [*_normalization(channels, norm, image), activation(), *drop]


def _normalization(channels: int, norm: str | None, image: bool) -> list[nn.Module]:
    """Of each channel over the batch, of all channels of a datum, or of groups of them."""
    if norm is None:
        return []
    if norm == "batch":
        return [nn.BatchNorm2d(channels) if image else nn.BatchNorm1d(channels)]
    if norm == "layer":
        return [nn.GroupNorm(1, channels) if image else nn.LayerNorm(channels)]
    sizes = range(2, MOST_GROUPS + 1)
    # a group of one number would be normalised to zero
    groups = [num for num in sizes if channels % num == 0 and channels // num >= SMALLEST_GROUP]
    return [nn.GroupNorm(max(groups, default=1), channels)]
