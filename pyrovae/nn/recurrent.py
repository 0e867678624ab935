"""Recurrent networks, for sequences of symbols such as the characters of a text."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyrovae.nn.layers import check_options
from pyrovae.nn.shapes import batch_shape

__all__ = ["GRUDecoder", "GRUEncoder"]


class GRUEncoder(nn.Module):
    """A GRU that reads a sequence from both ends; its two last states are the trunk of a guide.

    Args:
        length: Symbols :math:`L` of a sequence.
        num_classes: Number of symbols :math:`C`; x holds 0 … C-1, in any dtype.
        hidden: Width of each of the two states.
        embedding: Width of the vector of a symbol.
        dropout: Probability that a number of such a vector, or of a state, is zero in training.

    Shape: ``(*batch, L)`` to ``(*batch, 2 * hidden)``.
    Raises: ValueError for an x with a gradient: what is read of it are whole numbers.
    References: Cho et al. (2014), "Learning phrase representations using RNN encoder-decoder", eq. 5 to 8.
    """

    def __init__(
        self, length: int, num_classes: int, hidden: int = 256, embedding: int = 32, dropout: float = 0.0
    ) -> None:
        super().__init__()
        check_options(None, dropout)
        _check_widths(length=length, num_classes=num_classes, hidden=hidden, embedding=embedding)
        self.in_shape = (length,)
        self.embedding = nn.Embedding(num_classes, embedding)
        self.gru = nn.GRU(embedding, hidden, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(dropout)
        self.out_features = 2 * hidden
        self.out_shape = (self.out_features,)

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            raise ValueError("x asks for a gradient, which symbols have none of: GRUEncoder reads whole numbers")
        batch = batch_shape(x, self.in_shape, whole=True)
        vectors = self.dropout(self.embedding(x.reshape(-1, *self.in_shape).long()))
        _, states = _run(self.gru, vectors)
        return self.dropout(states.transpose(0, 1)).reshape(*batch, self.out_features)


class GRUDecoder(nn.Module):
    r"""A GRU that writes a sequence: the logits of each symbol, given z and the symbols before it.

    .. math::
        h_0 = \tanh(W z + c) , \qquad h_t = GRU([e(x_{t-1}), z],\, h_{t-1}) , \qquad
        p(x_t \mid z, x_1 \dots x_{t-1}) = softmax(V h_t + b)_{x_t}

    In :class:`~pyrovae.likelihoods.Autoregressive` it is called with z and x. In
    :class:`~pyrovae.likelihoods.Categorical` it is called with z alone and sees none: given z they are independent.

    Args:
        in_features: Width of the code.
        length: Symbols :math:`L` of a sequence.
        num_classes: Number of symbols :math:`C`.
        hidden: Width of the state.
        embedding: Width of the vector of a symbol.
        dropout: Probability that a number of such a vector, or of a state where the logits are read, is zero in
            training.
        word_dropout: Probability that in training a symbol is hidden from those after it. What they cannot see they
            have to take from z, which a decoder as strong as this one else leaves unread (posterior collapse).

    Shape: z ``(*batch, in_features)`` and x ``(*batch, L)`` to ``(*batch, L * C)``, logits, the first symbol's first.
    References: Bowman, Vilnis, Vinyals, Dai, Jozefowicz and Bengio (2016), "Generating sentences from a continuous
        space", section 3.
    """

    def __init__(
        self,
        in_features: int,
        length: int,
        num_classes: int,
        hidden: int = 256,
        embedding: int = 32,
        dropout: float = 0.0,
        word_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_options(None, dropout)
        _check_widths(
            in_features=in_features, length=length, num_classes=num_classes, hidden=hidden, embedding=embedding
        )
        if not 0.0 <= word_dropout <= 1.0:
            raise ValueError(f"word_dropout must be between 0 and 1, got {word_dropout}")
        self.in_shape, self.length, self.num_classes = (in_features,), length, num_classes
        self.word_dropout = word_dropout
        self.embedding = nn.Embedding(num_classes + 2, embedding)  # and what stands for no symbol, and for a hidden one
        self.first = nn.Linear(in_features, hidden)
        self.gru = nn.GRU(embedding + in_features, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(hidden, num_classes)
        self.out_features = length * num_classes
        self.out_shape = (self.out_features,)

    def forward(self, z: Tensor, x: Tensor | None = None) -> Tensor:
        batch = batch_shape(z, self.in_shape)
        z = z.reshape(-1, *self.in_shape)
        start, hidden = self.num_classes, self.num_classes + 1
        if x is None:
            seen = z.new_full((len(z), self.length - 1), hidden, dtype=torch.long)
        else:
            seen = x.reshape(-1, self.length)[:, :-1].long()
            if self.training and self.word_dropout:
                seen = seen.masked_fill(torch.rand(seen.shape, device=z.device) < self.word_dropout, hidden)
        before = functional.pad(seen, (1, 0), value=start)
        inputs = torch.cat([self.dropout(self.embedding(before)), z[:, None].expand(-1, self.length, -1)], -1)
        states, _ = _run(self.gru, inputs, self._first_state(z))
        return self.last(self.dropout(states)).reshape(*batch, self.out_features)

    def generate(self, z: Tensor, choose: Callable[[Tensor], Tensor]) -> Tensor:
        """The sequence ``(*batch, L)`` whose symbols ``choose`` takes one by one, ``(N,)`` from logits ``(N, C)``."""
        batch = batch_shape(z, self.in_shape)
        z = z.reshape(-1, *self.in_shape)
        state, symbol = self._first_state(z), z.new_full((len(z),), self.num_classes, dtype=torch.long)
        symbols = []
        for _ in range(self.length):
            inputs = torch.cat([self.dropout(self.embedding(symbol)), z], -1)
            states, state = _run(self.gru, inputs[:, None], state)
            symbol = choose(self.last(self.dropout(states[:, 0])))
            symbols.append(symbol)
        return torch.stack(symbols, -1).reshape(*batch, self.length)

    def _first_state(self, z: Tensor) -> Tensor:
        return torch.tanh(self.first(z))[None]


def _check_widths(**widths: int) -> None:
    for name, width in widths.items():
        if not isinstance(width, int) or width < 1:
            raise ValueError(f"{name} must be a positive whole number, got {width!r}")


def _run(gru: nn.GRU, inputs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """All states and the last; in ``eval`` mode too with a gradient, of which cuDNN has none there."""
    without = inputs.is_cuda and not gru.training and torch.is_grad_enabled()
    with torch.backends.cudnn.flags(enabled=False) if without else nullcontext():
        return gru(inputs, state)
