"""Fully connected networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from pyrovae.nn.shapes import Shape, batch_shape, positive_shape, widths_of

__all__ = ["MLP", "Dictionary"]


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
        self.in_shape = positive_shape("in_features", in_features)
        widths = [math.prod(self.in_shape), *widths_of("hidden", hidden, "[400]")]
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(widths):
            layers += [nn.Linear(n_in, n_out), activation()]
        self.out_shape = (widths[-1],) if out_features is None else positive_shape("out_features", out_features)
        self.out_features = math.prod(self.out_shape)
        if out_features is not None:
            layers.append(nn.Linear(widths[-1], self.out_features))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        batch = batch_shape(x, self.in_shape)
        return self.layers(x.reshape(*batch, -1)).reshape(*batch, *self.out_shape)


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
