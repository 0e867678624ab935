"""Priors p(z) over the latent code.

A prior is one class with one method, ``distribution()``; ``docs/write_a_prior.md`` writes three.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

__all__ = ["Laplace", "Normal", "Prior", "StudentT"]


class Prior(nn.Module):
    """p(z): write ``distribution()``; override ``forward`` only when p(z) needs several sites.

    Learned hyper-parameters are ``nn.Parameter``s and fixed ones buffers, so both follow ``.to(device)`` and
    ``.double()``. The distribution is built at each call: one kept from the last step would hold a freed graph.
    """

    def distribution(self) -> dist.TorchDistribution:
        """p(z), with ``event_shape (D,)`` and no batch dimension."""
        raise NotImplementedError(f"{type(self).__name__} must define distribution() or override forward()")

    def forward(self) -> Tensor:
        """Sample the latent sites inside the data plate; return what the decoder reads."""
        return pyro.sample("z", self.distribution())

    @property
    def support(self) -> constraints.Constraint | None:
        """The set that z lives in, or None where only the sites can tell."""
        try:
            return self.distribution().support
        except NotImplementedError:
            return None


class Normal(Prior):
    r"""Normal prior, independent coordinates: the usual VAE.

    .. math:: p(z) = \prod_i \frac{1}{\sqrt{2\pi}\, s} \exp\left(-\frac{(z_i - m)^2}{2 s^2}\right)

    Args:
        dim: Number of latent coordinates :math:`D`.
        loc: :math:`m`.
        scale: :math:`s > 0`, the standard deviation.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats.
    Raises: ValueError if ``dim < 1`` or ``scale <= 0``.
    Example:
        >>> Normal(3).distribution().event_shape
        torch.Size([3])
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, dim: int, loc: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("loc", torch.full((_dim(dim),), float(loc)))
        self.register_buffer("scale", torch.full((dim,), _positive("scale", scale)))

    def distribution(self) -> dist.TorchDistribution:
        return dist.Normal(self.loc, self.scale).to_event(1)


class Laplace(Prior):
    r"""Laplace prior: independent coordinates that lean to zero.

    .. math:: p(z) = \prod_i \frac{1}{2b} \exp\left(-|z_i - m| / b\right)

    Args:
        dim: Number of latent coordinates :math:`D`.
        loc: :math:`m`.
        scale: :math:`b > 0`; the standard deviation is :math:`\sqrt 2\, b`.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats.
    Raises: ValueError if ``dim < 1`` or ``scale <= 0``.
    See also: :class:`pyrovae.guides.Laplace`, :class:`pyrovae.guides.Normal`; both KLs are exact.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, dim: int, loc: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("loc", torch.full((_dim(dim),), float(loc)))
        self.register_buffer("scale", torch.full((dim,), _positive("scale", scale)))

    def distribution(self) -> dist.TorchDistribution:
        return dist.Laplace(self.loc, self.scale).to_event(1)


class StudentT(Prior):
    r"""Student's t prior: independent coordinates, many near zero and a few far away.

    .. math:: p(z) = \prod_i \frac{\Gamma((\nu+1)/2)}{\Gamma(\nu/2)\sqrt{\pi\nu}\, s}
              \left(1 + \frac{(z_i - m)^2}{\nu s^2}\right)^{-(\nu+1)/2}

    Args:
        dim: Number of latent coordinates :math:`D`.
        df: :math:`\nu > 0`, degrees of freedom; the tails fall as :math:`|z|^{-\nu-1}`.
        loc: :math:`m`.
        scale: :math:`s > 0`; the standard deviation is :math:`s\sqrt{\nu/(\nu-2)}` for :math:`\nu > 2`.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats.
    Raises: ValueError if ``dim < 1``, ``df <= 0`` or ``scale <= 0``.
    See also: :class:`pyrovae.guides.StudentT`.
    """

    df: Tensor
    loc: Tensor
    scale: Tensor

    def __init__(self, dim: int, df: float = 3.0, loc: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("df", torch.full((_dim(dim),), _positive("df", df)))
        self.register_buffer("loc", torch.full((dim,), float(loc)))
        self.register_buffer("scale", torch.full((dim,), _positive("scale", scale)))

    def distribution(self) -> dist.TorchDistribution:
        return dist.StudentT(self.df, self.loc, self.scale).to_event(1)


def _dim(dim: int) -> int:
    if not isinstance(dim, int) or dim < 1:
        raise ValueError(f"dim must be a positive whole number, got {dim!r}")
    return dim


def _positive(name: str, value: float) -> float:
    if not 0.0 < value < float("inf"):
        raise ValueError(f"{name} must be positive and finite, got {value}")
    return float(value)
