r"""Penalties of the weights of networks, for ``ELBO(penalties=[...])``: L1 and L2.

Each is one number in nats that is added to the loss of every datum: the loss of a batch of B data has it B times, and
under a learning rate per datum a step has it once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyrovae.objectives.sites import Sites

__all__ = ["L1", "L2"]


class _Weights:
    """A penalty of all weights of a module.

    A weight is a parameter of two dimensions or more whose name in its layer begins with ``weight``, as in linear,
    convolutional and recurrent layers. Biases, the scales of normalisation layers and the hyper-parameters of priors,
    guides and likelihoods are not weights.
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
        """The penalised parameters."""
        named = self.module.named_parameters()
        return [w for name, w in named if w.dim() > 1 and name.rpartition(".")[2].startswith("weight")]

    def __call__(self, model: Sites, guide: Sites) -> Tensor:
        return self.weight * torch.stack([self.of(w) for w in self.weights()]).sum()

    def of(self, w: Tensor) -> Tensor:
        """The penalty of one tensor, before it is multiplied by ``weight``."""
        raise NotImplementedError


class L1(_Weights):
    r"""The sum of the absolute values of all weights, under which many weights become very small.

    .. math:: \lambda \|\theta\|_1 = \lambda \sum_i |\theta_i|

    Args:
        weight: :math:`\lambda`, at least 0.
        module: A VAE, or a network of it.

    Weights are the parameters of two dimensions or more whose names begin with ``weight``; biases and hyper-parameters
    are not penalised. The gradient is :math:`\lambda\, sign(\theta)`: with gradient steps a weight comes close to zero
    and then oscillates around zero by at most the learning rate. A layer that normalises its weights, such as
    ``Dictionary(unit_norm=True)``, does not depend on their length: the model does not change when the penalty shrinks
    it.

    Units: nats for each datum.
    References: Tibshirani (1996), "Regression shrinkage and selection via the lasso", with the bound instead of the sum
        of squares.
    """

    def of(self, w: Tensor) -> Tensor:
        return w.abs().sum()


class L2(_Weights):
    r"""Half the sum of the squares of all weights, which is weight decay under plain gradient steps.

    .. math:: \frac{\lambda}{2} \|\theta\|^2 = \frac{\lambda}{2} \sum_i \theta_i^2

    Times N and up to a constant it is the negative log-density of a Normal prior of precision :math:`N \lambda` on each
    weight. Under Adam and other adaptive optimizers the decay is not proportional to the weight; use
    ``pyrovae.optim.adamw`` for that.

    Args:
        weight: :math:`\lambda`, at least 0.
        module: A VAE, or a network of it.

    Weights are the parameters of two dimensions or more whose names begin with ``weight``; biases and hyper-parameters
    are not penalised. A layer that normalises its weights, such as ``Dictionary(unit_norm=True)``, does not depend on
    their length: the model does not change when the penalty shrinks it.

    Units: nats for each datum.
    References: Krogh and Hertz (1992), "A simple weight decay can improve generalization".
    """

    def of(self, w: Tensor) -> Tensor:
        return 0.5 * w.square().sum()
