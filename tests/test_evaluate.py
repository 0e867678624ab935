"""``pyrovae evaluate``: its table with units, its file of numbers, its pictures, and what cannot be measured."""

import math
import re
import shutil

import numpy as np
import pytest
from test_cli import pyrovae, read, tree

DIGITS = "fit digits --epochs 2 --hidden 16 --latent-dim 5 --num-samples 30 --prior"
REAL = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
ANNEALING = {"ais_log_likelihood", "ais_gain", "ais_num_data", "ais_temperatures"}


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
        "support variety": (
            f"{n['support_jaccard']:.2f}", "mean Jaccard distance of supports, from 0, shared, to 1"
        ),
        "of two data with one label": (f"{n['support_jaccard_within']:.2f}", "the same"),
        "of two data with two labels": (f"{n['support_jaccard_between']:.2f}", "the same"),
        "distinct supports": (str(n["num_supports"]), "of 180 data"),
        "dead latents": (str(n["dead_latents"]), "of 5 coordinates: on for under 1e-6 of the data"),
        "dense latents": (str(n["dense_latents"]), "of 5 coordinates: on for more than half of the data"),
        "always on": (f"{n['always_on']:.1%}", "of 5 coordinates: on for more than 95 % of the data"),
        "active dimension": (
            f"{n['active_dimension']:.2f}",
            f"of 5 coordinates; 90 % interval {n['active_dimension_low']:.1f} to {n['active_dimension_high']:.1f}, "
            "means of the data",
        ),
        "not zero under the guide": (f"{n['occupancy']:.2f}", "of 5 coordinates, exact"),
        "not zero under the prior": (f"{n['prior_occupancy']:.2f}", "of 5 coordinates, exact"),
        "right by a linear probe": (
            f"{n['accuracy']:.1%}",
            f"of the test data ± {n['accuracy_standard_error']:.1%}; 100 labels, mean of 20 draws of them",
        ),
        "mean squared error": (f"{n['mean_squared_error']:.4f}", "per dimension of x, of vae.reconstruct(x)"),
        "inside intervals of 80 %": (
            f"{n['coverage_80']:.1%}", "of z, mean of the coordinates; 80 % if calibrated, ± 1.8 % at most"
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
            "decoder_atoms", "importance_curve", "kl_spectrum", "latent_density", "sbc_ranks", "spike_occupancy",
            "traversals",
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
    assert not (desk / "normal/figures/latent_density.png").exists()
    assert "no code has an exact zero" in " ".join(out.split())
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


@pytest.mark.parametrize(
    ("arguments", "discrete"),
    [
        ("digits --network conv", True),
        ("digits --binarize none --prior spike-slab", False),
        ("counts.csv --likelihood poisson", True),
        ("counts.csv --likelihood categorical --prior bernoulli", True),
        ("real.csv --network dictionary", False),
    ],
)
def test_every_kind_of_data(arguments, discrete, desk, capsys):
    np.savetxt(desk / "counts.csv", np.random.default_rng(0).integers(0, 4, (40, 5)), delimiter=",", fmt="%d")
    assert pyrovae(f"fit {arguments} --epochs 1 --hidden 8 --latent-dim 3 --num-samples 5 --out out") == 0
    capsys.readouterr()
    assert pyrovae("evaluate out --num-samples 5") == 0
    assert read(desk / "out/metrics.json")["discrete_data"] is discrete
    assert ("bits per dimension" in lines_of(capsys.readouterr().out)) == discrete
    assert {"decoder_atoms", "traversals"} <= {path.stem for path in (desk / "out/figures").iterdir()}


def test_one_datum(desk, capsys):
    assert pyrovae("fit three.csv --epochs 1 --hidden 8 --latent-dim 2 --num-samples 5 --out out") == 0
    numbers = read(desk / "out/metrics.json")
    assert numbers["hoyer"] is None, "no code of one datum has a value"
    assert re.search(r"Hoyer sparsity of the codes +-  from 0", capsys.readouterr().out)
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
