"""Priors that are learned with the model: their density follows the codes of the data.

None has a KL in closed form, so each objective takes log q(z|x) - log p(z) at its draws: ``TraceMeanField_ELBO`` falls
back to that, and ``metrics.elbo`` says so by ``kl_is_exact=False``.
"""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyrovae.hyper import Constrained, all_true
from pyrovae.priors.base import Prior, check_dim

__all__ = ["Mixture", "Vamp"]

INSIDE = 0.05  # how far from either bound, as a share of the interval, a pseudo-input starts at the nearest


class Mixture(Prior):
    r"""Mixture of Normals over whole codes, all of it learned.

    .. math:: p(z) = \sum_{k=1}^K w_k \prod_{j=1}^D N(z_j;\, m_{kj},\, s_{kj}^2)

    One component is drawn for the whole code, so the coordinates are dependent: K clusters, where a mixture for each
    coordinate would have :math:`K^D`. The weights start equal, the scales at 1 and the means at draws from N(0, 1),
    which torch's generator gives, so that ``torch.manual_seed`` decides. The density costs ``(N, K, D)`` numbers.

    Args:
        dim: Number of latent coordinates :math:`D`.
        num_components: :math:`K`.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats; the KL of a guide from it is sampled.
    Raises: ValueError if ``dim < 1`` or ``num_components < 1``.
    Example:
        >>> Mixture(3, num_components=2).distribution().event_shape
        torch.Size([3])
    """

    def __init__(self, dim: int, num_components: int = 10) -> None:
        super().__init__()
        shape = (_check_num_components(num_components), check_dim(dim))
        self.logits = nn.Parameter(torch.zeros(num_components))
        self.loc = nn.Parameter(torch.randn(shape))
        self.scale = Constrained("scale", 1.0, shape, lower=0.0, learned=True)

    def distribution(self) -> dist.TorchDistribution:
        components = dist.Normal(self.loc, self.scale()).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), components)


class Vamp(Prior):
    r"""VampPrior: a mixture of the guide's own posteriors, at K pseudo-inputs that are learned.

    .. math:: p(z) = \sum_{k=1}^K w_k\, q(z \mid u_k)

    It shares the guide's weights: give the VAE the same guide, whose parameters are then registered, saved and trained
    once. As :class:`Mixture` it is over components, each a law of the whole code, whichever family the guide is of.

    The pseudo-inputs start at rows of the data, drawn by torch's generator. With bounds they stay between these,

    .. math:: u = a + (b - a)\, \sigma(r) ,

    and start at :math:`u = a + (b - a)(0.05 + 0.9\, t)` for a row at :math:`a + (b - a)\, t`, since at a bound itself
    the gradient in r is zero. The weights start equal and are learned; in the paper they stay equal.

    The cost of a step is the guide at K more data, and a density of ``(N, K, D)`` numbers, ``(N, K, D, D)`` under a
    guide with a full covariance. A guide with batch statistics (BatchNorm) takes the pseudo-inputs as a batch.

    Args:
        guide: Any guide with a density, of this VAE as a rule.
        num_components: :math:`K`.
        inputs: Data to start from, ``(M, *event_shape)`` with :math:`M \ge K`.
        bounds: :math:`(a, b)`, the range of the data: ``(0.0, 1.0)`` for binary data and grey values; None for the real
            line.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats; the KL of a guide from it is sampled.
    Raises: ValueError if the guide is a point (Delta), corrupts x or does not take the inputs, if they are fewer than
        ``num_components``, not finite or outside the bounds.
    References: Tomczak and Welling (2018), "VAE with a VampPrior", which clamps the pseudo-inputs of grey values to
        [0, 1] where we have the sigmoid: a clamped pixel has no gradient and would stay where it is.
    """

    def __init__(
        self,
        guide: nn.Module,
        num_components: int = 50,
        *,
        inputs: Tensor,
        bounds: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        _check_num_components(num_components)
        rows = _spread_rows(inputs, num_components)
        if bounds is None:
            self.inputs = Constrained("inputs", rows, tuple(rows.shape), learned=True)
        else:
            rows = _inside(rows, *bounds)
            self.inputs = Constrained("inputs", rows, tuple(rows.shape), *bounds, learned=True)
        self.logits = nn.Parameter(torch.zeros(num_components))
        like = next(guide.parameters(), None)
        if like is not None:
            self.to(like)
        self.guide = guide
        self._check_guide()

    def distribution(self) -> dist.TorchDistribution:
        components = self.guide.distribution(self.inputs())  # type: ignore[operator]  # torch types attributes as tensors
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), components)

    def _check_guide(self) -> None:
        if any(hasattr(module, "corrupt") for module in self.guide.modules()):
            raise ValueError(
                f"guide {type(self.guide).__name__} corrupts what it reads, and would the pseudo-inputs: corrupt goes "
                f"with other priors"
            )
        u = self.inputs().detach()
        try:
            with torch.no_grad():
                q: Any = self.guide.distribution(u)  # type: ignore[operator]  # torch types attributes as tensors
        except NotImplementedError as error:
            raise ValueError(
                f"guide {type(self.guide).__name__} has no distribution(x) to make a mixture of"
            ) from error
        except (ValueError, RuntimeError, IndexError) as error:
            raise ValueError(f"inputs of shape {tuple(u.shape[1:])} do not fit the guide: {error}") from error
        if q.batch_shape != (len(u),) or len(q.event_shape) != 1:
            raise ValueError(
                f"inputs of shape {tuple(u.shape[1:])} do not fit the guide: one row each should give batch_shape "
                f"({len(u)},) and event_shape (D,), got {tuple(q.batch_shape)} and {tuple(q.event_shape)}"
            )
        while isinstance(q, torch.distributions.Independent):
            q = q.base_dist
        if isinstance(q, dist.Delta):
            raise ValueError(
                f"guide {type(self.guide).__name__} is a point (Delta): a mixture of points is no density of z"
            )


def _spread_rows(inputs: Tensor, num_components: int) -> Tensor:
    """That many rows, each at most once."""
    if not isinstance(inputs, Tensor) or inputs.dim() < 2 or len(inputs) < num_components:
        got = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
        raise ValueError(f"inputs must be at least num_components = {num_components} rows of data, got {got}")
    dtype = torch.get_default_dtype()
    if inputs.is_meta:
        return inputs[:num_components].to(dtype)
    rows = inputs.detach().cpu()[torch.randperm(len(inputs))[:num_components]].to(dtype)
    if not bool(torch.isfinite(rows).all()):
        raise ValueError("inputs must be finite")
    return rows


def _inside(rows: Tensor, lower: float, upper: float) -> Tensor:
    if not lower < upper:
        raise ValueError(f"bounds must be (lower, upper) with lower < upper, got {(lower, upper)}")
    if not all_true((rows >= lower) & (rows <= upper)):
        raise ValueError(
            f"inputs must be between the bounds {lower:g} and {upper:g}, got {rows.min():g} to {rows.max():g}"
        )
    share = (rows - lower) / (upper - lower)
    return lower + (upper - lower) * (INSIDE + (1 - 2 * INSIDE) * share)


def _check_num_components(num_components: int) -> int:
    if not isinstance(num_components, int) or num_components < 1:
        raise ValueError(f"num_components must be a positive whole number, got {num_components!r}")
    return num_components
