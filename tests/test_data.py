"""Data sets, files of a user's own and batches: each value compared with what scikit-learn holds or the test wrote."""

import math
import struct
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset
from torchvision import datasets

import pyrovae as pv
from pyrovae.data.photographs import read_photographs, whiten

GREY = np.random.default_rng(0).integers(0, 256, (17, 28, 28), dtype=np.uint8)  # a tiny MNIST: 12 to train, 5 to test
LABELS = np.arange(17, dtype=np.uint8)
TABLE = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
SPLITS = ("train", "val", "test")


def sorted_rows(*parts):
    """The rows of all parts in lexicographic order: equal for two data sets that hold the same rows."""
    x = np.concatenate([np.asarray(part) for part in parts])
    return x[np.lexsort(x.T)]


def write_mnist(raw):
    raw.mkdir(parents=True)
    for name, part in (("train", slice(0, 12)), ("t10k", slice(12, 17))):
        x = GREY[part]
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 2051, *x.shape) + x.tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, len(x)) + LABELS[part].tobytes())


def write_images(folder, images, suffix=".png"):
    for i, image in enumerate(images):
        path = folder / f"{i % 2}" / f"{i:02}{suffix}"  # two sub-folders
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def write_csv(path, x, header="", encoding="utf-8"):
    np.savetxt(path, x, delimiter=",", header=header, comments="", encoding=encoding, fmt="%.9g")


# --- digits ---------------------------------------------------------------------------------------------------------


def test_digits_are_scikit_learns_each_in_one_split():
    bunch = load_digits()
    data = pv.data.digits(binarize=None)
    assert [len(getattr(data, split)) for split in SPLITS] == [1437, 180, 180]
    assert data.event_shape == (64,)
    assert data.image_shape == (1, 8, 8)
    got = [np.column_stack([getattr(data, split) * 16, data.labels[split]]) for split in SPLITS]
    np.testing.assert_array_equal(sorted_rows(*got), sorted_rows(np.column_stack([bunch.data, bunch.target])))
    np.testing.assert_array_equal(pv.data.rows("digits") * 16, bunch.data)


def test_a_seed_names_a_split_and_its_draws():
    first, again, other = (pv.data.digits(seed=seed) for seed in (3, 3, 4))
    for split in SPLITS:
        assert torch.equal(getattr(first, split), getattr(again, split))
        assert not torch.equal(getattr(first, split), getattr(other, split))


def test_static_draws_are_binary_and_follow_the_grey_values():
    grey, drawn = pv.data.digits(binarize=None, seed=1), pv.data.digits(binarize="static", seed=1)
    assert drawn.transform is None
    p, x = (torch.cat([getattr(data, split) for split in SPLITS]).double() for data in (grey, drawn))
    assert set(x.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(x[(p == 0) | (p == 1)], p[(p == 0) | (p == 1)])
    # The sum of independent draws is Normal to a good approximation: |z| > 5 in 6e-7 of all seeds.
    assert abs(float((x - p).sum() / (p * (1 - p)).sum().sqrt())) < 5
    assert set(pv.data.rows("digits", binarize="static").unique().tolist()) == {0.0, 1.0}


def test_dynamic_draws_training_pixels_anew():
    grey, data = pv.data.digits(binarize=None, seed=1), pv.data.digits(binarize="dynamic", seed=1)
    assert torch.equal(data.train, grey.train)
    assert set(torch.cat([data.val, data.test]).unique().tolist()) == {0.0, 1.0}
    torch.manual_seed(0)
    x, count = data.train[:20], 1000
    draws = torch.stack([data.transform(x) for _ in range(count)])
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(draws[0], draws[1])
    # Hoeffding: P(any of the pixels is off by more than t) <= 2 n exp(-2 count t^2), here one in a million.
    t = math.sqrt(math.log(2 * x.numel() / 1e-6) / (2 * count))
    assert float((draws.mean(0) - x).abs().max()) < t


# --- patches --------------------------------------------------------------------------------------------------------


@pytest.fixture
def photographs(monkeypatch):
    """Two small photographs of noise in place of scikit-learn's; the list may be changed."""
    images = list(torch.randn(2, 60, 130, generator=torch.Generator().manual_seed(0)).double())
    monkeypatch.setattr("pyrovae.data.photographs.read_photographs", lambda: images)
    return images


def test_patches_are_rows_without_mean_and_of_unit_variance():
    data = pv.data.patches(num=2000)
    assert [len(getattr(data, split)) for split in SPLITS] == [1600, 200, 200]
    assert (data.event_shape, data.image_shape, data.transform) == ((144,), (1, 12, 12), None)
    for split in SPLITS:
        np.testing.assert_allclose(getattr(data, split).mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(data.train.square().mean(), 1, rtol=1e-5)
    assert pv.data.patches(size=8, num=20).train.shape == (16, 64)


def test_a_wave_goes_through_the_filter_as_the_formula_says():
    height, width = 40, 30
    for i, j in ((0, 0), (1, 0), (7, 12), (39, 29)):  # waves that mirrored borders continue
        x = torch.cos(math.pi * i * (torch.arange(height).double()[:, None] + 0.5) / height) * torch.cos(
            math.pi * j * (torch.arange(width).double() + 0.5) / width
        )
        f = math.hypot(i / (2 * height), j / (2 * width))  # cycles per pixel
        np.testing.assert_allclose(whiten(x), f * math.exp(-((f / 0.4) ** 4)) * x, atol=1e-12)


def test_whitening_levels_the_spectrum():
    def spread(x):
        """Most over least power among rings of the pass band, of patches under a Hann window."""
        window = torch.hann_window(12, periodic=False)
        f = torch.hypot(torch.fft.fftfreq(24)[:, None], torch.fft.fftfreq(24))
        power = torch.fft.fft2(x.reshape(-1, 12, 12) * window[:, None] * window, s=(24, 24)).abs().square().mean(0)
        rings = torch.stack([power[(f >= low) & (f < low + 0.05)].mean() for low in (0.1, 0.15, 0.2, 0.25)])
        return float(rings.max() / rings.min())

    raw = torch.cat([image.unfold(0, 12, 9).unfold(1, 12, 9).reshape(-1, 144) for image in read_photographs()]).float()
    assert spread(raw - raw.mean(1, keepdim=True)) > 4
    assert spread(pv.data.patches(num=20_000).train) < 1.5


@pytest.mark.parametrize("changed", SPLITS)
def test_no_pixel_of_one_split_enters_another(changed, photographs):
    columns = {"train": [*range(52), *range(78, 130)], "val": range(52, 65), "test": range(65, 78)}[changed]
    before = pv.data.patches(size=6, num=400)
    for image in photographs:
        image[:, columns] = image[:, columns].flip(0)  # upside down, which leaves the scale of the region as it was
    after = pv.data.patches(size=6, num=400)
    for split in SPLITS:
        # other training patches set another unit, which is a factor
        x, y = (getattr(data, split) / getattr(data, split).std() for data in (before, after))
        assert torch.allclose(x, y, atol=1e-4) == (split != changed)


def test_faint_patches_are_left_out(photographs):
    for image in photographs:
        image[:30] *= 0.01
    data = pv.data.patches(size=6, num=400)
    assert min(getattr(data, split).var(1).min() for split in SPLITS) > 0.02
    with pytest.raises(ValueError, match=r"num asks for 8000 patches of a region that has \d+"):
        pv.data.patches(size=6, num=20_000)


def test_a_seed_names_the_places_of_patches(photographs):
    first, again, other = (pv.data.patches(size=6, num=400, seed=seed) for seed in (3, 3, 4))
    for split in SPLITS:
        assert torch.equal(getattr(first, split), getattr(again, split))
        assert not torch.equal(getattr(first, split), getattr(other, split))


def test_patches_by_name(monkeypatch):
    small = pv.data.patches(num=400, seed=5)
    monkeypatch.setattr("pyrovae.data.sets.patches", lambda seed: small if seed == 5 else None)
    assert pv.data.load("patches", seed=5) is small
    assert torch.equal(pv.data.rows("patches", seed=5), torch.cat([small.train, small.val, small.test]))
    for read in (pv.data.load, pv.data.rows):
        with pytest.raises(ValueError, match=r"patches has values outside \[0, 1\]"):
            read("patches", binarize="dynamic", seed=5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 1}, "size must be a whole number from 2 to 64, got 1"),
        ({"size": 65}, "size must be a whole number from 2 to 64, got 65"),
        ({"size": 8.0}, "size must be a whole number from 2 to 64, got 8.0"),
        ({"num": 19}, "num must be a whole number from 20 on, got 19"),
    ],
)
def test_patches_say_what_is_wrong(options, message):
    with pytest.raises(ValueError, match=message):
        pv.data.patches(**options)


# --- MNIST ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["argument", "environment", "cache"])
def test_mnist_is_found_in_its_three_places(where, tmp_path, monkeypatch):
    places = {name: tmp_path / name for name in ("argument", "environment", "cache")}
    for name in list(places)[list(places).index(where) :]:  # each place comes before those after it
        write_mnist(places[name] / "MNIST/raw")
        image = places[name] / "MNIST/raw/t10k-images-idx3-ubyte"
        image.write_bytes(image.read_bytes()[:-1] + bytes([list(places).index(name)]))
    monkeypatch.setattr(datasets.MNIST, "download", lambda self: pytest.fail("a download of what is there"))
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(places["cache"]))
    monkeypatch.delenv("PYROVAE_DATA", raising=False)
    if where != "cache":
        monkeypatch.setenv("PYROVAE_DATA", str(places["environment"]))
    data = pv.data.mnist(places["argument"] if where == "argument" else None, binarize=None)
    grey = GREY.reshape(17, 784).copy()
    grey[-1, -1] = list(places).index(where)
    x = {split: np.rint(getattr(data, split).numpy() * 255) for split in SPLITS}
    np.testing.assert_array_equal(x["test"], grey[12:])
    np.testing.assert_array_equal(data.labels["test"], LABELS[12:])
    assert [len(x[split]) for split in SPLITS] == [10, 2, 5]
    for split in ("train", "val"):  # each row has kept its label
        np.testing.assert_array_equal(x[split], grey[data.labels[split]])
    assert sorted([*data.labels["train"].tolist(), *data.labels["val"].tolist()]) == list(range(12))
    np.testing.assert_allclose(pv.data.rows("mnist", data_dir=places[where]) * 255, grey, rtol=1e-6)
    assert data.image_shape == (1, 28, 28)


def test_mnist_is_downloaded_whole_or_not_at_all(tmp_path, monkeypatch):
    def fail(self):
        raise RuntimeError("no route\nto host")

    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(datasets.MNIST, "download", fail)
    with pytest.raises(FileNotFoundError, match=r"FashionMNIST is not in .*no route.*--data-dir or PYROVAE_DATA"):
        pv.data.fashion_mnist(tmp_path / "new")
    assert [path.name for path in tmp_path.rglob("*")] == ["tmp"]
    monkeypatch.setattr(datasets.MNIST, "download", lambda self: write_mnist(tmp_path.__class__(self.raw_folder)))
    assert len(pv.data.fashion_mnist(tmp_path / "new").test) == 5
    assert len(list((tmp_path / "new/FashionMNIST/raw").iterdir())) == 4
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:500])])
def test_a_damaged_mnist_is_named_and_left_alone(harm, tmp_path, monkeypatch):
    write_mnist(tmp_path / "MNIST/raw")
    harm(tmp_path / "MNIST/raw/train-images-idx3-ubyte")
    monkeypatch.setattr(datasets.MNIST, "download", lambda self: pytest.fail("a download over the user's files"))
    with pytest.raises(FileNotFoundError, match=r"MNIST' is there but not whole: complete it, or remove it"):
        pv.data.mnist(tmp_path)


def test_a_torchvision_that_does_not_fit_torch(monkeypatch):
    def fail(name):
        raise RuntimeError(f"operator torchvision::nms does not exist, {name}")

    broken = types.ModuleType("torchvision")
    broken.__getattr__ = fail
    monkeypatch.setitem(sys.modules, "torchvision", broken)
    with pytest.raises(ImportError, match=r"nms does not exist.*pip install --upgrade torch torchvision"):
        pv.data.mnist()
    assert len(pv.data.digits().train) == 1437


def test_import_loads_no_library_it_may_not_need():
    names = {"torchvision", "matplotlib", "sklearn", "scipy", "PIL", "constriction"}
    code = f"import sys, pyrovae; print(sorted({names} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# --- files of a user's own ------------------------------------------------------------------------------------------

FILES = {  # name: (writer, what was written)
    "real.npy": (np.save, TABLE),
    "double.npy": (np.save, TABLE.astype(np.float64)),
    "counts.npy": (np.save, np.arange(40).reshape(20, 2)),
    "mask.npy": (np.save, TABLE > 0),
    "column.npy": (np.save, TABLE[:, 0]),
    "grey.npy": (np.save, TABLE.repeat(4, 1).reshape(20, 3, 4)),
    "colour.npy": (np.save, TABLE.repeat(8, 1).reshape(20, 2, 3, 4)),
    "one.npz": (lambda path, x: np.savez(path, anything=x), TABLE),
    "x.npz": (lambda path, x: np.savez_compressed(path, y=x[:3], x=x), TABLE),
    "plain.csv": (write_csv, TABLE),
    "header.CSV": (lambda path, x: write_csv(path, x, header="a,b,3"), TABLE),
    "spreadsheet.csv": (lambda path, x: write_csv(path, x, encoding="utf-8-sig"), TABLE),
    "column.csv": (write_csv, TABLE[:, 0]),
    "tensor.pt": (lambda path, x: torch.save(torch.tensor(x), path), TABLE),
    "half.pt": (lambda path, x: torch.save(torch.tensor(x), path), TABLE.astype(np.float16)),
    "parameter.pt": (lambda path, x: torch.save(torch.nn.Parameter(torch.tensor(x)), path), TABLE),
    "dict.pt": (lambda path, x: torch.save({"y": torch.ones(3), "x": torch.tensor(x)}, path), TABLE),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_as_written(name, tmp_path):
    write, x = FILES[name]
    write(tmp_path / name, x)
    rows = pv.data.rows(tmp_path / name)
    expected = x.reshape(20, -1).astype(np.float32)
    np.testing.assert_array_equal(rows.numpy(), expected)  # which fails on a tensor that asks for gradients
    data = pv.data.from_file(str(tmp_path / name))
    assert data.image_shape == {2: None, 1: None, 3: (1, *x.shape[1:]), 4: x.shape[1:]}[x.ndim]
    assert [len(getattr(data, split)) for split in SPLITS] == [16, 2, 2]
    np.testing.assert_array_equal(sorted_rows(data.train, data.val, data.test), sorted_rows(expected))
    if data.image_shape:
        assert data.reshape(data.image_shape).train.shape == (16, *data.image_shape)
        assert torch.equal(data.reshape(data.image_shape).val.flatten(1), data.val)


@pytest.mark.parametrize(
    ("images", "scale", "suffix"),
    [
        (GREY[:12, :6, :5], 255, ".png"),
        (GREY[:12, :6, :15].reshape(12, 6, 5, 3), 255, ".PNG"),
        (GREY[:12, :6, :5].astype(np.uint16) * 257, 65535, ".png"),  # Pillow itself clips 16 bits to 8
        (GREY[:12, :6, :5] > 99, 1, ".bmp"),
    ],
    ids=["grey", "colour", "16 bits", "1 bit"],
)
def test_a_folder_of_images(images, scale, suffix, tmp_path):
    write_images(tmp_path / "images", images, suffix)
    (tmp_path / "images/notes.txt").write_text("no image")
    data = pv.data.from_file(tmp_path / "images")
    x = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    assert data.image_shape == x.shape[1:]
    rows = pv.data.rows(tmp_path / "images").numpy()
    np.testing.assert_allclose(rows, np.concatenate([x[0::2], x[1::2]]).reshape(12, -1) / scale, rtol=1e-6)


NAN, INFINITE, BIG = TABLE.copy(), TABLE.copy(), TABLE.astype(np.float64)
NAN[3, 1], INFINITE[4, 2], BIG[5, 0] = np.nan, -np.inf, 1e300


def text(content):
    return lambda path: path.write_bytes(content.encode())


def truncated(write, x):
    def cut(path):
        write(path, x)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return cut


def one_truncated_image(folder):
    write_images(folder, np.random.default_rng(0).integers(0, 256, (4, 64, 64), dtype=np.uint8))
    truncated(lambda path, x: None, None)(folder / "1/03.png")


BAD_FILES = {  # name: (writer, message)
    "nan.npy": (lambda path: np.save(path, NAN), r"nan.npy has nan at index \(3, 1\)"),
    "nan.csv": (lambda path: write_csv(path, NAN), r"nan.csv has nan at index \(3, 1\)"),
    "inf.pt": (lambda path: torch.save(torch.tensor(INFINITE), path), r"inf.pt has -inf at index \(4, 2\)"),
    "big.npy": (lambda path: np.save(path, BIG), r"big.npy has inf at index \(5, 0\)"),
    "empty.npy": (lambda path: np.save(path, TABLE[:0]), r"empty.npy must have rows and columns, got shape \(0, 3\)"),
    "empty.csv": (text(""), "empty.csv cannot be read as .csv: it has no rows"),
    "header.csv": (text("a,b\n"), "header.csv cannot be read as .csv: it has no rows"),
    "few.npy": (lambda path: np.save(path, TABLE[:2]), "few.npy has 2 rows, too few"),
    "scalar.npy": (lambda path: np.save(path, np.float32(3)), r"scalar.npy must hold real numbers in rows.*\(\)"),
    "complex.npy": (lambda path: np.save(path, TABLE + 1j), "complex.npy must hold real numbers.*complex"),
    "text.npy": (lambda path: np.save(path, np.array(["a", "b"])), "text.npy cannot be read as .npy"),
    "objects.npy": (
        lambda path: np.save(path, np.array([{}, {}])),
        "objects.npy cannot be read as .npy: Object arrays",
    ),
    "cut.npy": (truncated(np.save, TABLE), "cut.npy cannot be read as .npy"),
    "cut.npz": (truncated(lambda path, x: np.savez(path, x=x), TABLE), "cut.npz cannot be read as .npz"),
    "cut.pt": (truncated(lambda path, x: torch.save(torch.tensor(x), path), TABLE), "cut.pt cannot.*cut short"),
    "not.npy": (text("hello"), "not.npy cannot be read as .npy"),
    "not.pt": (text("hello"), "not.pt cannot be read as .pt: it is cut short, or holds objects"),
    "object.pt": (lambda path: torch.save(types.SimpleNamespace(x=1), path), "object.pt .* objects other than tensors"),
    "list.pt": (lambda path: torch.save([1, 2], path), "list.pt .* must hold a dense tensor, got list"),
    "two.npz": (lambda path: np.savez(path, a=TABLE, b=TABLE), r"two.npz .* one called 'x', got \['a', 'b'\]"),
    "ragged.csv": (text("1,2\n3,4\n5\n"), "ragged.csv .* row 3 has 1 columns, the first row 2"),
    "cell.csv": (text("a,b\n3,4\n5,six\n"), "cell.csv .* row 3 column 2 is not a number: 'six'"),
    "missing.csv": (text("1,2\n3,\n5,6\n"), "missing.csv .* row 2 column 2 is not a number: ''"),
    "bytes.csv": (lambda path: path.write_bytes(b"\xff\xfe\x00"), "bytes.csv cannot be read as .csv"),
    "table.txt": (text("1 2\n"), "table.txt must be one of .npy, .npz, .csv, .pt or a folder of images"),
    "nowhere.npy": (lambda path: None, "no file or folder .*nowhere.npy"),
    "bare": (lambda path: path.mkdir(), "the folder bare holds no images"),
    "broken": (one_truncated_image, "03.png cannot be read as an image"),
    "sizes": (lambda path: write_images(path, [GREY[0], GREY[0, :9]]), r"00.png \(28, 28\).*must have one size"),
    "colours": (lambda path: write_images(path, [GREY[0], GREY[:9, :9, :3]]), "must have one size .* all grey or all"),
    "floats": (lambda path: write_images(path, [TABLE], ".tif"), "00.tif cannot be .* pixels are floats"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_named_with_what_is_wrong(name, tmp_path):
    write, message = BAD_FILES[name]
    write(tmp_path / name)
    with pytest.raises(FileNotFoundError if name == "nowhere.npy" else ValueError, match=f"^data: .*{message}"):
        pv.data.from_file(tmp_path / name)


def test_binarisation_takes_probabilities_only(tmp_path):
    np.save(tmp_path / "x.npy", TABLE)
    for binarize in ("static", "dynamic"):
        with pytest.raises(ValueError, match=r"x.npy has values outside \[0, 1\]"):
            pv.data.from_file(tmp_path / "x.npy", binarize=binarize)
    with pytest.raises(ValueError, match=r'binarize must be "static", "dynamic" or None, got \'always\''):
        pv.data.digits(binarize="always")


def test_a_name_that_is_nearly_one():
    with pytest.raises(FileNotFoundError, match=r"'digts' is neither .*; did you mean 'digits'\?"):
        pv.data.load("digts")


# --- batches --------------------------------------------------------------------------------------------------------

X = torch.arange(20.0).reshape(10, 2)
SOURCES = {
    "tensor": X,
    "dataset": TensorDataset(X, torch.arange(10)),
    "loader": DataLoader(TensorDataset(X, torch.arange(10)), 4),
    "list": list(X.split(4)),
}


@pytest.mark.parametrize("source", SOURCES)
def test_each_row_comes_once_per_pass(source):
    for _ in range(2):
        passed = list(pv.data.batches(SOURCES[source], 4, generator=torch.Generator().manual_seed(0)))
        assert [len(batch) for batch in passed] == [4, 4, 2]
        np.testing.assert_array_equal(sorted_rows(*passed), X)
    doubled = list(pv.data.batches(SOURCES[source], 4, shuffle=False, transform=lambda x: 2 * x))
    assert torch.equal(torch.cat(doubled), 2 * X)


@pytest.mark.parametrize("source", ["tensor", "dataset"])
def test_the_order_is_the_generators(source):
    def order(seed):
        return torch.cat(list(pv.data.batches(SOURCES[source], 4, generator=torch.Generator().manual_seed(seed))))

    assert torch.equal(order(0), order(0))
    assert not torch.equal(order(0), order(1))  # by chance once in 10! seeds
    assert not torch.equal(order(0), X)


def test_batches_have_rows():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        next(pv.data.batches(X, 0))
