"""``log1p`` and ``expm1`` written with ``log`` and ``exp``, which torch computes faster on a CPU.

On a CPU with 512-bit vectors torch's ``log1p`` and ``expm1`` took ten times as long as ``log`` and ``exp``. Softplus,
log-sigmoid and the log-density of binary data use ``log1p``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["FASTER", "MADE_OF_THEM", "expm1", "log1p"]

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


FASTER: dict[Any, Callable[..., Any]] = {aten.log1p.default: log1p, aten.expm1.default: expm1}
MADE_OF_THEM = [
    aten.binary_cross_entropy_with_logits.default,
    aten.softplus.default,
    aten.log_sigmoid_forward.default,
]
