"""What a run trains, on which data and how: a run is only resumed by a call that trains the same."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from pyro.optim import PyroOptim
from torch import Tensor, nn
from torch.utils.data import Dataset

from pyrovae.data.loading import Loader
from pyrovae.objectives import Schedule
from pyrovae.rows import is_rows, tensors
from pyrovae.train.trainer import Model, Optim

if TYPE_CHECKING:
    from pyrovae.train.run import Run

__all__ = ["check_identity", "identity"]

MOST_BYTES = 1 << 28  # of a tensor that is hashed whole; of a larger one as many bytes of rows, evenly spaced


def identity(run: Run, optim: Optim, loss: object) -> dict[str, str]:
    """A text for each part of a run that must stay the same, by the name that an error gives to the part."""
    parts = {
        "model": _model(run.vae),
        "data": _data(run.data),
        "validation data": "none" if run.val is None else _data(run.val),
        "batch size": str(run.data.batch_size),
        "optimizer": " and ".join(map(_optimizer, optim if isinstance(optim, tuple) else (optim,))),
        "loss": _text(loss),
        "clip_norm": str(getattr(run.trainer, "clip_norm", None)),
        "precision": str(getattr(run.trainer, "precision", None)),
    }
    return {name: text if len(text) <= 100 else f"{text[:60]}... {_digest(text)}" for name, text in parts.items()}


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
        return " and ".join(map(_text, vae)) if isinstance(vae, tuple) else _text(vae)
    shapes = {name: (tuple(x.shape), str(x.dtype)) for name, x in vae.state_dict().items() if isinstance(x, Tensor)}
    return f"{type(vae).__name__} {_digest(_text(vae), repr(shapes), repr(getattr(vae, 'config', None)))}"


def _data(loader: Loader) -> str:
    data = loader.data
    transform = "" if loader.transform is None else f", transformed by {_text(loader.transform)}"
    if is_rows(data):
        shapes = " and ".join(str(tuple(x.shape)) for x in tensors(data))
        return f"{shapes} {_digest(*(part for x in tensors(data) for part in _content(x)))}{transform}"
    rows = f" of {loader.num_rows:.0f} rows" if loader.num_rows < float("inf") else ""
    kind = getattr(data, "dataset", data)
    return f"{type(kind).__name__ if isinstance(kind, Dataset) else type(data).__name__}{rows}{transform}"


def _content(x: Tensor) -> Iterator[bytes]:
    yield f"{x.dtype} {tuple(x.shape)}".encode()
    row_bytes = max(x[:1].numel() * x.element_size(), 1)
    step = max(1, -(-len(x) * row_bytes // MOST_BYTES))
    some = x.detach()[::step].cpu().contiguous()
    yield bytes(some.reshape(-1).view(torch.uint8).numpy().data)


def _optimizer(optim: PyroOptim | None) -> str:
    if optim is None:
        return "none given"
    if not isinstance(optim, PyroOptim):
        return _text(optim)
    names = [
        type(optim).__name__,
        getattr(optim.pt_optim_constructor, "__name__", "optimizer"),
        _schedule(getattr(optim, "schedule", None)),
        _text({name: value for name, value in _arguments(optim).items() if name != "lr" or not hasattr(optim, "done")}),
        _text(getattr(optim, "pt_scheduler_constructor", None)),
        _text(getattr(optim, "kwargs", None)),
    ]
    return " ".join(name for name in names if name not in ("None", "PyroOptim"))


def _schedule(schedule: Schedule | None) -> str:
    """Some values of a schedule: the function that it calls has no text of its own."""
    if schedule is None:
        return "None"
    end = schedule.end if math.isfinite(schedule.end) else 1000.0
    return f"lr {[float(f'{schedule(share * end):.6g}') for share in (0.0, 0.1, 0.5, 1.0)]} in {schedule.unit}"


def _arguments(optim: PyroOptim) -> dict[str, Any]:
    return optim.pt_optim_args if isinstance(optim.pt_optim_args, dict) else {"by": _text(optim.pt_optim_args)}


def _text(value: object) -> str:
    """The text of a value, without addresses in memory, which differ in another process."""
    name = getattr(value, "__qualname__", None)
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value)) if name is None else f"{name}"


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()[:12]
