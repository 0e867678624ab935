r"""Laws as entropy models: how data and codes go on a stack of bits, and come off it.

To push a symbol of probability P on the stack of an ANS coder makes it :math:`-\log_2 P` bits longer; to pop one makes
it as much shorter, and undoes the push. Random bits on the stack pop a draw from the law: so z is drawn from q(z|x)
by the bits that lie there, and these bits are got back when z is pushed again.

A code is one of three, by its prior; each has symbols, whole numbers, for its coordinates, and five methods. ``draw``
and its inverse ``undraw`` pop and push symbols by the guide, ``read`` and ``write`` pop and push them by the prior, and
``value`` is the z that they stand for.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pyro.distributions as dist
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrovae.distributions import Bernoulli, SpikeSlab

__all__ = ["Bits", "Code", "Reals", "Spikes", "Symbols", "base", "check_data_law", "code_of", "pop", "push", "stream"]

SIDE = 256  # a bin is told by two symbols of so many values
LEAST = 1e-200  # of a bin's probability before the coder gives it at least 2^-24: a table must not be all zeros
EVERYWHERE = slice(None)

Symbols = NDArray[np.int32]


def stream() -> Any:
    """The coders and entropy models of constriction."""
    try:
        from constriction import stream
    except ImportError as error:
        raise ImportError("compression needs constriction: pip install 'pyrovae[compression]'") from error
    return stream


def base(law: Any) -> Any:
    """A law without what ``to_event`` put around it."""
    while isinstance(law, torch.distributions.Independent):
        law = law.base_dist
    return law


def push(coder: Any, law: Any, symbols: NDArray[Any]) -> None:
    """Symbols of a Bernoulli or categorical law, one whole number for each of its coordinates."""
    coder.encode_reverse(np.ascontiguousarray(symbols, np.int32), *_entropy_model(law))


def pop(coder: Any, law: Any) -> Symbols:
    """What :func:`push` pushed last."""
    return coder.decode(*_entropy_model(law))


def _entropy_model(law: Any) -> tuple[Any, NDArray[np.float64]]:
    if isinstance(law, torch.distributions.Categorical):
        return stream().model.Categorical(perfect=False), _table(law.probs.flatten(0, -2))
    return stream().model.Bernoulli(perfect=False), _table(law.probs.flatten())


def _table(probs: Tensor) -> NDArray[np.float64]:
    """Probabilities as the coder takes them."""
    table = np.ascontiguousarray(probs.double().numpy())
    if not np.isfinite(table).all():  # the coder would panic
        raise ValueError("the networks of the VAE give probabilities that are not finite: its training diverged")
    return table


def check_data_law(likelihood: Any, law: Any) -> Any:
    """The law of the coordinates of x, or ValueError where it is not one of bits or of categories."""
    law = base(law)
    if isinstance(law, (torch.distributions.Bernoulli, torch.distributions.Categorical)):
        return law
    raise ValueError(
        f"likelihood {type(likelihood).__name__} cannot be compressed without loss here: its x has the law "
        f"{type(law).__name__}, and what is coded is Bernoulli or Categorical"
    )


class Code(Protocol):
    """Symbols of a code, by prior and guide: the head of this file."""

    dim: int

    def draw(self, coder: Any, q: Any) -> Symbols: ...
    def undraw(self, coder: Any, q: Any, symbols: Symbols) -> None: ...
    def read(self, coder: Any) -> Symbols: ...
    def write(self, coder: Any, symbols: Symbols) -> None: ...
    def value(self, symbols: Symbols) -> Tensor: ...


def code_of(p: Any, q: Any) -> Code:
    """The code of a prior p and a guide q of one row, both as :func:`base` leaves them.

    Raises: ValueError if coordinates are dependent or a law has not the function that bins are cut by.
    """
    for what, law in (("prior", p), ("guide", q)):
        if law.event_shape:
            raise ValueError(
                f"the {what}'s law {type(law).__name__} has dependent coordinates, which are not coded here"
            )
    if isinstance(p, Bernoulli) and isinstance(q, Bernoulli):
        return Bits(p)
    if isinstance(p, SpikeSlab) and isinstance(q, SpikeSlab):
        _check_bins(p.slab, q.slab)
        return Spikes(p)
    _check_bins(p, q)
    return Reals(p)


def _check_bins(p: Any, q: Any) -> None:
    for what, law, name in (("prior", p, "icdf"), ("guide", q, "cdf")):
        try:
            getattr(law, name)(torch.full(law.batch_shape, 0.5, dtype=torch.float64))
        except NotImplementedError as error:
            raise ValueError(
                f"the {what}'s law {type(law).__name__} has no {name}(), by which coordinates are cut into bins"
            ) from error


class Reals:
    r"""Real coordinates: each is one of :math:`2^{16}` bins of equal mass under the prior.

    .. math:: P(b) = 2^{-16} , \qquad Q(b) = F_q(e_{b+1}) - F_q(e_b) , \qquad
              e_b = F_p^{-1}(2^{-16} b) , \qquad z = F_p^{-1}(2^{-16} (b + \tfrac12))

    A table of Q would have 65,536 numbers for each coordinate. A bin is told by its two bytes instead, the second given
    the first: two tables of 256.

    Args:
        prior: p, with ``icdf`` and batch shape ``(D,)``.
    """

    def __init__(self, prior: Any) -> None:
        self.prior = prior
        self.dim = prior.batch_shape[0]
        self.steps = torch.linspace(0, 1, SIDE + 1, dtype=torch.float64)[:, None]
        self.coarse = prior.icdf(self.steps.expand(-1, self.dim))

    def draw(self, coder: Any, q: Any, where: Any = EVERYWHERE) -> Symbols:
        model, first, second = stream().model.Categorical(perfect=False), self._zeros(), self._zeros()
        first[where] = coder.decode(model, self._masses(q, self.coarse)[where])
        second[where] = coder.decode(model, self._masses(q, self._fine(first))[where])
        return SIDE * first + second

    def undraw(self, coder: Any, q: Any, symbols: Symbols, where: Any = EVERYWHERE) -> None:
        model, (first, second) = stream().model.Categorical(perfect=False), np.divmod(symbols, SIDE)
        coder.encode_reverse(second[where], model, self._masses(q, self._fine(first))[where])
        coder.encode_reverse(first[where], model, self._masses(q, self.coarse)[where])

    def read(self, coder: Any, where: Any = EVERYWHERE) -> Symbols:
        symbols = self._zeros()
        symbols[where] = coder.decode(stream().model.Uniform(SIDE**2), len(symbols[where]))
        return symbols

    def write(self, coder: Any, symbols: Symbols, where: Any = EVERYWHERE) -> None:
        coder.encode_reverse(symbols[where], stream().model.Uniform(SIDE**2))

    def value(self, symbols: Symbols) -> Tensor:
        return self.prior.icdf((torch.from_numpy(symbols).double() + 0.5) / SIDE**2)[None]

    def _zeros(self) -> Symbols:
        return np.zeros(self.dim, np.int32)

    def _fine(self, first: Symbols) -> Tensor:
        """The edges of the bins that begin with these bytes, ``(257, D)``."""
        return self.prior.icdf((torch.from_numpy(first) + self.steps) / SIDE)

    def _masses(self, q: Any, edges: Tensor) -> NDArray[np.float64]:
        """The mass of q between edges, ``(D, 256)``; where there is next to none, equal shares of it."""
        return _table(q.cdf(edges).diff(dim=0).clamp(min=LEAST).T)


class Spikes:
    r"""Exact zeros: a gate for each coordinate, and the bin of its slab, as of :class:`Reals`, where that is open.

    The symbol of a zero is -1. A coordinate that is zero costs :math:`-\log_2 (1 - \gamma)` bits and no bin.
    """

    def __init__(self, prior: SpikeSlab) -> None:
        self.dim = prior.batch_shape[0]
        self.gate = dist.Bernoulli(logits=prior.logits)
        self.slab = Reals(prior.slab)

    def draw(self, coder: Any, q: Any) -> Symbols:
        gate = pop(coder, dist.Bernoulli(logits=q.logits)) == 1
        return self._marked(gate, self.slab.draw(coder, q.slab, gate))

    def undraw(self, coder: Any, q: Any, symbols: Symbols) -> None:
        gate = symbols >= 0
        self.slab.undraw(coder, q.slab, symbols.clip(min=0), gate)
        push(coder, dist.Bernoulli(logits=q.logits), gate)

    def read(self, coder: Any) -> Symbols:
        gate = pop(coder, self.gate) == 1
        return self._marked(gate, self.slab.read(coder, gate))

    def write(self, coder: Any, symbols: Symbols) -> None:
        gate = symbols >= 0
        self.slab.write(coder, symbols, gate)
        push(coder, self.gate, gate)

    def value(self, symbols: Symbols) -> Tensor:
        slab = self.slab.value(symbols.clip(min=0))
        return torch.where(torch.from_numpy(symbols) < 0, torch.zeros_like(slab), slab)

    @staticmethod
    def _marked(gate: NDArray[np.bool_], bins: Symbols) -> Symbols:
        return np.where(gate, bins, np.int32(-1))


class Bits:
    """Binary codes, whose symbols are themselves."""

    def __init__(self, prior: Bernoulli) -> None:
        self.dim, self.prior = prior.batch_shape[0], prior

    def draw(self, coder: Any, q: Any) -> Symbols:
        return pop(coder, q)

    def undraw(self, coder: Any, q: Any, symbols: Symbols) -> None:
        push(coder, q, symbols)

    def read(self, coder: Any) -> Symbols:
        return pop(coder, self.prior)

    def write(self, coder: Any, symbols: Symbols) -> None:
        push(coder, self.prior, symbols)

    def value(self, symbols: Symbols) -> Tensor:
        return torch.from_numpy(symbols).double()[None]
