r"""Lossless compression of handwritten digits by bits-back coding: the negative ELBO as a number of bytes.

A VAE with 40 coordinates is trained on binarised MNIST, 784-400-40-400-784, with a Normal and a spike-and-slab prior.
Each compresses 1,000 digits of the test set into one file, which is decompressed and compared with them bit by bit.
Bits-back coding pays :math:`-\log_2 P(x|z) - \log_2 P(z) + \log_2 Q(z|x)` bits for a digit, whose mean over draws of z
is the negative ELBO; header, checksum and the code of the first digit come to some 900 bits, and to fewer where most
of its coordinates are zero: 0.7 % of the file under the Normal prior, and 0.4 % under the spike-and-slab.

The table has bits per digit, of 784: the measured size of the file, the negative ELBO of the same 1,000 digits, and
what gzip, bz2, xz and PNG make of the same bits, eight in a byte; PNG once as one picture, once a file for each digit.

With --out the picture shows bits per digit of files of 1 to 1,000 digits. What is fixed in a file weighs on the first
digits; it is a hundredth of the size at 1,000.

The last line is the size of the file under the Normal prior over the negative ELBO, about 1.01: to be 1 the file would
need no header, and its first digit a digit before it.

    PYROVAE_DATA=~/data python examples/14_compression.py [--smoke] [--out compression.png]
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import io
import itertools
import lzma
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import pyrovae as pv

LATENT_DIM = 40


def main() -> None:
    parser = argparse.ArgumentParser(description="Bits-back coding of 1,000 MNIST digits.")
    parser.add_argument("--smoke", action="store_true", help="two epochs of 8x8 digits, to see that it runs")
    parser.add_argument("--out", type=Path, help="where to draw bits per digit, a .png")
    args = parser.parse_args()
    data = pv.data.digits("dynamic") if args.smoke else pv.data.mnist(binarize="dynamic")
    epochs, warmup, num = (2, 1, 50) if args.smoke else (40, 14, 1000)
    losses = {"normal": pv.ELBO(), "spike-slab": pv.ELBO(beta=pv.warmup(warmup))}
    x = data.test[:num]

    print(f"{'':<12} {'bits per digit':>14} {'of raw':>7} {'-ELBO':>8} {'excess':>7} {'ms per digit':>13}")
    vaes, bits, elbos = {}, {}, {}
    for prior, loss in losses.items():
        torch.manual_seed(0)
        vaes[prior] = vae = pv.build_vae(data.event_shape, LATENT_DIM, prior=prior)
        pv.fit(vae, data, epochs=epochs, loss=loss, seed=0, progress=False)
        times = [time.perf_counter()]
        compressed = pv.compression.compress(vae, x)
        times.append(time.perf_counter())
        decompressed = pv.compression.decompress(vae, compressed)
        times.append(time.perf_counter())
        if not torch.equal(decompressed, x):
            raise AssertionError("these are not the digits that were compressed")
        torch.manual_seed(0)
        bits[prior] = 8 * len(compressed) / num
        elbos[prior] = -pv.metrics.elbo(vae, x).elbo.mean().item() / math.log(2)
        ms = " and ".join(f"{1000 * (end - start) / num:.1f}" for start, end in itertools.pairwise(times))
        print_row(prior, bits[prior], x, f"{elbos[prior]:>8.2f} {bits[prior] / elbos[prior] - 1:>7.1%} {ms:>13}")
    for name, size in OTHERS.items():
        print_row(name, 8 * size(x) / num, x)
    print(f"both files gave back all {num} digits, bit by bit")
    if args.out is not None:
        draw(vaes, elbos, x, args.out)
    print(f"bits of the file over the negative ELBO, Normal prior: {bits['normal'] / elbos['normal']:.4f}")


def print_row(name: str, bits: float, x: Tensor, more: str = "") -> None:
    print(f"{name:<12} {bits:>14.2f} {bits / x[0].numel():>7.1%} {more}".rstrip())


def packed(x: Tensor) -> bytes:
    """Eight pixels in a byte."""
    return np.packbits(x.bool().numpy()).tobytes()


def png(x: Tensor) -> int:
    """The size of one black and white picture of all digits, a digit below the other."""
    side = math.isqrt(x[0].numel())
    picture, file = Image.fromarray(x.reshape(-1, side).bool().numpy()), io.BytesIO()
    picture.save(file, "png", optimize=True)
    return file.tell()


OTHERS: dict[str, Callable[[Tensor], int]] = {
    "raw": lambda x: len(packed(x)),
    "gzip": lambda x: len(gzip.compress(packed(x), 9)),
    "bz2": lambda x: len(bz2.compress(packed(x), 9)),
    "xz": lambda x: len(lzma.compress(packed(x), preset=9)),
    "PNG, one": png,
    "PNG, each": lambda x: sum(png(digit[None]) for digit in x),
}


def draw(vaes: dict[str, pv.VAE], elbos: dict[str, float], x: Tensor, path: Path) -> None:
    """Bits per digit against the number of digits in a file."""
    from matplotlib.figure import Figure

    nums = [n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if n <= len(x)]
    figure = Figure(figsize=(7.2, 4.2), dpi=100, layout="constrained")
    axes = figure.subplots()
    for colour, (prior, vae) in enumerate(vaes.items()):
        sizes = [8 * len(pv.compression.compress(vae, x[:n])) / n for n in nums]
        axes.plot(nums, sizes, "o-", color=f"C{colour}", label=f"bits-back, {prior}")
        axes.axhline(elbos[prior], color=f"C{colour}", linestyle="--", label=f"-ELBO, {prior}")
    for colour, name in enumerate(("bz2", "xz", "PNG, one"), start=len(vaes)):
        axes.plot(nums, [8 * OTHERS[name](x[:n]) / n for n in nums], ".-", color=f"C{colour}", linewidth=1, label=name)
    axes.set(xscale="log", yscale="log", xlabel="digits in the file", ylabel="bits per digit")
    axes.set_ylim(0.7 * min(elbos.values()), 2 * x[0].numel())
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8, ncols=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
