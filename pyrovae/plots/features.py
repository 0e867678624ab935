"""A report of features: one HTML file that shows what each latent stands for, with nothing to load."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyrovae.metrics import LatentFeatures, Neighbors, co_firing, similar_atoms, support_variety, supports
from pyrovae.plots.inline import SIGNED, bars, picture_row, reduced
from pyrovae.plots.pictures import ImageShape, is_picture

__all__ = ["feature_report"]

TEMPLATES = Path(__file__).with_name("templates")
DEAD, DENSE = 1e-6, 0.5  # as metrics.supports counts them
NUM_COLUMNS = 5  # of a table, for each latent
NUM_LABELS = 3
BINS = 24  # of a histogram
MAX_BYTES = 20 << 20  # of all pictures


def feature_report(
    features: LatentFeatures,
    image_shape: ImageShape = None,
    *,
    title: str = "Features",
    facts: Mapping[str, str] | None = None,
    columns: Sequence[str] | None = None,
    labels: Tensor | None = None,
    label_names: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    num_latents: int = 2048,
    num_data: int = 8,
    num_neighbors: int = 4,
) -> str:
    """One HTML page with the atom of each latent, its density, codes, strongest data, neighbours and calibration.

    The page loads nothing, works without a server, and can be read and printed without JavaScript, which sorts, filters
    and searches. Texts that are given are shown as they are, whatever they contain. Pictures take 20 MiB at most: many
    or large ones are reduced. Rows and latents are counted from 0, as ``vae.encode(x)[n, j]``.

    Args:
        features: What :func:`~pyrovae.metrics.latent_features` gives; codes of another library too.
        image_shape: ``(C, H, W)``; None, or what is no picture, shows an atom by its largest weights.
        title: The heading.
        facts: What the head says besides, by name.
        columns: The name of each number of a datum, where it is no picture.
        labels: The label of each datum, ``(N,)``, whole numbers from 0.
        label_names: The name of each label.
        names: The name of each latent.
        num_latents: The most latents, those that are on in most data.
        num_data: The strongest data of each latent, by the magnitude of the code.
        num_neighbors: The most similar atoms, and the latents that fire together, of each latent.

    Returns: The page, to be written with ``encoding="utf-8"``.
    Raises: ValueError if tables do not fit each other, or a number is below 1.
    """
    import jinja2
    from markupsafe import Markup

    page = _Page(features, image_shape, columns, labels, label_names, names, num_data, num_neighbors)
    for name, value in (("num_latents", num_latents), ("num_data", num_data), ("num_neighbors", num_neighbors)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = ((TEMPLATES / f"features.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    return environment.get_template("features.html").render(
        title=title,
        facts=facts or {},
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        summary=page.summary(),
        latents=page.latents(num_latents),
        page=page,
    )


class _Page:
    """What the template reads: numbers as texts, pictures as data URIs."""

    def __init__(
        self,
        features: LatentFeatures,
        image_shape: ImageShape,
        columns: Sequence[str] | None,
        labels: Tensor | None,
        label_names: Sequence[str] | None,
        names: Sequence[str] | None,
        num_data: int,
        num_neighbors: int,
    ) -> None:
        self.features, self.num_data, self.num_neighbors = features, num_data, num_neighbors
        self.z, self.atoms = features.codes.detach().cpu(), features.atoms.detach().float().cpu().flatten(1)
        self.x = features.data.detach().float().cpu().flatten(1)
        self.counts = supports(self.z)
        (self.num, self.dim), width = self.z.shape, self.x.shape[1]
        self.pictures = image_shape is not None and is_picture(image_shape)
        self.shape = image_shape
        for name, given, expected, what in (
            ("data", len(self.x), self.num, "rows, one for each code"),
            ("atoms", self.atoms.shape[0], self.dim, "rows, one for each latent"),
            ("atoms", self.atoms.shape[1], width, "numbers in each row, as the data"),
            ("image_shape", math.prod(image_shape or (width,)), width, "numbers in all"),
            ("columns", width if columns is None else len(columns), width, "names, one for each number of a datum"),
            ("labels", self.num if labels is None else len(labels), self.num, "numbers, one for each datum"),
            ("names", self.dim if names is None else len(names), self.dim, "names, one for each latent"),
        ):
            if given != expected:
                raise ValueError(f"{name} must have {expected} {what}, got {given}")
        self.labels = None if labels is None else labels.cpu().long()
        self.label_names = label_names
        if self.labels is not None and label_names is not None and int(self.labels.max()) >= len(label_names):
            raise ValueError(f"label_names must have {int(self.labels.max()) + 1} names, got {len(label_names)}")
        self.names = names or [f"latent {j}" for j in range(self.dim)]
        self.short = names or [str(j) for j in range(self.dim)]  # in a list of latents
        self.columns = columns or [f"column {i}" for i in range(width)]
        self.strength = features.strength.tolist()

    def summary(self) -> dict[str, Any]:
        """The head: numbers by name, and the histograms of all latents."""
        l0, density = self.counts.l0, self.counts.density
        numbers = [
            ("latents", f"{self.dim:,}"),
            ("data", f"{self.num:,}"),
            ("mean L0", f"{l0.double().mean():.2f}"),
            ("dead latents", f"{self.counts.dead:,}"),
            ("dense latents", f"{self.counts.dense:,}"),
            ("always on", f"{self.counts.always_on:.1%}"),
        ]
        if self.num > 1:
            variety = support_variety(self.z)
            numbers += [
                ("distinct supports", f"{variety.num_supports:,}"),
                ("Jaccard distance of supports", f"{variety.jaccard:.2f}"),
            ]
        alive = density[density > 0].clamp(min=DEAD).log10()
        low = math.log10(1 / self.num)
        width = max(1, -(-(int(l0.max()) - int(l0.min()) + 1) // 40))  # codes of so many values of L0 in one bar
        values = (l0 - l0.min()) // width
        return {
            "numbers": numbers,
            "l0": {
                "path": bars(values.bincount().tolist()),
                "num": int(values.max()) + 1,
                "ends": (str(l0.min().item()), str(l0.max().item())),
                "text": f"mean {l0.double().mean():.2f}, median {int(l0.median())}, from {l0.min()} to {l0.max()}",
            },
            "density": {
                "path": bars(alive.float().histc(BINS, low, 0.0).tolist() if low < 0 and len(alive) else []),
                "num": BINS,
                "ends": (f"{1 / self.num:.2g}", "1"),
                "text": f"{len(alive):,} latents are on in some datum, {self.dim - len(alive):,} in none",
            },
        }

    def latents(self, most: int) -> Iterator[dict[str, Any]]:
        """The latents that are on in most data, those first."""
        order = self.counts.density.argsort(descending=True, stable=True)[:most].tolist()
        self.shown = set(order)
        self._prepare_pictures(len(order))
        similar = co = None
        if self.dim > 1:
            similar, co = similar_atoms(self.atoms, self.num_neighbors), co_firing(self.z, self.num_neighbors)
        return (self._latent(j, similar, co) for j in order)

    def _latent(self, j: int, similar: Neighbors | None, together: Neighbors | None) -> dict[str, Any]:
        density = self.counts.density[j].item()
        atom = self._atom(j)
        return {
            "id": j,
            "name": self.names[j],
            "state": "dead" if density < DEAD else "dense" if density > DENSE else "",
            "density": density,
            "num_on": int((self.z[:, j] != 0).sum()),
            "strength": self.strength[j],
            "atom": atom,
            "histogram": self._histogram(j),
            "data": self._data(j, atom),
            "labels": self._labels(j),
            "similar": self._neighbors(similar, j),
            "together": [pair for pair in self._neighbors(together, j) if pair["score"] > 0],
            "calibration": self._calibration(j),
        }

    def number(self, value: float) -> str:
        """Three digits, with a sign of its own."""
        text = f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:#.3g}".rstrip(".")
        return text.replace("-", "\N{MINUS SIGN}")

    def share(self, value: float) -> str:
        """Per cent, with up to three digits."""
        return f"{100 * value:.3g}%"

    def searched(self) -> list[str]:
        """What the search looks at."""
        kinds = {"number": True, "name": True, "column": not self.pictures, "label": self.labels is not None}
        return [kind for kind, is_there in kinds.items() if is_there]

    def label_name(self, label: int) -> str:
        return str(label) if self.label_names is None else self.label_names[label]

    def _prepare_pictures(self, num: int) -> None:
        if not self.pictures:
            return
        x, atoms = (table.reshape(-1, *self.shape) for table in (self.x, self.atoms))  # type: ignore[misc]
        full = x.shape[2:]
        self.images, self.atom_images = (reduced(t, num * (self.num_data + 1), MAX_BYTES) for t in (x, atoms))
        self.was_reduced = None if full == self.images.shape[2:] else (tuple(full), tuple(self.images.shape[2:]))
        finite = x[torch.isfinite(x)]
        self.ends = min(0.0, float(finite.min())), max(1.0, float(finite.max()))

    def _strongest(self, j: int) -> list[int]:
        """The rows of largest codes, without those that are off."""
        size = self.z[:, j].abs()
        rows = size.topk(min(self.num_data, self.num)).indices
        return rows[size[rows] > 0].tolist()

    def _atom(self, j: int) -> dict[str, Any]:
        atom = self.atoms[j]
        limit = float(atom.abs().max()) or 1.0
        if self.pictures:
            return {"source": picture_row(self.atom_images[j : j + 1], -limit, limit, SIGNED), "limit": limit}
        order = atom.abs().argsort(descending=True, stable=True)[:NUM_COLUMNS].tolist()
        return {
            "columns": [
                {"name": self.columns[i], "weight": float(atom[i]), "width": round(50 * abs(float(atom[i])) / limit)}
                for i in order
            ],
            "order": order,
        }

    def _data(self, j: int, atom: dict[str, Any]) -> dict[str, Any]:
        rows = self._strongest(j)
        items: list[dict[str, Any]] = [{"row": n, "code": float(self.z[n, j]), "label": self._label(n)} for n in rows]
        if self.pictures:
            return {"source": picture_row(self.images[rows], *self.ends) if rows else None, "items": items}
        for item in items:
            values = self.x[item["row"], atom["order"]].tolist()
            item["values"] = [None if math.isnan(value) else value for value in values]
        return {"items": items}

    def _histogram(self, j: int) -> dict[str, Any] | None:
        on = self.z[:, j][self.z[:, j] != 0].float()
        if not len(on):
            return None
        low, high = float(on.min()), float(on.max())
        counts = on.histc(BINS, low, high) if high > low else torch.tensor([float(len(on))])
        return {
            "path": bars(counts.tolist()),
            "num": len(counts),
            "low": low,
            "high": high,
            "median": float(on.median()),
        }

    def _label(self, n: int) -> str | None:
        return None if self.labels is None else self.label_name(int(self.labels[n]))

    def _labels(self, j: int) -> list[dict[str, Any]]:
        """The labels of the data in which a latent is on, the most frequent first."""
        if self.labels is None or not bool((on := self.z[:, j] != 0).any()):
            return []
        found, counts = self.labels[on].unique(return_counts=True)
        order = counts.argsort(descending=True, stable=True)[:NUM_LABELS]
        share = counts / counts.sum()
        return [{"name": self.label_name(int(found[i])), "share": float(share[i])} for i in order.tolist()]

    def _neighbors(self, near: Neighbors | None, j: int) -> list[dict[str, Any]]:
        if near is None:
            return []
        pairs = zip(near.latents[j].tolist(), near.score[j].tolist(), strict=True)
        return [
            {"id": i, "name": self.names[i], "short": self.short[i], "score": score, "shown": i in self.shown}
            for i, score in pairs
        ]

    def _calibration(self, j: int) -> dict[str, Any] | None:
        """Points of predicted against observed P(on), 100 by 100, their areas the counts."""
        found = self.features.reliability
        if found is None:
            return None
        some = found.counts[j] > 0
        table = torch.stack([found.predicted[j], found.observed[j], found.counts[j].double() / found.counts[j].sum()])
        points = [
            {"x": round(100 * p, 1), "y": round(100 - 100 * o, 1), "r": round(2 + 6 * math.sqrt(c), 1)}
            for p, o, c in table[:, some].T.tolist()
        ]
        return {"points": points, "error": float(found.error[j]), "chance": float(found.error_by_chance[j])}
