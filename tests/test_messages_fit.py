"""What ``fit`` says about an argument of the wrong kind: one line, which names the argument."""

import numpy as np
import pyro
import pytest
import torch
from torch import nn

import pyrovae as pv

X = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))


def build(width=6, network=None):
    likelihood = pv.likelihoods.Normal(pv.nn.MLP(2, [4], 6))
    return pv.VAE(pv.priors.Normal(2), likelihood, pv.guides.Normal(network or pv.nn.MLP(width, [4], 8), 2))


class Short(nn.Module):
    """A network of a user's own, whose last layer has another width than its first."""

    out_features = 8

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 8)

    def forward(self, x):
        return self.layer(x)


def fit(vae=None, data=X, epochs=1, batch_size=8, **options):
    vae = build() if vae is None else vae
    return pv.fit(vae, data, epochs, batch_size, **{"progress": False, "compile": False, **options})


SHAPES = {
    "network": (
        lambda: fit(build(7)),
        r"data: a batch of shape \(8, 6\) fails: the network takes .*\(7,\), got \(8, 6\)",
    ),
    "validation": (
        lambda: fit(val=X[:10, :5]),
        r"val: a batch of shape \(8, 5\) fails: the network takes .*\(6,\), got",
    ),
    "batches": (lambda: fit(data=[X[:8], X[:8, :5]]), r"data: a batch of shape \(8, 5\) fails: the network takes"),
    "own network": (lambda: fit(build(network=Short())), r"data: a batch of shape \(8, 6\) fails: .*shapes cannot be"),
}


@pytest.mark.parametrize("case", SHAPES)
def test_a_batch_that_does_not_fit_is_one_line_and_has_its_cause(case):
    call, message = SHAPES[case]
    with pytest.raises((ValueError, RuntimeError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert "Trace Shapes" in str(caught.value.__cause__)


def test_a_pair_of_another_width_names_the_data():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", pyro.distributions.Normal(torch.zeros(5), 1.0).to_event(1), obs=x)

    message = r"data: a batch of shape \(8, 6\) fails: x has shape \(6,\) per datum, the likelihood \(5,\)"
    with pytest.raises(ValueError, match=message):
        fit((model, lambda x: None))


ARGUMENTS = {
    "epochs as text": ({"epochs": "3"}, "epochs must be a positive whole number, got '3'"),
    "no epochs": ({"epochs": None}, "epochs must be a positive whole number, got None"),
    "True epochs": ({"epochs": True}, "epochs must be a positive whole number, got True"),
    "patience as text": ({"patience": "2"}, "patience must be a positive whole number, got '2'"),
    "half a patience": ({"patience": 1.5}, "patience must be a positive whole number, got 1.5"),
    "seed as text": ({"seed": "2"}, "seed must be a whole number or None, got '2'"),
    "half a seed": ({"seed": 1.5}, "seed must be a whole number or None, got 1.5"),
    "clip_norm as text": ({"clip_norm": "1"}, "clip_norm must be positive, got '1'"),
    "loss as text": ({"loss": "elbo"}, r"loss must be an objective, such as pyrovae.ELBO\(\), got 'elbo'"),
    "loss as class": ({"loss": pv.ELBO}, r"loss must be an objective, such as pyrovae.ELBO\(\), got the class ELBO"),
    "one callback": ({"callbacks": pv.train.Callback()}, "callbacks must be a list, got Callback"),
    "folder as number": ({"out": 3}, "out must be the path of a folder, got 3"),
    "data as number": ({"data": 3}, "data must be a tensor, a Dataset or batches of tensors, got int"),
    "data as name": ({"data": "digits"}, r"data must be a tensor, .* got str: pyrovae.data.load\('digits'\)"),
    "no data": ({"data": None}, "data must be a tensor, a Dataset or batches of tensors, got NoneType"),
    "val as number": ({"val": 3}, "val must be a tensor, a Dataset or batches of tensors, got int"),
    "val as name": ({"val": "digits"}, "val must be a tensor, a Dataset or batches of tensors, got str"),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_an_argument_of_the_wrong_kind_is_named(case):
    options, message = ARGUMENTS[case]
    with pytest.raises((ValueError, TypeError), match=f"^{message}") as caught:
        fit(**{"val": X[:9], **options})
    assert "\n" not in str(caught.value)


def test_numbers_of_numpy_are_numbers():
    history = fit(
        epochs=np.int64(1),
        batch_size=np.int64(8),
        seed=np.int64(3),
        patience=np.int32(1),
        clip_norm=np.float32(1),
        val=X,
    )
    assert history["epoch"] == [1]
