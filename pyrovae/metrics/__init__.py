"""Measurements of a model, its guide and its codes. Nothing here trains."""

from pyrovae.metrics.amortization import AmortizationGap, amortization_gap
from pyrovae.metrics.annealing import annealed_importance_sampling
from pyrovae.metrics.atoms import Atoms, Traversals, decoder_atoms, traversals
from pyrovae.metrics.calibration import Coverage, Ranks, Reliability, coverage, gate_reliability, reliability, sbc
from pyrovae.metrics.collapse import active_units, coefficient_collapse, kl_per_dimension, posterior_collapse
from pyrovae.metrics.dictionaries import Stability, decoder_mcc, stability, uniqueness
from pyrovae.metrics.disentanglement import DCI, Gap, dci, mig, sap
from pyrovae.metrics.evaluation import evaluate
from pyrovae.metrics.features import LatentFeatures, Neighbors, co_firing, dictionary, latent_features, similar_atoms
from pyrovae.metrics.gabor import GaborFit, gabor_fit
from pyrovae.metrics.health import CollapseWarning, DeadGates, HealthCheck, dead_gates
from pyrovae.metrics.importance import ImportanceSampling, importance_curve, importance_sampling, pareto_k
from pyrovae.metrics.imputation import impute
from pyrovae.metrics.information import Information, mutual_information
from pyrovae.metrics.interpolation import Interpolations, interpolations
from pyrovae.metrics.latent_codes import Occupancy, codes, nonzero_probability, spike_occupancy
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
from pyrovae.metrics.reconstruction import Shrinkage, explained_variance, shrinkage
from pyrovae.metrics.recovery import MCC, FiringScores, SupportF1, firing_scores, mcc, support_auprc, support_f1
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
from pyrovae.metrics.supports import (
    ActiveDimension,
    Supports,
    SupportVariety,
    active_dimension,
    support_variety,
    supports,
)

__all__ = [
    "DCI",
    "MCC",
    "ActiveDimension",
    "AmortizationGap",
    "Atoms",
    "ClassCoverage",
    "CollapseWarning",
    "Coverage",
    "DeadGates",
    "Elbo",
    "FiringScores",
    "GaborFit",
    "Gap",
    "HealthCheck",
    "ImportanceSampling",
    "Information",
    "Interpolations",
    "LatentFeatures",
    "MMDTest",
    "NearestNeighbors",
    "Neighbors",
    "Occupancy",
    "Probe",
    "Ranks",
    "RateDistortion",
    "Reliability",
    "Shrinkage",
    "Sparsity",
    "Stability",
    "Summary",
    "SupportF1",
    "SupportVariety",
    "Supports",
    "Traversals",
    "active_dimension",
    "active_units",
    "amortization_gap",
    "annealed_importance_sampling",
    "bits_per_dimension",
    "class_coverage",
    "co_firing",
    "codes",
    "coefficient_collapse",
    "coverage",
    "dci",
    "dead_gates",
    "decoder_atoms",
    "decoder_mcc",
    "dictionary",
    "elbo",
    "evaluate",
    "exact_zeros",
    "explained_variance",
    "firing_scores",
    "gabor_fit",
    "gate_reliability",
    "gini",
    "hoyer",
    "importance_curve",
    "importance_sampling",
    "impute",
    "interpolations",
    "kl_per_dimension",
    "l0",
    "latent_features",
    "log_likelihood",
    "mcc",
    "mean_squared_error",
    "mig",
    "mmd_test",
    "mutual_information",
    "nearest_neighbors",
    "nonzero_probability",
    "pareto_k",
    "posterior_collapse",
    "probe_accuracy",
    "rate_distortion",
    "reliability",
    "sap",
    "sbc",
    "shrinkage",
    "similar_atoms",
    "spike_occupancy",
    "stability",
    "summary",
    "support_auprc",
    "support_f1",
    "support_variety",
    "supports",
    "traversals",
    "treves_rolls",
    "uniqueness",
]
