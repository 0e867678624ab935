"""The numbers that ``pyrovae fit`` prints of a VAE."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from pyrovae.metrics.collapse import active_units
from pyrovae.metrics.draws import point_site
from pyrovae.metrics.importance import importance_sampling
from pyrovae.metrics.likelihood import bits_per_dimension, elbo, mean_squared_error
from pyrovae.metrics.sparsity import Sparsity, exact_zeros, hoyer
from pyrovae.metrics.supports import variety_if_sparse
from pyrovae.rows import Rows, data_of, num_rows, tensors
from pyrovae.vae import VAE

__all__ = ["evaluate", "has_value", "num_observed"]


def evaluate(vae: VAE, x: Rows, num_samples: int = 5000) -> dict[str, Any]:
    """The numbers of the table that ``pyrovae fit`` ends with; means over the data, in nats per datum.

    ``log_likelihood`` is None under a Delta guide, which gives no bound; so are what tells how far to trust it,
    ``effective_sample_size``, of ``num_samples``, and ``pareto_k``, the share of data whose tail index is above 0.7
    (None for fewer than 21 draws too), and ``bits_per_dimension``, the same number on another scale and without an
    offset for grey levels: per dimension that is observed, where some are missing. ``standard_error`` is of the ELBO's
    mean over the data. ``exact_zeros`` and ``hoyer`` are of the deterministic code ``vae.encode(x)``; ``hoyer`` is None
    where no code has a value, ``dead_units`` and ``empty_codes`` count what it leaves out (see
    :func:`~pyrovae.metrics.hoyer`). ``support_jaccard``, the mean Jaccard distance of the supports of two data, and
    ``num_supports`` are None where no code has an exact zero. ``active_units`` are by variance.

    See also: :func:`~pyrovae.metrics.summary`, which has these numbers and the dearer ones.
    """
    bound = elbo(vae, x)
    z = vae.encode(*tensors(x))
    sparsity = hoyer(z)
    bounded = point_site(vae, x) is None
    weighted = importance_sampling(vae, x, num_samples) if bounded else None
    mean = None if weighted is None else weighted.log_likelihood.mean()
    variety = variety_if_sparse(z)
    return {
        "elbo": bound.elbo.mean().item() if bounded else None,
        "reconstruction": bound.reconstruction.mean().item(),
        "kl": bound.kl.mean().item(),
        "kl_is_exact": bound.kl_is_exact,
        "standard_error": bound.elbo.std().item() / math.sqrt(num_rows(x)) if num_rows(x) > 1 else math.nan,
        "log_likelihood": None if mean is None else mean.item(),
        "num_samples": num_samples,
        "effective_sample_size": None if weighted is None else weighted.effective_sample_size.mean().item(),
        "pareto_k": None if weighted is None else _share_above(weighted.pareto_k, 0.7),
        "bits_per_dimension": None
        if mean is None
        else bits_per_dimension(mean * num_rows(x), num_observed(data_of(x))).item(),
        "active_units": int(active_units(vae, x).sum()),
        "latent_dim": z.shape[-1],
        "exact_zeros": exact_zeros(z).item(),
        "hoyer": sparsity.mean if has_value(z, sparsity) else None,
        "dead_units": sparsity.dead,
        "empty_codes": sparsity.empty,
        "support_jaccard": None if variety is None else variety.jaccard,
        "num_supports": None if variety is None else variety.num_supports,
        "mean_squared_error": mean_squared_error(vae, x).nanmean().item(),
        "num_data": num_rows(x),
    }


def has_value(z: Tensor, sparsity: Sparsity) -> bool:
    """Whether any code has a value of a measure that compares magnitudes."""
    return z.shape[1] - sparsity.dead >= 2 and sparsity.empty < len(z)


def num_observed(x: Tensor) -> int:
    """Numbers of a table that are not missing, at least 1."""
    return max(1, x.numel() - int(x.isnan().sum()))


def _share_above(values: Tensor, threshold: float) -> float | None:
    return None if bool(values.isnan().any()) else (values > threshold).double().mean().item()
