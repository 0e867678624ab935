r"""Sparse coding of natural images: the prior decides what a linear dictionary learns.

.. math:: x = \Phi z + 0.5\, \epsilon , \qquad |\phi_k| = 1 , \qquad z_k \sim p

x is a whitened patch of 12×12 pixels and :math:`\Phi` has 225 atoms, more than a patch has pixels. It is the model of
Olshausen and Field (1997), trained as a VAE: an encoder reads q(z|x), and its KL from the prior takes the place of
their penalty. Data, networks and noise are the same for all four priors. The atoms have unit length, so that the
scale of a code is the prior's to set and sparsity cannot be undone by longer atoms.

A sparse prior lets each patch be made of few atoms, and the atoms become what patches are made of: edges, localised and
oriented, like Gabor functions. A Normal prior sees of the atoms only :math:`\Phi\Phi^T`, the covariance of x, which
many dictionaries share, and its atoms are mixtures of all that the patches have. The table has, for each prior,

- ELBO: on the 6,000 held-out patches, in nats per datum;
- zeros: the share of the code that is exactly zero, which only the spike-and-slab's is;
- Hoyer: sparseness of a code, 0 when all of it is alike and 1 when one number is not zero, each coordinate over its
  standard deviation (`pv.metrics.hoyer`);
- pixels: over how many pixels the energy of an atom spreads, :math:`(\sum_i \phi_i^2)^2 / \sum_i \phi_i^4`, the median;
- Gabor: the share of atoms that some Gabor function of at most 3 pixels in width fits with 70 % of their energy.

With --out all atoms are drawn, those that are used most first.

Laplace has 80 % of such atoms, Student's t 67 %, spike-and-slab 54 % and the Normal none. The ELBO has another order:
spike-and-slab -187, Normal -197, Laplace -224, Student's t -271. The scales of the priors are fixed, and their choice
moves it; and every guide here has independent coordinates, which the posterior of overlapping atoms has not.

The last line is the share of Gabor-like atoms, the least of the three sparse priors minus the Normal's: about 0.53.
It takes about ten minutes on one core.

    python examples/04_sparse_coding.py [--smoke] [--out sparse_coding.png]
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pyro
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor

import pyrovae as pv

SIZE, NUM_ATOMS, NOISE, BATCH = 12, 225, 0.5, 128
MAX_WIDTH = 3.0  # pixels


def main() -> None:
    parser = argparse.ArgumentParser(description="Dictionaries of natural image patches under four priors.")
    parser.add_argument("--smoke", action="store_true", help="one epoch of few patches, to see that it runs")
    parser.add_argument("--out", type=Path, help="where to draw the atoms, a .png")
    args = parser.parse_args()
    epochs, data = (1, pv.data.patches(SIZE, num=500)) if args.smoke else (20, pv.data.patches(SIZE))

    atoms, share = {}, {}
    print(f"{'prior':<12} {'ELBO':>8} {'zeros':>7} {'Hoyer':>7} {'pixels':>7} {'Gabor':>7}")
    for name in ("Normal", "Laplace", "StudentT", "SpikeSlab"):
        vae = fit(name, data, epochs)
        torch.manual_seed(0)
        elbo = pv.metrics.elbo(vae, data.test, num_samples=10).elbo.mean().item()
        z = vae.encode(data.test)
        most_used_first = z.square().mean(0).argsort(descending=True)
        atoms[name] = vae.likelihood.network.atoms.detach()[most_used_first]
        pixels = 1 / atoms[name].pow(4).sum(1)
        share[name] = (gabor_fit(atoms[name]) > 0.7).float().mean().item()
        print(
            f"{name:<12} {elbo:>8.2f} {(z == 0).float().mean():>7.1%} {pv.metrics.hoyer(z).mean:>7.2f} "
            f"{pixels.median():>7.1f} {share[name]:>7.0%}"
        )
    if args.out is not None:
        draw(atoms, share, args.out)
    sparse = min(share[name] for name in share if name != "Normal")
    print(f"share of Gabor-like atoms, sparse priors minus Normal: {sparse - share['Normal']:+.2f} of 1")


def fit(name: str, data: pv.data.Data, epochs: int) -> pv.VAE:
    """A VAE of one prior, trained."""
    torch.manual_seed(0)
    prior = {
        "Normal": pv.priors.Normal(NUM_ATOMS, scale=0.4),
        "Laplace": pv.priors.Laplace(NUM_ATOMS, scale=0.15),
        "StudentT": pv.priors.StudentT(NUM_ATOMS, df=3.0, scale=0.1),
        "SpikeSlab": pv.priors.SpikeSlab(NUM_ATOMS, active=0.03, scale=2.0),
    }[name]
    encoder = pv.nn.MLP(SIZE**2, [512])
    guide = {"Normal": pv.guides.Normal, "SpikeSlab": pv.guides.SpikeSlab}.get(name, pv.guides.Laplace)
    dictionary = pv.nn.Dictionary(NUM_ATOMS, SIZE**2, bias=False, unit_norm=True)
    torch.nn.init.normal_(dictionary.linear.weight, std=1 / SIZE)  # atoms of length 1, which Adam moves by its rate
    vae = pv.VAE(prior, pv.likelihoods.Normal(dictionary, scale=NOISE), guide(encoder, NUM_ATOMS))

    # The KL of Student's t by quadrature takes twenty times as long as the rest of a step. A sampled one is noisy, and
    # wants a slow encoder. Unbiased gradients of 225 gates are noisy too, and leave a third as many Gabor-like atoms.
    loss = Trace_ELBO() if name == "StudentT" else pv.ELBO(estimator=pv.StraightThrough())
    rates = {"likelihood": 1e-2, "posterior": 5e-4 if name == "StudentT" else 3e-3}
    decay = 0.05 ** (1 / (epochs * math.ceil(len(data.train) / BATCH)))  # to a twentieth over the run

    def options(parameter: str) -> dict[str, float]:
        rate = next(rate for part, rate in rates.items() if part in parameter)
        return {"lr": rate, "lrd": decay, "clip_norm": math.inf}

    optim = pyro.optim.ClippedAdam(options)
    pv.fit(vae, data, epochs=epochs, batch_size=BATCH, optim=optim, loss=loss, seed=0, progress=False)
    return vae


def gabor_fit(atoms: Tensor, steps: int = 200) -> Tensor:
    r"""The share of each atom's energy that the best Gabor function of any amplitude and phase explains, (K,).

    .. math:: g(u, v) = e^{-u^2/2\sigma_u^2 - v^2/2\sigma_v^2} \cos(2\pi f u + \psi)

    with u, v the pixel about a centre, turned to the direction of the wave, and both widths at most 3 pixels, which
    leaves a third of a grating over the whole patch unexplained. Gradient ascent starts at the atom's brightest pixel
    and the peak of its spectrum, from two widths; the amplitudes of cosine and sine are solved for.
    """
    a = atoms / atoms.norm(dim=1, keepdim=True)
    y, x = (grid.flatten().float() for grid in torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij"))
    spectrum = torch.fft.fft2(a.reshape(-1, SIZE, SIZE), s=(64, 64))[..., :33].abs().flatten(1)
    peak = spectrum.argmax(1)
    wave = torch.stack([torch.fft.fftfreq(64)[peak // 33], torch.fft.rfftfreq(64)[peak % 33]], 1)
    brightest = a.square().argmax(1)
    centre = torch.stack([brightest // SIZE, brightest % SIZE], 1)
    starts = [torch.cat([centre, wave, torch.full_like(wave, math.log(width))], 1) for width in (1.2, 2.4)]
    parameters = torch.stack(starts).requires_grad_()
    optim = torch.optim.Adam([parameters], lr=0.05)

    def explained() -> Tensor:
        cy, cx, fy, fx = parameters[..., :4, None].unbind(-2)
        width_u, width_v = parameters[..., 4:, None].exp().clamp(max=MAX_WIDTH).unbind(-2)
        f = torch.hypot(fy, fx) + 1e-6
        along, across = ((y - cy) * fy + (x - cx) * fx) / f, ((x - cx) * fy - (y - cy) * fx) / f
        envelope = torch.exp(-((along / width_u) ** 2 + (across / width_v) ** 2) / 2)
        even, odd = (envelope * wave(2 * math.pi * f * along) for wave in (torch.cos, torch.sin))
        even = even / (even.norm(dim=-1, keepdim=True) + 1e-6)
        odd = odd - (odd * even).sum(-1, keepdim=True) * even
        odd = odd / (odd.norm(dim=-1, keepdim=True) + 1e-6)
        return (a * even).sum(-1) ** 2 + (a * odd).sum(-1) ** 2

    for _ in range(steps):
        optim.zero_grad()
        (-explained().sum()).backward()
        optim.step()
    return explained().detach().amax(0)


def draw(atoms: dict[str, Tensor], share: dict[str, float], path: Path) -> None:
    """All atoms of each prior, each in a grey scale of its own about zero; a pixel is two by two of the picture's."""
    from matplotlib.figure import Figure

    side = math.isqrt(NUM_ATOMS)
    panel, gap, title, dpi = 2 * side * (SIZE + 1), 16, 30, 100
    width, height = len(atoms) * (panel + gap) + gap, panel + title + gap
    figure = Figure(figsize=(width / dpi, height / dpi), dpi=dpi)
    for number, (name, a) in enumerate(atoms.items()):
        tiles = (a / a.abs().amax(1, keepdim=True)).reshape(side, side, SIZE, SIZE)
        tiles = torch.nn.functional.pad(tiles, (0, 1, 0, 1), value=1)
        left = gap + number * (panel + gap)
        axes = figure.add_axes((left / width, gap / height, panel / width, panel / height))
        mosaic = tiles.permute(0, 2, 1, 3).reshape(panel // 2, panel // 2)
        mosaic = (12 * mosaic).round() / 12  # 25 greys are enough, and a third of the file
        axes.imshow(mosaic.numpy(), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
        axes.set_title(f"{name}: {share[name]:.0%} Gabor-like", fontsize=12)
        axes.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
