r"""Bits-back coding: data on a stack of bits, at the price of the negative ELBO.

For each row of x, with a stack of bits that holds the rows before it:

===================== ========================================================= ===============================
compress              decompress, upwards                                       bits
===================== ========================================================= ===============================
pop z by q(z|x)       push z by q(z|x)                                          :math:`+\log_2 Q(z|x)`
push x by p(x|z)      pop x by p(x|z)                                           :math:`-\log_2 P(x|z)`
push z by p(z)        pop z by p(z)                                             :math:`-\log_2 P(z)`
===================== ========================================================= ===============================

The sum is the negative ELBO at one draw of z, which the bits of the rows before it choose; the bits that chose it are
read back when z and x are known. The first row has no rows before it: the stack starts with just as many pseudo-random
words as its z takes, and they are what decompressing must leave.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro
import torch
from numpy.typing import NDArray
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyrovae import guards
from pyrovae.compression import codes, files
from pyrovae.compression.codes import Symbols
from pyrovae.vae import VAE

__all__ = ["compress", "decompress"]

# Words by which the stack may be longer before the last row than after it. Compressing the first rows makes it at least
# 2,048 bits shorter with a probability below 2^-2048, because the mean of 2^-bits over draws of z is p(x) <= 1.
SLACK = 64


def compress(vae: VAE, x: Tensor) -> bytes:
    r"""Discrete data as bytes, of which :func:`decompress` makes the same data again, bit by bit.

    .. math:: 8\, |bytes| \approx -\frac{1}{\log 2} \sum_n ELBO(x_n) + H_0

    :math:`H_0` are the bits that choose the z of the first row, some 16 for each coordinate of a real code, and those
    of header and checksum, 208 and 32 more for each dimension of ``event_shape``; so many rows in one file are cheaper
    than one each. A real coordinate becomes one of :math:`2^{16}` bins of equal mass under the prior, at the middle of
    a Normal 1/26,000 of its scale wide. They are wide in its tails: a guide that is narrower than they are pays less
    for z, and more for x.

    Prior and guide have one site, ``"z"``, of independent coordinates: bits, spikes and slabs, or real numbers, where
    the prior has an ``icdf`` and the guide a ``cdf`` (the table of docs/compression.md). The networks run one row at a
    time, in float64, on one thread of the CPU, so that the numbers are the same when they are asked again: on the same
    machine with the same version of torch. Another one may round differently; decompressing then raises.

    Args:
        vae: Its likelihood is Bernoulli or Categorical.
        x: ``(N, *event_shape)`` of at least one row; the values are those of the likelihood's support.

    Raises: ValueError if a part of the VAE cannot be coded, or x does not fit; ImportError without constriction.
    References: Townsend, Bird and Barber (2019), "Practical lossless compression with latent variables using bits back
        coding", whose bins are of equal mass under the prior too.
    Example:
        >>> small = compress(vae, x)
        >>> torch.equal(decompress(vae, small), x)
        True
    """
    guards.check_tensors(vae, x)
    if x.dim() < 2 or len(x) == 0:
        raise ValueError(f"x must be at least one row of data, (N, *event_shape), got shape {tuple(x.shape)}")
    with _coding(vae, tuple(x.shape[1:])) as model:
        rows = x.to("cpu", torch.float64).flip(0)  # the last on the stack is the first to be read
        model.check(rows)
        coder = model.coder(rows[:1])
        for row in rows.split(1):
            symbols = model.code.draw(coder, model.guide(row))
            codes.push(coder, model.likelihood(symbols), row.flatten().numpy().astype(np.int32))
            model.code.write(coder, symbols)
        return files.pack(files.Contents(tuple(x.shape), coder.get_compressed(), files.fingerprint(vae)))


def decompress(vae: VAE, compressed: bytes) -> Tensor:
    """The data that :func:`compress` made bytes of, on the device and in the dtype of the VAE.

    Args:
        vae: The one that compressed it, or a copy of it.
        compressed: All of the bytes.

    Raises: ValueError, of one line, if the bytes are cut short, damaged or of another model, or if the networks give
        other numbers here than where they were compressed; ImportError without constriction.
    """
    guards.check_tensors(vae)
    (num_rows, *event_shape), words, _ = files.unpack(compressed, files.fingerprint(vae))
    rows = []
    with _coding(vae, tuple(event_shape)) as model:
        coder = codes.stream().stack.AnsCoder(words)
        most = len(words) + SLACK
        for _ in range(num_rows):
            if not 0 < coder.num_words() <= most:
                raise ValueError("compressed is damaged: its stack of bits does not hold the rows that its header says")
            symbols = model.code.read(coder)
            row = torch.from_numpy(codes.pop(coder, model.likelihood(symbols))).double().reshape(1, *event_shape)
            model.code.undraw(coder, model.guide(row), symbols)
            rows.append(row)
        if not _is_start(coder):
            raise ValueError(
                "compressed cannot be read here: the networks of its model give other numbers on this machine, or with "
                "this version of torch, than where it was made"
            )
    return torch.cat(rows).to(next(vae.parameters()))


class _Model:
    """What compressing and decompressing ask a VAE, one row at a time."""

    def __init__(self, vae: VAE, event_shape: tuple[int, ...]) -> None:
        if vae.num_labels:
            raise ValueError("vae is conditional: labels are not coded here")
        for what, part in (("prior", vae.prior), ("guide", vae.posterior)):
            if hasattr(part, "shared"):
                raise ValueError(
                    f"{what} {type(part).__name__} has sites that all data share, which are not coded here"
                )
        self.vae = vae
        site, read = _site("prior", vae.prior)
        if read is not site["value"]:
            raise ValueError(f"prior {type(vae.prior).__name__} gives the decoder something else than its site 'z'")
        law = vae.likelihood(read[None])
        self.support = codes.check_data_law(vae.likelihood, law).support
        if tuple(law.event_shape) != event_shape:
            raise ValueError(f"x has shape {event_shape} per datum, the likelihood {tuple(law.event_shape)}")
        self.code = codes.code_of(codes.base(site["fn"]), self.guide(torch.zeros(1, *event_shape).double()))

    def check(self, rows: Tensor) -> None:
        """ValueError unless the values are those of the likelihood's support."""
        bad = rows[~self.support.check(rows)]
        if len(bad):
            raise ValueError(
                f"x has the value {bad[0]:.6g}, which is none of likelihood {type(self.vae.likelihood).__name__}"
            )

    def coder(self, row: Tensor) -> Any:
        """A stack of as many words as the code of the first row takes, and one more."""
        start = _start(64 + 2 * self.code.dim)
        trial = codes.stream().stack.AnsCoder(start, seal=True)
        words = trial.num_words()
        self.code.draw(trial, self.guide(row))
        return codes.stream().stack.AnsCoder(start[-(words - trial.num_words() + 1) :], seal=True)

    def guide(self, row: Tensor) -> Any:
        """q(z|x) of one row, which is copied: products of matrices round by where in memory their factors start."""
        return codes.base(_site("guide", self.vae.posterior, row.clone())[0]["fn"])

    def likelihood(self, symbols: Symbols) -> Any:
        """p(x|z) at what the symbols of z stand for."""
        return codes.base(self.vae.likelihood(self.code.value(symbols)))


@contextmanager
def _coding(vae: VAE, event_shape: tuple[int, ...]) -> Iterator[_Model]:
    """A copy of the VAE that gives the same numbers whenever it is asked; what was set before is set again after."""
    codes.stream()  # or its error, before the work
    with guards.pyro_lock, torch.no_grad(), torch.random.fork_rng(devices=[]), pyro.validation_enabled(False):
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield _Model(copy.deepcopy(vae).to("cpu", torch.float64).eval(), event_shape)
        finally:
            torch.set_num_threads(threads)


def _site(what: str, part: Any, *args: Tensor) -> tuple[Any, Any]:
    """The one site of a prior or guide, and what it returns."""
    nodes = poutine.trace(part).get_trace(*args).nodes
    sites = {name: node for name, node in nodes.items() if node["type"] == "sample" and not site_is_subsample(node)}
    if set(sites) != {"z"}:
        raise ValueError(f"{what} {type(part).__name__} has the sites {sorted(sites)}, and one site 'z' is coded here")
    return sites["z"], nodes["_RETURN"]["value"]


def _start(num_words: int) -> NDArray[np.uint32]:
    """Pseudo-random words, of which the last ones are the same however many there are."""
    words = np.frombuffer(hashlib.shake_256(files.MAGIC).digest(4 * num_words), "<u4")
    return np.ascontiguousarray(words[::-1], np.uint32)


def _is_start(coder: Any) -> bool:
    """Whether the stack is what :meth:`_Model.coder` started with."""
    try:
        words = coder.get_compressed(unseal=True)
    except AssertionError:  # of constriction, when the stack does not end as it began
        return False
    return len(words) > 0 and np.array_equal(words, _start(len(words)))
