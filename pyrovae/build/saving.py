"""A model to and from a folder: ``model.safetensors`` and ``config.json``, which are data and never code."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

import pyro
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn

from pyrovae import guards
from pyrovae.build.assembly import build_vae
from pyrovae.build.config import FORMAT, Trust, check_hash, check_trust, digest, read_config
from pyrovae.files import check_regular, write_together
from pyrovae.vae import VAE

__all__ = ["load", "save"]

Module = TypeVar("Module", bound=nn.Module)
FLOW_NUMBERS = 40  # a flow of D coordinates has more than 40 D² numbers
DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}


def save(vae: nn.Module, folder: str | Path, **sections: Any) -> None:
    """Write ``model.safetensors`` and ``config.json``; each file appears whole or not at all.

    ``config.json`` has the version of its format, and a sha256 of the weights, of its section ``model`` and of its
    section ``data`` without the keys ``name`` and ``data_dir``, by which :func:`load` notices damage.

    Args:
        vae: Any VAE, GAN or adversarial autoencoder. One that ``build_vae`` did not make, or made with a function for
            ``corrupt``, is saved without the means to build it again.
        folder: Made when absent.
        sections: More to keep in ``config.json``, by name; JSON values, whose numbers are finite.

    Raises: ValueError for a section that is not JSON; OSError that names the file.
    """
    folder = Path(folder)
    for name in ("format", "sha256", "model"):
        if name in sections:
            raise ValueError(f"sections: {name!r} is written by save itself: take another name")
    tensors = _unshared(vae.state_dict(keep_vars=True))
    config = {"format": FORMAT, "sha256": "", "model": getattr(vae, "config", None), **sections}
    try:
        config["sha256"] = digest(config, tensors)
        text = json.dumps(config, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"sections must be JSON values with finite numbers: {error}") from error
    folder.mkdir(parents=True, exist_ok=True)
    write_together(
        {folder / "model.safetensors": safetensors.torch.save(tensors), folder / "config.json": text.encode()}
    )


@overload
def load(folder: str | Path, vae: None = None, *, trust: Trust = False) -> VAE: ...
@overload
def load(folder: str | Path, vae: Module, *, trust: Trust = False) -> Module: ...
def load(folder: str | Path, vae: nn.Module | None = None, *, trust: Trust = False) -> nn.Module:
    """The model that :func:`save` wrote. Names in the files are looked up in pyrovae's own tables.

    Sizes and dtypes of the weights are compared with those of the model before memory is taken for either.

    Args:
        folder: Holds ``model.safetensors`` and ``config.json``.
        vae: One of the same parts to load into; needed when the saved one was not made by ``build_vae`` from names.
        trust: Whether parts of your own, ``"mymodule.MyPrior"``, are imported when ``config.json`` names them: True, or
            a list of names of modules, or of the classes themselves. Importing a module runs its code.

    Raises: FileNotFoundError, or ValueError of one line when a file is cut short, damaged, foreign, of another model or
        of a newer pyrovae, or names a part that is not trusted.
    """
    folder = Path(folder)
    path = folder / "model.safetensors"
    config = read_config(folder)
    section = config["model"]
    if vae is None and section is None:
        raise ValueError(
            f"{str(folder)!r} holds a model of parts made by hand: build it and pass it, load(folder, vae=...)"
        )
    foreign = vae is None and check_trust(folder / "config.json", section, trust)
    if not path.exists():
        raise FileNotFoundError(f"there is no model.safetensors in {str(folder)!r}")
    check_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = {name: _entry(path, name, file.get_slice(name)) for name in file.keys()}  # noqa: SIM118  # no dict
            if vae is None:
                if not foreign:
                    _check_sizes(folder, section, header)
                vae = _built(folder, section)
            _check_header(path, vae, header)
            tensors = {name: file.get_tensor(name) for name in header}
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{str(path)!r} is cut short or not a model: {error}") from error
    check_hash(folder, config, tensors)
    if len(floating := {t.dtype for t in tensors.values() if t.is_floating_point()}) == 1:
        vae.to(floating.pop())
    vae.load_state_dict(tensors, strict=False)  # tensors that two names share are saved once
    return vae


def _identity(tensor: Tensor) -> int:
    """Equal for two names of one tensor; those of the meta device, and empty ones, have no address of their own."""
    return tensor.data_ptr() or id(tensor)


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor once, under its first name: modules may share one, and the file format may not."""
    names: dict[int, str] = {}
    for name, tensor in tensors.items():
        names.setdefault(_identity(tensor), name)
    return {name: tensors[name].detach().contiguous() for name in names.values()}


def _entry(path: Path, name: str, header: Any) -> tuple[tuple[int, ...], torch.dtype]:
    if header.get_dtype() not in DTYPES:
        raise ValueError(f"{str(path)!r} is of another model: {name} has dtype {header.get_dtype()}")
    return tuple(header.get_shape()), DTYPES[header.get_dtype()]


def _check_sizes(folder: Path, section: dict[str, Any], header: dict[str, Any]) -> None:
    """Compare the file with a model that has sizes and no memory."""
    own, path = section, folder / "model.safetensors"
    if str(section.get("prior")).partition(":")[0] == "flow":  # Pyro's couplings cannot be made without memory
        own = {**section, "prior": "normal", "guide": section.get("guide") or "normal"}
        stored = sum(math.prod(shape) for name, (shape, _) in header.items() if name.startswith("prior."))
        if section["latent_dim"] > 1 and stored < FLOW_NUMBERS * section["latent_dim"] ** 2:
            raise ValueError(f"{str(path)!r} is of another model: its flow has {stored} numbers, too few")
        header = {name: entry for name, entry in header.items() if not name.startswith("prior.")}
    with guards.pyro_lock, pyro.validation_enabled(False), torch.device("meta"):
        _check_header(path, _built(folder, own), header, without="prior." if own is not section else None)


def _built(folder: Path, section: dict[str, Any]) -> VAE:
    """The model of a section; whatever is wrong with its values is an error that names the file."""
    try:
        return build_vae(**section, inputs=_unread_inputs(section))
    except Exception as error:  # values of the right kind may still fail in any of the parts
        said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        line = " ".join(said.split())
        raise ValueError(f"{str(folder / 'config.json')!r} has a model that cannot be built: {line}") from error


def _check_header(path: Path, vae: nn.Module, header: dict[str, Any], without: str | None = None) -> None:
    own = {n: t for n, t in vae.state_dict(keep_vars=True).items() if without is None or not n.startswith(without)}
    shared = {_identity(t) for name, t in own.items() if name in header}
    missing = [name for name, t in own.items() if name not in header and _identity(t) not in shared]
    foreign = [name for name in header if name not in own]
    if missing or foreign:
        raise ValueError(f"{str(path)!r} is of another model: it lacks {missing[:3]} and has {foreign[:3]}")
    floating = {dtype for _, dtype in header.values() if dtype.is_floating_point}
    for name, (shape, dtype) in header.items():
        if shape != tuple(own[name].shape):
            raise ValueError(
                f"{str(path)!r} is of another model: {name} has shape {shape}, not {tuple(own[name].shape)}"
            )
        both = dtype.is_floating_point and own[name].is_floating_point() and len(floating) == 1
        if dtype != own[name].dtype and not both:  # a model in float64 is saved and loaded as one
            raise ValueError(f"{str(path)!r} is of another model: {name} is {dtype}, not {own[name].dtype}")


def _unread_inputs(section: Mapping[str, Any]) -> Tensor | None:
    """Rows that the pseudo-inputs of ``"vamp"`` start at before the saved ones are loaded."""
    if str(section.get("prior")).partition(":")[0] != "vamp":
        return None
    return torch.zeros(section.get("num_components") or 0, *section["event_shape"])
