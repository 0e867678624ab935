"""Published experiments on sparse features at a size for two cores, each with its published numbers beside ours."""

from collections.abc import Callable

from pyrovae.features.reproductions.base import Reproduction, markdown
from pyrovae.features.reproductions.images import natural_images, poisson_vae, vsc_mnist
from pyrovae.features.reproductions.known_features import sparse_but_wrong, sparse_inference, vaease_subspaces

__all__ = ["REPRODUCTIONS", "Reproduction", "markdown"]

REPRODUCTIONS: dict[str, Callable[[], Reproduction]] = {
    "sparse-but-wrong": sparse_but_wrong,
    "sparse-inference": sparse_inference,
    "vaease-subspaces": vaease_subspaces,
    "poisson-vae": poisson_vae,
    "vsc-mnist": vsc_mnist,
    "natural-images": natural_images,
}
