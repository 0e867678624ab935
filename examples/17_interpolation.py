r"""Between two digits, and along one coordinate: what a sparse code makes of a digit, step by step.

.. math:: E[x \,|\, (1 - t)\, a + t\, b] , \qquad E[x \,|\, a + (v - a_j)\, e_j]

A VAE with a spike-and-slab prior, whose gates are open with probability 0.2, is trained on the bits of MNIST,
784-400-32 and back, 20 epochs, of which beta rises over 14. ``pv.metrics.interpolations`` goes from the code a of one
digit to the code b of another in a straight line; on a sphere it would be the great circle.
``pv.metrics.traversals(centre=a)`` takes the coordinates that a digit uses most, one at a time, through the values that
they have over all digits, and leaves the others as they are: those that the digit has at zero stay there.

The table has how many of the 32 coordinates are not zero: 11.55 for a test digit, and 15.50 halfway between two, where
whatever either of them uses is in use.

With --out the picture shows six ways between two test digits, and six coordinates of a 3.

The last line is the mean number of coordinates of a test digit that are not zero, 11.55.

    PYROVAE_DATA=~/data python examples/17_interpolation.py [--smoke] [--out interpolation.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

import pyrovae as pv

LATENT_DIM = 32
STEPS, WAYS, COORDINATES = 9, 6, 6


def main() -> None:
    parser = argparse.ArgumentParser(description="Ways between MNIST digits, and along the coordinates of one.")
    parser.add_argument("--smoke", action="store_true", help="two epochs of 8x8 digits, to see that it runs")
    parser.add_argument("--out", type=Path, help="where to draw the ways, a .png")
    args = parser.parse_args()
    data = pv.data.digits() if args.smoke else pv.data.mnist()
    epochs, warmup = (2, 1) if args.smoke else (20, 14)
    torch.manual_seed(0)
    vae = pv.build_vae(data.event_shape, LATENT_DIM, prior="spike-slab:active=0.2", hidden=(400,))
    pv.fit(vae, data, epochs=epochs, loss=pv.ELBO(beta=pv.warmup(warmup)), seed=0, progress=False)

    x = data.test
    half = len(x) // 2
    halfway = pv.metrics.interpolations(vae, x[:half], x[half : 2 * half], 3).codes[:, 1]
    used, used_halfway = ((codes != 0).sum(1).float().mean().item() for codes in (vae.encode(x), halfway))
    print(f"{'not zero':<28} coordinates of {LATENT_DIM}")
    print(f"{'a digit':<28} {used:>17.2f}")
    print(f"{'halfway between two':<28} {used_halfway:>17.2f}")
    if args.out is not None:
        draw(vae, data, args.out)
    print(f"coordinates in use by a digit: {used:.2f} of {LATENT_DIM}")


def draw(vae: pv.VAE, data: pv.data.Data, path: Path) -> None:
    """Left, ways from one digit to the next; right, coordinates of one digit, each at values from low to high."""
    from matplotlib.figure import Figure

    first = [int((data.labels["test"] == label).nonzero()[0]) for label in range(10)]
    starts, ends = data.test[first[:WAYS]], data.test[first[1 : WAYS + 1]]
    ways = pv.metrics.interpolations(vae, starts, ends, STEPS).decoded
    digit = vae.encode(data.test[first[3]][None])[0]
    runs = pv.metrics.traversals(vae, data.test, COORDINATES, STEPS, centre=digit)

    figure = Figure(figsize=(11.2, 4.1), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, pictures in ((left, ways), (right, runs.decoded)):
        axes.imshow(mosaic(pictures, data.image_shape).numpy(), cmap="gray_r", vmin=0, vmax=1)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    height = data.image_shape[1] + 2
    names = [f"$z_{{{int(j) + 1}}}$" for j in runs.coordinates]
    right.set_yticks([(row + 0.5) * height for row in range(len(names))], names)
    left.set_title("from one digit to the next", fontsize=9)
    right.set_title("one coordinate of a 3, from low to high", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"picture: {path}")


def mosaic(pictures: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
    """``(rows, columns, pixels)`` as one picture."""
    tiles = torch.nn.functional.pad(pictures.unflatten(-1, image_shape[1:]), (1, 1, 1, 1))
    return tiles.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)


if __name__ == "__main__":
    main()
