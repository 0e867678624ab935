"""Objectives are values: equal by their fields, never changed, with schedules that are replaced by numbers."""

import dataclasses

import pyro
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import pyrovae as pv

X = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
OBJECTIVES = {
    "ELBO": lambda: pv.ELBO(),
    "composed": lambda: pv.ELBO(
        pv.warmup(3), estimator=pv.LeaveOneOut(4), kl=pv.Capacity(pv.cyclical(steps=9)), penalties=[pv.MMD(2.0)]
    ),
    "free bits": lambda: pv.ELBO(kl=pv.FreeBits(0.1, group=2), estimator=pv.Relaxed(0.3)),
    "IWAE": lambda: pv.IWAE(3),
    "DReG": lambda: pv.DReG(3),
    "Renyi": lambda: pv.Renyi(0.5, 2),
}


def build(prior="spike-slab"):
    torch.manual_seed(0)
    return pv.build_vae((6,), 3, prior=prior, likelihood="normal", hidden=(8,))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_is_a_value(name):
    first, second = OBJECTIVES[name](), OBJECTIVES[name]()
    assert first == second
    assert hash(first) == hash(second)
    assert first not in [make() for other, make in OBJECTIVES.items() if other != name]
    assert first.true_bound() == second.true_bound()
    for field in dataclasses.fields(first):
        with pytest.raises(AttributeError, match=f"{type(first).__name__} cannot be changed.*make another one"):
            setattr(first, field.name, 1.0)
    with pytest.raises(AttributeError, match="make another one"):
        first.step = 3
    with pytest.raises(AttributeError):
        del first.num_particles
    assert first == second


@pytest.mark.parametrize("prior", ["spike-slab", "poisson", "normal"])
def test_no_call_changes_an_objective(prior):
    """Evaluation does not change the number of draws of later steps: the same numbers with and without it."""
    losses = []
    for evaluate in (False, True):
        vae, loss = build(prior), pv.ELBO()
        svi = pv.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), loss, compile=False)
        fields = dict(vars(loss))
        torch.manual_seed(1)
        losses.append([])
        for _ in range(3):
            if evaluate:
                with torch.random.fork_rng():
                    svi.evaluate_loss(X)
            losses[-1].append(svi.step(X))
        assert vars(loss) == fields
    assert losses[0] == losses[1]


def test_schedules_have_names_and_become_numbers():
    loss = pv.ELBO(lambda done: 0.25, kl=pv.Capacity(pv.warmup(steps=4, end=2.0)), spikes_first=pv.warmup(5))
    assert list(loss.schedules()) == ["beta", "kl.capacity", "spikes_first"]
    assert [s.unit for s in loss.schedules().values()] == ["epochs", "steps", "epochs"]
    assert loss.schedules()["beta"](3.0) == 0.25
    now = loss.at({"beta": 0.5, "kl.capacity": 1.5, "spikes_first": 1})
    assert now == pv.ELBO(0.5, kl=pv.Capacity(1.5), spikes_first=1.0)
    assert not now.schedules()
    assert list(loss.at({"beta": 0.5}).schedules()) == ["kl.capacity", "spikes_first"]
    assert pv.IWAE(3).at({}) == pv.IWAE(3)
    for bad in ("capacity", "gamma"):
        with pytest.raises(ValueError, match=rf"numbers must be for the schedules .*got \['{bad}'\]"):
            loss.at({bad: 1.0})


@pytest.mark.parametrize("values", [(0.0, 0.0, 0.0), (0.5, 2.0, 0.4), (1.0, 100.0, 1.0)])
def test_numbers_may_be_inputs_of_a_graph(values):
    """Recorded at other values, the graph gives the loss of these: nothing reads them in Python."""
    vae, names = build(), ("beta", "kl.capacity", "spikes_first")
    loss = pv.ELBO(pv.warmup(3), kl=pv.Capacity(pv.warmup(3)), spikes_first=pv.warmup(3))

    def number(*numbers):
        torch.manual_seed(0)
        return loss.at(dict(zip(names, numbers, strict=True))).differentiable_loss(vae.model, vae.guide, X)

    inputs = [torch.tensor(v, dtype=torch.float64) for v in values]
    with pyro.validation_enabled(False):
        graph = make_fx(number)(*[torch.tensor(v, dtype=torch.float64) for v in (0.7, 0.1, 0.6)])
        expected = number(*values)
    assert number(*inputs).item() == pytest.approx(expected.item(), rel=1e-5)
    torch.manual_seed(0)
    assert graph(*inputs).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_temperature_is_used():
    """At a temperature near zero the relaxed gates are nearly bits; at 5 most are between."""
    vae = build("bernoulli")
    for temperature, share in ((0.01, 0.1), (5.0, 1.0)):
        _, guide = pv.objectives.draw_sites(vae.model, vae.guide, (X,), {}, 1, pv.Relaxed(temperature))
        z = guide["z"]["value"]
        between = ((z > 0.02) & (z < 0.98)).double().mean()
        assert between <= share if temperature < 1 else between > 0.8
