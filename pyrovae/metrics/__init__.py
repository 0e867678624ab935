"""Measurements of a model, its guide and its codes. Nothing here trains."""

from pyrovae.metrics.atoms import Atoms, decoder_atoms
from pyrovae.metrics.calibration import Coverage, Ranks, Reliability, coverage, gate_reliability, sbc
from pyrovae.metrics.disentanglement import DCI, Gap, dci, mig, sap
from pyrovae.metrics.latent_codes import Occupancy, codes, spike_occupancy
from pyrovae.metrics.likelihood import Elbo, active_units, elbo, evaluate, log_likelihood, mean_squared_error
from pyrovae.metrics.probe import Probe, probe_accuracy
from pyrovae.metrics.recovery import MCC, SupportF1, mcc, support_f1
from pyrovae.metrics.sparsity import Sparsity, exact_zeros, gini, hoyer, l0, treves_rolls

__all__ = [
    "DCI",
    "MCC",
    "Atoms",
    "Coverage",
    "Elbo",
    "Gap",
    "Occupancy",
    "Probe",
    "Ranks",
    "Reliability",
    "Sparsity",
    "SupportF1",
    "active_units",
    "codes",
    "coverage",
    "dci",
    "decoder_atoms",
    "elbo",
    "evaluate",
    "exact_zeros",
    "gate_reliability",
    "gini",
    "hoyer",
    "l0",
    "log_likelihood",
    "mcc",
    "mean_squared_error",
    "mig",
    "probe_accuracy",
    "sap",
    "sbc",
    "spike_occupancy",
    "support_f1",
    "treves_rolls",
]
