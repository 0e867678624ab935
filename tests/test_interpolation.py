"""Ways between two codes, and traversals from a code of one's own."""

import pyro
import pytest
import torch
from cases import Linear
from scipy.spatial import geometric_slerp

import pyrovae as pv
from pyrovae import guides, likelihoods, priors
from pyrovae.metrics import interpolations, traversals


@pytest.fixture(autouse=True)
def alone():
    with pyro.get_param_store().scope(), torch.random.fork_rng():
        yield


def vae(prior, guide, dim=3, columns=5):
    torch.manual_seed(0)
    decoder = torch.nn.Linear(dim, columns)
    return pv.VAE(prior, likelihoods.Normal(decoder), guide(Linear(columns), dim)).double()


def data(num=6, seed=0, columns=5):
    return torch.randn(num, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_real_codes_are_on_the_straight_line_and_decoded_there():
    module, x, y = vae(priors.Normal(3), guides.Normal), data(), data(seed=1)
    ways = interpolations(module, x, y, 5)
    a, b = module.encode(x), module.encode(y)
    for step in range(5):
        torch.testing.assert_close(ways.codes[:, step], a + step / 4 * (b - a))
        torch.testing.assert_close(ways.decoded[:, step], module.decode(ways.codes[:, step]))
    torch.testing.assert_close(ways.decoded[:, [0, -1]], torch.stack([module.reconstruct(x), module.reconstruct(y)], 1))


def test_codes_of_the_sphere_go_along_the_great_circle():
    module, x, y = vae(priors.HypersphericalUniform(3), guides.PowerSpherical), data(), data(seed=1)
    ways = interpolations(module, x, y, 7)
    a, b = module.encode(x), module.encode(y)
    for codes, start, end in zip(ways.codes, a, b, strict=True):
        expected = geometric_slerp(start.numpy(), end.numpy(), torch.linspace(0, 1, 7).double().numpy())
        torch.testing.assert_close(codes, torch.from_numpy(expected), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ways.codes.norm(dim=-1), torch.ones(6, 7).double())
    near = interpolations(module, x, x + 1e-9, 4).codes
    torch.testing.assert_close(near, a[:, None].expand(-1, 4, -1), rtol=0, atol=1e-7)


def test_sparse_and_simplex_codes_stay_among_their_own():
    sparse = vae(priors.SpikeSlab(3), guides.SpikeSlab)
    with torch.no_grad():
        sparse.posterior.head.bias[-3:] = torch.tensor([-60.0, 60.0, 60.0])
    codes = interpolations(sparse, data(), data(seed=1), 4).codes
    assert (codes[..., 0] == 0).all()
    assert (codes[..., 1:] != 0).all()
    simplex = vae(priors.Dirichlet(3), guides.Dirichlet)
    codes = interpolations(simplex, data(), data(seed=1), 4).codes
    assert (codes >= 0).all()
    torch.testing.assert_close(codes.sum(-1), torch.ones(6, 4).double())


def test_what_has_no_way_between():
    module, x = vae(priors.Normal(3), guides.Normal), data()
    with pytest.raises(ValueError, match=r"y must have the shape of x, \(6, 5\), got \(5, 5\)"):
        interpolations(module, x, x[:5])
    with pytest.raises(ValueError, match="num_values must be at least 2, got 1"):
        interpolations(module, x, x, 1)
    with pytest.raises(ValueError, match="prior Bernoulli has discrete codes"):
        interpolations(vae(priors.Bernoulli(3), guides.Bernoulli), x, x)
    sphere = vae(priors.HypersphericalUniform(3), guides.PowerSpherical)
    with torch.no_grad():
        sphere.posterior.head.bias.zero_()
    with pytest.raises(ValueError, match="opposite codes on the sphere"):
        interpolations(sphere, x, -x)


def test_a_traversal_from_a_code_has_its_own_coordinates_and_keeps_the_others():
    module, x = vae(priors.Normal(3), guides.Normal), data(200)
    z = module.encode(x)
    centre = z.std(0, correction=0) * torch.tensor([0.5, -3.0, 1.0])
    runs = traversals(module, x, 2, 4, centre=centre)
    assert runs.coordinates.tolist() == [1, 2]
    for j, values, decoded in zip(*runs, strict=True):
        moved = centre.repeat(4, 1)
        moved[:, j] = values
        torch.testing.assert_close(decoded, module.decode(moved))
    torch.testing.assert_close(runs.values[0], traversals(module, x, 3, 4).values[_place(module, x, 1)])
    with pytest.raises(ValueError, match=r"centre must be a code of shape \(3,\), got \(6, 3\)"):
        traversals(module, x, centre=z[:6])


def _place(module, x, coordinate):
    return traversals(module, x, 3, 4).coordinates.tolist().index(coordinate)
