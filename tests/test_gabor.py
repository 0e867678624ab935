"""The share of atoms that are Gabor functions: on Gabor functions, and on other pictures."""

from __future__ import annotations

import math

import pytest
import torch

import pyrovae as pv
from pyrovae.metrics import gabor_fit

S = 12
Y, X = torch.meshgrid(torch.arange(S).double(), torch.arange(S).double(), indexing="ij")


def uniform(low: float, high: float, num: int, generator: torch.Generator) -> torch.Tensor:
    return low + (high - low) * torch.rand(num, 1, 1, generator=generator, dtype=torch.float64)


def gabors(num: int, seed: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Gabor functions within the bounds of the fit, and their shapes."""
    g = torch.Generator().manual_seed(seed)
    shape = {"row": uniform(3, S - 4, num, g), "column": uniform(3, S - 4, num, g), "width": uniform(1.4, 2.3, num, g)}
    shape |= {"height": uniform(1.4, 2.3, num, g), "orientation": uniform(0.1, math.pi - 0.1, num, g)}
    shape["frequency"] = uniform(0.45, 0.6, num, g) / shape["width"]
    angle = shape["orientation"]
    u = angle.cos() * (X - shape["column"]) + angle.sin() * (Y - shape["row"])
    v = angle.cos() * (Y - shape["row"]) - angle.sin() * (X - shape["column"])
    wave = (2 * math.pi * shape["frequency"] * u + uniform(0, 2 * math.pi, num, g)).cos()
    return torch.exp(-0.5 * ((u / shape["width"]) ** 2 + (v / shape["height"]) ** 2)) * wave, shape


def test_gabor_functions_are_found_with_their_shape():
    atoms, shape = gabors(20)
    fit = gabor_fit(-3 * atoms)  # neither sign nor size counts
    assert fit.gabor_like.all()
    assert fit.explained_variance.min() > 0.99
    for name, value in shape.items():
        assert torch.allclose(getattr(fit, name), value.flatten(), atol=0.15), name


def test_gabor_functions_under_noise_have_the_share_of_the_signal():
    atoms, _ = gabors(50, 1)
    atoms = atoms / atoms.flatten(1).norm(dim=1)[:, None, None]
    noise = torch.randn(atoms.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64) / S
    fit = gabor_fit((atoms + 0.5 * noise).flatten(1))
    # signal 1, noise 0.25 and 8 of 144 numbers fitted; the standard error of the mean is about 0.005
    assert fit.explained_variance.mean().item() == pytest.approx(0.8, abs=0.04)


def test_other_pictures_are_none():
    g = torch.Generator().manual_seed(0)
    white = torch.randn(50, S, S, generator=g, dtype=torch.float64)
    direction, frequency = uniform(0, math.pi, 50, g), uniform(0.1, 0.45, 50, g)
    gratings = (2 * math.pi * frequency * (direction.cos() * X + direction.sin() * Y)).cos()
    spots = torch.exp(-0.5 * ((X - 5) ** 2 + (Y - 6) ** 2) / uniform(1, 2, 10, g) ** 2)
    point = torch.zeros(1, S, S, dtype=torch.float64)
    point[0, 5, 5] = 1.0
    for pictures in (white, gratings, spots, point, torch.zeros(1, S, S)):
        assert not gabor_fit(pictures).gabor_like.any()


def test_principal_components_of_patches_are_hardly_ever_gabor_functions():
    x = pv.data.patches(S, 5000).train.double()
    components = torch.linalg.eigh(x.T @ x).eigenvectors.T
    assert (
        gabor_fit(components).gabor_like.sum() <= 8
    )  # of 144; these are waves in one corner, of the faintest variance


@pytest.mark.parametrize(
    ("atoms", "words"),
    [
        (torch.zeros(2, 12), r"atoms must be \(D, S, S\) or \(D, S \* S\) with S from 6 on, got shape \(2, 12\)"),
        (torch.zeros(0, 36), "atoms must be"),
        (torch.zeros(1, 5, 5), "atoms must be"),
        (torch.full((1, 36), math.nan), "atoms must be finite"),
    ],
)
def test_bad_atoms_are_refused(atoms, words):
    with pytest.raises(ValueError, match=words):
        gabor_fit(atoms)
