"""Whether atoms of image patches are Gabor functions: local, oriented waves."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["GABOR_LIKE", "GaborFit", "gabor_fit"]

GABOR_LIKE = (
    0.7  # explained variance from which an atom counts as Gabor-like; a grating over the whole patch has at most 0.68
)
PEAKS = 3  # of the spectrum of an atom, at each of which two fits start
STARTS = (0.2, 0.6)  # widths at the start, between the least and the greatest
CYCLES = 0.4  # least cycles in a width
WIDEST, TALLEST = 0.2, 0.25  # greatest width and height, in sides of the patch
STEPS, RATE = 100, 0.05  # of Adam
RIDGE = 1e-6  # added to the squared norms of both phases, because one phase may vanish on the pixels
PADDED = 4  # side of the padded patch, whose spectrum is taken, by the side of the patch


class GaborFit(NamedTuple):
    """The best Gabor function of each atom, ``(D,)`` each: its explained variance and its shape, in pixels.

    ``frequency`` is in cycles per pixel, ``orientation`` the direction of the wave in radians from 0 to pi, ``width``
    and ``height`` the standard deviations of the envelope along and across the wave, ``row`` and ``column`` its centre.
    """

    explained_variance: Tensor
    frequency: Tensor
    orientation: Tensor
    width: Tensor
    height: Tensor
    row: Tensor
    column: Tensor

    @property
    def gabor_like(self) -> Tensor:
        """Which atoms are Gabor-like: their explained variance is at least ``GABOR_LIKE``, 0.7; a mask ``(D,)``."""
        return self.explained_variance >= GABOR_LIKE


@torch.enable_grad()
def gabor_fit(atoms: Tensor) -> GaborFit:
    r"""The Gabor function nearest to each atom, by least squares.

    .. math::
        g(u, v) = e^{-u^2/2\sigma_u^2 - v^2/2\sigma_v^2} \left(a \cos 2\pi f u + b \sin 2\pi f u\right) , \qquad
        1 - \frac{\|\phi - g\|^2}{\|\phi\|^2}

    where u and v are the coordinates of a pixel along and across the wave, from the centre of the envelope. On a patch
    of S by S pixels the centre is in the patch and :math:`1 \le \sigma_u \le S/5`, :math:`1 \le \sigma_v \le S/4`, so
    that a wave that fills the patch, as most principal components do, has at most 0.68; and :math:`f \le 1/2`,
    :math:`f \sigma_u \ge 0.4`, so that round spots have less than 0.62. a and b are solved for; the other numbers are
    found by 100 steps of Adam from six starts, at the three highest peaks of the spectrum. Nothing is random.

    Args:
        atoms: ``(D, S, S)`` or ``(D, S * S)``, such as :func:`~pyrovae.metrics.dictionary` of patches. An atom that is
            zero everywhere has an explained variance of 0.

    Raises: ValueError if an atom is not a square of at least 6 by 6 pixels, or is not finite.
    References: Jones and Palmer (1987), "An evaluation of the two-dimensional Gabor filter model of simple receptive
        fields in cat striate cortex", who fit it in the same way.
    """
    side = math.isqrt(atoms[0].numel()) if len(atoms) else 0
    if atoms.shape[1:] not in ((side, side), (side**2,)) or side < 6:
        raise ValueError(f"atoms must be (D, S, S) or (D, S * S) with S from 6 on, got shape {tuple(atoms.shape)}")
    if not bool(torch.isfinite(atoms).all()):
        raise ValueError("atoms must be finite, got NaN or infinity")
    phi = torch.nn.functional.normalize(atoms.detach().double().reshape(-1, side**2))
    raw = _starts(phi.reshape(-1, side, side)).requires_grad_()
    optim = torch.optim.Adam([raw], lr=RATE)
    for _ in range(STEPS):
        optim.zero_grad()
        (-_explained(phi, _shape(raw, side), side).sum()).backward()
        optim.step()
    shape = _shape(raw.detach(), side)
    explained, best = _explained(phi, shape, side).max(1)
    row, column, frequency, orientation, width, height = shape.gather(1, best[:, None, None].expand(-1, 1, 6))[:, 0].T
    return GaborFit(explained, frequency, orientation % math.pi, width, height, row, column)


def _shape(raw: Tensor, side: int) -> Tensor:
    """Row, column, frequency, orientation, width and height from numbers without bounds, ``(..., 6)``."""
    row, column, frequency, width, height = raw[..., :5].sigmoid().unbind(-1)
    widest = WIDEST * side
    frequency = CYCLES / widest + (0.5 - CYCLES / widest) * frequency
    least = (CYCLES / frequency).clamp(min=1.0)
    width = least + (widest - least) * width
    height = 1.0 + (TALLEST * side - 1.0) * height
    return torch.stack([(side - 1) * row, (side - 1) * column, frequency, raw[..., 5], width, height], -1)


def _starts(phi: Tensor) -> Tensor:
    """``(D, K, 6)``: the centre of the energy, the highest peaks of the spectrum, and two widths."""
    side = phi.shape[-1]
    energy = phi.square() / phi.square().sum((1, 2), keepdim=True).clamp(min=1e-30)
    pixel = torch.arange(side, dtype=torch.float64)
    row, column = (energy.sum(2) * pixel).sum(1), (energy.sum(1) * pixel).sum(1)
    spectrum = torch.fft.rfft2(phi, s=(PADDED * side, PADDED * side)).abs()
    highest = torch.nn.functional.max_pool2d(spectrum[:, None], 5, 1, 2)[:, 0]
    peaks = torch.where(spectrum == highest, spectrum, 0.0).flatten(1).topk(PEAKS).indices
    rows = torch.fft.fftfreq(PADDED * side, dtype=torch.float64)[peaks // spectrum.shape[2]]
    columns = torch.fft.rfftfreq(PADDED * side, dtype=torch.float64)[peaks % spectrum.shape[2]]
    lowest = CYCLES / (WIDEST * side)
    shares = [row[:, None] / (side - 1), column[:, None] / (side - 1), (rows.hypot(columns) - lowest) / (0.5 - lowest)]
    place = torch.stack([share.expand_as(rows).clamp(0.02, 0.98).logit() for share in shares], -1)
    angle = torch.atan2(rows, columns)[..., None]
    widths = [torch.full_like(place[..., :2], share).logit() for share in STARTS]
    return torch.cat([torch.cat([place, width, angle], -1) for width in widths], 1)


def _explained(phi: Tensor, shape: Tensor, side: int) -> Tensor:
    """The explained variance of each start of each atom of norm 1, at its best phase and amplitude, ``(D, K)``."""
    row, column, frequency, orientation, width, height = (part[..., None] for part in shape.unbind(-1))
    pixel = torch.arange(side, dtype=torch.float64)
    y, x = (part.flatten() for part in torch.meshgrid(pixel, pixel, indexing="ij"))
    y, x = y - row, x - column
    u, v = orientation.cos() * x + orientation.sin() * y, orientation.cos() * y - orientation.sin() * x
    envelope = torch.exp(-0.5 * ((u / width) ** 2 + (v / height) ** 2))
    even, odd = envelope * (2 * math.pi * frequency * u).cos(), envelope * (2 * math.pi * frequency * u).sin()
    aa, bb, ab = even.square().sum(-1) + RIDGE, odd.square().sum(-1) + RIDGE, (even * odd).sum(-1)
    a, b = (even * phi[:, None]).sum(-1), (odd * phi[:, None]).sum(-1)
    return (a**2 * bb + b**2 * aa - 2 * a * b * ab) / (aa * bb - ab**2)
