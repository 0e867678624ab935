"""The reconstruction term of an ELBO: in closed form where the decoder and the guide allow it, else at draws."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from pyrovae.objectives.sites import Site, Sites, log_prob, plates

__all__ = ["RECONSTRUCTIONS", "has_expectation", "is_unread", "reconstruction", "why_sampled"]

RECONSTRUCTIONS = ("auto", "exact", "sampled")


def reconstruction(site: Site, guide: Sites, how: str) -> Tensor:
    r"""The term of an observed site, ``(K, *plates)``: :math:`E_q \log p(x|z)` or :math:`\log p(x|z)` at the draws.

    The expectation is that over the site of the guide that the distribution of x reads, given the sites before it.

    Args:
        how: ``"auto"`` takes the expectation where it is known, ``"exact"`` requires it, ``"sampled"`` never does.

    Raises: ValueError under ``"exact"``, with the reason why there is no closed form.
    """
    if has_expectation(site, guide, how):
        q = guide[_read(site, guide)]["fn"]  # type: ignore[index]  # there is one
        return scale_and_mask(site["fn"].expected_log_prob(q, site["value"]), site["scale"], site["mask"])
    if how == "exact":
        raise ValueError(f"reconstruction='exact' is not known for site {site['name']!r}: {why_sampled(site, guide)}")
    return log_prob(site)


def has_expectation(site: Site, guide: Sites, how: str) -> bool:
    """Whether the term of an observed site is in closed form."""
    name = None if how == "sampled" else _read(site, guide)
    if name is None or _may_lead_elsewhere(name, guide):
        return False
    return bool(site["fn"].has_expectation(guide[name]["fn"]))


def is_unread(name: str, model: Sites, guide: Sites, how: str) -> bool:
    """Whether no term reads the draw of a site: all of x is an expectation over it, and no site comes after it."""
    if next(reversed(guide)) != name:
        return False
    latent = [other for other, site in model.items() if not site["is_observed"]]
    if not latent or latent[-1] != name:
        return False
    observed = [site for site in model.values() if site["is_observed"]]
    return all(_read(site, guide) == name and has_expectation(site, guide, how) for site in observed)


def why_sampled(site: Site, guide: Sites) -> str:
    """Why the expectation of an observed site is not known."""
    fn = site["fn"]
    if getattr(fn, "reads", None) is None:
        while isinstance(fn, torch.distributions.Independent):
            fn = fn.base_dist
        return (
            f"the likelihood must be Normal with a linear decoder, build_vae(network='dictionary', "
            f"likelihood='normal'), and {type(fn).__name__} is another one, or has another decoder"
        )
    name = _read(site, guide)
    if name is None:
        return "the decoder must read the value of a site of the guide itself, and reads a function of it"
    if _may_lead_elsewhere(name, guide):
        return f"site {name!r} must stand in a plate, and no later site of the guide outside of that plate"
    q = guide[name]["fn"]
    while isinstance(q, torch.distributions.Independent):
        q = q.base_dist
    return f"mean and variance of the guide's {type(q).__name__} at site {name!r} are not known for each coordinate"


def _read(site: Site, guide: Sites) -> str | None:
    """The site of the guide whose value the distribution of x reads."""
    value: Any = getattr(site["fn"], "reads", None)
    return next((name for name, other in guide.items() if value is not None and other["value"] is value), None)


def _may_lead_elsewhere(name: str, guide: Sites) -> bool:
    """Whether weight, bias or scale, which all data share, may be a function of the draw of a site.

    A site without a plate has one draw for all data, and so has a later site outside of the plates of this one.
    """
    around, names = plates(guide[name]), list(guide)
    later = [guide[other] for other in names[names.index(name) + 1 :]]
    return not around or any(not around.keys() <= plates(site).keys() for site in later)
