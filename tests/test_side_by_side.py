"""What the benchmarks share: contestants in processes that take turns, and what is made of their times. No speed."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "examples" / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("side_by_side")


def times(bench: ModuleType, seconds: list[float], parameters: int = 10, loss: float = 1.0) -> object:
    return bench.Times(parameters, loss, (10, 5.0), seconds)


def test_contestants_take_turns(bench: ModuleType) -> None:
    step = {name: bench.Contestant(bench.matrix_product, {"width": 4}, ("numpy",)) for name in ("a", "b")}
    measured = bench.compare(step, rounds=3, warm_up=7, steps=5)
    assert list(measured) == ["a", "b"]
    for found in measured.values():
        assert found.loss == 0.25  # the mean of the 4×4 identity
        assert found.warm_up[0] == 7
        assert len(found.seconds) == len(found.cores) == len(found.memory) == 3
        assert 0 < max(found.seconds) < found.warm_up[1] + 1
        assert found.peak >= max(found.memory) > 1


def test_an_error_ends_with_its_message(bench: ModuleType) -> None:
    wrong = {"wrong": bench.Contestant(bench.matrix_product, {"width": -1}, ("numpy",))}
    with pytest.raises(RuntimeError, match=r"(?s)wrong: Traceback.*negative dimensions"):
        bench.compare(wrong, rounds=1)


def test_what_is_not_installed_is_left_out(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    absent = {"absent": bench.Contestant(bench.matrix_product, {"width": 4}, ("numpy", "no_such_package.part"))}
    assert bench.compare(absent, rounds=1) == {}
    assert capsys.readouterr().out == "absent: left out, no_such_package.part not installed\n"


def test_threads_beyond_the_cpus_are_refused(bench: ModuleType) -> None:
    step = {"a": bench.Contestant(bench.matrix_product, {"width": 4}, ("numpy",))}
    for threads in (0, 100_000):
        with pytest.raises(ValueError, match="threads must be from 1 to"):
            bench.compare(step, rounds=1, threads=threads)


def test_ratio_is_taken_within_a_round(bench: ModuleType) -> None:
    a, b = [2.0, 40.0, 6.0, 9.0, 1.0], [1.0, 10.0, 2.0, 2.0, 2.0]
    band = bench.ratio(times(bench, a), times(bench, b))
    assert band == pytest.approx(np.quantile(np.divide(a, b), [0.5, 0.25, 0.75]))
    assert bench.Band.of([3.0]) == (3.0, 3.0, 3.0)


def test_start_up_is_the_warm_up_less_its_steps(bench: ModuleType) -> None:
    assert times(bench, [0.1, 0.2, 0.3]).start_up == pytest.approx(5.0 - 10 * 0.2)


def test_what_differs_is_not_compared(bench: ModuleType) -> None:
    same = {"a": times(bench, [1.0]), "b": times(bench, [1.0], loss=1.04)}
    bench.check_same(same, tolerance=0.05)
    for other in (times(bench, [1.0], loss=1.06), times(bench, [1.0], parameters=11)):
        with pytest.raises(RuntimeError, match="a and c are not the same"):
            bench.check_same({**same, "c": other}, tolerance=0.05)


def test_tables_go_between_their_markers(bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("# Page\n\n<!-- a -->\nold\n<!-- /a -->\n\nafter\n")
    monkeypatch.setattr(bench, "PAGE", page)
    for name, write, smoke in (("a", True, False), ("b", True, False), ("a", True, True), ("b", False, False)):
        options = [f"--{option}" for option, on in (("write", write), ("smoke", smoke)) if on]
        monkeypatch.setattr("sys.argv", ["a.py", *options])
        bench.publish(name, f"Title of {name} {smoke} {write}", "| t |", bench.parse(bench.arguments("")))
    before, _, rest = page.read_text().partition("<!-- a -->\n")
    inside, _, after = rest.partition("<!-- /a -->\n")
    assert before == "# Page\n\n"
    assert inside.startswith("## Title of a False True\n\n")
    assert inside.endswith("\n\n| t |\n")
    assert after.startswith("\nafter\n\n<!-- b -->\n## Title of b False True\n")
    assert after.endswith("\n| t |\n<!-- /b -->\n")
