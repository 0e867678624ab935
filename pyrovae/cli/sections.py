"""The table of ``pyrovae evaluate``: a section for each question, a unit beside each number."""

from __future__ import annotations

import textwrap
from typing import Any

import click

from pyrovae.metrics import Summary

__all__ = ["print_summary"]

Numbers = dict[str, Any]
Line = tuple[str, str, str, str]  # key of the number, its name, its format, its unit

WIDTH = 116
CODES = {
    "encode": "vae.encode(x), the deterministic code",
    "mean": "the mean of q(z|x)",
    "sample": "one draw from q(z|x) for each datum",
}


def print_summary(measured: Summary) -> None:
    """What could be measured; for what could not, one line that says why."""
    numbers = measured.numbers
    click.echo(f"\nheld-out test set, {numbers['num_data']} data")
    for title, lines in _sections(numbers).items():
        click.echo(f"\n{title}")
        absent: dict[str, list[str]] = {}
        for key, name, form, unit in lines:
            if numbers[key] is None:
                absent.setdefault(measured.missing[key], []).append(name.strip())
            else:
                click.echo(f"  {name:<36} {numbers[key]:>9{form}}  {unit}")
        for reason, names in absent.items():
            text = f"not measured: {', '.join(names)}: {reason}"
            click.echo(textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="    "))
    click.echo()


def _sections(n: Numbers) -> dict[str, list[Line]]:
    of = f"of {n['num_data']} data"
    return {
        "likelihood": _likelihood(n),
        f"information, of {n['information_num_data']} {of}": _information(n),
        f"health of the code, of {n['health_num_data']} {of}": _health(n),
        f"sparsity of the codes: {CODES[n['codes']]}": _sparsity(n),
        "use of the codes": _use(n),
        f"calibration of the guide, of {n['num_simulated']} data that the model makes": _calibration(n),
    }


def _likelihood(n: Numbers) -> list[Line]:
    each, draws = "nats per datum", f"{n['num_samples']} draws"
    rate = "exact" if n["kl_is_exact"] else "sampled"
    chains = f"{n['ais_temperatures']} temperatures, {n['ais_num_data']} data"
    if n["discrete_data"]:
        scale: Line = ("bits_per_dimension", "bits per dimension", ".3f", "of x, at most")
    else:
        unit = "nats per dimension of x, at most; of a density, it moves with the units of x"
        scale = ("nats_per_dimension", "negative log-likelihood", ".3f", unit)
    return [
        ("elbo", "ELBO", ".2f", each + _plus_minus(n["standard_error"], ".2f")),
        ("distortion", "  distortion, -log p(x|z)", ".2f", each),
        ("rate", "  rate, KL of guide from prior", ".2f", f"{each}, {rate}"),
        ("log_likelihood", "log-likelihood", ".2f", f"{each}, at least; {draws}"),
        ("gap", "  gap to the ELBO", ".2f", each),
        ("effective_sample_size", "  effective sample size", ".1f", f"of {draws}"),
        ("pareto_k", "  Pareto k > 0.7", ".1%", "of the data: log-likelihood not to be trusted"),
        ("ais_log_likelihood", "log-likelihood by annealing", ".2f", f"{each}, at least; {chains}"),
        ("ais_gain", "  gain on importance sampling", ".2f", f"{each}, on the same data"),
        scale,
    ]


def _information(n: Numbers) -> list[Line]:
    cap = n["mutual_information_cap"]
    most = "" if cap is None else f", {cap:.2f} at most for so many data"
    return [
        ("mutual_information", "mutual information, data and code", ".2f", f"nats{most}"),
        ("marginal_kl", "marginal KL, codes from the prior", ".2f", "nats"),
    ]


def _health(n: Numbers) -> list[Line]:
    each, of = "nats per datum", f"of {n['latent_dim']}"
    return [
        ("active_units", "active units, variance over 0.01", "d", f"{of}, on all data"),
        ("active_units_kl", "active units, KL over 0.01 nats", "d", of),
        ("posterior_collapse", "posterior collapse", ".1%", f"{of} coordinates: KL under 0.01 nats for 95 % of data"),
        ("kl_per_dimension_max", "KL of a coordinate, largest", ".3f", each),
        ("kl_per_dimension_median", "  median", ".3f", each),
        ("kl_per_dimension_min", "  smallest", ".3f", each),
        ("shut_gates", "gates shut for all data", "d", of),
        ("open_gates", "gates open for all data", "d", of),
    ]  # fmt: skip


def _sparsity(n: Numbers) -> list[Line]:
    left_out = {"dead units": n["dead_units"], "empty codes": n["empty_codes"]}
    without = " and ".join(f"{count} {what}" for what, count in left_out.items() if count)
    without = f"; without {without}" if without else ""
    alive = n["latent_dim"] - n["dead_units"]
    of = f"of {n['latent_dim']} coordinates"
    counted = f"{of}, {'exact' if n['occupancy_is_exact'] else 'counted in draws'}"
    low, high = n["active_dimension_low"], n["active_dimension_high"]
    interval = "" if low is None else f"; 90 % interval {low:.1f} to {high:.1f}, means of the data"
    apart = "mean Jaccard distance of supports, from 0, shared, to 1"
    return [
        ("exact_zeros", "exact zeros", ".1%", "of the coordinates of all codes"),
        ("l0", "L0, farther than 0.01 sd from zero", ".2f", f"of {alive} coordinates that vary, mean of the codes"),
        ("hoyer", "Hoyer", ".2f", f"from 0, even, to 1, one-hot{without}"),
        ("gini", "Gini", ".2f", f"from 0, even, to {1 - 1 / max(alive, 1):.2f}, one-hot{without}"),
        ("treves_rolls", "Treves-Rolls", ".2f", f"from 0, even, to 1, one-hot{without}"),
        ("coefficient_collapse", "coefficient collapse", ".1%", f"{of}: within 0.01 of zero for 95 % of data"),
        ("support_jaccard", "support variety", ".2f", apart),
        ("support_jaccard_within", "  of two data with one label", ".2f", "the same"),
        ("support_jaccard_between", "  of two data with two labels", ".2f", "the same"),
        ("num_supports", "distinct supports", "d", f"of {n['num_data']} data"),
        ("dead_latents", "dead latents", "d", f"{of}: on for under 1e-6 of the data"),
        ("dense_latents", "dense latents", "d", f"{of}: on for more than half of the data"),
        ("always_on", "always on", ".1%", f"{of}: on for more than 95 % of the data"),
        ("active_dimension", "active dimension", ".2f", f"{of}{interval}"),
        ("occupancy", "not zero under the guide", ".2f", counted),
        ("prior_occupancy", "not zero under the prior", ".2f", counted),
    ]


def _use(n: Numbers) -> list[Line]:
    trained = f"; {n['num_labels']} labels, mean of {n['num_label_draws']} draws of them"
    linear, knn = (_plus_minus(n[key], ".1%") for key in ("accuracy_standard_error", "knn_accuracy_standard_error"))
    return [
        ("accuracy", "right by a linear probe", ".1%", f"of the test data{linear}{trained}"),
        ("knn_accuracy", "right by the nearest neighbours", ".1%", f"of the test data{knn}{trained}"),
        ("mean_squared_error", "mean squared error", ".4f", "per dimension of x, of vae.reconstruct(x)"),
    ]


def _calibration(n: Numbers) -> list[Line]:
    lines: list[Line] = []
    for percent in (50, 80, 95):
        error = (percent * (100 - percent) / n["num_simulated"]) ** 0.5
        unit = f"of z, mean of the coordinates; {percent} % if calibrated, ± {error:.1f} % at most"
        lines.append((f"coverage_{percent}", f"inside intervals of {percent} %", ".1%", unit))
    chance = n["gate_reliability_by_chance"]
    expected = "" if chance is None else f"; about {chance:.3f} if calibrated"
    fewest = f"of {n['latent_dim']} coordinates; not uniform below {0.05 / n['latent_dim']:.2g}"
    return [
        *lines,
        ("sbc_p_value", "uniform ranks, smallest p-value", ".2g", fewest),
        ("gate_reliability_error", "gates, error of their probability", ".3f", f"mean of the coordinates{expected}"),
    ]


def _plus_minus(error: float | None, form: str) -> str:
    return "" if error is None else f" ± {error:{form}}"
