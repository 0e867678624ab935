"""Objectives: bounds on log p(x) that Pyro's SVI raises, the penalties and the schedules that go with them."""

from pyrovae.objectives.base import Objective
from pyrovae.objectives.divergence import blame, is_divergence
from pyrovae.objectives.draws import check_draws
from pyrovae.objectives.elbo import ELBO
from pyrovae.objectives.estimators import DisARM, Estimator, LeaveOneOut, Relaxed, StickingTheLanding, StraightThrough
from pyrovae.objectives.importance import IWAE, DReG, Renyi
from pyrovae.objectives.kl_forms import Capacity, Exact, FreeBits
from pyrovae.objectives.penalties import MMD, TotalCorrelation
from pyrovae.objectives.report import Report, SiteReport
from pyrovae.objectives.schedules import Schedule, constant, cyclical, warmup
from pyrovae.objectives.sites import coordinate_kl, draw_sites, is_shared, site_kl
from pyrovae.objectives.weights import L1, L2

__all__ = [
    "ELBO",
    "IWAE",
    "L1",
    "L2",
    "MMD",
    "Capacity",
    "DReG",
    "DisARM",
    "Estimator",
    "Exact",
    "FreeBits",
    "LeaveOneOut",
    "Objective",
    "Relaxed",
    "Renyi",
    "Report",
    "Schedule",
    "SiteReport",
    "StickingTheLanding",
    "StraightThrough",
    "TotalCorrelation",
    "blame",
    "check_draws",
    "constant",
    "coordinate_kl",
    "cyclical",
    "draw_sites",
    "is_divergence",
    "is_shared",
    "site_kl",
    "warmup",
]
