"""``pv.SVI`` gives the numbers of ``pyro.infer.SVI`` for batches of any shape, modules in any mode, any parameters."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule, PyroParam
from svi_runs import DIM, LATENT, ROWS, WIDTH, adam, assert_same_run, data, losses, vae, weights
from torch import nn
from torch.distributions import constraints

import pyrovae as pv


def test_batches_of_other_sizes_are_right_with_a_compilation_each(recorded):
    batches = [data(rows, seed) for seed in range(6) for rows in (ROWS, 5, 1)]
    svi = assert_same_run(pv.ELBO, batches, compile=True)
    assert svi.compilations == 3


def test_batches_of_other_strides_are_right_without_a_compilation():
    x = data()
    wide = torch.cat([x, x], 1)
    svi = assert_same_run(
        pv.ELBO, [x] * 4 + [x.t().contiguous().t(), wide[:, :DIM], x[:1].expand(ROWS, DIM)], compile=True
    )
    assert svi.compilations == 1


class Noisy(nn.Module):
    """A network that is another one in ``eval`` mode, with statistics of its own."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(DIM, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Dropout(0.3))
        self.in_shape, self.out_shape, self.out_features = (DIM,), (WIDTH,), WIDTH

    def forward(self, x):
        return self.layers(x)


def noisy_vae():
    torch.manual_seed(0)
    return pv.VAE(
        pv.priors.Normal(LATENT),
        pv.likelihoods.Bernoulli(pv.nn.MLP(LATENT, [WIDTH], DIM)),
        pv.guides.Normal(Noisy(), LATENT),
    )


def test_train_and_eval_mode_are_two_graphs_and_running_statistics_are_right():
    def run(cls, **options):
        module = noisy_vae()
        # the exact gradient of a bias before a batch normalisation is zero, of whose rounding Adam would take the sign
        svi = cls(module.model, module.guide, pyro.optim.SGD({"lr": 1e-3}), pv.ELBO(), **options)
        got = losses(svi, [data(seed=i) for i in range(5)])
        module.eval()
        got += losses(svi, [data(seed=i) for i in range(4)])
        module.train()
        got += losses(svi, [data(seed=i) for i in range(4)])
        return got, torch.cat([b.double().flatten() for b in module.buffers()]), svi

    (expected, theirs, _), (got, ours, svi) = run(pyro.infer.SVI), run(pv.SVI, compile=True)
    assert got == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(ours, theirs, rtol=1e-5)
    assert svi.compilations == 2


def test_two_functions_around_a_network_with_statistics(recorded):
    def run(cls, **options):
        pyro.clear_param_store()
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Linear(DIM, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Linear(WIDTH, LATENT))
        svi = cls(*plain_pair(nn.Linear(LATENT, DIM), encoder), pyro.optim.SGD({"lr": 1e-3}), pv.ELBO(), **options)
        got = losses(svi, [data(seed=i) for i in range(6)])
        return got, torch.cat([buffer.double().flatten() for buffer in encoder.buffers()])

    (expected, theirs), (got, ours) = run(pyro.infer.SVI), run(pv.SVI, compile=True)
    pyro.clear_param_store()
    assert got == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(ours, theirs, rtol=1e-5)


def test_double_makes_it_double(recorded):
    module = vae()
    svi = pv.SVI(module.model, module.guide, pyro.optim.SGD({"lr": 1e-3}), pv.ELBO(), compile=True)
    losses(svi, [data()] * 4)
    module.double()
    x = data(dtype=torch.float64)
    got = losses(svi, [x] * 5)
    twin = vae()
    theirs = pyro.infer.SVI(twin.model, twin.guide, pyro.optim.SGD({"lr": 1e-3}), pv.ELBO())
    losses(theirs, [data()] * 4)
    twin.double()
    assert got == pytest.approx(losses(theirs, [x] * 5), rel=1e-5)
    assert svi.compilations == 2


@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize("name", sorted(pv.optim.OPTIMIZERS.keys() - {"muon"}))
def test_what_an_optimizer_keeps_is_made_double_too(recorded, name, compile):
    """A loss without draws: four steps in float32 and six in float64 are ten in float64, to the digits of the first."""

    def run(first):
        pyro.clear_param_store()
        torch.manual_seed(0)
        module = pv.build_vae((DIM,), LATENT, prior="flat", guide="delta", hidden=(WIDTH,)).to(first)
        svi = pv.SVI(module.model, module.guide, pv.optim.by_name(name, 1e-2), pv.ELBO(), compile=compile)
        early = losses(svi, [data().to(first)] * 4)
        module.double()
        return early, losses(svi, [data().double()] * 6), svi.compilations

    early, late, compilations = run(torch.float32)
    _, expected, _ = run(torch.float64)
    assert late == pytest.approx(expected, rel=1e-5)
    assert late[-1] < early[0]
    assert compilations == 2 * compile


@pytest.mark.parametrize("what", ["layer", "assign"])
def test_tensors_that_are_replaced_are_trained(recorded, what):
    def run(cls, **options):
        module = vae()
        svi = cls(module.model, module.guide, adam(), pv.ELBO(), **options)
        losses(svi, [data()] * 4)
        other = vae(seed=7)
        if what == "layer":
            module.likelihood = other.likelihood
        else:
            module.load_state_dict(other.state_dict(), assign=True)
        got = losses(svi, [data()] * 5)
        return got, weights(module)

    (expected, theirs), (got, ours) = run(pyro.infer.SVI), run(pv.SVI, compile=True)
    assert got == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_number_of_a_module_that_changes_is_followed_at_once(recorded):
    class Tempered(nn.Module):
        def __init__(self):
            super().__init__()
            self.network, self.temperature = pv.nn.MLP(LATENT, [WIDTH], DIM), 1.0
            self.in_shape, self.out_shape = (LATENT,), (DIM,)

        def forward(self, z):
            return self.network(z) / self.temperature

    def run(cls, **options):
        torch.manual_seed(0)
        network = Tempered()
        module = pv.VAE(
            pv.priors.Normal(LATENT),
            pv.likelihoods.Bernoulli(network),
            pv.guides.Normal(pv.nn.MLP(DIM, [WIDTH]), LATENT),
        )
        svi = cls(module.model, module.guide, adam(), pv.ELBO(), **options)
        got = losses(svi, [data()] * 4)
        network.temperature = 2.0
        got += losses(svi, [data()] * 3)
        network.temperature = 1.0
        return got + losses(svi, [data()] * 3), svi

    (expected, _), (got, svi) = run(pyro.infer.SVI), run(pv.SVI, compile=True)
    assert got == pytest.approx(expected, rel=1e-5)
    assert svi.compilations == 2


def plain_pair(decoder, encoder):
    def model(x, scale=1.0):
        pyro.module("decoder", decoder)
        spread = pyro.param("spread", torch.tensor(1.5), constraint=constraints.positive)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(LATENT), spread).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=scale * decoder(z)).to_event(1), obs=x)

    def guide(x, scale=1.0):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(encoder(x), 0.3).to_event(1))

    return model, guide


@pytest.mark.parametrize("objective", [pv.ELBO, Trace_ELBO])
def test_two_plain_functions_with_parameters_of_pyro(recorded, objective):
    def run(cls, **options):
        pyro.clear_param_store()
        torch.manual_seed(0)
        pair = plain_pair(nn.Linear(LATENT, DIM), nn.Linear(DIM, LATENT))
        svi = cls(*pair, adam(), objective(), **options)
        torch.manual_seed(1)
        got = [svi.step(data(), scale=0.5 if step % 2 else 1.0) for step in range(12)]
        return got, pyro.param("spread").item(), svi

    (expected, spread, _), (got, ours, svi) = run(pyro.infer.SVI), run(pv.SVI, compile=True)
    pyro.clear_param_store()
    assert got == pytest.approx(expected, rel=1e-5)
    assert ours == pytest.approx(spread, rel=1e-5)
    assert ours != pytest.approx(1.5, rel=1e-3)
    assert svi.compilations == 2  # a scale each: it is no tensor


def test_a_store_that_is_cleared_is_filled_anew(recorded):
    def run(cls, **options):
        pyro.clear_param_store()
        torch.manual_seed(0)
        pair = plain_pair(nn.Linear(LATENT, DIM), nn.Linear(DIM, LATENT))
        svi = cls(*pair, pyro.optim.SGD({"lr": 1e-2}), pv.ELBO(), **options)
        got = losses(svi, [data()] * 5)
        pyro.clear_param_store()
        got += losses(svi, [data()] * 5)
        return got, pyro.param("spread").item()

    expected, got = run(pyro.infer.SVI), run(pv.SVI, compile=True)
    pyro.clear_param_store()
    assert got[0] == pytest.approx(expected[0], rel=1e-5)
    assert got[1] == pytest.approx(expected[1], rel=1e-5)


class PriorOfPyro(PyroModule):
    def __init__(self, name):
        super().__init__(name)
        self.loc = PyroParam(torch.tensor(0.1))
        self.scale = PyroParam(torch.tensor(2.0), constraint=constraints.positive)

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(self.loc, self.scale))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def test_a_pyro_module_with_constrained_parameters(recorded):
    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(0.5 * x, 0.7))

    x = torch.linspace(-2, 3, 20)

    def run(cls, name, **options):
        module = PriorOfPyro(name)
        svi = cls(module, guide, adam(), pv.ELBO(), **options)
        return losses(svi, [x] * 15), module.scale.item()

    expected, got = run(pyro.infer.SVI, "theirs"), run(pv.SVI, "ours", compile=True)
    assert got[0] == pytest.approx(expected[0], rel=1e-5)
    assert got[1] == pytest.approx(expected[1], rel=1e-5)
    assert got[1] != pytest.approx(2.0, rel=1e-3)


def test_a_model_without_arguments_and_a_loss_that_is_a_function(recorded):
    x = data()

    def run(cls, **options):
        pyro.clear_param_store()

        def model():
            with pyro.plate("data", len(x), dim=-1):
                z = pyro.sample("z", dist.Normal(torch.zeros(DIM), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)

        def guide():
            loc = pyro.param("loc", torch.zeros(DIM))
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

        svi = cls(model, guide, adam(), TraceMeanField_ELBO().differentiable_loss, **options)
        torch.manual_seed(0)
        return [float(svi.step()) for _ in range(8)], svi

    (expected, _), (got, svi) = run(pyro.infer.SVI), run(pv.SVI, compile=True)
    pyro.clear_param_store()
    assert got == pytest.approx(expected, rel=1e-5)
    assert svi.compilations == 1


def test_parameters_that_only_some_batches_use(recorded):
    def run(cls, **options):
        pyro.clear_param_store()
        torch.manual_seed(0)
        networks = nn.Linear(DIM, LATENT), nn.Linear(DIM, LATENT), nn.Linear(LATENT, DIM)

        def model(x, which):
            pyro.module("decoder", networks[2])
            with pyro.plate("data", len(x), dim=-1):
                z = pyro.sample("z", dist.Normal(torch.zeros(LATENT), 1.0).to_event(1))
                pyro.sample("x", dist.Bernoulli(logits=networks[2](z)).to_event(1), obs=x)

        def guide(x, which):
            pyro.module(f"encoder{which}", networks[which])
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", dist.Normal(networks[which](x), 0.3).to_event(1))

        svi = cls(model, guide, adam(), pv.ELBO(), **options)
        torch.manual_seed(1)
        got = [svi.step(data(seed=step), step % 2) for step in range(20)]
        return got, torch.cat([weights(network) for network in networks]), svi

    expected, theirs, _ = run(pyro.infer.SVI)
    got, ours, svi = run(pv.SVI, compile=True)
    pyro.clear_param_store()
    assert got == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert svi.compilations == 2


@pytest.mark.parametrize("prior", sorted(pv.build.PRIORS))
def test_every_prior_with_its_guide_is_one_graph(recorded, prior):
    torch.manual_seed(0)
    options = {"inputs": data(64)} if prior == "vamp" else {}
    shared = {"num_data": 64} if prior in ("beta-spike-slab", "beta-bernoulli") else {}
    modules = []
    for _ in range(2):
        torch.manual_seed(0)
        modules.append(pv.build_vae((DIM,), LATENT, prior=prior, hidden=(WIDTH,), **options, **shared))
    (eager, ours), sgd = modules, lambda: pyro.optim.SGD({"lr": 1e-4})
    expected = losses(pv.SVI(eager.model, eager.guide, sgd(), pv.ELBO(), compile=False), [data()] * 4)
    svi = pv.SVI(ours.model, ours.guide, sgd(), pv.ELBO(), compile=True)
    assert losses(svi, [data()] * 4) == pytest.approx(expected, rel=1e-5)
    assert svi.compilations == 1
