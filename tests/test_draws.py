"""Functions that are right for one draw and not for several are found out, and the others pass."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoNormal
from torch import nn

import pyrovae as pv
from pyrovae.objectives import check_draws

X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


def two_functions(likelihood, guide_loc=None):
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
            likelihood(z, x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            loc = x[:, :2] if guide_loc is None else guide_loc(x)
            pyro.sample("z", dist.Normal(loc, 0.5).to_event(1))

    return model, guide


def observe(loc, x):
    pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


W = torch.tensor([[1.0, 0.5, -0.3], [0.2, -1.0, 0.7]])
RIGHT = {
    "matrix product": lambda z, x: observe(z @ W, x),
    "factor": lambda z, x: (observe(z @ W, x), pyro.factor("f", -z.square().sum(-1))),
    "dropout": lambda z, x: observe(DROPOUT(z) @ W, x),
}
WRONG = {
    "mean over the batch": (lambda z, x: observe((z - z.mean(0)) @ W, x), "x"),
    "first draw": (lambda z, x: observe((z if z.dim() == 2 else z[:1]) @ W, x), "x"),
    "sum over all": (lambda z, x: observe(z @ W + z.sum(), x), "x"),
    "softmax of another dim": (lambda z, x: observe(z.softmax(0) @ W, x), "x"),
    "factor": (lambda z, x: (observe(z @ W, x), pyro.factor("f", -z.square().sum(-1).flatten()[: len(x)])), "f"),
}
DROPOUT = nn.Dropout(0.5)


@pytest.mark.parametrize("name", RIGHT)
def test_functions_that_are_right_pass(name):
    model, guide = two_functions(RIGHT[name])
    before = torch.get_rng_state()
    for num_draws in (1, 2, 6):
        check_draws(model, guide, (X,), {}, num_draws)
    assert torch.equal(before, torch.get_rng_state())
    assert DROPOUT.training


@pytest.mark.parametrize("num_draws", [2, 5, 6])
@pytest.mark.parametrize("name", WRONG)
def test_functions_that_are_wrong_are_refused(name, num_draws):
    likelihood, site = WRONG[name]
    model, guide = two_functions(likelihood)
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=f"right for one draw and not for {num_draws}: .* site '{site}'"):
        check_draws(model, guide, (X,), {}, num_draws)
    assert torch.equal(before, torch.get_rng_state())
    check_draws(model, guide, (X,), {}, 1)


@pytest.mark.parametrize("loss", [pv.ELBO(num_particles=3), pv.ELBO(estimator=pv.LeaveOneOut(3)), pv.IWAE(3)])
def test_the_first_step_refuses_them(loss):
    model, guide = two_functions(WRONG["sum over all"][0])
    svi = pv.SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), loss)
    with pytest.raises(ValueError, match="right for one draw and not for 3"):
        svi.step(X)
    pv.SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), pv.ELBO()).step(X)


def test_a_view_of_the_rows_is_an_error_that_says_why():
    model, guide = two_functions(lambda z, x: observe(z.view(len(x), 2) @ W, x))
    with pytest.raises(ValueError, match=r"run at one draw and fail at 3 draws: .*index dimensions from the right"):
        check_draws(model, guide, (X,), {}, 3)


def test_a_guide_is_checked_too():
    def chained(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
            pyro.sample("w", dist.Normal(z.sum((0, -1)) if z.dim() == 2 else z.sum((0, 1, 2)), 1.0))

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
            pyro.sample("w", dist.Normal(0.0, 1.0))
            observe(z @ W, x)

    with pytest.raises(ValueError, match=r"the guide is right for one draw and not for 3: .* site 'w'"):
        check_draws(model, chained, (X,), {}, 3)


def test_functions_with_noise_of_their_own_pass():
    check_draws(*two_functions(lambda z, x: observe(z @ W + torch.randn(z.shape[-2], 3), x)), (X,), {}, 3)


@pytest.mark.parametrize("prior", ["normal", "spike-slab", "poisson", "beta-spike-slab", "regularized-horseshoe"])
def test_every_vae_passes(prior):
    vae = pv.build_vae((6,), 3, prior=prior, likelihood="normal", hidden=(8,), num_data=20)
    check_draws(vae.model, vae.guide, (torch.randn(5, 6),), {}, 3)


def test_batch_statistics_are_left_alone():
    norm = nn.BatchNorm1d(3)

    def likelihood(z, x):
        loc = z @ W
        observe(norm(loc.flatten(0, -2)).reshape(loc.shape), x)

    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    check_draws(*two_functions(likelihood), (X,), {}, 4)
    assert norm.training
    assert all(torch.equal(before[name], buffer) for name, buffer in norm.named_buffers())


@pytest.mark.parametrize("auto", [AutoNormal, AutoDiagonalNormal, AutoDelta])
@pytest.mark.parametrize("right", [True, False])
def test_automatic_guides_and_subsampled_plates(auto, right):
    pyro.clear_param_store()

    def model(x):
        tau = pyro.sample("tau", dist.HalfCauchy(1.0))
        with pyro.plate("data", len(x), subsample_size=3, dim=-1) as rows:
            pyro.sample("y", dist.Normal(0.0, tau if right else tau.sum()), obs=x[rows, 0])

    guide = auto(model)
    guide(X)
    if right:
        check_draws(model, guide, (X,), {}, 3)
    else:
        with pytest.raises(ValueError, match=r"the model is right for one draw and not for 3: .* site 'y'"):
            check_draws(model, guide, (X,), {}, 3)


def test_the_number_of_draws_of_an_objective():
    """What a caller gives to ``check_draws``."""
    for prior, draws in (("normal", 1), ("spike-slab", 1), ("poisson", 2)):
        vae = pv.build_vae((6,), 3, prior=prior, likelihood="normal", hidden=(8,))
        x = torch.randn(5, 6)
        assert pv.ELBO().num_draws(vae.model, vae.guide, x) == draws
        assert pv.ELBO(num_particles=7).num_draws(vae.model, vae.guide, x) == 7
        assert pv.ELBO(estimator=pv.LeaveOneOut(4)).num_draws(vae.model, vae.guide, x) == 4
    assert pv.IWAE(5).num_draws(vae.model, vae.guide, x) == 5
