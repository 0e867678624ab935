"""Fully connected networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from pyrovae.nn.layers import Layers, after, check_options
from pyrovae.nn.shapes import Shape, batch_shape, positive_shape, widths_of

__all__ = ["MLP", "Centred", "Dictionary"]


class MLP(Layers):
    """Fully connected layers.

    Args:
        in_features: Shape of one input; an image ``(C, H, W)`` is flattened.
        hidden: Width of each hidden layer; may be empty when ``out_features`` is given.
        out_features: Shape of one output, with no activation after it; None ends at the last hidden layer, activated,
            as the trunk of a guide does.
        activation: Module put after each hidden layer.
        norm: Normalisation before each activation. ``"batch"``: of each feature over the batch, all its dimensions
            together, and in ``eval`` mode by running statistics; ``"layer"``: of all features of a datum; ``"group"``:
            of up to eight groups of them; None: none.
        dropout: Probability that a hidden feature is zero in training.

    Shape: ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``.
    Raises: ValueError for an argument out of its range, and for a batch of one in training under ``"batch"``.
    References: Ioffe and Szegedy (2015), "Batch normalization"; Ba, Kiros and Hinton (2016), "Layer normalization"; Wu
        and He (2018), "Group normalization"; Srivastava et al. (2014), "Dropout".
    """

    def __init__(
        self,
        in_features: Shape,
        hidden: Sequence[int] = (),
        out_features: Shape | None = None,
        activation: type[nn.Module] = nn.ReLU,
        norm: str | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_options(norm, dropout)
        self.in_shape, self.norm = positive_shape("in_features", in_features), norm
        widths = [math.prod(self.in_shape), *widths_of("hidden", hidden, "[400]")]
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(widths):
            # batch normalisation takes a bias away and brings its own
            layers += [nn.Linear(n_in, n_out, bias=norm != "batch"), *after(n_out, norm, activation, dropout)]
        self.out_shape = (widths[-1],) if out_features is None else positive_shape("out_features", out_features)
        self.out_features = math.prod(self.out_shape)
        if out_features is not None:
            layers.append(nn.Linear(widths[-1], self.out_features))
        self.layers = nn.Sequential(*layers)

    def rows(self, x: Tensor) -> Tensor:
        return x.reshape(-1, math.prod(self.in_shape))


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
        self.in_shape = positive_shape("in_features", in_features)
        self.out_shape = positive_shape("out_features", out_features)
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


class Centred(nn.Module):
    r"""The trunk of a linear encoder: x less the bias of a dictionary, :math:`x - b`, as one row of numbers.

    Args:
        dictionary: The decoder of the same model, which shares its bias. A guide that is a sparse point starts its
            encoder at the transpose of the dictionary's weight.

    Shape: ``(*batch, *out_shape)`` of the dictionary to ``(*batch, out_features)``.
    """

    def __init__(self, dictionary: Dictionary) -> None:
        super().__init__()
        if not isinstance(dictionary, Dictionary):
            raise ValueError(f"dictionary must be a nn.Dictionary, got {type(dictionary).__name__}")
        self.dictionary, self.in_shape = dictionary, dictionary.out_shape
        self.out_features = dictionary.out_features

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(*batch_shape(x, self.in_shape), self.out_features)
        bias = self.dictionary.linear.bias
        return rows if bias is None else rows - bias
