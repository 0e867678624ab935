"""Loggers: the numbers of a run in TensorBoard, Weights & Biases or MLflow, each written by its own package."""

from __future__ import annotations

import math
import secrets
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro.optim import PyroOptim
from torch import nn

from pyrovae.train.callbacks import Callback, Schedules
from pyrovae.train.descriptions import optimizer_text, text_of

if TYPE_CHECKING:
    from pyrovae.train.run import Run

__all__ = ["Logger", "MLflow", "TensorBoard", "WandB"]

Numbers = dict[str, float]
LONGEST = 500  # characters of a value of the configuration
STATUSES = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}  # MLflow's words
EVERY = 5.0  # seconds between two calls of MLflow, each of which takes some 30 ms on SQLite
MOST = 900  # metrics of a call, of which MLflow takes 1000
TAG = "pyrovae.id"  # of a run of MLflow, whose server chooses its id


class Logger(Callback):
    """Logs a run of :func:`~pyrovae.fit`. A subclass writes ``open``, ``log`` and ``close``.

    Logged are the ``loss`` of a step, every so many steps; the row of the history of each epoch; with both, the
    ``learning_rate`` of torch's optimizer, the largest where parameters have several, and the schedules of the
    objective by name, such as ``beta``; once, the configuration of the model and of the run; at the end, ``finished``,
    ``stopped`` or ``failed``. Each number stands at the step, counted from the start of the run.

    A resumed run goes on with the logged run by its ``id``. A run can be resumed with or without a logger. Of several
    processes that train one model the first logs. What fails while a run is trained is one warning, and ends the
    logging instead of the run.

    Args:
        every_steps: Steps between two logged losses, at least 1.
        config: More to log once, by name: numbers and texts, in dictionaries and lists.

    Units: losses in nats per datum.
    """

    def __init__(self, every_steps: int = 50, config: Mapping[str, object] | None = None) -> None:
        if isinstance(every_steps, bool) or not isinstance(every_steps, int) or every_steps < 1:
            raise ValueError(f"every_steps must be a whole number, at least 1, got {every_steps!r}")
        self.every_steps, self.config = every_steps, dict(config or {})
        self.id = secrets.token_hex(8)  # known before the first checkpoint
        self._is_open = self._has_failed = False

    def open(self, run: Run, config: dict[str, str | float]) -> None:
        """Begin the logged run ``self.id``, or go on with it."""
        raise NotImplementedError

    def log(self, numbers: Numbers, step: int) -> None:
        """Log numbers at a step."""
        raise NotImplementedError

    def close(self, status: str) -> None:
        """End the logged run with its status."""
        raise NotImplementedError

    def on_fit_start(self, run: Run) -> None:
        self._is_open = self._has_failed = False

    def on_epoch_start(self, run: Run) -> None:
        is_first = run.processes is None or run.processes.rank == 0
        if is_first and not self._is_open:
            self._is_open = self._try(lambda: self.open(run, _configuration(run, self.config)))

    def on_step_end(self, run: Run) -> None:
        if run.step % self.every_steps == 0 and self._is_open:
            with run.random.put_back():
                self._try(self.log, {"loss": run.loss, **_moving(run)}, run.step)

    def on_epoch_end(self, run: Run) -> None:
        if self._is_open:
            row = {name: column[-1] for name, column in run.history.items() if not math.isnan(column[-1])}
            self._try(self.log, {**row, **_moving(run)}, run.step)

    def on_fit_end(self, run: Run) -> None:
        self.on_epoch_start(run)  # of a run that was ended between its last epoch and its end
        self._close("finished")

    def on_error(self, run: Run, error: BaseException) -> None:
        self._close("failed" if isinstance(error, Exception) else "stopped")

    def state_dict(self) -> dict[str, object]:
        return {"id": self.id}

    def _close(self, status: str) -> None:
        if self._is_open:
            self._try(self.close, status)
            self._is_open, self.id = False, secrets.token_hex(8)  # of the next run

    def _try(self, call: Callable[..., None], *args: object) -> bool:
        """Call once, unless a call before has failed; whether it was done."""
        if self._has_failed:
            return False
        try:
            call(*args)
        except Exception as error:  # of a server, a disk or a package
            self._has_failed = True
            name = type(self).__name__
            warnings.warn(f"{name} failed, and the run goes on without it: {error!r}", stacklevel=4)
        return not self._has_failed


class TensorBoard(Logger):
    """Writes the event files that ``tensorboard --logdir FOLDER`` shows.

    Args:
        folder: Of this run, made when the run begins.
        every_steps, config: As of :class:`Logger`.

    Raises: ImportError without the package: ``pip install 'pyrovae[tensorboard]'``.
    """

    def __init__(self, folder: str | Path, every_steps: int = 50, config: Mapping[str, object] | None = None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _missing("TensorBoard", "tensorboard") from error
        super().__init__(every_steps, config)
        self.folder, self._new_writer = Path(folder), SummaryWriter
        self._writer: Any = None

    def open(self, run: Run, config: dict[str, str | float]) -> None:
        # steps after the checkpoint are taken again, and logged again
        self._writer = self._new_writer(str(self.folder), purge_step=run.step + 1)
        if run.step == 0:
            rows = [f"| {name} | {value} |" for name, value in config.items()]
            self._writer.add_text("config", "\n".join(["| | |", "|---|---|", *rows]), 0)
        self._writer.flush()

    def log(self, numbers: Numbers, step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self, status: str) -> None:
        self._writer.add_text("status", status)
        self._writer.close()


class WandB(Logger):
    """Logs to Weights & Biases, with ``step`` as the horizontal axis.

    Args:
        project: Name of the project.
        every_steps, config: As of :class:`Logger`.
        options: Further arguments of ``wandb.init``, such as ``mode="offline"``, ``entity``, ``name`` and ``dir``.

    Raises: ImportError without the package: ``pip install 'pyrovae[wandb]'``.
    """

    def __init__(
        self, project: str, every_steps: int = 50, config: Mapping[str, object] | None = None, **options: object
    ) -> None:
        try:
            from wandb import init  # by name: a folder "wandb" of logs can be imported too
        except ImportError as error:
            raise _missing("WandB", "wandb") from error
        super().__init__(every_steps, config)
        self.project, self.options = project, options
        self._init: Any = init
        self._run: Any = None

    def open(self, run: Run, config: dict[str, str | float]) -> None:
        given = {"id": self.id, "resume": "allow", "reinit": "create_new", **self.options}
        self._run = self._init(project=self.project, **given)
        self._run.config.update(config, allow_val_change=True)
        self._run.define_metric("*", step_metric="step")

    def log(self, numbers: Numbers, step: int) -> None:
        self._run.log({**numbers, "step": step})

    def close(self, status: str) -> None:
        self._run.summary["status"] = status
        self._run.finish(exit_code={"finished": 0, "stopped": 255}.get(status, 1))


class MLflow(Logger):
    """Logs to an MLflow server, or to a database of MLflow on this machine, every five seconds and at the end.

    Args:
        experiment: Name of the experiment, made if there is none.
        tracking_uri: Such as ``"http://host:5000"`` or ``"sqlite:///runs.db"``; None is MLflow's own default.
        every_steps, config: As of :class:`Logger`.
        name: Of the run; None lets MLflow choose one.

    Raises: ImportError without the package: ``pip install 'pyrovae[mlflow]'``.
    """

    def __init__(
        self,
        experiment: str,
        tracking_uri: str | None = None,
        every_steps: int = 50,
        config: Mapping[str, object] | None = None,
        name: str | None = None,
    ) -> None:
        try:
            from mlflow import MlflowClient, entities
        except ImportError as error:
            raise _missing("MLflow", "mlflow") from error
        super().__init__(every_steps, config)
        self.experiment, self.tracking_uri, self.name = experiment, tracking_uri, name
        self._new_client, self._entities = MlflowClient, entities
        self._client: Any = None
        self._run_id = ""
        self._waiting: list[Any] = []
        self._sent = 0.0

    def open(self, run: Run, config: dict[str, str | float]) -> None:
        self._client = client = self._new_client(self.tracking_uri)
        self._waiting, self._sent = [], time.monotonic()
        found = client.get_experiment_by_name(self.experiment)
        experiment = client.create_experiment(self.experiment) if found is None else found.experiment_id
        known = client.search_runs([experiment], f"tags.`{TAG}` = '{self.id}'", max_results=1)
        if known:  # its parameters cannot be changed
            self._run_id = known[0].info.run_id
            client.update_run(self._run_id, status="RUNNING")
            return
        self._run_id = client.create_run(experiment, tags={TAG: self.id}, run_name=self.name).info.run_id
        params = [self._entities.Param(name, str(value)) for name, value in config.items()]
        for start in range(0, len(params), 100):  # as many as MLflow takes at once
            client.log_batch(self._run_id, params=params[start : start + 100])

    def log(self, numbers: Numbers, step: int) -> None:
        now = int(1000 * time.time())
        self._waiting += [self._entities.Metric(name, value, now, step) for name, value in numbers.items()]
        if time.monotonic() - self._sent > EVERY or len(self._waiting) > MOST:
            self._send()

    def close(self, status: str) -> None:
        self._send()
        self._client.set_terminated(self._run_id, STATUSES[status])

    def _send(self) -> None:
        self._client.log_batch(self._run_id, metrics=self._waiting)
        self._waiting, self._sent = [], time.monotonic()


def _missing(name: str, package: str) -> ImportError:
    return ImportError(f"{name} needs the package {package}: pip install 'pyrovae[{package}]'")


def _schedules(run: Run) -> Schedules:
    return next(each for each in run.callbacks if isinstance(each, Schedules))


def _optims(run: Run) -> list[PyroOptim]:
    given = [each for each in _schedules(run).optims if each is not None]
    return given or [each for each in [getattr(run.trainer, "optim", None)] if isinstance(each, PyroOptim)]


def _moving(run: Run) -> Numbers:
    """The learning rates and the schedules of the objective, as of the next step."""
    numbers: Numbers = {}
    for place, optim in enumerate(_optims(run), 1):
        groups = [group for each in optim.optim_objs.values() for group in _torch_optimizer(each).param_groups]
        if groups:
            numbers["learning_rate" if place == 1 else f"learning_rate_{place}"] = max(float(g["lr"]) for g in groups)
    for name, schedule in _schedules(run).of_loss.items():
        numbers[name] = schedule(run.epochs_done if schedule.unit == "epochs" else run.step)
    return numbers


def _torch_optimizer(optimizer: Any) -> Any:
    """That of a scheduler of Pyro, too."""
    return getattr(optimizer, "optimizer", optimizer)


def _configuration(run: Run, more: Mapping[str, object]) -> dict[str, str | float]:
    """The model and the settings of a run, by names with points: ``model.prior``."""
    model: object = getattr(run.vae, "config", None) or text_of(run.vae)
    values: dict[str, object] = {
        "model": model,
        "epochs": run.num_epochs,
        "batch_size": run.data.batch_size,
        "rows": run.data.num_rows,
        "optimizer": " and ".join(map(optimizer_text, _optims(run))),
        "loss": text_of(_schedules(run).loss),
        "clip_norm": getattr(run.trainer, "clip_norm", None),
    }
    if isinstance(run.vae, nn.Module):
        values["parameters"] = sum(param.numel() for param in run.vae.parameters())
    return dict(_flat({**values, **more}))


def _flat(values: Mapping[Any, object], prefix: str = "") -> Iterator[tuple[str, str | float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            yield f"{prefix}{name}", value if is_number else str(value)[:LONGEST]  # type: ignore[misc]  # a number
