"""Measurements of a model, its guide and its codes. Nothing here trains."""

from pyrovae.metrics.annealing import annealed_importance_sampling
from pyrovae.metrics.atoms import Atoms, Traversals, decoder_atoms, traversals
from pyrovae.metrics.calibration import Coverage, Ranks, Reliability, coverage, gate_reliability, sbc
from pyrovae.metrics.collapse import active_units, coefficient_collapse, kl_per_dimension, posterior_collapse
from pyrovae.metrics.disentanglement import DCI, Gap, dci, mig, sap
from pyrovae.metrics.evaluation import evaluate
from pyrovae.metrics.health import CollapseWarning, DeadGates, HealthCheck, dead_gates
from pyrovae.metrics.importance import ImportanceSampling, importance_curve, importance_sampling, pareto_k
from pyrovae.metrics.imputation import impute
from pyrovae.metrics.information import Information, mutual_information
from pyrovae.metrics.interpolation import Interpolations, interpolations
from pyrovae.metrics.latent_codes import Occupancy, codes, spike_occupancy
from pyrovae.metrics.likelihood import (
    Elbo,
    RateDistortion,
    bits_per_dimension,
    elbo,
    log_likelihood,
    mean_squared_error,
    rate_distortion,
)
from pyrovae.metrics.probe import Probe, probe_accuracy
from pyrovae.metrics.recovery import MCC, SupportF1, mcc, support_f1
from pyrovae.metrics.samples import (
    ClassCoverage,
    MMDTest,
    NearestNeighbors,
    class_coverage,
    mmd_test,
    nearest_neighbors,
)
from pyrovae.metrics.sparsity import Sparsity, exact_zeros, gini, hoyer, l0, treves_rolls
from pyrovae.metrics.summary import Summary, summary

__all__ = [
    "DCI",
    "MCC",
    "Atoms",
    "ClassCoverage",
    "CollapseWarning",
    "Coverage",
    "DeadGates",
    "Elbo",
    "Gap",
    "HealthCheck",
    "ImportanceSampling",
    "Information",
    "Interpolations",
    "MMDTest",
    "NearestNeighbors",
    "Occupancy",
    "Probe",
    "Ranks",
    "RateDistortion",
    "Reliability",
    "Sparsity",
    "Summary",
    "SupportF1",
    "Traversals",
    "active_units",
    "annealed_importance_sampling",
    "bits_per_dimension",
    "class_coverage",
    "codes",
    "coefficient_collapse",
    "coverage",
    "dci",
    "dead_gates",
    "decoder_atoms",
    "elbo",
    "evaluate",
    "exact_zeros",
    "gate_reliability",
    "gini",
    "hoyer",
    "importance_curve",
    "importance_sampling",
    "impute",
    "interpolations",
    "kl_per_dimension",
    "l0",
    "log_likelihood",
    "mcc",
    "mean_squared_error",
    "mig",
    "mmd_test",
    "mutual_information",
    "nearest_neighbors",
    "pareto_k",
    "posterior_collapse",
    "probe_accuracy",
    "rate_distortion",
    "sap",
    "sbc",
    "spike_occupancy",
    "summary",
    "support_f1",
    "traversals",
    "treves_rolls",
]
