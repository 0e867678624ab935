"""``--log tensorboard``, ``--log wandb:project``, ``--log mlflow:experiment``: the loggers of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from pyrovae.places import EVENTS
from pyrovae.train import Logger, MLflow, TensorBoard, WandB

__all__ = ["log_option", "loggers"]


def loggers(texts: Sequence[str], folder: Path, name: str, config: Mapping[str, object]) -> list[Logger]:
    """The loggers of a run in ``folder``, which they know by its name.

    Raises: ValueError for another text; ImportError where a package is missing.
    """
    made: list[Logger] = []
    for text in texts:
        kind, _, where = text.partition(":")
        if kind == "tensorboard" and not where:
            made.append(TensorBoard(folder / EVENTS, config=config))
        elif kind == "wandb" and where:
            made.append(WandB(where, config=config, name=name))
        elif kind == "mlflow" and where:
            made.append(MLflow(where, config=config, name=name))
        else:
            raise ValueError(f"--log must be tensorboard, wandb:PROJECT or mlflow:EXPERIMENT, got {text!r}")
    return made


def _checked(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> list[str]:
    """Before anything is read or made."""
    loggers(texts, Path(), "", {})
    return list(dict.fromkeys(texts))


log_option = click.option(
    "--log",
    multiple=True,
    callback=_checked,
    help="tensorboard (into the folder of the run), wandb:PROJECT or mlflow:EXPERIMENT; may be repeated.",
)
