"""CUDA graphs of compiled code: a recording that is imitated without a card, its memory its own as there."""

from __future__ import annotations

import pyro
import pytest
import torch
from svi_runs import adam, data, losses, vae

import pyrovae as pv
from pyrovae.compilation import Program, record, replay


def recording():
    """``record`` without a card: each replay writes its results to where those of the run are."""

    def record(run):
        kept = [x.clone() for x in run()]

        def again():
            for old, new in zip(kept, run(), strict=True):
                old.copy_(new)

        return again, kept

    return record


@pytest.fixture
def card(monkeypatch, recorded):
    """A machine on which everything can be recorded, and a recording is faster than the code."""
    times = [2.0, 1.0]

    def shortest(*calls):
        for call in calls:
            call()
        return times

    monkeypatch.setattr("pyrovae.compilation.program.can_be_recorded", lambda tensors: True)
    monkeypatch.setattr("pyrovae.compilation.program.shortest", shortest)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(replay, "record", recording())
    return times


def sums(x, y):
    return x + y, (x * y).sum()


def replayed(function, *inputs):
    """Compiled code that is launched as one CUDA graph where that can be, and the tensors from outside."""
    graph = record(function, inputs)
    program = Program(graph, inputs)
    program.try_replay(inputs, graph.outside)
    return program, graph.outside


def test_results_of_a_replay_stay_after_the_next_one_and_inputs_may_change(card):
    program, outside = replayed(sums, torch.ones(8), torch.ones(8))
    assert program.replays
    x = torch.arange(8.0)
    first, product = program([x, x], outside)
    x.zero_()
    second, _ = program([x, x], outside)
    assert first.tolist() == [2.0 * i for i in range(8)]
    assert product.item() == sum(i * i for i in range(8))
    assert second.tolist() == [0.0] * 8


def test_a_recording_reads_what_is_outside_where_it_is(card):
    weight = torch.ones(8)
    program, outside = replayed(lambda x: (x * weight,), torch.ones(8))
    weight.fill_(3.0)
    assert program.replays
    assert program([torch.ones(8)], outside)[0].tolist() == [3.0] * 8
    assert program([torch.ones(8)], [torch.full((8,), 5.0)])[0].tolist() == [5.0] * 8, "it is in another place"


@pytest.mark.parametrize("fault", ["slower", "impossible"])
def test_the_code_stays_as_it_is_where_a_recording_is(card, monkeypatch, fault):
    def impossible(run):
        raise RuntimeError("operation not permitted when stream is capturing")

    if fault == "slower":
        card[:] = [1.0, 1.0]
    else:
        monkeypatch.setattr(replay, "record", impossible)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    program, outside = replayed(sums, torch.ones(8), torch.ones(8))
    assert not program.replays
    assert torch.equal(torch.get_rng_state(), state)
    assert program([torch.full((8,), 2.0), torch.ones(8)], outside)[0].tolist() == [3.0] * 8


def test_tensors_are_recorded_on_one_card_alone():
    assert not replay.can_be_recorded([torch.ones(2)])
    assert not replay.can_be_recorded([torch.ones(2), torch.ones(2, device="meta")])
    assert not replay.can_be_recorded([torch.ones(2, device="meta")])


@pytest.mark.parametrize("options", [{}, {"accumulate": 3}, {"clip_norm": 5.0}], ids=["adam", "accumulate", "clipped"])
def test_steps_by_replays_are_those_of_the_code(card, options):
    batches = [data(seed=i) for i in range(7)]
    runs = []
    for compile in (False, True):
        model = vae()
        svi = pv.SVI(model.model, model.guide, adam(), pv.ELBO(beta=pv.warmup(steps=5)), compile=compile, **options)
        runs.append((losses(svi, batches), [p.detach().clone() for p in model.parameters()]))
    calls = [known.compiled for calls in svi._state.calls.values() for known in calls.known.values() if known.compiled]
    assert calls
    assert all(compiled.program.replays for compiled in calls)
    assert runs[1][0] == pytest.approx(runs[0][0], rel=1e-5)
    for ours, theirs in zip(runs[1][1], runs[0][1], strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_learning_rate_is_followed_by_replays(card):
    def optim():
        return pyro.optim.ExponentialLR({"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.1}, "gamma": 0.5})

    runs = []
    for compile in (False, True):
        model, schedule = vae(), optim()
        svi = pv.SVI(model.model, model.guide, schedule, pv.ELBO(), compile=compile)
        torch.manual_seed(1)
        run = []
        for i in range(6):
            run.append(svi.step(data(seed=i)))
            schedule.step()
        runs.append(run)
    assert runs[1] == pytest.approx(runs[0], rel=1e-5)
