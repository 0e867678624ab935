"""Moves of a dictionary: each local optimum that gradients stay in is left, the truth is not, and a run finds it."""

from __future__ import annotations

import pyro
import pytest
import torch
from torch import Tensor

import pyrovae as pv
from pyrovae.data.synthetic import SparseFeatures
from pyrovae.features import Moves

F, OUT = 6, 12


def source(seed: int = 0) -> SparseFeatures:
    return SparseFeatures(F, OUT, 0.25, orthonormal=True, noise=0.05, seed=seed)


def model(weight: Tensor, active: float | list[float] = 0.25, slab: str = "normal") -> pv.VAE:
    """A dictionary with these atoms, ``(D, OUT)``, noise of 0.05 and slabs N(1, 0.15²), or others of that size."""
    values = {"scale": 1.0} if slab in ("half-normal", "exponential") else {"loc": 1.0, "scale": 0.15}
    active = torch.as_tensor(active)
    prior = pv.priors.SpikeSlab(len(weight), active=active, slab=slab, **values, learned=("active", *values))
    likelihood = pv.likelihoods.Normal(pv.nn.Dictionary(len(weight), (OUT,), unit_norm=True), 0.05)
    with torch.no_grad():
        likelihood.network.linear.weight.copy_(weight.T)
        likelihood.network.linear.bias.zero_()
    return pv.VAE(prior, likelihood, pv.guides.CoordinateAscent(prior, likelihood, 20))


def moved(vae: pv.VAE, x: Tensor, **options) -> Moves:
    """The moves of two epochs in which gradients do next to nothing."""
    moves = Moves(x, **options)
    optim = pyro.optim.Adam({"lr": 1e-6})
    pv.fit(vae, x, epochs=2, optim=optim, loss=pv.ELBO(), callbacks=[moves], seed=0, progress=False, compile=False)
    return moves


def found(vae: pv.VAE, features: Tensor) -> Tensor:
    """The best absolute cosine of each feature."""
    return (features @ vae.likelihood.network.weight.detach()).abs().max(1).values


def test_sum_and_difference_of_two_features_are_turned_back():
    truth = source()
    x, weight = truth.sample(600, 1).data, truth.features.clone()
    weight[0], weight[1] = truth.features[0] + truth.features[1], truth.features[0] - truth.features[1]
    vae = model(weight)
    assert found(vae, truth.features).min() < 0.8
    moves = moved(vae, x)
    (gain,) = (move.gain for move in moves.moves if (move.kind, move.latents) == ("rotated", (0, 1)))
    assert gain > 1.0
    assert found(vae, truth.features).min() > 0.99  # the residual of 600 data has given one atom its direction
    assert "1 rotated" in moves.summary()


def test_a_latent_without_use_becomes_the_feature_that_is_missing():
    truth = source()
    x, weight = truth.sample(600, 1).data, truth.features.clone()
    outside = torch.linalg.svd(truth.features, full_matrices=True).Vh[-1]  # orthogonal to all features
    weight[2] = outside
    vae = model(weight)
    moves = moved(vae, x)
    assert "revived" in {move.kind for move in moves.moves}
    assert found(vae, truth.features).min() > 0.99
    assert torch.allclose(vae.prior.active(), torch.tensor(0.25), atol=0.08)  # 4.5 standard errors of 600 gates


@pytest.mark.parametrize("slab", ["truncated-normal", "half-normal", "exponential"])
def test_with_positive_slabs_too_it_becomes_the_feature_that_is_missing(slab):
    truth = source()
    x, weight = truth.sample(600, 1).data, truth.features.clone()
    weight[2] = torch.linalg.svd(truth.features, full_matrices=True).Vh[-1]
    vae = model(weight, slab=slab)
    moves = moved(vae, x)
    assert "revived" in {move.kind for move in moves.moves}
    assert (truth.features @ vae.likelihood.network.weight.detach()).max(1).values.min() > 0.99
    p = vae.prior.distribution().base_dist
    assert 0.7 < p.slab.mean[2].item() < 1.3  # codes are near 1; a move has two M steps, and none of a location
    assert 0.17 < p.probs[2].item() < 0.33  # 4.5 standard errors of 600 gates


def test_latents_without_use_are_closed_when_nothing_is_missing():
    truth = source()
    x = truth.sample(600, 1).data
    spare = torch.linalg.svd(truth.features, full_matrices=True).Vh[-3:]
    vae = model(torch.cat([truth.features, spare]), [0.25] * F + [0.9] * 3)
    with torch.no_grad():
        vae.prior.loc.raw[F:], vae.prior.scale.raw[F:] = 0.0, vae.prior.scale._inverse(torch.tensor(0.001))
    moves = moved(vae, x)
    assert {latent for move in moves.moves if move.kind == "closed" for latent in move.latents} == {6, 7, 8}
    assert vae.prior.active()[F:].max() < 1e-4
    assert (vae.encode(x)[:, F:] == 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_at_the_truth_nothing_moves(seed):
    truth = source(seed)
    vae = model(truth.features.clone())
    before = found(vae, truth.features)
    moves = moved(vae, truth.sample(600, 1).data)
    assert moves.moves == []
    assert moves.summary() == "no latent was moved"
    torch.testing.assert_close(found(vae, truth.features), before, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("width", "seed"), [(12, 0), (24, 1)])
def test_correlated_features_and_their_number_are_found_without_being_told(width, seed):
    truth = SparseFeatures(12, 24, 0.2, correlation=(0.3, 0.9), orthonormal=True, seed=seed)
    x = truth.sample(4000, 1).data
    torch.manual_seed(seed)
    vae = pv.build_vae((24,), width, "spike-slab", "normal:floor=0.03", network="dictionary", inputs=x)
    optim = pyro.optim.Adam({"lr": 1e-2})
    pv.fit(vae, x, epochs=30, batch_size=256, optim=optim, loss=pv.ELBO(), callbacks=[Moves(x)], seed=0,
           progress=False, compile=False)  # fmt: skip
    test = truth.sample(2000, 2)
    score = pv.metrics.decoder_mcc(vae.likelihood.network.weight.T.detach(), truth.features).score
    l0 = [(codes != 0).float().sum(1).mean().item() for codes in (vae.encode(test.data), test.codes)]
    assert score > 0.99
    assert l0[0] == pytest.approx(l0[1], abs=0.25)


def test_a_state_comes_back():
    moves = Moves(torch.randn(5, 3))
    moves.load_state_dict({"moves": [[2, "rotated", [3, 4], 0.5]]})
    assert moves.moves == [(2, "rotated", (3, 4), 0.5)]
    assert Moves(torch.randn(5, 3)).state_dict() == {"moves": []}
    assert moves.state_dict() == {"moves": [[2, "rotated", [3, 4], 0.5]]}


def test_another_guide_and_bad_arguments_are_refused():
    vae = pv.build_vae((OUT,), F, "normal", "normal", network="dictionary", hidden=(4,))
    with pytest.raises(Exception, match="Moves needs a VAE with the guide CoordinateAscent, got Normal"):
        moved(vae, torch.randn(50, OUT))
    with pytest.raises(ValueError, match="x must be a tensor of at least two rows"):
        Moves(torch.randn(5))
    with pytest.raises(ValueError, match="tolerance must be a number, at least 0, got -1"):
        Moves(torch.randn(5, 2), tolerance=-1)
    with pytest.raises(ValueError, match="until must be a share from 0 to 1, got 2"):
        Moves(torch.randn(5, 2), until=2)
