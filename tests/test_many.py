"""Models from several seeds: each is the one that is trained alone, and they share one compilation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import pyrovae as pv
from pyrovae.infer import sharing

X = torch.rand(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).round()
SETTINGS: dict[str, Any] = {"epochs": 3, "batch_size": 20, "progress": False}


def make(seed: int, prior: str = "laplace", hidden: int = 8) -> pv.VAE:
    return pv.build_vae((6,), 2, prior=prior, hidden=(hidden,)).double()


def dictionary(seed: int) -> pv.VAE:
    return pv.build_vae((6,), 4, prior="spike-slab", likelihood="normal", network="dictionary", hidden=(8,)).double()


def alone(seed: int, build: Any = make, **settings: Any) -> tuple[pv.VAE, dict[str, list[float]]]:
    torch.manual_seed(seed)
    vae = build(seed)
    return vae, pv.fit(vae, X, seed=seed, **{**SETTINGS, **settings})


def assert_same(vae: pv.VAE, other: pv.VAE) -> None:
    ours, theirs = vae.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("build", [make, dictionary])
def test_each_model_is_the_one_trained_alone(build: Any) -> None:
    options = {"val": X[:20], "loss": pv.ELBO(beta=pv.warmup(2))}
    vaes, histories = pv.fit_many(build, X, [4, 0, 7], **SETTINGS, **options)
    for seed, vae, history in zip([4, 0, 7], vaes, histories, strict=True):
        expected, its_history = alone(seed, build, **options)
        assert_same(vae, expected)
        assert vae.training == expected.training
        for column in ("epoch", "train_loss", "val_loss"):
            assert history[column] == pytest.approx(its_history[column], rel=1e-10)
    assert not torch.equal(*(vae.encode(X) for vae in vaes[:2]))


def test_the_random_state_stays() -> None:
    before = torch.get_rng_state()
    pv.fit_many(make, X, range(2), **SETTINGS)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_optimizer_and_callbacks_are_copied() -> None:
    optim, callback = pv.optim.adam(lr=pv.optim.cosine(0.01, epochs=3)), pv.train.EarlyStopping(2)
    vaes, _ = pv.fit_many(make, X, [0, 1], optim=optim, callbacks=[callback], val=X[:20], **SETTINGS)
    assert not optim.optim_objs
    other = pv.optim.adam(lr=pv.optim.cosine(0.01, epochs=3))
    assert_same(vaes[1], alone(1, optim=other, val=X[:20])[0])


def test_compiled_code_is_shared() -> None:
    def steps(seed: int, hidden: int = 8) -> tuple[list[float], pv.SVI, pv.VAE]:
        torch.manual_seed(seed)
        vae = make(seed, hidden=hidden).float()
        svi = pv.SVI(vae.model, vae.guide, pv.optim.adam(lr=0.01 * (1 + seed)), pv.ELBO(), compile=True)
        x = X.float()
        return [svi.step(x[20 * (i % 2) : 20 * (i % 2 + 1)]) for i in range(50)], svi, vae

    with sharing(3):
        runs = [steps(0), steps(1), steps(2, hidden=9)]
    assert [svi.compilations for _, svi, _ in runs] == [1, 0, 1]  # the third has other shapes
    assert all(each[1] for _, svi, _ in runs for each in svi.state_dict()["calls"].values())  # is compiled
    losses, svi, alone = steps(1)  # nothing is shared outside
    assert svi.compilations == 1
    assert runs[1][0] == losses
    assert all(map(torch.equal, runs[1][2].parameters(), alone.parameters()))


def test_whether_compiling_pays_is_decided_for_all_runs() -> None:
    svi = pv.SVI(*_pair(), pv.optim.adam(), pv.ELBO())
    with sharing(10):
        many = pv.SVI(*_pair(), pv.optim.adam(), pv.ELBO())
    for each in (svi, many):
        for _ in range(5):
            each.step(X)
        calls = next(iter(each._state.calls.values()))
        calls.timings.seconds, calls.timings.fastest = 0.04, 0.01  # 10 ms a step
        each.expected_calls = {"step": 1_000}  # of which 0.4 is 4 s, below the 10 s of compiling
    assert [each._pays(next(iter(each._state.calls.values()))) for each in (svi, many)] == [False, True]


def _pair() -> tuple[Any, Any]:
    vae = make(0)
    return vae.model, vae.guide


def test_stability_of_the_dictionaries() -> None:
    vaes, _ = pv.fit_many(dictionary, X, range(3), **SETTINGS)
    found = pv.metrics.stability([vae.likelihood.network.atoms.detach() for vae in vaes])
    assert found.pairwise.shape == (3, 3)
    assert found.pw_mcc < 1.0


def test_an_error_names_its_seed() -> None:
    def broken(seed: int) -> pv.VAE:
        vae = make(seed)
        if seed == 5:
            with torch.no_grad():
                next(vae.posterior.parameters()).fill_(torch.nan)
        return vae

    with pytest.raises((ValueError, FloatingPointError), match=r"^seed 5: "):
        pv.fit_many(broken, X, [1, 5], **SETTINGS)


ONE = make(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": []}, r"seeds must be one or more, all different, got \[\]"),
        ({"seeds": [1, 1]}, r"seeds must be one or more, all different, got \[1, 1\]"),
        ({"seeds": [0.5]}, "seeds must be whole numbers, got 0.5"),
        ({"make": dictionary(0)}, "make must be a function of a seed that builds a model, got VAE"),
        ({"make": lambda seed: ONE}, "make must build a new model for each seed, and it returned the same one twice"),
        ({"seed": 1}, "seed is for one model, and fit_many trains several: give seeds"),
        ({"out": "run"}, "out is for one model, and fit_many trains several: train one model with pyrovae.fit"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        pv.fit_many(**{"make": make, "data": X, "seeds": [0, 1], **SETTINGS, **options})


def test_an_optimizer_that_has_trained_is_refused() -> None:
    optim = pv.optim.adam()
    alone(0, optim=optim)
    with pytest.raises(ValueError, match="optim has the state of a model that it trained: give a new optimizer"):
        pv.fit_many(make, X, [0], optim=optim, **SETTINGS)
