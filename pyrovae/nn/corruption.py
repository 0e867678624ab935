r"""Damage to what an encoder sees while it trains; the likelihood scores the data as they are. That is denoising.

.. math::
    \tilde x \sim c(\tilde x | x) , \qquad
    E_{c(\tilde x|x)}\left[E_{q(z|\tilde x)}[\log p(x|z)] - KL(q(z|\tilde x) \,\|\, p(z))\right] \le \log p(x)

Whatever the guide reads, it is a guide: each :math:`\tilde x` gives a bound on log p(x), and so does their mean.

References: Vincent, Larochelle, Bengio and Manzagol (2008), "Extracting and composing robust features with denoising
autoencoders"; Im, Ahn, Memisevic and Bengio (2017), "Denoising criterion for variational auto-encoding framework".
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["Corrupted", "GaussianNoise", "Masking", "SaltAndPepper"]


class Corrupted(nn.Module):
    """An encoder that sees damaged data in ``train`` mode, and the data as they are in ``eval`` mode.

    Args:
        network: The encoder, whose ``in_shape``, ``out_shape`` and ``out_features`` it takes over.
        corrupt: A function of x, such as :class:`GaussianNoise`, :class:`Masking` and :class:`SaltAndPepper` are.

    Shape: those of the network.
    Raises: ValueError if ``corrupt`` is no function, or a class in place of its instance.
    Example:
        >>> from pyrovae.nn import MLP
        >>> Corrupted(MLP(64, [32]), Masking(0.3)).out_features
        32
    """

    def __init__(self, network: nn.Module, corrupt: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise ValueError(f"network must be a torch module, got {network!r}")
        if isinstance(corrupt, type) or not callable(corrupt):
            raise ValueError(f"corrupt must be a function of x such as GaussianNoise(0.5), got {corrupt!r}")
        self.network = network
        self.corrupt = corrupt
        for name in ("in_shape", "out_shape", "out_features"):
            if hasattr(network, name):
                setattr(self, name, getattr(network, name))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.corrupt(x) if self.training else x)


class _Damage(nn.Module):
    """Like dropout: active in ``train`` mode, where every module starts, and absent in ``eval`` mode."""

    def damaged(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define damaged(x)")

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_floating_point():
            raise ValueError(f"{type(self).__name__} takes floating-point data, got {x.dtype}: x.float()")
        return self.damaged(x) if self.training else x


class GaussianNoise(_Damage):
    r"""Normal noise on each number: :math:`\tilde x_i = x_i + s\, \epsilon_i`, with :math:`\epsilon_i \sim N(0, 1)`.

    Args:
        scale: The standard deviation :math:`s`.

    Units: those of the data.
    Raises: ValueError unless ``scale`` is positive and finite.
    """

    def __init__(self, scale: float = 0.5) -> None:
        super().__init__()
        self.scale = _number("scale", scale, math.inf)

    def damaged(self, x: Tensor) -> Tensor:
        return x + self.scale * torch.randn_like(x)

    def extra_repr(self) -> str:
        return f"scale={self.scale:g}"


class Masking(_Damage):
    r"""Each number is zero with probability :math:`\rho`, and what it was otherwise.

    Unlike in dropout the others are not divided by :math:`1 - \rho`: damaged data are data with holes.

    Args:
        prob: :math:`\rho`.

    Raises: ValueError unless ``prob`` is between 0 and 1.
    """

    def __init__(self, prob: float = 0.25) -> None:
        super().__init__()
        self.prob = _number("prob", prob, 1.0)

    def damaged(self, x: Tensor) -> Tensor:
        return torch.where(torch.rand_like(x) < self.prob, torch.zeros_like(x), x)

    def extra_repr(self) -> str:
        return f"prob={self.prob:g}"


class SaltAndPepper(_Damage):
    r"""Each number is ``high`` with probability :math:`\rho / 2`, ``low`` with as much, and what it was otherwise.

    Args:
        prob: :math:`\rho`.
        low: The least value of the data.
        high: Their largest value.

    Raises: ValueError unless ``prob`` is between 0 and 1, and ``low`` below ``high``.
    """

    def __init__(self, prob: float = 0.25, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__()
        self.prob = _number("prob", prob, 1.0)
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"low must be below high, both finite, got {low} and {high}")
        self.low, self.high = low, high

    def damaged(self, x: Tensor) -> Tensor:
        u = torch.rand_like(x)
        x = torch.where(u < self.prob / 2, torch.full_like(x, self.low), x)
        return torch.where(u >= 1 - self.prob / 2, torch.full_like(x, self.high), x)

    def extra_repr(self) -> str:
        return f"prob={self.prob:g}, low={self.low:g}, high={self.high:g}"


def _number(name: str, value: float, upper: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < upper:
        allowed = "positive and finite" if math.isinf(upper) else f"between 0 and {upper:g}"
        raise ValueError(f"{name} must be {allowed}, got {value!r}")
    return float(value)
