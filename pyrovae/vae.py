"""The variational autoencoder: three parts, two Pyro functions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from pyrovae import guards
from pyrovae.compilation import by_rows

__all__ = ["VAE", "eval_mode", "evaluating"]


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """``eval`` mode and no gradients; each submodule's mode is put back after."""
    modes = [(submodule, submodule.training) for submodule in module.modules()]
    try:
        if any(training for _, training in modes):
            module.eval()
        with torch.no_grad():
            yield
    finally:
        for submodule, training in modes:
            if submodule.training != training:
                submodule.training = training


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """:func:`eval_mode`, with no Pyro code in another thread."""
    with guards.pyro_lock, eval_mode(module):
        yield


class VAE(nn.Module):
    r"""A prior, a likelihood and a guide as one Pyro model and one Pyro guide.

    .. math::
        p(x, z) = p(z)\, p(x \mid z), \qquad
        \log p(x) \ge E_{q(z \mid x)}\left[\log p(x \mid z)\right] - KL\left(q(z \mid x) \,\|\, p(z)\right)

    ``model`` and ``guide`` are what ``pyro.infer.SVI`` takes, with any Pyro objective and optimizer;
    :func:`pyrovae.check` says whether the objective suits them.

    Args:
        prior: p(z): called with no argument, it samples the latent sites and returns what the decoder reads.
        likelihood: p(x|z): called with z, it returns the distribution of x.
        guide: q(z|x): called with x, it samples the sites that the prior samples. Kept as ``vae.posterior``.
        num_data: :math:`N`, the rows of the training set; needed where prior and guide have sites that all data share.
        name: What its parameters are called by in Pyro's parameter store, before ``$$$`` and their module path. None is
            the class name, with a number from the second model of a process on: ``VAE``, ``VAE_2``, in the order of
            their first use as Pyro functions.

    A prior and a guide whose ``shared()`` samples such sites :math:`s` are called with what it returned, as their last
    argument. A batch of B data bears B/N of their :math:`KL(q(s) \,\|\, p(s))`.

    Shape: x is ``(N, *event_shape)``, z ``(N, D)``; the plate ``"data"`` is the first dimension.
    Raises: ValueError if a part is no instance of a module, if prior and guide have different supports or the three
        codes of different widths, if one alone has shared sites, or if both have and ``num_data`` is missing; at the
        first use, if another live model has the name.
    References: Kingma and Welling (2014), "Auto-Encoding Variational Bayes", eq. 3.
    """

    config: dict[str, Any] | None = None  # what build_vae was called with, from which load() builds it again
    num_labels = 0  # columns that the decoder reads after z: those of a ConditionalVAE

    def __init__(
        self,
        prior: nn.Module,
        likelihood: nn.Module,
        guide: nn.Module,
        num_data: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__()
        guards.check_parts(prior=prior, likelihood=likelihood, guide=guide)
        guards.check_support(prior, guide)
        guards.check_widths(prior, likelihood, guide, self.num_labels)
        guards.check_shared(prior, guide, num_data)
        guards.check_name(name)
        self.name = name
        self.prior = prior
        self.likelihood = likelihood
        self.posterior = guide
        self.num_data = num_data

    def __getstate__(self) -> dict[str, object]:
        return guards.state(self)

    def model(self, x: Tensor | None = None, num_samples: int = 1) -> Tensor:
        """p(x, z): with x, one row of the plate per datum; without, ``num_samples`` draws."""
        guards.check_tensors(self, x)
        guards.register(self)
        num_rows = num_samples if x is None else len(x)
        shared = self._shared(self.prior, num_rows)
        with pyro.plate("data", num_rows, dim=-1):
            z = self.prior(*shared)
            return pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """q(z|x), one row of the plate per datum."""
        guards.check_tensors(self, x)
        guards.register(self)
        shared = self._shared(self.posterior, len(x))
        with pyro.plate("data", len(x), dim=-1):
            return self.posterior(x, *shared)

    def _shared(self, part: nn.Module, num_rows: int) -> tuple[Any, ...]:
        """What a part samples once for all data, of which ``num_rows`` bear their share; nothing for most parts."""
        if not hasattr(part, "shared"):
            return ()
        with poutine.scale(scale=num_rows / self.num_data):  # type: ignore[operator]  # checked above
            return (part.shared(),)  # type: ignore[operator]  # torch types attributes as tensors

    def encode(self, x: Tensor) -> Tensor:
        """The code of x, ``(N, D)``: the guide's mean unless it says otherwise, and the same at every call."""
        guards.check_tensors(self, x)
        with evaluating(self):
            return by_rows(self.posterior.encode, x)  # type: ignore[arg-type]  # torch types attributes as tensors

    def decode(self, z: Tensor) -> Tensor:
        """The mean of p(x|z), ``(N, *event_shape)``."""
        with evaluating(self):
            return by_rows(self.likelihood.mean, z)  # type: ignore[arg-type]  # torch types attributes as tensors

    def reconstruct(self, x: Tensor) -> Tensor:
        """x through its code and back: ``decode(encode(x))``."""
        return self.decode(self.encode(x))

    def sample_prior(self, num_samples: int = 1) -> Tensor:
        """Draws of what the decoder reads, ``(num_samples, D)``; of what all data share, as in :meth:`sample`."""
        with evaluating(self), self._learned():
            shared = self._shared(self.prior, num_samples)
            with pyro.plate("data", num_samples, dim=-1):
                return self.prior(*shared)

    def sample(self, num_samples: int = 1) -> Tensor:
        """Draws from p(x), ``(num_samples, *event_shape)``.

        What all data share is drawn once for all of them, from the guide, which learned it, and not from its prior.
        """
        with evaluating(self), self._learned():
            return by_rows(lambda rows: self.model(num_samples=len(rows)), torch.empty(num_samples, 0))

    def _learned(self) -> Any:
        """The shared sites of the model stand at a draw from the guide."""
        return poutine.condition(data=poutine.trace(self._shared).get_trace(self.posterior, 1))
