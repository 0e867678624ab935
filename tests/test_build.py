"""build_vae, save and load, and the networks."""

import copy
import itertools
import json
import pickle

import pytest
import safetensors.torch
import torch
from torch import nn

import pyrovae as pv
from pyrovae import build, guards, guides, likelihoods, priors
from pyrovae.nn import MLP, ConvDecoder, ConvEncoder, Dictionary


def fits(prior, guide):
    if guide is None:
        return True
    q = build.GUIDES[guide].support
    p = q if prior == "vamp" else build.PRIORS[prior](3).support  # a Vamp is made of its guide
    shared = prior in ("beta-spike-slab", "beta-bernoulli")
    if (prior == "flat" and not build.GUIDES[guide].is_point) or (prior != "flat" and build.GUIDES[guide].brings_prior):
        return False
    return None not in (p, q) and guards.same_support(p, q) and shared == hasattr(build.GUIDES[guide], "shared")


SPARSE_POINTS = {"relu", "topk", "batch-topk", "matryoshka", "jump-relu", "gated", "vaease"}  # with one prior each
PAIRS = [
    (prior, guide)
    for prior, guide in itertools.product(build.PRIORS, [None, *build.GUIDES])
    if fits(prior, guide) and (prior == "flat" or guide not in SPARSE_POINTS)
]


@pytest.mark.parametrize(("prior", "guide"), PAIRS)
def test_every_prior_with_every_guide_trains(prior, guide):
    torch.manual_seed(0)
    x = torch.bernoulli(torch.full((40, 5), 0.2))
    if (prior, guide) == ("vamp", "delta"):
        with pytest.raises(ValueError, match="guide Delta is a point"):
            pv.build_vae((5,), 3, prior=prior, guide=guide, inputs=x)
        return
    vae = pv.build_vae((5,), 3, prior=prior, guide=guide, hidden=(8,), inputs=x, num_data=40)
    assert vae.config["guide"].partition(":")[0] == (
        guide or (prior if prior in build.GUIDES else build.MATCHING.get(prior, "normal"))
    )
    before = copy.deepcopy(vae.state_dict())
    history = pv.fit(vae, x, epochs=40, batch_size=10, seed=0, progress=False)
    assert sum(history["train_loss"][-5:]) < sum(history["train_loss"][:5]) - 1
    assert not any(torch.equal(value, before[name]) for name, value in vae.named_parameters())


NETWORKS = dict.fromkeys(build.LIKELIHOODS, ("mlp", "conv", "dictionary"))  # that each likelihood goes with
NETWORKS |= {"categorical": ("mlp", "dictionary", "gru"), "autoregressive": ("gru",)}


@pytest.mark.parametrize("likelihood", build.LIKELIHOODS)
@pytest.mark.parametrize("network", build.NETWORKS)
def test_every_likelihood_with_every_network(likelihood, network):
    shape = (35,) if likelihood in ("categorical", "autoregressive") else (1, 5, 7)
    symbols = likelihood in ("categorical", "autoregressive")
    options = {"likelihood": likelihood, "network": network, "hidden": (8,), "num_classes": 4 if symbols else None}
    if network not in NETWORKS[likelihood]:
        with pytest.raises(
            ValueError, match=r'likelihood "autoregressive" needs network "gru"|network "(conv|gru)" needs'
        ):
            pv.build_vae(shape, 3, **options)
        return
    vae = pv.build_vae(shape, 3, **options)
    x = torch.bernoulli(torch.full((6, *vae.config["event_shape"]), 0.5))
    pv.fit(vae, x, epochs=1, progress=False)
    assert vae.reconstruct(x).shape == x.shape == vae.sample(6).shape
    assert vae.encode(x).shape == (6, 3)
    assert pv.metrics.log_likelihood(vae, x, 4).shape == (6,)


def test_build_makes_the_parts_that_are_named():
    vae = pv.build_vae(
        (784,), 7, prior="laplace", likelihood="negative-binomial", guide="low-rank-normal", hidden=(9, 4)
    )
    assert isinstance(vae.prior, priors.Laplace)
    assert isinstance(vae.likelihood, likelihoods.NegativeBinomial)
    assert isinstance(vae.posterior, guides.LowRankMultivariateNormal)
    widths = [layer.out_features for layer in vae.modules() if isinstance(layer, nn.Linear)]
    assert widths == [4, 9, 784, 9, 4, 4 * 7]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": "lapalce"}, "unknown prior 'lapalce': did you mean 'laplace'?"),
        ({"prior": "student_t"}, "did you mean 'student-t'?"),
        ({"guide": "nrmal"}, "unknown guide 'nrmal': did you mean 'normal'?"),
        ({"likelihood": "xyz"}, "unknown likelihood 'xyz': one of bernoulli, "),
        ({"network": "cnov"}, "unknown network 'cnov': did you mean 'conv'?"),
        ({"network": "conv"}, "needs images"),
        ({"prior": "nowhere.Prior"}, "prior 'nowhere.Prior' cannot be imported"),
        ({"latent_dim": 0}, "latent_dim must be a positive whole number, got 0"),
        (
            {"hidden": (), "norm": "layer"},
            r"hidden must be positive widths such as \(400,\) with norm and dropout, got \(\)",
        ),
        ({"hidden": (), "dropout": 0.5}, r"hidden must be positive widths such as \(400,\) with norm and dropout"),
        ({"hidden": (), "network": "conv"}, r"hidden must be positive widths such as \(400,\) with network 'conv'"),
        ({"hidden": 5}, r"hidden must be positive widths such as \(400,\)"),
        ({"hidden": (3, 0)}, r"hidden must be positive widths such as \(400,\)"),
        ({"likelihood": "categorical"}, "num_classes must be given"),
        ({"prior": "vamp"}, "inputs must be given with prior 'vamp'"),
        ({"prior": "vamp", "inputs": torch.zeros(60, 5)}, r"inputs must be rows of shape \(6,\), got \(60, 5\)"),
        ({"prior": "vamp", "inputs": torch.zeros(9, 6) + 2}, "inputs must be between the bounds 0 and 1, got 2 to 2"),
        ({"num_components": 3}, "num_components is of the priors mixture and vamp, got it with prior 'normal'"),
    ],
)
def test_bad_names_and_numbers(options, message):
    with pytest.raises(ValueError, match="^.*" + message.replace("?", r"\?")):
        pv.build_vae(**{"event_shape": (6,), "latent_dim": 2, **options})


def vae_by_hand():
    return pv.VAE(
        priors.Normal(2), likelihoods.Normal(Dictionary(2, 6)), guides.Normal(MLP(6, [5], activation=nn.Tanh), 2)
    )


def test_a_saved_vae_is_loaded_with_the_same_numbers(tmp_path):
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.float64):
        vae = pv.build_vae((6,), 2, prior="student-t", likelihood="normal", hidden=(5,)).to(dtype)
        pv.save(vae, tmp_path / "run", note={"of": "mine"})
        loaded = pv.load(tmp_path / "run")
        assert {n: t.dtype for n, t in loaded.state_dict().items()} == dict.fromkeys(vae.state_dict(), dtype)
        assert all(torch.equal(value, vae.state_dict()[name]) for name, value in loaded.state_dict().items())
        assert loaded.config == vae.config
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.json", "model.safetensors"]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["note"] == {"of": "mine"}


def test_a_trained_vae_is_pickled():
    x = torch.rand(6, 5)
    vae = build.build_vae((5,), 2, likelihood="normal", hidden=(4,))
    pv.fit(vae, x, epochs=2, progress=False)
    again = pickle.loads(pickle.dumps(vae))
    assert torch.equal(again.encode(x), vae.encode(x))
    for each in (again, vae):  # and trained further, each by itself
        pv.fit(each, x, epochs=1, seed=0, progress=False)
    assert all(torch.equal(p, q) and p is not q for p, q in zip(again.parameters(), vae.parameters(), strict=True))


def test_a_vae_made_by_hand_is_loaded_into_its_like(tmp_path):
    vae = vae_by_hand()
    pv.save(vae, tmp_path)
    with pytest.raises(ValueError, match="made by hand"):
        pv.load(tmp_path)
    loaded = pv.load(tmp_path, vae_by_hand())
    x = torch.randn(3, 6)
    assert torch.equal(loaded.encode(x), vae.encode(x))


def test_a_tensor_that_two_parts_share_is_saved_once_and_still_shared(tmp_path):
    def tied():
        vae = vae_by_hand()
        vae.posterior.network.layers[0].weight = nn.Parameter(torch.randn(5, 6))
        vae.prior.pseudo_encoder = vae.posterior.network
        return vae

    vae = tied()
    pv.save(vae, tmp_path)
    loaded = pv.load(tmp_path, tied())
    assert torch.equal(loaded.prior.pseudo_encoder.layers[0].weight, vae.posterior.network.layers[0].weight)
    assert loaded.prior.pseudo_encoder.layers[0].weight is loaded.posterior.network.layers[0].weight


def _cut(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def _other_keys(folder):
    safetensors.torch.save_file({"a": torch.zeros(2)}, folder / "model.safetensors")


def _other_shape(folder):
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    tensors["prior.loc.value"] = torch.zeros(9)
    safetensors.torch.save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (_cut, ValueError, "cut short or not a model"),
        (lambda folder: (folder / "model.safetensors").write_text("hello"), ValueError, "cut short or not a model"),
        (_other_keys, ValueError, "of another model: it lacks"),
        (_other_shape, ValueError, r"prior.loc.value has shape \(9,\), not \(2,\)"),
        (lambda folder: (folder / "model.safetensors").unlink(), FileNotFoundError, "no model.safetensors"),
        (lambda folder: (folder / "config.json").unlink(), FileNotFoundError, "no config.json"),
        (lambda folder: (folder / "config.json").write_text('{"mod'), ValueError, "cut short or not JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), ValueError, "not the config"),
        (
            lambda folder: (folder / "config.json").write_text('{"model": {"a": 1}}'),
            ValueError,
            "model lacks 'event_shape'",
        ),
    ],
)
def test_damaged_files(tmp_path, damage, error, message):
    pv.save(pv.build_vae((6,), 2, hidden=(5,)), tmp_path)
    damage(tmp_path)
    with pytest.raises(error, match=message):
        pv.load(tmp_path)


@pytest.mark.parametrize("size", [(28, 28), (8, 8), (7, 13), (1, 1)])
def test_convolutions_take_any_size_and_any_batch(size):
    encoder, decoder = ConvEncoder((3, *size), hidden=10), ConvDecoder(4, (3, *size), hidden=10)
    assert (encoder.out_features, decoder.out_features) == (10, 3 * size[0] * size[1])
    x, z = torch.randn(2, 5, 3, *size), torch.randn(2, 5, 4)
    assert encoder(x).shape == (2, 5, 10)
    assert decoder(z).shape == (2, 5, 3, *size)
    torch.testing.assert_close(encoder(x)[1, 3], encoder(x[1, 3]))
    torch.testing.assert_close(decoder(z)[1, 3], decoder(z[1, 3]), rtol=1e-4, atol=1e-6)


def test_mlp_is_its_layers():
    mlp = MLP((2, 3), [4], (3, 5))
    x = torch.randn(7, 2, 3)
    first, last = mlp.layers[0], mlp.layers[2]
    expected = torch.relu(x.reshape(7, 6) @ first.weight.T + first.bias) @ last.weight.T + last.bias
    torch.testing.assert_close(mlp(x), expected.reshape(7, 3, 5))
    assert mlp.out_features == 15
    assert MLP(6, [4]).out_features == 4
    assert (MLP(6, [4])(torch.randn(5, 6)) >= 0).all(), "a trunk ends activated"


def test_dictionary():
    dictionary = Dictionary(5, (2, 3), bias=False, unit_norm=True)
    assert dictionary.out_features == 6
    assert dictionary.atoms.shape == (5, 2, 3)
    torch.testing.assert_close(dictionary.atoms.flatten(1).norm(dim=1), torch.ones(5))
    z = torch.randn(4, 5)
    torch.testing.assert_close(dictionary(z), torch.einsum("nk,kij->nij", z, dictionary.atoms))
    with_bias = Dictionary(5, 6)
    torch.testing.assert_close(with_bias(torch.zeros(1, 5))[0], with_bias.linear.bias)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP(0, [4]), "in_features must be positive"),
        (lambda: MLP(6, [4])(torch.randn(5, 7)), r"takes inputs of shape \(6,\), got \(5, 7\)"),
        (lambda: ConvEncoder((28, 28)), "in_shape must be .channels, height, width."),
        (lambda: Dictionary(3, 0), "out_features must be positive"),
    ],
)
def test_networks_name_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()
