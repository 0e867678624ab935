"""Experiments on images: digits and patches of photographs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pyrovae import guides, likelihoods, metrics, priors
from pyrovae.build import build_vae
from pyrovae.data import Data, mnist, patches
from pyrovae.features.reproductions.base import Reproduction, Row, trained
from pyrovae.nn import MLP, Dictionary
from pyrovae.objectives import ELBO, StraightThrough, warmup
from pyrovae.optim import cosine
from pyrovae.vae import VAE

__all__ = ["LinearDecoder", "OnDigits", "OnPatches", "natural_images", "poisson_vae", "vsc_mnist"]

NOISE = "normal:floor=0.4"  # in standard deviations of a pixel: what is fainter is not explained
GREY_DIGITS = partial(mnist, binarize=None)
FEW = -3.0  # head of a Poisson guide at the start: 0.05 counts of each latent
PARTS: dict[str, tuple[Callable[[int], priors.Prior], Callable[[MLP, int], guides.Guide]]] = {
    "poisson": (partial(priors.Poisson, rate=0.05, learned=["rate"]), guides.Poisson),
    "normal": (priors.Normal, guides.Normal),
}


@dataclass(frozen=True)
class LinearDecoder:
    """A prior and its guide with a linear decoder, whose atoms have any norm, trained on squared errors."""

    family: str
    hidden: tuple[int, ...] = ()
    width: int = 512
    epochs: int = 5
    batch_size: int = 100
    data: Callable[[], Data] = GREY_DIGITS

    def __call__(self, seed: int) -> Row:
        data = self.data()
        (pixels,) = data.event_shape
        torch.manual_seed(seed)
        prior, guide = PARTS[self.family]
        # the squared error is -log p(x|z) of this scale, up to a constant
        likelihood = likelihoods.Normal(Dictionary(self.width, pixels, bias=False), scale=math.sqrt(0.5))
        posterior = guide(MLP(pixels, self.hidden), self.width)
        if self.family == "poisson":
            torch.nn.init.constant_(posterior.head.bias, FEW)
        vae = VAE(prior(self.width), likelihood, posterior)
        seconds = trained(vae, data.in_memory, self.epochs, cosine(2e-3, self.epochs), self.batch_size)
        return {**squared_error(vae, data.test), "seconds": seconds}


@torch.no_grad()
def squared_error(vae: VAE, x: Tensor) -> Row:
    """The exact expected squared error and the KL, in nats per datum, of a Normal likelihood of variance one half."""
    total = ELBO(reconstruction="exact").loss(vae.model, vae.guide, x) / len(x)
    total -= 0.5 * math.log(math.pi) * x[0].numel()
    kl = metrics.elbo(vae, x, 1).kl.double().mean().item()
    row = {"SSE + KL": total, "SSE": total - kl, "KL": kl}
    if isinstance(vae.posterior, guides.Poisson):
        row["zeros"] = (-vae.posterior.distribution(x).mean).exp().double().mean().item()
    return row


@dataclass(frozen=True)
class OnDigits:
    """A VAE of binary digits by its prior, with one hidden layer, and a linear classifier of its codes."""

    prior: str
    width: int = 200
    hidden: int = 400
    epochs: int = 10
    num_labels: int = 5000
    data: Callable[[], Data] = mnist

    def __call__(self, seed: int) -> Row:
        data = self.data()
        torch.manual_seed(seed)
        vae = build_vae(data.event_shape, self.width, prior=self.prior, hidden=(self.hidden,))
        loss = ELBO(warmup(0.6 * self.epochs), estimator=StraightThrough())
        seconds = trained(vae, data.in_memory, self.epochs, cosine(2e-3, self.epochs), 128, loss)
        x, labels = data.labelled("train")
        z, codes = vae.encode(data.test), vae.encode(x)
        return {
            "accuracy": metrics.probe_accuracy(
                codes, labels, z, data.labels["test"], self.num_labels, repeats=1, seed=seed
            ).accuracy,
            "ELBO": metrics.elbo(vae, data.test, 10).elbo.double().mean().item(),
            "zeros": metrics.exact_zeros(z).item(),
            "active units": float(metrics.active_units(vae, data.test).sum()),
            "Jaccard distance": metrics.support_variety(z).jaccard,
            "seconds": seconds,
        }


@dataclass(frozen=True)
class OnPatches:
    """A dictionary of patches by its prior, twice overcomplete, and the share of its atoms that are Gabor functions."""

    prior: str
    likelihood: str = NOISE
    epochs: int = 12
    lr: float = 2e-3
    batch_size: int = 256
    hidden: tuple[int, ...] = (256,)
    data: Callable[[], Data] = patches

    def __call__(self, seed: int) -> Row:
        data = self.data()
        (pixels,) = data.event_shape
        torch.manual_seed(seed)
        vae = build_vae((pixels,), 2 * pixels, prior=self.prior, likelihood=self.likelihood, network="dictionary",
                        hidden=self.hidden, inputs=data.in_memory)  # fmt: skip
        seconds = trained(vae, data.in_memory, self.epochs, cosine(self.lr, self.epochs), self.batch_size)
        z = vae.encode(data.test)
        gabor = metrics.gabor_fit(metrics.dictionary(vae)).gabor_like
        in_use = metrics.active_units(vae, data.test, by="kl")
        return {
            "Gabor-like": gabor.double().mean().item(),
            "atoms in use": float(in_use.sum()),
            "Gabor-like in use": gabor[in_use].double().mean().item(),
            "ELBO": metrics.elbo(vae, data.test, 10).elbo.double().mean().item(),
            "explained variance": metrics.explained_variance(data.test, vae.reconstruct(data.test)),
            "zeros": metrics.exact_zeros(z).item(),
            "seconds": seconds,
        }


def poisson_vae() -> Reproduction:
    return Reproduction(
        "Poisson VAE",
        "Vafaii, Galor and Yates (2024), Poisson variational autoencoder, table 4; repository hadivafaii/PoissonVAE",
        "SSE + KL of 10,000 test digits of grey values from 0 to 1, in nats per digit, with 512 latents, a linear "
        "decoder and a linear encoder: 41.7 ± 0.2 from draws and 41.5 ± 0.1 by the exact loss for Poisson codes, 40.6 "
        "± 0.1 by the exact loss for Normal codes. SSE is the expected squared error summed over pixels, without a "
        "factor of one half.",
        "5 epochs of 50,000 digits, 2,500 steps of 100 of Adam, where the paper has 400 epochs of 60,000 "
        "of Adamax; the exact loss; the rate of a latent is the softplus of a linear function with a bias, where the "
        "paper has its prior rate times the exponential of one without. Test digits, width and decoder are the same.",
        {
            "Poisson, linear encoder": LinearDecoder("poisson"),
            "Normal, linear encoder": LinearDecoder("normal"),
        },
    )


def vsc_mnist() -> Reproduction:
    return Reproduction(
        "Variational sparse coding",
        "Tonolini, Jensen and Murray-Smith (2019), Variational sparse coding, ICLR submission, whose results are "
        "figures; the numbers are those of de la Fuente and Aduviri (2019), who repeated them, repository "
        "Alfo5123/Variational-Sparse-Coding",
        "Accuracy of a linear classifier of the codes of 5,000 labelled digits, with 200 latents: 91.8 % for a "
        "spike-and-slab of activity 0.01, 86.6 % for a VAE.",
        "Binary digits under a Bernoulli likelihood, where the report has grey values; 10 epochs of 50,000 digits in "
        "batches of 128, where it has 11 of 60,000 in batches of 32; hard gates with a straight-through gradient, "
        "where it has relaxed ones; the weight of the KL rises over 6 epochs; 200 latents and "
        "400 hidden units as there.",
        {"spike-and-slab, active 0.01": OnDigits("spike-slab:active=0.01:scale=1"), "Normal": OnDigits("normal")},
    )


def natural_images() -> Reproduction:
    return Reproduction(
        "Natural images",
        "Olshausen and Field (1996), Nature 381; with a VAE Geadah, Barello, Greenidge, Charles and Pillow (2024), "
        "Sparse-coding variational autoencoders, Neural Computation 36",
        "Under sparse priors the atoms of whitened patches are local, oriented waves, and under a Normal prior they "
        "are not; both papers show pictures of atoms and count none.",
        "48,000 patches of 12 by 12 pixels of two photographs, where the first paper has ten; 288 atoms; an atom "
        "counts if the best Gabor function explains 70 % of it, and is in use if its KL is above 0.01 nats per datum.",
        {
            "spike-and-slab": OnPatches("spike-slab", epochs=10, lr=5e-3, batch_size=512),
            "Laplace": OnPatches("laplace:learned=scale"),
            "rectified Normal": OnPatches("rectified-normal", epochs=8),
            "Normal": OnPatches("normal", epochs=8),
        },
    )
