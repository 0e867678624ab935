"""A run: the folder that ``pyrovae fit`` leaves, each file of it written whole or not at all.

It holds ``config.json``, ``checkpoint.safetensors``, ``model.safetensors``, ``history.csv``, ``metrics.json`` and
``figures/``. A comparison, which
``pyrovae compare`` leaves, is a folder of runs with a ``config.json`` of its own.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae import plots
from pyrovae.build import load, read_config
from pyrovae.data import Data, Standardization, binarized, rows
from pyrovae.files import write_whole
from pyrovae.rows import Rows, data_of, moved
from pyrovae.train import History
from pyrovae.vae import VAE

__all__ = [
    "check_width",
    "data_rows",
    "device",
    "held_out",
    "importing_from_here",
    "load_run",
    "new_file",
    "picture",
    "read_comparison",
    "read_history",
    "save_array",
    "save_bytes",
    "source",
    "standardization",
    "write_figures",
    "write_json",
]


def load_run(run: Path, device_name: str) -> tuple[VAE, dict[str, Any]]:
    with importing_from_here():
        config = read_config(run)
        return load(run).to(device(device_name)), config


def read_history(path: Path) -> History:
    """What ``pyrovae.train.write_history`` wrote."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def read_comparison(folder: Path) -> dict[str, Any]:
    """``config.json`` of a comparison; FileNotFoundError or ValueError when it is not one."""
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"there is no comparison in {str(folder)!r}: it has no config.json")
    config = json.loads(path.read_text())
    if not isinstance(config, dict) or "compare" not in config:
        raise ValueError(f"{str(path)!r} is not the config of a comparison")
    return config


def source(run: Path, config: dict[str, Any]) -> dict[str, Any]:
    """What :func:`pyrovae.data.rows` takes to give the data that a run was trained on, by name."""
    data = config.get("data")
    names = ("name", "data_dir", "binarize", "seed")
    if not isinstance(data, dict) or not set(names) <= set(data):
        raise ValueError(f"run {str(run)!r} does not say what data it was trained on: pyrovae fit did not make it")
    return {**{name: data[name] for name in names}, "missing": bool((config["model"] or {}).get("missing"))}


def standardization(config: dict[str, Any]) -> Standardization | None:
    """What a run's data were standardised by, if they were."""
    saved = (config.get("data") or {}).get("standardization")
    return None if saved is None else Standardization(torch.tensor(saved["loc"]), torch.tensor(saved["scale"]))


def data_rows(run: Path, config: dict[str, Any], data: str | None = None) -> Tensor:
    """Every row of ``data``, or of a run's own data, as its model takes them: binarised or standardised."""
    own = source(run, config)
    x = rows(data or own["name"], own["data_dir"], None, own["seed"], own["missing"])
    check_width(run, config, x)  # before their values
    if own["binarize"] is not None:
        x = binarized(str(data or own["name"]), x, own["seed"])
    standardized = standardization(config)
    return x if standardized is None else standardized(x)


def held_out(vae: VAE, dataset: Data) -> Rows:
    """The test set as the model takes it, with its labels or without, where the model is."""
    return moved(dataset.labelled("test") if vae.num_labels else dataset.test, next(vae.parameters()))


def check_width(run: Path, config: dict[str, Any], x: Tensor) -> None:
    got, expected = x[0].numel(), math.prod(config["model"]["event_shape"])
    if got != expected:
        raise ValueError(f"data has {got} values per row, the model of {str(run)!r} takes {expected}")


def write_figures(folder: Path, vae: VAE, dataset: Data, history: History) -> None:
    """The pictures of a run that was trained, each written whole."""
    folder.mkdir(exist_ok=True)
    x = held_out(vae, dataset)
    write_whole(folder / "loss.png", picture(plots.loss_curves(history)))
    units = dataset.standardization
    figure = plots.reconstructions(vae, x, dataset.image_shape)
    if units is not None:  # one colour scale for all columns
        figure.suptitle("standardised data: multiples of each column's standard deviation", fontsize=8)
    write_whole(folder / "reconstructions.png", picture(figure))
    if not getattr(vae.prior, "improper", False):  # which has no draws
        if dataset.image_shape is None and dataset.test.dim() == 2 and not vae.num_labels:
            own = units.inverse if units is not None else torch.clone
            figure = plots.column_histograms(own(data_of(x)), own(vae.sample(max(len(dataset.test), 1000))))
        else:
            figure = plots.prior_samples(vae, image_shape=dataset.image_shape)
        write_whole(folder / "prior_samples.png", picture(figure))
    write_whole(folder / "codes.png", picture(plots.code_histograms(vae, x)))


def write_json(path: Path, values: dict[str, Any] | list[dict[str, Any]]) -> None:
    """A dictionary or a list of them. JSON knows neither NaN nor infinity: they become null."""
    finite = [_finite(row) for row in values] if isinstance(values, list) else _finite(values)
    write_whole(path, (json.dumps(finite, indent=2, allow_nan=False) + "\n").encode())


def new_file(path: Path, overwrite: bool, suffix: str | None = None) -> Path:
    """``path``, when a file can be written there, of this suffix: asked before the work, not after."""
    if path.exists() and not overwrite:
        raise FileExistsError(f"--out {str(path)!r} exists: choose another file, or --overwrite")
    if path.is_dir() or not path.parent.is_dir():
        raise FileNotFoundError(f"--out {str(path)!r} must be a file in a folder that exists")
    if suffix is not None and path.suffix != suffix:
        raise ValueError(f"--out {str(path)!r} must end in {suffix}, the format that is written")
    return path


def save_array(path: Path, x: Tensor) -> None:
    content = io.BytesIO()
    np.save(content, x.numpy())
    write_whole(path, content.getvalue())


def save_bytes(path: Path, content: bytes) -> None:
    write_whole(path, content)


def picture(figure: Any) -> bytes:
    """A matplotlib ``Figure`` as the content of a ``.png`` file."""
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


@contextmanager
def importing_from_here() -> Iterator[None]:
    """Modules of the working folder can be imported, as under ``python -m``."""
    sys.path.insert(0, os.getcwd())
    try:
        yield
    finally:
        sys.path.remove(os.getcwd())


def device(name: str) -> torch.device:
    try:
        torch.zeros(1, device=name).item()  # a device that exists, and computes: meta does not
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name!r} cannot be used here: {str(error).splitlines()[0]}") from error


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
