r"""Penalties of the weights of networks, for ``ELBO(penalties=[...])``: L1 and L2.

Each is one number, in nats, that every datum of a batch pays: the loss of B data has it B times, and under a learning
rate per datum a step has it once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyrovae.objectives.sites import Sites

__all__ = ["L1", "L2"]


class _Weights:
    """A penalty of all weights of a module.

    A weight is a parameter of two dimensions or more whose name in its layer begins with ``weight``: of linear,
    convolutional and recurrent layers, wherever they stand. Biases, the scales of normalisation layers and the
    hyper-parameters of priors, guides and likelihoods are none.
    """

    def __init__(self, weight: float, module: nn.Module) -> None:
        if not 0 <= weight < math.inf:
            raise ValueError(f"weight must be at least 0, got {weight}")
        if not isinstance(module, nn.Module):
            raise TypeError(f"module must be a VAE or another torch module, got {type(module).__name__}")
        self.weight, self.module = weight, module
        if not self.weights():
            raise ValueError(f"module {type(module).__name__} has no weights of two dimensions or more")

    def weights(self) -> list[Tensor]:
        """Those that it is of."""
        named = self.module.named_parameters()
        return [w for name, w in named if w.dim() > 1 and name.rpartition(".")[2].startswith("weight")]

    def __call__(self, model: Sites, guide: Sites) -> Tensor:
        return self.weight * torch.stack([self.of(w) for w in self.weights()]).sum()

    def of(self, w: Tensor) -> Tensor:
        """The penalty of one tensor, at a weight of 1."""
        raise NotImplementedError


class L1(_Weights):
    r"""The sum of the absolute values of all weights: many of them become very small.

    .. math:: \lambda \|\theta\|_1 = \lambda \sum_i |\theta_i|

    Args:
        weight: :math:`\lambda`, at least 0.
        module: A VAE, or a network of it.

    Weights are the parameters of two dimensions or more whose names begin with ``weight``; biases and hyper-parameters
    are free. Its gradient is :math:`\lambda\, sign(\theta)`: under gradient steps a weight comes near zero and moves
    about it, by no more than the learning rate. Where a layer divides its weights by their length, as
    ``Dictionary(unit_norm=True)`` does, their length is not what the model reads.

    Units: nats for each datum.
    References: Tibshirani (1996), "Regression shrinkage and selection via the lasso", whose sum of squares is here the
        bound.
    """

    def of(self, w: Tensor) -> Tensor:
        return w.abs().sum()


class L2(_Weights):
    r"""Half the sum of the squares of all weights, their weight decay under gradient steps.

    .. math:: \frac{\lambda}{2} \|\theta\|^2 = \frac{\lambda}{2} \sum_i \theta_i^2

    It is the negative log-density of a Normal prior of precision :math:`N \lambda` on each of them, but for a constant.
    Under Adam and its kin it is no decay in proportion to the weight: ``pyrovae.optim.adamw`` has that.

    Args:
        weight: :math:`\lambda`, at least 0.
        module: A VAE, or a network of it.

    Weights are the parameters of two dimensions or more whose names begin with ``weight``; biases and hyper-parameters
    are free. Where a layer divides its weights by their length, as ``Dictionary(unit_norm=True)`` does, their length is
    not what the model reads.

    Units: nats for each datum.
    References: Krogh and Hertz (1992), "A simple weight decay can improve generalization".
    """

    def of(self, w: Tensor) -> Tensor:
        return 0.5 * w.square().sum()
