"""Special functions written with arithmetic, ``log`` and ``exp``, which torch computes faster on a CPU.

On a CPU with 512-bit vectors torch's ``log1p`` and ``expm1`` took ten times as long as ``log`` and ``exp``. Its
trigamma is computed one number at a time. Softplus, log-sigmoid and the log-density of binary data use ``log1p``. The
densities of Gamma, Beta, Dirichlet and Poisson use the others, which are written for float32 alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["FASTER", "MADE_OF_THEM", "digamma", "expm1", "lgamma", "log1p", "polygamma"]

aten = torch.ops.aten


def log1p(x: Tensor) -> Tensor:
    r"""log(1 + x) to a few units in the last place, from the log of the rounded :math:`w = 1 + x`.

    .. math:: \log(1 + x) \approx \log(w)\, \frac{x}{w - 1}

    References: Higham (2002), "Accuracy and stability of numerical algorithms", section 1.14.1, theorem 1.
    """
    w = 1 + x
    gap = w - 1
    return torch.where((gap == 0) | (gap == torch.inf), x, w.log() * (x / gap))


def expm1(x: Tensor) -> Tensor:
    r"""exp(x) - 1 to a few units in the last place, from the rounded :math:`w = e^x`.

    .. math:: e^x - 1 \approx (w - 1) \frac{x}{\log w} \quad (|x| < 1)

    References: Higham (2002), "Accuracy and stability of numerical algorithms", section 1.14.1.
    """
    w = x.exp()
    near = (w - 1) * (x / w.log())
    return torch.where(w == 1, x, torch.where(x.abs() < 1, near, w - 1))


def lgamma(x: Tensor) -> Tensor:
    r"""log |Γ(x)|, with an absolute error of ten units in the last place of max(1, log |Γ(x)|).

    .. math::
        \log \Gamma(y) \approx (y - \tfrac12) \log y - y + \tfrac12 \log 2\pi
            + \frac1{12 y} - \frac1{360 y^3} + \frac1{1260 y^5} \quad (y \ge 4)

    and :math:`\Gamma(x) = \Gamma(x + 4) / (x (x + 1) (x + 2) (x + 3))` below.

    References: Abramowitz and Stegun (1964), equations 6.1.41, 6.1.15 and 6.1.17.
    """
    if x.dtype != torch.float32:
        return NotImplemented
    positive = torch.where(x > 0, x, 1 - x)
    shift = torch.where(positive < 4, 4.0, 0.0)
    y = positive + shift
    log, z = y.log(), 1 / (y * y)
    rising = positive * (positive + 1) * ((positive + 2) * (positive + 3)) * (z * z)  # over y^4
    series = (1 / 12 - z * (1 / 360 - z / 1260)) / y
    constant = 0.5 * math.log(2 * math.pi) - 0.5
    large = (y - 0.5 - shift) * (log - 1) + (constant - shift + series)
    value = torch.where(shift > 0, large - rising.log(), large)
    value = torch.where(y == math.inf, y, value)
    return torch.where(x > 0, value, (math.pi / _angle(x).sin().abs()).log() - value)


def digamma(x: Tensor) -> Tensor:
    r"""The derivative of log Γ, with an absolute error of ten units in the last place of max(1, |ψ(x)|).

    .. math::
        \psi(y) \approx \log y - \frac1{2y} - \frac1{12 y^2} + \frac1{120 y^4} - \frac1{252 y^6} + \frac1{240 y^8}
            \quad (y \ge 4), \qquad \psi(x) = \psi(x + 4) - \sum_{k=0}^3 \frac1{x + k}

    References: Abramowitz and Stegun (1964), equations 6.3.18, 6.3.6 and 6.3.7.
    """
    if x.dtype != torch.float32:
        return NotImplemented
    positive = torch.where(x > 0, x, 1 - x)
    small = positive < 4
    y = torch.where(small, positive + 4, positive)
    z = 1 / (y * y)
    large = y.log() - 0.5 / y - z * (1 / 12 - z * (1 / 120 - z * (1 / 252 - z / 240)))
    below = 1 / positive + 1 / (positive + 1) + (1 / (positive + 2) + 1 / (positive + 3))
    value = torch.where(small, large - below, large)
    angle = _angle(x)
    reflected = value - math.pi * angle.cos() / angle.sin()
    return torch.where(x > 0, value, torch.where((x < 0) & (x == x.floor()), math.nan, reflected))


def polygamma(n: int, x: Tensor) -> Tensor:
    r"""The trigamma function ψ'(x), to ten units in the last place; other orders are left to torch.

    .. math::
        \psi'(y) \approx \frac1y + \frac1{2 y^2} + \frac1{6 y^3} - \frac1{30 y^5} + \frac1{42 y^7} - \frac1{30 y^9}
            \quad (y \ge 4), \qquad \psi'(x) = \psi'(x + 4) + \sum_{k=0}^3 \frac1{(x + k)^2}

    References: Abramowitz and Stegun (1964), equations 6.4.12, 6.4.6 and 6.4.7.
    """
    if n != 1 or x.dtype != torch.float32:
        return NotImplemented
    positive = torch.where(x > 0, x, 1 - x)
    small = positive < 4
    y = torch.where(small, positive + 4, positive)
    z = 1 / (y * y)
    large = (1 + z * (1 / 6 - z * (1 / 30 - z * (1 / 42 - z / 30)))) / y + 0.5 * z
    inverses = [1 / (positive + k) for k in range(4)]
    below = inverses[0] ** 2 + inverses[1] ** 2 + (inverses[2] ** 2 + inverses[3] ** 2)
    value = torch.where(small, large + below, large)
    return torch.where(x > 0, value, (math.pi / _angle(x).sin()) ** 2 - value)


def _angle(x: Tensor) -> Tensor:
    """π times the distance from the nearest whole number."""
    return math.pi * (x - (x + 0.5).floor())


FASTER: dict[Any, Callable[..., Any]] = {
    aten.log1p.default: log1p,
    aten.expm1.default: expm1,
    aten.lgamma.default: lgamma,
    aten.digamma.default: digamma,
    aten.polygamma.default: polygamma,
}
MADE_OF_THEM = [
    aten.binary_cross_entropy_with_logits.default,
    aten.softplus.default,
    aten.log_sigmoid_forward.default,
]
