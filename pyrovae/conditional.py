"""The conditional variational autoencoder: model and guide are given the label of each datum."""

from __future__ import annotations

import pyro
import torch
from torch import Tensor, nn

from pyrovae import guards
from pyrovae.compilation import by_rows
from pyrovae.vae import VAE, evaluating

__all__ = ["ConditionalVAE"]


class ConditionalVAE(VAE):
    r"""A VAE of x given its label y: z is what the label does not say, such as the style of a written digit.

    .. math::
        p(x, z \mid y) = p(z)\, p(x \mid z, y), \qquad
        \log p(x \mid y) \ge E_{q(z \mid x, y)}[\log p(x \mid z, y)] - KL\left(q(z \mid x, y) \,\|\, p(z)\right)

    ``model(x, y)`` and ``guide(x, y)`` are two plain Pyro functions. Training and measurements take the pair ``(x, y)``
    where those of a :class:`VAE` take x, ``pv.fit(vae, (x, y))``; a :class:`~pyrovae.data.Data` brings its labels.
    ``vae.decode(z, other)`` has the same style under another label.

    Args:
        prior: p(z), as of a :class:`VAE`; it does not see y.
        likelihood: p(x|z, y), a likelihood whose network reads :math:`D + C` columns: z, and after it y one-hot.
        guide: q(z|x, y), a guide whose network reads the numbers of x as one row, and after them y one-hot;
            :class:`~pyrovae.nn.Labelled` makes one of an encoder, convolutional ones included.
        num_labels: :math:`C`, at least 2.
        num_data: :math:`N`, the rows of the training set; needed where prior and guide have sites that all data share.
        name: As of a :class:`VAE`.

    Shape: x is ``(N, *event_shape)``, y ``(N,)``, z ``(N, D)``; the plate ``"data"`` is the first dimension.
    Raises: ValueError as of :class:`VAE`, if ``num_labels`` is no whole number of two or more, and where y is not whole
        numbers below it, one for each row.
    References: Sohn, Lee and Yan (2015), "Learning structured output representation using deep conditional generative
        models", eq. 4, whose prior may depend on y, as ours does not; Kingma, Mohamed, Rezende and Welling (2014),
        "Semi-supervised learning with deep generative models", eq. 6, the bound of M2 for a given label, less its
        log p(y).
    """

    def __init__(
        self,
        prior: nn.Module,
        likelihood: nn.Module,
        guide: nn.Module,
        num_labels: int,
        num_data: int | None = None,
        name: str | None = None,
    ) -> None:
        if not isinstance(num_labels, int) or num_labels < 2:
            raise ValueError(f"num_labels must be a whole number, at least 2, got {num_labels!r}")
        self.num_labels = num_labels
        super().__init__(prior, likelihood, guide, num_data, name)

    def model(self, x: Tensor | None = None, y: Tensor | None = None) -> Tensor:  # type: ignore[override]  # rows are y's
        """p(x, z|y): with x, one row of the plate per datum; without, a draw for each label."""
        guards.check_tensors(self, x)
        y = self._checked(y, x)
        guards.register(self)
        shared = self._shared(self.prior, len(y))
        with pyro.plate("data", len(y), dim=-1):
            z = self.prior(*shared)
            return pyro.sample("x", self.likelihood(self._beside(z, y)), obs=x)

    def guide(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """q(z|x, y), one row of the plate per datum."""
        guards.check_tensors(self, x)
        y = self._checked(y, x)
        guards.register(self)
        shared = self._shared(self.posterior, len(x))
        with pyro.plate("data", len(x), dim=-1):
            return self.posterior(self._beside(x.flatten(1), y), *shared)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The code of x under the label y, ``(N, D)``, as :meth:`VAE.encode`."""
        guards.check_tensors(self, x)
        y = self._checked(y, x)
        with evaluating(self):
            return by_rows(lambda x, y: self.posterior.encode(self._beside(x.flatten(1), y)), x, y)  # type: ignore[operator]  # torch types attributes as tensors

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean of p(x|z, y), ``(N, *event_shape)``."""
        y = self._checked(y, z)
        with evaluating(self):
            return by_rows(lambda z, y: self.likelihood.mean(self._beside(z, y)), z, y)  # type: ignore[operator]  # torch types attributes as tensors

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """x through its code and back under its label: ``decode(encode(x, y), y)``."""
        return self.decode(self.encode(x, y), y)

    def sample(self, y: Tensor | None = None) -> Tensor:  # type: ignore[override]  # a draw for each label
        """A draw from p(x|y) for each label, ``(N, *event_shape)``; of what all data share, as :meth:`VAE.sample`."""
        y = self._checked(y, None)
        with evaluating(self), self._learned():
            return by_rows(lambda rows: self.model(y=rows), y)

    def _checked(self, y: Tensor | None, like: Tensor | None) -> Tensor:
        """y, if it has a label for each row of ``like``."""
        num_rows = None if like is None else len(like)
        guards.check_labels(y, self.num_labels, num_rows, next(self.parameters(), None) if like is None else like)
        return y  # type: ignore[return-value]  # checked above

    def _beside(self, columns: Tensor, y: Tensor) -> Tensor:
        """The columns, and after them y one-hot."""
        one_hot = y[:, None] == torch.arange(self.num_labels, device=y.device)
        return torch.cat([columns, one_hot.to(columns.dtype).expand(*columns.shape[:-1], -1)], -1)
