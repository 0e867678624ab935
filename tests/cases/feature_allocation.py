"""Rows of the priors whose activities all data share."""

from __future__ import annotations

import numpy as np
import scipy.stats as st
from scipy.special import expit

from cases.core import Linear, SharedCase, scale
from cases.exact_zeros import Mixed
from cases.unit_interval import KumaraswamyLaw
from pyrovae import guides, priors


def _prior(a, b, activity_of, slab):
    def log_density(sites):
        v, z = sites["z_active"], sites["z"]
        active = activity_of(v)
        on_and_off = np.where(z == 0, np.log1p(-active), np.log(active) + slab.logpdf(z))
        return {"z_active": st.beta(a, b).logpdf(v).sum(-1), "z": on_and_off.sum(-1)}

    return log_density


def _guide(guide, out, sites):
    loc, raw, logits = np.split(out, 3, axis=-1)
    m = expit(10 * guide.raw_median.detach().numpy())
    a = np.exp(10 * guide.raw_concentration.detach().numpy())
    shared = KumaraswamyLaw(a, np.log(2) / -np.log1p(-(m**a))).logpdf(sites["z_active"]).sum(-1)
    return {"z_active": shared, "z": Mixed(expit(logits), st.norm(loc, scale(raw))).logpdf(sites["z"]).sum(-1)}


SHARED = {
    "beta-spike-slab": SharedCase(
        priors.BetaSpikeSlab,
        lambda d: priors.BetaSpikeSlab(d, 2.0, 5.0, scale=1.3, learned=["concentration1", "concentration0", "scale"]),
        _prior(2.0, 5.0, lambda v: v, st.norm(0, 1.3)),
        lambda d: np.full(d, 2 / 7),
        lambda v: v,
        guides.BetaSpikeSlab,
        lambda d: guides.BetaSpikeSlab(Linear(3), d, median=0.4),
        _guide,
    ),
    "beta-bernoulli": SharedCase(
        priors.BetaBernoulli,
        lambda d: priors.BetaBernoulli(d, 3.0, slab="student-t", df=4.0, learned=["concentration", "loc", "df"]),
        _prior(3.0, 1.0, lambda v: v.cumprod(-1), st.t(4.0)),
        lambda d: 0.75 ** np.arange(1, d + 1),
        lambda v: v.cumprod(-1),
        guides.BetaSpikeSlab,
        lambda d: guides.BetaSpikeSlab(Linear(3), d),
        _guide,
    ),
}
