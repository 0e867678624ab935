"""What a run trains, on which data and how: a run is only resumed by a call that trains the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.utils.data import Dataset

from pyrovae.data.loading import Loader
from pyrovae.data.on_disk import OnDisk
from pyrovae.data.synthetic import Stream
from pyrovae.rows import is_rows, tensors
from pyrovae.train.descriptions import content, digest, optimizer_text, shapes_of, text_of
from pyrovae.train.trainer import Model, Optim

if TYPE_CHECKING:
    from pyrovae.train.run import Run

__all__ = ["check_identity", "identity"]

NUMBERS = ("num_data", "num_labels", "weight")  # of a model, that its loss is computed with


def identity(run: Run, optim: Optim, loss: object) -> dict[str, str]:
    """A text for each part of a run that must stay the same, by the name that an error gives to the part."""
    parts = {
        "model": _model(run.vae),
        "data": _data(run.data),
        "validation data": "none" if run.val is None else _data(run.val),
        "batch size": str(run.data.batch_size),
        "optimizer": " and ".join(map(optimizer_text, optim if isinstance(optim, tuple) else (optim,))),
        "loss": text_of(loss),
        "clip_norm": str(getattr(run.trainer, "clip_norm", None)),
        "precision": str(getattr(run.trainer, "precision", None)),
    }
    return {name: text if len(text) <= 100 else f"{text[:60]}... {digest(text)}" for name, text in parts.items()}


def check_identity(saved: dict[str, str], now: dict[str, str], folder: object) -> None:
    """Refuse to resume a run that another call began, with the part that differs."""
    for name, text in now.items():
        if saved.get(name) != text:
            raise ValueError(
                f"resume: the run in {str(folder)!r} has another {name}, {saved.get(name)}, and this call has {text}: "
                f"choose another folder, or give what the run was begun with"
            )


def _model(vae: Model) -> str:
    if not isinstance(vae, nn.Module):
        return " and ".join(map(text_of, vae)) if isinstance(vae, tuple) else text_of(vae)
    numbers = {name: getattr(vae, name, None) for name in NUMBERS}
    layers, config = repr(vae), repr(getattr(vae, "config", None))
    return f"{type(vae).__name__} {digest(layers, shapes_of(vae), config, text_of(numbers))}"


def _data(loader: Loader) -> str:
    data = loader.data
    transform = "" if loader.transform is None else f", transformed by {text_of(loader.transform)}"
    if is_rows(data):
        shapes = " and ".join(str(tuple(x.shape)) for x in tensors(data))
        return f"{shapes} {digest(*(part for x in tensors(data) for part in content(x)))}{transform}"
    if isinstance(data, OnDisk):
        order = f"in blocks of {data.block_rows} and buffers of {data.buffer_rows}"
        return f"{data.shape} {data.fingerprint()[:12]} on the disk, {order}{transform}"
    if isinstance(data, Stream):
        return f"stream {digest(repr(data))}{transform}"
    rows = f" of {loader.num_rows:.0f} rows" if loader.num_rows < float("inf") else ""
    kind = getattr(data, "dataset", data)
    return f"{type(kind).__name__ if isinstance(kind, Dataset) else type(data).__name__}{rows}{transform}"
