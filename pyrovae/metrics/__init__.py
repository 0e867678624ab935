"""Measurements of a model, its guide and its codes. Nothing here trains."""

from pyrovae.metrics.atoms import Atoms, decoder_atoms
from pyrovae.metrics.latent_codes import Occupancy, codes, spike_occupancy
from pyrovae.metrics.likelihood import Elbo, active_units, elbo, evaluate, log_likelihood, mean_squared_error
from pyrovae.metrics.probe import Probe, probe_accuracy
from pyrovae.metrics.sparsity import Sparsity, exact_zeros, gini, hoyer, l0, treves_rolls

__all__ = [
    "Atoms",
    "Elbo",
    "Occupancy",
    "Probe",
    "Sparsity",
    "active_units",
    "codes",
    "decoder_atoms",
    "elbo",
    "evaluate",
    "exact_zeros",
    "gini",
    "hoyer",
    "l0",
    "log_likelihood",
    "mean_squared_error",
    "probe_accuracy",
    "spike_occupancy",
    "treves_rolls",
]
