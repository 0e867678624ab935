"""The bars problem: images of horizontal and vertical bars, which overlap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pyrovae.data.synthetic.generators import LARGEST_SEED, Batch, Synthetic, check_scale
from pyrovae.schema import check, number, one_of, optional, whole

__all__ = ["Bars"]

ABOVE_ONE = math.nextafter(1.0, 2.0)


@dataclass(frozen=True)
class Bars(Synthetic):
    r"""Images of ``size`` × ``size`` pixels, each of 2 ``size`` bars on with probability p, independently.

    With c(d) bars on that cover pixel d, a pixel is

    - ``"noisy-or"``: 1 with probability :math:`1 - (1 - l)(1 - w)^{c(d)}`, and otherwise 0: binary images, which are
      not linear in the codes. At w = 1 and l = 0 it is the logical or of the bars;
    - ``"sum"``: :math:`c(d) + \sigma \varepsilon_d`, which is linear.

    Features are the bars, horizontal ones first, scaled to norm 1, so that the code of a bar that is on is
    :math:`\sqrt{size}`.

    Args:
        size: Pixels of a side.
        active: p; None is 1 / ``size``, two bars in the mean.
        combine: ``"noisy-or"`` or ``"sum"``.
        strength: w, the probability that a bar switches on a pixel that it covers (noisy-or).
        leak: l, the probability of a pixel that is on without a bar (noisy-or).
        noise: :math:`\sigma` (sum).
        seed: Of samples; the bars are always the same.

    Raises: ValueError if a number is out of range, or an option of one ``combine`` is given with the other.
    References: Földiák (1990), "Forming sparse representations by local anti-Hebbian learning"; Saund (1995), "A
        multiple cause mixture model for unsupervised learning", for the noisy-or.
    """

    size: int = 8
    active: float | None = None
    combine: str = "noisy-or"
    strength: float = 1.0
    leak: float = 0.0
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check("size", self.size, whole(1))
        check("seed", self.seed, whole(0, LARGEST_SEED))
        share = number(0.0, ABOVE_ONE, "a probability")
        check("active", self.active, optional(share))
        check("combine", self.combine, one_of("noisy-or", "sum"))
        check("strength", self.strength, share)
        check("leak", self.leak, share)
        check_scale("noise", self.noise)
        if self.combine == "sum" and (self.strength, self.leak) != (1.0, 0.0):
            raise ValueError('strength and leak are of combine="noisy-or": leave them out, or change combine')
        if self.combine == "noisy-or" and self.noise:
            raise ValueError('noise is of combine="sum": use leak and strength, or change combine')

    @property
    def firing_probability(self) -> float:
        """p of each bar."""
        return 1 / self.size if self.active is None else float(self.active)

    @cached_property
    def features(self) -> Tensor:
        """``(2 size, size * size)``, rows of norm 1."""
        eye = torch.eye(self.size) / math.sqrt(self.size)
        horizontal, vertical = eye.repeat_interleave(self.size, 1), eye.repeat(1, self.size)
        return torch.cat([horizontal, vertical])

    def _draw(self, n: int, generator: torch.Generator | None) -> Batch:
        on = torch.rand(n, 2 * self.size, generator=generator, dtype=torch.float64) < self.firing_probability
        codes = on.float() * math.sqrt(self.size)
        counts = on.float() @ (self.features > 0).float()
        if self.combine == "sum":
            noise = self.noise * torch.randn(counts.shape, generator=generator) if self.noise else 0.0
            return Batch(counts + noise, codes, self.features, None)
        white = 1 - (1 - self.leak) * (1 - self.strength) ** counts.double()
        pixels = torch.rand(counts.shape, generator=generator, dtype=torch.float64) < white
        return Batch(pixels.float(), codes, self.features, None)
