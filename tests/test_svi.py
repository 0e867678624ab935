"""``pv.SVI`` gives the numbers of ``pyro.infer.SVI``, compiled and not, under any objective and optimizer."""

from __future__ import annotations

import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import pyro
import pytest
import torch
from pyro.infer import RenyiELBO, ReweightedWakeSleep, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from svi_runs import DIM, LATENT, WIDTH, adam, assert_same_run, data, losses, vae, weights
from torch import nn

import pyrovae as pv
from pyrovae.infer.saving import check_optimizer_state

OBJECTIVES = {
    "ELBO": pv.ELBO,
    "warm-up": lambda: pv.ELBO(beta=pv.warmup(steps=6)),
    "free bits": lambda: pv.ELBO(kl=pv.FreeBits(0.1)),
    "capacity": lambda: pv.ELBO(beta=2.0, kl=pv.Capacity(pv.warmup(steps=5, end=3.0))),
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


def only(svi):
    """The one compiled step of an SVI."""
    known = [each for calls in svi._state.calls.values() for each in calls.known.values()]
    (compiled,) = (each.compiled for each in known if each.compiled)
    return compiled


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
    program = only(svi).program
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
    compiled = only(adding)
    torch.manual_seed(5)
    (loss,), grads = compiled([data(seed=3)])
    torch.manual_seed(5)
    expected = pv.ELBO().differentiable_loss(module.model, module.guide, data(seed=3))
    params = compiled.params
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    for grad, exact in zip(grads, torch.autograd.grad(expected, params), strict=True):
        assert torch.allclose(grad, exact, rtol=1e-5, atol=1e-5 * exact.abs().max())


def test_evaluate_loss_is_pyros_and_moves_nothing(recorded, monkeypatch):
    monkeypatch.setattr("pyrovae.compilation.timings.SECONDS", 0.0)
    monkeypatch.setattr("pyrovae.compilation.timings.RUNS", 0)
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
    in_graph = bool(only(svi).updates)
    assert in_graph == (name in ("Adam", "AdamW", "decay in the gradient", "by name"))


def test_parameters_of_equal_arguments_are_stepped_together():
    module = vae()
    svi = pv.SVI(module.model, module.guide, OPTIMIZERS["by name"](), pv.ELBO(), compile=False)
    losses(svi, [data()] * 3)
    groups = next(iter(svi._state.optimizers.values()))._groups
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
    copy.model(data())
    copy.guide(data())
    name = pyro.get_param_store().param_name
    names = {name(a): name(b) for a, b in zip(module.parameters(), copy.parameters(), strict=True)}
    theirs.set_state({names[key]: deepcopy(state) for key, state in optim.get_state().items()})
    ours.load(tmp_path / "optim.pt")
    expected = losses(pyro.infer.SVI(copy.model, copy.guide, theirs, pv.ELBO()), [data()] * 5, seed=9)
    got = losses(pv.SVI(module.model, module.guide, ours, pv.ELBO(), compile=True), [data()] * 5, seed=9)
    assert got == pytest.approx(expected, rel=1e-5)


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
    nodes = only(svi).program.graph.module.graph.nodes
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


def test_a_schedule_gives_the_same_numbers_compiled_and_not(recorded):
    def run(compile):
        module = vae()
        svi = pv.SVI(module.model, module.guide, adam(), pv.ELBO(beta=pv.warmup(steps=6)), compile=compile)
        return losses(svi, [data()] * 10), weights(module), svi

    (expected, theirs, _), (got, ours, svi) = run(False), run(True)
    assert got == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    assert svi.compilations == 1


@pytest.mark.parametrize("before", [0, 4])
def test_a_run_continues_from_its_state_bit_for_bit(before):
    module = vae()
    objective = pv.ELBO(beta=pv.warmup(steps=6))
    svi = pv.SVI(module.model, module.guide, adam(), objective, accumulate=2, compile=False)
    losses(svi, [data()] * before)
    state, start = svi.state_dict(), deepcopy(module.state_dict())
    assert state["steps_done"] == before
    expected, end = losses(svi, [data()] * 5, seed=3), weights(module)
    losses(svi, [data()])
    module.load_state_dict(start)  # the state of before the first step names no parameters
    svi.load_state_dict(state)
    assert losses(svi, [data()] * 5, seed=3) == expected
    assert torch.equal(weights(module), end)


def test_a_state_of_before_the_first_step_continues_in_an_svi_of_a_second_model_of_equal_weights():
    def svi_of(module):
        return pv.SVI(module.model, module.guide, adam(), pv.ELBO(), compile=False)

    with pyro.get_param_store().scope():
        first = vae()
        svi = svi_of(first)
        state, start = svi.state_dict(), deepcopy(first.state_dict())
        expected, end = losses(svi, [data()] * 5, seed=3), weights(first)
    with pyro.get_param_store().scope():
        second = vae(seed=1)
        second.load_state_dict(start)
        again = svi_of(second)
        again.load_state_dict(state)
        assert losses(again, [data()] * 5, seed=3) == expected
        assert torch.equal(weights(second), end)
        assert torch.equal(weights(first), end)


def test_a_state_is_loaded_into_a_new_svi():
    first = vae()
    svi = pv.SVI(first.model, first.guide, adam(), pv.ELBO(), compile=False)
    losses(svi, [data()] * 4)
    state = svi.state_dict()
    expected, end = losses(svi, [data()] * 5, seed=3), weights(first)
    again = pv.SVI(first.model, first.guide, adam(), pv.ELBO(), compile=False)
    again.load_state_dict(state)
    assert again.steps_done == 4
    assert losses(again, [data()] * 5, seed=3) == expected
    assert torch.equal(weights(first), end)


def test_a_state_of_another_shape_is_refused_and_changes_nothing():
    module = vae()
    svi = pv.SVI(module.model, module.guide, adam(), pv.ELBO(), compile=False)
    losses(svi, [data()] * 2)
    before, state = weights(module), svi.state_dict()
    state["steps_done"] = 9
    state["params"] = {name: torch.zeros(2, 7) for name in state["params"]}
    with pytest.raises(ValueError, match=r"state: the parameter .* has shape \(2, 7\), expected"):
        svi.load_state_dict(state)
    assert torch.equal(weights(module), before)
    assert svi.steps_done == 2


FORGED: dict[str, tuple[object, str]] = {
    "param_groups 0 fused": (torch.zeros(2), "'fused' of Adam has another type"),
    "param_groups 0 lr": ("0.1", "'lr' of Adam has another type"),
    "param_groups 0 betas": ((1, "a"), "'betas' of Adam has another type"),
    "param_groups 0 unknown": (1, r"Adam keeps \[.*\], got"),
    "state 0 exp_avg": (torch.zeros(3, 1), "'exp_avg' of Adam has another type or shape"),
    "state 0 exp_avg_sq": (None, "'exp_avg_sq' of Adam has another type or shape"),
    "state 0 step": ([1], "'step' of Adam has another type or shape"),
    "state 0": ({"step": torch.ones(())}, r"Adam keeps \['exp_avg', 'exp_avg_sq', 'step'\], got \['step'\]"),
    "state": ([], "no state of this optimizer"),
}


@pytest.mark.parametrize("place", FORGED)
def test_a_forged_state_of_an_optimizer_is_refused_and_changes_nothing(place):
    module = vae()
    svi = pv.SVI(module.model, module.guide, adam(), pv.ELBO(), compile=False)
    losses(svi, [data()] * 2)
    state, value = deepcopy(svi.state_dict()), FORGED[place][0]
    losses(svi, [data()] * 2)
    before, holder = weights(module), next(iter(state["optimizer"].values()))
    *path, last = (int(key) if key.isdigit() else key for key in place.split())
    for key in path:
        holder = holder[key]
    holder[last] = value
    with pytest.raises(ValueError, match=f"^state: .*{FORGED[place][1]}"):
        svi.load_state_dict(state)
    assert torch.equal(weights(module), before)
    expected = losses(svi, [data()] * 2, seed=3)
    assert svi.steps_done == 6
    assert all(map(math.isfinite, expected))


def test_a_state_of_an_optimizer_that_takes_no_dense_gradient_is_accepted():
    weight = nn.Parameter(torch.zeros(3, 2))
    optimizer = torch.optim.SparseAdam([weight])
    weight.grad = torch.ones(3, 2).to_sparse()
    optimizer.step()
    check_optimizer_state(torch.optim.SparseAdam([nn.Parameter(torch.zeros(3, 2))]), optimizer.state_dict())


def test_an_optimizer_of_torch_is_refused():
    module = vae()
    with pytest.raises(TypeError, match=r"optim must be an optimizer of pyro.optim, got Adam"):
        pv.SVI(module.model, module.guide, torch.optim.Adam(module.parameters()), pv.ELBO())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("compile", [True, False])
def test_a_step_without_gradients_raises_and_moves_nothing(recorded, mode, compile):
    module = vae()
    svi = pv.SVI(module.model, module.guide, adam(), pv.ELBO(), compile=compile)
    losses(svi, [data()] * 4)
    before = weights(module)
    with mode(), pytest.raises(RuntimeError, match="step needs gradients"):
        svi.step(data())
    assert torch.equal(weights(module), before)
    assert svi.steps_done == 4


@pytest.mark.parametrize("compile", [True, False])
def test_two_threads_give_the_steps_of_each_alone(recorded, compile):
    """The guide has no draws, which threads would share."""

    def make(seed):
        torch.manual_seed(seed)
        module = pv.build_vae((DIM,), LATENT, prior="flat", guide="delta", hidden=(WIDTH,))
        svi = pv.SVI(module.model, module.guide, adam(), pv.ELBO(), compile=compile)
        return lambda: [svi.step(data(seed=seed)) for _ in range(12)]

    expected = [make(seed)() for seed in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        got = [each.result() for each in [pool.submit(run) for run in [make(0), make(1)]]]
    assert got == expected


def test_a_flag_of_adam_that_is_not_known_leaves_the_step_to_torch(recorded):
    module, optim = vae(), adam()
    svi = pv.SVI(module.model, module.guide, optim, pv.ELBO(), compile=True)
    losses(svi, [data()] * 4)
    assert only(svi).updates
    for each in optim.optim_objs.values():
        each.param_groups[0]["a_flag_to_come"] = True
    before = weights(module)
    losses(svi, [data()] * 4)
    assert not torch.equal(weights(module), before)
    assert not only(svi).updates
    assert {state["state"][0]["step"].item() for state in optim.get_state().values()} == {8.0}
