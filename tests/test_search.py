"""The search for a learning rate: its losses are those of ``fit``, and it leaves nothing behind."""

import dataclasses
import inspect
import math

import pytest
import torch

import pyrovae as pv

DATA = pv.data.digits()
GRID = (1e-3, 1e-2, 1e-1)


def build():
    torch.manual_seed(0)
    return pv.build_vae((64,), 2, hidden=(16,))


def sgd(lr):
    return pv.optim.sgd(lr, batch_size=128)


def search(vae=None, data=DATA, optim=sgd, rates=GRID, **options):
    return pv.train.search_lr(build() if vae is None else vae, data, optim, rates, **options)


def test_its_losses_are_those_of_fit_from_the_same_weights():
    found = search(optim=pv.optim.adam, rates=(1e-2, 1e-1, 1.0), epochs=2, seed=5)
    losses = {}
    for lr in found.losses:
        losses[lr] = pv.fit(build(), DATA, 2, optim=pv.optim.adam(lr), seed=5, progress=False)["val_loss"][-1]
    assert found.losses == losses
    assert found.lr == min(set(losses) - set(found.unsteady), key=losses.__getitem__)
    assert found.epochs == 2 * len(losses) == 2 * 5, "the best rate is not at the edge, and has two neighbours"
    assert found.seconds > 0


def test_weights_and_random_state_are_as_they_were():
    vae = build()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    state = torch.get_rng_state()
    first = search(vae)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(dict(vae.state_dict()), before, rtol=0, atol=0)
    assert search(vae).losses == first.losses


def test_the_test_set_is_not_looked_at():
    blind = dataclasses.replace(DATA, test=torch.full_like(DATA.test, math.nan))
    assert search(data=blind).losses == search().losses


def test_a_tensor_has_its_validation_data_beside_it():
    assert search(data=DATA.train, val=DATA.val).losses == search().losses


def test_a_run_that_diverges_is_infinitely_bad():
    vae = build()
    found = search(vae, rates=(1e-4, 1e-2, 1e6))
    assert found.losses[1e6] == math.inf
    assert (found.lr, found.at_edge) == (1e-2, False)
    assert sorted(found.losses) == [1e-4, 1e-3, 1e-2, 1e2, 1e6]
    assert found.epochs == 2 + 2 + 2 + 1 + 1, "the epoch it diverged in counts"
    assert all(bool(value.isfinite().all()) for value in vae.state_dict().values())


@pytest.mark.parametrize(
    ("rates", "tried", "at_edge"),
    [
        ((1e-6, 1e-5, 1e-4), [1e-6, 1e-5, 1e-4, 3e-4, 1e-3], True),  # slower is worse, this far down
        ((1e-2, 1e4, 1e6), [1e-6, 1e-4, 1e-2, 10, 1e4, 1e6], False),
        ((0.04, 0.05), [0.04, 0.05, 0.0625], True),
    ],
)
def test_one_step_beyond_the_edge_and_one_to_each_side_of_the_best(rates, tried, at_edge):
    found = search(rates=rates)
    assert sorted(found.losses) == pytest.approx(tried)
    assert found.at_edge == at_edge


@pytest.mark.parametrize(
    ("losses", "lr", "unsteady"),
    [
        # a rise of 2.1 after a fall of 20
        ({1e-3: [50, 45, 41], 1e-2: [50, 30, 32.1], 1e-1: [60, 58, 57]}, 1e-3, (1e-2,)),
        ({1e-3: [50, 45, 41], 1e-2: [50, 30, 31.9], 1e-1: [60, 58, 57]}, 1e-2, ()),  # noise
        ({1e-3: [50, 51, 52], 1e-2: [40, 41, 42], 1e-1: [60, 61, 62]}, 1e-2, (1e-3, 1e-2, 1e-1)),  # none falls
    ],
)
def test_a_rate_whose_loss_rises_is_taken_only_where_all_do(losses, lr, unsteady, monkeypatch):
    tried = iter(losses.values())
    monkeypatch.setattr("pyrovae.train.search.fit", lambda *_, **__: {"val_loss": next(tried, [97, 98, 99])})
    found = search(rates=tuple(losses))
    assert (found.lr, tuple(rate for rate in found.unsteady if rate in losses)) == (lr, unsteady)


def test_usual_rates_are_round_and_about_the_default():
    assert pv.optim.usual_rates("sgd") == [0.001, 0.003, 0.01, 0.03, 0.1]
    assert pv.optim.usual_rates("adam") == [0.0001, 0.0003, 0.001, 0.003, 0.01]
    for name, make in pv.optim.OPTIMIZERS.items():
        assert pv.optim.usual_rates(name)[2] == inspect.signature(make).parameters["lr"].default


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: search(data=DATA.train), "val must be given"),
        (lambda: search(rates=(1e-3,)), "rates must be two or more that rise from above 0"),
        (lambda: search(rates=(1e-2, 1e-3)), "rates must be two or more that rise"),
        (lambda: search(rates=(1e-4, 1e-2, 1e-3, 1e-1)), "rates must be two or more that rise"),
        (lambda: search(rates=(0.0, 1e-3)), "from above 0"),
        (lambda: search(rates=(1e-3, math.inf)), "rates must be two or more"),
        (lambda: search(rates=(1e5, 1e6)), "rates: the loss diverged at each of 100000, 1e\\+06"),
        (lambda: search(epochs=0), "epochs must be a positive whole number, got 0"),
        (lambda: pv.optim.usual_rates("adan"), r"unknown optimizer 'adan': did you mean 'adam'\?"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
