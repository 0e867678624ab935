"""What the guards must let through: each of these was refused once."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceGraph_ELBO
from pyro.optim import Adam
from torch import Tensor, nn

import pyrovae as pv

X = torch.arange(32.0).reshape(8, 4) / 32


def make_vae(prior: nn.Module | None = None, guide: type[pv.guides.Guide] = pv.guides.Normal) -> pv.VAE:
    likelihood = pv.likelihoods.Normal(pv.nn.MLP(3, [5], 4))
    return pv.VAE(prior or pv.priors.Normal(3), likelihood, guide(pv.nn.MLP(4, [5]), 3))


class MixturePrior(pv.priors.Prior):
    def __init__(self, over: str) -> None:
        super().__init__()
        self.over = over

    def distribution(self) -> dist.TorchDistribution:
        if self.over == "each coordinate":
            components = dist.Normal(torch.zeros(3, 2), torch.tensor([0.1, 2.0]))
            return dist.MixtureSameFamily(dist.Categorical(torch.ones(3, 2)), components).to_event(1)
        components = dist.Normal(torch.zeros(2, 3), torch.tensor([[0.1], [2.0]])).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), components)


@pytest.mark.parametrize("over", ["each coordinate", "the whole code"])
def test_a_mixture_prior_has_the_support_of_its_components(over: str) -> None:
    vae = make_vae(MixturePrior(over))
    pv.check(vae.model, vae.guide, Trace_ELBO(), X)
    assert SVI(vae.model, vae.guide, Adam({"lr": 1e-3}), Trace_ELBO()).step(X) > 0
    assert vae.sample(5).shape == (5, 4)


class ScoredNormal(dist.Normal):
    """Asks for a score function as a partly reparametrised density does."""

    def score_parts(self, x: Tensor, *args: object, **kwargs: object) -> object:
        return super().score_parts(x)._replace(score_function=self.log_prob(x))


class KeepsScoreParts(dist.Independent):
    def score_parts(self, x: Tensor, *args: object, **kwargs: object) -> object:
        parts = self.base_dist.score_parts(x)
        return type(parts)(*(p.sum(-1) if isinstance(p, Tensor) else p for p in parts))


class ScoredGuide(pv.guides.Normal):
    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        loc, raw = self.head(self.network(x)).chunk(2, -1)
        return KeepsScoreParts(ScoredNormal(loc, raw.exp()), 1)


def test_an_independent_that_keeps_score_parts_is_right_under_trace_and_wrong_under_graph() -> None:
    vae = make_vae(guide=ScoredGuide)
    assert SVI(vae.model, vae.guide, Adam({"lr": 1e-3}), Trace_ELBO()).step(X) > 0
    pv.check(vae.model, vae.guide, Trace_ELBO(), X)
    with pytest.raises(ValueError, match="TraceGraph_ELBO ignores the score_parts"):
        pv.check(vae.model, vae.guide, TraceGraph_ELBO(), X)
