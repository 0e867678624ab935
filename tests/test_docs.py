"""The README and the pages of docs/ are true: their Python runs, their commands parse, their links and tables hold.

A fenced block that must not run is not called ``python``. The blocks of one page share a namespace.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pyro
import pytest
import torch

from pyrovae import build
from pyrovae.cli import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITHOUT_PYTHON = {"benchmarks.md", "priors.md"}
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def page_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(text: str, language: str) -> Iterator[tuple[int, str]]:
    """The line before each block of a language, and its text."""
    for match in BLOCK.finditer(text):
        if match[1] == language:
            yield text[: match.start()].count("\n") + 1, match[2]


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of each ``pyrovae`` command in shell blocks and in inline code."""
    lines = [line for _, block in blocks(text, "bash") for line in block.splitlines()]
    lines += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", BLOCK.sub("", text))]
    for line in lines:
        for part in re.split(r"&&|\|", line):
            if not re.search(r"\bpyrovae\s", part):
                continue
            words = [word for word in shlex.split(part, comments=True) if not re.fullmatch(r"[A-Z_]+=\S*", word)]
            if Path(words[0]).name == "pyrovae":
                yield words[1:]


def parse(args: list[str]) -> None:
    """All that click does with a command before it runs; UsageError when an option does not exist or a value is bad."""
    group = cli.make_context("pyrovae", list(args))
    with group:
        name, command, rest = cli.resolve_command(group, [*group._protected_args, *group.args])
        assert command is not None
        command.make_context(name, rest, parent=group).close()


def broken_links(path: Path, text: str) -> list[str]:
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    local = [target.partition("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]
    return [target for target in local if not (path.parent / target).exists()]


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Pyro's parameters and torch's random state are put back after."""
    with pyro.get_param_store().scope(), torch.random.fork_rng():
        yield


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_python_blocks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__page__"}
    found = list(blocks(path.read_text(), "python"))
    assert bool(found) == (path.name not in WITHOUT_PYTHON)
    for line, block in found:
        # blank lines in front put the page's own line numbers into a traceback
        exec(compile("\n" * line + block, str(path), "exec"), namespace)


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_commands_parse(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for args in commands(path.read_text()):
        if "--config" in args:  # the one option that reads a file when it is parsed
            config = Path(args[args.index("--config") + 1])
            config.parent.mkdir(parents=True, exist_ok=True)
            config.write_text("{}")
        try:
            parse(args)
        except click.UsageError as error:
            pytest.fail(f"{page_id(path)}: pyrovae {' '.join(args)}: {error.format_message()}")


@pytest.mark.parametrize("path", LINKED, ids=page_id)
def test_links_and_pictures_exist(path: Path) -> None:
    assert broken_links(path, path.read_text()) == []


def test_the_checks_see_what_is_wrong() -> None:
    text = (
        "```bash\nX=1 .venv/bin/pyrovae fit digits --nope 1 --out a && pyrovae sample a\n```\n`pyrovae encode\nruns/a`"
    )
    assert list(commands(text)) == [
        ["fit", "digits", "--nope", "1", "--out", "a"],
        ["sample", "a"],
        ["encode", "runs/a"],
    ]
    for args in (["fit", "digits", "--nope", "1", "--out", "a"], ["fit", "digits"], ["train", "digits"]):
        with pytest.raises(click.UsageError):
            parse(args)
    assert broken_links(ROOT / "README.md", "[a](docs/nowhere.md#x) ![b](LICENSE) [c](https://x.org)") == [
        "docs/nowhere.md"
    ]


def test_commands_are_found_at_all() -> None:
    readme = list(commands((ROOT / "README.md").read_text()))
    assert {args[0] for args in readme} == {"fit", "evaluate", "report", "encode", "sample", "compare"}
    assert ["fit", "digits", "--out", "runs/digits"] in readme


def test_readme_lists_every_part_by_name() -> None:
    text = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| [^|`]+ \| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    assert rows[0] == ("`--prior`", "`--guide`")
    priors, guides = (re.findall(r"`([^`]+)`", " ".join(column)) for column in zip(*rows[1:], strict=True))
    assert sorted(priors) == sorted(build.PRIORS)
    assert set(guides) == set(build.GUIDES)
    listed = " ".join(f"`{name}`" for name in build.LIKELIHOODS)
    assert listed in " ".join(text.split())


def test_priors_page_has_every_prior_by_name_and_class() -> None:
    text = (ROOT / "docs" / "priors.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| `(\w+)` \|", text, re.MULTILINE)
    assert sorted(rows) == sorted((name, getattr(p, "func", p).__name__) for name, p in build.PRIORS.items())
    choice = text.partition("## ")[0]
    assert sorted(re.findall(r"`([a-z-]+)`", choice.partition("| the code should be")[2])) == sorted(build.PRIORS)
    assert set(build.GUIDES) <= set(re.findall(r"`([a-z-]+)`", text))


def test_map_lists_every_room() -> None:
    rooms = {path.stem for path in (ROOT / "pyrovae").iterdir() if not path.name.startswith(("_", "."))} - {"py"}
    listed = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "map.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(rooms)


def test_guards_page_numbers_its_rows_and_no_error_names_a_number() -> None:
    table = re.findall(r"^\| (S\d+) \|.*\|$", (ROOT / "docs" / "guards.md").read_text(), re.MULTILINE)
    assert table == [f"S{i}" for i in range(1, 18)]
    source = "".join(path.read_text() for path in (ROOT / "pyrovae").rglob("*.py"))
    assert not re.findall(r"\(S\d+", source)


def test_ci_finds_the_test_command_of_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    after = text.partition("\n<!-- tests -->\n")[2]
    assert after.startswith("```bash\n")
    awk = re.search(r"tests=\$\(awk '(.*?)' ", (ROOT / ".ci" / "run").read_text())
    assert awk is not None
    command = subprocess.run(["awk", awk[1], ROOT / "README.md"], capture_output=True, text=True, check=True).stdout
    assert command == next(blocks(after, "bash"))[1]
    assert "pytest" in command


def test_a_formula_stands_apart_in_every_docstring() -> None:
    """Without a blank line before it, it is a part of the paragraph."""
    for path in sorted((ROOT / "pyrovae").rglob("*.py")):
        assert not re.findall(r"\S[^\n]*\n *\.\. math::", path.read_text()), page_id(path)
