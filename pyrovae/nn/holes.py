"""Data with holes in front of an encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Filled"]


class Filled(nn.Module):
    r"""An encoder that reads a constant where the data are NaN.

    .. math:: \tilde x_i = x_i \text{ where it is observed}, \quad c_i \text{ where it is missing}

    Whatever the guide reads, it is a guide: a bound under :class:`~pyrovae.likelihoods.Masked` stays a bound. In data
    whose columns have mean 0 the constant 0 is their mean.

    Args:
        network: The encoder, whose ``in_shape``, ``out_shape`` and ``out_features`` it takes over.
        fill: :math:`c`: a number, or a tensor of one datum's shape, such as ``x.nanmean(0)``; kept with the weights.

    Shape: those of the network.
    Raises: ValueError if ``network`` is no module or ``fill`` is not finite.
    References: Mattei and Frellsen (2019), "MIWAE: deep generative modelling and imputation of incomplete data sets",
        whose constant is 0.
    Example:
        >>> from pyrovae.nn import MLP
        >>> Filled(MLP(64, [32])).out_features
        32
    """

    fill: Tensor

    def __init__(self, network: nn.Module, fill: float | Tensor = 0.0) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise ValueError(f"network must be a torch module, got {network!r}")
        constant = torch.as_tensor(fill, dtype=torch.get_default_dtype()).detach().clone()
        if not (constant.is_meta or bool(constant.isfinite().all())):
            raise ValueError(f"fill must be finite, got {fill}")
        self.network = network
        self.register_buffer("fill", constant)
        for name in ("in_shape", "out_shape", "out_features"):
            if hasattr(network, name):
                setattr(self, name, getattr(network, name))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(torch.where(x.isnan(), self.fill.to(x.dtype), x))
