"""The command line, called as a user calls it: what it writes, what it prints, and its one line when it cannot."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from test_data import write_mnist
from torchvision import datasets

import pyrovae as pv
from pyrovae import cli
from pyrovae.build.config import digest

REAL_GUIDES = [
    name
    for name, guide in pv.build.GUIDES.items()
    if str(guide.support) == str(pv.guides.Normal.support) and not guide.brings_prior
]

TINY = "--epochs 1 --hidden 8 --latent-dim 2 --num-samples 5"
DIGITS = "fit digits --epochs 2 --hidden 16 --latent-dim 3 --num-samples 20"
RANDOM = np.random.default_rng(0)
REAL = RANDOM.normal(size=(40, 5)).astype(np.float32)
COUNTS = RANDOM.poisson(3.0, (40, 5))
NEGATIVE, NAN, INFINITE = COUNTS.copy(), REAL.copy(), REAL.copy()
NEGATIVE[7, 2], NAN[3, 1], INFINITE[4, 2] = -1, np.nan, np.inf
FILES = {
    "real.csv": REAL,
    "counts.csv": COUNTS,
    "categories.csv": RANDOM.integers(0, 4, (40, 5)),
    "binary.csv": RANDOM.integers(0, 2, (40, 5)),
    "grey.npy": RANDOM.random((40, 64)),
    "square.npy": RANDOM.random((40, 8, 8)),
    "channels.npy": RANDOM.random((40, 2, 8, 8)),
    "signal.npy": RANDOM.random((40, 1, 300)),
    "three.csv": REAL[:3],
    "negative.csv": NEGATIVE,
    "nan.csv": NAN,
    "infinite.npy": INFINITE,
    "empty.npy": REAL[:0],
    "colour.npy": RANDOM.random((40, 3, 8, 8)),
}
MODULES = {
    "mymodule": """
        import pyro.distributions as dist, torch, pyrovae as pv
        class MyPrior(pv.priors.Prior):
            def __init__(self, dim):
                super().__init__()
                self.register_buffer("scale", torch.full((dim,), 2.0))
            def distribution(self):
                return dist.Normal(torch.zeros_like(self.scale), self.scale).to_event(1)
        class Fails(MyPrior):
            def __init__(self, dim):
                raise RuntimeError("boom")
        class TakesMore(MyPrior):
            def __init__(self, dim, more):
                super().__init__(dim)
        """,
    "fails": "1 / 0",
    "unfinished": "class MyPrior(",
}


def pyrovae(command):
    """Run one command in this process; its exit status."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(command.split())
    return stopped.value.code or 0


def tree(folder):
    """Every path below a folder, hidden ones too, with the bytes of the files."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def losses(run):
    """The history of a run without its clock."""
    return np.genfromtxt(run / "history.csv", delimiter=",", names=True)[["epoch", "train_loss", "val_loss"]]


def read(path):
    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "run"
    assert pyrovae(f"{DIGITS} --out {out}") == 0
    return out


@pytest.fixture
def desk(tmp_path, monkeypatch, trained):
    """A working folder with data files, modules and a run; nothing can be downloaded."""
    for name, x in FILES.items():
        if name.endswith(".npy"):
            np.save(tmp_path / name, x)
        else:
            np.savetxt(tmp_path / name, x, delimiter=",", fmt="%.9g")
    for name, code in MODULES.items():
        lines = [line.removeprefix(" " * 8) for line in code.splitlines()]
        (tmp_path / f"{name}.py").write_text("\n".join(lines) + "\n")
    shutil.copytree(trained, tmp_path / "run")

    def refuse(self):
        raise RuntimeError("no route to host")

    monkeypatch.setattr(datasets.MNIST, "download", refuse)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in MODULES:
        sys.modules.pop(name, None)


# --- what a run is --------------------------------------------------------------------------------------------------


def test_fit_writes_a_run_and_prints_its_numbers(desk, capsys):
    assert pyrovae(f"{DIGITS} --out new/runs/mine") == 0
    run = desk / "new/runs/mine"
    assert sorted(str(path.relative_to(run)) for path in run.rglob("*.*")) == [
        "checkpoint.safetensors",
        "config.json",
        *(f"figures/{name}.png" for name in ("codes", "loss", "prior_samples", "reconstructions")),
        "history.csv",
        "metrics.json",
        "model.safetensors",
    ]
    for path in (run / "figures").iterdir():
        with Image.open(path) as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 10, path.name  # something is drawn
    assert losses(run)["epoch"].tolist() == [1, 2]
    numbers = read(run / "metrics.json")
    assert numbers["elbo"] == pytest.approx(numbers["reconstruction"] - numbers["kl"], abs=1e-4)
    out = capsys.readouterr().out
    table = {
        "ELBO": (f"{numbers['elbo']:.2f}", f"nats per datum ± {numbers['standard_error']:.2f}"),
        "reconstruction": (f"{numbers['reconstruction']:.2f}", "nats per datum"),
        "KL of guide from prior": (f"{numbers['kl']:.2f}", "nats per datum"),
        "log-likelihood, 20 draws": (f"{numbers['log_likelihood']:.2f}", "nats per datum, at least"),
        "active units": (str(numbers["active_units"]), "of 3"),
        "exact zeros in the codes": (f"{numbers['exact_zeros']:.1%}", "of their coordinates"),
        "Hoyer sparsity of the codes": (f"{numbers['hoyer']:.2f}", "from 0, even, to 1, one-hot"),
        "mean squared error": (f"{numbers['mean_squared_error']:.4f}", "per data dimension"),
    }
    for name, (number, unit) in table.items():
        assert re.search(rf"^ +{name} +{re.escape(number)}  {re.escape(unit)}$", out, re.MULTILINE), name


def test_a_command_and_the_config_it_leaves_repeat_the_run(desk, trained):
    assert pyrovae(f"{DIGITS} --out again") == 0
    assert pyrovae("fit digits --config run/config.json --out from_config") == 0
    assert pyrovae(f"{DIGITS} --seed 1 --out other") == 0
    for name in ("again", "from_config"):
        assert (desk / name / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
        assert (losses(desk / name) == losses(trained)).all()
        assert read(desk / name / "metrics.json") == read(trained / "metrics.json")
        assert read(desk / name / "config.json") == read(trained / "config.json")
    assert (losses(desk / "other")["train_loss"] != losses(trained)["train_loss"]).all()


def test_encode_is_the_codes_of_the_rows_in_their_order(desk, capsys):
    vae = pv.load(desk / "run")
    assert pyrovae("encode run") == 0
    own = np.load(desk / "run/codes.npy")
    np.testing.assert_allclose(own, vae.encode(pv.data.rows("digits", binarize="dynamic")), rtol=1e-5, atol=1e-6)
    assert "1797 codes of 3 coordinates, 0.0% exact zeros" in capsys.readouterr().out
    assert pyrovae("encode run grey.npy --out grey_codes.npy") == 0
    expected = vae.encode(pv.data.rows(desk / "grey.npy", binarize="dynamic"))
    np.testing.assert_allclose(np.load(desk / "grey_codes.npy"), expected, rtol=1e-5, atol=1e-6)
    assert pyrovae("encode run grey.npy --overwrite") == 0
    assert np.array_equal(np.load(desk / "run/codes.npy"), np.load(desk / "grey_codes.npy"))


def test_sample_draws_from_the_model(desk):
    vae = pv.load(desk / "run")
    for flags, draw in (("", vae.sample), ("--mean", lambda n: vae.decode(vae.sample_prior(n)))):
        assert pyrovae(f"sample run -n 7 --seed 3 --out new.npy --overwrite {flags}") == 0
        torch.manual_seed(3)
        np.testing.assert_allclose(np.load(desk / "new.npy"), draw(7), rtol=1e-5)
        assert set(np.unique(np.load(desk / "new.npy"))) == {0, 1} if not flags else np.load("new.npy").max() < 1
    assert pyrovae("sample run") == 0
    assert np.load(desk / "run/samples.npy").shape == (64, 64)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("real.csv", {"likelihood": "normal"}),
        ("grey.npy", {"likelihood": "continuous-bernoulli"}),
        ("binary.csv", {"likelihood": "bernoulli"}),
        ("grey.npy --binarize static", {"likelihood": "bernoulli"}),
        ("digits --binarize none", {"likelihood": "continuous-bernoulli"}),
        *((f"{data} --likelihood {name}", {"likelihood": name}) for data, name in (
            ("real.csv", "laplace"), ("counts.csv", "poisson"), ("counts.csv", "negative-binomial"))),
        ("categories.csv --likelihood categorical", {"likelihood": "categorical", "num_classes": 4}),
        ("real.csv --likelihood pyrovae.likelihoods.Laplace", {"likelihood": "pyrovae.likelihoods.Laplace"}),
        ("real.csv --prior laplace", {"prior": "laplace", "guide": "laplace"}),
        *((f"real.csv --guide {name}", {"guide": name, "prior": "normal"}) for name in REAL_GUIDES),
        ("digits --prior spike-slab --warmup 1", {"prior": "spike-slab", "guide": "spike-slab"}),
        ("patches --batch-size 4096", {"likelihood": "normal", "event_shape": [144]}),
        ("digits --network conv", {"event_shape": [1, 8, 8]}),
        ("square.npy --network conv --hidden 9", {"event_shape": [1, 8, 8], "hidden": [9]}),
        ("colour.npy --network conv --norm batch --residual 1", {"event_shape": [3, 8, 8], "residual": 1}),
        ("real.csv --norm layer --dropout 0.1", {"norm": "layer", "dropout": 0.1}),
        ("categories.csv --likelihood autoregressive --network gru", {"network": "gru", "num_classes": 4}),
        ("categories.csv --likelihood categorical --network gru --dropout 0.1", {"network": "gru", "dropout": 0.1}),
        ("real.csv --network dictionary", {"network": "dictionary"}),
        ("channels.npy", {"event_shape": [128]}),  # two channels and very wide rows are no pictures
        ("signal.npy", {"event_shape": [300]}),
        ("three.csv", {"event_shape": [5]}),  # one test datum has no standard error
        *((f"real.csv --optim {name} --patience 1", {}) for name in pv.optim.OPTIMIZERS if name != "adam"),
        *((f"real.csv --schedule {name}", {}) for name in pv.optim.SCHEDULES),
        ("real.csv --optim muon:momentum=0.9 --weight-decay 0.1 --schedule one-cycle:rise=0.5 --l1 0.01 --l2 0.01", {}),
    ],
)  # fmt: skip
def test_fit_takes_every_name(arguments, expected, desk, capsys):
    assert pyrovae(f"fit {TINY} --out out {arguments}") == 0
    model = read(desk / "out/config.json")["model"]
    assert {key: model[key] for key in expected} == expected
    numbers = read(desk / "out/metrics.json")
    is_point = getattr(pv.build.GUIDES.get(model["guide"]), "is_point", False)
    assert (numbers["elbo"] is None) == is_point
    assert ("no bound on log p(x)" in capsys.readouterr().out) == pv.build.GUIDES[
        model["guide"].partition(":")[0]
    ].is_point
    assert numbers["mean_squared_error"] >= 0
    assert pyrovae("encode out" + " --trust" * ("pyrovae." in arguments)) == 0
    assert len(np.load(desk / "out/codes.npy")) == {"digits": 1797, "patches": 60_000, "three.csv": 3}.get(
        arguments.split()[0], 40
    )


def test_a_prior_of_the_working_folder(desk):
    assert pyrovae(f"fit real.csv {TINY} --prior mymodule.MyPrior --out out") == 0
    numbers = read(desk / "out/metrics.json")
    assert safetensors.torch.load_file(desk / "out/model.safetensors")["prior.scale"].tolist() == [2.0, 2.0]
    del sys.modules["mymodule"]
    assert pyrovae("evaluate out --num-samples 5") == 2, "the commands import nothing because a file says so"
    assert "mymodule" not in sys.modules
    assert pyrovae("evaluate out --num-samples 5 --trust") == 0
    assert numbers.items() <= read(desk / "out/metrics.json").items()


def test_a_run_finds_its_data_from_another_folder(desk, monkeypatch):
    write_mnist(desk / "data/MNIST/raw")
    assert pyrovae(f"fit mnist --data-dir data {TINY} --out out") == 0
    assert pyrovae(f"fit real.csv {TINY} --out out2") == 0
    (desk / "elsewhere").mkdir()
    monkeypatch.chdir(desk / "elsewhere")
    assert pyrovae("evaluate ../out") == 0
    assert read(desk / "out/metrics.json")["num_data"] == 5
    assert pyrovae("encode ../out2") == 0


def test_overwrite_replaces_a_run(desk):
    (desk / "run/codes.npy").write_bytes(b"old")
    assert pyrovae(f"fit real.csv {TINY} --out run --overwrite") == 0
    assert not (desk / "run/codes.npy").exists()
    assert read(desk / "run/config.json")["model"]["event_shape"] == [5]
    assert not [path for path in desk.iterdir() if path.name.startswith(".")]


# --- what cannot be done --------------------------------------------------------------------------------------------


def spoil(desk):
    """Runs with something wrong in them, each named after it."""
    model = (desk / "run/model.safetensors").read_bytes()
    config = (desk / "run/config.json").read_text()
    tensors = safetensors.torch.load(model)
    moved = json.loads(config)
    moved["data"]["name"] = "moved.npy"
    by_hand = {"model": moved["model"]}
    contents = {
        "cut_model": (model[: len(model) // 2], config),
        "other_keys": (safetensors.torch.save({"a": torch.ones(2)}), config),
        "other_shapes": (safetensors.torch.save({key: torch.ones(2) for key in tensors}), config),
        "cut_config": (model, config[: len(config) // 2]),
        "foreign_config": (model, '{"name": "a web page"}'),
        "moved_data": (model, json.dumps(moved)),
        "by_hand": (model, json.dumps({**by_hand, "format": 1, "sha256": digest(by_hand, tensors)})),
        "narrower": (model, config.replace('"digits"', json.dumps(str(desk / "binary.csv")))),
    }
    for name, (tensors, text) in contents.items():
        (desk / name).mkdir()
        (desk / name / "model.safetensors").write_bytes(tensors)
        (desk / name / "config.json").write_text(text)
    (desk / "no_run").mkdir()
    (desk / "no_run/thesis.txt").write_text("ten years of work")


BAD = {  # command: what its one line says; --out out and TINY are added to fit
    "fit nan.csv": r"nan.csv has nan at index \(3, 1\)",
    "fit infinite.npy": r"infinite.npy has inf at index \(4, 2\)",
    "fit empty.npy": r"empty.npy must have rows and columns, got shape \(0, 5\)",
    "fit nowhere.csv": "'nowhere.csv' is neither digits, mnist, fashion-mnist, patches nor a file or folder",
    "fit digit": r"did you mean 'digits'\?",
    "fit mnist --data-dir here": r"MNIST is not in .*here.* cannot be downloaded \(no route to host\).*--data-dir or",
    "fit grey.npy --likelihood bernoulli": "under Bernoulli: .*binarise grey values, or use ContinuousBernoulli",
    "fit negative.csv --likelihood poisson": r"the value -1 at index \(7, 2\) does not fit under Poisson",
    "fit real.csv --likelihood categorical": "does not fit under Categorical: it takes whole numbers",
    "fit real.csv --binarize dynamic": r"real.csv has values outside \[0, 1\]",
    "fit real.csv --prior lapalce": r"unknown prior 'lapalce': did you mean 'laplace'\?",
    "fit real.csv --guide norml": r"unknown guide 'norml': did you mean 'normal'\?",
    "fit real.csv --likelihood poison": r"unknown likelihood 'poison': did you mean 'poisson'\?",
    "fit real.csv --optim adan": r"unknown optimizer 'adan': did you mean 'adam'\?",
    "fit real.csv --optim torch.optim.Adam": "unknown optimizer 'torch.optim.Adam': one of gd, sgd, momentum",
    "fit real.csv --network dictionery": r"unknown network 'dictionery': did you mean 'dictionary'\?",
    "fit real.csv --network torch.nn.Linear": "unknown network 'torch.nn.Linear': one of mlp, conv, dictionary",
    "fit real.csv --network conv": "network: conv needs images",
    "fit real.csv --network gru": r'network "gru" needs sequences \(length,\) under the likelihood',
    "fit categories.csv --likelihood autoregressive": 'likelihood "autoregressive" needs network "gru"',
    "fit real.csv --residual 1": 'residual is of network "conv"',
    "fit real.csv --refine 2": "refine is for prior 'spike-slab', likelihood 'normal', network 'dictionary'",
    "fit real.csv --norm batch --batch-size 31": 'norm "batch" trains on two rows or more, got a batch of one',
    "fit real.csv --prior fails.MyPrior": "prior 'fails.MyPrior' cannot be imported: ZeroDivisionError",
    "fit real.csv --prior unfinished.MyPrior": "prior 'unfinished.MyPrior' cannot be imported: SyntaxError",
    "fit real.csv --prior nomodule.MyPrior": "prior 'nomodule.MyPrior' cannot be imported: .*No module",
    "fit real.csv --prior mymodule.Nothing": "prior 'mymodule.Nothing' cannot be imported: .*no attribute",
    "fit real.csv --prior mymodule.Fails": "prior 'mymodule.Fails' cannot be made: RuntimeError: boom",
    "fit real.csv --prior mymodule.TakesMore": "prior 'mymodule.TakesMore' cannot be made: TypeError: .*'more'",
    "fit real.csv --prior builtins.range": "prior 'builtins.range' must be a class of torch modules, got <class",
    "fit real.csv --lr 0": "'--lr': 0.0 is not in the range x>0",
    "fit real.csv --lr nan": "lr must be positive, got nan",
    "fit real.csv --optim sgd --momentum 0.5": "optimizer 'sgd' has no option 'momentum': it has none",
    "fit real.csv --optim adam:eps=-1": "eps must be positive, got -1",
    "fit real.csv --optim adam:lr=1": "--optim adam:lr=1: lr is given by --lr",
    "fit real.csv --optim adamw:weight_decay=1 --weight-decay 1": "weight_decay is given by --weight-decay",
    "fit real.csv --schedule cosin": r"unknown schedule 'cosin': did you mean 'cosine'\?",
    "fit real.csv --schedule step:lr=3": "schedule 'step' has no option 'lr': its options are epochs, steps, factor",
    "fit real.csv --schedule cosine:epochs=9": "learning rate ends at 9 epochs, after the run",
    "fit real.csv --momentum 1": "'--momentum': 1.0 is not in the range 0<x<1",
    "fit real.csv --l2 nan": "weight must be at least 0, got nan",
    "fit real.csv --lr 1e30": "epoch 1: .*try a lower learning rate",
    "fit real.csv --epochs 0": "'--epochs': 0 is not in the range x>=1",
    "fit real.csv --hidden abc": "'--hidden': 'abc' is not a list of widths",
    "fit real.csv --hidden 100000000000000": "hidden must be positive widths such as .*, each at most 2147483647",
    "fit real.csv --hidden 0": r"hidden must be positive widths such as \(400,\), got \(0,\)",
    "fit real.csv --seed -1": "'--seed': -1 is not in the range",
    "fit real.csv --device nonsense": "--device 'nonsense' cannot be used here",
    "fit real.csv --device meta": "--device 'meta' cannot be used here",
    "fit real.csv --epoch 3": "No such option.*--epoch.*--epochs",
    "fit real.csv --config cut_config/config.json": "--config 'cut_config/config.json' is cut short or not JSON",
    "fit real.csv --config foreign_config/config.json": "--config .* must hold options of fit by name: batch_size",
    "fit": "Missing argument 'DATA'",
    "fit real.csv --out run": "--out 'run' exists: choose another folder, or --overwrite",
    "fit real.csv --out no_run --overwrite": "--out 'no_run' is not a run, so --overwrite leaves it alone",
    "fit real.csv --out foreign_config --overwrite": "--out 'foreign_config' is not a run",
    "fit real.csv --out real.csv --overwrite": "--out 'real.csv' is not a run",
    "fit real.csv --out real.csv/deep/run": "--out 'real.csv/deep/run' cannot be written: Not a directory",
    "encode run binary.csv": "data has 5 values per row, the model of 'run' takes 64",
    "encode run nan.csv": r"nan.csv has nan at index \(3, 1\)",
    "encode run --out real.csv": "--out 'real.csv' exists: choose another file, or --overwrite",
    "encode run --out nowhere/codes.npy": "--out 'nowhere/codes.npy' must be a file in a folder that exists",
    "sample run --out no_run --overwrite": "--out 'no_run' must be a file",
    "sample run --out draws.png": "--out 'draws.png' must end in .npy, the format that is written$",
    "encode run --out real.csv --overwrite": "--out 'real.csv' must end in .npy",
    "sample run -n 0": "'-n' / '--num': 0 is not in the range",
    "evaluate cut_model": "'cut_model/model.safetensors' is cut short or not a model",
    "evaluate other_keys": "of another model: it lacks .* and has .*'a'",
    "sample other_shapes": r"of another model: .* has shape \(2,\)",
    "evaluate cut_config": "'cut_config/config.json' is cut short or not JSON",
    "evaluate foreign_config": "'foreign_config/config.json' is not the config of a pyrovae run",
    "evaluate no_run": "there is no run in 'no_run': it has no config.json",
    "encode real.csv": "there is no run in 'real.csv'",
    "evaluate moved_data": "'moved.npy' is neither",
    "evaluate by_hand": "run 'by_hand' does not say what data it was trained on",
    "evaluate narrower": "data has 5 values per row, the model of 'narrower' takes 64",
    "evaluate run --device nonsense": "--device 'nonsense' cannot be used here",
    "comparee": "No such command 'comparee'",
}


@pytest.mark.parametrize(("command", "message"), BAD.items())
def test_an_error_is_one_line_and_leaves_nothing(command, message, desk, capsys):
    spoil(desk)
    before = tree(desk)
    if command.startswith("fit"):
        command = f"fit {TINY} --out out {command.removeprefix('fit')}"  # of an option that comes twice the last counts
    assert pyrovae(command) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1
    assert re.search(f"^pyrovae: error: .*{message}", lines[0])
    assert "Traceback" not in out + err
    assert tree(desk) == before


@pytest.mark.parametrize("out", ["out", "deep/er/out", "run --overwrite"])
def test_an_interrupted_run_leaves_nothing(out, desk, capsys, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    before = tree(desk)
    monkeypatch.setattr(pv, "fit", interrupt)
    assert pyrovae(f"fit real.csv {TINY} --out {out}") == 130
    assert capsys.readouterr().err.strip() == "pyrovae: stopped; nothing was written"
    assert tree(desk) == before


# --- help -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", *cli.cli.commands])
def test_help_names_everything_in_100_columns(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    assert pyrovae(f"{command} --help") == 0
    text = capsys.readouterr().out
    assert max(len(line) for line in text.splitlines()) <= 100
    shown = cli.cli.commands[command] if command else cli.cli
    names = [name for parameter in shown.params for name in parameter.opts if name.startswith("-")]
    assert names
    assert not [
        name for name in [*names, *([] if command else cli.cli.commands)] if name not in re.split(r"[\s,]+", text)
    ]
    if not command:
        assert pyrovae("") == 0  # no command is a wish for help
        assert capsys.readouterr().out == text


def test_python_m_pyrovae():
    done = subprocess.run([sys.executable, "-m", "pyrovae", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"pyrovae, version {pv.__version__}\n"
