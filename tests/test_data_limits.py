"""Data files whose size is known before they are read, tensors without real numbers, and numbers beyond float32."""

from __future__ import annotations

import os
import struct
import warnings
import zipfile

import numpy as np
import pyro
import pytest
import torch
from PIL import Image
from test_cli import pyrovae

import pyrovae as pv
from pyrovae.data.limits import half_of_memory

MILLION = 1_000_000


def quantised(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(torch.quantize_per_tensor(torch.rand(20, 3), 0.1, 0, torch.qint8), path)


def compressed_pt(path):
    torch.save(torch.zeros(1000, 3), path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def big_header(path):
    """A header of 8 TB with nothing after it."""
    text = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode())


def header_in_npz(path):
    big_header(path.with_suffix(".part"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(path.with_suffix(".part"), "x.npy")


def grey_image(path):
    path.mkdir()
    Image.new("L", (3000, 3000)).save(path / "a.png")


FILES = {  # name: (writer, message)
    "zeros.npz": (lambda p: np.savez_compressed(p, x=np.zeros((MILLION, 3))), "takes 24 MB of memory, and the limit"),
    "zeros.npy": (lambda p: np.save(p, np.zeros((MILLION, 3))), "takes 24 MB of memory, and the limit is 8 MB"),
    "bytes.npy": (lambda p: np.save(p, np.zeros((MILLION, 3), np.uint8)), "takes 12 MB of memory"),
    "header.npy": (big_header, "takes 8 TB of memory"),
    "header.npz": (header_in_npz, "its header says 8 TB, and it holds less"),
    "numbers.csv": (lambda p: p.write_text("1,2\n" * 600_000), "of memory, and the limit is 8 MB"),
    "stride.pt": (
        lambda p: torch.save(torch.zeros(1).expand(40_000, 20_000), p),
        r"its tensor repeats itself: 3.2 GB with strides \(0, 0\) in a file of",
    ),
    "windows.pt": (lambda p: torch.save(torch.zeros(2000).as_strided((1000, 1000), (1, 1)), p), "its tensor repeats"),
    "zip.pt": (compressed_pt, "it is compressed, which torch.save does not do"),
    "large.pt": (lambda p: torch.save(torch.zeros(MILLION, 3), p), "takes 12 MB of memory"),
    "meta.pt": (
        lambda p: torch.save(torch.zeros(20, 3, device="meta"), p),
        "is on the meta device, which has no values",
    ),
    "quantised.pt": (quantised, r"is quantised \(torch.qint8\)"),
    "sparse.pt": (lambda p: torch.save(torch.eye(20).to_sparse(), p), "has the layout torch.sparse_coo"),
    "complex.pt": (lambda p: torch.save({"x": torch.zeros(20, 3) * 1j}, p), "has complex numbers"),
    "old.pt": (
        lambda p: torch.save(torch.zeros(20, 3), p, _use_new_zipfile_serialization=False),
        "or is older than torch 1.6",
    ),
    "pipe.npy": (os.mkfifo, "must be a regular file, got a pipe"),
    "device.csv": (lambda p: p.symlink_to("/dev/zero"), "must be a regular file, got a device"),
    "image": (grey_image, "takes 36 MB of memory"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_too_much_is_refused_before_it_is_read(name, tmp_path):
    write, message = FILES[name]
    write(tmp_path / name)
    with pytest.raises(ValueError, match=f"^data: .*{message}") as caught:
        pv.data.load(tmp_path / name, max_bytes=8 * MILLION)
    assert "\n" not in str(caught.value)


def test_an_image_folder_is_counted_as_a_whole_and_its_pipes_are_not_opened(tmp_path):
    for number in range(4):
        Image.new("RGB", (100, 100)).save(tmp_path / f"{number}.png")
    assert pv.data.load(tmp_path, max_bytes=480_000).train.shape == (2, 30_000)
    with pytest.raises(ValueError, match=r"3.png .* takes 480 kB of memory, and the limit is 479 kB"):
        pv.data.load(tmp_path, max_bytes=479_000)
    os.mkfifo(tmp_path / "4.png")
    with pytest.raises(ValueError, match=r"4.png .* must be a regular file, got a pipe"):
        pv.data.load(tmp_path)


def test_the_limit_is_half_of_the_memory_where_none_is_given(tmp_path):
    with open("/proc/meminfo") as file:
        total = 1024 * int(next(line for line in file if line.startswith("MemTotal")).split()[1])
    assert half_of_memory() == pytest.approx(total / 2, rel=0.1)
    big_header(tmp_path / "x.npy")
    with pytest.raises(ValueError, match="takes 8 TB of memory, and the limit is"):
        pv.data.load(tmp_path / "x.npy")


def test_a_text_is_measured_before_it_is_read(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"abcd\r\nef\n" * 100)
    assert "\r" not in pv.data.text(path, length=4).vocabulary.characters
    with pytest.raises(ValueError, match=r"text: a.txt cannot be read: it takes 18 kB of memory, and the limit is 17"):
        pv.data.text(path, length=4, max_bytes=17_000)
    with open(path, "wb") as file:
        file.truncate(10**12)  # a hole of 1 TB
    with pytest.raises(ValueError, match="it takes 20 TB of memory, and the limit is"):
        pv.data.text(path, length=4)
    os.mkfifo(tmp_path / "b.txt")
    with pytest.raises(ValueError, match=r"text: b.txt cannot be read: '.*b.txt' must be a regular file, got a pipe"):
        pv.data.text(tmp_path / "b.txt", length=4)


@pytest.mark.parametrize("name", ["raw/train-images-idx3-ubyte", "processed/training.pt"])
def test_mnist_is_measured_before_it_is_read(name, tmp_path):
    path = tmp_path / "MNIST" / name
    path.parent.mkdir(parents=True)
    with open(path, "wb") as file:
        file.truncate(10**12)
    with pytest.raises(ValueError, match=f"data: '.*{name}' has 1 TB, more than the 100 MB that are read: remove"):
        pv.data.load("mnist", tmp_path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match=f"data: '.*{name}' must be a regular file, got a pipe"):
        pv.data.load("mnist", tmp_path)


def test_a_folder_of_data_is_refused_where_it_is_not_read(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in ("fit", "compare"):
        assert pyrovae(f"{command} digits --data-dir here --out run") == 2
        message = "--data-dir is for mnist and fashion-mnist, and the data are digits: leave it out"
        assert capsys.readouterr().err == f"pyrovae: error: {message}\n"
        assert not (tmp_path / "run").exists()


STAMPS = np.array([[1.7e9 + i, i] for i in range(200)])


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".pt", ".npz", "whole.npy"])
def test_numbers_that_float32_cannot_hold_are_standardised_before_they_are_rounded(suffix, tmp_path):
    path = tmp_path / f"t{suffix}"
    if suffix == ".csv":
        np.savetxt(path, STAMPS, delimiter=",")
    elif suffix == ".pt":
        torch.save(torch.tensor(STAMPS), path)
    else:
        (np.savez if suffix == ".npz" else np.save)(path, STAMPS.astype(np.int64) if "whole" in suffix else STAMPS)
    data = pv.data.load(path, standardize=True)
    x = torch.cat([data.train, data.val, data.test])
    assert x.dtype == torch.float32
    assert len(x[:, 0].unique()) == 200
    torch.testing.assert_close(x[:, 0], x[:, 1], rtol=0, atol=1e-6)
    own = data.standardization.inverse(x)
    assert sorted(own[:, 0].round().tolist()) == STAMPS[:, 0].tolist()
    assert pv.data.load(path).train.dtype == torch.float32
    assert pv.data.load(path, dtype=None).train.dtype == torch.float64


def test_the_commands_standardise_before_they_round(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("t.npy", STAMPS)
    assert pyrovae("fit t.npy --likelihood normal --epochs 1 --hidden 4 --latent-dim 1 --num-samples 2 --out run") == 0
    assert pyrovae("evaluate run --num-samples 2") == 0
    assert pyrovae("encode run") == 0
    assert len(np.unique(np.load("run/codes.npy"))) == 200
    assert pyrovae("sample run --num 500") == 0
    assert len(np.unique(np.load("run/samples.npy")[:, 0])) == 500


DATA = {
    "array": (lambda x: x.numpy(), "got ndarray: torch.as_tensor"),
    "lists": (lambda x: x.tolist(), "got list: torch.as_tensor"),
    "complex": (lambda x: torch.complex(x, 1000 * x), "has complex numbers"),
    "sparse": (lambda x: x.to_sparse(), "has the layout torch.sparse_coo"),
    "rows": (lambda x: x.to_sparse_csr(), "has the layout torch.sparse_csr"),
    "meta": (lambda x: x.to("meta"), "is on the meta device"),
    "beside": (lambda x: (x, x * 1j), "has complex numbers"),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("kind", DATA)
def test_fit_refuses_what_are_no_rows_of_real_numbers(kind):
    vae, (make, message) = pv.build_vae((6,), 2, likelihood="normal", hidden=(4,)), DATA[kind]
    with pytest.raises(ValueError, match=f"^data must be .*{message}"):
        pv.fit(vae, make(torch.randn(40, 6)), epochs=1, progress=False, optim=pyro.optim.Adam({"lr": 1e-3}))


@pytest.mark.parametrize("batch_size", [True, 7.5, 0, "3"])
def test_fit_names_a_batch_size_that_is_none(batch_size):
    vae = pv.build_vae((6,), 2, likelihood="normal", hidden=(4,))
    with pytest.raises(ValueError, match=f"batch_size must be a positive whole number, got {batch_size!r}"):
        pv.fit(vae, torch.randn(40, 6), epochs=1, batch_size=batch_size, progress=False)


def test_evaluate_knows_when_the_data_are_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("t.npy", STAMPS)
    assert pyrovae("fit t.npy --likelihood normal --epochs 1 --hidden 4 --latent-dim 1 --num-samples 2 --out run") == 0
    np.save("t.npy", STAMPS[::-1])
    assert pyrovae("evaluate run --num-samples 2") == 2
    assert "are not those that run 'run' was trained on" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "said"), [("os.getcwd", "fails on a row"), ("torch.numel", "must give a tensor")])
def test_a_corruption_is_tried_on_a_row_before_training(name, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("t.npy", STAMPS)
    assert pyrovae(f"fit t.npy --epochs 1 --hidden 4 --latent-dim 1 --corrupt {name} --out run") == 2
    error = capsys.readouterr().err
    assert f"--corrupt '{name}' {said}" in error
    assert len(error.splitlines()) == 1
