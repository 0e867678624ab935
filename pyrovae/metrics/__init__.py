"""Measurements of a model, its guide and its codes. Nothing here trains."""

from pyrovae.metrics.atoms import Atoms, decoder_atoms
from pyrovae.metrics.likelihood import Elbo, active_units, elbo, evaluate, log_likelihood, mean_squared_error
from pyrovae.metrics.probe import Probe, probe_accuracy
from pyrovae.metrics.sparsity import Hoyer, exact_zeros, hoyer

__all__ = [
    "Atoms",
    "Elbo",
    "Hoyer",
    "Probe",
    "active_units",
    "decoder_atoms",
    "elbo",
    "evaluate",
    "exact_zeros",
    "hoyer",
    "log_likelihood",
    "mean_squared_error",
    "probe_accuracy",
]
