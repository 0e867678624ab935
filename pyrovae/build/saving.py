"""A model to and from a folder: ``model.safetensors`` and ``config.json``."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, TypeVar, overload

import safetensors.torch
import torch
from torch import Tensor, nn

from pyrovae.build.assembly import build_vae
from pyrovae.vae import VAE

__all__ = ["load", "read_config", "save"]

Module = TypeVar("Module", bound=nn.Module)


def save(vae: nn.Module, folder: str | Path, **sections: Any) -> None:
    """Write ``model.safetensors`` and ``config.json``; each file appears whole or not at all.

    Args:
        vae: Any VAE, GAN or adversarial autoencoder. One that ``build_vae`` did not make, or made with a function for
            ``corrupt``, is saved without the means to build it again.
        folder: Made when absent.
        sections: More to keep in ``config.json``, by name; JSON values.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as partial:
        (Path(partial) / "model.safetensors").write_bytes(safetensors.torch.save(_unshared(vae.state_dict())))
        (Path(partial) / "config.json").write_text(
            json.dumps({"model": getattr(vae, "config", None), **sections}, indent=2) + "\n"
        )
        for name in ("model.safetensors", "config.json"):
            os.replace(Path(partial) / name, folder / name)


@overload
def load(folder: str | Path, vae: None = None) -> VAE: ...
@overload
def load(folder: str | Path, vae: Module) -> Module: ...
def load(folder: str | Path, vae: nn.Module | None = None) -> nn.Module:
    """The model that :func:`save` wrote.

    Args:
        folder: Holds ``model.safetensors`` and ``config.json``.
        vae: One of the same parts to load into; needed when the saved one was not made by ``build_vae`` from names.

    Raises: FileNotFoundError, or ValueError when a file is cut short, foreign or of another model.
    """
    folder = Path(folder)
    path = folder / "model.safetensors"
    if vae is None:
        config = read_config(folder)["model"]
        if config is None:
            raise ValueError(
                f"{str(folder)!r} holds a model of parts made by hand: build it and pass it, load(folder, vae=...)"
            )
        try:
            vae = build_vae(**config, inputs=_unread_inputs(config))
        except TypeError as error:
            raise ValueError(f"config.json in {str(folder)!r} is not of this pyrovae: {error}") from error
    if not path.is_file():
        raise FileNotFoundError(f"there is no model.safetensors in {str(folder)!r}")
    try:
        tensors = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is cut short or not a model: {error}") from error
    _check_tensors(path, vae, tensors)
    vae.to(next((t.dtype for t in tensors.values() if t.is_floating_point()), None))
    vae.load_state_dict(tensors, strict=False)  # tensors that two names share are saved once
    return vae


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor once, under its first name: modules may share one, and the file format may not."""
    names: dict[int, str] = {}
    for name, tensor in tensors.items():
        names.setdefault(tensor.data_ptr(), name)
    return {name: tensors[name].contiguous() for name in names.values()}


def read_config(folder: str | Path) -> dict[str, Any]:
    """``config.json`` of a run; FileNotFoundError or ValueError when it is not one."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"there is no run in {str(folder)!r}: it has no config.json")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is cut short or not JSON: {error}") from error
    if isinstance(config, dict) and "compare" in config and "model" not in config:
        names = sorted(run.parent.name for run in path.parent.glob("*/config.json"))
        raise ValueError(f"{str(folder)!r} is a comparison: choose one of its runs, {', '.join(names)}")
    if not isinstance(config, dict) or "model" not in config:
        raise ValueError(f"{str(path)!r} is not the config of a pyrovae run")
    return config


def _check_tensors(path: Path, vae: nn.Module, tensors: dict[str, Tensor]) -> None:
    own = vae.state_dict()
    shared = {t.data_ptr() for name, t in own.items() if name in tensors}
    missing = [name for name, t in own.items() if name not in tensors and t.data_ptr() not in shared]
    foreign = [name for name in tensors if name not in own]
    if missing or foreign:
        raise ValueError(f"{str(path)!r} is of another model: it lacks {missing[:3]} and has {foreign[:3]}")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise ValueError(
                f"{str(path)!r} is of another model: {name} has shape {tuple(tensor.shape)}, "
                f"not {tuple(own[name].shape)}"
            )


def _unread_inputs(config: dict[str, Any]) -> Tensor | None:
    """What the pseudo-inputs start at before the saved ones are loaded."""
    if str(config.get("prior")).partition(":")[0] != "vamp":
        return None
    return torch.zeros(config.get("num_components") or 0, *config.get("event_shape", ()))
