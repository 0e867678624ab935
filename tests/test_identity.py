"""A resumed run must have the loss and the optimizer that it was begun with, down to each number in them."""

from dataclasses import dataclass
from functools import partial

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO

import pyrovae as pv
from pyrovae.adversarial import NonSaturating
from pyrovae.train import Checkpoint
from pyrovae.train.descriptions import optimizer_text, text_of

X = torch.bernoulli(torch.full((20, 8), 0.3), generator=torch.Generator().manual_seed(0))
VAE = pv.build_vae((8,), 2, hidden=(6,))


class Priced:
    """A penalty of a user's own."""

    def __init__(self, weight):
        self._weight = weight

    def __call__(self, model, guide):
        return torch.tensor(self._weight)


@dataclass(frozen=True)
class Nested:
    penalty: object

    def __call__(self, model, guide):
        return self.penalty(model, guide)


def closure(weight):
    return lambda model, guide: weight * torch.ones(())


def with_default(weight):
    def penalty(model, guide, weight=weight):
        return weight * torch.ones(())

    return penalty


def weighted(model, guide, weight):
    return weight * torch.ones(())


def penalised(penalty):
    return pv.ELBO(penalties=[penalty])


MATRIX = torch.eye(2)
LOSSES = {
    "beta": (pv.ELBO(1.0), pv.ELBO(0.5)),
    "tensor": (pv.ELBO(torch.tensor(1.0)), pv.ELBO(torch.tensor(0.5))),
    "warmup": (pv.ELBO(pv.warmup(2)), pv.ELBO(pv.warmup(2, start=0.1))),
    "cycles": (pv.ELBO(pv.cyclical(8, cycles=4)), pv.ELBO(pv.cyclical(8, cycles=8))),
    "rise": (pv.ELBO(pv.cyclical(8, rise=0.5)), pv.ELBO(pv.cyclical(8, rise=0.51))),
    "function": (pv.ELBO(lambda epoch: min(1.0, 0.1 * epoch)), pv.ELBO(lambda epoch: min(1.0, 0.2 * epoch))),
    "estimator": (pv.ELBO(), pv.ELBO(estimator=pv.StraightThrough())),
    "temperature": (pv.ELBO(estimator=pv.Relaxed(0.5)), pv.ELBO(estimator=pv.Relaxed(0.4))),
    "free bits": (pv.ELBO(kl=pv.FreeBits(0.1)), pv.ELBO(kl=pv.FreeBits(0.2))),
    "group": (pv.ELBO(kl=pv.FreeBits(0.1)), pv.ELBO(kl=pv.FreeBits(0.1, group=2))),
    "capacity": (pv.ELBO(kl=pv.Capacity(pv.warmup(5))), pv.ELBO(kl=pv.Capacity(pv.warmup(5, end=2.0)))),
    "particles": (pv.ELBO(num_particles=2), pv.ELBO(num_particles=3)),
    "spikes first": (pv.ELBO(spikes_first=pv.warmup(2)), pv.ELBO(spikes_first=pv.warmup(3))),
    "L2": (penalised(pv.L2(0.1, VAE)), penalised(pv.L2(0.2, VAE))),
    "L1 and L2": (penalised(pv.L1(0.1, VAE)), penalised(pv.L2(0.1, VAE))),
    "L2 of a part": (penalised(pv.L2(0.1, VAE)), penalised(pv.L2(0.1, VAE.likelihood))),
    "total correlation": (penalised(pv.TotalCorrelation(1.0, 20)), penalised(pv.TotalCorrelation(1.0, 30))),
    "mmd": (penalised(pv.MMD(1.0)), penalised(pv.MMD(1.0, bandwidth=2.0))),
    "a class": (penalised(Priced(0.1)), penalised(Priced(0.2))),
    "inside another": (penalised(Nested(Priced(0.1))), penalised(Nested(Priced(0.2)))),
    "closure": (penalised(closure(0.1)), penalised(closure(0.2))),
    "closure of a tensor": (penalised(closure(MATRIX)), penalised(closure(2 * MATRIX))),
    "default": (penalised(with_default(0.1)), penalised(with_default(0.2))),
    "partial": (penalised(partial(weighted, weight=0.1)), penalised(partial(weighted, weight=0.2))),
    "method": (penalised(Priced(0.1).__call__), penalised(Priced(0.2).__call__)),
    "constant": (penalised(lambda m, g: 0.1 * m["x"]), penalised(lambda m, g: 0.2 * m["x"])),
    "iwae": (pv.IWAE(5), pv.IWAE(6)),
    "renyi": (pv.Renyi(0.5), pv.Renyi(0.4)),
    "pyro": (Trace_ELBO(), TraceMeanField_ELBO()),
    "pyro's particles": (Trace_ELBO(), Trace_ELBO(num_particles=2)),
    "game": (NonSaturating(1.0), NonSaturating(2.0)),
    "critic": (NonSaturating(1.0), NonSaturating(1.0, critic_steps=2)),
}
SCHEDULER = {"optimizer": torch.optim.SGD, "optim_args": {"lr": 0.3}}
OPTIMS = {
    "rate": (pv.optim.adam(1e-3), pv.optim.adam(1e-2)),
    "betas": (pv.optim.adam(1e-3), pv.optim.adam(1e-3, betas=(0.8, 0.999))),
    "epsilon": (pv.optim.adam(1e-3), pv.optim.adam(1e-3, eps=1e-6)),
    "batch": (pv.optim.sgd(pv.optim.cosine(0.1, 3), 16), pv.optim.sgd(pv.optim.cosine(0.1, 3), 17)),
    "schedule": (pv.optim.adam(pv.optim.cosine(0.1, 3)), pv.optim.adam(pv.optim.cosine(0.1, 3, warmup=1))),
    "fall": (
        pv.optim.adam(pv.optim.step_decay(0.1, 400, factor=0.1)),
        pv.optim.adam(pv.optim.step_decay(0.1, 401, factor=0.1)),
    ),
    "other numbers": (
        pv.optim.adam(pv.optim.cosine(0.1, 3)),
        pv.optim.adam(pv.optim.cosine(0.1, 3), betas=(0.8, 0.999)),
    ),
    "plateau": (pv.optim.adam(pv.optim.plateau(0.1)), pv.optim.adam(pv.optim.plateau(0.1, patience=5))),
    "by name": (pyro.optim.Adam(lambda name: {"lr": 0.1}), pyro.optim.Adam(lambda name: {"lr": 0.2})),
    "clipping": (pyro.optim.Adam({"lr": 0.1}), pyro.optim.Adam({"lr": 0.1}, {"clip_value": 1.0})),
    "decay": (pv.optim.adamw(1e-3), pv.optim.adamw(1e-3, weight_decay=0.1)),
    "gamma": (
        pyro.optim.ExponentialLR({**SCHEDULER, "gamma": 0.9}),
        pyro.optim.ExponentialLR({**SCHEDULER, "gamma": 0.8}),
    ),
}


@pytest.mark.parametrize("case", LOSSES)
def test_another_number_of_a_loss_is_another_text(case):
    one, other = map(text_of, LOSSES[case])
    assert one != other
    assert one == text_of(LOSSES[case][0])


@pytest.mark.parametrize("case", OPTIMS)
def test_another_number_of_an_optimizer_is_another_text(case):
    one, other = map(optimizer_text, OPTIMS[case])
    assert one != other


def test_training_changes_no_text():
    vae = pv.build_vae((8,), 2, hidden=(6,))
    loss = pv.ELBO(pv.warmup(1), penalties=[pv.L2(0.1, vae), closure(next(vae.parameters()))])
    optim = pv.optim.adam(pv.optim.cosine(0.1, 1))
    before = text_of(loss), optimizer_text(optim)
    pv.fit(vae, X, 1, 8, optim, loss, progress=False, compile=False)
    assert (text_of(loss), optimizer_text(optim)) == before
    assert " at 0x" not in "".join(before)


def test_values_that_hold_themselves_end():
    first, penalty = [1], Priced(0.1)
    first.append(first)
    penalty.again = penalty
    assert text_of(first) == "(1, list)"
    assert "again=Priced" in text_of(penalty)


@pytest.mark.parametrize("what", ["loss", "optimizer", "model"])
def test_a_resumed_run_is_refused_with_other_numbers(what, tmp_path):

    def fit(weight, lr, num_data, resume=False):
        torch.manual_seed(0)
        vae = pv.build_vae((8,), 2, prior="beta-bernoulli", num_data=num_data, hidden=(6,))
        optim = pyro.optim.Adam(lambda name: {"lr": lr})
        loss = pv.ELBO(penalties=[pv.L2(weight, vae)])
        data = X[:num_data]
        checkpoint = Checkpoint(tmp_path / "run", resume=resume)
        return pv.fit(vae, data, 1, 8, optim, loss, progress=False, compile=False, callbacks=[checkpoint])

    fit(0.1, 0.1, 20)
    other = {"loss": (0.2, 0.1, 20), "optimizer": (0.1, 0.2, 20), "model": (0.1, 0.1, 16)}[what]
    with pytest.raises(ValueError, match=f"resume: the run in '.*' has another {what}"):
        fit(*other, resume=True)
    assert fit(0.1, 0.1, 20, resume=True)["epoch"] == [1]
