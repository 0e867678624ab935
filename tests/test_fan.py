"""The fan: its support, its guide, its exact bound, and what training makes of it."""

import numpy as np
import pytest
import torch
from cases.fan import code, directions
from torch.distributions import Normal, kl_divergence

import pyrovae as pv
from pyrovae import guides, priors
from pyrovae.distributions import Fan
from pyrovae.distributions.fan import FanSupport, fan_code, fan_planes, planes_and_rays
from pyrovae.nn import MLP


@pytest.mark.parametrize("rays", [3, 4, 5, 12, 40])
def test_a_code_has_two_neighbouring_rays_and_loses_nothing(rays):
    """Each plane against sectors and a linear solve in numpy; then back. Draws miss every edge of a sector by 1e-9."""
    torch.manual_seed(0)
    s = torch.randn(200, 6, dtype=torch.float64)
    z = fan_code(s, rays)
    expected = [[code(plane, rays) for plane in row.reshape(3, 2)] for row in s.numpy()]
    np.testing.assert_allclose(z.numpy(), np.reshape(expected, (200, -1)), atol=1e-12)
    assert ((z != 0).unflatten(-1, (3, rays)).sum(-1) == 2).all()
    torch.testing.assert_close(fan_planes(z, rays), s)


def test_the_zeros_of_float32_are_exact():
    """10,000 codes of 12 planes: draws within rounding of a ray may add a coordinate, 1e-6 of them."""
    torch.manual_seed(0)
    z = priors.Fan(144).distribution().sample((10_000,))
    assert ((z != 0).sum(-1) - 24).abs().sum() <= 3
    assert pv.metrics.supports(z).density.sub(1 / 6).abs().max() < 5 * (5 / 36 / 10_000) ** 0.5


def test_the_support_is_at_most_two_neighbours_that_are_not_negative():
    support = FanSupport(4)
    inside = torch.tensor([[0.0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 3, 0.1], [1, 0, 0, 1]])
    outside = torch.tensor([[1.0, 0, 1, 0], [-1, 0, 0, 0], [1, 1, 1, 0], [0.5, 0, -0.1, 0]])
    assert support.check(inside).all()
    assert not support.check(outside).any()
    assert not support.check(torch.zeros(2, 6)).any()
    q = Fan(torch.zeros(2), torch.ones(2), 4, validate_args=True)
    with pytest.raises(ValueError, match=r"within the support"):
        q.log_prob(outside[0])


def test_the_kl_is_that_of_the_normals_and_of_draws():
    """100,000 draws, within 5 standard errors: a false alarm once in 10^6."""
    torch.manual_seed(0)
    q = Fan(torch.tensor([0.4, -1.0, 2.0, 0.0]), torch.tensor([0.3, 0.9, 0.1, 2.0]), 5)
    p = Fan(torch.zeros(4), torch.ones(4), 5)
    kl = kl_divergence(q, p)
    torch.testing.assert_close(kl, kl_divergence(Normal(q.loc, q.scale), Normal(p.loc, p.scale)).sum())
    z = q.sample((100_000,))
    ratio = q.log_prob(z) - p.log_prob(z)
    assert (ratio.mean() - kl).abs() <= 5 * ratio.std() / 100_000**0.5
    with pytest.raises(NotImplementedError):
        kl_divergence(q, Fan(torch.zeros(4), torch.ones(4), 6))


def test_the_guide_and_its_code():
    torch.manual_seed(0)
    guide, x = guides.Fan(MLP(3, [4]), 10, rays=5), torch.randn(6, 3)
    q, head = guide.distribution(x), guide.head(guide.network(x)).detach()
    assert (q.batch_shape, q.event_shape, guide.head.out_features) == ((6,), (10,), 8)
    torch.testing.assert_close(q.scale, torch.nn.functional.softplus(head[:, 4:]) + 1e-5)
    expected = [[code(plane, 5) for plane in row.reshape(2, 2)] for row in head[:, :4].numpy()]
    np.testing.assert_allclose(guide.encode(x).detach().numpy(), np.reshape(expected, (6, 10)), atol=1e-6)
    q.rsample().pow(3).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in guide.parameters())


def test_the_evidence_is_that_of_a_normal_whose_decoder_reads_the_code():
    """log p(x) of a linear Gaussian model in closed form, by 20,000 importance samples; the bound lies below."""
    torch.manual_seed(0)
    vae = pv.build_vae((4,), 5, "fan", "normal:scale=0.5", network="dictionary", hidden=(8,))
    axes = torch.tensor(directions(5)).float()
    with torch.no_grad():  # the atom of a ray is its direction in a plane of x, so that the decoder reads s alone
        basis = torch.linalg.qr(torch.randn(4, 2))[0]
        vae.likelihood.network.linear.weight.copy_(basis @ axes.T)
        vae.likelihood.network.linear.bias.zero_()
        vae.posterior.head.weight.zero_()
        vae.posterior.head.bias.copy_(torch.tensor([0.0, 0.0, 0.6, 0.6]))  # near the prior, and wider
    x = torch.randn(3, 4)
    exact = torch.distributions.MultivariateNormal(torch.zeros(4), basis @ basis.T + 0.25 * torch.eye(4)).log_prob(x)
    estimate = pv.metrics.log_likelihood(vae, x, num_samples=20_000)
    torch.testing.assert_close(estimate, exact, atol=0.1, rtol=0)
    measured = pv.metrics.elbo(vae, x)
    assert measured.kl_is_exact
    bounds = torch.stack([pv.metrics.elbo(vae, x).reconstruction for _ in range(200)]).mean(0) - measured.kl
    assert (bounds < exact).all()


def test_build_chooses_rays_and_tells_the_guide(tmp_path):
    assert {dim: priors.Fan(dim).rays for dim in (3, 4, 16, 50, 64, 144, 240)} == {
        3: 3, 4: 4, 16: 16, 50: 10, 64: 16, 144: 12, 240: 12
    }  # fmt: skip
    vae = pv.build_vae((6,), 16, "fan:rays=8", hidden=(4,))
    assert (vae.config["guide"], vae.posterior.rays) == ("fan:rays=8", 8)
    pv.save(vae, tmp_path / "model")
    x = torch.ones(2, 6)
    torch.testing.assert_close(pv.load(tmp_path / "model").encode(x), vae.encode(x))
    assert vae.sample(3).shape == (3, 6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: priors.Fan(40, rays=7), r"dim must be a multiple of rays = 7, got 40: take 35 or 42"),
        (lambda: priors.Fan(4, rays=7), r"dim must be a multiple of rays = 7, got 4: take 7 or 14"),
        (lambda: priors.Fan(40, rays=2), r"rays must be a whole number of at least 3, got 2"),
        (lambda: guides.Fan(MLP(3, [4]), 2), r"dim must be a whole number of at least 3, .*, got 2"),
        (lambda: Fan(torch.zeros(3), torch.ones(3), 5), r"loc must have two columns for each plane, got shape \(3,\)"),
        (
            lambda: pv.build_vae((6,), 8, "fan:rays=8", guide="fan:rays=4"),
            r"support Fan\(rays=4\) but .*Fan\(rays=8\)",
        ),
        (lambda: pv.build_vae((6,), 16, "fan", guide="normal"), r"guide Normal has support .*; guides that fit: fan$"),
    ],
)
def test_bad_input_is_one_line(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_supports_of_digits_differ_by_datum_where_the_bound_is_the_normals():
    """Digits, 20 epochs: within 2.5 nats of the Normal's bound (1.9), and the supports follow the label."""
    data = pv.data.digits(binarize="dynamic")
    bounds = {}
    for prior, dim in (("normal", 8), ("fan:rays=12", 48)):
        torch.manual_seed(0)
        vae = pv.build_vae((64,), dim, prior, hidden=(128,))
        pv.fit(vae, data, epochs=20, optim=pv.optim.adam(lr=3e-3), seed=0, progress=False)
        measured = pv.metrics.elbo(vae, data.test)
        bounds[prior] = (measured.reconstruction - measured.kl).mean().item()
    z = vae.encode(data.test)
    variety = pv.metrics.support_variety(z, data.labels["test"])
    assert bounds["fan:rays=12"] > bounds["normal"] - 2.5
    assert pv.metrics.exact_zeros(z) > 0.8
    assert variety.within < variety.between - 0.05
    assert variety.jaccard > 0.6
    assert pv.metrics.supports(z).density.max() < 0.95


@pytest.mark.parametrize(
    ("dim", "expected"), [(144, (12, 12)), (10, (1, 10)), (10**8, (10**7, 10)), (10**9 + 7, (1, 10**9 + 7))]
)
def test_the_usual_number_of_rays_divides_the_latents_and_is_near_twelve(dim, expected):
    assert planes_and_rays(dim) == expected
