"""``metrics.summary``: every number is that of its function, and what a model does not have is None with its reason."""

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats as st
import torch
from linear_gaussian import DIM, data, linear_gaussian, marginal, set_exact_posterior

import pyrovae as pv
from pyrovae import metrics
from pyrovae.metrics.summary import _Parts

UNITS = (Path(__file__).parents[1] / "docs" / "units.md").read_text()
BOUNDS = {
    "elbo", "standard_error", "rate", "log_likelihood", "gap", "effective_sample_size", "pareto_k",
    "bits_per_dimension", "nats_per_dimension",
}  # fmt: skip
INFORMATION = {"mutual_information", "marginal_kl", "mutual_information_cap"}
COORDINATES = {
    "active_units_kl", "posterior_collapse", "kl_per_dimension_max", "kl_per_dimension_median", "kl_per_dimension_min"
}  # fmt: skip
GATES = {
    "shut_gates", "open_gates", "occupancy", "prior_occupancy", "occupancy_is_exact", "gate_reliability_error",
    "gate_reliability_by_chance", "active_dimension", "active_dimension_low", "active_dimension_high",
}  # fmt: skip
SUPPORTS = {
    "support_jaccard", "support_jaccard_within", "support_jaccard_between", "num_supports", "dead_latents",
    "dense_latents", "always_on",
}  # fmt: skip
DENSE = GATES | SUPPORTS
CALIBRATION = {"coverage_50", "coverage_80", "coverage_95", "sbc_p_value"}
ANNEALING = {"ais_log_likelihood", "ais_gain", "ais_num_data", "ais_temperatures"}
PROBES = {
    "accuracy", "accuracy_standard_error", "knn_accuracy", "knn_accuracy_standard_error", "num_labels",
    "num_label_draws",
}  # fmt: skip


def measured(prior, guide=None, **options):
    torch.manual_seed(0)
    digits = pv.data.digits()
    vae = pv.build_vae((64,), 4, prior, guide=guide, hidden=(8,), num_data=1437, inputs=digits.train)
    usual = {"labels": digits.labels["test"], "labelled": (digits.train, digits.labels["train"]), "num_simulated": 20}
    return metrics.summary(vae, digits.test, 30, **{**usual, **options})


@pytest.mark.parametrize(
    ("prior", "guide", "missing"),
    [
        ("normal", None, DENSE),
        ("normal", "multivariate-normal", DENSE),
        ("normal", "delta", BOUNDS | INFORMATION | COORDINATES | CALIBRATION | DENSE),
        ("spike-slab", None, set()),
        ("beta-spike-slab", None, set()),
        ("hard-concrete", None, SUPPORTS),  # no code has a zero before training
        ("rectified-normal", None, set()),
        ("bernoulli", None, set()),
        ("categorical", None, COORDINATES),
        ("vamp", None, COORDINATES | DENSE),
        ("flow", None, COORDINATES | DENSE),
        ("dirichlet", None, COORDINATES | DENSE),
        ("hyperspherical-uniform", None, COORDINATES | DENSE),
        ("regularized-horseshoe", None, DENSE),
    ],
)
def test_what_a_model_does_not_have_is_none_with_its_reason(prior, guide, missing):
    numbers, reasons, kl, occupancy, ranks, density = measured(prior, guide)
    assert {name for name, number in numbers.items() if number is None} == set(reasons) == missing | ANNEALING
    assert all(reasons.values())
    assert not [name for name, number in numbers.items() if isinstance(number, float) and not math.isfinite(number)]
    assert (kl is None, occupancy is None, ranks is None, density is None) == tuple(
        group <= missing for group in (COORDINATES, GATES, CALIBRATION, SUPPORTS)
    )
    assert {name for name in [*numbers, "missing"] if f"`{name}`" not in UNITS} == set()
    assert list(numbers) == list(dict.fromkeys(numbers))


def test_the_names_are_the_same_for_every_model():
    names = set(measured("normal").numbers)
    assert names == set(measured("normal", "delta").numbers) == set(measured("spike-slab").numbers)
    assert names > BOUNDS | INFORMATION | COORDINATES | DENSE | CALIBRATION | ANNEALING | PROBES


def test_the_numbers_are_those_of_the_functions():
    numbers, _, kl, occupancy, _, density = measured("spike-slab")
    torch.manual_seed(0)
    digits = pv.data.digits()
    vae = pv.build_vae((64,), 4, "spike-slab", hidden=(8,), num_data=1437, inputs=digits.train)
    x, z = digits.test, vae.encode(digits.test)
    dead, probe = metrics.dead_gates(vae, x), (vae.encode(digits.train), digits.labels["train"], z)
    linear, knn = (
        metrics.probe_accuracy(*probe, digits.labels["test"], 100, 20, 0, name) for name in ("linear", "knn")
    )
    variety, counts = metrics.support_variety(z, digits.labels["test"]), metrics.supports(z)
    used = metrics.active_dimension(metrics.nonzero_probability(vae, x)[0])
    expected = {
        "support_jaccard": variety.jaccard,
        "support_jaccard_within": variety.within,
        "support_jaccard_between": variety.between,
        "num_supports": variety.num_supports,
        "dead_latents": counts.dead,
        "dense_latents": counts.dense,
        "always_on": counts.always_on,
        "active_dimension": float(used.num_active.double().mean()),
        "active_dimension_low": float(used.low.double().mean()),
        "active_dimension_high": float(used.high.double().mean()),
        "active_units_kl": int(metrics.active_units(vae, x, by="kl").sum()),
        "posterior_collapse": float(metrics.posterior_collapse(vae, x)),
        "kl_per_dimension_max": float(metrics.kl_per_dimension(vae, x).mean(0).max()),
        "shut_gates": int(dead.shut.sum()),
        "open_gates": int(dead.open.sum()),
        "coefficient_collapse": float(metrics.coefficient_collapse(z)),
        "l0": metrics.l0(z).mean,
        "gini": metrics.gini(z).mean,
        "treves_rolls": metrics.treves_rolls(z).mean,
        "occupancy": float(metrics.spike_occupancy(vae, x).posterior.sum()),
        "prior_occupancy": 4 * float(metrics.spike_occupancy(vae, x).prior.mean()),
        "accuracy": linear.accuracy,
        "knn_accuracy": knn.accuracy,
        "knn_accuracy_standard_error": knn.standard_error,
        "num_labels": 100,
    }
    assert {name: numbers[name] for name in expected} == pytest.approx(expected)
    assert kl.shape == (180, 4)
    assert torch.equal(density, counts.density)
    assert 0 < variety.jaccard < 1
    assert occupancy.posterior.sum() == pytest.approx(numbers["occupancy"])


def test_an_exact_posterior_has_no_gap_and_is_calibrated():
    """Coverage of 1,500 draws within 5 standard errors, ranks uniform at 1e-4: false alarms of 10^-5 and 3 in 10^4."""
    torch.manual_seed(0)
    vae = linear_gaussian()
    set_exact_posterior(vae)
    x = data(vae, 60)
    numbers = metrics.summary(vae, x, 50, num_temperatures=2).numbers
    expected = float(marginal(vae).log_prob(x).mean())
    for name in ("elbo", "log_likelihood"):
        assert numbers[name] == pytest.approx(expected, abs=1e-9)
    assert numbers["gap"] == pytest.approx(0, abs=1e-9)
    assert numbers["nats_per_dimension"] == pytest.approx(-expected / x.shape[1])
    assert numbers["ais_gain"] == pytest.approx(0, abs=1e-6)
    assert numbers["discrete_data"] is False
    assert numbers["rate"] + numbers["distortion"] == pytest.approx(-numbers["elbo"])
    # both are means over ten draws for each of 60 data
    together = numbers["mutual_information"] + numbers["marginal_kl"]
    assert together == pytest.approx(numbers["rate"], rel=0.1)
    for name, level in (("coverage_50", 0.5), ("coverage_80", 0.8), ("coverage_95", 0.95)):
        assert abs(numbers[name] - level) < 5 * (level * (1 - level) / (500 * DIM)) ** 0.5
    assert numbers["sbc_p_value"] > 1e-4
    with torch.no_grad():
        vae.posterior.head.bias[DIM : 2 * DIM] -= 3.0  # far too narrow
    narrow = metrics.summary(vae, x, 50).numbers
    assert narrow["coverage_50"] < 0.4
    assert narrow["sbc_p_value"] < 1e-4
    assert narrow["gap"] > 0.1


def test_the_error_of_calibrated_gates_by_chance():
    """Against simulated gates; the formula takes binomial counts for normal, good to 3 %."""
    counts, gamma = np.array([40, 100, 60]), np.array([0.1, 0.5, 0.8])
    open_ = st.binom(counts, gamma).rvs((20_000, 3), random_state=0)
    errors = (np.abs(open_ / counts - gamma) * counts).sum(1) / counts.sum()
    predicted = torch.tensor([*gamma, math.nan])[None]
    reliability = metrics.Reliability(predicted, predicted, torch.tensor([[*counts, 0]]), torch.zeros(1))
    assert reliability.error_by_chance.item() == pytest.approx(errors.mean(), rel=0.03)


def test_the_dear_measurements_are_of_rows_at_random():
    torch.manual_seed(0)
    vae = pv.build_vae((3,), 2, likelihood="normal", hidden=(4,))
    x = torch.arange(2000.0)[:, None].expand(2000, 3) / 2000
    parts = _Parts(vae, x)
    rows = (parts.some(1000)[:, 0] * 2000).round().long()
    assert len(rows.unique()) == 1000
    assert 400 < int((rows >= 1000).sum()) < 600  # 6 standard deviations of 15.8
    numbers, _, kl, *_ = metrics.summary(vae, x, 2, num_simulated=10)
    counts = {name: numbers[name] for name in ("num_data", "information_num_data", "health_num_data")}
    assert counts == {"num_data": 2000, "information_num_data": 500, "health_num_data": 1000}
    assert len(kl) == 1000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "codes"}, "kind must be one of encode, mean, sample, got 'codes'"),
        ({"labelled": None}, "labels and labelled must be given together"),
        ({"labels": None}, "labels and labelled must be given together"),
        ({"labels": torch.zeros(3)}, r"labels must be one for each of 180 rows, got shape \(3,\)"),
        ({"labelled": (torch.zeros(4, 64), torch.zeros(3))}, "labelled must be one for each of 4 rows"),
        ({"num_temperatures": 0}, "num_temperatures must be at least 1, got 0"),
        ({"num_simulated": 9}, "num_simulated must be at least 10, got 9"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        measured("normal", **change)


def test_labels_of_one_class_have_no_probe():
    digits = pv.data.digits()
    one = {"labels": torch.zeros(180).long(), "labelled": (digits.train, torch.zeros(1437).long())}
    numbers, reasons, *_ = measured("normal", **one)
    assert numbers["accuracy"] is None
    assert "2 or more classes" in reasons["accuracy"]


def test_codes_without_labels_have_no_variety_by_label():
    numbers, reasons, *_ = measured("spike-slab", labels=None, labelled=None)
    assert numbers["support_jaccard"] is not None
    for name in ("support_jaccard_within", "support_jaccard_between"):
        assert (numbers[name], reasons[name]) == (None, "the data have no labels")
