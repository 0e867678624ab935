"""Passes: the numbers of the function as it is, compiled where that pays, and as it is where it cannot be."""

from __future__ import annotations

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae import compilation, metrics
from pyrovae.compilation import Passes, Program, timings


@pytest.fixture
def programs(monkeypatch, recorded):
    """Each program that is made, however short it ran."""
    made = []
    build = Program.__init__

    def kept(self, *args, **kwargs):
        made.append(self)
        build(self, *args, **kwargs)

    monkeypatch.setattr(Program, "__init__", kept)
    monkeypatch.setattr(timings, "SECONDS", 0.0)
    monkeypatch.setattr(timings, "RUNS", 0)
    return made


def noisy(x):
    return (x.cumsum(0) + torch.randn(3),)


def test_compiled_passes_have_the_numbers_of_the_others(programs):
    x = torch.arange(6.0).reshape(2, 3)
    torch.manual_seed(0)
    expected = [noisy(x + i)[0] for i in range(12)]
    torch.manual_seed(0)
    run = Passes(noisy, 12)
    for i in range(12):
        assert torch.equal(run(x + i)[0], expected[i])
        assert len(programs) == (i > timings.TIMED)


def test_other_shapes_run_as_they_are(programs):
    run = Passes(lambda x: (x * 2,), 20)
    for num in [4] * 8 + [3] * 3:
        assert torch.equal(run(torch.ones(num))[0], torch.full((num,), 2.0))
    assert len(programs) == 1


def test_few_passes_are_not_compiled(programs, monkeypatch):
    monkeypatch.setattr(timings, "SECONDS", 10.0)
    run = Passes(noisy, 1000)
    for _ in range(20):
        run(torch.ones(3))
    assert not programs


def test_long_calls_are_compiled_where_those_that_compiling_makes_are_earned_back_too():
    calls = timings.Timings()
    calls.count, calls.seconds, calls.fastest = 3, 18.0, 6.0
    assert not calls.pays(9)  # at most 21.6 seconds, where compiling takes ten and four calls
    assert calls.pays(15)
    assert calls.pays(9, known=20.0)  # as it was before, calls and all


@pytest.mark.parametrize("what", ["encode", "decode", "sample"])
def test_what_a_vae_does_with_many_rows_is_compiled_and_the_same(what, programs, monkeypatch):
    monkeypatch.setattr(compilation.passes, "ROWS", 4)
    torch.manual_seed(0)
    vae = pv.build_vae((12,), 3, hidden=(8,))
    x = torch.bernoulli(torch.full((43, 12), 0.5))
    given = {"encode": x, "decode": torch.randn(43, 3), "sample": 43}[what]
    torch.manual_seed(1)
    got = getattr(vae, what)(given)
    assert len(programs) == 1
    monkeypatch.setattr(timings, "SECONDS", 1e9)
    torch.manual_seed(1)
    expected = getattr(vae, what)(given)
    assert len(programs) == 1
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_compiled_says_so_once_and_goes_on(programs):
    def counts(x):
        return (x + 3.0 + float(x.sum()),)

    run = Passes(counts, 10**6)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert all(torch.equal(run(torch.zeros(3))[0], torch.full((3,), 3.0)) for _ in range(12))
    assert len(said) == 1
    assert (
        "passes run without compilation from here on: Python reads the value of a tensor, in test_passes.py line"
        in str(said[0].message)
    )


def test_a_function_that_changes_when_it_runs_goes_on_as_it_is(programs):
    number = [1.0]

    def grows(x):
        number[0] += 1.0
        return (x * number[0],)

    run = Passes(grows, 10**6)
    with pytest.warns(UserWarning, match="it changes number"):
        got = [run(torch.ones(1))[0].item() for _ in range(8)]
    assert got == [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]
    assert not programs


def test_an_error_of_the_function_is_raised(programs):
    def refuses(x):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Passes(refuses, 100)(torch.ones(2))


def pair_of_functions():
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.repeat(*[1] * (z.dim() - 1), 3), 0.5).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x[:, :4] * 0.8, 0.3).to_event(1))

    return model, guide


def vae_of(prior, **options):
    return lambda: pv.build_vae((12,), 4, prior=prior, hidden=(8,), **options)


MODELS = {
    "normal": vae_of("normal"),
    "spikes and slabs": vae_of("spike-slab"),
    "exact zeros": vae_of("thresholded-laplace"),
    "bits": vae_of("bernoulli"),
    "shared sites": vae_of("beta-spike-slab", num_data=100),
    "a pair": pair_of_functions,
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_log_likelihood_is_the_same_in_recorded_passes(make, programs, monkeypatch):
    torch.manual_seed(0)
    vae, x = make(), torch.bernoulli(torch.full((8, 12), 0.5))
    monkeypatch.setattr(metrics.draws, "CHUNK", 512 * 16)  # 2 draws of 8 data at a time
    torch.manual_seed(1)
    got = metrics.importance_sampling(vae, x, 41)
    assert len(programs) == 1
    monkeypatch.setattr(timings, "SECONDS", 1e9)
    torch.manual_seed(1)
    expected = metrics.importance_sampling(vae, x, 41)
    assert len(programs) == 1
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_log_likelihood_is_the_same_compiled(monkeypatch):
    torch.manual_seed(0)
    vae, x = pv.build_vae((12,), 4, hidden=(8,)), torch.bernoulli(torch.full((8, 12), 0.5))
    monkeypatch.setattr(metrics.draws, "CHUNK", 512 * 16)
    torch.manual_seed(1)
    expected = metrics.importance_curve(vae, x, (1, 40))
    monkeypatch.setattr(timings, "SECONDS", 0.0)
    monkeypatch.setattr(timings, "RUNS", 0)
    torch.manual_seed(1)
    with warnings.catch_warnings(action="error"):
        got = metrics.importance_curve(vae, x, (1, 40))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
