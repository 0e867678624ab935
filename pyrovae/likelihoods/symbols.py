"""Symbols: one of so many for each data dimension, at once or by turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from pyrovae.likelihoods.base import Likelihood

__all__ = ["Autoregressive", "Categorical"]


class Categorical(Likelihood):
    r"""Each data dimension one of ``num_classes``: :math:`p(x_i = c|z) = softmax(f_i(z))_c`.

    Args:
        network: Gives ``num_classes`` logits for each data dimension, those of the first dimension first:
            ``(*batch, D * num_classes)``.
        num_classes: Number of classes :math:`C`; x holds 0 … C-1.
    """

    hint = "it takes whole numbers from 0 to num_classes - 1"

    def __init__(self, network: nn.Module, num_classes: int) -> None:
        super().__init__(network)
        self.num_classes = _check_classes(network, num_classes)
        self.support = constraints.integer_interval(0, num_classes - 1)

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        return dist.Categorical(logits=self.output(z).unflatten(-1, (-1, self.num_classes))).to_event(1)

    def mean(self, z: Tensor) -> Tensor:
        """The most probable class: a category has no mean."""
        return self(z).base_dist.logits.argmax(-1).to(z.dtype)


class Autoregressive(Likelihood):
    r"""Sequences such as text, each symbol given those before it:
    :math:`p(x|z) = \prod_t softmax(f_t(z, x_1 \dots x_{t-1}))_{x_t}`.

    ``log_prob`` sees all of x at once; ``sample`` draws symbol by symbol. Such a decoder may model x alone and leave z
    unread: ``word_dropout`` of :class:`~pyrovae.nn.GRUDecoder`, free bits and a warm-up of beta are against that.

    Args:
        network: Called with z ``(N, D)`` and x ``(N, L)`` it gives ``(N, L * num_classes)`` logits, those of the first
            symbol first, each of what is before it in x; ``generate(z, choose)`` gives x, as that of
            :class:`~pyrovae.nn.GRUDecoder` does. It says its ``out_features``.
        num_classes: Number of symbols :math:`C`; x holds 0 … C-1.

    References: Bowman et al. (2016), "Generating sentences from a continuous space".
    """

    hint = Categorical.hint

    def __init__(self, network: nn.Module, num_classes: int) -> None:
        super().__init__(network)
        self.num_classes, out_features = _check_classes(network, num_classes), getattr(network, "out_features", None)
        if out_features is None or not hasattr(network, "generate"):
            raise ValueError(
                f"network must say its out_features and have a generate(z, choose), {type(network).__name__} does not"
            )
        self.length = out_features // num_classes
        self.support = constraints.integer_interval(0, num_classes - 1)

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        return _Sequences(self.network, z, self.length, self.num_classes)

    def mean(self, z: Tensor) -> Tensor:
        """Symbol by symbol the most probable one after those before it: a sequence has no mean."""
        return self(z).written(lambda logits: logits.argmax(-1)).to(z.dtype)


class _Sequences(dist.TorchDistribution):
    """What :class:`Autoregressive` returns: sequences ``(L,)`` given each z of a batch."""

    arg_constraints: ClassVar = {"z": constraints.real_vector}
    has_rsample = False

    def __init__(self, network: nn.Module, z: Tensor, length: int, num_classes: int) -> None:
        self.network, self.z, self.num_classes = network, z, num_classes
        super().__init__(z.shape[:-1], torch.Size([length]))

    def expand(self, batch_shape: Any, _instance: Any = None) -> _Sequences:
        new = self._get_checked_instance(_Sequences, _instance)
        new.network, new.z, new.num_classes = self.network, self.z.expand(*batch_shape, -1), self.num_classes
        super(_Sequences, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.integer_interval(0, self.num_classes - 1), 1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        batch = torch.broadcast_shapes(self.batch_shape, value.shape[:-1])
        z, x = (tensor.expand(*batch, -1).reshape(-1, tensor.shape[-1]) for tensor in (self.z, value.long()))
        log_probs = self.network(z, x).unflatten(-1, (-1, self.num_classes)).log_softmax(-1)
        return log_probs.gather(-1, x[..., None]).sum((-2, -1)).reshape(batch)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.written(lambda logits: dist.Categorical(logits=logits, validate_args=False).sample(), sample_shape)

    def written(self, choose: Callable[[Tensor], Tensor], sample_shape: Any = ()) -> Tensor:
        """Sequences of the symbols that ``choose`` takes one by one, ``(n,)`` from logits ``(n, num_classes)``."""
        shape = (*sample_shape, *self.batch_shape)
        with torch.no_grad():
            z = self.z.expand(*shape, -1).reshape(-1, self.z.shape[-1])
            generate: Any = self.network.generate  # torch types attributes as tensors
            return generate(z, choose).reshape(*shape, *self.event_shape)


def _check_classes(network: nn.Module, num_classes: int) -> int:
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    out_features = getattr(network, "out_features", num_classes)
    if out_features % num_classes:
        raise ValueError(f"num_classes = {num_classes} does not divide the network's out_features = {out_features}")
    return num_classes
