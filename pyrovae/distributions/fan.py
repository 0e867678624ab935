"""The fan: a Normal draw of a plane, written in the coordinates of the two rays beside it."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import Independent, Normal, constraints, register_kl
from torch.distributions.utils import broadcast_all

from pyrovae.distributions.univariate import SCALAR, Shape

__all__ = ["Fan", "FanSupport", "fan_code", "fan_planes", "planes_and_rays"]

USUAL_RAYS = 12  # five in six coordinates are zero
MOST_RAYS = 1000  # that are tried for a number of latents
TOLERANCE = 1e-4  # of the support, relative to the largest coordinate; float32 rounds to 1e-6


class Fan(TorchDistribution):
    r"""Codes with two neighbouring coordinates on in each block of K: a Normal of a plane, seen along K rays.

    Ray k is the unit vector :math:`u_k = (\cos 2\pi k/K, \sin 2\pi k/K)`. A point s of the plane lies between two
    neighbouring rays, and is written with their coordinates, which are not negative. The other K - 2 are exactly zero:

    .. math:: s = \sum_k z_k u_k , \qquad z_k = r \max\left(0, \frac{\sin(2\pi/K - |t_k|)}{\sin(2\pi/K)}\right) ,
              \qquad s \sim N(\mu, diag\,\sigma^2)

    with r the length of s and :math:`t_k` its angle to ray k. z is a continuous function of s and has s as a linear
    function, so that no information is lost: KLs are those of s, in closed form, and the gradient of a draw is
    pathwise. There are D / K planes, and a code has 2 D / K coordinates that are not zero.

    Args:
        loc: :math:`\mu`, ``(*batch, 2 D / K)``: two numbers for each plane.
        scale: :math:`\sigma > 0`, of the same shape.
        rays: K, at least 3.

    Shape: event_shape ``(D,)``, plane after plane.
    Units: log_prob in nats, with respect to the area of the planes.
    Raises: ValueError if ``rays < 3``, or ``loc`` has an odd number of columns.
    """

    arg_constraints: ClassVar = {
        "loc": constraints.real_vector,
        "scale": constraints.independent(constraints.positive, 1),
    }
    has_rsample = True
    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor, scale: Tensor, rays: int, validate_args: bool | None = None) -> None:
        self.rays = planes_and_rays(rays, rays)[1]
        self.loc, self.scale = broadcast_all(loc, scale)
        if self.loc.dim() < 1 or self.loc.shape[-1] % 2:
            raise ValueError(f"loc must have two columns for each plane, got shape {tuple(self.loc.shape)}")
        event = torch.Size([self.loc.shape[-1] // 2 * rays])
        super().__init__(self.loc.shape[:-1], event, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        return FanSupport(self.rays)

    @property
    def planes(self) -> Independent:
        """The Normal of s, ``event_shape (2 D / K,)``."""
        return Independent(Normal(self.loc, self.scale, validate_args=False), 1)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Fan:
        new = self._get_checked_instance(Fan, _instance)
        shape = torch.Size([*batch_shape, self.loc.shape[-1]])
        new.rays, new.loc, new.scale = self.rays, self.loc.expand(shape), self.scale.expand(shape)
        TorchDistribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: Shape = SCALAR) -> Tensor:
        return fan_code(self.planes.rsample(torch.Size(sample_shape)), self.rays)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self.planes.log_prob(fan_planes(value, self.rays))

    def entropy(self) -> Tensor:
        """With respect to the area of the planes."""
        return self.planes.entropy()


def fan_code(s: Tensor, rays: int) -> Tensor:
    """The code ``(*batch, D)`` of points ``(*batch, 2 D / rays)`` of the planes."""
    cos, sin = _rays(s, rays)
    x, y = s.unflatten(-1, (-1, 2)).unsqueeze(-2).unbind(-1)
    along, across = x * cos + y * sin, y * cos - x * sin
    return torch.relu(along - across.abs() / math.tan(2 * math.pi / rays)).flatten(-2)


def fan_planes(z: Tensor, rays: int) -> Tensor:
    """The points ``(*batch, 2 D / rays)`` of codes ``(*batch, D)``, a linear function."""
    blocks = z.unflatten(-1, (-1, rays))
    return torch.stack([(blocks * axis).sum(-1) for axis in _rays(z, rays)], -1).flatten(-2)


def planes_and_rays(dim: int, rays: int | None = None) -> tuple[int, int]:
    """The number of planes and the rays of each; None is the divisor of dim nearest to 12. Or ValueError."""
    if rays is not None and (not isinstance(rays, int) or rays < 3):
        raise ValueError(f"rays must be a whole number of at least 3, got {rays!r}")
    if not isinstance(dim, int) or dim < 3:
        raise ValueError(f"dim must be a whole number of at least 3, the fewest rays of a plane, got {dim!r}")
    if rays is None:
        few = [k for k in range(3, min(dim, MOST_RAYS)) if dim % k == 0]
        rays = min([*few, dim], key=lambda k: (abs(math.log(k / USUAL_RAYS)), -k))
    if dim % rays:
        low = dim // rays * rays or rays
        raise ValueError(f"dim must be a multiple of rays = {rays}, got {dim}: take {low} or {low + rays}")
    return dim // rays, rays


def _rays(like: Tensor, rays: int) -> tuple[Tensor, Tensor]:
    angle = torch.arange(rays, dtype=like.dtype, device=like.device) * (2 * math.pi / rays)
    return angle.cos(), angle.sin()


class FanSupport(constraints.Constraint):
    """Codes of a :class:`Fan`: in each plane at most two neighbouring rays are on, and none is negative.

    ``rays`` is None in the class of the guide, whose instances know their number of rays.
    """

    event_dim = 1

    def __init__(self, rays: int | None = None) -> None:
        self.rays = rays
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        if self.rays is None or value.shape[-1] % self.rays:
            return torch.zeros(value.shape[:-1], dtype=torch.bool, device=value.device)
        error = (fan_code(fan_planes(value, self.rays), self.rays) - value).abs().amax(-1)
        return error <= TOLERANCE * (1 + value.abs().amax(-1))

    def __repr__(self) -> str:
        return "Fan()" if self.rays is None else f"Fan(rays={self.rays})"


@register_kl(Fan, Fan)
def _kl_fan(q: Fan, p: Fan) -> Tensor:
    if q.rays != p.rays:
        raise NotImplementedError(f"KL of fans of {q.rays} and {p.rays} rays")
    return torch.distributions.kl_divergence(q.planes, p.planes)
