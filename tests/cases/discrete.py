"""Rows of bits, counts and categories, and of the relaxation of bits."""

from __future__ import annotations

import itertools

import mpmath
import numpy as np
import scipy.stats as st
import torch
from scipy.special import expit, log_expit, log_softmax, logit

from cases.core import (
    DiscreteDensityCase,
    HierarchyCase,
    KLCase,
    Linear,
    VectorGuideCase,
    VectorPriorCase,
    double,
    scale,
)
from pyrovae import distributions, guides, priors


def bits(logits):
    return lambda z: log_expit((2 * z - 1) * logits)


def categories(logits, num):
    """Each block by itself, with scipy's softmax."""
    return lambda z: (z.reshape(*z.shape[:-1], -1, num) * log_softmax(np.reshape(logits, (-1, num)), -1)).sum((-1, -2))


def one_hots(num_variables, num):
    return np.array([np.eye(num)[list(k)].ravel() for k in itertools.product(range(num), repeat=num_variables)])


def counts(rate):
    return np.arange(st.poisson(rate).isf(1e-13) + 1)


def nearest_one_hot(num):
    def cell(z):
        blocks = z.unflatten(-1, (-1, num))
        return torch.nn.functional.one_hot(blocks.argmax(-1), num).flatten(-2).to(z)

    return cell


def _categorical(raw, num):
    return DiscreteDensityCase(
        distributions.Categorical,
        lambda logits: distributions.Categorical(logits, num),
        raw,
        categories(raw, num),
        one_hots(len(raw) // num, num),
        [np.resize([-80.0, 80.0], len(raw)), np.resize([1e-6, 0.0], len(raw))],
        nearest_one_hot(num),
    )


DENSITIES = {
    **{
        f"bernoulli, logit {raw}": DiscreteDensityCase(
            distributions.Bernoulli,
            distributions.Bernoulli,
            raw,
            bits(raw),
            np.array([0.0, 1.0]),
            [-80.0, 80.0, 0.0],
            torch.round,
        )
        for raw in (0.7, -4.0)
    },
    **{
        f"poisson, rate {rate}": DiscreteDensityCase(
            distributions.Poisson,
            lambda raw: distributions.Poisson(raw.exp()),
            np.log(rate),
            st.poisson(rate).logpmf,
            counts(rate),
            np.log([1e-6, 1.0, 1e4]),
            torch.round,
        )
        for rate in (0.02, 1.3, 30.0)
    },
    "categorical": _categorical((0.3, -1.0, 0.8, 2.0), 4),
    "categorical, two variables": _categorical((0.3, -1.0, 0.8, 0.1, 1.5, -2.0), 3),
    "categorical, three of two": _categorical((1.0, 0.0, -0.5, 0.5, 3.0, 0.0), 2),
}

PRIORS = {
    "bernoulli": VectorPriorCase(
        priors.Bernoulli, lambda d: priors.Bernoulli(d, 0.2), lambda z: st.bernoulli(0.2).logpmf(z).sum()
    ),
    "bernoulli, learned": VectorPriorCase(
        priors.Bernoulli,
        lambda d: priors.Bernoulli(d, 0.7, learned=["probs"]),
        lambda z: st.bernoulli(0.7).logpmf(z).sum(),
    ),
    "poisson": VectorPriorCase(
        priors.Poisson, lambda d: priors.Poisson(d, 0.4), lambda z: st.poisson(0.4).logpmf(z).sum()
    ),
    "poisson, learned": VectorPriorCase(
        priors.Poisson, lambda d: priors.Poisson(d, 3.0, learned=["rate"]), lambda z: st.poisson(3.0).logpmf(z).sum()
    ),
    "categorical": VectorPriorCase(priors.Categorical, lambda d: priors.Categorical(d), lambda z: -np.log(len(z))),
    "categorical, learned": VectorPriorCase(
        priors.Categorical,
        lambda d: priors.Categorical(d, 2, logits=double([0.4, -1.0]), learned=["logits"]),
        lambda z: categories(np.resize([0.4, -1.0], len(z)), 2)(z),
    ),
}

GUIDES = {
    "bernoulli": VectorGuideCase(
        guides.Bernoulli,
        lambda d: guides.Bernoulli(Linear(3), d),
        lambda out, z, d: bits(out)(z).sum(),
        lambda out, mean, d: out > 0,
    ),
    "poisson": VectorGuideCase(
        guides.Poisson,
        lambda d: guides.Poisson(Linear(3), d),
        lambda out, z, d: st.poisson(scale(out)).logpmf(z).sum(),
        lambda out, mean, d: scale(out),
    ),
    "categorical": VectorGuideCase(
        guides.Categorical,
        lambda d: guides.Categorical(Linear(3), d),
        lambda out, z, d: categories(out, d)(z),
        lambda out, mean, d: np.eye(d)[out.argmax()],
    ),
    "categorical, pairs": VectorGuideCase(
        guides.Categorical,
        lambda d: guides.Categorical(Linear(3), d, 2),
        lambda out, z, d: categories(out, 2)(z),
        lambda out, mean, d: np.eye(2)[out.reshape(-1, 2).argmax(-1)].ravel(),
    ),
}


def _relaxed(out, sites, temperature):
    return {"z_logit": st.logistic(out / temperature, 1 / temperature).logpdf(sites["z_logit"]).sum(-1)}


def _hierarchy(probs, temperature, **options):
    return HierarchyCase(
        priors.RelaxedBernoulli,
        lambda d: priors.RelaxedBernoulli(d, probs, temperature, **options),
        lambda sites: _relaxed(logit(probs), sites, temperature),
        lambda z: expit(temperature * logit(z) - logit(probs)),
        guides.RelaxedBernoulli,
        lambda d: guides.RelaxedBernoulli(Linear(3), d, temperature=0.6),
        lambda out, sites: _relaxed(out, sites, 0.6),
        read=lambda sites: torch.from_numpy(sites["z_logit"]).sigmoid().clamp(2.3e-308, 1 - 2**-53).numpy(),
        code=lambda out, d: expit(out / 0.6),
    )


HIERARCHIES = {
    "relaxed-bernoulli": _hierarchy(0.5, 0.5),
    "relaxed-bernoulli, learned": _hierarchy(0.2, 0.7, learned=["probs", "temperature"]),
}


def exact_kl(q, p):
    """In 60 digits, from the parameters as they are; also of the densities in float32."""
    with mpmath.workdps(60):
        if isinstance(q, distributions.Poisson):
            r, s = mpmath.mpf(q.rate.item()), mpmath.mpf(p.rate.item())
            return float(r * mpmath.log(r / s) - r + s)
        a, b = ([mpmath.mpf(v) for v in d.logits.reshape(-1).tolist()] for d in (q, p))
        if isinstance(q, distributions.Bernoulli):
            a, b = [*a, 0], [*b, 0]
        num = getattr(q, "num_categories", 2)
        total = mpmath.mpf(0)
        for k in range(0, len(a), num):
            weights = [[mpmath.exp(v) for v in logits[k : k + num]] for logits in (a, b)]
            q_probs, p_probs = ([w / sum(row) for w in row] for row in weights)
            total += sum(u * mpmath.log(u / v) for u, v in zip(q_probs, p_probs, strict=True))
        return float(total)


def _pairs(make, settings):
    return lambda: [(make(double(a)), make(double(b))) for a, b in settings]


KLS = {
    "bernoulli from bernoulli": KLCase(
        _pairs(
            distributions.Bernoulli, [(0.0, 0.0), (-2.0, -1.0), (3.0, -3.0), (0.3, 0.3001), (80.0, -80.0), (5.0, 6.0)]
        ),
        exact_kl,
    ),
    "poisson from poisson": KLCase(
        _pairs(
            distributions.Poisson,
            [(1.0, 1.0), (0.4, 1.3), (1e-3, 1.0), (100.0, 100.01), (20.0, 20.9), (20.0, 21.2), (1e4, 9e3)],
        ),
        exact_kl,
    ),
    "categorical from categorical": KLCase(
        _pairs(
            distributions.Categorical,
            [
                ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
                ((1.0, -1.0, 0.3), (0.0, 0.5, 2.0)),
                ((80.0, -80.0, 0.0), (-80.0, 0.0, 80.0)),
            ],
        ),
        exact_kl,
    ),
    "categorical from categorical, pairs": KLCase(
        lambda: (
            [
                (
                    distributions.Categorical(double([1.0, -1.0, 0.3, 2.0]), 2),
                    distributions.Categorical(double([0.0, 0.5, 0.0, -1.0]), 2),
                )
            ]
            * 2
        ),
        exact_kl,
    ),
}
