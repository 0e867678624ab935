"""Steps of weight matrices along the nearest orthogonal matrix."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from pyro.optim import PyroOptim
from torch import Tensor
from torch.optim import AdamW, Optimizer

from pyrovae.optim.base import Rate, pyro_optim
from pyrovae.optim.numbers import at_least_zero, positive, share

__all__ = ["muon"]


def muon(lr: Rate = 1e-3, weight_decay: float = 1e-2, momentum: float = 0.95) -> PyroOptim:
    r"""Muon for the weight matrices of layers, AdamW for all other parameters.

    .. math::
        b_t = \mu b_{t-1} + (1 - \mu)\, g_t , \qquad
        \theta_t = (1 - \eta \lambda)\, \theta_{t-1}
            - 0.2\, \eta \sqrt{\max(m, n)}\; O\big((1 - \mu)\, g_t + \mu b_t\big) , \qquad b_0 = 0

    for a matrix of m rows and n columns. O(A) is :math:`U V^T` of the singular value decomposition :math:`A = U S V^T`,
    roughly: five steps of a Newton-Schulz iteration in bfloat16 bring each singular value to between 0.7 and 1.2. With
    the factor before it the mean square of a step is about that of AdamW, so that one learning rate serves both.

    A weight matrix is a parameter of two dimensions whose name in its layer begins with ``weight``: not a bias, the
    kernel of a convolution, or a hyper-parameter of a prior.

    Args:
        lr: :math:`\eta`, or a schedule of it.
        weight_decay: :math:`\lambda`, at least 0, of all parameters, as in :func:`adamw`.
        momentum: :math:`\mu`, in (0, 1).

    Raises: ValueError if a number is out of its range, or under a torch before 2.9, which has no Muon.
    References: Jordan et al. (2024), "Muon: an optimizer for hidden layers in neural networks"; Liu et al. (2025),
        "Muon is scalable for LLM training" (the factor and the weight decay).
    """
    at_least_zero(weight_decay=weight_decay)
    positive(momentum=momentum)
    share(momentum=momentum)
    if not hasattr(torch.optim, "Muon"):
        raise ValueError(f"muon needs torch 2.9 or later, this is {torch.__version__}")
    return pyro_optim(_muon_or_adamw, lr, weight_decay=weight_decay, momentum=momentum)


def _muon_or_adamw(params: list[Tensor], lr: float, weight_decay: float, momentum: float) -> Optimizer:
    """Of the one parameter that Pyro makes it for."""
    name = str(pyro.get_param_store().param_name(params[0])).replace("$$$", ".").rpartition(".")[2]
    if params[0].dim() != 2 or not name.startswith("weight"):
        return AdamW(params, lr=lr, weight_decay=weight_decay)
    options: dict[str, Any] = {"momentum": momentum, "adjust_lr_fn": "match_rms_adamw"}
    return torch.optim.Muon(params, lr=lr, weight_decay=weight_decay, **options)
