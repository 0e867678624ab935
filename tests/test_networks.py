"""Networks with normalisation, dropout and residual blocks: formulas, batch shapes, running statistics, colour."""

import math

import pyro
import pytest
import torch
from svi_runs import losses
from torch import nn
from torch.nn import functional

import pyrovae as pv
from pyrovae.nn import MLP, ConvDecoder, ConvEncoder, Residual

IMAGE = (3, 9, 6)
NETWORKS = {
    "mlp": lambda **options: MLP(6, [8, 12], (2, 3), **options),
    "conv encoder": lambda **options: ConvEncoder(IMAGE, (4, 8), 10, **options),
    "conv decoder": lambda **options: ConvDecoder(6, IMAGE, (8, 4), 10, **options),
}
INPUTS = {"mlp": (6,), "conv encoder": IMAGE, "conv decoder": (6,)}
OPTIONS = [
    {"norm": "batch"},
    {"norm": "layer"},
    {"norm": "group"},
    {"norm": "batch", "residual": 2},
    {"norm": "group", "residual": 1},
    {"residual": 1},
]


def made(name, options, dtype=torch.float64):
    torch.manual_seed(0)
    network = NETWORKS[name](**options).to(dtype)
    for module in network.modules():  # away from the identity that they start as
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return network


def pairs():
    for name in NETWORKS:
        for options in OPTIONS:
            if name != "mlp" or "residual" not in options:
                yield pytest.param(name, options, id=f"{name}, {options}")


def statistics(module):
    return torch.cat([torch.zeros(0).double(), *(buffer.double().flatten() for buffer in module.buffers())])


# --- formulas ---------------------------------------------------------------------------------------------------------


def normalised(x, dims):
    return (x - x.mean(dims, keepdim=True)) / (x.var(dims, correction=0, keepdim=True) + 1e-5).sqrt()


def test_mlp_normalises_as_its_formulas_say():
    x = torch.randn(7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    by_hand = {
        "batch": lambda h: normalised(h, 0),
        "layer": lambda h: normalised(h, 1),
        "group": lambda h: normalised(h.reshape(7, 3, 4), 2).reshape(7, 12),
    }
    for norm, formula in by_hand.items():
        torch.manual_seed(0)
        network = MLP(6, [12], norm=norm).double()
        assert (network.layers[0].bias is None) == (norm == "batch")
        expected = functional.relu(formula(network.layers[0](x)))
        torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize(("norm", "dims"), [("batch", (0, 2, 3)), ("layer", (1, 2, 3)), ("group", (2, 3, 4))])
def test_convolutions_normalise_channels_as_their_formulas_say(norm, dims):
    torch.manual_seed(0)
    network = ConvEncoder((3, 8, 8), (8,), 5, norm=norm).double()
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    h = network.layers[0](x)
    expected = normalised(h.reshape(4, 2, 4, 4, 4) if norm == "group" else h, dims).reshape(h.shape)
    torch.testing.assert_close(network.layers[:3](x), functional.relu(expected))


def test_a_residual_block_is_two_convolutions_beside_the_identity():
    torch.manual_seed(0)
    block = Residual(4).double()
    x = torch.randn(2, 4, 5, 3, dtype=torch.float64)
    first, second = (module for module in block.layers if isinstance(module, nn.Conv2d))
    inner = functional.conv2d(x, first.weight, first.bias, padding=1).clamp(min=0)
    expected = (x + functional.conv2d(inner, second.weight, second.bias, padding=1)).clamp(min=0)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("network", [ConvEncoder(IMAGE, (4, 8), residual=3), ConvDecoder(6, IMAGE, (8, 4), residual=3)])
def test_blocks_stand_at_each_size(network):
    blocks = [layer for layer in network.layers if isinstance(layer, Residual)]
    assert sorted(block.layers[0].in_channels for block in blocks) == [4] * 3 + [8] * 3


@pytest.mark.parametrize(("channels", "groups"), [(3, 1), (6, 1), (8, 2), (12, 3), (32, 8), (400, 8)])
def test_groups_have_four_channels_at_least(channels, groups):
    (norm,) = (layer for layer in MLP(2, [channels], norm="group").layers if isinstance(layer, nn.GroupNorm))
    assert norm.num_groups == groups


@pytest.mark.parametrize(("name", "options"), list(pairs()))
def test_gradients_are_finite_differences(name, options):
    network = made(name, options)
    x = torch.randn(3, *INPUTS[name], dtype=torch.float64)
    parameters = [p.detach().clone().requires_grad_() for p in network.parameters()]
    names = [key for key, _ in network.named_parameters()]

    def output(x, *values):
        out = torch.func.functional_call(network, dict(zip(names, values, strict=True)), x)
        return (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)).sum()

    assert torch.autograd.gradcheck(output, (x.requires_grad_(), *parameters), fast_mode=True)


# --- batch shapes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), list(pairs()))
def test_batch_dimensions_are_one(name, options):
    """In ``train`` and in ``eval`` mode, with the same running statistics after."""
    x = torch.randn(4, 5, *INPUTS[name], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    one, two = made(name, options), made(name, options)
    for _ in range(2):
        expected = one(x.flatten(0, 1))
        torch.testing.assert_close(two(x), expected.unflatten(0, (4, 5)))
        assert torch.equal(statistics(one), statistics(two))
        one.eval()
        two.eval()
    torch.testing.assert_close(two(x[0, 0]), expected[0])


def test_particles_are_one_batch_of_the_decoder_and_the_encoder_reads_x_once():
    torch.manual_seed(0)
    vae = pv.build_vae((6,), 2, hidden=(8,), norm="batch")
    x = torch.bernoulli(torch.full((10, 6), 0.4))
    pv.ELBO(num_particles=3).loss(vae.model, vae.guide, x)  # the first one finds the dims of the plates, by a run
    counts = [module.num_batches_tracked for module in vae.modules() if isinstance(module, nn.BatchNorm1d)]
    assert counts == [1, 1]  # which moved nothing
    rows = {}
    for part in (vae.posterior.network, vae.likelihood.network):
        norm = next(module for module in part.modules() if isinstance(module, nn.BatchNorm1d))
        norm.register_forward_hook(lambda module, inputs, out, part=part: rows.setdefault(part, []).append(len(out)))
    pv.ELBO(num_particles=3).loss_and_grads(vae.model, vae.guide, x)
    assert rows == {vae.posterior.network: [10], vae.likelihood.network: [30]}


# --- dropout ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_dropout_is_of_training_alone(name):
    network, x = made(name, {"dropout": 0.3}), torch.randn(4, *INPUTS[name], dtype=torch.float64)
    assert not torch.equal(network(x), network(x))
    plain = made(name, {})
    for parameter, value in zip(plain.parameters(), network.parameters(), strict=True):
        parameter.data = value.data
    assert torch.equal(network.eval()(x), plain(x))


def test_dropout_sets_its_share_to_zero_and_keeps_the_mean():
    """Within five standard errors of a million draws: a false alarm once in 10^6."""
    torch.manual_seed(0)
    network = MLP(4, [1000], dropout=0.3)
    nn.init.zeros_(network.layers[0].weight)
    nn.init.ones_(network.layers[0].bias)
    out = network(torch.zeros(1000, 4))
    assert abs((out == 0).double().mean() - 0.3) < 5 * (0.3 * 0.7 / 1e6) ** 0.5
    assert torch.allclose(out[out != 0], torch.tensor(1 / 0.7))


# --- running statistics -----------------------------------------------------------------------------------------------


def normed_vae(seed=0, **options):
    torch.manual_seed(seed)
    return pv.build_vae((12,), 3, hidden=(8,), norm="batch", **options)


def bits(rows, seed=0):
    return torch.bernoulli(torch.full((rows, 12), 0.4), generator=torch.Generator().manual_seed(seed))


def test_running_statistics_are_those_of_the_batches():
    """Each a tenth of the way to the last batch's mean and variance, as torch documents."""
    network = made("mlp", {"norm": "batch"})
    norm, means, variances = network.layers[1], torch.zeros(8).double(), torch.ones(8).double()
    for seed in range(4):
        x = torch.randn(5, 3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        network(x)
        h = network.layers[0](x).flatten(0, 1)
        means, variances = 0.9 * means + 0.1 * h.mean(0), 0.9 * variances + 0.1 * h.var(0)
    torch.testing.assert_close(norm.running_mean, means)
    torch.testing.assert_close(norm.running_var, variances)
    x = x.flatten(0, 1)
    h = network.eval().layers[0](x)
    expected = (h - means) / (variances + 1e-5).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(network.layers[:2](x), expected)


def test_measuring_moves_no_running_statistic():
    vae, x = normed_vae(), bits(30)
    pv.fit(vae, x, epochs=2, seed=0, progress=False)
    before = statistics(vae)
    vae.train()
    vae.reconstruct(x)
    vae.sample(5)
    pv.metrics.elbo(vae, x)
    pv.metrics.log_likelihood(vae, x, 20)
    assert torch.equal(statistics(vae), before)
    assert vae.training
    torch.testing.assert_close(vae.encode(x[:7]), vae.encode(x)[:7])  # a row's code is its own, whoever is beside it


def test_the_bound_on_validation_data_moves_no_running_statistic():
    with_val, without = normed_vae(), normed_vae()
    seen = []

    def keep(vae, epoch, history):
        seen.append(statistics(vae))

    pv.fit(with_val, bits(40), val=bits(10, 1), epochs=3, seed=0, progress=False, callbacks=[keep])
    counts = [int(value) for key, value in with_val.state_dict().items() if key.endswith("num_batches_tracked")]
    assert set(counts) <= {1, 2, 3}, "one batch an epoch, up to the best one"
    pv.fit(without, bits(40), epochs=1, seed=0, progress=False)
    torch.testing.assert_close(seen[0], statistics(without), rtol=0, atol=0)


def test_the_best_epoch_comes_back_with_its_running_statistics():
    vae, states = normed_vae(), []

    def keep(vae, epoch, history):
        states.append({name: value.clone() for name, value in vae.state_dict().items()})

    optim = pyro.optim.Adam({"lr": 0.3})  # too fast: the last epoch is not the best
    history = pv.fit(vae, bits(40), val=bits(20, 1), epochs=15, optim=optim, seed=0, progress=False, callbacks=[keep])
    best = min(range(15), key=history["val_loss"].__getitem__)
    assert best < 14
    final = vae.state_dict()
    assert all(torch.equal(value, states[best][name]) for name, value in final.items())
    assert any(not torch.equal(final[name], states[-1][name]) for name in final if "running" in name)


@pytest.mark.parametrize(
    "options",
    [
        {"event_shape": (12,), "norm": "batch", "dropout": 0.2},
        {"event_shape": (3, 7, 6), "network": "conv", "norm": "batch", "residual": 1},
        {"event_shape": (12,), "network": "dictionary", "norm": "batch"},
        {"event_shape": (1, 8, 8), "network": "conv", "norm": "group", "residual": 2, "dropout": 0.1},
    ],
)
def test_running_statistics_and_options_are_saved_and_restored(options, tmp_path):
    torch.manual_seed(0)
    vae = pv.build_vae(latent_dim=3, hidden=(8,), **options)
    x = torch.bernoulli(torch.full((20, *options["event_shape"]), 0.4))
    pv.fit(vae, x, epochs=3, batch_size=10, seed=0, progress=False)
    pv.save(vae, tmp_path)
    loaded = pv.load(tmp_path)
    assert loaded.config == vae.config
    assert loaded.state_dict().keys() == vae.state_dict().keys()
    assert all(torch.equal(value, vae.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert torch.equal(loaded.reconstruct(x), vae.reconstruct(x))
    assert any("running_var" in name for name in loaded.state_dict()) == (options["norm"] == "batch")


@pytest.mark.parametrize(
    "options",
    [
        {"event_shape": (12,), "norm": "batch", "dropout": 0.2},
        {"event_shape": (3, 7, 6), "network": "conv", "norm": "batch", "residual": 1},
        {"event_shape": (3, 7, 6), "network": "conv", "norm": "group", "dropout": 0.1},
    ],
)
def test_a_compiled_step_has_the_losses_and_statistics_of_pyros(options, recorded):
    def run(cls, **more):
        torch.manual_seed(0)
        vae = pv.build_vae(latent_dim=3, hidden=(8,), **options)
        batches = [torch.bernoulli(torch.full((16, *options["event_shape"]), 0.4)) for _ in range(6)]
        svi = cls(vae.model, vae.guide, pyro.optim.SGD({"lr": 1e-3}), pv.ELBO(), **more)
        return losses(svi, batches), statistics(vae) if options["norm"] == "batch" else torch.zeros(1), svi

    (expected, theirs, _), (got, ours, svi) = run(pyro.infer.SVI), run(pv.SVI, compile=True)
    assert got == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(ours, theirs)
    assert svi.compilations == 1


# --- colour images ----------------------------------------------------------------------------------------------------


def test_colour_images_from_end_to_end():
    """Images of one colour each, which two codes tell apart: the likelihood rises far above that of one mean image."""
    torch.manual_seed(0)
    colour = torch.rand(400, 3, 1, 1)
    x = (colour.expand(400, 3, 8, 6) + 0.02 * torch.randn(400, 3, 8, 6)).contiguous()
    options = {"likelihood": "normal:scale=0.1", "network": "conv", "hidden": (32,), "norm": "batch", "residual": 1}
    vae = pv.build_vae((3, 8, 6), 4, **options)
    before = pv.metrics.elbo(vae, x[:100]).elbo.mean()
    pv.fit(vae, x, epochs=10, batch_size=50, optim=pyro.optim.Adam({"lr": 3e-3}), seed=0, progress=False)
    assert vae.reconstruct(x).shape == x.shape == vae.sample(400).shape
    spread = x.mean((2, 3)).var(0).mean()
    error = ((vae.reconstruct(x) - x).mean((2, 3)) ** 2).mean()
    assert error < 0.1 * spread, "each datum comes back in its own colour"
    assert pv.metrics.elbo(vae, x[:100]).elbo.mean() > before + 100
    assert pv.metrics.log_likelihood(vae, x[:10], 5).shape == (10,)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP(3, [4], norm="instance"), "norm must be one of None, 'batch', 'layer', 'group', got 'instance'"),
        (lambda: MLP(3, [4], dropout=1.0), "dropout must be at least 0 and below 1, got 1.0"),
        (lambda: ConvEncoder(IMAGE, residual=-1), "residual must be a number of blocks, at least 0, got -1"),
        (lambda: ConvDecoder(2, IMAGE, dropout=math.nan), "dropout must be at least 0 and below 1, got nan"),
        (lambda: pv.build_vae((6,), 2, residual=1), "residual is of network \"conv\", got 1 with network 'mlp'"),
        (lambda: pv.build_vae((6,), 2, norm="bach"), "norm must be one of None, 'batch', 'layer', 'group', got 'bach'"),
        (
            lambda: pv.build_vae((6,), 2, prior="vamp", norm="batch", inputs=torch.zeros(9, 6)),
            "prior 'vamp' runs the encoder, whose batch statistics its pseudo-inputs would change",
        ),
        (
            lambda: MLP(3, [4], norm="batch")(torch.zeros(1, 3)),
            'norm "batch" trains on two rows or more, got a batch of one: take another batch_size, or norm "layer"',
        ),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_batch_of_one_is_right_where_its_statistics_are_not_asked_for():
    assert MLP(3, [4], norm="batch").eval()(torch.zeros(1, 3)).shape == (1, 4)
    assert MLP(3, [4], norm="layer")(torch.zeros(1, 3)).shape == (1, 4)
