"""Schedules by themselves, in an objective and in a run."""

import pyro
import pytest
import torch
from pyro.infer import SVI

import pyrovae as pv

X = torch.bernoulli(torch.full((60, 8), 0.5), generator=torch.Generator().manual_seed(0))


def build(**kwargs):
    torch.manual_seed(0)
    return pv.build_vae((8,), 3, hidden=(8,), **kwargs)


def test_values():
    assert [pv.warmup(4)(t) for t in (0, 1, 4, 9)] == [0.0, 0.25, 1.0, 1.0]
    assert [pv.warmup(steps=10, start=0.5, end=4.0)(t) for t in (0, 5, 10)] == [0.5, 2.25, 4.0]
    cycle = pv.cyclical(8, cycles=2, rise=0.5)
    assert [cycle(t) for t in (0, 1, 2, 3.9, 4, 5, 6, 8, 100)] == [0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0, 1.0]
    assert pv.constant(2.5)(7) == 2.5


def test_the_end_is_from_where_nothing_changes():
    for schedule in (pv.warmup(5), pv.warmup(steps=7, end=3.0), pv.cyclical(12, cycles=3, rise=0.4), pv.constant(0.3)):
        last = schedule(1e9)
        assert all(schedule(schedule.end + t) == last for t in (1e-9, 0.1, 1.0, 100.0))
        assert schedule.end == 0 or schedule(schedule.end - 0.1) != last


def test_steps_are_counted_by_pv_svi():
    seen = []
    loss = pv.ELBO(pv.objectives.Schedule(lambda done: seen.append(done) or 0.5, "steps", 0))
    vae = build()
    svi = pv.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), loss, compile=False)
    for _ in range(3):
        svi.step(X)
        svi.evaluate_loss(X)
    assert seen == [0, 1, 1, 2, 2, 3]


@pytest.mark.parametrize("unit", ["steps", "epochs"])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (pv.ELBO, "beta"),
        (lambda number: pv.ELBO(kl=pv.Capacity(number)), r"kl\.capacity"),
        (lambda number: pv.ELBO(spikes_first=number), "spikes_first"),
    ],
)
def test_a_schedule_that_nobody_counts_is_refused(make, name, unit):
    """Pyro's SVI counts neither steps nor epochs; no weight has moved."""
    vae, loss = build(), make(pv.warmup(**{unit: 4}))
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), loss)
    before = [parameter.clone() for parameter in vae.parameters()]
    for call in (svi.step, svi.evaluate_loss, lambda x: loss.differentiable_loss(vae.model, vae.guide, x)):
        with pytest.raises(ValueError, match=rf"^{name} is a schedule in {unit}.*pyrovae\.SVI.*pyrovae\.fit.*a number"):
            call(X)
    assert all(map(torch.equal, before, vae.parameters()))
    vae = pv.build_vae((8,), 3, prior="spike-slab", hidden=(8,))
    loss.at({name.replace("\\", ""): 0.5}).loss(vae.model, vae.guide, X)


def test_fit_counts_both_and_starts_anew():
    seen = []

    def spy(unit, length):
        return pv.objectives.Schedule(lambda done: seen.append((unit, done)) or 1.0, unit, length)

    loss = pv.ELBO(spy("epochs", 2.0), kl=pv.Capacity(spy("steps", 3)))
    for _ in range(2):
        seen.clear()
        pv.fit(build(), X, epochs=2, batch_size=30, loss=loss, progress=False)
        assert [done for unit, done in seen if unit == "steps"] == [0, 1, 2, 3]
        assert [done for unit, done in seen if unit == "epochs"] == [0.0, 0.5, 1.0, 1.5]


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda: pv.ELBO(pv.warmup(4)), "schedule of beta ends at 4 epochs, after the run, which has 3 epochs"),
        (lambda: pv.ELBO(pv.warmup(steps=7)), "schedule of beta ends at 7 steps"),
        (lambda: pv.ELBO(kl=pv.Capacity(pv.warmup(9, end=5.0))), r"schedule of kl\.capacity"),
        (lambda: pv.ELBO(pv.cyclical(20)), "schedule of beta"),
    ],
)
def test_a_schedule_longer_than_the_run_is_refused(loss, message):
    """Three epochs of two steps."""
    vae = build()
    before = [parameter.clone() for parameter in vae.parameters()]
    with pytest.raises(ValueError, match=message):
        pv.fit(vae, X, epochs=3, batch_size=30, loss=loss(), progress=False)
    assert all(torch.equal(a, b) for a, b in zip(before, vae.parameters(), strict=True))
    pv.fit(vae, X, epochs=3, batch_size=30, loss=pv.ELBO(pv.warmup(steps=6)), progress=False)


def test_a_stream_that_ends_before_the_schedule_is_marked():
    class Stream:
        def __iter__(self):
            return iter([X[:30], X[30:]])

    with pytest.warns(UserWarning, match="loss: the schedule of beta ends after the run, which ended at step 4"):
        pv.fit(build(), Stream(), epochs=2, loss=pv.ELBO(pv.warmup(steps=50)), progress=False)


def test_early_stopping_waits_for_the_end_of_warm_up():
    """A learning rate of nearly nothing makes no epoch better for long: patience alone would stop at once."""
    optim = {"lr": 1e-12}
    lengths = []
    for loss in (pv.ELBO(), pv.ELBO(pv.warmup(10))):
        vae = build()
        history = pv.fit(
            vae, X, epochs=40, optim=pyro.optim.SGD(optim), loss=loss, val=X, patience=1, seed=0, progress=False
        )
        lengths.append(len(history["epoch"]))
    assert lengths[0] < 10 < lengths[1] < 40


def test_validation_and_the_last_number_are_the_bound_itself():
    """Whatever the training loss is: penalties, free bits, capacity, beta."""
    vae, x = build(), X.repeat(40, 1)
    options = {"epochs": 1, "batch_size": len(x), "optim": pyro.optim.SGD(lambda _: {"lr": 0.0}), "val": x, "seed": 0}
    plain = pv.fit(vae, x, progress=False, **options)
    for loss in (
        pv.ELBO(0.0),
        pv.ELBO(kl=pv.FreeBits(3.0)),
        pv.ELBO(kl=pv.Capacity(9.0)),
        pv.ELBO(penalties=[pv.MMD(100.0)]),
    ):
        history = pv.fit(vae, x, loss=loss, progress=False, **options)
        # one draw of each of 2,400 data: the standard error of a difference is some 0.03
        assert history["val_loss"][0] == pytest.approx(plain["val_loss"][0], abs=0.2)
        assert abs(history["train_loss"][0] - plain["train_loss"][0]) > 0.3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pv.warmup(), "one of epochs and steps must be given"),
        (lambda: pv.warmup(3, steps=4), "one of epochs and steps must be given"),
        (lambda: pv.warmup(0), "epochs must be positive"),
        (lambda: pv.warmup(steps=-1), "steps must be positive"),
        (lambda: pv.warmup(4, start=-1.0), "start must be finite and at least 0"),
        (lambda: pv.cyclical(4, cycles=0), "cycles must be at least 1"),
        (lambda: pv.cyclical(4, rise=1.5), r"rise must be in \(0, 1\]"),
        (lambda: pv.constant(-1.0), "value must be finite and at least 0"),
        (lambda: pv.ELBO(-1.0), "beta must be finite and at least 0"),
        (lambda: pv.ELBO(float("nan")), "beta must be finite and at least 0"),
        (lambda: pv.ELBO(kl=pv.FreeBits(-1.0)), "nats of FreeBits must be finite and at least 0"),
        (lambda: pv.Capacity(float("inf")), "capacity must be finite and at least 0"),
        (lambda: pv.ELBO(kl=pv.FreeBits(1.0, group=0)), "group must be at least 1"),
        (lambda: pv.ELBO(num_particles=0), "num_particles must be at least 1"),
        (lambda: pv.ELBO(spikes_first=1.5), "spikes_first must be finite and at least 0 and at most 1"),
        (
            lambda: pv.ELBO(estimator=pv.StickingTheLanding(), kl=pv.FreeBits(1.0)),
            "StickingTheLanding samples all of them",
        ),
        (lambda: pv.LeaveOneOut(1), "num_particles of LeaveOneOut must be a whole number from 2"),
        (lambda: pv.Relaxed(0.0), "temperature must be positive"),
        (lambda: pv.IWAE(0), "num_particles must be at least 1"),
        (lambda: pv.DReG(-3), "num_particles must be at least 1"),
        (lambda: pv.Renyi(1.0), "alpha must be at least 0 and not 1"),
        (lambda: pv.Renyi(-0.5), "alpha must be at least 0 and not 1"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
