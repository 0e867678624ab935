"""Rows that stay on the disk: each once in a pass, in an order that can be resumed, in bounded memory."""

from __future__ import annotations

import os
import signal
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from test_cli import pyrovae
from torch import Tensor

import pyrovae as pv
from pyrovae.data import OnDisk, shards
from pyrovae.rows import data_of

N, D = 1000, 6
X = np.arange(N * D, dtype=np.float32).reshape(N, D)
SMALL = {"buffer_rows": 64, "block_rows": 8}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbers(batches: Iterator[object]) -> list[int]:
    """The number of each row of X, in the order of the batches."""
    return [int(row[0]) // D for batch in batches for row in data_of(batch)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """X in three shards."""
    (tmp_path / "shards").mkdir()
    for number, rows in enumerate(np.split(X, [1, 300])):
        np.save(tmp_path / "shards" / f"{number}.npy", rows)
    return tmp_path / "shards"


def sparse_file(path: Path, num_rows: int, row_shape: tuple[int, ...], dtype: str = "<f4") -> None:
    """A ``.npy`` file of zeros that takes no space on the disk."""
    with path.open("wb") as file:
        header = {"descr": dtype, "fortran_order": False, "shape": (num_rows, *row_shape)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + num_rows * int(np.prod(row_shape)) * np.dtype(dtype).itemsize)


@pytest.mark.parametrize("batch_size", [1, 50, 64, 300, 2000])
def test_every_row_comes_once_in_a_pass(folder: Path, batch_size: int) -> None:
    data = OnDisk(folder, **SMALL)
    passes = [list(data.batches(batch_size, generator=g)) for g in (generator(), generator(), generator(1))]
    first, again, other = (numbers(iter(batches)) for batches in passes)
    assert sorted(first) == sorted(other) == list(range(N))
    assert first == again != other
    assert [len(batch) for batch in passes[0]] == [len(part) for part in torch.zeros(N).split(batch_size)]
    assert numbers(data.batches(batch_size, shuffle=False)) == list(range(N))
    assert all(batch.dtype == torch.float32 and batch.is_contiguous() for batch in passes[0])


def test_data_that_fit_in_a_buffer_are_shuffled_in_full_and_others_over_all_blocks(folder: Path) -> None:
    places = np.array([np.argsort(numbers(OnDisk(folder).batches(100, generator=generator(s)))) for s in range(40)])
    spread = places.std(0)  # of the place of a row over passes: uniform on 0 to N - 1
    assert spread.mean() == pytest.approx(N / 12**0.5, rel=0.03)
    distances = np.abs(np.diff(places, axis=1))  # of two rows beside each other in the file
    assert distances.mean() == pytest.approx(N / 3, rel=0.05)
    places = np.array(
        [np.argsort(numbers(OnDisk(folder, **SMALL).batches(100, generator=generator(s)))) for s in range(40)]
    )
    assert places.std(0).mean() == pytest.approx(N / 12**0.5, rel=0.03)
    assert np.median(np.abs(np.diff(places, axis=1))) < 64  # they share a buffer


@pytest.mark.parametrize("skip", [0, 1, 2, 9, 19, 20, 30])
def test_a_pass_that_begins_later_is_the_rest_of_the_whole_one_and_reads_no_more(
    folder: Path, skip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = OnDisk(folder, **SMALL).without(np.array([0, 5, 300, 999]))
    whole = list(data.batches(50, generator=generator()))
    read, rows = shards.Shards.read, []
    monkeypatch.setattr(shards.Shards, "read", lambda self, ranges: rows.append(len(x := read(self, ranges))) or x)
    rest = list(data.batches(50, generator=generator(), skip=skip))
    assert len(rest) == max(0, len(whole) - skip)
    assert all(map(torch.equal, rest, whole[skip:]))
    assert sum(rows) <= max(0, N - 50 * skip) + 64 + 4


def test_rows_are_left_out_and_found_by_their_index(folder: Path) -> None:
    left_out = [0, 1, 299, 300, 999]
    data = OnDisk(folder, **SMALL).without(np.array(left_out)).without(np.array([0]))  # row 2 of the file
    kept = [number for number in range(N) if number not in (*left_out, 2)]
    assert len(data) == len(kept)
    assert numbers(data.batches(50, shuffle=False)) == kept
    assert sorted(numbers(data.batches(50, generator=generator()))) == kept
    index = np.array([500, 0, 993, 0])
    assert numbers(iter([data.rows(index)])) == [kept[i] for i in index]
    assert numbers(iter([torch.stack([data[i] for i in (3, -1)])])) == [kept[3], kept[-1]]
    with pytest.raises(IndexError):
        data[994]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", ">i4", "i1", "u1", "u2", "u8", "?"])
def test_numbers_of_every_dtype_become_float32(tmp_path: Path, dtype: str) -> None:
    x = (np.arange(60).reshape(20, 3) % 2).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    batch = torch.cat(list(OnDisk(tmp_path / "x.npy").batches(7, shuffle=False)))
    assert batch.dtype == torch.float32
    assert torch.equal(batch, torch.from_numpy(x.astype(np.float32)))


def test_a_batch_is_cut_into_the_parts_of_several_processes(folder: Path) -> None:
    data = OnDisk(folder, **SMALL)

    def part(of: int):
        return list(
            data.batches(70, generator=generator(), part=lambda size: slice(of * size // 3, (of + 1) * size // 3))
        )

    whole, parts = list(data.batches(70, generator=generator())), zip(part(0), part(1), part(2), strict=True)
    assert all(torch.equal(torch.cat(three), batch) for three, batch in zip(parts, whole, strict=True))


def test_statistics_are_those_of_the_rows_in_memory(tmp_path: Path) -> None:
    x = torch.randn(5000, 4, dtype=torch.float64, generator=generator()) * torch.tensor([1.0, 1e-3, 1e6, 0.0]) + 1e3
    x[::7, 1] = torch.nan
    np.save(tmp_path / "x.npy", x.numpy())
    data, expected = OnDisk(tmp_path / "x.npy", missing=True, **SMALL), pv.data.Standardization.of(x)
    low, high, binary, num_missing, found = data.statistics()
    assert (binary, num_missing) == (False, 715)
    assert (low, high) == (float(x.nan_to_num(1e3).min()), float(x.nan_to_num().max()))
    torch.testing.assert_close(found.loc, expected.loc, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.scale, expected.scale, rtol=1e-9, atol=0)
    batches = torch.cat(list(data.standardize(expected).batches(100, shuffle=False)))
    assert torch.equal(batches.nan_to_num(), expected(x).float().nan_to_num())


class Stream:
    """The rows of a tensor, in the order of a pass over a file with the same rows."""

    def __init__(self, path: Path, x: Tensor, seed: int) -> None:
        self.order, self.x, self.generator = OnDisk(path, **SMALL), x, generator(seed)

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self.order.batches(32, generator=self.generator):
            yield self.x[(batch[:, 0] * N).round().long()]


def model(**options: object) -> pv.VAE:
    torch.manual_seed(0)
    return pv.build_vae((D,), 2, likelihood="normal", hidden=(8,), **options)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Rows between 0 and 1, whose first value tells the number of the row."""
    x = np.random.default_rng(0).random((N, D), np.float32)
    x[:, 0] = np.arange(N) / N
    np.save(tmp_path / "x.npy", x)
    return tmp_path / "x.npy"


def test_fit_gives_the_numbers_of_a_tensor_in_the_same_order(path: Path) -> None:
    x, vaes = torch.from_numpy(np.load(path)), [model(), model()]
    sources, options = [OnDisk(path, **SMALL), Stream(path, x, 3)], {"seed": 3, "progress": False, "compile": False}
    histories = [
        pv.fit(vae, data, 3, 32, val=val, **options)
        for vae, data, val in zip(vaes, sources, (OnDisk(path), x), strict=True)
    ]
    for column in ("train_loss", "val_loss"):
        assert histories[0][column] == histories[1][column]
    for ours, theirs in zip(*(vae.state_dict().values() for vae in vaes), strict=True):
        assert torch.equal(ours, theirs)


class StopAt(pv.train.Callback):
    """SIGINT during a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, run: pv.train.Run) -> None:
        if run.step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("seed", [0, None])
def test_a_run_that_is_resumed_within_an_epoch_equals_the_whole_one(
    path: Path, tmp_path: Path, seed: int | None
) -> None:
    def train(out: str, step: int = -1) -> tuple[dict[str, list[float]], dict[str, Tensor]]:
        vae = model()
        torch.manual_seed(1)
        history = pv.fit(
            vae, OnDisk(path, **SMALL), 3, 32, val=OnDisk(path), seed=seed, progress=False, compile=False,
            out=tmp_path / out, resume=True, callbacks=[StopAt(step)],
        )  # fmt: skip
        return history, vae.state_dict()

    whole = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("stopped", 45)
    resumed = train("stopped")
    assert whole[0]["train_loss"] == resumed[0]["train_loss"]
    assert whole[0]["val_loss"] == resumed[0]["val_loss"]
    assert all(torch.equal(resumed[1][name], tensor) for name, tensor in whole[1].items())
    for changed in (OnDisk(path, buffer_rows=128, block_rows=8), OnDisk(path)):
        with pytest.raises(ValueError, match=r"resume: .* has another data"):
            pv.fit(
                model(),
                changed,
                3,
                32,
                val=OnDisk(path),
                seed=seed,
                progress=False,
                out=tmp_path / "stopped",
                resume=True,
            )


def test_memory_is_bounded_by_two_buffers(tmp_path: Path) -> None:
    sparse_file(tmp_path / "x.npy", 100_000, (500,))  # 200 MB
    data = OnDisk(tmp_path / "x.npy", buffer_rows=5000)  # 10 MB
    tracemalloc.start()
    try:
        rows = sum(len(batch) for batch in data.batches(128, generator=generator()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows == 100_000
    assert peak < 2.2 * 5000 * 500 * 4


def test_the_thread_ends_with_a_pass_that_is_abandoned(folder: Path) -> None:
    batches = OnDisk(folder, **SMALL).batches(10, generator=generator())
    next(batches)
    assert any(thread.name.startswith("pyrovae-reader") for thread in threading.enumerate())
    batches.close()
    assert not any(thread.name.startswith("pyrovae-reader") for thread in threading.enumerate())


CHANGES = {
    "truncated": (
        lambda p: os.truncate(p, 1000),
        r"1.npy was changed while it was in use: it had 7.304 kB and has 1 kB",
    ),
    "overwritten": (lambda p: np.save(p, X[:299] + 1), "1.npy was changed while it was in use"),
    "removed": (os.remove, "1.npy cannot be read any more: No such file"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_during_a_run_is_one_error_that_names_it(folder: Path, change: str) -> None:
    act, message = CHANGES[change]

    class Change(pv.train.Callback):
        def on_step_end(self, run: pv.train.Run) -> None:
            if run.step == 2:
                act(folder / "1.npy")

    with pytest.raises(ValueError, match=f"^data: {message}") as caught:
        pv.fit(model(), OnDisk(folder, **SMALL), 2, 10, seed=0, progress=False, compile=False, callbacks=[Change()])
    assert "\n" not in str(caught.value)
    assert caught.value.history["epoch"] == []


def test_a_file_that_is_truncated_during_a_read_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, opened = OnDisk(folder), shards._opened

    def truncated(shard: shards.Shard) -> object:
        file = opened(shard)
        os.truncate(shard.path, 200)
        return file

    monkeypatch.setattr(shards, "_opened", truncated)
    with pytest.raises(ValueError, match=r"^data: 1.npy was truncated while it was read: bring back the file"):
        data.rows(np.arange(1, 200))


def write(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def cut(path: Path) -> Path:
    os.truncate(write(path, X), 5000)
    return path


def unequal(path: Path) -> list[Path]:
    return [write(path, X), write(path.with_name("y.npy"), X[:, :5])]


BAD = {
    "missing": (lambda p: p, FileNotFoundError, "there is no file"),
    "text": (lambda p: p.with_suffix(".csv"), ValueError, r"x.csv cannot be read in blocks: write its rows as .npy"),
    "folder": (lambda p: p.parent, ValueError, "holds no .npy files"),
    "columns": (lambda p: write(p, np.asfortranarray(X)), ValueError, "x.npy .* its columns are contiguous"),
    "complex": (lambda p: write(p, X * 1j), ValueError, "x.npy .* must hold real numbers, got complex"),
    "objects": (lambda p: write(p, np.array([{}, 1])), ValueError, "x.npy .* must hold real numbers, got object"),
    "short": (cut, ValueError, "x.npy .* its header says 24 kB, and it holds less"),
    "none": (lambda p: write(p, X[:0]), ValueError, r"x.npy must have rows and columns, got shape \(0, 6\)"),
    "number": (lambda p: write(p, np.array(1.0)), ValueError, "x.npy .* must hold rows, got a single number"),
    "unequal": (unequal, ValueError, r"y.npy has rows of shape \(5,\) in float32, and x.npy of shape \(6,\)"),
}


@pytest.mark.parametrize("kind", BAD)
def test_files_that_cannot_be_read_in_blocks_are_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    make, error, message = BAD[kind]
    with pytest.raises(error, match=message) as caught:
        OnDisk(make(tmp_path / "x.npy"))
    assert str(caught.value).startswith("data: ")
    assert "\n" not in str(caught.value)


def test_values_that_are_not_numbers_are_named_by_their_place(tmp_path: Path) -> None:
    x = X.copy()
    x[700, 2] = np.nan
    data = OnDisk(write(tmp_path / "x.npy", x), **SMALL)
    with pytest.raises(ValueError, match=r"data: x.npy has nan at index \(700, 2\); missing=True, or --missing, takes"):
        data.statistics()
    with pytest.raises(ValueError, match=r"nan at index \(700, 2\)"):
        data.without(np.array([3])).statistics()
    with pytest.raises(ValueError, match=r"the value nan at index .* does not fit"):
        pv.fit(model(), data, 1, 50, seed=0, progress=False, compile=False)
    pv.fit(model(missing=True), data, 1, 50, seed=0, progress=False, compile=False)


def test_what_needs_all_rows_in_memory_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="batch_size=None is the whole set at each step, and data is on the disk"):
        pv.fit(model(), OnDisk(path), 1, None, progress=False)
    with pytest.raises(ValueError, match="cannot be binarised once: binarize='dynamic' draws"):
        pv.data.load(path, binarize="static", on_disk=True)
    with pytest.raises(ValueError, match="digits is held in memory"):
        pv.data.load("digits", on_disk=True)
    with pytest.raises(ValueError, match=r"got memmap: pyrovae.data.OnDisk"):
        pv.fit(model(), np.load(path, mmap_mode="r"), 1, progress=False)
    with pytest.raises(ValueError, match=r"labels must be one for each of 1000 rows, got shape \(3,\)"):
        OnDisk(path, torch.zeros(3))
    with pytest.raises(ValueError, match="buffer_rows must be a positive whole number, got 0"):
        OnDisk(path, buffer_rows=0)


def test_labels_come_with_their_rows(path: Path) -> None:
    labels = torch.arange(N) % 3
    data = OnDisk(path, labels, **SMALL)
    for x, y in data.batches(50, generator=generator()):
        assert torch.equal((x[:, 0] * N).round().long() % 3, y)
    vae = model(num_labels=3)
    history = pv.fit(vae, data, 1, seed=0, progress=False, compile=False)
    assert np.isfinite(history["train_loss"][0])
    pv.fit(model(), data, 1, seed=0, progress=False, compile=False)  # a VAE takes x alone
    with pytest.raises(ValueError, match="label"):
        pv.fit(vae, OnDisk(path), 1, seed=0, progress=False)


@pytest.mark.parametrize("binarize", [None, "dynamic"])
def test_a_file_is_split_at_random_into_parts_that_are_all_of_it(path: Path, binarize: str | None) -> None:
    data = pv.data.load(path, on_disk=True, binarize=binarize, seed=5)
    assert (len(data.train), len(data.val), len(data.test)) == (800, 100, 100)
    again, other = (pv.data.from_file(path, on_disk=True, binarize=binarize, seed=seed) for seed in (5, 6))
    assert data.sha256() == again.sha256() != other.sha256()
    if binarize is None:
        parts = [torch.cat(list(data.train.batches(100, shuffle=False))), data.val, data.test]
        found = sorted((torch.cat(parts)[:, 0] * N).round().long().tolist())
        assert found == list(range(N))
    else:
        assert data.val.unique().tolist() == [0, 1]
        vae = pv.build_vae((D,), 2, hidden=(8,))
        assert np.isfinite(pv.fit(vae, data, 1, seed=0, progress=False, compile=False)["val_loss"][0])


def test_shards_that_fit_are_read_into_memory(folder: Path, tmp_path: Path) -> None:
    whole = pv.data.load(write(tmp_path / "x.npy", X))
    parts = pv.data.load(folder)
    assert torch.equal(parts.train, whole.train)
    with pytest.raises(ValueError, match=r"the folder shards cannot be read: it takes 24 kB .* --on-disk, reads .npy"):
        pv.data.load(folder, max_bytes=10_000)


def test_files_that_only_memory_can_hold_do_not_stay_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "x.npy", X)
    write(tmp_path / "columns.npy", np.asfortranarray(X))
    (tmp_path / "x.csv").write_text("1,2")
    monkeypatch.setattr(shards, "half_of_memory", lambda: 100)
    found = {name: pv.data.exceeds_memory(tmp_path / name) for name in ("x.npy", "columns.npy", "x.csv", "nothing")}
    assert found == {"x.npy": True, "columns.npy": False, "x.csv": False, "nothing": False}


OPTIONS = "--epochs 2 --hidden 8 --latent-dim 2 --num-samples 5 --quiet --no-compile"


def test_the_commands_take_data_that_do_not_fit(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    x = np.load(path) * 9 - 3
    np.save(path, x.reshape(N, 6))
    monkeypatch.setattr(shards, "half_of_memory", lambda: x.nbytes - 1)
    assert pyrovae(f"fit x.npy {OPTIONS.replace('--quiet', '')} --out run") == 0
    said = capsys.readouterr().out
    assert "reading 800 rows of x.npy once" in said
    assert "100 test data of shape (6,), no binarisation, training data on the disk" in said
    assert pyrovae("evaluate run --num-samples 5") == 0
    assert pyrovae("encode run") == 0
    assert pyrovae(f"fit x.npy {OPTIONS.replace('--quiet', '')} --out run --resume") == 0
    assert "reading" not in capsys.readouterr().out  # the statistics are in the run
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    codes = np.load("run/codes.npy")
    assert pyrovae("encode run x.npy --out whole.npy") == 0
    np.testing.assert_allclose(codes, np.load("whole.npy"), rtol=1e-5, atol=1e-6)
    assert pyrovae("compress run") == 2
    assert "are not held in memory, and this command takes them whole" in capsys.readouterr().err
    assert pyrovae(f"fit x.npy {OPTIONS} --out run --resume") == 2
    assert "the run in 'run' has on disk True, not False" in capsys.readouterr().err
    np.save(path, x + 1)
    assert pyrovae("evaluate run --num-samples 5") == 2
    assert "are not those that run 'run' was trained on" in capsys.readouterr().err


def test_fit_takes_a_folder_of_shards_of_symbols(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    x = np.random.default_rng(0).integers(0, 4, (200, 5)).astype(np.uint8)
    for number in range(2):
        np.save(f"shards/{number}.npy", x[number::2])
    assert pyrovae(f"fit shards {OPTIONS} --likelihood categorical --prior vamp --on-disk --out run") == 0
    assert pv.load("run").config["num_classes"] == 4
    assert pyrovae(f"fit shards {OPTIONS} --optim gd --on-disk --out other") == 2
    assert "batch_size=None is the whole set" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: OnDisk([]), "path must be a file, a folder or a list of files"),
        (lambda path: OnDisk(3), "path must be a file, a folder or a list of files"),
        (lambda path: OnDisk(np.zeros(3)), "path must be a file, a folder or a list of files"),
        (lambda path: OnDisk(path, [0] * 10), "labels must be a tensor of 10 whole numbers, got list"),
        (lambda path: OnDisk(path)[2:5], "index must be a whole number"),
        (lambda path: OnDisk(path)[1.5], "index must be a whole number"),
        (lambda path: OnDisk(path)[True], "index must be a whole number"),
    ],
)
def test_arguments_of_a_wrong_kind_are_one_line(call, message, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((10, 2), np.float32))
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        call(tmp_path / "x.npy")
    assert "\n" not in str(caught.value)


def test_a_hidden_file_is_no_shard(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((10, 2), np.float32))
    np.save(tmp_path / ".y.npy", np.zeros((10, 2), np.float32))
    assert len(OnDisk(tmp_path)) == 10
