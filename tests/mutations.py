"""Damaged run folders, reproducible by a seed: bits, truncations, swaps, sizes, dtypes, names, JSON.

``python tests/mutations.py 1000`` tries as many and prints how many were refused and how many were harmless.
"""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import torch

import pyrovae as pv
from pyrovae import runs

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


def attempts(num: int, seed: int, folder: Path):
    """So many damaged runs below a folder, one at a time: what was done to each, and what came of it."""
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
        yield done, "harmless" if unchanged and done[:7] != "special" else outcome(folder / "run", vae, config)
        shutil.rmtree(folder / "run")


def main(num: int) -> None:
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for done, result in attempts(num, 0, Path(folder)):
            counts[result] += 1
            if result not in ("refused", "harmless"):
                print(f"{done}: {result}")
        print(dict(counts), "code was executed" if Path("executed").exists() else "no code was executed")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
