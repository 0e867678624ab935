"""Damaged run folders and checkpoints, reproducible by a seed: bits, truncations, swaps, sizes, dtypes, names, JSON.

``python tests/mutations.py 1000`` gives as many damaged runs to ``pyrovae sample``, and a tenth as many damaged
checkpoints to ``pyrovae fit --resume``, each in a process of its own. It prints how many were refused and how many were
harmless, and the most memory and time that one took; a refusal is one line and the exit status 2.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.torch
import torch

import pyrovae as pv
from pyrovae import runs
from pyrovae.cli import main as command_line
from pyrovae.train import states

WEIGHTS, CONFIG = "model.safetensors", "config.json"
CANARY = "open('executed', 'w').close()\nclass Part:\n    pass\n"
CODE = (
    "subprocess.Popen:args='touch executed':shell=True",
    "os.system",
    "builtins.exec:source=1",
    "canary.Part",
    "runpy.run_path:path_name='canary.py'",
    "__import__('os').system('touch executed')",
)
VALUES = (None, True, -1, 0, 1.5, 1e308, 2**31, 2**63, 10**12, "x", "", [], [1], {}, {"a": [{}]}, [[10**9] * 20])


def make_run(folder: Path) -> pv.VAE:
    """A run of a table of four columns, as ``pyrovae fit`` writes one."""
    torch.manual_seed(0)
    vae = pv.build_vae((4,), 3, prior="spike-slab:slab=laplace", likelihood="normal", hidden=(6, 5), norm="layer")
    scales = {"loc": [0.5, -1.0, 3.0, 0.0], "scale": [1.0, 2.0, 0.25, 1.0]}
    data = {"name": "table.csv", "binarize": None, "seed": 3, "data_dir": None, "standardization": scales}
    pv.save(vae, folder, data=data, fit={"epochs": 3})
    return vae


def damage(folder: Path, random_: random.Random) -> str:
    """Damage a run in one of the ways below; what was done, in words."""
    way = random_.choice(WAYS)
    return f"{way.__name__}: {way(folder, random_)}"


def bit(folder, random_):
    path = folder / random_.choice((WEIGHTS, CONFIG))
    raw = bytearray(path.read_bytes())
    place = random_.randrange(len(raw))
    raw[place] ^= 1 << random_.randrange(8)
    path.write_bytes(raw)
    return f"{path.name} at {place}"


def block(folder, random_):
    path = folder / random_.choice((WEIGHTS, CONFIG))
    raw = bytearray(path.read_bytes())
    size = random_.randrange(1, 200)
    start, other = (random_.randrange(max(1, len(raw) - size)) for _ in range(2))
    raw[start : start + size] = bytes(size) if random_.random() < 0.5 else raw[other : other + size]
    path.write_bytes(raw)
    return f"{path.name}, {size} bytes at {start}"


def cut(folder, random_):
    path = folder / random_.choice((WEIGHTS, CONFIG))
    raw = path.read_bytes()
    path.write_bytes(raw[: random_.randrange(len(raw))] + random_.choice((b"", b"\0" * 40)))
    return path.name


def header(folder, random_):
    """A name, dtype, shape or place in the header of the weights."""
    path = folder / WEIGHTS
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    entries = json.loads(raw[8 : 8 + size])
    names = [name for name in entries if name != "__metadata__"]
    one, other = random_.sample(names, 2)
    what = random_.choice(("swap", "dtype", "shape", "offsets", "name", "size", "deep"))
    if what == "swap":
        entries[one], entries[other] = entries[other], entries[one]
    elif what == "dtype":
        entries[one]["dtype"] = random_.choice(("I32", "U32", "F16", "F64", "C64", "F8_E4M3", 7))
    elif what == "shape":
        entries[one]["shape"] = random_.choice(([], [10**12], [2**40, 2**40], [-1], [*entries[one]["shape"][::-1], 1]))
    elif what == "offsets":
        entries[one]["data_offsets"] = random_.choice(([0, 4], [0, 10**15], entries[other]["data_offsets"]))
    elif what == "name":
        entries[one + "_"] = entries.pop(one)
    text = json.dumps(entries) if what != "deep" else "[" * 100_000
    length = random_.choice((0, 7, 2**40, 2**63)) if what == "size" else len(text)
    path.write_bytes(length.to_bytes(8, "little") + text.encode() + raw[8 + size :])
    return f"{what} of {one}"


def other_weights(folder, random_):
    """The weights of another model of the same shapes."""
    torch.manual_seed(random_.randrange(1000))
    vae = pv.build_vae((4,), 3, prior="spike-slab:slab=laplace", likelihood="normal", hidden=(6, 5), norm="layer")
    with tempfile.TemporaryDirectory() as other:
        pv.save(vae, other)
        shutil.copy(Path(other) / WEIGHTS, folder)
    return ""


def value(folder, random_):
    """Another value somewhere in the config, or a key that is gone or new."""
    config = json.loads((folder / CONFIG).read_text())
    places: list = [(config, key) for key in config]
    for name in ("model", "data"):
        places += [(config[name], key) for key in config[name]] * 2
    places += [(config["data"]["standardization"], key) for key in ("loc", "scale")] * 2
    parent, key = random_.choice(places)
    what = random_.choice(("set", "set", "set", "drop", "add"))
    if what == "set":
        parent[key] = random_.choice(VALUES)
    elif what == "drop":
        del parent[key]
    else:
        parent["unknown"] = parent[key]
    (folder / CONFIG).write_text(json.dumps(config))
    return f"{what} {key}"


def text(folder, random_):
    """JSON that is deep, long, not finite or none."""
    deep = "[" * 100_000, '{"model":' * 100_000, '{"format": 1, "sha256": "", "model": ' + "[" * 100_000
    other = "", "null", "NaN", '{"model": {"latent_dim": NaN}}', "9" * 10_000, " " * 6_000_000, "\xff"
    whole = (folder / CONFIG).read_text()
    infinite = whole.replace('"seed": 3', '"seed": 1e999'), whole.replace("0.25", "Infinity")
    content = random_.choice((*deep, *other, *infinite))
    (folder / CONFIG).write_text(content, encoding="latin-1")
    return content[:30]


def code(folder, random_):
    """A name of code instead of a part."""
    config = json.loads((folder / CONFIG).read_text())
    part = random_.choice(("prior", "guide", "likelihood", "corrupt", "network", "norm"))
    config["model"][part] = random_.choice(CODE)
    if random_.random() < 0.5:  # with a hash that is right, as somebody who means harm would write it
        sign(folder, config)
    (folder / CONFIG).write_text(json.dumps(config))
    return f"{part} {config['model'][part]}"


def huge(folder, random_):
    """A model that would not fit in memory, with a hash that is right."""
    config = json.loads((folder / CONFIG).read_text())
    changes = (
        {"latent_dim": 10**9},
        {"hidden": [2 * 10**9, 2 * 10**9]},
        {"hidden": [8] * 900},
        {"event_shape": [10**5, 10**4]},
        {"event_shape": [2**31 - 1] * 5},
        {"prior": "flow", "latent_dim": 10**5, "guide": "normal"},
        {"prior": "mixture", "num_components": 10**9, "guide": "normal"},
        {"prior": "vamp", "num_components": 10**9, "guide": "normal"},
        {"likelihood": "categorical", "num_classes": 10**9},
        {"network": "conv", "event_shape": [3, 10**6, 10**6], "hidden": [9], "residual": 900},
        {"num_labels": 10**9},
        {"guide": "low-rank-normal:rank=1000000000"},
        {"prior": "spike-slab:active=" + "(" * 5_000},
        {"prior": "spike-slab:active=" + "-" * 90_000 + "1"},
    )
    change = random_.choice(changes)
    config["model"].update(change)
    sign(folder, config)
    (folder / CONFIG).write_text(json.dumps(config))
    return str(change)[:60]


def special(folder, random_):
    """A pipe or a device instead of a file."""
    path = folder / random_.choice((WEIGHTS, CONFIG))
    path.unlink()
    what = random_.choice(("pipe", "/dev/zero", "folder", "nothing"))
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what != "nothing":
        path.symlink_to(what)
    return f"{path.name} is {what}"


WAYS = (bit, bit, block, cut, header, header, other_weights, value, value, value, text, code, code, huge, special)


def sign(folder, config):
    from safetensors.torch import load_file

    from pyrovae.build.config import digest

    config["sha256"] = digest(config, load_file(folder / WEIGHTS))


def outcome(folder: Path, vae: pv.VAE, config: dict) -> str:
    """``refused``, ``harmless``, or what is wrong with the way in which a damaged run was read."""
    try:
        loaded, read = runs.load_run(folder, "cpu")
    except (ValueError, OSError) as error:
        return "refused" if "\n" not in str(error) and str(error) else f"more than one line: {error}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    own, other = vae.state_dict(), loaded.state_dict()
    same = own.keys() == other.keys() and all(torch.equal(own[name], other[name]) for name in own)
    for kept in (read, config := copy.deepcopy(config)):
        for place in ("name", "data_dir"):
            kept["data"].pop(place, None)
    return "harmless" if same and all(read[name] == config[name] for name in ("model", "data")) else "other numbers"


MOST_MEGABYTES, MOST_SECONDS = 500, 10  # that a damaged file may take
CHECKPOINT = "checkpoint.safetensors"
FIT = "fit x.npy --epochs 3 --hidden 4 --latent-dim 2 --no-compile --quiet --num-samples 5"


def attempts(num: int, seed: int, folder: Path, look: Callable[[Path, str], str] = lambda run, result: result):
    """So many damaged runs below a folder, one at a time: what was done to each, and what came of it.

    ``look`` is given a run and what came of it, and may know better.
    """
    vae = make_run(folder / "whole")
    config = json.loads((folder / "whole" / CONFIG).read_text())
    (folder / "canary.py").write_text(CANARY)
    for number in range(num):
        shutil.copytree(folder / "whole", folder / "run")
        done = damage(folder / "run", random.Random(f"{seed} {number}"))
        unchanged = all(
            (folder / "run" / name).is_file()
            and (folder / "run" / name).read_bytes() == (folder / "whole" / name).read_bytes()
            for name in (WEIGHTS, CONFIG)
            if not (folder / "run" / name).is_symlink()
        )
        result = "harmless" if unchanged and done[:7] != "special" else outcome(folder / "run", vae, config)
        yield done, look(folder / "run", result)
        shutil.rmtree(folder / "run")


def make_checkpoint(folder: Path) -> None:
    """``whole``, a run of x.npy that is finished, and ``begun``, the same with the checkpoint of its first epoch."""
    np.save("x.npy", np.random.default_rng(0).normal(size=(60, 4)))
    for name, epochs in (("whole", 3), ("begun", 1)):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            command_in_process(f"{FIT} --out {folder / name}".replace("--epochs 3", f"--epochs {epochs}"))
    config = json.loads((folder / "begun" / CONFIG).read_text())
    config["fit"]["epochs"], config["training"] = 3, {"finished": False}
    (folder / "begun" / CONFIG).write_text(json.dumps(config))
    for name in (WEIGHTS, "metrics.json"):
        (folder / "begun" / name).unlink()


def damage_checkpoint(path: Path, random_: random.Random) -> str:
    """Damage a checkpoint; one whose JSON is forged has a hash that is right."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    entries = json.loads(raw[8 : 8 + size])
    what = random_.choice(("bit", "bit", "block", "cut", "swap", "dtype", "shape", "size", "deep", "value", "value",
                           "value", "special"))  # fmt: skip
    place = random_.randrange(len(raw))
    if what == "bit":
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 1 << random_.randrange(8)]) + raw[place + 1 :])
    elif what == "block":
        path.write_bytes(raw[:place] + bytes(min(100, len(raw) - place)) + raw[place + 100 :])
    elif what == "cut":
        path.write_bytes(raw[:place])
    elif what == "special":
        path.unlink()
        kind = random_.choice(("pipe", "/dev/zero", "folder"))
        os.mkfifo(path) if kind == "pipe" else path.mkdir() if kind == "folder" else path.symlink_to(kind)
        return kind
    else:
        one, other = random_.sample([name for name in entries if name != "__metadata__"], 2)
        text = entries["__metadata__"]["state"]
        if what == "swap":
            entries[one], entries[other] = entries[other], entries[one]
        elif what == "dtype":
            entries[one]["dtype"] = random_.choice(("I32", "F64", "F8_E4M3"))
        elif what == "shape":
            entries[one]["shape"] = random_.choice(([10**12], [2**40, 2**40], [-1], [*entries[one]["shape"], 1, 1]))
        elif what == "deep":
            text = random_.choice(("[" * 100_000, '{"dict": [["a", ' * 100_000, "[" * 100_000 + "]" * 100_000))
        elif what == "value":
            tree = json.loads(text)
            places = list(_places(tree))
            holder, key = random_.choice(places)
            what = f"value {str(holder[key])[:30]}"
            holder[key] = random_.choice((*VALUES, {"tensor": one}, {"dict": []}, {"tuple": [1, "a"]}))
            text = json.dumps(tree)
        entries["__metadata__"].update(state=text, sha256=states._hash(text))
        head = json.dumps(entries).encode()
        length = random_.choice((0, 7, 2**40, 2**63)) if what == "size" else len(head)
        path.write_bytes(length.to_bytes(8, "little") + head + raw[8 + size :])
    return what


def _places(tree):
    """Every value in a tree, as what holds it and its key; the values of large lists are few of them."""
    items = list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)) if isinstance(tree, list) else []
    for key, each in items[:40]:
        yield tree, key
        yield from _places(each)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and not path.is_symlink()}


class Took(NamedTuple):
    """What a command took, and what it said on stderr."""

    status: int
    said: str
    megabytes: float = 0.0
    seconds: float = 0.0

    def wrong(self) -> str:
        """What is wrong with it, or nothing."""
        if self.status == 2 and len(self.said.splitlines()) != 1:
            return f"said {self.said[-300:]!r}"
        if self.status not in (0, 2):
            return f"exit status {self.status}: {self.said[-300:]!r}"
        if self.megabytes > MOST_MEGABYTES or self.seconds > MOST_SECONDS:
            return f"took {self.megabytes:.0f} MB and {self.seconds:.1f} s"
        return ""


def resumptions(num: int, seed: int, folder: Path, run: Callable[[str], Took]):
    """So many damaged checkpoints, resumed by a command: what was done to each, and what came of it."""
    make_checkpoint(folder)
    expected = safetensors.torch.load_file(folder / "whole" / WEIGHTS)
    for number in range(num):
        shutil.copytree(folder / "begun", folder / "o")
        done = damage_checkpoint(folder / "o" / CHECKPOINT, random.Random(f"{seed} {number}"))
        before = files(folder / "o")
        took = run(f"{FIT} --out {folder / 'o'} --resume")
        if took.status == 2:
            after = files(folder / "o")
            kept = after.get(CHECKPOINT) == before.get(CHECKPOINT) and (done.startswith("value") or after == before)
            result = "refused" if kept else "refused, and the folder is not what it was"
        elif took.status == 0:
            own = safetensors.torch.load_file(folder / "o" / WEIGHTS)
            same = all(torch.equal(own[name], value) for name, value in expected.items())
            # nobody can tell a forged number with the right hash
            result = "harmless" if same else "forged" if done.startswith("value") else "other numbers"
        else:
            result = "no refusal"
        yield done, result if not (wrong := took.wrong()) else f"{result}, {wrong}"
        shutil.rmtree(folder / "o")


def command_in_process(command: str) -> int:
    try:
        command_line(command.split())
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 0


def command_apart(command: str) -> Took:
    """Run a command in a process of its own, with the most memory that it had, and its seconds."""
    said = Path("said.txt")
    number = os.fork()  # all is imported already
    if not number:
        status = 1
        try:
            signal.alarm(6 * MOST_SECONDS)
            for stream, name in ((1, os.devnull), (2, str(said))):
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), stream)
            status = command_in_process(command)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    _, status, used = os.wait4(number, 0)
    seconds = used.ru_utime + used.ru_stime  # of the processor: other processes do not count
    return Took(os.waitstatus_to_exitcode(status), said.read_text(), used.ru_maxrss / 1e3, seconds)


def main(num: int) -> None:
    counts: Counter[str] = Counter()
    took: list[Took] = []

    def run(command: str) -> Took:
        each = command_apart(command)
        took.append(each._replace(megabytes=each.megabytes - nothing))
        return took[-1]

    def look(folder: Path, result: str) -> str:
        each = run(f"sample {folder} --out {folder.parent / 'samples.npy'} --overwrite")
        expected = {"refused": 2, "harmless": 0}.get(result)
        return result if each.status == expected and not each.wrong() else f"{result}; sample {each.wrong() or each}"

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        nothing = command_apart("--version").megabytes  # of a process that has imported all
        for kind, all_of in (
            ("runs", attempts(num, 0, Path(name) / "a", look)),
            ("checkpoints", resumptions(max(num // 10, 20), 0, Path(name) / "b", run)),
        ):
            counts.clear()
            took.clear()
            (Path(name) / "ab"[kind == "checkpoints"]).mkdir()
            for done, result in all_of:
                counts[result] += 1
                if result not in ("refused", "harmless", "forged"):
                    print(f"{done}: {result}", flush=True)
            most = max(each.megabytes for each in took), max(each.seconds for each in took)
            print(f"{kind}: {dict(counts)}; the most that one took: {most[0]:.0f} MB, {most[1]:.1f} s", flush=True)
        print("code was executed" if any(Path(name).rglob("executed")) else "no code was executed")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
