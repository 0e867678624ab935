"""``pv.SVI`` gives the numbers of ``pyro.infer.SVI``, compiled and not, at any shapes, optimizers and parameters."""

from __future__ import annotations

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import (
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from pyro.nn import PyroModule, PyroParam
from torch import nn
from torch.distributions import constraints

import pyrovae as pv
from pyrovae.compilation import Program

DIM, WIDTH, LATENT, ROWS = 12, 8, 3, 16


@pytest.fixture
def recorded(monkeypatch):
    """The recorded graph runs as it is: what inductor makes of it is tested apart, and takes seconds each time."""
    monkeypatch.setattr(Program, "_compile", lambda self, graph: graph.module)


def data(rows=ROWS, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.bernoulli(torch.full((rows, DIM), 0.4, dtype=dtype), generator=generator)


def vae(prior="normal", seed=0):
    torch.manual_seed(seed)
    return pv.build_vae((DIM,), LATENT, prior=prior, hidden=(WIDTH,))


def adam(lr=1e-2):
    return pyro.optim.Adam({"lr": lr})


def losses(svi, batches, seed=1):
    torch.manual_seed(seed)
    return [svi.step(batch) for batch in batches]


def weights(module):
    return torch.cat([p.detach().double().flatten() for p in module.parameters()])


def assert_same_run(make, batches, *, rel=1e-5, prior="normal", optim=adam, **options):
    """Losses and parameters after the steps are those of Pyro's SVI from the same seed."""
    theirs, ours = vae(prior), vae(prior)
    expected = losses(pyro.infer.SVI(theirs.model, theirs.guide, optim(), make()), batches)
    svi = pv.SVI(ours.model, ours.guide, optim(), make(), **options)
    assert losses(svi, batches) == pytest.approx(expected, rel=rel)
    assert torch.allclose(weights(ours), weights(theirs), rtol=1e-4, atol=1e-5)
    return svi


OBJECTIVES = {
    "ELBO": pv.ELBO,
    "warm-up": lambda: pv.ELBO(beta=pv.warmup(steps=6)),
    "free bits": lambda: pv.ELBO(free_bits=0.1),
    "capacity": lambda: pv.ELBO(beta=2.0, capacity=pv.warmup(steps=5, end=3.0)),
    "IWAE": lambda: pv.IWAE(4),
    "DReG": lambda: pv.DReG(4),
    "MMD": lambda: pv.ELBO(penalties=[pv.MMD(2.0)]),
    "Trace_ELBO": Trace_ELBO,
    "two particles": lambda: Trace_ELBO(num_particles=2),
    "vectorized": lambda: Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1),
    "TraceMeanField_ELBO": TraceMeanField_ELBO,
    "TraceGraph_ELBO": TraceGraph_ELBO,
    "RenyiELBO": lambda: RenyiELBO(num_particles=3),
}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("compile", [False, True])
def test_every_objective_gives_pyros_numbers(recorded, name, compile):
    svi = assert_same_run(OBJECTIVES[name], [data()] * 10, compile=compile)
    assert svi.compilations == compile


def test_an_objective_of_several_losses_gives_as_many(recorded):
    def run(cls, **options):
        module = vae()
        objective = ReweightedWakeSleep(num_particles=3, vectorize_particles=False)
        svi = cls(module.model, module.guide, adam(), objective, **options)
        return losses(svi, [data()] * 6)

    expected = run(pyro.infer.SVI)
    got = run(pv.SVI, compile=True)
    assert [len(loss) for loss in got] == [2] * 6
    assert torch.tensor(got).allclose(torch.tensor(expected), rtol=1e-5)


@pytest.mark.parametrize("prior", ["normal", "spike-slab"])
def test_compiled_code_gives_the_eager_losses_and_gradients(prior):
    svi = assert_same_run(pv.ELBO, [data()] * 8, prior=prior, compile=True)
    assert svi.compilations == 1
    assert svi.compile_seconds > 0
    program = next(iter(svi._calls.values())).compiled[0].program
    assert {node.op for node in program.graph.module.graph.nodes} <= {
        "placeholder",
        "call_function",
        "get_attr",
        "output",
    }
    module = vae(prior)
    # gradients that are to be added up are what the graph returns
    adding = pv.SVI(module.model, module.guide, adam(), pv.ELBO(), accumulate=100, compile=True)
    losses(adding, [data()] * 4)
    compiled = next(iter(adding._calls.values())).compiled[0]
    torch.manual_seed(5)
    (loss,), grads = compiled([data(seed=3)])
    torch.manual_seed(5)
    expected = pv.ELBO().differentiable_loss(module.model, module.guide, data(seed=3))
    params = compiled.params
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    for grad, exact in zip(grads, torch.autograd.grad(expected, params), strict=True):
        assert torch.allclose(grad, exact, rtol=1e-5, atol=1e-5 * exact.abs().max())


def test_evaluate_loss_is_pyros_and_moves_nothing(recorded, monkeypatch):
    monkeypatch.setattr("pyrovae.infer.svi.SECONDS", 0.0)
    module = vae()
    svi = pv.SVI(module.model, module.guide, adam(), pv.ELBO())
    before = weights(module)
    torch.manual_seed(2)
    got = [svi.evaluate_loss(data()) for _ in range(9)]
    torch.manual_seed(2)
    theirs = pyro.infer.SVI(module.model, module.guide, adam(), pv.ELBO())
    assert got == pytest.approx([theirs.evaluate_loss(data()) for _ in range(9)], rel=1e-5)
    assert svi.compilations == 1
    assert torch.equal(weights(module), before)


OPTIMIZERS = {
    "Adam": lambda: pyro.optim.Adam({"lr": 1e-2}),
    "AdamW": lambda: pyro.optim.AdamW({"lr": 1e-2, "weight_decay": 0.1}),
    "decay in the gradient": lambda: pyro.optim.Adam({"lr": 1e-2, "weight_decay": 0.1, "eps": 1e-3}),
    "amsgrad": lambda: pyro.optim.Adam({"lr": 1e-2, "amsgrad": True}),
    "NAdam": lambda: pyro.optim.NAdam({"lr": 1e-2}),
    "SGD": lambda: pyro.optim.SGD({"lr": 1e-3}),
    "momentum": lambda: pyro.optim.SGD({"lr": 1e-3, "momentum": 0.9, "nesterov": True}),
    "Adagrad": lambda: pyro.optim.Adagrad({"lr": 1e-2}),
    "RMSprop": lambda: pyro.optim.RMSprop({"lr": 1e-3}),
    "Adamax": lambda: pyro.optim.Adamax({"lr": 1e-2}),
    "ClippedAdam": lambda: pyro.optim.ClippedAdam({"lr": 1e-2, "lrd": 0.9, "clip_norm": 1.0}),
    "AdagradRMSProp": lambda: pyro.optim.AdagradRMSProp({}),
    "foreach": lambda: pyro.optim.Adam({"lr": 1e-2, "foreach": True}),
    "clip_value": lambda: pyro.optim.Adam({"lr": 1e-2}, {"clip_value": 0.5}),
    "clip_norm of each": lambda: pyro.optim.Adam({"lr": 1e-2}, {"clip_norm": 0.5}),
    "by name": lambda: pyro.optim.Adam(lambda name: {"lr": 1e-2 if "posterior" in name else 1e-3}),
    "Muon": lambda: pyro.optim.PyroOptim(_muon, {"lr": 1e-2}),
}


def _muon(params, lr):
    return torch.optim.Muon(params, lr=lr) if params[0].dim() == 2 else torch.optim.AdamW(params, lr=lr)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_pyro_steps_as_in_pyro(recorded, name):
    svi = assert_same_run(pv.ELBO, [data()] * 10, optim=OPTIMIZERS[name], compile=True)
    in_graph = bool(next(iter(svi._calls.values())).compiled[0].updates)
    assert in_graph == (name in ("Adam", "AdamW", "decay in the gradient", "by name"))


def test_parameters_of_equal_arguments_are_stepped_together():
    module = vae()
    svi = pv.SVI(module.model, module.guide, OPTIMIZERS["by name"](), pv.ELBO(), compile=False)
    losses(svi, [data()] * 3)
    groups = svi._optimizer._groups
    assert [len(group.each) for group in groups] == [4, 4]
    assert all(group.optimizer.param_groups[0]["fused"] for group in groups)


@pytest.mark.parametrize("scheduler", ["ExponentialLR", "OneCycleLR", "ReduceLROnPlateau"])
def test_pyros_schedulers_move_the_learning_rate_without_a_compilation(recorded, scheduler):
    options = {
        "ExponentialLR": {"gamma": 0.7},
        "OneCycleLR": {"max_lr": 1e-2, "total_steps": 40},  # moves the momentum too
        "ReduceLROnPlateau": {"patience": 0, "factor": 0.5},
    }[scheduler]

    def run(cls, **compile):
        module = vae()
        optim = getattr(pyro.optim, scheduler)({"optimizer": torch.optim.Adam, "optim_args": {"lr": 1e-2}, **options})
        svi = cls(module.model, module.guide, optim, pv.ELBO(), **compile)
        torch.manual_seed(1)
        got = []
        for _ in range(12):
            got.append(svi.step(data()))
            optim.step(1.0) if scheduler == "ReduceLROnPlateau" else optim.step()
        return got, weights(module), svi

    expected, theirs, _ = run(pyro.infer.SVI)
    got, ours, svi = run(pv.SVI, compile=True)
    assert got == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert svi.compilations == 1


def test_a_learning_rate_that_is_set_by_hand_is_taken(recorded):
    def run(cls, **options):
        module, optim = vae(), adam()
        svi = cls(module.model, module.guide, optim, pv.ELBO(), **options)
        got = losses(svi, [data()] * 4)
        for each in optim.optim_objs.values():
            each.param_groups[0]["lr"] = 0.1 if each.param_groups[0]["params"][0].dim() == 1 else 1e-3
        return got + losses(svi, [data()] * 4), weights(module)

    (expected, theirs), (got, ours) = run(pyro.infer.SVI), run(pv.SVI, compile=True)
    assert got == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_the_state_of_the_optimizer_is_pyros(recorded, tmp_path):
    module = vae()
    optim = adam()
    losses(pv.SVI(module.model, module.guide, optim, pv.ELBO(), compile=True), [data()] * 6)
    optim.save(tmp_path / "optim.pt")
    steps = [state["state"][0]["step"].item() for state in optim.get_state().values()]
    assert steps == [6.0] * 8
    ours, theirs = (pyro.optim.Adam({"lr": 1e-2}) for _ in range(2))
    copy = vae()
    copy.load_state_dict(module.state_dict())
    renamed = {name.replace(f"{id(module):x}", f"{id(copy):x}"): state for name, state in optim.get_state().items()}
    theirs.set_state(renamed)
    ours.load(tmp_path / "optim.pt")
    expected = losses(pyro.infer.SVI(copy.model, copy.guide, theirs, pv.ELBO()), [data()] * 5, seed=9)
    got = losses(pv.SVI(module.model, module.guide, ours, pv.ELBO(), compile=True), [data()] * 5, seed=9)
    assert got == pytest.approx(expected, rel=1e-5)


def test_batches_of_other_sizes_are_right_with_a_compilation_each(recorded):
    batches = [data(rows, seed) for seed in range(6) for rows in (ROWS, 5, 1)]
    svi = assert_same_run(pv.ELBO, batches, compile=True)
    assert svi.compilations == 3


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


def test_the_gradient_is_clipped_by_the_norm_of_all_of_it(recorded):
    ours, theirs = vae(), vae()
    svi = pv.SVI(ours.model, ours.guide, pyro.optim.SGD({"lr": 1.0}), pv.ELBO(), clip_norm=0.1, compile=True)
    losses(svi, [data()] * 6)
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=1.0)
    for _ in range(6):
        optimizer.zero_grad()
        pv.ELBO().differentiable_loss(theirs.model, theirs.guide, data()).backward()
        assert nn.utils.clip_grad_norm_(theirs.parameters(), 0.1) > 0.1
        optimizer.step()
    assert torch.allclose(weights(ours), weights(theirs), atol=1e-5)


def test_gradients_of_several_batches_are_added_up(recorded):
    ours, theirs = vae(), vae()
    svi = pv.SVI(ours.model, ours.guide, pyro.optim.SGD({"lr": 1e-3}), pv.ELBO(), accumulate=3, compile=True)
    batches = [data(seed=i) for i in range(9)]
    losses(svi, batches)
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=1e-3)
    for i, batch in enumerate(batches):
        pv.ELBO().differentiable_loss(theirs.model, theirs.guide, batch).backward()
        if i % 3 == 2:
            optimizer.step()
            optimizer.zero_grad()
    assert torch.allclose(weights(ours), weights(theirs), atol=1e-5)


def test_draws_differ_from_step_to_step_and_come_again_from_the_seed():
    module = vae()
    svi = pv.SVI(module.model, module.guide, pyro.optim.SGD({"lr": 0.0}), pv.ELBO(), compile=True)
    losses(svi, [data()] * 3)
    first, again, other = (
        losses(svi, [data()] * 5, seed=4),
        losses(svi, [data()] * 5, seed=4),
        losses(svi, [data()] * 5),
    )
    assert len(set(first)) == 5
    assert first == again
    assert not set(first) & set(other)


def test_networks_in_bfloat16_and_densities_in_float32(recorded):
    exact, rough = vae(), vae()
    expected = losses(pv.SVI(exact.model, exact.guide, adam(), pv.ELBO(), compile=True), [data()] * 6)
    svi = pv.SVI(rough.model, rough.guide, adam(), pv.ELBO(), precision=torch.bfloat16, compile=True)
    got = losses(svi, [data()] * 6)
    assert got != pytest.approx(expected, rel=1e-6)
    assert got == pytest.approx(expected, rel=1e-2)
    nodes = next(iter(svi._calls.values())).compiled[0].program.graph.module.graph.nodes
    assert sum(node.target is torch.ops.aten._to_copy.default for node in nodes) > 4
    assert all(p.dtype == torch.float32 for p in rough.parameters())
    with pytest.raises(ValueError, match=r"precision must be torch.bfloat16"):
        pv.SVI(rough.model, rough.guide, adam(), pv.ELBO(), precision=torch.float16)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"compile": "yes"}, "compile must be True, False or None, got 'yes'"),
        ({"clip_norm": 0.0}, "clip_norm must be positive, got 0.0"),
        ({"accumulate": 0}, "accumulate must be a whole number, at least 1, got 0"),
    ],
)
def test_bad_arguments_are_named(options, says):
    module = vae()
    with pytest.raises(ValueError, match=says):
        pv.SVI(module.model, module.guide, adam(), pv.ELBO(), **options)


def test_it_warns_of_nothing_where_all_is_well(recorded):
    module = vae()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        losses(pv.SVI(module.model, module.guide, adam(), pv.ELBO(), compile=True), [data()] * 5)


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
