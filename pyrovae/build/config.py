"""``config.json``: what it may hold, and the hash that binds it to the weights beside it."""

from __future__ import annotations

import hashlib
import inspect
import json
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyrovae.build.assembly import KINDS, build_vae
from pyrovae.build.tables import CORRUPTIONS, GUIDES, LIKELIHOODS, MODEL_GUIDES, PRIORS
from pyrovae.files import read_json
from pyrovae.schema import check, check_section, whole

__all__ = ["FORMAT", "Trust", "check_hash", "check_model", "check_trust", "digest", "read_config"]

FORMAT = 1
PLACES = ("name", "data_dir")  # of the data, which may move
TABLES: dict[str, Mapping[str, Any]] = {
    "prior": PRIORS,
    "likelihood": LIKELIHOODS,
    "guide": GUIDES | MODEL_GUIDES,
    "corrupt": CORRUPTIONS,
}
ARGUMENTS = [name for name in inspect.signature(build_vae).parameters if name != "inputs"]

Trust = bool | Collection[str | type | Callable[..., Any]]


def read_config(folder: str | Path) -> dict[str, Any]:
    """``config.json`` of a run, with its format checked and its model section.

    Raises: FileNotFoundError, or ValueError of one line when it is not the config of a run, was written by a newer
        pyrovae, or names a model that cannot be one.
    """
    path = Path(folder) / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"there is no run in {str(folder)!r}: it has no config.json")
    config = read_json(path)
    if isinstance(config, dict) and "compare" in config and "model" not in config:
        names = sorted(run.parent.name for run in path.parent.glob("*/config.json"))
        raise ValueError(f"{str(folder)!r} is a comparison: choose one of its runs, {', '.join(names)}")
    if not isinstance(config, dict) or "model" not in config:
        raise ValueError(f"{str(path)!r} is not the config of a pyrovae run")
    if ("format" in config) != ("sha256" in config):
        lacks = "format" if "sha256" in config else "sha256"
        raise ValueError(f"{str(path)!r} is damaged: it lacks {lacks!r}")
    if "format" in config:
        check(f"{str(path)!r}: format", config["format"], whole(1))
        if config["format"] > FORMAT:
            raise ValueError(
                f"{str(path)!r} has format {config['format']}, and this pyrovae reads format {FORMAT}: update pyrovae"
            )
    if config["model"] is not None:
        check_model(path, config["model"])
    return config


def check_model(path: Path, section: object) -> None:
    """ValueError unless the model section has the arguments of ``build_vae``, each of its kind."""
    kinds = {name: KINDS[name] for name in ARGUMENTS}
    check_section(f"{str(path)!r}: model", section, kinds, required=("event_shape", "latent_dim"))


def check_trust(path: Path, section: Mapping[str, Any], trust: Trust) -> bool:
    """Whether the model section names parts that are not of pyrovae.

    Raises: ValueError if one of them is not trusted; nothing is imported.
    """
    foreign = False
    for what, table in TABLES.items():
        name = str(section.get(what) or "").partition(":")[0]
        if name in table or "." not in name:
            continue
        foreign, module = True, name.rpartition(".")[0]
        if trust is True or any(_covers(item, module, name) for item in trust or ()):
            continue
        raise ValueError(
            f"{str(path)!r} names {what} {name!r}, which is not of pyrovae, and no file decides what is imported: "
            f"if you trust it, load(folder, trust=[{module!r}]), or --trust"
        )
    return foreign


def _covers(trusted: object, module: str, name: str) -> bool:
    """Whether a module's name, or a class or function itself, is that of an import path."""
    if isinstance(trusted, str):
        return module == trusted or module.startswith(f"{trusted}.")
    return name == f"{getattr(trusted, '__module__', '')}.{getattr(trusted, '__qualname__', '')}"


def digest(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """The sha256 of the sections ``model`` and ``data`` (without the places of the data) and of all tensors."""
    data = config.get("data")
    data = {key: value for key, value in data.items() if key not in PLACES} if isinstance(data, dict) else data
    text = json.dumps([config["model"], data], sort_keys=True, allow_nan=False)
    total = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        flat = tensor.reshape(-1)
        if flat.numel() == 1:  # which may have a stride of 0, and counts as contiguous
            flat = flat.clone(memory_format=torch.contiguous_format)
        total.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(flat.view(torch.uint8).numpy().data)
    return total.hexdigest()


def check_hash(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """ValueError unless config and tensors are those that were saved together; a warning where no hash was saved."""
    if "sha256" not in config:
        warnings.warn(
            f"{str(folder)!r} was saved before runs had a hash, so damage cannot be seen: load and save it again",
            stacklevel=3,
        )
    elif config["sha256"] != digest(config, tensors):
        raise ValueError(
            f"{str(folder)!r} is damaged: model.safetensors and the sections model and data of config.json are not "
            f"those that were saved together"
        )
