"""What the command line says where a user goes wrong: one line that points the right way."""

import re
import sys

import numpy as np
import pytest
import torch
from test_cli import pyrovae

import pyrovae as pv
from pyrovae.cli.reporting import print_table
from pyrovae.cli.table import print_rows

TINY = "--epochs 1 --hidden 8 --latent-dim 2 --num-samples 5"
MODULE = """
import pyro, pyro.distributions as dist, torch, pyrovae as pv
class NoEvent(pv.priors.Normal):
    def distribution(self):
        return dist.Normal(torch.zeros(self.loc().shape), 1.0)
class NoEventInSites(NoEvent):
    def forward(self):
        return pyro.sample("z", self.distribution())
class Wide(pv.priors.Normal):
    def __init__(self, dim):
        super().__init__(dim + 1)
class Empty(pv.priors.Prior):
    def __init__(self, dim):
        super().__init__()
"""
BAD = {
    f"fit real.csv {TINY} --prior mine.NoEvent --out out": r"prior NoEvent: distribution\(\) has event_shape \(\), "
    r"expected \(2,\): add .to_event\(1\)$",
    f"fit real.csv {TINY} --prior mine.NoEventInSites --guide normal --out out": r"Shape mismatch inside "
    r"plate\('data'\) at site z dim -1, 32 vs 2$",
    f"fit real.csv {TINY} --prior mine.Wide --out out": r"prior Wide: distribution\(\) has event_shape \(3,\), guide "
    r"Normal has \(2,\), the network of likelihood Normal reads \(2,\)$",
    f"fit real.csv {TINY} --prior mine.Empty --guide normal --out out": r"prior Empty must define distribution\(\)",
    f"fit real.csv {TINY} --prior spike-slab --guide normal --out out": r"guides that fit: spike-slab, "
    r"thresholded-laplace, thresholded-normal$",
    f"fit real.csv {TINY} --latent-dim abc --out out": r"'--latent-dim': 'abc' is not a whole number\.$",
    f"fit real.csv {TINY} --beta abc --out out": r"'--beta': 'abc' is not a number\.$",
    f"fit decimals.csv {TINY} --out out": r"row 2 column 1 is not a number: '1,5'; decimals take a point$",
    f"fit real.csv {TINY} --conditional --out out": "--conditional needs the label of each datum, .* has none$",
    f"fit digits {TINY} --conditional --prior vamp --out out": "prior 'vamp' runs the encoder at inputs without "
    "labels, got num_labels = 10$",
    f"compare digits {TINY} --conditional --out out": "--conditional: models of labelled data are not compared here",
    "sample run --label 3 --out x.npy": "--label 3: the labels of run 'run' are none: it is not conditional$",
    "encode run real.csv": "data has 5 values per row, the model of 'run' takes 64$",
}


@pytest.fixture
def desk(tmp_path, monkeypatch):
    np.savetxt(tmp_path / "real.csv", np.random.default_rng(0).normal(size=(40, 5)), delimiter=",")
    (tmp_path / "decimals.csv").write_text("a;b\n1,5;2,5\n2,5;3\n")
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.setattr(pv.runs, "write_figures", lambda *args: None)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("mine", None)


@pytest.mark.parametrize(("command", "message"), BAD.items())
def test_the_line_points_the_right_way(command, message, desk, capsys):
    if command.startswith(("encode", "sample")):
        vae = pv.build_vae((64,), 2, hidden=(8,))
        pv.save(vae, "run", data={"name": "digits", "binarize": "dynamic", "seed": 0, "data_dir": None})
    assert pyrovae(command) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1
    assert re.search(f"^pyrovae: error: .*{message}", lines[0])


def test_a_run_with_a_module_of_another_folder_says_where_to_go(desk, capsys, monkeypatch):
    (desk / "mine.py").write_text("import pyrovae as pv\nclass Mine(pv.priors.Normal):\n    pass\n")
    assert pyrovae(f"fit real.csv {TINY} --prior mine.Mine --out out") == 0
    del sys.modules["mine"]
    (desk / "elsewhere").mkdir()
    monkeypatch.chdir(desk / "elsewhere")
    capsys.readouterr()
    assert pyrovae("evaluate ../out --trust") == 2
    assert "No module named 'mine'; run it in the folder of mine.py" in capsys.readouterr().err


def test_numbers_agree_with_their_nouns_and_few_data_are_said_to_be_few(desk, capsys):
    assert pyrovae(f"fit real.csv {TINY} --out out") == 0
    out = capsys.readouterr().out
    assert "training 1 epoch of batches" in out
    assert "few data, 32 to train and 4 to test: the numbers below say little of other data" in out
    assert pyrovae(f"compare real.csv {TINY} --epochs 2 --prior normal --out compared") == 0
    assert "1 model, 2 epochs of batches" in capsys.readouterr().out
    np.save("many.npy", np.random.default_rng(0).normal(size=(100, 5)))
    assert pyrovae(f"fit many.npy {TINY} --out many") == 0
    assert "few data" not in capsys.readouterr().out


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("header", ["", "a{0}b\n", '"a, b"{0}"c; d"\n'])
def test_columns_between_commas_semicolons_or_tabs(mark, header, desk):
    rows = "\n".join(f"{i}.5{mark}-{i}e-3" for i in range(12))
    (desk / "table.csv").write_text(header.format(mark) + rows + "\n\n")
    expected = torch.tensor([[i + 0.5, -i / 1000] for i in range(12)])
    torch.testing.assert_close(pv.data.rows("table.csv"), expected)


def test_data_print_as_one_line():
    assert repr(pv.data.digits()) == "Data('digits', train=1437, val=180, test=180, event_shape=(64,))"


@pytest.mark.parametrize(("active", "kl", "said"), [(0, 0.3, True), (0, 3.3, False), (2, 0.5, False)])
def test_a_collapsed_model_is_said_to_be(active, kl, said, capsys):
    """A code on the simplex has no active unit by variance and carries much; that of a small table the reverse."""
    vae = pv.build_vae((6,), 2, likelihood="normal", hidden=(4,))
    numbers = pv.metrics.evaluate(vae, torch.zeros(5, 6), num_samples=2)
    print_table({**numbers, "active_units": active, "kl": kl})
    assert ("The code carries less than 1 nat" in capsys.readouterr().out) == said


@pytest.mark.parametrize(
    ("distance", "zeros", "num", "said"),
    [
        (0.0, 0.75, 1, "All data share one support, 3.0 of 12 coordinates (mean Jaccard distance 0.00)"),
        (0.04, 0.5, 7, "Nearly all data share one support, 6.0 of 12 coordinates (mean Jaccard distance 0.04)"),
        (0.05, 0.5, 7, None),
        (0.0, 1.0, 1, None),
        (None, 0.0, None, None),
    ],
    ids=["one support", "nearly one", "varied", "empty codes", "no zeros"],
)
def test_one_support_for_all_data_is_said(distance, zeros, num, said, capsys):
    """By ``fit``, and by ``compare`` with the name of the run; what to try stands there once."""
    vae = pv.build_vae((6,), 12, likelihood="normal", hidden=(4,))
    numbers = pv.metrics.evaluate(vae, torch.zeros(5, 6), num_samples=2)
    numbers |= {"support_jaccard": distance, "exact_zeros": zeros, "num_supports": num}
    print_table(numbers)
    printed = capsys.readouterr().out
    row = {**numbers, "rate": 1.0, "distortion": 1.0, "accuracy": None, "accuracy_standard_error": None, "error": None}
    rows = [{**row, "prior": name, "run": name, "seconds": 1.0} for name in ("one", "two")]
    print_rows(rows, ["prior"], 5)
    compared = capsys.readouterr().out
    for text, names in ((printed, [""]), (compared, ["one: ", "two: "])):
        lines = [line for line in text.splitlines() if "share one support" in line]
        assert len(lines) == (len(names) if said else 0)
        for line, name in zip(lines, names, strict=False):
            assert line.startswith(f"  {name}{said}: the code chooses dimensions and is not sparse per datum.")
        assert text.count("Try --network dictionary") == bool(said)


def test_the_advice_to_a_shared_support_can_be_followed():
    for prior in ("spike-slab:active=0.1", "rectified-normal:loc=-1.3:scale=1"):
        vae = pv.build_vae((6,), 3, prior=prior, network="dictionary", hidden=(4,))
        assert not {"active.raw", "loc"} & {name for name, _ in vae.prior.named_parameters()}, "fixed, not learned"


@pytest.mark.parametrize(("spread", "said"), [(0.0, True), (30.0, False)])
def test_gates_that_do_not_follow_the_data_are_measured_and_said(spread, said, capsys):
    torch.manual_seed(0)
    vae = pv.build_vae((6,), 3, prior="spike-slab", likelihood="normal", hidden=(8,))
    with torch.no_grad():  # the last outputs are the logits of gates
        vae.posterior.head.weight[-3:] *= spread
        vae.posterior.head.bias[-3:] = torch.tensor([-60.0, 60.0, 60.0]) if said else torch.zeros(3)
    numbers = pv.metrics.evaluate(vae, torch.randn(200, 6), num_samples=2)
    print_table(numbers)
    expected = "  All data share one support, 2.0 of 3 coordinates (mean Jaccard distance 0.00): the code chooses"
    assert (expected in capsys.readouterr().out) == said
    assert (numbers["support_jaccard"] == 0, numbers["num_supports"] == 1) == (said, said)
