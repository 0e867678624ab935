"""What a run is refused for before its first step. Nothing here changes anything."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral

import pyro
import torch
from pyro.infer import ELBO as PyroELBO
from pyro.infer import JitTraceMeanField_ELBO
from torch import Tensor, nn

from pyrovae import guards
from pyrovae.data.loading import Loader
from pyrovae.likelihoods import Likelihood
from pyrovae.optim import Scheduled, follows_validation, takes_whole_set
from pyrovae.optim.numbers import positive
from pyrovae.rows import Rows, check_rows, data_of, tensors
from pyrovae.schema import check, number, optional, whole
from pyrovae.train.callbacks import BestWeights, Callback, EarlyStopping, Schedules
from pyrovae.train.checkpoints import Checkpoint
from pyrovae.train.progress import Progress
from pyrovae.train.trainer import Model, Optim, Trainer, functions_of
from pyrovae.vae import VAE

__all__ = [
    "check_arguments",
    "check_callbacks",
    "check_data",
    "check_model",
    "check_optim",
    "check_processes",
    "check_values",
    "num_tensors",
]


def seed(value: object) -> str | None:
    """The kind of a seed, which may be negative."""
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    return None if value is None or is_whole else "a whole number or None"


KINDS = {
    "epochs": whole(1),
    "patience": optional(whole(1)),
    "seed": seed,
    "clip_norm": optional(number(0, expected="positive")),
}


def check_arguments(**given: object) -> None:
    """Refuse arguments of ``fit`` of a wrong kind, each by its name."""
    for name, kind in KINDS.items():
        check(name, given[name], kind)
    callbacks, out = given["callbacks"], given["out"]
    if not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks must be a list, got {type(callbacks).__name__}: callbacks=[...]")
    if not isinstance(out, str | os.PathLike | None):
        raise TypeError(f"out must be the path of a folder, got {out!r}")


def check_model(vae: Model) -> None:
    """Refuse what cannot be trained, or not within ``torch.no_grad``."""
    if not torch.is_grad_enabled():  # False in inference_mode too
        raise ValueError("fit needs gradients: call it outside of torch.no_grad() and torch.inference_mode()")
    functions = vae if isinstance(vae, tuple) else (getattr(vae, "model", None), getattr(vae, "guide", None))
    if not hasattr(vae, "trainer") and not (len(functions) == 2 and all(map(callable, functions))):
        raise TypeError(f"vae must be a VAE, or a pair (model, guide) of functions, got {type(vae).__name__}")
    if isinstance(vae, nn.Module):
        parameters = list(vae.parameters())
        if not any(parameter.requires_grad for parameter in parameters):
            raise ValueError("vae has no parameter to train: call requires_grad_(True) on the parts to be trained")
        if len(devices := sorted({str(parameter.device) for parameter in parameters})) > 1:
            raise ValueError(f"vae has parameters on {' and '.join(devices)}: move all to one device, vae.to(device)")
        if any(parameter.is_inference() for parameter in parameters):
            raise ValueError("vae was made within torch.inference_mode(), and cannot be trained: make it outside")


def check_optim(vae: Model, optim: Optim, loss: object, data: Loader, validated: bool) -> None:
    """Refuse optimizers and losses that Pyro gets wrong, and those that do not suit the data."""
    if not hasattr(vae, "trainer") and not isinstance(optim, pyro.optim.PyroOptim | None):
        raise TypeError(
            f"optim must be a pyro.optim optimizer, such as pyrovae.optim.adam(), got {type(optim).__name__}"
        )
    is_loss = loss is None or isinstance(loss, PyroELBO) or (callable(loss) and not isinstance(loss, type))
    if not is_loss and not hasattr(vae, "trainer"):
        got = f"the class {loss.__name__}: call it" if isinstance(loss, type) else repr(loss)
        raise TypeError(f"loss must be an objective, such as pyrovae.ELBO(), got {got}")
    for each in optim if isinstance(optim, tuple) else (optim,):
        args, clips = getattr(each, "pt_optim_args", None), getattr(each, "pt_clip_args", None)
        if isinstance(args, dict) and args.get("lr") is not None and not isinstance(each, Scheduled):
            rate = args["lr"].item() if isinstance(args["lr"], Tensor) else args["lr"]
            positive(**{"optim: the learning rate": rate})
        if isinstance(clips, dict) and "clip_norm" in clips:
            raise ValueError(
                "optim: Pyro's clip_norm clips each tensor by itself, which turns the gradient: use fit(clip_norm=...)"
            )
        if follows_validation(each) and not validated and not hasattr(vae, "trainer"):
            raise ValueError("optim: its learning rate follows the validation loss, and there are no validation data")
        if takes_whole_set(each) and not data.is_set:
            raise ValueError("optim: gd takes the whole set at each step, and data come in batches: sgd takes these")
        if takes_whole_set(each) and data.num_batches > 1:
            raise ValueError(f"optim: gd takes the whole set at each step: batch_size=None, got {data.batch_size}")
    if isinstance(loss, JitTraceMeanField_ELBO):
        raise ValueError("loss: JitTraceMeanField_ELBO traces anew at every step: use TraceMeanField_ELBO")


def check_processes(vae: Model, data: Loader) -> None:
    """Refuse models whose losses of shares do not add up, and a last batch with fewer rows than processes."""
    if data.processes is None:
        return
    if not isinstance(vae, VAE):
        raise TypeError(
            f"vae must be a VAE where several processes train it, got {type(vae).__name__}: the losses of the shares "
            f"of a batch must add up to the loss of the batch, and of other models that is not known"
        )
    last, num = data.size_of(math.ceil(data.num_batches) - 1), data.processes.size
    if last < num:
        raise ValueError(
            f"batch_size: the last batch of {data.num_rows:.0f} rows in batches of {data.batch_size} has {last}, fewer "
            f"than the {num} processes: choose another batch size"
        )


def check_callbacks(
    callbacks: Sequence[Callback], trainer: Trainer, epochs: int, data: Loader, validated: bool
) -> None:
    """Refuse two callbacks of one kind, early stopping without validation, and schedules longer than the run."""
    for kind in (BestWeights, Checkpoint, EarlyStopping, Progress, Schedules):
        if sum(isinstance(each, kind) for each in callbacks) > 1:
            raise ValueError(
                f"callbacks: two {kind.__name__} are given, one of them perhaps by patience= or out=: give one"
            )
    if any(isinstance(each, EarlyStopping) for each in callbacks):
        if not getattr(trainer, "comparable", True):
            raise ValueError("patience is not for a GAN or an adversarial autoencoder, whose losses cannot be compared")
        if not validated:
            raise ValueError("patience must be at least 1, with validation data, and there are none: give val=")
    for what, schedule in (pair for each in callbacks if isinstance(each, Schedules) for pair in each.named):
        if epochs < Schedules.end(schedule, data.num_batches) < float("inf"):
            raise ValueError(
                f"{what} ends at {schedule.end:g} {schedule.unit}, after the run, which has {epochs} epochs: shorten "
                f"the schedule or train longer"
            )


def check_data(name: str, vae: Model, trainer: Trainer, loader: Loader) -> None:
    """Refuse more or fewer tensors than model and guide take, another ``num_data``, and values outside the support."""
    x = loader.known
    if x is None:
        return
    check_rows(name, x)
    functions = functions_of(vae)
    named = {"trainer": trainer.step} if functions is None else {"model": functions[0], "guide": functions[1]}
    guards.check_arguments(name, tensors(x), **named)
    if name == "data" and isinstance(vae, VAE) and hasattr(vae.prior, "shared") and loader.num_rows != vae.num_data:
        rows = f"the training data have {loader.num_rows:.0f} rows"
        raise ValueError(f"num_data of the VAE is {vae.num_data}, and {rows}: set it")
    check_values(vae, x if loader.transform is None else (loader.transform(data_of(x)), *tensors(x)[1:]))


def check_values(vae: Model, x: Rows) -> None:
    """Refuse no rows, values that the likelihood has no density for, wrong labels, and codes that are NaN."""
    data, *others = tensors(x)
    if len(data) == 0:
        raise ValueError("data has no rows")
    if isinstance(likelihood := getattr(vae, "likelihood", None), Likelihood):
        likelihood.check(data)
    if isinstance(vae, VAE) and vae.num_labels:
        guards.check_labels(next(iter(others), None), vae.num_labels, len(data))
    if isinstance(vae, VAE) and hasattr(vae.posterior, "encode") and bool(data.isnan().any()):
        with_holes = data.isnan().reshape(len(data), -1).any(1)  # missing values, which the likelihood accepts
        with pyro.validation_enabled(False):
            code = vae.encode(*(rows[with_holes][:1] for rows in tensors(x)))
        if bool(code.isnan().any()):
            raise ValueError("guide: its code is NaN where the data are: nn.Filled(encoder) reads a constant there")


def num_tensors(vae: Model) -> int:
    """The number of tensors per datum that model and guide are called with."""
    if getattr(vae, "num_labels", 0):
        return 2
    return max([1, *map(_num_required, functions_of(vae) or ())])


def _num_required(function: Callable[..., object]) -> int:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = guards.signature(function).parameters.values()
    return sum(p.kind in positional and p.default is p.empty for p in parameters)
