"""What a row of the table of cases holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from pyro.infer import TraceMeanField_ELBO
from torch import nn

import pyrovae as pv


class Linear(nn.Module):
    """A network that returns its input: the rows then set a likelihood's or a guide's parameters by hand."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.out_features, self.out_shape = features, (features,)

    def forward(self, x):
        return x


@dataclass(frozen=True)
class DensityCase:
    """A density of one number.

    ``log_prob`` is an independent reference (scipy, or a closed form in numpy), compared at ``points``, which reach far
    into the tails; ``cdf`` is of the continuous part, normalised, for the test of fit; ``atoms`` are the points of
    positive mass. ``breaks`` are where an integral over the support must be cut: its ends, corners and poles.
    """

    cls: type
    make: Callable[[], Any]
    log_prob: Callable[[np.ndarray], np.ndarray]
    points: Sequence[float]
    cdf: Callable[[np.ndarray], np.ndarray]
    breaks: Sequence[float] = (-np.inf, 0.0, np.inf)
    atoms: dict[float, float] = field(default_factory=dict)
    reparametrised: bool = True
    moments: bool = True  # False where none exists
    rebuild: Callable[..., Any] | None = None  # from the parameters of arg_constraints, where the class takes more

    def of(self, **parameters: Any) -> Any:
        return (self.rebuild or self.cls)(**parameters)


@dataclass(frozen=True)
class KLCase:
    """Pairs (q, p) of one family each, at settings mild and extreme, with an independent reference of their KL.

    ``reference`` is None for one-dimensional families with ``loc`` and ``scale``, which quadrature handles.
    """

    pairs: Callable[[], list[tuple[Any, Any]]]
    reference: Callable[[Any, Any], float] | None = None
    rel: float = 1e-6
    monte_carlo: bool = True  # False where log q - log p has no variance to speak of


@dataclass(frozen=True)
class PriorCase:
    cls: type
    make: Callable[[int], nn.Module]
    marginal: Any  # scipy's frozen distribution of one coordinate, or what has its logpdf, cdf and median
    atoms: dict[float, float] = field(default_factory=dict)  # cdf and median are of the rest
    lower: float = -np.inf  # the lower end of its support
    pole: float = np.nan  # where the density is infinite


@dataclass(frozen=True)
class ImproperPriorCase:
    """A prior whose density has no integral."""

    cls: type
    make: Callable[[int], nn.Module]
    log_density: Callable[[np.ndarray], np.ndarray]  # of codes ``(n, D)``


@dataclass(frozen=True)
class GuideCase:
    cls: type
    make: Callable[[int], nn.Module]  # of three input features and d coordinates
    log_density: (
        Callable[[np.ndarray, np.ndarray, int], float] | None
    )  # of the head's output, z and d; None for a point
    code: Callable[[np.ndarray, int], np.ndarray] | None = None  # of the head's output and d; None where it is the mean


@dataclass(frozen=True)
class HierarchyCase:
    """A prior of several sites, every one ``(D,)`` per datum, and the guide that serves it.

    The references take the values of the sites by name, ``(n, D)``, and give the log-density of each site, ``(n,)``;
    the guide's takes the head's output first. ``cdf`` is of one coordinate of z under the prior, where it is not on one
    of ``atoms``.
    """

    prior: type
    make_prior: Callable[[int], nn.Module]
    prior_log_density: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
    cdf: Callable[[np.ndarray], np.ndarray]
    guide: type
    make_guide: Callable[[int], nn.Module]  # of three input features and d coordinates
    guide_log_density: Callable[[np.ndarray, dict[str, np.ndarray]], dict[str, np.ndarray]]
    read: Callable[[dict[str, np.ndarray]], np.ndarray] = lambda values: values["z"]  # what the decoder reads
    code: Callable[[np.ndarray, int], np.ndarray] | None = None  # of the head's output and d; None where it is the mean
    atoms: dict[float, float] = field(default_factory=dict)
    exact: Sequence[Callable[[], Any]] = (TraceMeanField_ELBO, pv.ELBO)  # the objectives that use the exact KL


@dataclass(frozen=True)
class SharedCase:
    """A prior with a site ``"z_active"`` ``(D,)`` that all data share, beside z ``(D,)`` per datum, and its guide.

    As of HierarchyCase; the guide's reference takes the guide first. ``activity`` is E[P(z_k != 0)] under the prior and
    ``activity_of`` P(z_k != 0) given the shared site.
    """

    prior: type
    make_prior: Callable[[int], nn.Module]
    prior_log_density: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
    activity: Callable[[int], np.ndarray]
    activity_of: Callable[[Any], Any]
    guide: type
    make_guide: Callable[[int], nn.Module]  # of three input features and d coordinates
    guide_log_density: Callable[[nn.Module, np.ndarray, dict[str, np.ndarray]], dict[str, np.ndarray]]


@dataclass(frozen=True)
class LikelihoodCase:
    cls: type
    make: Callable[[], nn.Module]  # whose network returns z, three numbers per datum (six for two categories each)
    log_density: Callable[[np.ndarray, np.ndarray], float]  # of one datum: the network's output and x
    x: list[list[float]]  # data inside the support
    bad: float  # a value outside it


def softplus(x):
    return np.logaddexp(0.0, x)


def scale(raw):
    return softplus(raw) + 1e-5


def without_atoms(draws, atoms):
    """The other draws, after each atom was met as often as its mass says, within six standard errors."""
    elsewhere = torch.ones_like(draws, dtype=torch.bool)
    for atom, mass in atoms.items():
        on_atom = draws == atom
        assert abs(on_atom.double().mean() - mass) < 6 * (mass * (1 - mass) / len(draws)) ** 0.5
        elsewhere &= ~on_atom
    return draws[elsewhere]


def double(value):
    return torch.tensor(value, dtype=torch.float64)


@dataclass(frozen=True)
class VectorDensityCase:
    """A density of vectors on a surface of at most two dimensions, where quadrature is exact.

    ``make`` takes the tensors of ``raw``, free numbers that it maps to parameters, so that finite differences stay
    inside the constraints. ``log_prob`` is an independent reference of one point, ``grid`` the points and weights of a
    quadrature of the support, and ``wide`` gives 256 coordinates, mild and extreme.
    """

    cls: type
    make: Callable[..., Any]
    raw: Sequence[Any]
    log_prob: Callable[[np.ndarray], float]
    points: Sequence[Sequence[float]]
    grid: Callable[[], tuple[np.ndarray, np.ndarray]]
    wide: Callable[[torch.dtype], list[Any]]

    def made(self):
        return self.make(*(double(value) for value in self.raw))


@dataclass(frozen=True)
class VectorPriorCase:
    cls: type
    make: Callable[[int], nn.Module]
    log_density: Callable[[np.ndarray], float]  # of one z


@dataclass(frozen=True)
class VectorGuideCase:
    cls: type
    make: Callable[[int], nn.Module]  # of three input features and d coordinates
    log_density: Callable[[np.ndarray, np.ndarray, int], float]  # of the head's output, z and d
    code: Callable[[np.ndarray, np.ndarray, int], np.ndarray]  # of the head's output, E[z] and d


@dataclass(frozen=True)
class DiscreteDensityCase:
    """A law of bits, counts or categories, whose expectations are sums.

    ``make`` takes the tensors of ``raw``, free numbers that it maps to parameters. ``log_prob`` is an independent
    reference at ``values``, which are the support but for 1e-12 of the mass. ``extreme`` are raw numbers as large as
    the law must bear in float32, and ``cell`` gives the value of the law that a relaxed draw is nearest to.
    """

    cls: type
    make: Callable[..., Any]
    raw: Any
    log_prob: Callable[[np.ndarray], np.ndarray]
    values: np.ndarray
    extreme: Sequence[Any]
    cell: Callable[[Any], Any]

    def made(self):
        return self.make(double(self.raw))
