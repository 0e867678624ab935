"""A run: the folder that ``pyrovae fit`` leaves, each file of it written whole or not at all.

It holds ``config.json``, ``checkpoint.safetensors``, ``model.safetensors``, ``history.csv``, ``metrics.json`` and
``figures/``. A comparison, which
``pyrovae compare`` leaves, is a folder of runs with a ``config.json`` of its own.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from pyrovae import plots
from pyrovae.build import load, read_config
from pyrovae.data import Data, OnDisk, Standardization, Statistics, binarized, exceeds_memory, rows
from pyrovae.files import read_json, write_whole
from pyrovae.rows import Rows, data_of, moved
from pyrovae.schema import Kind, check_section, flag, listed, number, one_of, optional, text, whole
from pyrovae.train import History
from pyrovae.vae import VAE

__all__ = [
    "check_data",
    "check_width",
    "data_batches",
    "data_rows",
    "device",
    "held_out",
    "importing_from_here",
    "load_run",
    "new_file",
    "on_disk",
    "on_disk_section",
    "picture",
    "read_comparison",
    "read_history",
    "read_run",
    "save_array",
    "save_bytes",
    "save_parts",
    "source",
    "standardization",
    "with_statistics",
    "write_figures",
    "write_json",
]

# the section data of a run's config.json
DATA: dict[str, Kind] = {
    "name": text,
    "data_dir": optional(text),
    "binarize": optional(one_of("static", "dynamic")),
    "seed": whole(0, 2**63 - 1),
    "missing": flag,
    "sha256": optional(text),
    "standardization": lambda value: None if value is None or isinstance(value, dict) else "a dictionary, or None",
    "on_disk": flag,
    "statistics": lambda value: None if value is None or isinstance(value, dict) else "a dictionary, or None",
}
# the section statistics of data on the disk; those of the columns are the section standardization
STATISTICS: dict[str, Kind] = {"low": number(), "high": number(), "binary": flag, "num_missing": whole(0, 2**63 - 1)}


def load_run(run: Path, device_name: str, trust: bool = False) -> tuple[VAE, dict[str, Any]]:
    """The model of a run and its config; parts of the user's own are imported from here only with ``trust``."""
    config = read_run(run)
    with importing_from_here() if trust else nullcontext():
        return load(run, trust=trust).to(device(device_name)), config


def read_run(run: Path) -> dict[str, Any]:
    """``config.json`` of a run, with its sections checked.

    Raises: FileNotFoundError, or ValueError of one line that names the file.
    """
    config, where = read_config(run), repr(str(run / "config.json"))
    if config.get("data") is not None:
        check_section(f"{where}: data", config["data"], DATA, ())
        check_standardization(where, config)
        if config["data"].get("statistics") is not None:
            check_section(f"{where}: statistics", config["data"]["statistics"], STATISTICS, tuple(STATISTICS))
            check_classes(where, config)
    if config.get("fit") is not None and not isinstance(config["fit"], dict):
        raise ValueError(f"{where}: fit must be a dictionary of options, got {type(config['fit']).__name__}")
    return config


def check_standardization(where: str, config: dict[str, Any]) -> None:
    """ValueError unless there is one finite location and one positive scale for each value of a row."""
    saved = config["data"].get("standardization")
    if saved is None:
        return
    kinds = {
        "loc": listed(number(), "finite numbers", sys.maxsize),
        "scale": listed(number(sys.float_info.min), "positive finite numbers", sys.maxsize),
    }
    check_section(f"{where}: standardization", saved, kinds, tuple(kinds))
    width = len(saved["loc"]) if config["model"] is None else math.prod(config["model"]["event_shape"])
    for name, values in saved.items():
        if len(values) != width:
            raise ValueError(f"{where}: standardization: {name} must have {width} numbers, got {len(values)}")


def check_classes(where: str, config: dict[str, Any]) -> None:
    """ValueError where the data have more classes than the model."""
    high, num_classes = config["data"]["statistics"]["high"], (config["model"] or {}).get("num_classes")
    if num_classes is not None and not high < num_classes:
        raise ValueError(f"{where}: statistics: high must be below {num_classes}, the classes of the model, got {high}")


def read_history(path: Path) -> History:
    """What ``pyrovae.train.write_history`` wrote."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def read_comparison(folder: Path) -> dict[str, Any]:
    """``config.json`` of a comparison; FileNotFoundError or ValueError when it is not one."""
    path = folder / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"there is no comparison in {str(folder)!r}: it has no config.json")
    config = read_json(path)
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
    if saved is None:
        return None
    return Standardization(*(torch.tensor(saved[name], dtype=torch.float64) for name in ("loc", "scale")))


def on_disk(config: dict[str, Any]) -> bool:
    """Whether the training data of a run stay on the disk."""
    return bool((config.get("data") or {}).get("on_disk"))


def on_disk_section(dataset: Data) -> dict[str, Any]:
    """What a run says of data that stay on the disk, so that their statistics are measured once."""
    if not isinstance(dataset.train, OnDisk):
        return {}
    statistics = dataset.train.statistics()
    return {"on_disk": True, "statistics": {name: getattr(statistics, name) for name in STATISTICS}}


def with_statistics(dataset: Data, config: dict[str, Any]) -> Data:
    """Data on the disk with the statistics that a run has of them."""
    saved = (config.get("data") or {}).get("statistics")
    if saved is None or not isinstance(dataset.train, OnDisk):
        return dataset
    columns = standardization(config) or Standardization(torch.zeros(1), torch.ones(1))  # the latter is not read
    statistics = Statistics(**{name: saved[name] for name in STATISTICS}, standardization=columns)
    return replace(dataset, train=dataset.train.with_statistics(statistics))


def check_data(run: Path, config: dict[str, Any], dataset: Data) -> None:
    """ValueError where the data, or their splits, are not those that a run was trained on; a run of before may be."""
    saved = config["data"].get("sha256")
    if saved is not None and saved != dataset.sha256():
        raise ValueError(
            f"the data {config['data']['name']!r} are not those that run {str(run)!r} was trained on, so that none of "
            f"them is known to be held out: bring back the file, or train again"
        )


def data_rows(run: Path, config: dict[str, Any], data: str | None = None) -> Tensor:
    """Every row of ``data``, or of a run's own data, as its model takes them: binarised or standardised."""
    own = source(run, config)
    if data is None and on_disk(config):
        raise ValueError(
            f"the data {own['name']!r} of run {str(run)!r} are not held in memory, and this command takes them whole: "
            f"give DATA, a file with some of the rows"
        )
    x = rows(data or own["name"], own["data_dir"], None, own["seed"], own["missing"], dtype=None)
    check_width(run, config, x)  # before their values
    if own["binarize"] is not None:
        x = binarized(str(data or own["name"]), x.float(), own["seed"])
    standardized = standardization(config)
    return (x if standardized is None else standardized(x)).float()


def data_batches(
    run: Path, config: dict[str, Any], data: str | None, size: int, check: Callable[[Tensor], None]
) -> tuple[int, Iterator[Tensor]]:
    """The number of rows of :func:`data_rows`, and the rows in batches; rows on the disk are checked when read."""
    own = source(run, config)
    path = Path(data or own["name"])
    if not (on_disk(config) if data is None else exceeds_memory(path)):
        x = data_rows(run, config, data)
        check(x)
        return len(x), iter(x.split(size))
    stored = OnDisk(path, missing=own["missing"])
    check_width(run, config, stored)
    if (standardized := standardization(config)) is not None:
        stored = stored.standardize(standardized)
    return len(stored), _drawn(stored.batches(size, shuffle=False), own, check)


def _drawn(batches: Iterable[Rows], own: dict[str, Any], check: Callable[[Tensor], None]) -> Iterator[Tensor]:
    """The rows of batches, binarised if those of the run were, and checked."""
    generator = torch.Generator().manual_seed(own["seed"])
    for x in map(data_of, batches):
        drawn = x if own["binarize"] is None else torch.bernoulli(x, generator=generator)
        check(drawn)
        yield drawn


def held_out(vae: VAE, dataset: Data) -> Rows:
    """The test set as the model takes it, with its labels or without, where the model is."""
    return moved(dataset.labelled("test") if vae.num_labels else dataset.test, next(vae.parameters()))


def check_width(run: Path, config: dict[str, Any], x: Tensor | OnDisk) -> None:
    got, expected = math.prod(x.shape[1:]), math.prod(config["model"]["event_shape"])
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
    save_parts(path, len(x), iter([x]))


def save_parts(path: Path, num_rows: int, parts: Iterator[Tensor]) -> None:
    """Tensors of so many rows in all as one ``.npy`` file, without all of them in memory."""
    first = next(parts)
    header = io.BytesIO()
    dtype = np.lib.format.dtype_to_descr(first.numpy().dtype)
    shape = (num_rows, *first.shape[1:])
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    rest = (part.contiguous().numpy().tobytes() for part in itertools.chain([first], parts))
    write_whole(path, itertools.chain([header.getvalue()], rest))


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
    """The device of this name; of ``cuda``, under torchrun, the one that is this process's own."""
    if name == "cuda" and dist.is_available() and dist.is_torchelastic_launched():
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        torch.zeros(1, device=name).item()  # a device that exists, and computes: meta does not
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name!r} cannot be used here: {str(error).splitlines()[0]}") from error


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
