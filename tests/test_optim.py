"""Each optimizer against its written rule, step by step; schedules against closed forms; both in a run."""

from __future__ import annotations

import inspect
import math
import re
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
from svi_runs import assert_same_run, data, vae, weights
from torch.optim import lr_scheduler

import pyrovae as pv
from pyrovae.optim import OPTIMIZERS, SCHEDULES

X = data(rows=60)
LR = 0.05


def fit(module, x=X, epochs=3, batch_size=20, **options):
    return pv.fit(module, x, epochs, batch_size, progress=False, compile=False, seed=0, **options)


def rates(optim):
    """The learning rates that its parameters are at."""
    each = [getattr(optimizer, "optimizer", optimizer) for optimizer in optim.optim_objs.values()]
    return {group["lr"] for optimizer in each for group in optimizer.param_groups}


# --- the rules, in numpy: (gradient, parameter, state of zeros, count of steps from 1) to the new parameter -----------


def sgd(g, theta, s, t):
    return theta - LR / 4 * g


def momentum(g, theta, s, t):
    s["v"] = 0.8 * s["v"] + g / 4
    return theta - LR * s["v"]


def nesterov(g, theta, s, t):
    s["v"] = 0.8 * s["v"] + g / 4
    return theta - LR * (g / 4 + 0.8 * s["v"])


def adagrad(g, theta, s, t):
    s["s"] = s["s"] + g**2
    return theta - LR * g / (np.sqrt(s["s"]) + 1e-3)


def rmsprop(g, theta, s, t):
    s["s"] = 0.9 * s["s"] + 0.1 * g**2
    return theta - LR * g / (np.sqrt(s["s"]) + 1e-3)


def moments(g, s, t):
    """m, v, and what corrects them."""
    s["m"] = 0.8 * s["m"] + 0.2 * g
    s["v"] = 0.95 * s["v"] + 0.05 * g**2
    return s["m"], s["v"], 1 - 0.8**t, 1 - 0.95**t


def adam(g, theta, s, t):
    m, v, c1, c2 = moments(g, s, t)
    return theta - LR * (m / c1) / (np.sqrt(v / c2) + 1e-3)


def adamw(g, theta, s, t):
    return adam(g, (1 - LR * 0.3) * theta, s, t)


def nadam(g, theta, s, t):
    m, v, _, c2 = moments(g, s, t)
    mu = 0.8 * (1 - 0.5 * 0.96 ** (0.004 * np.arange(1, t + 2)))
    before, after = mu[:-1].prod(), mu.prod()
    return theta - LR / (np.sqrt(v / c2) + 1e-3) * (mu[t] * m / (1 - after) + (1 - mu[t - 1]) * g / (1 - before))


def clipped_adam(g, theta, s, t):
    m, v, c1, c2 = moments(np.clip(g, -2.0, 2.0), s, t)
    return theta - LR * math.sqrt(c2) / c1 * m / (np.sqrt(v) + 1e-3)


ADAM = {"betas": (0.8, 0.95), "eps": 1e-3}
RULES = {
    "gd": (sgd, {"batch_size": 4}),
    "sgd": (sgd, {"batch_size": 4}),
    "momentum": (momentum, {"batch_size": 4, "momentum": 0.8}),
    "nesterov": (nesterov, {"batch_size": 4, "momentum": 0.8}),
    "adagrad": (adagrad, {"eps": 1e-3}),
    "rmsprop": (rmsprop, {"decay": 0.9, "eps": 1e-3}),
    "adam": (adam, ADAM),
    "adamw": (adamw, {"weight_decay": 0.3, **ADAM}),
    "nadam": (nadam, ADAM),
    "clipped-adam": (clipped_adam, {"clip": 2.0, **ADAM}),
}
ROUNDING = {"nadam": 1e-6}  # torch keeps the product of its momenta in float32
CURVATURE = np.array([[4.0, 1.0, 0.5], [1.0, 2.0, -0.3], [0.5, -0.3, 1.0]])
BOTTOM = np.array([0.7, -1.2, 2.0])


@pytest.mark.parametrize("name", RULES)
def test_each_step_is_that_of_the_rule(name):
    """On a quadratic whose minimum is not at the start, in float64."""
    rule, numbers = RULES[name]
    optim = OPTIMIZERS[name](LR, **numbers)
    param = pyro.param(f"quadratic.{name}", torch.tensor([3.0, 2.0, -1.0], dtype=torch.float64))
    theta, state = param.detach().numpy().copy(), dict.fromkeys("msv", 0.0)
    for t in range(1, 16):
        param.grad = torch.from_numpy(4.0 * CURVATURE @ (param.detach().numpy() - BOTTOM))
        theta = rule(4.0 * CURVATURE @ (theta - BOTTOM), theta, state, t)
        optim([param])
        np.testing.assert_allclose(param.detach().numpy(), theta, rtol=ROUNDING.get(name, 1e-12))


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
def test_muon_steps_a_matrix_along_its_orthogonal_factor(shape):
    """Against the iteration in float64, whose bfloat16 is right to some hundredths, and the factor itself."""
    generator = np.random.default_rng(0)
    param = pyro.param(f"muon{shape}$$$layer.weight", torch.from_numpy(generator.normal(size=shape)))
    target = generator.normal(size=shape)
    optim, b = pv.optim.muon(LR, weight_decay=0.3, momentum=0.8), 0.0
    for _ in range(6):
        before = param.detach().numpy().copy()
        g = before - target
        param.grad = torch.from_numpy(g)
        optim([param])
        b = 0.8 * b + 0.2 * g
        ahead = 0.2 * g + 0.8 * b
        step = ((1 - LR * 0.3) * before - param.detach().numpy()) / (0.2 * LR * math.sqrt(max(shape)))
        o = ahead / np.linalg.norm(ahead)
        for _ in range(5):
            gram = o @ o.T
            o = 3.4445 * o + (-4.7750 * gram + 2.0315 * gram @ gram) @ o
        assert np.abs(step - o).max() < 0.03
        u, _, v = np.linalg.svd(ahead, full_matrices=False)
        along = np.diag(u.T @ step @ v.T)
        assert ((along > 0.65) & (along < 1.25)).all()


@pytest.mark.parametrize(
    ("name", "shape"), [("layer.bias", (3,)), ("conv.weight", (2, 1, 2, 2)), ("prior.loc", (2, 3))]
)
def test_muon_leaves_what_is_no_weight_matrix_to_adamw(name, shape):
    param = pyro.param(f"rest$$${name}", torch.arange(1.0, 1.0 + math.prod(shape)).double().reshape(shape))
    optim = pv.optim.muon(LR, weight_decay=0.3)
    param.grad = torch.ones_like(param)
    expected = (1 - LR * 0.3) * param.detach() - LR  # the first step of Adam is its sign
    optim([param])
    torch.testing.assert_close(param.detach(), expected, rtol=1e-7, atol=0)


def test_every_optimizer_has_a_rule_a_reference_and_a_section():
    functions = {name: f for name in pv.optim.__all__ if inspect.isfunction(f := getattr(pv.optim, name))}
    optimizers = {name for name, f in functions.items() if inspect.signature(f).return_annotation == "PyroOptim"}
    assert {f.__name__ for f in OPTIMIZERS.values()} == optimizers - {"by_name"}
    assert {*RULES, "muon"} == set(OPTIMIZERS)
    for f in OPTIMIZERS.values():
        assert ".. math::" in f.__doc__
        assert re.search(r"References: .*\(\d{4}\)", f.__doc__)
    page = (Path(__file__).parents[1] / "docs" / "optimizers.md").read_text()
    assert re.findall(r"^### `([\w-]+)`$", page, re.MULTILINE) == list(OPTIMIZERS)
    assert set(SCHEDULES) <= set(re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_steps_in_svi_as_in_pyros(recorded, name):
    assert_same_run(pv.ELBO, [data()] * 8, optim=lambda: pv.optim.by_name(name, 1e-3, 16), compile=True)


# --- schedules --------------------------------------------------------------------------------------------------------


def torchs(scheduler, lr, num, **options):
    """The learning rates of one of torch's schedulers, at each step."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    moving, seen = scheduler(optimizer, **options), []
    for _ in range(num):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        moving.step()
    return seen


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (pv.optim.step_decay(0.3, steps=7, factor=0.5), torchs(lr_scheduler.StepLR, 0.3, 40, step_size=7, gamma=0.5)),
        (
            pv.optim.cosine(0.3, steps=39, end=0.02),
            torchs(lr_scheduler.CosineAnnealingLR, 0.3, 40, T_max=39, eta_min=0.02),
        ),
        (
            pv.optim.one_cycle(0.3, steps=39, rise=(0.3 * 40 - 1) / 39),
            torchs(lr_scheduler.OneCycleLR, 0.3, 40, max_lr=0.3, total_steps=40, cycle_momentum=False),
        ),
        (
            pv.optim.warmup(0.3, steps=10, start=0.03),
            torchs(lr_scheduler.LinearLR, 0.3, 40, start_factor=0.1, total_iters=10),
        ),
    ],
)
def test_schedules_are_torchs(schedule, expected):
    assert [schedule(step) for step in range(40)] == pytest.approx(expected, rel=1e-9)


def test_values_between_epochs_and_after_the_end():
    cosine = pv.optim.cosine(1.0, 10, warmup=2, end=0.1)
    assert [cosine(t) for t in (0, 0.5, 1, 2, 6, 10, 99)] == pytest.approx([0, 0.25, 0.5, 1.0, 0.55, 0.1, 0.1])
    cycle = pv.optim.one_cycle(1.0, 10, rise=0.4, start=0.2, end=0.0)
    assert [cycle(t) for t in (0, 2, 4, 7, 10, 99)] == pytest.approx([0.2, 0.6, 1.0, 0.5, 0.0, 0.0], abs=1e-15)
    assert [pv.optim.warmup(0.5, 4)(t) for t in (0, 1, 4, 99)] == [0.0, 0.125, 0.5, 0.5]
    assert [pv.optim.step_decay(1.0, 2, factor=0.5)(t) for t in (0, 1.9, 2, 6.5)] == [1.0, 1.0, 0.5, 0.125]
    for schedule in (cosine, cycle, pv.optim.warmup(0.5, 4)):
        assert schedule(schedule.end) == schedule(1e9)
        assert schedule(schedule.end - 0.1) != schedule(1e9)


@pytest.mark.parametrize(("unit", "clock"), [("epochs", [0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3]), ("steps", list(range(6)))])
def test_fit_moves_the_learning_rate_before_each_step(unit, clock):
    """Weights are those of steps at the rates that the schedule says, set by hand."""
    values, seen = [0.3, 0.1, 0.05, 0.02, 0.0, 0.2, 7.0], []
    steps = {"epochs": 3, "steps": 1}[unit]
    schedule = pv.objectives.Schedule(lambda done: seen.append(done) or values[round(done * steps)], unit, 0.0)
    ours, theirs = vae(), vae()
    optim = pv.optim.sgd(schedule, batch_size=20)
    fit(ours, epochs=2, optim=optim)
    assert sorted(set(seen)) == pytest.approx([*clock, 6 / steps])  # the last one is where the run ends
    assert seen == sorted(seen)
    by_hand = pyro.optim.SGD({"lr": 0.0})
    svi = pyro.infer.SVI(theirs.model, theirs.guide, by_hand, pv.ELBO())
    torch.manual_seed(0)
    order = torch.Generator().manual_seed(0)
    batches = [batch for _ in range(2) for batch in pv.data.batches(X, 20, generator=order)]
    for batch, value in zip(batches, values, strict=False):
        by_hand.pt_optim_args["lr"] = value / 20
        for each in by_hand.optim_objs.values():
            each.param_groups[0]["lr"] = value / 20
        svi.step(batch)
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-5, atol=1e-6)
    seen.clear()
    fit(vae(), epochs=1, optim=optim)
    assert sorted(set(seen)) == pytest.approx(clock[:4])  # a run of its own


@pytest.mark.parametrize("name", ["adam", "momentum", "muon"])
def test_a_loop_of_ones_own_steps_it_without_a_compilation(recorded, name):
    def run(cls, **options):
        module, optim = vae(), pv.optim.by_name(name, pv.optim.cosine(1e-2, steps=8), 16)
        svi = cls(module.model, module.guide, optim, pv.ELBO(), **options)
        torch.manual_seed(1)
        losses = []
        for _ in range(9):
            losses.append(svi.step(data()))
            optim.step()
        return losses, weights(module), svi, optim

    expected, theirs, _, _ = run(pyro.infer.SVI)
    got, ours, svi, optim = run(pv.SVI, compile=True)
    assert got == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert svi.compilations == 1
    assert rates(optim) == {0.0}


def reduced(history, lr, **options):
    """What torch makes of the learning rate after these epochs."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, **options)
    for loss in history["val_loss"]:
        scheduler.step(loss)
    return optimizer.param_groups[0]["lr"]


def test_plateau_is_torchs_and_fit_tells_it_the_validation_loss():
    optim = pv.optim.adam(pv.optim.plateau(0.2, factor=0.5, patience=1, threshold=0.01, end=0.03))
    history = fit(vae(), epochs=15, val=X[:20], optim=optim)
    expected = reduced(history, 0.2, factor=0.5, patience=1, threshold=0.01, threshold_mode="abs", min_lr=0.03)
    assert rates(optim) == {expected}
    assert expected < 0.2


def test_a_scheduler_of_pyros_is_stepped_once_in_an_epoch():
    options = {"optimizer": torch.optim.Adam, "optim_args": {"lr": 1e-2}}
    optim = pyro.optim.StepLR({**options, "step_size": 2, "gamma": 0.5})
    fit(vae(), epochs=5, optim=optim)
    assert rates(optim) == {0.0025}
    optim = pyro.optim.ReduceLROnPlateau({**options, "patience": 0})
    with pytest.raises(ValueError, match="its learning rate follows the validation loss, and there are no validation"):
        fit(vae(), optim=optim)
    history = fit(vae(), epochs=12, val=X[:20], optim=optim)
    assert rates(optim) == {reduced(history, 1e-2, patience=0)}


def test_a_schedule_longer_than_the_run_is_refused():
    for schedule in (pv.optim.cosine(1e-3, 4), pv.optim.one_cycle(1e-3, steps=10), pv.optim.warmup(1e-3, 5)):
        with pytest.raises(ValueError, match=r"optim: the schedule of the learning rate ends at .* after the run"):
            fit(vae(), epochs=3, optim=pv.optim.adam(schedule))
    fit(vae(), epochs=3, optim=pv.optim.adam(pv.optim.step_decay(1e-3, 50)))
    with pytest.warns(
        UserWarning, match="optim: the schedule of the learning rate ends after the run, which ended at step 4"
    ):
        fit(vae(), Stream(), epochs=2, optim=pv.optim.adam(pv.optim.cosine(1e-3, steps=50)))


class Stream:
    def __iter__(self):
        return iter([X[:30], X[30:]])


# --- the whole set ----------------------------------------------------------------------------------------------------


def test_gradient_descent_takes_one_step_of_the_whole_set_in_an_epoch():
    ours, theirs = vae(), vae()
    fit(ours, epochs=4, batch_size=None, optim=pv.optim.gd(0.02, batch_size=60))
    svi = pyro.infer.SVI(theirs.model, theirs.guide, pyro.optim.SGD({"lr": 0.02 / 60}), pv.ELBO())
    torch.manual_seed(0)
    order = torch.Generator().manual_seed(0)
    for _ in range(4):
        svi.step(X[torch.randperm(60, generator=order)])
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-5, atol=1e-6)


# --- penalties of the weights -----------------------------------------------------------------------------------------


def loss_of(module, penalties, x=X):
    torch.manual_seed(3)
    return pv.ELBO(penalties=penalties).differentiable_loss(module.model, module.guide, x)


@pytest.mark.parametrize("prior", ["normal", "mixture", "spike-slab"])
@pytest.mark.parametrize(("penalty", "of"), [(pv.L1, lambda w: w.abs().sum()), (pv.L2, lambda w: 0.5 * (w**2).sum())])
def test_each_datum_pays_for_the_weights_and_for_nothing_else(penalty, of, prior):
    """The rise of the loss, and its gradient by central differences, in float64."""
    module = vae(prior).double()
    x = X.double()
    named = dict(module.named_parameters())
    matrices = {f"{name}.weight" for name, part in module.named_modules() if isinstance(part, torch.nn.Linear)}
    assert len(matrices) == 4
    rise = loss_of(module, [penalty(0.3, module)], x) - loss_of(module, [], x)
    expected = 60 * 0.3 * sum(of(named[name].detach()) for name in matrices)
    assert rise.item() == pytest.approx(expected.item(), rel=1e-9)
    gradients = torch.autograd.grad(rise, list(named.values()), allow_unused=True)
    for (name, param), gradient in zip(named.items(), gradients, strict=True):
        gradient = torch.zeros_like(param) if gradient is None else gradient
        if name not in matrices:
            assert gradient.abs().max() < 1e-9, name
            continue
        index = (0,) * param.dim()
        with torch.no_grad():
            sides = []
            for side in (1e-6, -2e-6):
                param[index] += side
                sides.append(60 * 0.3 * of(param).item())
            param[index] += 1e-6
        assert gradient[index].item() == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-4, abs=1e-5)


def test_under_a_learning_rate_per_datum_l2_is_weight_decay():
    """theta <- (1 - eta lambda) theta - eta g, beside the same steps without; of one batch in two sizes."""
    module, plain = vae(), vae()
    for each, penalties in ((module, [pv.L2(0.1, module)]), (plain, [])):
        svi = pyro.infer.SVI(each.model, each.guide, pv.optim.sgd(0.5, batch_size=60), pv.ELBO(penalties=penalties))
        torch.manual_seed(1)
        svi.step(X)
    start = dict(vae().named_parameters())
    for (name, ours), theirs in zip(module.named_parameters(), plain.parameters(), strict=True):
        decay = 0.5 * 0.1 * start[name] if name.endswith("weight") else torch.zeros_like(ours)
        torch.testing.assert_close(ours, theirs - decay, rtol=1e-4, atol=1e-6)


def test_penalties_of_weights_are_in_the_graph_and_not_in_the_bound(recorded):
    ours, theirs = vae(), vae()
    losses = []
    for cls, module, options in ((pv.SVI, ours, {"compile": True}), (pyro.infer.SVI, theirs, {})):
        loss = pv.ELBO(penalties=[pv.L1(0.01, module), pv.L2(0.01, module)])
        svi = cls(module.model, module.guide, pv.optim.adam(1e-2), loss, **options)
        torch.manual_seed(1)
        losses.append([svi.step(data()) for _ in range(8)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-4, atol=1e-5)
    module = vae()
    still = {"optim": pyro.optim.SGD(lambda _: {"lr": 0.0}), "val": X, "epochs": 1}
    plain, paid = fit(module, **still), fit(module, loss=pv.ELBO(penalties=[pv.L2(1.0, module)]), **still)
    assert paid["val_loss"] == plain["val_loss"]
    assert paid["train_loss"][0] > plain["train_loss"][0] + 0.5


# --- bad input --------------------------------------------------------------------------------------------------------


def exponential(lr):
    return pyro.optim.ExponentialLR({"optimizer": torch.optim.Adam, "optim_args": {"lr": lr}, "gamma": 0.9})


def test_a_learning_rate_that_is_not_said_once_is_not_looked_at():
    for optim in (pyro.optim.Adam({}), pyro.optim.Adam({"lr": torch.tensor(1e-3)}), exponential(1e-3)):
        fit(vae(), optim=optim)
    fit(vae(), optim=pv.optim.adam(pv.optim.warmup(1e-3, steps=1)))  # which starts at 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pv.optim.by_name("adan"), r"unknown optimizer 'adan': did you mean 'adam'\?"),
        (lambda: pv.optim.by_name("clipped_adam", 1e-3, momentum=1), "did you mean 'clipped-adam'"),
        (lambda: pv.optim.by_name("xyz"), "unknown optimizer 'xyz': one of gd, sgd, momentum"),
        (lambda: pv.optim.by_name("adam", momentum=0.9), "optimizer 'adam' has no option 'momentum': its options are"),
        (lambda: pv.optim.schedule_by_name("cosin", 1e-3), r"unknown schedule 'cosin': did you mean 'cosine'\?"),
        (lambda: pv.optim.schedule_by_name("cosine", 1e-3, lr=3), "schedule 'cosine' has no option 'lr'"),
        *((lambda f=f: f(0.0), "lr must be positive, got 0.0") for f in OPTIMIZERS.values()),
        *((lambda f=f: f(float("nan")), "lr must be positive, got nan") for f in OPTIMIZERS.values()),
        (lambda: pv.optim.adam(-1e-3), "lr must be positive, got -0.001"),
        (lambda: pv.optim.adam("1e-3"), "lr must be positive, got '1e-3'"),
        (lambda: pv.optim.adam(True), "lr must be positive, got True"),
        (lambda: pv.optim.sgd(0.1, batch_size=True), "batch_size must be a whole number, at least 1, got True"),
        (lambda: fit(vae(), optim=pyro.optim.Adam({"lr": 0.0})), "optim: the learning rate must be positive, got 0.0"),
        (lambda: fit(vae(), optim=pyro.optim.ClippedAdam({"lr": -1})), "optim: the learning rate must .* got -1"),
        (lambda: fit(vae(), optim=pyro.optim.SGD({"lr": math.nan})), "optim: the learning rate must .* got nan"),
        (lambda: fit(vae(), optim=pyro.optim.SGD({"lr": torch.tensor(0.0)})), "optim: the learning rate must .* 0.0"),
        (lambda: fit(vae(), optim=exponential(0.0)), "optim: the learning rate must be positive, got 0.0"),
        (lambda: pv.optim.by_name("sgd", momentum=0.5), "'momentum': it has none; see optimizer 'momentum'"),
        (lambda: pv.optim.sgd(0.1, batch_size=0), "batch_size must be a whole number, at least 1, got 0"),
        (lambda: pv.optim.momentum(0.1, momentum=1.0), r"momentum must be in \[0, 1\), got 1.0"),
        (lambda: pv.optim.nesterov(0.1, momentum=0.0), "momentum must be positive, got 0.0"),
        (lambda: pv.optim.muon(0.1, momentum=-0.5), "momentum must be positive, got -0.5"),
        (lambda: pv.optim.adam(eps=0.0), "eps must be positive, got 0.0"),
        (lambda: pv.optim.adagrad(eps=math.inf), "eps must be positive, got inf"),
        (lambda: pv.optim.rmsprop(decay=1.0), r"decay must be in \[0, 1\), got 1.0"),
        (lambda: pv.optim.adamw(betas=(0.9, 1.0)), r"betas must be in \[0, 1\), got 1.0"),
        (lambda: pv.optim.nadam(betas=0.9), r"betas must be two numbers in \[0, 1\), got 0.9"),
        (lambda: pv.optim.adamw(weight_decay=-0.1), "weight_decay must be at least 0, got -0.1"),
        (lambda: pv.optim.clipped_adam(clip=0.0), "clip must be positive, got 0.0"),
        (lambda: pv.optim.cosine(0.0, 5), "lr must be positive, got 0.0"),
        (lambda: pv.optim.cosine(1e-3), "one of epochs and steps must be given"),
        (lambda: pv.optim.cosine(1e-3, "ten"), "epochs must be positive, got 'ten'"),
        (lambda: pv.optim.cosine(1e-3, 5, warmup=5), "warmup must be shorter than the 5 epochs of the schedule, got 5"),
        (lambda: pv.optim.cosine(1e-3, 5, end=-1.0), "end must be at least 0, got -1.0"),
        (lambda: pv.optim.one_cycle(1e-3, 5, rise=1.0), r"rise must be in \[0, 1\), got 1.0"),
        (lambda: pv.optim.one_cycle(1e-3, 5, start=-1.0), "start must be at least 0, got -1.0"),
        (lambda: pv.optim.step_decay(1e-3, steps=0), "steps must be positive, got 0"),
        (lambda: pv.optim.step_decay(1e-3, 5, factor=1.0), r"factor must be in \[0, 1\), got 1.0"),
        (lambda: pv.optim.warmup(1e-3, 3, steps=4), "one of epochs and steps must be given"),
        (lambda: pv.optim.plateau(-1.0), "lr must be positive, got -1.0"),
        (lambda: pv.optim.plateau(0.1, patience=1.5), "patience must be a whole number, got 1.5"),
        (lambda: pv.L1(-1.0, vae()), "weight must be at least 0, got -1.0"),
        (lambda: pv.L2(1.0, torch.nn.BatchNorm1d(3)), "module BatchNorm1d has no weights of two dimensions or more"),
        (lambda: fit(vae(), optim=pv.optim.gd(0.1)), "gd takes the whole set at each step: batch_size=None, got 20"),
        (lambda: fit(vae(), [X, X], optim=pv.optim.gd(0.1)), "and data come in batches: sgd takes these"),
        (lambda: fit(vae(), Stream(), optim=pv.optim.gd(0.1)), "and data come in batches: sgd takes these"),
        (lambda: fit(vae(), Stream(), batch_size=None), "batch_size=None is the whole set at each step, and data come"),
        (lambda: fit(vae(), optim=pv.optim.adam(pv.optim.plateau(0.1))), "there are no validation data"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_penalty_of_no_module_is_a_type_error():
    with pytest.raises(TypeError, match="module must be a VAE or another torch module, got list"):
        pv.L2(1.0, [torch.zeros(2, 2)])


def test_muon_says_which_torch_has_it(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ValueError, match=r"muon needs torch 2\.9 or later"):
        pv.optim.muon()
