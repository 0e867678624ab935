"""Pictures between two data: codes on the way from one to the other, decoded."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from pyro.distributions import constraints
from torch import Tensor

from pyrovae.metrics.atoms import lives_on
from pyrovae.vae import VAE

__all__ = ["Interpolations", "interpolations"]


class Interpolations(NamedTuple):
    """Codes ``(N, S, D)`` at S steps from one datum to another, and E[x|z] there, ``(N, S, *event_shape)``."""

    codes: Tensor
    decoded: Tensor


def interpolations(vae: VAE, x: Tensor, y: Tensor, num_values: int = 9) -> Interpolations:
    r"""E[x|z] on the way from the code a of each datum of x to the code b of that of y, in equal steps.

    .. math::
        z(t) = (1 - t)\, a + t\, b \quad \text{or on the sphere} \quad
        z(t) = \frac{\sin((1 - t)\, \omega)\, a + \sin(t \omega)\, b}{\sin \omega} , \qquad \cos \omega = a \cdot b

    A straight line stays on the simplex and among non-negative codes; on the sphere it is the great circle, at even
    speed. A coordinate that is exactly zero at both ends is so all the way.

    Args:
        vae: A VAE.
        x: Where each way starts, ``(N, *event_shape)``.
        y: Where it ends, of the same shape.
        num_values: How many points of each way, with both ends; at least 2.

    Units: those of the data.
    Raises: ValueError if x and y have different shapes, if codes are discrete, or if two are opposite points of the
        sphere, between which there is no shortest way.
    References: Shoemake (1985), "Animating rotation with quaternion curves", for the sphere.
    """
    if x.shape != y.shape:
        raise ValueError(f"y must have the shape of x, {tuple(x.shape)}, got {tuple(y.shape)}")
    if num_values < 2:
        raise ValueError(f"num_values must be at least 2, got {num_values}")
    support: Any = getattr(vae.prior, "support", None)
    if support is not None and support.is_discrete:
        raise ValueError(f"prior {type(vae.prior).__name__} has discrete codes: there are none between two of them")
    a, b = vae.encode(x)[:, None], vae.encode(y)[:, None]
    share = torch.linspace(0, 1, num_values).to(a)[:, None]
    codes = _great_circle(a, b, share) if lives_on(vae, constraints.sphere) else torch.lerp(a, b, share)
    return Interpolations(codes, vae.decode(codes.flatten(0, 1)).unflatten(0, codes.shape[:2]))


def _great_circle(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    # half the angle by its tangent, which keeps its digits where the cosine is near 1
    angle = 2 * torch.atan2((a - b).norm(dim=-1, keepdim=True), (a + b).norm(dim=-1, keepdim=True))
    if bool((math.pi - angle < 1e-3).any()):
        raise ValueError("x and y have opposite codes on the sphere: there is no shortest way between them")
    weights = [torch.where(angle > 1e-3, torch.sin(s * angle) / angle.sin(), s) for s in (1 - share, share)]
    codes = weights[0] * a + weights[1] * b
    return codes / codes.norm(dim=-1, keepdim=True)
