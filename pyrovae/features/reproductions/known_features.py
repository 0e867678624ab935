"""Experiments on synthetic data, whose features are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from pyrovae import metrics
from pyrovae.build import build_vae
from pyrovae.data.synthetic import Batch, SparseFeatures, Subspaces, Synthetic
from pyrovae.features.reproductions.base import TEST, Reproduction, Row, trained
from pyrovae.vae import VAE

__all__ = ["AUTOENCODER", "DICTIONARY", "AgainstFeatures", "sparse_but_wrong", "sparse_inference", "vaease_subspaces"]

DICTIONARY: dict[str, Any] = {"prior": "spike-slab", "likelihood": "normal:floor=0.03", "network": "dictionary"}
SSE = "normal:scale=0.7071067811865476"  # the squared error is -log p(x|z) up to a constant
AUTOENCODER: dict[str, Any] = {"prior": "flat", "likelihood": SSE, "network": "dictionary", "hidden": ()}


def _recovery(vae: VAE, test: Batch) -> Row:
    """The numbers against known features."""
    assert test.features is not None
    found = metrics.decoder_mcc(metrics.dictionary(vae), test.features)
    z = vae.encode(test.data)
    row = {
        "L0": (z != 0).sum(1).double().mean().item(),
        "true L0": (test.codes != 0).sum(1).double().mean().item(),
        "MCC of features": found.score,
        "MCC of codes": metrics.mcc(z, test.codes).score,
        "F1": metrics.firing_scores(z, test.codes, found.matching).mean_f1,
    }
    if not getattr(vae.posterior, "is_point", False):
        probability, _ = metrics.nonzero_probability(vae, test.data)
        row["ECE of P(on)"] = metrics.reliability(probability, test.codes, matching=found.matching).pooled_error
    return row


@dataclass(frozen=True)
class AgainstFeatures:
    """A method on data of known features: a model by its names, and how it is trained."""

    source: Callable[[int], Synthetic]
    rows: int
    width: int
    names: Mapping[str, Any]
    epochs: int
    lr: float
    batch_size: int = 512

    def __call__(self, seed: int) -> Row:
        data = self.source(seed)
        x, test = data.sample(self.rows, 0).data, data.sample(4000, TEST)
        torch.manual_seed(seed)
        vae = build_vae((x.shape[1],), self.width, **self.names, inputs=x)
        seconds = trained(vae, x, self.epochs, self.lr, self.batch_size)
        return {**_recovery(vae, test), "seconds": seconds}


def sparse_but_wrong() -> Reproduction:
    method = partial(AgainstFeatures, SparseFeatures.sparse_but_wrong, 20_000)
    methods = {f"spike-and-slab, width {width}": method(width, DICTIONARY, 25, 5e-3) for width in (50, 100)}
    guides = {f"BatchTopK, k = {k}": f"batch-topk:k={k}" for k in (8, 11, 14)}
    guides |= {f"JumpReLU, penalty {penalty}": f"jump-relu:penalty={penalty}" for penalty in (0.1, 0.2, 0.3)}
    methods |= {name: method(50, {**AUTOENCODER, "guide": guide}, 100, 3e-3) for name, guide in guides.items()}
    return Reproduction(
        "Sparse but wrong",
        "Chanin and Garriga-Alonso (2025), arXiv 2508.16560",
        "BatchTopK finds the features at k = 11 and mixes them at smaller and larger k; no autoencoder finds k.",
        "20,000 data, 1,000 steps of 512 for the dictionary and 4,000 for the autoencoders, where the paper has 15 "
        "million data; features are exactly orthonormal, and each seed has its own correlations.",
        methods,
    )


def sparse_inference() -> Reproduction:
    method = partial(AgainstFeatures, SparseFeatures.sparse_inference, 1024, 16)
    positive = {**DICTIONARY, "prior": "spike-slab:slab=half-normal"}
    methods = {"spike-and-slab": method(DICTIONARY, 400, 1e-2, 256)}
    methods["spike-and-slab, half-Normal slabs"] = method(positive, 400, 1e-2, 256)
    methods["BatchTopK, k = 3"] = method({**AUTOENCODER, "guide": "batch-topk:k=3"}, 400, 3e-3, 256)
    return Reproduction(
        "Sparse inference",
        "O'Neill, Gumran and Klindt (2024); repository charlieoneill11/sparse-inference",
        "MCC of codes and of the dictionary: autoencoder 0.566, 0.745; MLP 0.643, 0.851; sparse coding 0.691, 0.837.",
        "1,024 training data as there; 1,600 steps of 256.",
        methods,
    )


def vaease_subspaces() -> Reproduction:
    def run(seed: int) -> Row:
        data = Subspaces.vaease(seed)
        x, test = data.sample(50_000, 0).data, data.sample(3000, TEST)
        assert test.labels is not None
        torch.manual_seed(seed)
        vae = build_vae((40,), 20, **DICTIONARY, inputs=x)
        seconds = trained(vae, x, 20, 1e-2)
        on = (vae.encode(test.data) != 0).double()
        each = {f"active, subspace {k}": on[test.labels == k].sum(1).mean().item() for k in range(3)}
        return {**each, "active in all": float((on.mean(0) > 0.02).sum()), "seconds": seconds}

    return Reproduction(
        "VAEase subspaces",
        "VAEase, ICML 2025, arXiv 2506.04859",
        "4 latents are active on each of three subspaces and 12 in all; a VAE uses 12 for every datum.",
        "50,000 data and 1,960 steps of 512 instead of 500,000 data.",
        {"spike-and-slab": run},
    )
