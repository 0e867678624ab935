"""Pyro's automatic guides under pyrovae's objectives: their numbers are those of Trace_ELBO, and they train."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoIAFNormal,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
)

import pyrovae as pv

NORMALS = [AutoNormal, AutoDiagonalNormal, AutoMultivariateNormal, AutoLowRankMultivariateNormal]
X = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
WEIGHTS = torch.tensor([2.0, -1.5, 1.0, 0.0, 0.0])
Y = X @ WEIGHTS + 0.3 * torch.randn(30, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def own_parameters():
    with pyro.get_param_store().scope():
        yield


def horseshoe(x, y):
    """Global sites alone; the data in a plate."""
    tau = pyro.sample("tau", dist.HalfCauchy(1.0))
    lam = pyro.sample("lam", dist.HalfCauchy(torch.ones(5)).to_event(1))
    b = pyro.sample("b", dist.Normal(0.0, lam * tau[..., None]).to_event(1))
    s = pyro.sample("s", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("y", dist.Normal((x @ b[..., None])[..., 0] if b.dim() == 1 else (b @ x.T).squeeze(-2), s), obs=y)


def local(x, y):
    """A positive site of each datum, and two that all data share, one of them on the simplex."""
    tau = pyro.sample("tau", dist.HalfCauchy(1.0))
    w = pyro.sample("w", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("data", len(x), dim=-1):
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        pyro.sample("y", dist.Normal(tau * rate + w[..., 0], 1.0), obs=y)


def no_plate(x, y):
    """All data are one event."""
    tau = pyro.sample("tau", dist.HalfCauchy(1.0))
    w = pyro.sample("w", dist.Dirichlet(torch.ones(3)))
    s = pyro.sample("s", dist.Gamma(2.0, 1.0))
    loc = ((tau * w[..., 0])[..., None] * x[:, 0]).reshape(*tau.shape, 30)
    pyro.sample("y", dist.Normal(loc, s[..., None]).to_event(1), obs=y)


MODELS = [horseshoe, local, no_plate]
LOSSES = [pv.ELBO(), pv.ELBO(estimator=pv.StickingTheLanding()), pv.IWAE(1), pv.Renyi(0.5, 1), pv.DReG(1)]


def near(auto, model):
    """A guide of little width, so that means of few draws have small errors."""
    torch.manual_seed(0)
    guide = auto(model, init_scale=0.05) if auto is not AutoDelta else auto(model)
    guide(X, Y)
    return guide


def assert_equal_means(a, b):
    """Within 5 standard errors of the difference: a false alarm once in 1.7 million."""
    error = math.hypot(a.std() / len(a) ** 0.5, b.std() / len(b) ** 0.5)
    assert abs(a.mean() - b.mean()) <= 5 * error + 1e-4 * abs(b.mean())


@pytest.mark.parametrize("auto", [*NORMALS, AutoDelta])
@pytest.mark.parametrize("model", MODELS)
def test_the_elbo_is_that_of_trace_elbo(auto, model):
    """At the same draws, with the Jacobian of each constrained site; four draws give each its own densities."""
    guide = near(auto, model)
    for loss in LOSSES:
        if auto is AutoDelta and model is local and isinstance(loss, pv.Renyi):
            with pytest.raises(ValueError, match=r"site 'rate' of the guide is a point \(Delta\)"):
                loss.loss(model, guide, X, Y)
            continue
        for seed in range(3):
            values = []
            for each in (loss, Trace_ELBO()):
                torch.manual_seed(seed)
                values.append(each.loss(model, guide, X, Y))
            assert values[0] == pytest.approx(values[1], rel=1e-5)
    pv.objectives.check_draws(model, guide, (X, Y), {}, 4)
    many = torch.tensor([pv.ELBO(num_particles=20).loss(model, guide, X, Y) for _ in range(20)])
    assert_equal_means(many, torch.tensor([Trace_ELBO().loss(model, guide, X, Y) for _ in range(100)]))


@pytest.mark.parametrize("auto", [AutoNormal, AutoDiagonalNormal])
def test_importance_weights_with_local_sites(auto):
    """A site of each datum gains from more draws under AutoNormal, which draws it in the plate of the data; the other
    guides have one auxiliary site that all data share, so the bound is the ELBO. Gradients of IWAE and DReG agree."""
    guide = near(auto, local)
    values, gradients = {}, {}
    for loss in (pv.ELBO(num_particles=1), pv.IWAE(3), pv.DReG(3)):
        draws, slopes = [], []
        for _ in range(100):
            for parameter in guide.parameters():
                parameter.grad = None
            draws.append(loss.loss_and_grads(local, guide, X, Y))
            slopes.append(torch.cat([p.grad.flatten() for p in guide.parameters()]))
        values[type(loss)], gradients[type(loss)] = torch.tensor(draws), torch.stack(slopes)
    assert_equal_means(values[pv.IWAE], values[pv.DReG])
    if auto is AutoNormal:
        assert values[pv.IWAE].mean() < values[pv.ELBO].mean()
    else:
        assert_equal_means(values[pv.IWAE], values[pv.ELBO])
    a, b = gradients[pv.IWAE], gradients[pv.DReG]
    error = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()
    assert ((a.mean(0) - b.mean(0)).abs() <= 5 * error + 1e-4).all()


def test_dreg_of_shared_sites_is_iwae():
    """All latents are shared: the same value at the same draws, and the exact gradient within 5 standard errors."""

    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("y", dist.Normal(w, 1.0), obs=x)

    loc, raw = (torch.nn.Parameter(torch.tensor(v)) for v in (0.4, -0.6))

    def guide(x):
        pyro.sample("w", dist.Normal(loc, raw.exp()))

    x = X[:, 0]
    variance = (2 * raw).exp()
    bound = -((x - loc) ** 2 + variance).sum() / 2 - (loc**2 + variance) / 2 + raw
    exact = torch.stack(torch.autograd.grad(-bound, [loc, raw]))
    gradients = []
    for seed in range(300):
        values = []
        for loss in (pv.IWAE(3), pv.DReG(3)):
            torch.manual_seed(seed)
            loc.grad = raw.grad = None
            values.append(loss.loss_and_grads(model, guide, x))
        assert values[0] == pytest.approx(values[1], rel=1e-6)
        gradients.append(torch.stack([loc.grad, raw.grad]))
    gradients = torch.stack(gradients)
    assert ((gradients.mean(0) - exact).abs() <= 5 * gradients.std(0) / 300**0.5).all()


def test_dreg_of_a_chain_of_sites():
    """z2 depends on z1: three draws have the gradient of IWAE(3), by 200,000 data; each number within 6 standard
    errors of the difference, which are below 2 % of the largest."""
    loc, slope, raw = (torch.nn.Parameter(torch.tensor(v).double()) for v in (0.7, -0.8, -0.5))

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            z1 = pyro.sample("z1", dist.Normal(loc, 1.0).expand([len(x)]))
            pyro.sample("z2", dist.Normal(slope * z1, raw.exp()))

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z1 = pyro.sample("z1", dist.Normal(0.3, 2.0).expand([len(x)]))
            z2 = pyro.sample("z2", dist.Normal(-z1, 1.0))
            pyro.sample("x", dist.Normal(z1 + z2, 1.0), obs=x)

    x, means = torch.full((4000,), 0.5).double(), []
    for loss in (pv.IWAE(3), pv.DReG(3)):
        torch.manual_seed(0)
        draws = []
        for _ in range(50):
            loc.grad = slope.grad = raw.grad = None
            loss.loss_and_grads(model, guide, x)
            draws.append(torch.stack([loc.grad, slope.grad, raw.grad]) / len(x))
        draws = torch.stack(draws)
        means.append((draws.mean(0), draws.std(0) / 50**0.5))
    (a, error_a), (b, error_b) = means
    error = (error_a**2 + error_b**2).sqrt()
    assert ((a - b).abs() <= 6 * error).all()
    assert (6 * error < 0.1 * a.abs().max()).all()


@pytest.mark.parametrize("loss", [pv.ELBO(), pv.IWAE(2)], ids=["ELBO", "IWAE"])
@pytest.mark.parametrize("auto", [AutoNormal, AutoDiagonalNormal])
def test_a_horseshoe_regression_finds_its_coefficients(auto, loss):
    torch.manual_seed(0)
    guide = auto(horseshoe)
    svi = SVI(horseshoe, guide, pyro.optim.Adam({"lr": 0.03}), loss)
    for _ in range(500):
        svi.step(X, Y)
    torch.testing.assert_close(guide.median(X, Y)["b"], WEIGHTS, rtol=0, atol=0.25)


def test_an_inverse_autoregressive_guide_trains():
    torch.manual_seed(0)
    guide = AutoIAFNormal(no_plate)
    svi = SVI(no_plate, guide, pyro.optim.Adam({"lr": 1e-3}), pv.ELBO())
    assert all(math.isfinite(svi.step(X, Y)) for _ in range(3))


def test_fit_takes_an_automatic_guide():
    guide = AutoNormal(horseshoe)
    guide(X, Y)
    history = pv.fit((horseshoe, guide), (X, Y), epochs=5, batch_size=None, progress=False, seed=0)
    assert all(map(math.isfinite, history["train_loss"]))


def test_a_point_outside_the_support_is_refused():
    def model():
        tau = pyro.sample("tau", dist.HalfCauchy(1.0))
        pyro.sample("y", dist.Normal(0.0, tau.abs()), obs=torch.tensor(1.0))

    with pytest.raises(
        ValueError, match=r"site 'tau' has support GreaterThan.* but a Delta with a value outside of it"
    ):
        pv.ELBO().loss(model, lambda: pyro.sample("tau", dist.Delta(torch.tensor(-1.0))))


@pytest.mark.parametrize(
    ("density", "guides"),
    [
        (pv.distributions.SpikeSlab(torch.zeros(2), dist.Normal(torch.zeros(2), 1.0)), "SpikeSlab"),
        (pv.distributions.RectifiedNormal(torch.zeros(2), torch.ones(2)), "RectifiedNormal"),
        (pv.distributions.HardConcrete(torch.zeros(2)), "HardConcrete"),
    ],
)
def test_an_atom_is_named(density, guides):
    """AutoNormal and NUTS ask for a bijection from the real line, which a support with an atom has not."""

    def model():
        z = pyro.sample("z", density.to_event(1))
        pyro.sample("y", dist.Normal(z.sum(-1), 1.0), obs=torch.tensor(1.0))

    expected = rf"atom at zero.*pyrovae\.guides\.{guides}"
    with pytest.raises(NotImplementedError, match=expected):
        AutoNormal(model)()
    with pytest.raises(NotImplementedError, match=expected):
        pyro.infer.MCMC(pyro.infer.NUTS(model), num_samples=1, warmup_steps=1, disable_progbar=True).run()
