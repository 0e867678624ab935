"""Flow priors: a Normal carried through invertible maps that are learned with the model.

Their KL has no closed form and is sampled, as that of every learned prior (:mod:`pyrovae.priors.learned`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import transforms as T
from torch import Tensor, nn
from torch.distributions import constraints
from torch.distributions.transforms import ComposeTransform, Transform, _InverseTransform

from pyrovae.priors.base import Prior, check_dim

__all__ = ["Flow", "ZukoFlow"]


class Flow(Prior):
    r"""A standard Normal carried through invertible transforms :math:`z = f(\epsilon)`, which are learned.

    .. math:: p(z) = N\left(f^{-1}(z);\, 0, I\right) \left|\det \frac{\partial f^{-1}(z)}{\partial z}\right|

    An objective scores codes that the guide drew, so each transform needs an inverse that can be evaluated. This is
    tried on a few points when the prior is made, and planar, radial, Sylvester, block-autoregressive,
    neural-autoregressive and polynomial transforms are refused, as is a BatchNorm in training, whose inverse depends on
    the batch; they serve guides, not priors. An autoregressive transform is inverted coordinate by coordinate; give its
    ``.inv`` to have the density fast and the draws slow.

    Args:
        dim: Number of latent coordinates :math:`D`.
        transforms: Transforms of torch or Pyro, applied in this order to :math:`\epsilon`; those that are modules are
            registered and learned. None is four affine couplings (real NVP) whose networks have ``10 * dim`` hidden
            units and whose log-scales stay in [-5, 3], with the order of the coordinates reversed in between; at
            ``dim=1``, which has nothing to couple, a spline of 8 bins on [-3, 3] and the identity outside.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats; the KL of a guide from it is sampled.
    Raises: ValueError if a transform has no inverse to evaluate, or the transforms do not take or give ``dim`` numbers.
    References: Dinh, Sohl-Dickstein and Bengio (2017), "Density estimation using Real NVP"; Chen et al. (2017),
        "Variational lossy autoencoder", put a flow on the prior.
    Example:
        >>> Flow(3).distribution().event_shape
        torch.Size([3])
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, dim: int, transforms: Sequence[Transform] | None = None) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(check_dim(dim)))
        self.register_buffer("scale", torch.ones(dim))
        self.steps = nn.ModuleList(_Step(t) for t in _parts(_default(dim) if transforms is None else transforms))
        _check_inverses(self.steps, dim)
        got = self.distribution().event_shape
        if got != (dim,):
            raise ValueError(f"transforms must give codes of shape ({dim},), got {tuple(got)}")

    def distribution(self) -> dist.TorchDistribution:
        base = dist.Normal(self.loc, self.scale).to_event(1)
        return dist.TransformedDistribution(base, [step() for step in self.steps])


class ZukoFlow(Prior):
    r"""A flow of the Zuko library as a prior.

    .. math:: p(z) = p_0\left(f(z)\right) \left|\det \frac{\partial f(z)}{\partial z}\right|

    Zuko's transforms lead from the code to the noise, so the density takes one pass even of an autoregressive flow, and
    a draw D of them. Zuko is installed by ``pip install 'pyrovae[flows]'``; this library does not import it.

    Args:
        flow: A flow without context, such as ``zuko.flows.NSF(features=16, transforms=3)``; registered and learned.

    Shape: z has event_shape ``(D,)``; under the data plate ``(N, D)``.
    Units: log_prob in nats; the KL of a guide from it is sampled.
    Raises: ValueError unless ``flow()`` is one ``NormalizingFlow`` over vectors.
    """

    def __init__(self, flow: nn.Module) -> None:
        super().__init__()
        self.flow = flow
        try:
            made = flow()
        except (TypeError, RuntimeError, NotImplementedError) as error:
            raise ValueError(f"flow must give a distribution without a context: {error}") from error
        if not (hasattr(made, "transform") and hasattr(made, "base")):
            raise ValueError(f"flow must give a NormalizingFlow, got {type(made).__name__}")
        shapes = tuple(made.base.batch_shape), tuple(made.event_shape)
        if shapes[0] or len(shapes[1]) != 1:
            raise ValueError(f"flow must be one law of vectors, got batch_shape and event_shape {shapes}")

    def distribution(self) -> dist.TorchDistribution:
        made: Any = self.flow()
        return dist.TransformedDistribution(made.base, [made.transform.inv])


class _Step(nn.Module):
    """One transform, registered as the module that it is, or that it is the inverse of.

    Pyro's transforms keep their last input and output. A copy for each call, which shares the parameters, begins with
    none: a value scored before and after a step would come back with the density of before, and the kept tensors would
    hold the graph of the last step and forbid ``copy.deepcopy`` of the VAE.
    """

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.inverse = isinstance(transform, _InverseTransform)
        self.transform = transform.inv if self.inverse else transform

    def forward(self) -> Transform:
        fresh = _fresh(self.transform)
        return fresh.inv if self.inverse else fresh


def _fresh(transform: Any) -> Any:
    """A copy with the parameters of the original and a cache of its own; the transforms inside it too."""
    fresh = copy.copy(transform)
    fresh._inv = None  # which would lead back to the original
    if fresh._cache_size:
        fresh._cached_x_y = None, None
    if isinstance(fresh, nn.Module):
        fresh._modules = {
            name: _fresh(module) if isinstance(module, Transform) else module for name, module in fresh._modules.items()
        }
    return fresh


class _Reverse(Transform):
    """The coordinates in reverse order. Pyro's ``Permute`` holds a tensor that does not follow ``.to(device)``."""

    bijective = True
    domain = codomain = constraints.real_vector

    def _call(self, x: Tensor) -> Tensor:
        return x.flip(-1)

    _inverse = _call

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.new_zeros(x.shape[:-1])


def _default(dim: int) -> list[Transform]:
    if dim == 1:
        return [T.Spline(1, count_bins=8, bound=3.0)]
    couplings = [T.affine_coupling(dim) for _ in range(4)]
    return [part for coupling in couplings for part in (coupling, _Reverse())][:-1]


def _parts(transforms: Any) -> list[Transform]:
    """The transforms one by one: a composed one keeps its parts where a copy of it would not reach."""
    known = isinstance(transforms, (list, tuple, nn.ModuleList))
    if not (known and all(isinstance(t, Transform) for t in transforms)):
        raise ValueError(f"transforms must be a list of transforms of torch or Pyro, got {transforms!r}")
    parts: list[Any] = []
    for t in transforms:
        if isinstance(t, ComposeTransform):
            parts += _parts(list(t.parts))
        elif isinstance(t, _InverseTransform) and isinstance(t.inv, ComposeTransform):
            parts += _parts([part.inv for part in reversed(t.inv.parts)])
        else:
            parts.append(t)
    return parts


def _check_inverses(steps: nn.ModuleList, dim: int) -> None:
    """A few points there, and back by a copy that has not seen them; no random number is drawn."""
    steps = copy.deepcopy(steps)
    x = torch.linspace(-1.5, 1.5, 3 * dim).reshape(3, dim)
    with torch.no_grad():
        for step in steps:
            like = next(step.parameters(), None)
            name = type(step.transform).__name__
            try:
                x = x if like is None else x.to(like)
                y = step()(x)
            except (RuntimeError, ValueError, IndexError) as error:
                raise ValueError(f"transforms: {name} does not take codes of shape ({dim},): {error}") from error
            try:
                back = step().inv(y)
                step().log_abs_det_jacobian(back, y)
            except (NotImplementedError, KeyError, RuntimeError) as error:
                raise ValueError(f"transforms: {name} has no inverse to evaluate, and a prior needs one") from error
            if not torch.allclose(back, x, rtol=1e-3, atol=1e-3):
                raise ValueError(f"transforms: the inverse of {name} is off by {(back - x).abs().max():.1g}")
            x = y
