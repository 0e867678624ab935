"""Names of parameters in Pyro's store: the same in every process, so that what one saves another can load."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam
from torch import Tensor, nn

import pyrovae as pv

X = torch.rand(8, 6, generator=torch.Generator().manual_seed(0)).round()


@pytest.fixture(autouse=True)
def own_store() -> object:
    with pyro.get_param_store().scope():
        yield


def make(name: str | None = None, hidden: int = 4) -> pv.VAE:
    return pv.build_vae((6,), 2, hidden=(hidden,), name=name)


def prefixes() -> list[str]:
    return list(dict.fromkeys(name.partition("$$$")[0] for name in pyro.get_param_store()))


def train(vae: pv.VAE, steps: int = 2) -> set[str]:
    """The parameters that training moves."""
    before = {name: value.clone() for name, value in vae.named_parameters()}
    svi = SVI(vae.model, vae.guide, Adam({"lr": 0.01}), Trace_ELBO())
    for _ in range(steps):
        svi.step(X)
    return {name for name, value in vae.named_parameters() if not torch.equal(value, before[name])}


def run(script: str, *args: object) -> list[dict[str, object]]:
    """The lines of JSON that a new process prints."""
    command = [sys.executable, "-c", script, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


NAMES = """
import json, pyro, torch, pyrovae as pv
x = torch.rand(4, 6).round()
models = [pv.build_vae((6,), 2, hidden=(3,)) for _ in range(4)]
for model in (models[2], models[0]):
    model.guide(x)
del models[2]  # a name that was given is not given again
named = pv.build_vae((6,), 2, hidden=(3,), name="mine")
labelled = pv.build_vae((6,), 2, hidden=(3,), num_labels=2)
gan = pv.GAN(pv.priors.Normal(2), pv.nn.MLP(2, [3], 6), pv.nn.MLP(6, [3], 1))
named.guide(x)
models[1].guide(x)
labelled.guide(x, torch.tensor([0, 1, 0, 1]))
gan.model(4)
print(json.dumps(list(pyro.get_param_store().keys())))
"""


def test_names_are_those_of_the_program_in_every_process() -> None:
    (first,), (second,) = run(NAMES), run(NAMES)
    assert first == second
    found = dict.fromkeys(str(name).partition("$$$")[0] for name in first)
    assert list(found) == ["VAE_2", "mine", "VAE_3", "ConditionalVAE", "GAN"]
    assert "mine$$$posterior.network.layers.0.weight" in first


TRAINING = """
import json, sys, pyro, torch, pyrovae as pv
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
x = torch.rand(16, 6, generator=torch.Generator().manual_seed(0)).round()
kind, role, form, folder = sys.argv[1:]

class Scale(pyro.nn.PyroModule):
    def __init__(self):
        super().__init__("scale")
        self.scale = pyro.nn.PyroParam(torch.ones(2), constraint=torch.distributions.constraints.positive)
    def forward(self):
        return pyro.sample("z", pyro.distributions.Normal(torch.zeros(2), self.scale).to_event(1))

torch.manual_seed(0 if role == "first" else 1)
prior = Scale() if kind == "PyroParam" else pv.priors.StudentT(2, learned=["df"])
likelihood = pv.likelihoods.Bernoulli(pv.nn.MLP(2, [5], 6))
vae = pv.VAE(prior, likelihood, pv.guides.Normal(pv.nn.MLP(6, [5]), 2), name="mine" if kind == "named" else None)
optim = pyro.optim.ExponentialLR({"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.02}, "gamma": 0.9})
svi = SVI(vae.model, vae.guide, optim, Trace_ELBO())
store = pyro.get_param_store()

def steps(num):
    for _ in range(num):
        print(json.dumps({"loss": svi.step(x)}))
        optim.step()

torch.manual_seed(2)
if role == "first":
    steps(4)
    if form == "files":
        store.save(f"{folder}/params")
        optim.save(f"{folder}/optim")
    else:
        torch.save((store.get_state(), optim.get_state()), f"{folder}/both")
elif form == "files":
    store.load(f"{folder}/params")
    optim.load(f"{folder}/optim")
else:
    params, state = torch.load(f"{folder}/both", weights_only=False)
    store.set_state(params)
    optim.set_state(state)
torch.manual_seed(3)
steps(4)
print(json.dumps({name: value.flatten().tolist() for name, value in vae.state_dict().items()}))
print(json.dumps({name: value.flatten().tolist() for name, value in store.items()}))
"""


@pytest.mark.parametrize(("kind", "form"), [("default", "files"), ("named", "states"), ("PyroParam", "files")])
def test_a_run_goes_on_in_a_new_process(kind: str, form: str, tmp_path: Path) -> None:
    first, second = (run(TRAINING, kind, role, form, tmp_path) for role in ("first", "second"))
    for expected, got in zip(first[4:], second, strict=True):
        assert expected.keys() == got.keys()
        for name, numbers in expected.items():
            assert got[name] == pytest.approx(numbers, rel=1e-6, abs=1e-6)


def test_what_is_loaded_goes_into_the_model_and_what_is_replaced_does_not() -> None:
    store, vae = pyro.get_param_store(), make("mine")
    assert train(vae) == {name for name, _ in vae.named_parameters()}
    saved = copy.deepcopy(store.get_state())
    weights = {name: value.clone() for name, value in vae.named_parameters()}
    train(vae)
    store.set_state(saved)  # back to the start, with the model alive
    vae.guide(X)
    assert all(torch.equal(value, weights[name]) for name, value in vae.named_parameters())
    assert train(vae) == weights.keys()
    layer = vae.likelihood.network.layers[2] = nn.Linear(4, 6)
    fresh = layer.weight.detach().clone()
    vae.model(X)
    assert torch.equal(layer.weight, fresh)
    assert store["mine$$$likelihood.network.layers.2.weight"] is layer.weight
    vae.likelihood.network.layers = nn.Sequential(nn.Linear(2, 6))  # parameters less
    vae.model(X)
    assert "mine$$$likelihood.network.layers.2.weight" not in store
    assert train(vae) == {name for name, _ in vae.named_parameters()}


def test_a_frozen_parameter_is_loaded_and_not_trained() -> None:
    store, vae = pyro.get_param_store(), make("mine")
    train(vae)
    saved, bias = copy.deepcopy(store.get_state()), vae.posterior.head.bias.detach().clone()
    del vae
    gc.collect()
    assert len(store) == 0
    store.set_state(saved)
    vae = make("mine")
    vae.posterior.head.requires_grad_(False)
    vae.model(X)
    assert not any(name.startswith("posterior.head") for name in train(vae))
    assert torch.equal(vae.posterior.head.bias, bias)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: make("mine", hidden=5), r"layers.0.weight' of shape \(4, .* this one has shape \(5, "),
        (
            lambda: pv.build_vae((6,), 2, prior="student-t:learned=df", name="mine", hidden=(4, 4)),
            "no such parameter|shape",
        ),
    ],
)
def test_what_is_loaded_from_another_model_is_refused_at_every_use(other: object, message: str) -> None:
    store, vae = pyro.get_param_store(), make("mine")
    vae.model(X)
    saved = copy.deepcopy(store.get_state())
    del vae
    gc.collect()
    store.set_state(saved)
    vae = other()  # type: ignore[operator]
    before = copy.deepcopy(vae.state_dict())
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            vae.model(X)
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    pyro.clear_param_store()
    assert train(vae) == {name for name, _ in vae.named_parameters()}


def test_one_name_for_two_live_models_is_refused() -> None:
    first, second = make("mine"), make("mine")
    first.cycle = first.prior.cycle = [first]  # only the garbage collector takes it away
    first.guide(X)
    for _ in range(2):
        with pytest.raises(ValueError, match="name 'mine' belongs to another VAE of this process"):
            second.guide(X)
    del first
    second.guide(X)
    params = dict(second.named_parameters())
    store = pyro.get_param_store()
    assert all(store[name] is params[name.partition("$$$")[2]] for name in store)
    third = copy.deepcopy(second)
    with pytest.raises(ValueError, match="set the name of this one to another, or to None"):
        third.guide(X)
    third.name = "other"
    assert train(third) == params.keys()
    third.name = "renamed"
    assert train(third) == params.keys()
    assert prefixes() == ["mine", "renamed"]


def test_a_default_name_leaves_out_those_that_are_taken() -> None:
    class Net(pv.VAE):
        pass

    def parts() -> tuple[nn.Module, nn.Module, nn.Module]:
        guide = pv.guides.Normal(pv.nn.MLP(6, [3]), 2)
        return pv.priors.Normal(2), pv.likelihoods.Bernoulli(nn.Linear(2, 6)), guide

    taken, first, second = Net(*parts(), name="Net_2"), Net(*parts()), Net(*parts())
    for each in (taken, first, second):
        each.model(X)
    assert prefixes() == ["Net_2", "Net", "Net_3"]


def test_copies_and_pickles_get_names_of_their_own() -> None:
    vae = make()
    train(vae)
    name = prefixes()[-1]
    others = copy.deepcopy(vae), pickle.loads(pickle.dumps(vae))
    for other in others:
        assert train(other) == {key for key, _ in other.named_parameters()}
        assert prefixes().count(name) == 1
    assert len(prefixes()) == 3


def test_a_tensor_that_is_not_contiguous_trains() -> None:
    vae = make()
    weight = vae.likelihood.network.layers[0].weight
    weight.data = torch.randn(*weight.shape[::-1]).T
    assert not weight.is_contiguous()
    assert train(vae) == {name for name, _ in vae.named_parameters()}


@pytest.mark.parametrize("name", ["", "a$$$b", 3])
def test_a_name_that_the_store_cannot_keep_is_refused(name: object) -> None:
    with pytest.raises(ValueError, match=r"name must be a string that is not empty and has no '\$\$\$'"):
        make(name)  # type: ignore[arg-type]


def test_a_name_is_saved_with_the_model(tmp_path: Path) -> None:
    pv.save(make("mine"), tmp_path)
    assert pv.load(tmp_path).name == "mine"


def test_options_of_an_optimizer_may_go_by_name() -> None:
    vae, seen = make("mine"), []

    def rate(name: str) -> dict[str, float]:
        seen.append(name)
        return {"lr": 0.0 if name.startswith("mine.likelihood") else 0.01}

    before: dict[str, Tensor] = copy.deepcopy(vae.state_dict())
    SVI(vae.model, vae.guide, Adam(rate), Trace_ELBO()).step(X)
    moved = {name for name, value in vae.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name, _ in vae.posterior.named_parameters(prefix="posterior")}
    assert set(seen) == {f"mine.{name}" for name, _ in vae.named_parameters()}
