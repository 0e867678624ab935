"""All that is measured of one VAE, under flat names; ``docs/units.md`` has the formula and the unit of each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pyrovae.metrics.annealing import annealed_importance_sampling
from pyrovae.metrics.calibration import Ranks, coverage, gate_reliability, sbc
from pyrovae.metrics.collapse import coefficient_collapse, kl_per_dimension, share_of_coordinates
from pyrovae.metrics.draws import point_site
from pyrovae.metrics.evaluation import evaluate, has_value, num_observed
from pyrovae.metrics.health import dead_gates
from pyrovae.metrics.importance import importance_sampling
from pyrovae.metrics.information import mutual_information
from pyrovae.metrics.latent_codes import Occupancy, codes, nonzero_probability, spike_occupancy
from pyrovae.metrics.probe import probe_accuracy
from pyrovae.metrics.sparsity import exact_zeros, gini, hoyer, l0, treves_rolls
from pyrovae.metrics.supports import active_dimension, supports, variety_if_sparse
from pyrovae.rows import Rows, cut, data_of, each, moved, num_rows, tensors
from pyrovae.vae import VAE, evaluating

__all__ = ["Summary", "summary"]

ROWS = 1024  # of data that pass at once
INFORMATION, HEALTH, ANNEALED = 500, 1000, 20  # data of the measurements that cost the most
CARRIES = 0.01  # nats of KL above which a coordinate is active
SHARE = 0.95  # of the data for which a coordinate that has collapsed carries nothing
LABELS_PER_CLASS, LABEL_DRAWS, NEIGHBORS = 10, 20, 5
MEAN_DRAWS = 100  # of a posterior mean without a closed form

BOUNDS = (
    "elbo", "standard_error", "rate", "log_likelihood", "gap", "effective_sample_size", "pareto_k",
    "bits_per_dimension", "nats_per_dimension",
)  # fmt: skip
INFORMED = ("mutual_information", "marginal_kl", "mutual_information_cap")
CARRIED = (
    "active_units_kl", "posterior_collapse", "kl_per_dimension_max", "kl_per_dimension_median", "kl_per_dimension_min"
)  # fmt: skip
GATES = (
    "shut_gates", "open_gates", "occupancy", "prior_occupancy", "occupancy_is_exact", "active_dimension",
    "active_dimension_low", "active_dimension_high",
)  # fmt: skip
BY_LABEL = ("support_jaccard_within", "support_jaccard_between")
SUPPORTS = ("support_jaccard", *BY_LABEL, "num_supports", "dead_latents", "dense_latents", "always_on")
PROBES = (
    "accuracy", "accuracy_standard_error", "knn_accuracy", "knn_accuracy_standard_error", "num_labels",
    "num_label_draws",
)  # fmt: skip
COVERED = {"coverage_50": 0.5, "coverage_80": 0.8, "coverage_95": 0.95}
RELIABLE = ("gate_reliability_error", "gate_reliability_by_chance")
ANNEALING = ("ais_log_likelihood", "ais_gain", "ais_num_data")


class Summary(NamedTuple):
    """The ``numbers`` by name, None where one cannot be had; why, in ``missing``; and the tables of the pictures.

    ``kl`` is what :func:`~pyrovae.metrics.kl_per_dimension` gives of a part of the data, and ``density`` ``(D,)`` the
    share of data in which each coordinate of the code is on, of codes with exact zeros.
    """

    numbers: dict[str, Any]
    missing: dict[str, str]
    kl: Tensor | None
    occupancy: Occupancy | None
    ranks: Ranks | None
    density: Tensor | None


def summary(
    vae: VAE,
    x: Rows,
    num_samples: int = 5000,
    *,
    kind: str = "encode",
    labels: Tensor | None = None,
    labelled: tuple[Rows, Tensor] | None = None,
    num_temperatures: int | None = None,
    num_simulated: int = 500,
    seed: int = 0,
) -> Summary:
    """All that is measured of a VAE: what ``pyrovae evaluate`` prints.

    The numbers of :func:`evaluate` are among them, under the same names. Mutual information is of 500 data at most,
    what coordinates carry and how often they are in use of 1,000, annealing of 20, drawn at random: ``numbers`` says
    how many. Calibration is of data that the model makes. What a model does not have is None, with its reason in
    ``missing``: no bound under a Delta guide, no KL of a coordinate where a law is of whole codes, no gates, no labels.

    Args:
        vae: A VAE.
        x: Held-out data, ``(N, *event_shape)``, or ``(x, y)`` of a conditional VAE.
        num_samples: Draws of the log-likelihood.
        kind: Which codes: ``"encode"``, ``"mean"`` (of 100 draws where it has no closed form) or ``"sample"``, see
            :func:`~pyrovae.metrics.codes`. Sparsity, coefficient collapse and probes are of them.
        labels: The label of each row of x, ``(N,)``.
        labelled: Training data and their labels, of which a probe sees ten of each class, drawn 20 times.
        num_temperatures: Of annealed importance sampling, which is slow; None leaves it out.
        num_simulated: Data that the model makes.
        seed: Of the labelled rows; ``torch.manual_seed`` repeats all else.

    Units: those of ``docs/units.md``.
    Raises: ValueError if ``kind`` is none of the three, a number is too small, or only one of ``labels`` and
        ``labelled`` is given.
    """
    if kind not in ("encode", "mean", "sample"):
        raise ValueError(f"kind must be one of encode, mean, sample, got {kind!r}")
    if (labels is None) != (labelled is None):
        raise ValueError("labels and labelled must be given together: the labels of x, and training data with theirs")
    for name, rows, classes in (("labels", x, labels), ("labelled", *(labelled or (x, labels)))):
        if classes is not None and classes.shape != (num_rows(rows),):
            raise ValueError(f"{name} must be one for each of {num_rows(rows)} rows, got shape {tuple(classes.shape)}")
    if num_temperatures is not None and num_temperatures < 1:
        raise ValueError(f"num_temperatures must be at least 1, got {num_temperatures}")
    if num_simulated < 10:
        raise ValueError(f"num_simulated must be at least 10, got {num_simulated}")
    parts = _Parts(vae, x)
    parts.likelihood(num_samples)
    parts.information()
    rows = parts.some(HEALTH)
    kl, occupancy = parts.health(rows), parts.gates(rows)
    z = _codes(vae, x, kind)
    parts.sparsity(z, kind)
    density = parts.supports(z, labels)
    parts.use(z, kind, labels, labelled, seed)
    ranks = parts.calibration(num_simulated, occupancy is not None)
    parts.annealing(num_temperatures, num_samples)
    return Summary(parts.numbers, parts.missing, kl, occupancy, ranks, density)


class _Parts:
    """The sections of the table, each of which adds its numbers."""

    def __init__(self, vae: VAE, x: Rows) -> None:
        self.vae, self.x = vae, x
        self.numbers: dict[str, Any] = {}
        self.missing: dict[str, str] = {}

    @contextmanager
    def asked(self, names: Iterable[str]) -> Iterator[None]:
        """What is measured within; where the model does not have it, None and the reason for each name."""
        try:
            yield
        except ValueError as error:
            self.without(names, str(error))

    def without(self, names: Iterable[str], reason: str) -> None:
        names = list(names)
        self.numbers.update(dict.fromkeys(names))
        self.missing.update(dict.fromkeys(names, reason))

    def some(self, most: int) -> Rows:
        """Rows at random: a file may be in an order of its own."""
        if num_rows(self.x) <= most:
            return self.x
        rows = torch.randperm(num_rows(self.x))[:most]
        return each(lambda table: table[rows.to(table.device)], self.x)

    def likelihood(self, num_samples: int) -> None:
        self.numbers |= evaluate(self.vae, self.x, num_samples)
        numbers, site = self.numbers, point_site(self.vae, self.x)
        numbers["distortion"] = -numbers["reconstruction"]
        numbers["discrete_data"] = _is_discrete(self.vae, self.x)
        if site is not None:
            self.without(BOUNDS, _point(site, "no density and gives no bound on log p(x)"))
            return
        numbers["rate"] = numbers["kl"]
        numbers["gap"] = numbers["log_likelihood"] - numbers["elbo"]
        numbers["nats_per_dimension"] = -numbers["log_likelihood"] * num_rows(self.x) / num_observed(data_of(self.x))
        if math.isnan(numbers["standard_error"]):
            self.without(["standard_error"], "the mean of one datum has no standard error")
        if numbers["pareto_k"] is None:
            self.without(["pareto_k"], f"a tail index needs 21 draws, there are {num_samples}")

    def information(self) -> None:
        rows = self.some(INFORMATION)
        self.numbers["information_num_data"] = num_rows(rows)
        with self.asked(INFORMED):
            self.numbers |= zip(INFORMED, [float(value) for value in mutual_information(self.vae, rows)], strict=True)

    def health(self, rows: Rows) -> Tensor | None:
        self.numbers["health_num_data"] = num_rows(rows)
        kl = None
        with self.asked(CARRIED):
            kl = kl_per_dimension(self.vae, rows)
            mean = kl.mean(0)
            self.numbers |= {
                "active_units_kl": int((mean > CARRIES).sum()),
                "posterior_collapse": share_of_coordinates(kl <= CARRIES, SHARE).item(),
                "kl_per_dimension_max": mean.max().item(),
                "kl_per_dimension_median": mean.quantile(0.5).item(),
                "kl_per_dimension_min": mean.min().item(),
            }
        return kl

    def gates(self, rows: Rows) -> Occupancy | None:
        occupancy = None
        with self.asked([*GATES, *RELIABLE]):  # an improper prior has no draws
            occupancy = spike_occupancy(self.vae, rows)
        if occupancy is None:
            return None
        if bool((occupancy.posterior == 1).all()) and bool((occupancy.prior == 1).all()):
            self.without([*GATES, *RELIABLE], "no coordinate is ever exactly zero, under the guide or under the prior")
            return None
        with self.asked(GATES):
            dead = dead_gates(self.vae, rows)
            used = active_dimension(nonzero_probability(self.vae, rows)[0])
            self.numbers |= {
                "shut_gates": int(dead.shut.sum()),
                "open_gates": int(dead.open.sum()),
                "occupancy": occupancy.posterior.sum().item(),
                "prior_occupancy": occupancy.prior.sum().item(),
                "occupancy_is_exact": occupancy.exact,
                "active_dimension": used.num_active.double().mean().item(),
                "active_dimension_low": used.low.double().mean().item(),
                "active_dimension_high": used.high.double().mean().item(),
            }
        return occupancy

    def sparsity(self, z: Tensor, kind: str) -> None:
        measured = hoyer(z)
        self.numbers |= {
            "codes": kind,
            "coefficient_collapse": coefficient_collapse(z).item(),
            "exact_zeros": exact_zeros(z).item(),
            "l0": l0(z).mean,
            "hoyer": measured.mean,
            "gini": gini(z).mean,
            "treves_rolls": treves_rolls(z).mean,
            "dead_units": measured.dead,
            "empty_codes": measured.empty,
        }
        if not has_value(z, measured):
            reason = "no code has a value: it needs two coordinates that vary, and one that is not zero"
            self.without(["hoyer", "gini", "treves_rolls"], reason)

    def supports(self, z: Tensor, labels: Tensor | None) -> Tensor | None:
        variety = variety_if_sparse(z, labels)
        if variety is None:
            self.without(
                SUPPORTS, "no code has an exact zero" if len(z) > 1 else "one code has no other to differ from"
            )
            return None
        counts = supports(z)
        self.numbers |= zip(SUPPORTS, (*variety[:4], *counts[2:]), strict=True)
        absent = [name for name in BY_LABEL if self.numbers[name] is None]
        self.without(absent, "the data have no labels" if labels is None else "no two data have such labels")
        return counts.density

    def use(self, z: Tensor, kind: str, labels: Tensor | None, labelled: tuple[Rows, Tensor] | None, seed: int) -> None:
        if labels is None or labelled is None:
            self.without(PROBES, "the data have no labels")
            return
        tables = _codes(self.vae, labelled[0], kind), labelled[1], z, labels
        counts = labelled[1].unique(return_counts=True)[1]
        num = len(counts) * min(LABELS_PER_CLASS, int(counts.min()))
        with self.asked(PROBES):  # of two classes at least
            linear = probe_accuracy(*tables, num, LABEL_DRAWS, seed)
            knn = probe_accuracy(*tables, num, LABEL_DRAWS, seed, "knn", min(NEIGHBORS, num))
            self.numbers |= zip(PROBES, [*linear, *knn, num, LABEL_DRAWS], strict=True)

    def calibration(self, num: int, gated: bool) -> Ranks | None:
        self.numbers["num_simulated"] = num
        site = point_site(self.vae, self.x)
        if site is not None:
            self.without([*COVERED, "sbc_p_value", *(RELIABLE if gated else ())], _point(site, "no intervals"))
            return None
        ranks = None
        with self.asked([*COVERED, "sbc_p_value"]):
            ranks = sbc(self.vae, num)
            share = coverage(ranks, COVERED.values()).share.mean(1)
            self.numbers |= zip(COVERED, share.tolist(), strict=True)
            self.numbers["sbc_p_value"] = ranks.p_value.min().item()
        if gated:
            with self.asked(RELIABLE):
                reliability = gate_reliability(self.vae, num)
                self.numbers |= zip(
                    RELIABLE, [reliability.error.mean().item(), reliability.error_by_chance.mean().item()], strict=True
                )
        return ranks

    def annealing(self, num_temperatures: int | None, num_samples: int) -> None:
        self.numbers["ais_temperatures"] = num_temperatures
        if num_temperatures is None:
            self.without(
                [*ANNEALING, "ais_temperatures"], "it is slow, and left out unless asked for: num_temperatures, --ais"
            )
            return
        rows = self.some(ANNEALED)
        with self.asked(ANNEALING):
            bound = annealed_importance_sampling(self.vae, rows, num_temperatures)
            other = importance_sampling(self.vae, rows, num_samples).log_likelihood
            self.numbers |= zip(
                ANNEALING, [bound.mean().item(), (bound - other).mean().item(), num_rows(rows)], strict=True
            )


def _codes(vae: VAE, x: Rows, kind: str) -> Tensor:
    like = next(vae.parameters())
    return torch.cat([codes(vae, moved(rows, like), kind, MEAN_DRAWS) for rows in cut(x, ROWS)])


def _is_discrete(vae: VAE, x: Rows) -> bool:
    z = vae.encode(*tensors(each(lambda table: table[:1], x)))
    with evaluating(vae):
        return bool(vae.likelihood(functional.pad(z, (0, vae.num_labels))).support.is_discrete)  # of any label


def _point(site: str, lacks: str) -> str:
    return f"site {site!r} of the guide is a point (Delta): it has {lacks}"
