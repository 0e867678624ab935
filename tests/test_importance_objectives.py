"""What importance-weighted objectives do beside their gradient: scales, shared sites, the value of each datum."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from exact_bounds import LAWS, Model, X, double
from pyro import poutine
from pyro.infer import SVI

import pyrovae as pv
from pyrovae import metrics

OBJECTIVES = [lambda: pv.IWAE(4), lambda: pv.Renyi(0.5, 4), lambda: pv.DReG(4)]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("alpha", [0.0, 0.5, 2.0])
def test_value_of_the_bound(law, alpha):
    """Within 5 standard errors of the sum over states; between the ELBO and log p(x)."""
    torch.manual_seed(0)
    model = Model(law, 1)
    exact = model.importance_bound(2, alpha).item()
    losses = torch.tensor([pv.Renyi(alpha, 2).loss(model.model, model.guide, X.expand(400, 3)) for _ in range(100)])
    assert abs(losses.double().mean() / 400 + exact) <= 5 * losses.std() / 400 / 10
    reconstruction, kl = model.terms()
    probs, likelihood, log_p, log_q = model.tables()
    evidence = (probs.log() + likelihood + log_p - log_q).logsumexp(0)
    assert exact < evidence
    assert (reconstruction - kl < exact) == (alpha < 1), "beyond 1 it is below the ELBO"


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_scale_stays_outside_of_the_logarithm(objective):
    """A plate of 10 of 40 data: four times the bound of the ten, and of its gradient."""
    torch.manual_seed(3)
    vae = pv.build_vae((6,), 2, likelihood="normal", hidden=(8,))
    x = torch.randn(10, 6)
    results = []
    for scale in (1.0, 4.0):
        torch.manual_seed(0)
        vae.zero_grad()
        model, guide = poutine.scale(vae.model, scale), poutine.scale(vae.guide, scale)
        loss = objective().loss_and_grads(model, guide, x)
        results.append(torch.tensor([loss, *(p.grad.norm().item() for p in vae.parameters() if p.grad is not None)]))
    torch.testing.assert_close(results[1], 4 * results[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("objective", [lambda: pv.ELBO(), *OBJECTIVES])
def test_a_subsampled_plate_bounds_all_the_data(objective):
    """The mean over all batches of 2 of 4 data is the bound of the four, within 5 standard errors."""
    x = torch.tensor([1.5, -0.3, 0.2, 3.0])
    loc = torch.tensor([0.4, 0.1, -0.2, 0.9])

    def model(batch=4):
        with pyro.plate("data", 4, subsample_size=batch, dim=-1) as rows:
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([len(rows)]))
            pyro.sample("x", dist.Normal(z, 0.7), obs=x[rows])

    def guide(batch=4):
        with pyro.plate("data", 4, subsample_size=batch, dim=-1) as rows:
            pyro.sample("z", dist.Normal(loc[rows], 0.6))

    torch.manual_seed(0)
    losses = torch.tensor([[objective().loss(model, guide, batch) for batch in (4, 2)] for _ in range(1500)]).double()
    assert abs(losses[:, 0].mean() - losses[:, 1].mean()) < 5 * math.hypot(*(losses.std(0) / 1500**0.5))


@pytest.mark.parametrize("num_particles", [1, 20])
@pytest.mark.parametrize("objective", [lambda k: pv.ELBO(num_particles=k), pv.IWAE, pv.DReG])
@pytest.mark.parametrize("batch", [6, 2])
def test_a_site_that_all_data_share_is_drawn_once(objective, num_particles, batch):
    """w ~ N(0, 1) for all, z_n ~ N(w, 1), x_n ~ N(z_n, 1) with q(z_n|w) exact: each weight is p(x_n|w), so that the
    bound is the ELBO of w whatever K is; with a w for each draw it would grow with K, beyond the true log p(x). On
    batches of two the data count three times, and w once."""
    x = torch.tensor([1.5, -0.3, 0.2, 3.0, 2.0, 0.5]).double()
    loc, raw = double(0.3), double(-0.5)

    def model(x):
        w = pyro.sample("w", dist.Normal(torch.tensor(0.0).double(), 1.0))
        with pyro.plate("data", len(x), subsample_size=batch, dim=-1) as rows:
            z = pyro.sample("z", dist.Normal(w.expand(*w.shape[:-1], batch), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows])

    def guide(x):
        w = pyro.sample("w", dist.Normal(loc, raw.exp()))
        with pyro.plate("data", len(x), subsample_size=batch, dim=-1) as rows:
            pyro.sample("z", dist.Normal((w + x[rows]) / 2, math.sqrt(0.5)))

    variance = raw.exp() ** 2
    elbo = -0.5 * len(x) * math.log(4 * math.pi) - (((x - loc) ** 2).sum() + len(x) * variance) / 4
    elbo = elbo - dist.Normal(loc, raw.exp()).entropy() * -1 - 0.5 * math.log(2 * math.pi) - (loc**2 + variance) / 2
    exact = torch.stack(torch.autograd.grad(-elbo, [loc, raw]))
    torch.manual_seed(0)
    values, gradients = [], []
    loss = objective(num_particles)
    for _ in range(1500):
        loc.grad = raw.grad = None
        values.append(loss.loss_and_grads(model, guide, x))
        gradients.append(torch.stack([loc.grad, raw.grad]))
    values, gradients = torch.tensor(values).double(), torch.stack(gradients)
    assert abs(values.mean() + elbo.detach()) <= 5 * values.std() / 1500**0.5
    assert ((gradients.mean(0) - exact).abs() <= 5 * gradients.std(0) / 1500**0.5).all()


PRIORS = ["normal", "laplace", "spike-slab", "bernoulli", "beta-spike-slab", "vamp", "poisson"]


@pytest.mark.parametrize("prior", PRIORS)
def test_under_pyros_svi_and_under_fit(prior):
    torch.manual_seed(0)
    vae = pv.build_vae((6,), 3, prior=prior, likelihood="normal", hidden=(8,), num_data=32, inputs=torch.randn(32, 6))
    x = torch.randn(32, 6)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), pv.IWAE(5))
    before = {name: parameter.clone() for name, parameter in vae.named_parameters()}
    assert math.isfinite(svi.step(x))
    assert all(not torch.equal(before[name], parameter) for name, parameter in vae.named_parameters())
    pv.fit(vae, x, epochs=2, loss=pv.IWAE(3), val=x, progress=False)


def test_the_gain_over_the_elbo_grows_with_k():
    torch.manual_seed(0)
    model = Model(LAWS[1], 1)
    x = X.expand(4000, 3)
    values = [-objective.loss(model.model, model.guide, x) / 4000 for objective in (pv.ELBO(), pv.IWAE(5), pv.IWAE(50))]
    values.append(metrics.log_likelihood((model.model, model.guide), x, 500).mean().item())
    assert values == sorted(values)
    assert values[-1] - values[0] > 0.1


@pytest.mark.parametrize("prior", ["spike-slab", "bernoulli", "rectified-normal"])
def test_dreg_refuses_what_has_no_path(prior):
    vae = pv.build_vae((6,), 3, prior=prior, likelihood="normal", hidden=(8,))
    with pytest.raises(ValueError, match=r"DReG: site 'z' has no path .* use pyrovae.IWAE"):
        pv.DReG(3).loss(vae.model, vae.guide, torch.randn(4, 6))


def test_scales_that_differ_are_refused():
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([len(x)]))
            with poutine.scale(scale=0.5):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(0.0, 1.0).expand([len(x)]))

    with pytest.raises(ValueError, match="one scale for all sites of a datum"):
        pv.IWAE(3).loss(model, guide, torch.randn(4))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_point_is_refused(objective):
    vae = pv.build_vae((6,), 3, guide="delta", likelihood="normal", hidden=(8,))
    with pytest.raises(ValueError, match="site 'z' of the guide is a point"):
        objective().loss(vae.model, vae.guide, torch.randn(4, 6))
