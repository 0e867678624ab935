"""``pyrovae evaluate`` and ``metrics.summary``: all that is measured of a run, and what cannot be."""

import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.stats as st
import torch
from linear_gaussian import DIM, data, linear_gaussian, marginal, set_exact_posterior
from test_cli import pyrovae, read, tree

import pyrovae as pv
from pyrovae import metrics
from pyrovae.metrics.summary import _by_chance, _Parts

DIGITS = "fit digits --epochs 2 --hidden 16 --latent-dim 5 --num-samples 30 --prior"
REAL = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
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
    "gate_reliability_by_chance",
}  # fmt: skip
CALIBRATION = {"coverage_50", "coverage_80", "coverage_95", "sbc_p_value"}
ANNEALING = {"ais_log_likelihood", "ais_gain", "ais_num_data", "ais_temperatures"}
PROBES = {
    "accuracy", "accuracy_standard_error", "knn_accuracy", "knn_accuracy_standard_error", "num_labels",
    "num_label_draws",
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    for prior in ("spike-slab", "normal"):
        assert pyrovae(f"{DIGITS} {prior} --out {folder / prior}") == 0
    return folder


@pytest.fixture
def desk(tmp_path, monkeypatch, trained):
    for prior in ("spike-slab", "normal"):
        shutil.copytree(trained / prior, tmp_path / prior)
    np.savetxt(tmp_path / "real.csv", REAL, delimiter=",", fmt="%.9g")
    np.savetxt(tmp_path / "three.csv", REAL[:3], delimiter=",", fmt="%.9g")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines_of(out):
    """The numbers of a printed table by their names: the number and what follows it."""
    found = re.findall(r"^  ( *[^ ].*?) {2,}([^ ]+)  (.*)$", out, re.MULTILINE)
    return {name.strip(): (number, unit) for name, number, unit in found}


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_table_has_the_numbers_of_the_file_with_their_units(desk, capsys):
    assert pyrovae("evaluate spike-slab --num-samples 30") == 0
    n = read(desk / "spike-slab/metrics.json")
    out = capsys.readouterr().out
    printed = lines_of(out)
    expected = {
        "ELBO": (f"{n['elbo']:.2f}", f"nats per datum ± {n['standard_error']:.2f}"),
        "distortion, -log p(x|z)": (f"{n['distortion']:.2f}", "nats per datum"),
        "rate, KL of guide from prior": (f"{n['rate']:.2f}", "nats per datum, exact"),
        "log-likelihood": (f"{n['log_likelihood']:.2f}", "nats per datum, at least; 30 draws"),
        "gap to the ELBO": (f"{n['gap']:.2f}", "nats per datum"),
        "effective sample size": (f"{n['effective_sample_size']:.1f}", "of 30 draws"),
        "Pareto k > 0.7": (f"{n['pareto_k']:.1%}", "of the data: log-likelihood not to be trusted"),
        "bits per dimension": (f"{n['bits_per_dimension']:.3f}", "of x, at most"),
        "mutual information, data and code": (
            f"{n['mutual_information']:.2f}", f"nats, {math.log(180):.2f} at most for so many data"
        ),
        "marginal KL, codes from the prior": (f"{n['marginal_kl']:.2f}", "nats"),
        "active units, variance over 0.01": (str(n["active_units"]), "of 5, on all data"),
        "active units, KL over 0.01 nats": (str(n["active_units_kl"]), "of 5"),
        "posterior collapse": (
            f"{n['posterior_collapse']:.1%}", "of 5 coordinates: KL under 0.01 nats for 95 % of data"
        ),
        "KL of a coordinate, largest": (f"{n['kl_per_dimension_max']:.3f}", "nats per datum"),
        "gates shut for all data": (str(n["shut_gates"]), "of 5"),
        "exact zeros": (f"{n['exact_zeros']:.1%}", "of the coordinates of all codes"),
        "not zero under the guide": (f"{n['occupancy']:.2f}", "of 5 coordinates, exact"),
        "not zero under the prior": (f"{n['prior_occupancy']:.2f}", "of 5 coordinates, exact"),
        "right by a linear probe": (
            f"{n['accuracy']:.1%}",
            f"of the test data ± {n['accuracy_standard_error']:.1%}; 100 labels, mean of 20 draws of them",
        ),
        "mean squared error": (f"{n['mean_squared_error']:.4f}", "per dimension of x, of vae.reconstruct(x)"),
        "inside intervals of 80 %": (
            f"{n['coverage_80']:.1%}", "of z, mean of the coordinates; 80 ± 1.8 % if calibrated"
        ),
        "uniform ranks, smallest p-value": (f"{n['sbc_p_value']:.2g}", "of 5 coordinates; not uniform below 0.01"),
        "gates, error of their probability": (
            f"{n['gate_reliability_error']:.3f}",
            f"mean of the coordinates; about {n['gate_reliability_by_chance']:.3f} if calibrated",
        ),
    }  # fmt: skip
    assert {name: printed.get(name) for name in expected} == expected
    assert all(unit for _, unit in printed.values())
    for title in ("information, of 180 of 180 data", "calibration of the guide, of 500 data that the model makes"):
        assert f"\n{title}\n" in out
    assert "sparsity of the codes: vae.encode(x), the deterministic code" in out
    assert max(map(len, out.splitlines()[2:-1])) <= 116


def test_the_numbers_of_fit_are_among_them_and_a_second_time_changes_nothing(desk, trained):
    assert pyrovae("evaluate spike-slab --num-samples 30") == 0
    after = tree(desk / "spike-slab")
    assert read(trained / "spike-slab/metrics.json").items() <= read(desk / "spike-slab/metrics.json").items()
    before = {path.relative_to(trained / "spike-slab"): text for path, text in tree(trained / "spike-slab").items()}
    changed = {str(path) for path, text in before.items() if after[desk / "spike-slab" / path] != text}
    assert changed == {"metrics.json"}
    added = {str(path.relative_to(desk / "spike-slab")) for path in after} - set(map(str, before))
    assert added == {
        f"figures/{name}.png"
        for name in (
            "decoder_atoms", "importance_curve", "kl_spectrum", "sbc_ranks", "spike_occupancy", "traversals"
        )
    }  # fmt: skip
    assert pyrovae("evaluate spike-slab --num-samples 30") == 0
    assert tree(desk / "spike-slab") == after
    assert pyrovae("evaluate spike-slab --num-samples 30 --seed 1") == 0
    assert read(desk / "spike-slab/metrics.json")["elbo"] != read(trained / "spike-slab/metrics.json")["elbo"]


def test_a_model_without_gates_says_so_once(desk, capsys):
    (desk / "normal/figures/loss.png").unlink()
    assert pyrovae("evaluate normal --num-samples 30") == 0
    out = capsys.readouterr().out
    reason = "no coordinate is ever exactly zero, under the guide or under the prior"
    assert " ".join(out.split()).count(reason) == 3, "under health, sparsity and calibration"
    assert not {"gates shut for all data", "not zero under the prior"} & set(lines_of(out))
    assert not (desk / "normal/figures/spike_occupancy.png").exists()
    assert "nan" not in out.lower().replace("annealing", "")


@pytest.mark.parametrize("options", ["--guide delta", "--prior vamp --num-components 3", "--prior dirichlet"])
def test_what_cannot_be_measured_is_left_out(options, desk, capsys):
    assert pyrovae(f"fit real.csv --epochs 1 --hidden 8 --latent-dim 3 --num-samples 5 {options} --out out") == 0
    capsys.readouterr()
    assert pyrovae("evaluate out --num-samples 5") == 0
    printed = capsys.readouterr().out
    assert not re.search(r"\b(nan|None)\b", printed)
    text = " ".join(printed.split())
    assert "the data have no labels" in text
    whole = "a law of whole codes, with no KL of each coordinate"
    assert (whole in text) == ("delta" not in options)
    assert ("is a point (Delta): it has no density and gives no bound on log p(x)" in text) == ("delta" in options)
    figures = {path.stem for path in (desk / "out/figures").iterdir()}
    assert "kl_spectrum" not in figures
    assert ("importance_curve" in figures) == ("sbc_ranks" in figures) == ("delta" not in options)
    density = "nats per dimension of x, at most; of a density, it moves with the units of x"
    assert (density in text) == ("delta" not in options)
    assert "bits per dimension" not in set(lines_of(printed))


def test_one_datum(desk, capsys):
    assert pyrovae("fit three.csv --epochs 1 --hidden 8 --latent-dim 2 --num-samples 5 --out out") == 0
    numbers = read(desk / "out/metrics.json")
    assert numbers["hoyer"] is None, "no code of one datum has a value"
    assert "Hoyer sparsity of the codes               -" in re.sub(r" {10,}-", " " * 15 + "-", capsys.readouterr().out)
    assert pyrovae("evaluate out --num-samples 5") == 0
    after = read(desk / "out/metrics.json")
    assert numbers.items() <= after.items()
    assert after["missing"]["standard_error"] == "the mean of one datum has no standard error"
    assert after["missing"]["pareto_k"] == "a tail index needs 21 draws, there are 5"


def test_other_codes(desk, capsys):
    zeros = {}
    for kind, title in (("mean", "the mean of q(z|x)"), ("sample", "one draw from q(z|x) for each datum")):
        assert pyrovae(f"evaluate spike-slab --num-samples 5 --codes {kind}") == 0
        assert f"sparsity of the codes: {title}" in capsys.readouterr().out
        numbers = read(desk / "spike-slab/metrics.json")
        assert numbers["codes"] == kind
        zeros[kind] = numbers["exact_zeros"]
    assert zeros["mean"] == 0
    share = 1 - numbers["occupancy"] / 5  # of one draw for 180 data; 6 standard errors: a false alarm once in 10^8
    assert abs(zeros["sample"] - share) < 6 * (share * (1 - share) / 900) ** 0.5


def test_annealing_is_asked_for(desk, capsys):
    assert pyrovae("evaluate spike-slab --num-samples 30 --ais 2") == 0
    numbers = read(desk / "spike-slab/metrics.json")
    printed = lines_of(capsys.readouterr().out)
    unit = "nats per datum, at least; 2 temperatures, 20 data"
    assert printed["log-likelihood by annealing"] == (f"{numbers['ais_log_likelihood']:.2f}", unit)
    assert (numbers["ais_temperatures"], numbers["ais_num_data"]) == (2, 20)
    assert not ANNEALING & set(numbers["missing"])
    assert pyrovae("evaluate spike-slab --num-samples 30") == 0
    without = read(desk / "spike-slab/metrics.json")
    assert set(without["missing"]) >= ANNEALING
    different = {key for key in numbers if numbers[key] != without[key]}
    assert different == ANNEALING | {"missing"}, "no other number depends on it"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--codes means", "'--codes': 'means' is not one of 'encode', 'mean', 'sample'"),
        ("--ais 0", "'--ais': 0 is not in the range x>=1"),
        ("--num-samples 0", "'--num-samples': 0 is not in the range x>=1"),
        ("--seed -1", "'--seed': -1 is not in the range"),
    ],
)
def test_a_bad_option_is_one_line(options, message, desk, capsys):
    before = tree(desk)
    assert pyrovae(f"evaluate spike-slab {options}") == 2
    assert re.fullmatch(f"pyrovae: error: .*{re.escape(message)}.*\n", capsys.readouterr().err)
    assert tree(desk) == before


# --- the dictionary -------------------------------------------------------------------------------------------------


def measured(prior, guide=None, **options):
    torch.manual_seed(0)
    digits = pv.data.digits()
    vae = pv.build_vae((64,), 4, prior, guide=guide, hidden=(8,), num_data=1437, inputs=digits.train)
    usual = {"labels": digits.labels["test"], "labelled": (digits.train, digits.labels["train"]), "num_simulated": 20}
    return metrics.summary(vae, digits.test, 30, **{**usual, **options})


@pytest.mark.parametrize(
    ("prior", "guide", "missing"),
    [
        ("normal", None, GATES),
        ("normal", "multivariate-normal", GATES),
        ("normal", "delta", BOUNDS | INFORMATION | COORDINATES | CALIBRATION | GATES),
        ("spike-slab", None, set()),
        ("beta-spike-slab", None, set()),
        ("hard-concrete", None, set()),
        ("rectified-normal", None, set()),
        ("bernoulli", None, set()),
        ("categorical", None, COORDINATES),
        ("vamp", None, COORDINATES | GATES),
        ("flow", None, COORDINATES | GATES),
        ("dirichlet", None, COORDINATES | GATES),
        ("hyperspherical-uniform", None, COORDINATES | GATES),
        ("regularized-horseshoe", None, GATES),
    ],
)
def test_what_a_model_does_not_have_is_none_with_its_reason(prior, guide, missing):
    numbers, reasons, kl, occupancy, ranks = measured(prior, guide)
    assert {name for name, number in numbers.items() if number is None} == set(reasons) == missing | ANNEALING
    assert all(reasons.values())
    assert not [name for name, number in numbers.items() if isinstance(number, float) and not math.isfinite(number)]
    assert (kl is None, occupancy is None, ranks is None) == tuple(
        group <= missing for group in (COORDINATES, GATES, CALIBRATION)
    )
    assert {name for name in [*numbers, "missing"] if f"`{name}`" not in UNITS} == set()
    assert list(numbers) == list(dict.fromkeys(numbers))


def test_the_names_are_the_same_for_every_model():
    names = set(measured("normal").numbers)
    assert names == set(measured("normal", "delta").numbers) == set(measured("spike-slab").numbers)
    assert names > BOUNDS | INFORMATION | COORDINATES | GATES | CALIBRATION | ANNEALING | PROBES


def test_the_numbers_are_those_of_the_functions():
    numbers, _, kl, occupancy, _ = measured("spike-slab")
    torch.manual_seed(0)
    digits = pv.data.digits()
    vae = pv.build_vae((64,), 4, "spike-slab", hidden=(8,), num_data=1437, inputs=digits.train)
    x, z = digits.test, vae.encode(digits.test)
    dead, probe = metrics.dead_gates(vae, x), (vae.encode(digits.train), digits.labels["train"], z)
    linear, knn = (
        metrics.probe_accuracy(*probe, digits.labels["test"], 100, 20, 0, name) for name in ("linear", "knn")
    )
    expected = {
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
    assert _by_chance(reliability) == pytest.approx(errors.mean(), rel=0.03)


def test_the_dear_measurements_are_of_rows_at_random():
    torch.manual_seed(0)
    vae = pv.build_vae((3,), 2, likelihood="normal", hidden=(4,))
    x = torch.arange(2000.0)[:, None].expand(2000, 3) / 2000
    parts = _Parts(vae, x)
    rows = (parts.some(1000)[:, 0] * 2000).round().long()
    assert len(rows.unique()) == 1000
    assert 400 < int((rows >= 1000).sum()) < 600  # 6 standard deviations of 15.8
    numbers, _, kl, _, _ = metrics.summary(vae, x, 2, num_simulated=10)
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
