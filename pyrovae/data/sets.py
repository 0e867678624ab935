"""Data sets: each is a :class:`Data`, three splits as whole tensors, one row per datum."""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.data.downloads import read_torchvision
from pyrovae.data.files import Source, image_shape_of, read_images, read_shards, read_table
from pyrovae.data.on_disk import OnDisk
from pyrovae.data.photographs import read_patches
from pyrovae.data.shards import is_shards
from pyrovae.data.standardization import Standardization
from pyrovae.data.vocabulary import Vocabulary
from pyrovae.rows import data_of

__all__ = [
    "NAMES",
    "Data",
    "binarized",
    "digits",
    "fashion_mnist",
    "from_file",
    "image_shape",
    "load",
    "mnist",
    "patches",
    "rows",
    "split",
]

HELD_OUT_ROWS, HELD_OUT_BYTES = 10_000, 128 << 20  # of validation and of test, where the data stay on the disk
PATCH_SIZE = 12
NAMES = ("digits", "mnist", "fashion-mnist", "patches")


@dataclass(frozen=True, repr=False)
class Data:
    """Three splits of a data set, each ``(N, *event_shape)``.

    Args:
        name: What it is called on screen.
        train: Used to train. Under dynamic binarisation these are the grey values that ``transform`` draws from. Rows
            that do not fit in memory are :class:`OnDisk`.
        val: Used to choose: when to stop, which weights to keep.
        test: Used once, for the numbers that are reported.
        transform: Applied to each training batch; None leaves it as it is.
        image_shape: ``(C, H, W)`` when the rows are images, flattened or not.
        labels: The label of each row, by split, where there are any.
        standardization: What :meth:`standardize` did to all three splits; its ``inverse`` gives the data's own units.
        vocabulary: The characters that the whole numbers of a text stand for, see :func:`text`.
    """

    name: str
    train: Tensor | OnDisk
    val: Tensor
    test: Tensor
    transform: Callable[[Tensor], Tensor] | None = None
    image_shape: tuple[int, int, int] | None = None
    labels: dict[str, Tensor] = field(default_factory=dict)
    standardization: Standardization | None = None
    vocabulary: Vocabulary | None = None

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}={len(getattr(self, name))}" for name in ("train", "val", "test"))
        return f"Data({self.name!r}, {sizes}, event_shape={self.event_shape})"

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one datum."""
        return tuple(self.train.shape[1:])

    @property
    def in_memory(self) -> Tensor:
        """The training rows, or 1,000 of those that are on the disk, evenly spaced."""
        return data_of(self.train.sample(1000)) if isinstance(self.train, OnDisk) else self.train

    def labelled(self, part: str) -> tuple[Tensor, Tensor]:
        """The rows of ``"train"``, ``"val"`` or ``"test"`` with their labels, as ``model(x, y)`` takes them.

        Raises: ValueError where there are no labels.
        """
        if part not in self.labels:
            raise ValueError(f"data: {self.name} has no labels of its {part} set")
        return getattr(self, part), self.labels[part]

    def reshape(self, event_shape: tuple[int, ...]) -> Data:
        """The same data with each row in another shape."""
        splits: dict[str, Any] = {
            name: x.reshape(event_shape)
            if isinstance(x := getattr(self, name), OnDisk)
            else x.reshape(-1, *event_shape)
            for name in ("train", "val", "test")
        }
        return replace(self, **splits)

    def standardize(self, standardization: Standardization | None = None) -> Data:
        """The same data with mean 0 and standard deviation 1 in each column of the training rows.

        Args:
            standardization: Of other rows, where these are to be treated as those were; None is that of ``train``.

        Raises: ValueError for images, for data that are binarised, and for those that are standardised already.
        """
        if self.image_shape is not None or self.transform is not None or self.standardization is not None:
            what = "images" if self.image_shape else "binarised" if self.transform else "standardised already"
            raise ValueError(f"data: {self.name} cannot be standardised, its rows are {what}")
        if standardization is None:
            standardization = (
                self.train.statistics().standardization
                if isinstance(self.train, OnDisk)
                else Standardization.of(self.train)
            )
        splits: dict[str, Any] = {
            name: x.standardize(standardization) if isinstance(x := getattr(self, name), OnDisk) else standardization(x)
            for name in ("train", "val", "test")
        }
        return replace(self, **splits, standardization=standardization)

    def sha256(self) -> str:
        """A hash of all rows, by which a run knows its data again: another order or another split is another hash.

        Of rows on the disk it is the :meth:`OnDisk.fingerprint`, of some of them.
        """
        total = hashlib.sha256()
        for name in ("train", "val", "test"):
            if isinstance(x := getattr(self, name), OnDisk):
                total.update(f"{name} {x.fingerprint()}\n".encode())
                continue
            rows = x.detach().cpu().flatten(1).contiguous()  # in any shape of a row
            total.update(f"{name} {rows.dtype} {tuple(rows.shape)}\n".encode())
            total.update(rows.numpy().data)
        return total.hexdigest()

    def to(self, dtype: torch.dtype) -> Data:
        """The same data with rows of real numbers in this dtype; whole numbers stay what they are."""
        splits: dict[str, Any] = {
            name: x.to(dtype) if isinstance(x := getattr(self, name), Tensor) and x.is_floating_point() else x
            for name in ("train", "val", "test")
        }
        return replace(self, **splits)


def digits(binarize: str | None = "static", seed: int = 0) -> Data:
    """1,797 handwritten digits of 8×8 pixels, from scikit-learn; rows of 64.

    Args:
        binarize: ``"static"``, ``"dynamic"`` or None, see :func:`split`.
        seed: Of the split 80/10/10 and of the binarisation.
    """
    return load("digits", None, binarize, seed)


def mnist(data_dir: str | Path | None = None, binarize: str | None = "static", seed: int = 0) -> Data:
    """MNIST: 50,000 / 10,000 / 10,000 digits of 28×28 pixels; rows of 784. The test set is the official one.

    Args:
        data_dir: Folder that holds (or will hold) ``MNIST/raw``; then ``PYROVAE_DATA``, then the user's cache.
        binarize: ``"static"``, ``"dynamic"`` or None, see :func:`split`.
        seed: Of the split of the 60,000 into training and validation, and of the binarisation.

    Raises: FileNotFoundError when it is not there and cannot be downloaded.
    """
    return load("mnist", data_dir, binarize, seed)


def fashion_mnist(data_dir: str | Path | None = None, binarize: str | None = "static", seed: int = 0) -> Data:
    """Fashion-MNIST, as :func:`mnist`: pictures of clothes in the same shapes and numbers."""
    return load("fashion-mnist", data_dir, binarize, seed)


def patches(size: int = PATCH_SIZE, num: int = 60_000, seed: int = 0) -> Data:
    r"""Natural image patches: whitened cuts of the two photographs of scikit-learn; rows of ``size * size``.

    A photograph, grey by its luminance, is filtered by

    .. math:: R(f) = f\, e^{-(f/f_0)^4} , \qquad f_0 = 0.4 \text{ cycles per pixel}

    which levels the 1/f amplitudes of natural images and cuts off the corners of the frequency plane. Patches of less
    than a tenth of the variance of the photographs (sky, blur) are left out, and so is the mean of each patch.

    Args:
        size: Side of a patch, in pixels, from 2 to 64.
        num: Patches in all, half from each photograph: 80 % to train, 10 % to validate, 10 % to test.
        seed: Of the places.

    The three splits are cut from different columns of the photographs, each filtered by itself: no pixel of one split
    enters another. Within a split patches overlap.

    Units: multiples of the standard deviation of the training pixels.
    Raises: ValueError if ``size`` or ``num`` is out of range, or there are fewer places than ``num`` asks for;
        ImportError without scikit-learn.
    References: Olshausen and Field (1997), "Sparse coding with an overcomplete basis set: a strategy employed by V1?",
        whose :math:`f_0` is 200 cycles per picture of 512 pixels; their published code, sparsenet, has 0.4 per pixel.
    """
    parts = read_patches(size, num, seed)
    return Data("patches", parts["train"], parts["val"], parts["test"], image_shape=(1, size, size))


def from_file(
    path: str | Path,
    binarize: str | None = None,
    seed: int = 0,
    standardize: bool = False,
    missing: bool = False,
    max_bytes: int | None = None,
    dtype: torch.dtype | None = torch.float32,
    on_disk: bool = False,
) -> Data:
    """A user's own data: ``.npy``, ``.npz``, ``.csv``, ``.pt`` or a folder of images or of ``.npy`` shards.

    The first dimension is the datum.

    Each datum becomes one row of numbers; ``Data.reshape(data.image_shape)`` makes images of them again.

    Args:
        path: An ``.npz`` holds one array or one called ``x``; a ``.csv`` numbers between commas, semicolons or tabs,
            with or without a header; a ``.pt`` a tensor, or a dictionary with a tensor ``x``, read with
            ``weights_only=True``; a folder images of one size, read into [0, 1], sub-folders included. An array
            ``(N, H, W)`` or ``(N, C, H, W)`` is taken for images.
        binarize: As in :func:`split`.
        seed: Of the split 80/10/10 and the binarisation.
        standardize: Whether each column is brought to mean 0 and standard deviation 1, see :meth:`Data.standardize`.
        missing: Whether NaN, and an empty cell of a ``.csv``, is a value that is missing; otherwise it is an error.
        max_bytes: Memory that the data may take, which is known before they are read; None is half of the machine's.
        dtype: Of the rows. They are standardised before they are rounded to it. None keeps float64 where the file has
            numbers that float32 may not hold, such as time stamps.
        on_disk: Whether the training rows of a ``.npy``, or of a folder of them, stay on the disk, see :class:`OnDisk`.
            They are split at random too; validation and test have 10 % of the rows each, but at most 10,000 rows and
            128 MiB, in memory. The split differs from that of the same file in memory.

    Raises: FileNotFoundError, or ValueError that names the file and what is wrong with it.
    """
    if on_disk:
        return _on_disk(Path(path), binarize, seed, standardize, missing)
    return _made(Path(path).name, _read(Path(path), missing, max_bytes), binarize, seed, standardize, missing, dtype)


def load(
    name: str | Path,
    data_dir: str | Path | None = None,
    binarize: str | None = None,
    seed: int = 0,
    standardize: bool = False,
    missing: bool = False,
    max_bytes: int | None = None,
    dtype: torch.dtype | None = torch.float32,
    on_disk: bool = False,
) -> Data:
    """A data set by name (``digits``, ``mnist``, ``fashion-mnist``, ``patches``) or by path, as the command line takes
    it; the rest as in :func:`from_file`."""
    if name == "patches":
        data = _real(patches(seed=seed), binarize)
        return _standardized(data, binarize) if standardize else data
    if on_disk and name in NAMES:
        raise ValueError(f"data: {name} is held in memory: only .npy files, and folders of them, stay on the disk")
    if on_disk:
        return _on_disk(Path(name), binarize, seed, standardize, missing)
    source = _source(name, data_dir, missing, max_bytes)
    return _made(Path(name).name, source, binarize, seed, standardize, missing, dtype)


def rows(
    name: str | Path,
    data_dir: str | Path | None = None,
    binarize: str | None = None,
    seed: int = 0,
    missing: bool = False,
    dtype: torch.dtype | None = torch.float32,
) -> Tensor:
    """Every row of a data set in its own order, binarised once where it is binarised; MNIST's test set comes last.

    Patches have the order of their splits: training, validation, test. ``dtype`` is that of :func:`from_file`.
    """
    if name == "patches":
        data = _real(patches(seed=seed), binarize)
        return torch.cat([data.in_memory, data.val, data.test])
    source = _source(name, data_dir, missing)
    if dtype is not None or binarize is not None:
        source = source.to(dtype or torch.float32)
    x = _checked(str(name), source.x if source.test is None else torch.cat([source.x, source.test]), missing)
    return x if binarize is None else binarized(str(name), x, seed)


def image_shape(
    name: str | Path, data_dir: str | Path | None = None, missing: bool = False
) -> tuple[int, int, int] | None:
    """``(C, H, W)`` of the rows that :func:`rows` gives, if they are images."""
    return (1, PATCH_SIZE, PATCH_SIZE) if name == "patches" else _source(name, data_dir, missing).image_shape


def binarized(name: str, x: Tensor, seed: int = 0) -> Tensor:
    """Rows of grey values, each pixel drawn once; ``name`` is what an error calls them."""
    return _binarized(name, x, torch.Generator().manual_seed(seed))


def split(
    name: str,
    x: Tensor,
    *,
    binarize: str | None = None,
    seed: int = 0,
    fractions: tuple[float, float] = (0.1, 0.1),
    test: Tensor | None = None,
    image_shape: tuple[int, int, int] | None = None,
    labels: Tensor | None = None,
    test_labels: Tensor | None = None,
    missing: bool = False,
) -> Data:
    """Cut rows at random into training, validation and test, and binarise them.

    Args:
        name: What the data set is called on screen.
        x: ``(N, *event_shape)``.
        binarize: ``"static"`` draws each pixel once from a Bernoulli with its grey value as probability
            (Salakhutdinov and Murray, 2008); ``"dynamic"`` draws the training pixels anew in each batch, the rest once;
            None keeps grey values.
        seed: Of the permutation and of the draws.
        fractions: Of validation and test.
        test: Rows that are the test set already; then only validation is cut off.
        image_shape: ``(C, H, W)`` of a row.
        labels: One for each row of x.
        test_labels: One for each row of ``test``.
        missing: Whether NaN is a value that is missing; otherwise it is an error.
    """
    if binarize not in (None, "static", "dynamic"):
        raise ValueError(f'binarize must be "static", "dynamic" or None, got {binarize!r}')
    x = _checked(name, x, missing)
    generator = torch.Generator().manual_seed(seed)
    n_val = max(1, round(fractions[0] * len(x)))
    n_test = max(1, round(fractions[1] * len(x))) if test is None else 0
    if len(x) < n_val + n_test + 1:
        raise ValueError(f"data: {name} has {len(x)} rows, too few to split into training, validation and test")
    order = torch.randperm(len(x), generator=generator)
    cut = dict(zip(("test", "val", "train"), order.split([n_test, n_val, len(x) - n_test - n_val]), strict=True))
    parts = {part: x[index] for part, index in cut.items()}
    named = {} if labels is None else {part: labels[index] for part, index in cut.items()}
    if test is not None:
        parts["test"] = _checked(name, test, missing)
        named = named if test_labels is None else {**named, "test": test_labels}
    drawn = {"static": ("train", "val", "test"), "dynamic": ("val", "test"), None: ()}[binarize]
    for part in drawn:
        parts[part] = _binarized(name, parts[part], generator)
    transform = torch.bernoulli if binarize == "dynamic" else None
    return Data(name, parts["train"], parts["val"], parts["test"], transform, image_shape, named)


def _checked(name: str, x: Tensor, missing: bool) -> Tensor:
    if x.dim() < 2 or x.numel() == 0:
        raise ValueError(f"data: {name} must have rows and columns, got shape {tuple(x.shape)}")
    bad = x.isinf() if missing else ~torch.isfinite(x)
    if bad.any():
        place = tuple(int(i) for i in bad.nonzero()[0])
        hint = "; missing=True, or --missing, takes NaN for what is missing" if x[place].isnan() else ""
        raise ValueError(
            f"data: {name} has {x[place].item()} at index {place}, and {int(bad.sum())} such values in all{hint}"
        )
    return x


def _binarized(name: str, x: Tensor, generator: torch.Generator) -> Tensor:
    if x.isnan().any():
        raise ValueError(f"data: {name} has missing values, which are no probabilities to binarise by")
    if not bool(((x >= 0) & (x <= 1)).all()):
        raise ValueError(f"data: {name} has values outside [0, 1], which are no probabilities to binarise by")
    return torch.bernoulli(x, generator=generator)


def _real(data: Data, binarize: str | None) -> Data:
    if binarize is not None:
        raise ValueError(f"data: {data.name} has values outside [0, 1], which are no probabilities to binarise by")
    return data


def _standardized(data: Data, binarize: str | None) -> Data:
    if binarize is not None:
        raise ValueError(f"data: {data.name} cannot be both binarised and standardised")
    return data.standardize()


def _made(
    name: str,
    source: Source,
    binarize: str | None,
    seed: int,
    standardize: bool,
    missing: bool,
    dtype: torch.dtype | None,
) -> Data:
    """Split, and standardised before it is rounded."""
    if not standardize and (dtype is not None or binarize is not None):
        source = source.to(dtype or torch.float32)
    data = _split_source(name, source, binarize, seed, missing)
    data = _standardized(data, binarize) if standardize else data
    return data if dtype is None else data.to(dtype)


def _source(name: str | Path, data_dir: str | Path | None, missing: bool, max_bytes: int | None = None) -> Source:
    if name == "digits":
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return Source(torch.from_numpy(bunch.data).float() / 16, (1, 8, 8), torch.from_numpy(bunch.target))
    if name in ("mnist", "fashion-mnist"):
        return read_torchvision("MNIST" if name == "mnist" else "FashionMNIST", data_dir)
    if not Path(name).exists():
        nearest = difflib.get_close_matches(str(name), NAMES, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise FileNotFoundError(f"data: {str(name)!r} is neither {', '.join(NAMES)} nor a file or folder{hint}")
    return _read(Path(name), missing, max_bytes)


def _split_source(name: str, source: Source, binarize: str | None, seed: int, missing: bool) -> Data:
    return split(
        name,
        source.x,
        binarize=binarize,
        seed=seed,
        fractions=(0.1, 0.1) if source.test is None else (1 / 6, 0.0),
        test=source.test,
        image_shape=source.image_shape,
        labels=source.labels,
        test_labels=source.test_labels,
        missing=missing,
    )


def _read(path: Path, missing: bool, max_bytes: int | None) -> Source:
    if not path.exists():
        raise FileNotFoundError(f"data: there is no file or folder {str(path)!r}")
    if not path.is_dir():
        x = read_table(path, missing, max_bytes)
    else:
        x = read_shards(path, missing, max_bytes) if is_shards(path) else read_images(path, max_bytes)
    return Source(x.flatten(1), image_shape_of(tuple(x.shape[1:])))


def _on_disk(path: Path, binarize: str | None, seed: int, standardize: bool, missing: bool) -> Data:
    """Random rows of validation and test in memory, and all others on the disk."""
    name = path.name
    if binarize == "static":
        raise ValueError(
            f"data: {name} stays on the disk and cannot be binarised once: binarize='dynamic' draws its pixels anew in "
            f"each batch, or binarise the file itself"
        )
    x = OnDisk(path, missing=missing)
    image_shape, row_bytes = image_shape_of(x.event_shape), 4 * math.prod(x.event_shape)
    x = x.reshape((math.prod(x.event_shape),))
    num = max(1, min(round(0.1 * len(x)), HELD_OUT_ROWS, HELD_OUT_BYTES // row_bytes))
    if len(x) < 2 * num + 1:
        raise ValueError(f"data: {name} has {len(x)} rows, too few to split into training, validation and test")
    generator = np.random.default_rng(seed)
    held_out = generator.choice(len(x), 2 * num, replace=False, shuffle=False)
    generator.shuffle(held_out)
    parts = {
        part: _checked(name, data_of(x.rows(index)), missing)
        for part, index in (("test", held_out[:num]), ("val", held_out[num:]))
    }
    data = Data(name, x.without(held_out), parts["val"], parts["test"], None, image_shape)
    if binarize == "dynamic":
        draws = torch.Generator().manual_seed(seed)
        parts = {part: _binarized(name, rows, draws) for part, rows in parts.items()}
        data = replace(data, val=parts["val"], test=parts["test"], transform=torch.bernoulli)
    return _standardized(data, binarize) if standardize else data
