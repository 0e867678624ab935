"""What each latent stands for, against Jacobians, sets and counts by hand."""

import itertools

import pytest
import torch
from cases import double
from torch import nn

import pyrovae as pv
from pyrovae import metrics


def model(likelihood="normal", network="dictionary", prior="spike-slab", seed=0):
    torch.manual_seed(seed)
    return pv.build_vae((6,), 4, prior=prior, likelihood=likelihood, network=network, hidden=(8,)).double()


X = torch.randn(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


# --- atoms ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", ["normal", "bernoulli"])
def test_a_dictionary_is_the_jacobian_of_the_linear_decoder(likelihood):
    vae = model(likelihood)
    jacobian = torch.autograd.functional.jacobian(vae.likelihood.output, torch.randn(4, dtype=torch.float64))
    assert torch.allclose(metrics.dictionary(vae), jacobian.T, atol=1e-12)


def test_a_linear_layer_of_torch_is_a_dictionary_and_so_is_that_of_data_with_holes():
    layer = nn.Linear(4, 6)
    guide = pv.guides.Normal(pv.nn.MLP(6, [8]), 4)
    vae = pv.VAE(pv.priors.Normal(4), pv.likelihoods.Normal(layer), guide)
    assert torch.equal(metrics.dictionary(vae), layer.weight.detach().T)
    masked = pv.VAE(pv.priors.Normal(4), pv.likelihoods.Masked(pv.likelihoods.Normal(layer)), guide)
    assert torch.equal(metrics.dictionary(masked), layer.weight.detach().T)


def test_the_response_of_a_linear_decoder_is_its_dictionary_for_every_latent_that_varies():
    vae = model(prior="laplace")
    found, response = metrics.latent_features(vae, X), metrics.latent_features(vae, X, atoms="response")
    assert torch.allclose(found.atoms, response.atoms, atol=1e-9)
    assert response.response
    assert not found.response


def test_the_response_of_a_latent_that_does_not_vary_is_zero():
    vae = model(prior="laplace", network="mlp")
    with torch.no_grad():  # the first four rows of the last layer are the locations
        vae.posterior.head.weight[2] = 0.0
    found = metrics.latent_features(vae, X, atoms="response")
    assert (found.atoms.abs().sum(1) > 0).tolist() == [True, True, False, True]


def test_codes_and_reliability_are_those_of_the_model():
    vae = model()
    torch.manual_seed(3)
    found = metrics.latent_features(vae, X, num_simulated=40)
    torch.manual_seed(3)
    expected = metrics.gate_reliability(vae, 40)
    assert torch.equal(found.codes, vae.encode(X))
    assert torch.equal(found.data, X)
    assert torch.equal(found.reliability.error, expected.error)
    assert torch.equal(found.reliability.counts, expected.counts)


@pytest.mark.parametrize(
    ("vae", "reason"),
    [
        (lambda: model(prior="laplace"), "exact zeros"),
        (
            lambda: pv.build_vae(
                (6,), 4, prior="flat", guide="delta", likelihood="normal", network="dictionary"
            ).double(),
            "improper",
        ),
    ],
)
def test_without_a_probability_of_being_on_there_is_a_reason(vae, reason):
    found = metrics.latent_features(vae(), X)
    assert found.reliability is None
    assert reason in found.why_not


def test_strength_by_hand():
    z = double([[0.0, 2.0, 0.0], [-1.0, 4.0, 0.0]])
    atoms = double([[3.0, 4.0], [0.0, 1.0], [1.0, 0.0]])
    assert metrics.LatentFeatures(torch.zeros(2, 2), z, atoms).strength.tolist() == [5.0, 3.0, 0.0]


# --- neighbours -----------------------------------------------------------------------------------------------------


def test_similar_atoms_by_hand():
    atoms = double([[1.0, 0.0], [-3.0, 0.1], [1.0, 1.0], [0.0, 0.0]])
    found = metrics.similar_atoms(atoms, num=2)
    assert found.latents[0].tolist() == [1, 2]
    assert found.score[0].tolist() == pytest.approx([-0.99944, 0.70711], abs=1e-5)
    assert metrics.similar_atoms(atoms, num=2, signed=True).latents[0].tolist() == [2, 3]
    assert metrics.similar_atoms(atoms, num=9).latents.shape == (4, 3)


def test_latents_that_fire_together_are_those_of_sets():
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(60, 6, generator=generator) * (torch.rand(60, 6, generator=generator) < 0.4)
    z[:, 5] = 0.0
    sets = [set(column.nonzero()[:, 0].tolist()) for column in z.T]
    expected = torch.zeros(6, 6)
    for i, j in itertools.permutations(range(6), 2):
        union = sets[i] | sets[j]
        expected[i, j] = len(sets[i] & sets[j]) / len(union) if union else 0.0
    found = metrics.co_firing(z, num=5)
    assert torch.allclose(expected.gather(1, found.latents), found.score)
    assert bool((found.score.diff(dim=1) <= 0).all())
    assert not any(i in row for i, row in enumerate(found.latents.tolist()))


# --- bad input ------------------------------------------------------------------------------------------------------


def conditional():
    likelihood = pv.likelihoods.Normal(nn.Linear(4, 6))
    return pv.ConditionalVAE(pv.priors.Normal(2), likelihood, pv.guides.Normal(pv.nn.MLP(8, [8]), 2), num_labels=2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: metrics.latent_features(model(), X, atoms="decoder"),
            "atoms must be one of dictionary, response, got",
        ),
        (lambda: metrics.latent_features(model(), X, num_simulated=0), "num_simulated must be at least 1, got 0"),
        (
            lambda: metrics.dictionary(model(network="mlp")),
            "no dictionary: its decoder MLP is not linear.*--atoms resp",
        ),
        (lambda: metrics.dictionary(conditional()), "without labels"),
        (lambda: metrics.latent_features(conditional(), X, atoms="response"), "without labels"),
        (lambda: metrics.similar_atoms(torch.eye(3), num=0), "num must be at least 1, got 0"),
        (lambda: metrics.similar_atoms(torch.eye(3) / 0), "finite"),
        (lambda: metrics.co_firing(torch.ones(3)), "z must be codes"),
        (lambda: metrics.co_firing(torch.eye(3), num=0), "num must be at least 1, got 0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
