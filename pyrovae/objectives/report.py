"""A table of how an objective computes the KL and the gradient of each site."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch

from pyrovae.objectives.sites import Site, score

__all__ = ["Report", "SiteReport"]

DRAWN = {
    "pathwise": "path through the atoms",
    "pair": "antithetic pair",
    "straight_through": "straight-through, biased",
    "relaxed": "relaxed, biased",
}


class SiteReport(NamedTuple):
    """A site of the guide: its distributions in guide and model, whether its KL is exact, and its gradient."""

    name: str
    guide: str
    model: str
    kl_is_exact: bool
    gradient: str

    @classmethod
    def of(cls, name: str, p: Site | None, q: Site, kl_is_exact: bool, num_particles: int, unread: bool) -> SiteReport:
        if unread:
            gradient = "exact, no draw is read"
        elif "drawn" in q["infer"]:
            gradient = DRAWN[q["infer"]["drawn"]]
        elif score(q) is None:
            gradient = "path"
        else:
            gradient = "leave-one-out score" if num_particles > 1 else "score, no baseline"
            gradient = f"path and {gradient}" if q["fn"].has_rsample else gradient
        return cls(name, _name(q["fn"]), "none" if p is None else _name(p["fn"]), kl_is_exact, gradient)


class Report(tuple[SiteReport, ...]):
    """A :class:`SiteReport` of each site, printed as a table.

    Attributes: ``reconstruction``, whether the term of each observed site, by name, is in closed form.
    """

    reconstruction: Mapping[str, bool]

    def __new__(cls, sites: Iterable[SiteReport], reconstruction: Mapping[str, bool]) -> Report:
        """``reconstruction`` is the attribute."""
        new = super().__new__(cls, sites)
        new.reconstruction = reconstruction
        return new

    def __str__(self) -> str:
        rows = [("site", "guide", "model", "KL", "gradient")]
        rows += [(s.name, s.guide, s.model, "exact" if s.kl_is_exact else "sampled", s.gradient) for s in self]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        terms = [f"reconstruction of {x}: {'exact' if e else 'sampled'}" for x, e in self.reconstruction.items()]
        return "\n".join([*lines, *terms])


def _name(fn: object) -> str:
    while isinstance(fn, torch.distributions.Independent):
        fn = fn.base_dist
    return type(fn).__name__
