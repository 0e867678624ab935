"""Each objective against exact bounds and gradients: values, options of the ELBO, importance weights, penalties."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from exact_bounds import DISCRETE_OR_MIXED, LAWS, Model, Normals, SpikesAndSlabs, X, check_unbiased, double
from linear_gaussian import data, linear_gaussian, set_exact_posterior

import pyrovae as pv
from pyrovae.objectives import draw_sites
from pyrovae.objectives.sites import Functions

START = range(3)


@pytest.mark.parametrize("start", START)
@pytest.mark.parametrize("law", [Normals, *DISCRETE_OR_MIXED])
@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(lambda: pv.ELBO(), id="default"),
        pytest.param(lambda: pv.ELBO(estimator=pv.LeaveOneOut(4)), id="leave-one-out"),
        pytest.param(lambda: pv.ELBO(num_particles=2, estimator=pv.StickingTheLanding()), id="sticking the landing"),
    ],
)
def test_gradient_of_the_elbo(law, start, loss):
    torch.manual_seed(0)
    model = Model(law, start)
    reconstruction, kl = model.terms()
    check_unbiased(model, loss(), reconstruction - kl)


@pytest.mark.parametrize("start", START)
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    "loss", [lambda: pv.IWAE(2), lambda: pv.IWAE(3), lambda: pv.Renyi(0.5, 2), lambda: pv.Renyi(2.0, 2)]
)
def test_gradient_of_importance_weighted_bounds(law, start, loss):
    torch.manual_seed(0)
    model, loss = Model(law, start), loss()
    check_unbiased(model, loss, model.importance_bound(loss.num_particles, loss.alpha))


@pytest.mark.parametrize("start", START)
@pytest.mark.parametrize("num_particles", [1, 3])
def test_gradient_of_dreg(start, num_particles):
    torch.manual_seed(0)
    model = Model(Normals, start)
    check_unbiased(model, pv.DReG(num_particles), model.importance_bound(num_particles))


# --- options of the ELBO --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("beta", [0.0, 0.5, 4.0])
def test_beta_weighs_the_kl(law, beta):
    """Value and gradient; at beta = 0 the guide learns from the reconstruction alone."""
    torch.manual_seed(0)
    model = Model(law, 1)
    reconstruction, kl = model.terms()
    check_unbiased(model, pv.ELBO(beta), reconstruction - beta * kl)
    check_value(model, pv.ELBO(beta), reconstruction - beta * kl)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("above", [True, False])
def test_capacity_pulls_the_kl_towards_it(law, above):
    torch.manual_seed(0)
    model = Model(law, 1)
    reconstruction, kl = model.terms()
    capacity = kl.item() * (0.5 if above else 1.5)
    bound = reconstruction - 3.0 * (kl - capacity).abs()
    check_unbiased(model, pv.ELBO(3.0, kl=pv.Capacity(capacity)), bound)
    check_value(model, pv.ELBO(3.0, kl=pv.Capacity(capacity)), bound)


class TwoNormals(Normals):
    """Two coordinates, of which the second has a small KL."""

    dim = 2

    def __init__(self, start):
        self.loc, self.raw = double(start[0], 0.1), double(start[1], -0.2)
        self.parameters = [self.loc, self.raw]

    def prior(self):
        return dist.Normal(torch.zeros(2).double(), 1.0).to_event(1)


def coordinate_kls(law):
    p = torch.distributions.Normal(0.0, 1.0)
    return torch.distributions.kl_divergence(torch.distributions.Normal(law.loc, law.raw.exp()), p)


@pytest.mark.parametrize(("group", "paid"), [(1, "large"), (2, "sum"), (None, "sum")])
def test_free_bits_cost_nothing(group, paid):
    """A coordinate below its free bits counts as they do and is not moved by the KL; a group is judged by its sum."""
    model = Model(TwoNormals)
    large, small = coordinate_kls(model.law)
    assert small < 0.05 < 0.5 < large
    loss = pv.ELBO(2.0, kl=pv.FreeBits(0.05, group=group))
    bound = -2 * (large + 0.05) if paid == "large" else -2 * (large + small)
    gradients = torch.autograd.grad(-bound, model.law.parameters)
    torch.manual_seed(0)
    x = X.expand(10, 3)
    drawn = {}
    for name, objective in (("free", loss), ("none", pv.ELBO(0.0))):
        torch.manual_seed(0)
        value = objective.loss_and_grads(model.model, model.guide, x) / 10
        drawn[name] = [value, *(parameter.grad.clone() / 10 for parameter in model.law.parameters)]
        for parameter in model.parameters:
            parameter.grad = None
    # at the same draws the two differ by what the KL costs
    for free, none, expected in zip(drawn["free"], drawn["none"], [-bound, *gradients], strict=True):
        difference = torch.as_tensor(free - none, dtype=torch.float64)
        torch.testing.assert_close(difference, expected.detach(), rtol=1e-9, atol=1e-9)


def test_free_bits_of_more_than_there_are_leave_the_reconstruction():
    model = Model(TwoNormals)
    losses = []
    for loss in (pv.ELBO(1.0, kl=pv.FreeBits(100.0, group=None)), pv.ELBO(0.0)):
        torch.manual_seed(0)
        losses.append(loss.loss(model.model, model.guide, X.expand(4, 3)) / 4)
    assert losses[0] - losses[1] == pytest.approx(100.0)


def test_free_bits_need_coordinates():
    vae = pv.build_vae((6,), 3, prior="mixture", likelihood="normal", hidden=(8,))
    x = torch.randn(5, 6)
    with pytest.raises(ValueError, match="site 'z': the model's MixtureSameFamily is a law of whole codes"):
        pv.ELBO(kl=pv.FreeBits(0.1)).loss(vae.model, vae.guide, x)
    pv.ELBO(kl=pv.FreeBits(0.1, group=None)).loss(vae.model, vae.guide, x)


def test_sticking_the_landing_has_no_noise_at_the_posterior():
    """Where q is the posterior each draw has the same weight: the gradient in the guide is zero, and not noise."""
    vae = linear_gaussian()
    set_exact_posterior(vae)
    x = data(vae, 20)
    for loss, quiet in ((pv.ELBO(estimator=pv.StickingTheLanding()), True), (pv.DReG(5), True), (pv.ELBO(), False)):
        vae.zero_grad()
        torch.manual_seed(0)
        loss.loss_and_grads(vae.model, vae.guide, x)
        assert (vae.posterior.head.weight.grad.abs().max() < 1e-4) == quiet


def test_path_of_a_chain_of_sites():
    """The gradient through a draw goes on through the sites whose densities it moves: z2 ~ N(a z1, 1), z1 ~ N(m, 1)."""
    loc, slope = double(0.7), double(-0.8)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            z1 = pyro.sample("z1", dist.Normal(loc, 1.0).expand([len(x)]))
            pyro.sample("z2", dist.Normal(slope * z1, 0.5))

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z1 = pyro.sample("z1", dist.Normal(0.3, 2.0).expand([len(x)]))
            z2 = pyro.sample("z2", dist.Normal(-z1, 1.0))
            pyro.sample("x", dist.Normal(z1 + z2, 1.0), obs=x)

    x = torch.full((200_000,), 0.5).double()
    # -E log p(x, z) - H(q), by the moments of z1 and z2 under q
    second = loc**2 + 1
    residual = (0.5 - (1 + slope) * loc) ** 2 + (1 + slope) ** 2 + 0.25
    cost = ((loc - 0.3) ** 2 + 1) / 8 + ((slope + 1) ** 2 * second + 0.25) / 2 + residual / 2
    exact = torch.stack(torch.autograd.grad(cost, [loc, slope]))
    for objective in (pv.ELBO(estimator=pv.StickingTheLanding()), pv.DReG(1)):
        loc.grad = slope.grad = None
        torch.manual_seed(0)
        objective.loss_and_grads(model, guide, x)
        # each number has a standard error below 0.01: six of them
        torch.testing.assert_close(torch.stack([loc.grad, slope.grad]) / len(x), exact, rtol=0, atol=0.06)


def test_spikes_first_hides_the_slabs_at_first():
    """At weight 0 the slab is N(0, 1) whatever the guide says; at 1 it is the guide's."""
    model = Model(SpikesAndSlabs, 0)
    law = model.law
    with torch.no_grad():
        law.logit.fill_(50.0)
    for weight in (0.0, 0.5, 1.0):
        loss = pv.ELBO(spikes_first=pv.constant(0.0), num_particles=1).at({"spikes_first": weight})
        torch.manual_seed(0)
        functions = Functions(model.model, model.guide, (X.expand(100_000, 3),), {})
        z = loss._draw(functions, hard=True).guide["z"]["value"]
        # within 6 standard errors
        assert abs(z.mean() - weight * law.loc).item() < 6 * law.raw.exp().item() / 300
        assert z.std().item() == pytest.approx(law.raw.exp().item() ** weight, rel=0.02)
    with pytest.raises(ValueError, match="no spike-and-slab site"):
        pv.ELBO(spikes_first=0.0).loss(*two_functions(Model(Normals)), X.expand(2, 3))


def two_functions(model):
    return model.model, model.guide


def check_value(model, loss, bound):
    """Minus the loss of 40,000 data, within 5 standard errors of the bound: a false alarm once in 2 million."""
    losses = torch.tensor([loss.loss(model.model, model.guide, X.expand(400, 3)) / 400 for _ in range(100)])
    assert abs(losses.double().mean() + bound.item()) <= 5 * losses.std() / 10 + 1e-6


@pytest.mark.parametrize(
    "options",
    [
        {"kl": pv.FreeBits(0.3)},
        {"kl": pv.FreeBits(100.0)},
        {"kl": pv.Capacity(2.0)},
        {"penalties": [pv.MMD(3.0)]},
        {"beta": 2.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("prior", ["normal", "spike-slab"])
def test_a_scale_of_the_data_is_one_of_the_whole_objective(options, prior):
    """A plate of 10 of 40 data, as ``poutine.scale``: four times the loss, and four times its gradient."""
    vae = pv.build_vae((6,), 3, prior=prior, likelihood="normal", hidden=(8,)).double()
    x = torch.randn(10, 6, generator=torch.Generator().manual_seed(1)).double()
    results = []
    for scale in (1.0, 4.0):
        torch.manual_seed(0)
        vae.zero_grad()
        pair = (pyro.poutine.scale(function, scale) for function in (vae.model, vae.guide))
        loss = pv.ELBO(**options).loss_and_grads(*pair, x)
        results.append(torch.tensor([loss, *(p.grad.norm().item() for p in vae.parameters())]).double())
    torch.testing.assert_close(results[1], 4 * results[0], rtol=1e-5, atol=1e-8)


# --- what is done at each site --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prior", "guide", "loss", "expected"),
    [
        ("laplace", None, {}, [("z", "Laplace", "Laplace", True, "path")]),
        ("laplace", "multivariate-normal", {}, [("z", "MultivariateNormal", "Laplace", False, "path")]),
        ("spike-slab", None, {}, [("z", "SpikeSlab", "SpikeSlab", True, "antithetic pair")]),
        (
            "spike-slab",
            None,
            {"estimator": pv.LeaveOneOut()},
            [("z", "SpikeSlab", "SpikeSlab", True, "path and leave-one-out score")],
        ),
        ("spike-slab", None, {"estimator": pv.Relaxed()}, [("z", "SpikeSlab", "SpikeSlab", True, "relaxed, biased")]),
        ("poisson", None, {}, [("z", "Poisson", "Poisson", True, "leave-one-out score")]),
        ("poisson", None, {"num_particles": 1}, [("z", "Poisson", "Poisson", True, "score, no baseline")]),
        ("rectified-normal", None, {}, [("z", "RectifiedNormal", "RectifiedNormal", True, "path through the atoms")]),
        ("laplace", None, {"estimator": pv.StickingTheLanding()}, [("z", "Laplace", "Laplace", False, "path")]),
    ],
)
def test_report(prior, guide, loss, expected):
    vae = pv.build_vae((6,), 3, prior=prior, guide=guide, likelihood="normal", hidden=(8,))
    report = pv.ELBO(**loss).report(vae.model, vae.guide, torch.randn(5, 6))
    assert [tuple(site) for site in report] == expected
    lines = str(report).splitlines()
    assert lines[0].split() == ["site", "guide", "model", "KL", "gradient"]
    assert lines[1].startswith("z")
    assert ("exact" in lines[1]) == expected[0][3]


def test_report_of_a_hierarchy_has_a_line_for_each_site():
    vae = pv.build_vae((6,), 3, prior="regularized-horseshoe", likelihood="normal", hidden=(8,))
    report = pv.ELBO().report(vae.model, vae.guide, torch.randn(5, 6))
    assert [site.name for site in report] == list(draw_sites(vae.model, vae.guide, (torch.randn(5, 6),), {}, 1)[1])
    assert len(report) > 1
