"""The scikit-learn estimator: ``build_vae``, ``fit`` and a log-likelihood as ``fit``, ``transform`` and ``score``.

``import pyrovae`` loads no scikit-learn, so this room is imported by itself: ``from pyrovae.sklearn import
VAETransformer``.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

import numpy as np
import pyro
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state, check_scalar
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from pyrovae.build import build_vae, name_and_options, usual_warmup
from pyrovae.compilation import Passes
from pyrovae.metrics.draws import log_weights, measuring
from pyrovae.objectives import ELBO, Schedule, constant, warmup
from pyrovae.optim import by_name, takes_whole_set
from pyrovae.train import fit
from pyrovae.train.checks import check_values
from pyrovae.vae import VAE

__all__ = ["VAETransformer"]

FLOATS = (np.float64, np.float32)
SEEDS = 2**31 - 1


class VAETransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    r"""A VAE as a scikit-learn transformer: X to codes and back, scored by a bound on the log-likelihood.

    The score of rows x is in nats per datum, and in expectation at most log p(x):

    .. math:: \frac{1}{N} \sum_n \log \frac{1}{K} \sum_{k=1}^K \frac{p(x_n, z_{nk})}{q(z_{nk}|x_n)} , \qquad
              z_{nk} \sim q(z|x_n)

    A density of real data is one in their units: scores compare models of the same columns on the same scale, so what
    scales them goes before this step of a ``Pipeline``, fixed over the grid. The networks are trained in float32;
    float64 rows are encoded and scored by the same weights in float64.

    Args:
        latent_dim: Number of latent coordinates.
        prior: p(z), a name of ``build.PRIORS`` or an import path, with hyper-parameters: ``"spike-slab:active=0.2"``.
        likelihood: p(x|z), likewise of ``build.LIKELIHOODS``; ``"normal"`` for reals, ``"bernoulli"`` for 0 and 1.
        guide: q(z|x), likewise of ``build.GUIDES``; None takes the one that fits the prior.
        hidden: Width of each hidden layer of the encoder, in reverse those of the decoder.
        network: ``"mlp"``, or ``"dictionary"`` for a linear decoder.
        epochs: Passes of ``fit`` over the data; ``partial_fit`` makes one.
        batch_size: Data per step.
        lr: Learning rate of an optimizer that is named.
        optim: A name of ``pv.optim``, with hyper-parameters: ``"nesterov:momentum=0.8"``; or an optimizer of
            ``pyro.optim``, of which a copy steps. ``"gd"`` takes all rows at each step, whatever ``batch_size`` is.
        beta: Weight of the KL in training. The score has it at 1.
        warmup: Epochs over which beta rises from 0; None is what the prior usually needs, 14 for spike-slab and its kin
            (four fifths of the run at most), 0 for others.
        num_samples: :math:`K`, draws for each datum of a score.
        compile: False makes fits from one ``random_state`` equal to the bit. None compiles training and scoring where
            that is earned back, and True training at once; then they agree to rounding.
        random_state: Of weights, order and draws, in ``fit``, ``score`` and ``sample``.
        device: ``"cpu"``, ``"cuda"``, …
        verbose: Whether to show a bar.

    Attributes:
        vae_: The :class:`~pyrovae.VAE`, for ``pv.metrics``, ``pv.plots`` and ``pv.save``.
        loss_curve_: Training loss of each epoch, in nats per datum.
        n_iter_: Epochs so far.
        n_features_in_, feature_names_in_: As of any scikit-learn estimator.

    Shape: X is ``(N, n_features)``, dense and finite; codes are ``(N, D)``.
    Raises: ValueError or TypeError that names the argument, in ``fit``; FloatingPointError when the loss becomes NaN.
    References: Burda, Grosse and Salakhutdinov (2016), "Importance weighted autoencoders", eq. 8, for the score.
    """

    def __init__(
        self,
        latent_dim: int = 16,
        *,
        prior: str = "normal",
        likelihood: str = "normal",
        guide: str | None = None,
        hidden: Sequence[int] = (400,),
        network: str = "mlp",
        epochs: int = 100,
        batch_size: int = 128,
        lr: float = 1e-3,
        optim: str | pyro.optim.PyroOptim = "adam",
        beta: float = 1.0,
        warmup: float | None = None,
        num_samples: int = 100,
        compile: bool | None = False,
        random_state: Any = None,
        device: str | torch.device = "cpu",
        verbose: bool = False,
    ) -> None:
        self.latent_dim = latent_dim
        self.prior = prior
        self.likelihood = likelihood
        self.guide = guide
        self.hidden = hidden
        self.network = network
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.optim = optim
        self.beta = beta
        self.warmup = warmup
        self.num_samples = num_samples
        self.compile = compile
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> VAETransformer:
        """Train a new VAE for ``epochs`` passes over X; y is not read."""
        X = validate_data(self, X, dtype=FLOATS)
        x, epochs = _tensor(X, np.float32), self._count("epochs")
        vae, optim, seed = self._new(x, num_data=len(x))
        loss_curve = self._train(vae, optim, x, epochs, self._beta(vae.posterior, epochs), seed)
        self._keep(vae, optim, seed, X.dtype)
        self.loss_curve_, self.n_iter_ = loss_curve, epochs
        return self

    def partial_fit(self, X: Any, y: Any = None) -> VAETransformer:
        """Go on for one pass over X, from the weights and the state of the optimizer so far; y is not read.

        A warm-up counts these passes as epochs, and beta stands still within each. Priors with sites that all data
        share need the number of rows, which only ``fit`` knows.
        """
        first = not hasattr(self, "vae_")
        X = validate_data(self, X, dtype=FLOATS, reset=first)
        x, done = _tensor(X, np.float32), 0 if first else self.n_iter_
        vae, optim, seed = self._new(x, num_data=None) if first else (self.vae_, self._optim, self._seed)
        beta = self._beta(vae.posterior, math.inf)(done + 0.5)  # its mean over the pass
        losses = self._train(vae, optim, x, 1, constant(beta), seed + done)
        if first:
            self._keep(vae, optim, seed, X.dtype)
            self.loss_curve_ = []
        self.loss_curve_, self.n_iter_ = [*self.loss_curve_, *losses], done + 1
        return self

    def transform(self, X: Any) -> Any:
        """The code of each row, ``vae_.encode``: the guide's mean unless it says otherwise; ``(N, D)``."""
        X = self._rows(X)
        vae, x = self._measured(X)
        return _array(vae.encode(x), X.dtype)

    def inverse_transform(self, X: Any) -> Any:
        """E[x|z] of each row of codes z, ``vae_.decode``; ``(N, n_features)``."""
        check_is_fitted(self, "vae_")
        X = check_array(X, dtype=FLOATS, input_name="X")
        if X.shape[1] != self._n_features_out:
            raise ValueError(f"X must be codes of {self._n_features_out} coordinates, got {X.shape[1]} columns")
        vae, z = self._measured(X)
        return _array(vae.decode(z), X.dtype)

    def score_samples(self, X: Any) -> Any:
        """The bound on log p(x) of each row, ``(N,)``, in nats.

        The draws of a row are seeded by its values: its bound does not depend on the rows beside it, nor on their
        order, and the errors of different rows are independent.
        """
        X = self._rows(X)
        num_samples = self._count("num_samples")
        vae, x = self._measured(X)
        check_values(vae, x)

        def bound(row: Tensor) -> tuple[Tensor]:
            return (log_weights(vae, row, num_samples).logsumexp(0) - math.log(num_samples),)

        passes = Passes(bound, 0 if self.compile is False else len(x))
        # torch.manual_seed seeds every device there is, which takes a tenth of the time of a row
        seed = torch.default_generator.manual_seed if x.device.type == "cpu" else torch.manual_seed
        bounds = []
        with measuring(vae), _seeded(self._seed, x.device):
            for values, row in zip(X, x.split(1), strict=True):
                seed(self._seed_of(values))
                bounds.append(passes(row)[0])
        return _array(torch.cat(bounds), X.dtype)

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of :meth:`score_samples`, in nats per datum; y is not read."""
        return float(self.score_samples(X).mean(dtype=np.float64))

    def sample(self, n_samples: int = 1) -> Any:
        """Draws from p(x), ``(n_samples, n_features)``; with an integer ``random_state`` the same at every call."""
        check_is_fitted(self, "vae_")
        check_scalar(n_samples, "n_samples", Integral, min_val=1)
        device = next(self.vae_.parameters()).device
        with _seeded(self._drawn_seed(), device):
            return _array(self.vae_.sample(int(n_samples)), self._dtype)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _new(self, x: Tensor, num_data: int | None) -> tuple[VAE, pyro.optim.PyroOptim, int]:
        """A VAE before its first step, its optimizer and its seed."""
        optim = self._optimizer(len(x))
        device, latent_dim, seed = self._device(), self._count("latent_dim"), self._drawn_seed()
        with _seeded(seed, device):
            vae = build_vae(
                (x.shape[1],),
                latent_dim,
                prior=self.prior,
                likelihood=self.likelihood,
                guide=self.guide,
                hidden=self.hidden,
                network=self.network,
                inputs=x,
                num_data=num_data,
            )
            return vae.to(device), optim, seed

    def _optimizer(self, num_rows: int) -> pyro.optim.PyroOptim:
        if not isinstance(self.optim, str):
            return copy.deepcopy(self.optim)
        name, options = name_and_options("optim", self.optim)
        lr = check_scalar(self.lr, "lr", Real, min_val=0, include_boundaries="neither")
        batch_size = num_rows if name == "gd" else min(self._count("batch_size"), num_rows)
        return by_name(name, float(lr), batch_size, **options)

    def _train(
        self, vae: VAE, optim: pyro.optim.PyroOptim, x: Tensor, epochs: int, beta: Schedule, seed: int
    ) -> list[float]:
        """The training loss of each epoch."""
        history = fit(
            vae,
            x,
            epochs=epochs,
            batch_size=None if takes_whole_set(optim) else self._count("batch_size"),
            optim=optim,
            loss=ELBO(beta=beta),
            seed=seed,
            progress=bool(self.verbose),
            compile=self.compile,
        )
        return history["train_loss"]

    def _keep(self, vae: VAE, optim: pyro.optim.PyroOptim, seed: int, dtype: Any) -> None:
        self.vae_, self._optim, self._seed, self._dtype = vae, optim, seed, dtype
        parameter = next(vae.parameters())
        self._n_features_out = vae.encode(parameter.new_zeros(1, self.n_features_in_)).shape[1]

    def _rows(self, X: Any) -> Any:
        check_is_fitted(self, "vae_")
        return validate_data(self, X, dtype=FLOATS, reset=False)

    def _measured(self, X: Any) -> tuple[VAE, Tensor]:
        """The VAE and X in one dtype: that of X, where the device has it."""
        device = next(self.vae_.parameters()).device
        if X.dtype == np.float64 and device.type != "mps":
            return copy.deepcopy(self.vae_).double(), _tensor(X, np.float64).to(device)
        return self.vae_, _tensor(X, np.float32).to(device)

    def _count(self, name: str) -> int:
        """An argument that is a whole number from 1 up."""
        return int(check_scalar(getattr(self, name), name, Integral, min_val=1))

    def _beta(self, guide: nn.Module, epochs: float) -> Schedule:
        """The weight of the KL, as it rises."""
        beta = float(check_scalar(self.beta, "beta", Real, min_val=0))
        length = usual_warmup(self.prior, guide, epochs) if self.warmup is None else self.warmup
        return warmup(check_scalar(length, "warmup", Real, min_val=0), end=beta) if length else constant(beta)

    def _device(self) -> torch.device:
        try:
            torch.zeros(1, device=self.device).item()  # a device that exists, and computes
            return torch.device(self.device)
        except (RuntimeError, AssertionError, TypeError) as error:
            raise ValueError(f"device {self.device!r} cannot be used here: {str(error).splitlines()[0]}") from error

    def _drawn_seed(self) -> int:
        return int(check_random_state(self.random_state).randint(SEEDS))

    def _seed_of(self, values: Any) -> int:
        """A seed for the draws of one row."""
        key = self._seed.to_bytes(8, "little")
        return int.from_bytes(hashlib.blake2b(values.tobytes(), digest_size=4, key=key).digest(), "little")


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draws from a seed; torch's random state is put back after."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _tensor(X: Any, dtype: Any) -> Tensor:
    """A copy, which owns its memory whatever X is a view of; what is too large for the dtype is infinite in it."""
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.array(X, dtype=dtype, order="C"))


def _array(x: Tensor, dtype: Any) -> Any:
    return x.cpu().numpy().astype(dtype, copy=False)
