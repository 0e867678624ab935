"""Imports between the rooms of pyrovae point down only, in functions too."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pyrovae"

# Each room, from top to bottom, with the rooms it may import. A new room needs a line here and one in docs/map.md.
BELOW: dict[str, set[str]] = {
    # "pyrovae" is the package itself
    "cli": {
        "features",
        "runs",
        "plots",
        "compression",
        "metrics",
        "train",
        "optim",
        "build",
        "vae",
        "data",
        "conditional",
        "likelihoods",
        "rows",
        "files",
        "places",
        "folders",
        "processes",
        "pyrovae",
    },
    "features": {
        "metrics",
        "train",
        "infer",
        "objectives",
        "optim",
        "build",
        "vae",
        "guides",
        "likelihoods",
        "priors",
        "data",
        "distributions",
        "hyper",
        "nn",
        "schema",
    },
    "runs": {"plots", "train", "build", "vae", "data", "rows", "schema", "files"},
    "sklearn": {"metrics", "train", "optim", "build", "compilation", "objectives", "vae"},
    "plots": {"metrics", "train", "adversarial", "vae", "rows"},
    "compression": {"vae", "distributions", "guards"},
    "metrics": {"compilation", "objectives", "vae", "guides", "distributions", "guards", "rows"},
    "train": {
        "random_state",
        "infer",
        "optim",
        "objectives",
        "build",
        "vae",
        "data",
        "likelihoods",
        "guards",
        "rows",
        "schema",
        "folders",
        "files",
        "processes",
    },
    "adversarial": {
        "infer",
        "objectives",
        "vae",
        "priors",
        "guides",
        "compilation",
        "distributions",
        "guards",
        "schema",
    },
    "infer": {"compilation", "objectives", "guards", "private", "processes", "schema"},
    "optim": {"objectives", "names"},
    "objectives": {"guards", "distributions"},
    "build": {"conditional", "vae", "priors", "likelihoods", "guides", "nn", "guards", "names", "schema", "files"},
    "conditional": {"vae", "compilation", "guards"},
    "vae": {"compilation", "guards"},
    "priors": {"distributions", "hyper"},
    "likelihoods": {"distributions", "hyper", "nn", "private"},
    "guides": {"distributions", "hyper", "nn", "private"},
    "compilation": {"guards", "private", "rows"},
    "distributions": set(),
    "random_state": {"guards"},
    "guards": {"private"},
    "private": set(),
    "hyper": set(),
    "names": set(),
    "nn": set(),
    "data": {"rows", "schema", "files", "processes"},
    "processes": set(),
    "rows": set(),
    "schema": set(),
    "places": {"folders"},
    "folders": set(),
    "files": set(),
}
# What only some rooms may import from outside.
ONLY = {
    "matplotlib": {"plots"},
    "click": {"cli"},
    "jinja2": {"plots"},
    "markupsafe": {"plots"},
    "torchvision": {"data"},
    "sklearn": {"sklearn", "data", "metrics"},
    "scipy": {"metrics"},
    "constriction": {"compression"},
}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(source: str, package: str) -> Iterator[str]:
    """The full name of everything that a source imports; ``package`` is what its relative imports start from."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            start = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [start, node.module]))
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in ("import_module", "__import__"):
                yield str(node.args[0].value)


def upward(room: str, source: str, package: str = "pyrovae") -> list[str]:
    """The imports of a room's source that do not point down."""
    bad = []
    for name in imported(source, package):
        top, *rest = name.split(".")
        if top == "pyrovae":
            target = rest[0] if rest and rest[0] in BELOW else "pyrovae"
            if target != room and target not in BELOW[room]:
                bad.append(name)
        elif room not in ONLY.get(top, {room}):
            bad.append(name)
    if room == "nn":
        bad += [name for name in imported(source, package) if name.split(".")[0] == "pyro"]
    return bad


SOURCES = [
    path for path in sorted(PACKAGE.rglob("*.py")) if path not in (PACKAGE / "__init__.py", PACKAGE / "__main__.py")
]


def test_every_room_has_a_place() -> None:
    assert {room_of(path) for path in SOURCES} == set(BELOW)


def test_the_places_themselves_point_down() -> None:
    order = list(BELOW)
    for room, below in BELOW.items():
        assert below - {"pyrovae"} <= set(order[order.index(room) + 1 :]), room


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    package = ".".join(["pyrovae", *path.relative_to(PACKAGE).parts[:-1]])
    assert upward(room_of(path), path.read_text(), package) == []


@pytest.mark.parametrize(
    ("room", "source", "bad"),
    [
        ("priors", "from pyrovae.vae import VAE", "pyrovae.vae.VAE"),
        ("priors", "from pyrovae import guides", "pyrovae.guides"),
        ("guards", "import pyrovae.distributions.kl", "pyrovae.distributions.kl"),
        ("vae", "def f():\n    from pyrovae.train import fit", "pyrovae.train.fit"),
        ("vae", "from . import priors", "pyrovae.priors"),
        ("vae", "from .train import fit", "pyrovae.train.fit"),
        ("train", "import pyrovae as pv", "pyrovae"),
        ("metrics", "from pyrovae import VAE", "pyrovae.VAE"),
        ("data", "import importlib\nimportlib.import_module('pyrovae.nn')", "pyrovae.nn"),
        ("metrics", "def f():\n    import matplotlib.pyplot as plt", "matplotlib.pyplot"),
        ("nn", "import pyro.nn", "pyro.nn"),
    ],
)
def test_an_upward_import_is_caught(room: str, source: str, bad: str) -> None:
    assert upward(room, source) == [bad]


def test_an_upward_import_from_a_folder_is_caught() -> None:
    assert upward("distributions", "from .. import vae", "pyrovae.distributions") == ["pyrovae.vae"]
    assert upward("distributions", "from . import kl", "pyrovae.distributions") == []


def test_downward_imports_pass() -> None:
    assert upward("cli", "import pyrovae as pv\nfrom pyrovae.build import PRIORS\nimport click") == []
    assert upward("build", "from pyrovae import guides, priors\nfrom pyrovae.vae import VAE") == []


def test_the_map_shows_the_imports_that_there_are() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\|([^|]*)\|$", (ROOT / "docs" / "map.md").read_text(), re.MULTILINE)
    for room, cell in rows:
        found = set()
        for path in SOURCES:
            if room_of(path) == room:
                names = [
                    name.split(".") for name in imported(path.read_text(), "pyrovae") if name.startswith("pyrovae")
                ]
                found |= {name[1] if len(name) > 1 else "pyrovae" for name in names} - {room}
        assert set(re.findall(r"`(\w+)`", cell)) == found, room
