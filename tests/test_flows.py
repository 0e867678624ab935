"""Flow priors: the change of variables by autograd, mass, draws, caches, and what is refused."""

import copy

import numpy as np
import pyro
import pytest
import scipy.stats as st
import torch
import zuko
from checks import check_gradients, check_mass, check_moments, check_training
from pyro.distributions import transforms as T
from scipy.integrate import cumulative_trapezoid

from pyrovae import priors

FLOWS = {
    "couplings": lambda dim: priors.Flow(dim),
    "spline": lambda dim: priors.Flow(dim, [T.spline(dim)]),
    "spline coupling": lambda dim: priors.Flow(dim, [T.spline_coupling(dim), T.permute(dim)]),
    "autoregressive": lambda dim: priors.Flow(dim, [T.affine_autoregressive(dim, [8])]),
    "inverse autoregressive": lambda dim: priors.Flow(dim, [T.affine_autoregressive(dim, [8]).inv, T.householder(dim)]),
    "composed": lambda dim: priors.Flow(dim, [T.ComposeTransformModule([T.affine_coupling(dim), T.spline(dim)]).inv]),
    "zuko": lambda dim: priors.ZukoFlow(zuko.flows.NSF(features=dim, transforms=2, hidden_features=[8])),
    "zuko maf": lambda dim: priors.ZukoFlow(zuko.flows.MAF(features=dim, transforms=2, hidden_features=[8])),
}


@pytest.fixture
def double_precision():
    """Pyro's autoregressive inverse works in the default dtype only."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def flow(name, dim, size=0.3):
    """One whose parameters are far from those it starts at."""
    torch.manual_seed(0)
    prior = FLOWS[name](dim)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return prior


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", FLOWS)
def test_flow_is_the_change_of_variables(name):
    """log p(f(e)) = log N(e) - log |det df/de|, with the Jacobian by autograd through f alone."""
    d = flow(name, 3).distribution()
    assert (d.batch_shape, d.event_shape) == ((), (3,))

    def forward(e):
        for transform in d.transforms:
            e = transform(e)
        return e

    for e in torch.randn(5, 3) * 2:
        jacobian = torch.autograd.functional.jacobian(forward, e)
        expected = torch.distributions.Normal(0.0, 1.0).log_prob(e).sum() - torch.linalg.slogdet(jacobian).logabsdet
        z = forward(e).detach().clone()
        # Zuko's draws bisect or unroll, exact to about 1e-6
        torch.testing.assert_close(d.log_prob(z), expected, rtol=1e-5, atol=1e-5)


# The spread of the parameters, under which 1e-5 of the mass lies outside the grid. Pyro's splines have bins narrower
# than the grid of a plane; their mass is taken on the line, below.
MASS = {"couplings": 0.1, "autoregressive": 0.2, "inverse autoregressive": 0.2, "zuko maf": 0.2}


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", MASS)
def test_flow_has_mass_one_and_its_draws_follow_it(name):
    d = flow(name, 2, MASS[name]).distribution()
    mean, covariance = check_mass(d)
    torch.manual_seed(1)
    check_moments(d.sample((50_000,)), mean, covariance)


def test_flow_of_one_coordinate_is_a_spline():
    """50,000 draws by Kolmogorov-Smirnov: a false alarm once in 10^6."""
    torch.manual_seed(0)
    prior = priors.Flow(1).double()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(torch.randn_like(parameter))
    d = prior.distribution()
    line = torch.linspace(-9, 9, 36_001, dtype=torch.float64)
    density = d.log_prob(line[:, None]).exp().detach().numpy()
    cdf = cumulative_trapezoid(density, line.numpy(), initial=0)
    assert cdf[-1] == pytest.approx(1.0, abs=1e-5)
    assert np.abs(density - st.norm.pdf(line)).max() > 0.1, "far from the Normal it came from"
    draws = d.sample((50_000,))[:, 0].numpy()
    assert st.kstest(draws, lambda z: np.interp(z, line.numpy(), cdf)).pvalue > 1e-6


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", FLOWS)
def test_flow_in_plates_and_its_gradients(name):
    prior = flow(name, 4)
    with pyro.plate("data", 6, dim=-1):
        trace = pyro.poutine.trace(prior).get_trace()
    trace.compute_log_prob()
    z = trace.nodes["z"]["value"].detach()
    assert z.shape == (6, 4)
    assert len(z[:, -1].unique()) == 6
    assert trace.nodes["z"]["log_prob"].shape == (6,)
    d = prior.distribution()
    torch.testing.assert_close(d.log_prob(z), trace.nodes["z"]["log_prob"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(d.expand((3, 6)).log_prob(z), d.log_prob(z).expand(3, 6))
    z = torch.randn(6, 4).requires_grad_()
    near = flow(name, 4, 0.05)  # Pyro's couplings clamp log-scales beyond [-5, 3] and let the gradient through
    assert torch.autograd.gradcheck(lambda z: near.distribution().log_prob(z), z)
    check_gradients(prior, 2 * torch.randn(200, 4))


@pytest.mark.parametrize("name", FLOWS)
def test_flow_keeps_nothing_of_the_last_call(name):
    """Pyro's transforms keep their last pair: the same z after a step would have the density from before it."""
    prior = flow(name, 3)
    z = torch.randn(5, 3)
    before = prior.distribution().log_prob(z)
    before.sum().backward()
    same = copy.deepcopy(prior)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    after = prior.distribution().log_prob(z)
    assert (after - before).abs().max() > 1e-3
    after.sum().backward()
    torch.testing.assert_close(after, prior.distribution().log_prob(z.clone()))
    torch.testing.assert_close(before, same.distribution().log_prob(z))


def test_zuko_flow_has_zukos_density():
    prior = flow("zuko", 4)
    z = torch.randn(20, 4) * 2
    torch.testing.assert_close(prior.distribution().log_prob(z), prior.flow().log_prob(z), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["couplings", "zuko maf"])
def test_flow_trains(name):
    torch.manual_seed(0)
    names = {parameter for parameter, _ in FLOWS[name](4).named_parameters()}
    check_training(lambda guide, data: FLOWS[name](4), names)


NO_INVERSE = ["planar", "radial", "sylvester", "block_autoregressive", "neural_autoregressive", "polynomial"]


@pytest.mark.parametrize("name", [*NO_INVERSE, "batchnorm"])
def test_a_transform_without_inverse_is_refused(name):
    torch.manual_seed(0)
    bad, good = getattr(T, name)(3), T.affine_coupling(3)
    state, weights = torch.get_rng_state(), copy.deepcopy(bad.state_dict())
    with pytest.raises(ValueError, match=f"transforms: .*{type(bad).__name__}"):
        priors.Flow(3, [good, bad])
    priors.Flow(3, [good])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[key]) for key, value in bad.state_dict().items())
