"""Measurements of a model, its guide and its codes. Nothing here trains."""

from pyrovae.metrics.annealing import annealed_importance_sampling
from pyrovae.metrics.atoms import Atoms, decoder_atoms
from pyrovae.metrics.collapse import active_units, coefficient_collapse, kl_per_dimension, posterior_collapse
from pyrovae.metrics.health import CollapseWarning, DeadGates, HealthCheck, dead_gates, gate_probabilities
from pyrovae.metrics.importance import ImportanceSampling, importance_curve, importance_sampling, pareto_k
from pyrovae.metrics.information import Information, mutual_information
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
from pyrovae.metrics.sparsity import Hoyer, exact_zeros, hoyer
from pyrovae.metrics.summary import evaluate

__all__ = [
    "Atoms",
    "CollapseWarning",
    "DeadGates",
    "Elbo",
    "HealthCheck",
    "Hoyer",
    "ImportanceSampling",
    "Information",
    "Probe",
    "RateDistortion",
    "active_units",
    "annealed_importance_sampling",
    "bits_per_dimension",
    "coefficient_collapse",
    "dead_gates",
    "decoder_atoms",
    "elbo",
    "evaluate",
    "exact_zeros",
    "gate_probabilities",
    "hoyer",
    "importance_curve",
    "importance_sampling",
    "kl_per_dimension",
    "log_likelihood",
    "mean_squared_error",
    "mutual_information",
    "pareto_k",
    "posterior_collapse",
    "probe_accuracy",
    "rate_distortion",
]
