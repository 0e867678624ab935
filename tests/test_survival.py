"""Commands that are killed at a bad moment, or meet another one: nothing is lost, and --resume ends what was begun."""

import ctypes
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from kills import content
from test_cli import pyrovae, read, tree

import pyrovae as pv
from pyrovae import runs
from pyrovae.train import checkpoints

ROOT = Path(pv.__file__).parents[1]
FIT = "fit digits --epochs 2 --hidden 8 --latent-dim 2 --no-compile --quiet --num-samples 5"
SMALL = "x.npy --epochs 2 --hidden 4 --latent-dim 2 --no-compile --quiet --num-samples 5"
# runs a command that ends by SIGKILL where the text below says; no test of the package itself is changed by it
KILLED = """
import os, signal, sys
from pyrovae import folders, places, runs
from pyrovae.cli import main
from pyrovae.infer import SVI
from pyrovae.train import checkpoints
def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
count = 0
step = SVI.step
def steps(n):
    def counted(self, *args):
        global count
        count += 1
        return die() if count > n else step(self, *args)
    SVI.step = counted
{where}
main(sys.argv[1:])
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60, 4)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def killed(command, where):
    code, environment = KILLED.format(where=where), {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, *command.split()], capture_output=True, env=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]


WHERE = {
    "between two steps": "steps(7)",
    "in the second epoch": "steps(13)",
    "while the first file takes its name": "os.replace = die",
    "while a checkpoint takes its name": "replace = os.replace\n"
    "os.replace = lambda a, b: die() if count and 'checkpoint' in str(b) else replace(a, b)\n"
    "steps(10**6)",
    "when the model was saved, before it was measured": "runs.held_out = die",
}


@pytest.mark.parametrize("where", WHERE)
def test_a_killed_fit_ends_as_the_whole_one(where, here):
    assert pyrovae(f"{FIT} --out whole") == 0
    killed(f"{FIT} --out run", WHERE[where])
    assert (here / "run").is_dir()
    assert pyrovae(f"{FIT} --out run --resume") == 0
    assert content(here / "run") == content(here / "whole")
    assert sorted(os.listdir(here / "run")) == sorted(os.listdir(here / "whole"))
    assert sorted(os.listdir(here)) == ["run", "whole", "x.npy"]


EXCHANGE = {
    "while the new one is trained": "steps(7)",
    "before the exchange": "places.exchange = die",
    "between two renames": "places.exchange = lambda *folders: False\n"
    "rename = os.rename\n"
    "def once(a, b):\n    rename(a, b)\n    die()\n"
    "os.rename = once",
    "after the exchange": "places._finish = die",
    "while the old one is removed": "os.unlink = places.Path.unlink = die",
}


@pytest.mark.parametrize("where", EXCHANGE)
def test_overwrite_loses_neither_the_old_run_nor_the_new_one(where, here, capsys):
    assert pyrovae(f"{FIT} --seed 1 --out whole") == 0
    assert pyrovae(f"{FIT} --out o") == 0
    (here / "o/precious.txt").write_text("mine")
    (here / "o/figures/mine.png").write_text("mine too")
    old = content(here / "o")
    killed(f"{FIT} --seed 1 --out o --overwrite", EXCHANGE[where])
    if where != "between two renames":  # which only systems without an exchange have
        pv.load(here / "o")
    if where in ("while the new one is trained", "before the exchange"):
        assert content(here / "o") == old
    assert pyrovae(f"{FIT} --seed 1 --out o --resume") == 0
    assert content(here / "o") == content(here / "whole")
    assert (here / "o/precious.txt").read_text() == "mine"
    assert len(list(here.rglob("mine.png"))) == 1
    assert sorted(path.name for path in here.iterdir() if path.name[0] != ".") == ["o", "whole", "x.npy"]


def test_a_replacement_that_is_not_resumed_is_begun_anew(here):
    assert pyrovae(f"{FIT} --out o") == 0
    killed(f"{FIT} --seed 1 --out o --overwrite", "steps(7)")
    assert (here / ".o.new").exists()
    assert pyrovae(f"{FIT} --seed 2 --out o --overwrite") == 0
    assert read(here / "o/config.json")["fit"]["seed"] == 2
    assert sorted(os.listdir(here)) == ["o", "x.npy"]


def test_what_appears_meanwhile_is_kept_and_a_second_writer_is_refused(here, monkeypatch, capsys):
    step, said = pv.SVI.step, []

    def meanwhile(self, *args):
        if not said:
            said.append(None)
            (here / "o/precious.txt").write_text("mine")

            def second():
                said.append(pyrovae(f"{FIT} --out o --resume"))

            thread = threading.Thread(target=second)
            thread.start()
            thread.join()
            said.append(capsys.readouterr().err.splitlines())
        return step(self, *args)

    monkeypatch.setattr(pv.SVI, "step", meanwhile)
    assert pyrovae(f"{FIT} --out o") == 0
    assert said[1] == 2
    assert said[2] == [
        "pyrovae: error: 'o' is being written by another process: wait for its end, or choose another folder"
    ]
    assert (here / "o/precious.txt").read_text() == "mine"


def test_a_failing_picture_or_measurement_costs_only_itself(here, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise RuntimeError("no such font")

    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_figures", fail)
        assert pyrovae(f"{FIT} --out pictures") == 1
    out, err = capsys.readouterr()
    assert (
        "not all pictures could be drawn: RuntimeError('no such font'); the trained model is saved in pictures" in err
    )
    assert "held-out test set" in out
    with monkeypatch.context() as patch:
        patch.setattr(pv.metrics, "evaluate", fail)
        assert pyrovae(f"{FIT} --out numbers") == 1
    assert "the run could not be measured: RuntimeError('no such font'); the trained model is saved in numbers" in (
        capsys.readouterr().err
    )
    pv.load(here / "numbers")
    monkeypatch.setattr(checkpoints, "write_state", lambda *args: pytest.fail("it was trained again"))
    assert pyrovae(f"{FIT} --out numbers --resume") == 0
    assert read(here / "numbers/metrics.json") == read(here / "pictures/metrics.json")
    assert pyrovae(f"{FIT} --out numbers --resume") == 0, "with nothing left to do"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_run_to_go_on_with(number, status, here, monkeypatch, capsys):
    assert pyrovae(f"{FIT} --out whole") == 0
    step, count = pv.SVI.step, iter(range(10**6))

    def sends(self, *args):
        if next(count) == 13:
            os.kill(os.getpid(), number)
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(pv.SVI, "step", sends)
        capsys.readouterr()
        assert pyrovae(f"{FIT} --out o") == status
    assert capsys.readouterr().err.splitlines()[-1] == "pyrovae: stopped; the run in 'o' goes on with --resume"
    assert pyrovae(f"{FIT} --out o --resume --seed 3") == 2
    assert "--resume: the run in 'o' has seed 0, not 3" in capsys.readouterr().err
    assert pyrovae(f"{FIT} --out o --resume") == 0
    assert content(here / "o") == content(here / "whole")


def test_a_comparison_goes_on_to_the_step(here):
    command = f"compare {SMALL} --prior normal,laplace"
    assert pyrovae(f"{command} --out whole") == 0
    (here / "o").mkdir()
    killed(f"{command} --out o --resume", "steps(3)")
    assert (here / "o/config.json").exists()
    killed(f"{command} --out o --resume", "steps(1)")
    assert pyrovae(f"{command} --out o --resume") == 0
    for prior in ("normal", "laplace"):
        assert content(here / "o" / prior) == content(here / "whole" / prior)
    killed(f"{command} --out p", "from pyrovae.cli import comparing\ncomparing.prepare = die")
    assert os.listdir(here / "p") == ["config.json"]
    assert pyrovae(f"{command} --out p --resume") == 0


def test_evaluate_writes_its_files_together(here, monkeypatch, capsys):
    assert pyrovae(f"{FIT} --out o") == 0
    write, names = runs.save_bytes, []

    def signals(path, data):
        names.append(path.name)
        if len(names) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        write(path, data)

    monkeypatch.setattr(runs, "save_bytes", signals)
    capsys.readouterr()
    assert pyrovae("evaluate o --num-samples 5") == 130
    assert capsys.readouterr().err.splitlines()[-1] == "pyrovae: stopped"
    assert len(names) > 2
    assert all((here / "o/figures" / name).exists() for name in names)


def test_a_full_disk_names_the_file(here, monkeypatch):
    (here / "history.csv").write_text("old")

    def full(*names):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"'.*history.csv' cannot be written: No space left on device"):
        pv.train.write_history({"epoch": [1]}, here / "history.csv")
    assert (here / "history.csv").read_text() == "old"
    assert sorted(os.listdir(here)) == ["history.csv", "x.npy"]


def limited():
    """No file can have more than 4,000 bytes; a disk that is full ends a write in the same place."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))


def unprivileged():
    """A folder that is read-only is so for root too."""
    ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE


LARGE, DENIED = "cannot be written: File too large", "cannot be written: Permission denied"
FAULTS = {
    "a new run on a full disk": (limited, f"{FIT} --out new", f"'new/checkpoint.safetensors' {LARGE}"),
    "an old run on a full disk": (limited, f"{FIT} --seed 1 --out o --overwrite", f"checkpoint.safetensors' {LARGE}"),
    "draws on a full disk": (limited, "sample o --out x.npy --overwrite", f"'x.npy' {LARGE}"),
    "an old run in a read-only folder": (unprivileged, f"{FIT} --seed 1 --out o --overwrite", DENIED),
    "codes in a read-only folder": (unprivileged, "encode o", f"'o/codes.npy' {DENIED}"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "o"
    assert pyrovae(f"{FIT} --out {out}") == 0
    return out


@pytest.mark.parametrize("fault", FAULTS)
def test_a_command_that_cannot_write_names_the_file_and_leaves_what_was_there(fault, here, finished):
    before, command, said = FAULTS[fault]
    shutil.copytree(finished, here / "o")
    (here / "o/precious.txt").write_text("mine")
    was = tree(here)
    for folder in (here, here / "o"):
        folder.chmod(0o555 if before is unprivileged else 0o755)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "pyrovae", *command.split()]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, preexec_fn=before)
    for folder in (here, here / "o"):
        folder.chmod(0o755)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert re.search(said, done.stderr), done.stderr
    assert tree(here) == was


def test_two_processes_on_one_folder(here):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "pyrovae", *f"{FIT} --out o --resume".split()]
    each = [subprocess.Popen(words, stdout=-1, stderr=-1, text=True, env=environment) for _ in range(2)]
    errors = [process.communicate()[1] for process in each]
    ends = sorted(zip((process.returncode for process in each), errors, strict=True))
    assert ends[0] == (0, "")
    assert ends[1][0] in (0, 2)
    assert ends[1][0] == 0 or re.fullmatch(r"pyrovae: error: 'o' is being written by another .*\n", ends[1][1])
    pv.load(here / "o")
    assert read(here / "o/metrics.json")


def test_runs_killed_by_chance():
    """Three priors, killed at random moments or while they write; ``python tests/kills.py 30`` kills more of them."""
    words = [sys.executable, str(ROOT / "tests/kills.py"), "3", "--only", "fit", "--seed", "2"]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stdout + done.stderr
