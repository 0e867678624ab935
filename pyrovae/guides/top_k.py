"""Guides that keep the largest pre-activations: TopK, BatchTopK and Matryoshka sparse autoencoders."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyrovae.distributions import LinearNormal
from pyrovae.guides.points import SparsePoint, checked_penalty, given

__all__ = ["BatchTopK", "Matryoshka", "TopK"]

AUX_WEIGHT = 1 / 32
FORGETS = 0.01  # least weight of a batch in the running mean of the threshold


class TopK(SparsePoint):
    r"""The k largest pre-activations of each datum, rectified; the others are zero.

    In ``train`` mode dead latents, which were zero for the last ``dead_after`` data, explain the residual
    :math:`e = x - \hat x` (AuxK):

    .. math:: \frac{\alpha}{2} \sum_i \frac{(e_i - \sum_j \Phi_{ij} \tilde z_j)^2}{s_i^2} \text{ nats}

    :math:`\tilde z` has the largest rectified pre-activations of dead latents, ``aux_k`` of them; e and s have no
    gradient here. Published code divides the error by the variance of e, and so weighs it more as e gets smaller; a
    weight near 1 is alike where 97 % of the variance is explained.

    Args:
        network: The trunk of the encoder, such as :class:`~pyrovae.nn.Centred`.
        dim: Number of latent coordinates :math:`D`.
        likelihood: The likelihood of the VAE, for AuxK. It stays a module of the VAE alone.
        k: Number of active latents, from 1 to ``dim``; None is a tenth of ``dim``, at least 1.
        aux_weight: :math:`\alpha`, at least 0; None is 1/32 where the likelihood is Normal with a
            :class:`~pyrovae.nn.Dictionary`, and 0 elsewhere.
        aux_k: None is half of the data dimensions, at most ``dim``.
        dead_after: Number of data. Language models take 10 million.

    Raises: ValueError for an argument out of its range, and for ``aux_weight`` above 0 with another likelihood.
    References: Gao et al. (2024), "Scaling and evaluating sparse autoencoders", appendix A.2 (AuxK).
    """

    unseen: Tensor

    def __init__(
        self,
        network: nn.Module,
        dim: int,
        likelihood: nn.Module | None = None,
        *,
        k: int | None = None,
        aux_weight: float | None = None,
        aux_k: int | None = None,
        dead_after: int = 100_000,
    ) -> None:
        super().__init__(network, dim)
        self.k = _whole("k", max(1, dim // 10) if k is None else k, dim)
        self.dead_after = _whole("dead_after", dead_after)
        self.model_parts: tuple[nn.Module, ...] = (
            () if likelihood is None else (likelihood,)
        )  # a tuple, whose module is not registered here
        has_map = getattr(likelihood, "linear_map", lambda: None)() is not None
        x = likelihood(self.head.weight.new_zeros(1, dim)) if has_map and likelihood is not None else None
        is_linear = isinstance(x, LinearNormal)
        self.aux_weight = checked_penalty("aux_weight", AUX_WEIGHT * is_linear if aux_weight is None else aux_weight)
        if self.aux_weight and not is_linear:
            raise ValueError(
                f"aux_weight must be 0 unless the likelihood is Normal with a linear decoder (Dictionary), got "
                f"{aux_weight} with {type(likelihood).__name__}"
            )
        half = max(1, min(dim, x.event_shape.numel() // 2)) if isinstance(x, LinearNormal) else 1
        self.aux_k = _whole("aux_k", half if aux_k is None else aux_k, dim)
        self.register_buffer("unseen", torch.zeros(dim, dtype=torch.long))  # data since each latent was active

    def code(self, pre: Tensor) -> Tensor:
        return _largest(pre.relu(), self.k)

    def observe(self, z: Tensor) -> None:
        self.unseen.add_(len(z)).masked_fill_((z != 0).any(0), 0)

    def cost(self, x: Tensor, pre: Tensor, z: Tensor) -> Tensor | float:
        if not (self.training and self.aux_weight):
            return 0.0
        dead = self.unseen >= self.dead_after
        p = self.model_parts[0](z.detach())
        explained = _largest(pre.relu() * dead, self.aux_k) @ p.weight.T
        error = (x - p.mean).detach().flatten(1) - explained
        scale = p.scale.detach().expand(p.event_shape).reshape(-1)
        return 0.5 * self.aux_weight * dead.any() * (error / scale).square().sum(-1)


class BatchTopK(TopK):
    r"""The nk largest pre-activations of a batch of n data, rectified: k active latents on average.

    In ``eval`` mode :math:`z_j = \pi_j\, 1[\pi_j > \theta]` for each datum by itself. The threshold :math:`\theta` is
    the mean over the training batches of the smallest active latent, of the last hundred or so: a later batch has the
    weight 1/100. Before any training step it is 0.

    Args:
        network: The trunk of the encoder, such as :class:`~pyrovae.nn.Centred`.
        dim: Number of latent coordinates :math:`D`.
        likelihood: As of :class:`TopK`, like all other arguments.

    References: Bussmann, Leask and Nanda (2024), "BatchTopK sparse autoencoders".
    """

    threshold: Tensor
    num_batches: Tensor

    def __init__(
        self,
        network: nn.Module,
        dim: int,
        likelihood: nn.Module | None = None,
        *,
        k: int | None = None,
        aux_weight: float | None = None,
        aux_k: int | None = None,
        dead_after: int = 100_000,
    ) -> None:
        super().__init__(network, dim, likelihood, k=k, aux_weight=aux_weight, aux_k=aux_k, dead_after=dead_after)
        self.register_buffer("threshold", torch.zeros(()))
        self.register_buffer("num_batches", torch.zeros((), dtype=torch.long))

    def code(self, pre: Tensor) -> Tensor:
        if self.training:
            return _largest(pre.relu().flatten(), self.k * len(pre)).view_as(pre)
        return pre.relu() * (pre > self.threshold)

    def observe(self, z: Tensor) -> None:
        super().observe(z)
        smallest = torch.where(z > 0, z, torch.inf).amin()
        found = smallest.isfinite()  # of a batch whose latents are all zero there is none
        self.num_batches.add_(found)
        weight = self.num_batches.to(z).reciprocal().clamp(min=FORGETS, max=1.0)
        self.threshold.add_(torch.where(found, weight * (smallest - self.threshold), 0.0))


class Matryoshka(BatchTopK):
    r"""BatchTopK whose first latents must do without the later ones.

    .. math:: -\sum_{m \in M} \log p(x|z_1, \dots, z_m, 0, \dots, 0)

    is the loss in ``train`` mode: its term of all latents is that of the model, and the guide costs the others. The
    first latents then learn general features, and later ones do not take parts of these away.

    Args:
        network: The trunk of the encoder, such as :class:`~pyrovae.nn.Centred`.
        dim: Number of latent coordinates :math:`D`.
        likelihood: The likelihood of the VAE. It stays a module of the VAE alone.
        prefixes: :math:`M` without D, whole numbers below ``dim``, each once; None is a half, a quarter, an eighth and
            a sixteenth of ``dim``.
        k: As of :class:`TopK`, like all other arguments.

    Raises: ValueError without a likelihood, and for an argument out of its range.
    References: Bussmann, Nabeshima, Karvonen and Nanda (2025), "Learning multi-level features with Matryoshka sparse
        autoencoders".
    """

    masks: Tensor

    def __init__(
        self,
        network: nn.Module,
        dim: int,
        likelihood: nn.Module | None = None,
        *,
        prefixes: Sequence[int] | None = None,
        k: int | None = None,
        aux_weight: float | None = None,
        aux_k: int | None = None,
        dead_after: int = 100_000,
    ) -> None:
        likelihood = given(likelihood, "Matryoshka")
        super().__init__(network, dim, likelihood, k=k, aux_weight=aux_weight, aux_k=aux_k, dead_after=dead_after)
        halves = {dim >> i for i in range(1, 5)} - {0}
        sizes = sorted(halves) if prefixes is None else list(prefixes)
        if len(set(sizes)) < len(sizes) or not all(_is_whole(size, dim - 1) for size in sizes):
            raise ValueError(f"prefixes must be different whole numbers from 1 to {dim - 1}, got {prefixes!r}")
        masks = torch.arange(dim) < torch.tensor(sizes, dtype=torch.long)[:, None]
        self.register_buffer("masks", masks, persistent=False)

    def cost(self, x: Tensor, pre: Tensor, z: Tensor) -> Tensor | float:
        cost = super().cost(x, pre, z)
        if not self.training:
            return cost
        return cost - self.model_parts[0](z * self.masks[:, None]).log_prob(x).sum(0)


def _largest(values: Tensor, k: int) -> Tensor:
    """The values with zeros in place of all but the k largest of the last dimension."""
    kept = values.topk(k)
    return torch.zeros_like(values).scatter(-1, kept.indices, kept.values)


def _is_whole(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _whole(name: str, value: object, most: int = 2**62) -> int:
    if not _is_whole(value, most):
        end = f"from 1 to {most}" if most < 2**62 else "at least 1"
        raise ValueError(f"{name} must be a whole number {end}, got {value!r}")
    return value  # type: ignore[return-value]  # checked
