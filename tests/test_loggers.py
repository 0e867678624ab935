"""Loggers: what TensorBoard, Weights & Biases and MLflow are given, and that no run depends on them."""

import json
import math
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_cli import pyrovae, read

import pyrovae as pv
from pyrovae import runs
from pyrovae.train import Callback, Logger, MLflow, TensorBoard, WandB

X = torch.bernoulli(torch.full((50, 8), 0.3), generator=torch.Generator().manual_seed(0))


def build(seed=0):
    torch.manual_seed(seed)
    return pv.build_vae((8,), 2, hidden=(6,))


def fit(vae, epochs=3, **options):
    given = {"progress": False, "compile": False, "seed": 0, "val": X[:9], **options}
    return pv.fit(vae, X, epochs, 16, **given)


class Death(BaseException):
    """Ends a run without an answer, as SIGKILL does."""


class Dies(Callback):
    def __init__(self, at):
        self.at = at

    def on_step_end(self, run):
        if run.step == self.at:
            raise Death


class Kept(Logger):
    """Keeps what it is given."""

    def __init__(self, fails=None, **options):
        super().__init__(**options)
        self.said, self.fails = [], fails

    def _keep(self, moment, *what):
        if moment == self.fails:
            raise ConnectionError("the server is gone")
        self.said.append((moment, *what))

    def open(self, run, config):
        self._keep("open", self.id, config)

    def log(self, numbers, step):
        self._keep("log", numbers, step)

    def close(self, status):
        self._keep("close", status)


def shown(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    numbers = {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}
    texts = {
        name: events.Tensors(name)[-1].tensor_proto.string_val[0].decode() for name in events.Tags().get("tensors", [])
    }
    return numbers, texts


def test_what_is_logged():
    logger = Kept(every_steps=2, config={"site": "here", "nested": {"a": 1, "flag": True}})
    history = fit(
        build(), optim=pv.optim.adam(pv.optim.cosine(0.05, 3)), loss=pv.ELBO(pv.warmup(2)), callbacks=[logger]
    )
    (_, _, config), *logs, last = logger.said
    assert config["model.prior"] == "normal"
    assert (config["epochs"], config["batch_size"], config["site"], config["nested.a"]) == (3, 16, "here", 1)
    assert config["parameters"] == sum(p.numel() for p in build().parameters())
    assert "Adam" in config["optimizer"]
    assert "beta" in config["loss"]
    steps = [(numbers, step) for _, numbers, step in logs if "loss" in numbers]
    assert [step for _, step in steps] == [2, 4, 6, 8, 10, 12]
    assert all(math.isfinite(numbers["loss"]) for numbers, _ in steps)
    assert steps[1][0]["beta"] == pytest.approx(0.5)
    rates = [numbers["learning_rate"] for numbers, _ in steps]
    assert rates == sorted(rates, reverse=True)
    epochs = [(numbers, step) for _, numbers, step in logs if "epoch" in numbers]
    assert [step for _, step in epochs] == [4, 8, 12]
    assert [numbers["val_loss"] for numbers, _ in epochs] == history["val_loss"]
    assert last == ("close", "finished")


def test_a_run_is_the_same_with_and_without():
    a, b = build(), build()
    assert fit(a)["train_loss"] == fit(b, callbacks=[Kept(every_steps=1)])["train_loss"]
    assert all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


def test_without_validation_data_and_of_a_pair_and_of_a_game():
    logger = Kept()
    vae = build()
    fit((vae.model, vae.guide), epochs=1, val=None, callbacks=[logger])
    assert "val_loss" not in logger.said[1][1]
    assert logger.said[1][1]["learning_rate"] == 1e-3
    gan = pv.GAN(pv.priors.Normal(2), pv.nn.MLP(2, [4], 8), pv.nn.MLP(8, [4], 1))
    optim = (pv.optim.adam(1e-3), pv.optim.adam(2e-3))
    pv.fit(gan, X, 1, 16, optim, seed=0, progress=False, callbacks=[logger := Kept()])
    assert (logger.said[1][1]["learning_rate"], logger.said[1][1]["learning_rate_2"]) == (1e-3, 2e-3)


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt, "stopped"), (SystemExit, "stopped"), (OSError, "failed")]
)
def test_the_status_of_a_run_that_ends_early(error, status):
    def ends(*args):
        raise error

    logger = Kept()
    with pytest.raises((error, pv.train.CallbackError)):
        fit(build(), callbacks=[logger, ends])
    assert logger.said[-1] == ("close", status)


@pytest.mark.parametrize("moment", ["open", "log", "close"])
def test_a_logger_that_fails_is_one_warning(moment):
    logger = Kept(fails=moment, every_steps=1)
    with pytest.warns(UserWarning, match="Kept failed, and the run goes on without it: ConnectionError") as told:
        history = fit(build(), callbacks=[logger])
    assert len(told) == 1
    assert history["train_loss"] == fit(build())["train_loss"]


def test_of_several_processes_the_first_logs():
    logger = Kept()
    logger.on_epoch_start(SimpleNamespace(processes=SimpleNamespace(rank=1)))
    logger.on_fit_end(SimpleNamespace(processes=SimpleNamespace(rank=1)))
    assert logger.said == []


def ended(folder, at, *loggers):
    with pytest.raises(Death):
        fit(build(), callbacks=[*loggers, Dies(at), pv.train.Checkpoint(folder, every_steps=1)])


@pytest.mark.parametrize("at", [1, 6])
def test_a_resumed_run_goes_on_with_the_logged_run(at, tmp_path):
    first, second = Kept(every_steps=1), Kept(every_steps=1)
    ended(tmp_path / "run", at, first)
    checkpoint = pv.train.Checkpoint(tmp_path / "run", resume=True)
    history = fit(build(1), callbacks=[second, Dies(-1), checkpoint])
    assert second.said[0][1] == first.said[0][1], "the id"
    steps = [said[2] for said in [*first.said, *second.said] if said[0] == "log" and "loss" in said[1]]
    assert sorted(set(steps)) == list(range(1, 13))
    assert min(said[2] for said in second.said if said[0] == "log") >= at - 1
    assert history["train_loss"] == fit(build())["train_loss"]


@pytest.mark.parametrize("begun", [True, False])
def test_a_run_is_resumed_with_a_logger_or_without(begun, tmp_path):
    ended(tmp_path / "run", 6, *([Kept()] if begun else []))
    checkpoint = pv.train.Checkpoint(tmp_path / "run", resume=True)
    history = fit(build(1), callbacks=[*([] if begun else [Kept()]), Dies(-1), checkpoint])
    assert history["train_loss"] == fit(build())["train_loss"]


def test_two_loggers_keep_their_ids_and_a_second_run_has_another(tmp_path):
    pair, again = [Kept(), Kept()], [Kept(), Kept()]
    ended(tmp_path / "run", 6, *pair)
    fit(build(1), callbacks=[*again, Dies(-1), pv.train.Checkpoint(tmp_path / "run", resume=True)])
    assert [each.said[0][1] for each in again] == [each.said[0][1] for each in pair]
    fit(build(), epochs=1, callbacks=[again[0]])
    ids = [said[1] for said in again[0].said if said[0] == "open"]
    assert len(set(ids)) == 2


def test_tensorboard_shows_a_resumed_run_once(tmp_path):
    folder = tmp_path / "run" / "tensorboard"
    ended(tmp_path / "run", 6, TensorBoard(folder, every_steps=1))
    checkpoint = pv.train.Checkpoint(tmp_path / "run", resume=True)
    history = fit(build(1), callbacks=[TensorBoard(folder, every_steps=1), Dies(-1), checkpoint])
    numbers, texts = shown(folder)
    assert [step for step, _ in numbers["loss"]] == list(range(1, 13))
    assert [step for step, _ in numbers["val_loss"]] == [4, 8, 12]
    assert [value for _, value in numbers["val_loss"]] == pytest.approx(history["val_loss"])
    assert "| model.prior | normal |" in texts["config/text_summary"]
    assert texts["status/text_summary"] == "finished"


def test_tensorboard_without_a_place_to_write_is_one_warning(tmp_path):
    (tmp_path / "file").write_text("mine")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fit(build(), callbacks=[TensorBoard(tmp_path / "file" / "log")])
    assert len(told) == 1
    assert str(told[0].message).startswith("TensorBoard failed, and the run goes on without it: ")


class FakeWandB(SimpleNamespace):
    """As much of wandb as is used, with what it was told."""

    def __init__(self):
        super().__init__(inits=[], logged=[], configs=[], summary={}, ended=[], metrics=[])

    def init(self, **options):
        self.inits.append(options)
        update = SimpleNamespace(update=lambda config, allow_val_change: self.configs.append(config))
        return SimpleNamespace(
            config=update,
            summary=self.summary,
            log=self.logged.append,
            finish=lambda exit_code: self.ended.append(exit_code),
            define_metric=lambda name, step_metric: self.metrics.append((name, step_metric)),
        )


def test_wandb_is_told_the_project_the_id_and_the_step(tmp_path, monkeypatch):
    wandb = FakeWandB()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    ended(tmp_path / "run", 6, WandB("digits", every_steps=2, mode="offline"))
    checkpoint = pv.train.Checkpoint(tmp_path / "run", resume=True)
    fit(build(1), callbacks=[WandB("digits", every_steps=2, mode="offline"), Dies(-1), checkpoint])
    first, second = wandb.inits
    assert first == second
    assert (first["project"], first["resume"], first["mode"]) == ("digits", "allow", "offline")
    assert wandb.metrics[0] == ("*", "step")
    assert [each["step"] for each in wandb.logged if "loss" in each] == [2, 4, 6, 6, 8, 10, 12]
    assert wandb.configs[0]["model.prior"] == "normal"
    assert wandb.ended == [255, 0]
    assert wandb.summary["status"] == "finished"


class FakeMLflow(SimpleNamespace):
    """As much of mlflow as is used: runs by their ids, in one store for all clients."""

    def __init__(self):
        super().__init__(runs={}, experiments={}, uris=[])
        self.entities = SimpleNamespace(Param=lambda *pair: pair, Metric=lambda *four: four)

    def MlflowClient(self, uri):
        self.uris.append(uri)
        return self

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id=self.experiments[name]) if name in self.experiments else None

    def create_experiment(self, name):
        return self.experiments.setdefault(name, str(len(self.experiments)))

    def search_runs(self, experiments, query, max_results):
        found = [run for run in self.runs.values() if query == f"tags.`pyrovae.id` = '{run.tags['pyrovae.id']}'"]
        return found[:max_results]

    def create_run(self, experiment, tags, run_name):
        run = SimpleNamespace(tags=tags, params=[], metrics=[], status="RUNNING")
        run.info = SimpleNamespace(run_id=str(len(self.runs)))
        return self.runs.setdefault(run.info.run_id, run)

    def update_run(self, run_id, status):
        self.runs[run_id].status = status

    set_terminated = update_run

    def log_batch(self, run_id, params=(), metrics=()):
        assert len(params) <= 100
        self.runs[run_id].params += params
        self.runs[run_id].metrics += metrics


def test_mlflow_goes_on_with_its_run(tmp_path, monkeypatch):
    mlflow = FakeMLflow()
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    many = {f"n{i}": i for i in range(150)}
    ended(tmp_path / "run", 6, MLflow("digits", "sqlite:///a.db", every_steps=2, config=many))
    assert mlflow.runs["0"].status == "KILLED"
    checkpoint = pv.train.Checkpoint(tmp_path / "run", resume=True)
    fit(build(1), callbacks=[MLflow("digits", "sqlite:///a.db", every_steps=2), Dies(-1), checkpoint])
    assert set(mlflow.uris) == {"sqlite:///a.db"}
    (run,) = mlflow.runs.values()
    assert run.status == "FINISHED"
    assert ("model.prior", "normal") in run.params
    assert ("n149", "149") in run.params
    assert [step for name, _, _, step in run.metrics if name == "loss"] == [2, 4, 6, 6, 8, 10, 12]
    fit(build(), epochs=1, callbacks=[MLflow("digits")])
    assert len(mlflow.runs) == 2


@pytest.mark.parametrize(
    ("make", "module", "message"),
    [
        (lambda: TensorBoard("a"), "tensorboard", "TensorBoard needs .* pip install 'pyrovae\\[tensorboard\\]'"),
        (lambda: WandB("a"), "wandb", "WandB needs the package wandb: pip install 'pyrovae\\[wandb\\]'"),
        (lambda: MLflow("a"), "mlflow", "MLflow needs the package mlflow: pip install 'pyrovae\\[mlflow\\]'"),
    ],
)
def test_a_package_that_is_missing_is_named(make, module, message, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(torch.utils, "tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=message):
        make()


def test_bad_arguments():
    for every in (0, -1, 1.5, True, "2"):
        with pytest.raises(ValueError, match="every_steps must be a whole number, at least 1, got"):
            Kept(every_steps=every)


SMALL = "fit x.npy --epochs 3 --hidden 4 --latent-dim 2 --no-compile --quiet --num-samples 5"


@pytest.fixture
def desk(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60, 4)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "write_figures", lambda *args: None)  # which take longest
    return tmp_path


def test_the_command_line_logs_into_the_run(desk, monkeypatch):
    wandb, mlflow = FakeWandB(), FakeMLflow()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    assert pyrovae(f"{SMALL} --out o --log tensorboard --log wandb:mine --log mlflow:ours") == 0
    numbers, texts = shown(desk / "o/tensorboard")
    assert [step for step, _ in numbers["val_loss"]] == [1, 2, 3]
    assert "| latent_dim | 2 |" in texts["config/text_summary"]
    assert (wandb.inits[0]["project"], wandb.inits[0]["name"]) == ("mine", "o")
    assert list(mlflow.experiments) == ["ours"]
    assert pyrovae(f"{SMALL} --out o --overwrite") == 0
    assert not (desk / "o/tensorboard").exists()
    assert pyrovae(f"{SMALL} --out p --config o/config.json --on-nan skip --log tensorboard") == 0
    assert read(desk / "p/config.json")["fit"]["on_nan"] == "skip"
    (desk / "c.json").write_text(json.dumps({"log": ["tensorboard"], "on_nan": "rollback"}))
    assert pyrovae(f"{SMALL} --out q --config c.json") == 0
    assert len(list((desk / "q/tensorboard").iterdir())) == 1


def test_a_run_is_resumed_with_another_log_and_another_on_nan(desk, monkeypatch):
    def dies(self, *args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pv.SVI, "evaluate", dies)
        assert pyrovae(f"{SMALL} --out o --log tensorboard") == 130
    assert pyrovae(f"{SMALL} --out o --resume --on-nan rollback") == 0
    assert pyrovae(f"{SMALL} --out o --resume --log tensorboard") == 0


@pytest.mark.parametrize("log", ["wandb", "tensorboard:here", "neptune:mine", "mlflow:"])
def test_another_log_is_one_line(log, desk, capsys):
    assert pyrovae(f"{SMALL} --out o --log {log}") == 2
    message = f"--log must be tensorboard, wandb:PROJECT or mlflow:EXPERIMENT, got '{log}'"
    assert capsys.readouterr().err == f"pyrovae: error: {message}\n"
    assert not (desk / "o").exists()


def test_a_log_without_its_package_is_one_line(desk, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert pyrovae(f"{SMALL} --out o --log wandb:mine") == 2
    assert "WandB needs the package wandb: pip install 'pyrovae[wandb]'" in capsys.readouterr().err
