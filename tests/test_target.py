"""A target number of active latents: it is met, at the truth the features are found, and what cannot be met is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_cli import pyrovae

import pyrovae as pv
from pyrovae.data.synthetic import SparseFeatures
from pyrovae.features import Moves, TargetL0

SOURCE = SparseFeatures(8, 12, 0.25, noise=0.05, orthonormal=True)  # two of eight features are active
X = SOURCE.sample(800, 0).data


def model(likelihood: str = "normal:floor=0.03", prior: str = "spike-slab") -> pv.VAE:
    torch.manual_seed(0)
    return pv.build_vae((12,), 10, prior=prior, likelihood=likelihood, network="dictionary", inputs=X)


def train(vae: pv.VAE, target: TargetL0, epochs: int = 20, x: torch.Tensor = X) -> None:
    torch.manual_seed(0)
    callbacks = [*([Moves(X, times=5)] if Moves.are_possible(vae) else []), target]
    pv.fit(vae, x, epochs=epochs, batch_size=100, optim=pv.optim.adam(lr=1e-2), callbacks=callbacks, seed=0,
           progress=False, compile=False)  # fmt: skip


def l0(vae: pv.VAE, x: torch.Tensor) -> float:
    return pv.metrics.nonzero_probability(vae, x)[0].sum(1).mean().item()


@pytest.mark.parametrize("wanted", [1.0, 2.0])
def test_new_data_have_the_number_of_active_latents_that_was_asked_for(wanted):
    """The eight features are found at 2, the truth, and at half of it. A mean of 4,000 counts has an error of 0.02."""
    vae, target = model(), TargetL0(X, wanted)
    train(vae, target)
    test = SOURCE.sample(4000, 7).data
    assert abs(l0(vae, test) - wanted) < 0.1 * wanted
    assert abs(target.l0 - wanted) < 0.1 * wanted
    assert f"{target.l0:.2f} latents are active per datum at noise scale" in target.summary()
    found = pv.metrics.decoder_mcc(pv.metrics.dictionary(vae), SOURCE.features).score
    assert found > 0.98


SHORT = pytest.mark.filterwarnings("ignore:target L0")  # too short to reach it


@SHORT
def test_the_noise_is_learned_again_after_the_run_and_was_not_in_it():
    vae, target = model(), TargetL0(X, 1.5)
    seen = []

    class Watch(pv.train.Callback):
        def on_step_end(self, run):
            seen.append((vae.likelihood.scale.raw.requires_grad, vae.likelihood.scale().item()))

    pv.fit(vae, X, epochs=1, batch_size=100, callbacks=[target, Watch()], seed=0, progress=False)
    assert not any(learned for learned, _ in seen)
    steps = torch.tensor([scale for _, scale in seen]).log().diff().abs()
    assert steps.max() < 0.1001
    assert vae.likelihood.scale.raw.requires_grad


def test_a_target_that_is_not_reached_is_said_at_the_end():
    """Eight steps move the scale by a factor of two."""
    with pytest.warns(UserWarning, match=r"target L0 6 is not reached: \d\.\d\d latents are active per datum at noise"):
        train(model(), TargetL0(X, 6.0), epochs=1)


@SHORT
def test_resumed_it_goes_on_as_if_nothing_had_happened(tmp_path):
    whole, halves = model(), model()
    train(whole, TargetL0(X, 1.5), epochs=4)

    class Stop(pv.train.Callback):
        at = 13

        def on_step_end(self, run):
            if run.step == self.at:
                raise KeyboardInterrupt

    def go_on():
        torch.manual_seed(0)
        callbacks = [Moves(X, times=5), TargetL0(X, 1.5), Stop()]
        pv.fit(halves, X, epochs=4, batch_size=100, optim=pv.optim.adam(lr=1e-2), callbacks=callbacks, seed=0,
               progress=False, compile=False, out=tmp_path / "run", resume=True)  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        go_on()
    Stop.at = -1
    go_on()
    for a, b in zip(whole.parameters(), halves.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("likelihood", "prior", "wanted", "message"),
    [
        ("bernoulli", "spike-slab", 2.0, "learned scale of a Normal or Laplace likelihood, got Bernoulli"),
        ("normal:scale=0.1", "spike-slab", 2.0, "learned scale .* got Normal with a fixed scale"),
        ("normal", "laplace", 2.0, "codes with exact zeros, got the guide Laplace"),
        ("normal", "spike-slab", 10.0, "target must be below the number of latents, 10, got 10"),
    ],
)
def test_what_has_no_such_number_is_refused(likelihood, prior, wanted, message):
    x = (X > 0.5).float() if likelihood == "bernoulli" else X
    with pytest.raises(pv.train.CallbackError, match=message):
        train(model(likelihood, prior), TargetL0(x, wanted), 1, x)


@pytest.mark.parametrize("wanted", [0, -1.0, float("nan"), float("inf"), "8"])
def test_a_target_is_a_number_above_zero(wanted):
    with pytest.raises(ValueError, match="target must be a number above 0"):
        TargetL0(X, wanted)


def test_the_command_refuses_it_before_it_trains(tmp_path, capsys):
    np.save(tmp_path / "x.npy", X.numpy())
    command = f"fit {tmp_path / 'x.npy'} --out {tmp_path / 'run'} --target-l0 20 --likelihood normal"
    assert pyrovae(f"{command} --prior spike-slab --network dictionary") == 2
    assert "--target-l0: target must be below the number of latents, 16, got 20" in capsys.readouterr().err
    assert pyrovae(command) == 2
    assert "--target-l0: TargetL0 needs codes with exact zeros, got the guide Normal" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
