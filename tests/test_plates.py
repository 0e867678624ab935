"""Objectives of models with several plates, with disjoint plates and with none, against sums and closed forms."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from exact_bounds import double
from pyro.infer.autoguide import AutoNormal

import pyrovae as pv
from pyrovae.distributions import Bernoulli

G, N = 3, 4
GENERATOR = torch.Generator().manual_seed(0)
Y = (torch.randn(G, N, generator=GENERATOR) + torch.tensor([[-1.0], [0.5], [2.0]])).double()
GROUP = torch.tensor([0, 0, 1, 2, 2, 2, 1, 0, 2, 1])
FLAT = (torch.randn(10, generator=GENERATOR) + GROUP).double()
ESTIMATORS = [pv.DisARM(), pv.LeaveOneOut(), pv.StickingTheLanding()]


class Locations:
    """y_gn ~ N(theta_g + mu, 1), theta_g ~ N(0, 1), mu ~ N(0, 1): a regression with an intercept for each group."""

    def __init__(self):
        self.loc, self.raw = double(0.3, -0.4, 0.8), double(-0.5, 0.1, -1.0)
        self.mu, self.raw_mu = double(0.2), double(-0.7)
        self.parameters = [self.loc, self.raw, self.mu, self.raw_mu]

    def model(self, y):
        mu = pyro.sample("mu", dist.Normal(torch.zeros(()).double(), 1.0))
        with pyro.plate("group", G, dim=-2):
            theta = pyro.sample("theta", dist.Normal(torch.zeros(G, 1).double(), 1.0))
            with pyro.plate("data", N, dim=-1):
                pyro.sample("y", dist.Normal(theta + mu[..., None, None] if mu.dim() == 1 else theta + mu, 1.0), obs=y)

    def guide(self, y):
        pyro.sample("mu", dist.Normal(self.mu[0], self.raw_mu[0].exp()))
        with pyro.plate("group", G, dim=-2):
            pyro.sample("theta", dist.Normal(self.loc[:, None], self.raw.exp()[:, None]))

    def exact(self):
        variance, variance_mu = (2 * self.raw).exp(), (2 * self.raw_mu).exp()
        residual = (Y - self.loc[:, None] - self.mu) ** 2 + variance[:, None] + variance_mu
        kl = 0.5 * (self.loc**2 + variance - 1).sum() - self.raw.sum()
        kl_mu = 0.5 * (self.mu**2 + variance_mu - 1).sum() - self.raw_mu.sum()
        return -(residual / 2 + math.log(2 * math.pi) / 2).sum() - kl - kl_mu


class Bits:
    """y ~ N(2 b_g, 1) with a bit for each group, of probability 0.3; a score function where the bits have no path."""

    def __init__(self):
        self.logits = double(-1.0, 0.4, 1.5)
        self.parameters = [self.logits]

    def prior(self):
        return Bernoulli(logits=torch.full((G,), math.log(0.3 / 0.7), dtype=torch.float64))

    def sums(self, log_prob):
        """The bound, from log p(y_g|b) for both values of each bit, ``(2, G)``."""
        q = torch.stack([(-self.logits).sigmoid(), self.logits.sigmoid()])
        return (q * (log_prob - q.log() + double(0.7, 0.3).detach()[:, None].log())).sum()


class NestedBits(Bits):
    def model(self, y):
        with pyro.plate("group", G, dim=-2):
            bit = pyro.sample("bit", Bernoulli(logits=self.prior().logits[:, None]))
            with pyro.plate("data", N, dim=-1):
                pyro.sample("y", dist.Normal(2 * bit, 1.0), obs=Y)

    def guide(self, y):
        with pyro.plate("group", G, dim=-2):
            pyro.sample("bit", Bernoulli(logits=self.logits[:, None]))

    def exact(self):
        return self.sums(torch.stack([dist.Normal(m, 1.0).log_prob(Y).sum(1) for m in (0.0, 2.0)]))


class DisjointBits(Bits):
    """The plate of the groups and that of the data stand side by side, at the same dim."""

    def model(self, y):
        with pyro.plate("group", G, dim=-1):
            bit = pyro.sample("bit", self.prior())
        with pyro.plate("data", len(FLAT), dim=-1):
            pyro.sample("y", dist.Normal(2 * bit[..., GROUP], 1.0), obs=FLAT)

    def guide(self, y):
        with pyro.plate("group", G, dim=-1):
            pyro.sample("bit", Bernoulli(logits=self.logits))

    def exact(self):
        each = torch.stack([dist.Normal(m, 1.0).log_prob(FLAT) for m in (0.0, 2.0)])
        return self.sums(torch.stack([each[:, g == GROUP].sum(1) for g in range(G)], 1))


class NoPlate(Bits):
    """All of it is one datum."""

    def model(self, y):
        bits = pyro.sample("bit", self.prior().to_event(1))
        pyro.sample("y", dist.Normal(2 * bits[..., GROUP], 1.0).to_event(1), obs=FLAT)

    def guide(self, y):
        pyro.sample("bit", Bernoulli(logits=self.logits).to_event(1))

    exact = DisjointBits.exact


def check_against(make, loss, repeats):
    """Value and gradient within 5 standard errors: a false alarm once in 1.7 million for each number; the largest
    derivative is at least 10 of its own."""
    torch.manual_seed(0)
    case = make()
    bound = case.exact()
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(-bound, case.parameters)])
    values, gradients = [], []
    for _ in range(repeats):
        for parameter in case.parameters:
            parameter.grad = None
        values.append(loss.loss_and_grads(case.model, case.guide, Y))
        gradients.append(torch.cat([p.grad.flatten() for p in case.parameters]))
    values, gradients = torch.tensor(values).double(), torch.stack(gradients)
    assert abs(values.mean() + bound.item()) <= 5 * values.std() / repeats**0.5 + 1e-6
    error = gradients.std(0) / repeats**0.5
    assert ((gradients.mean(0) - exact).abs() <= 5 * error + 1e-9).all()
    assert exact.abs().max() > 10 * error.max()


@pytest.mark.parametrize("num_particles", [1, 5])
@pytest.mark.parametrize("estimator", [None, pv.StickingTheLanding()])
def test_nested_plates(num_particles, estimator):
    check_against(Locations, pv.ELBO(estimator=estimator, num_particles=num_particles), 250)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
@pytest.mark.parametrize("make", [NestedBits, DisjointBits, NoPlate])
def test_bits_in_plates(make, estimator):
    check_against(make, pv.ELBO(estimator=estimator, num_particles=20), 120)


@pytest.mark.parametrize("kl", [pv.FreeBits(0.2, group=None), pv.FreeBits(0.2), pv.Capacity(3.0)], ids=repr)
def test_kl_forms_in_nested_plates(kl):
    """The KL of the bits, whose mean over the groups decides, against the formula; at the same draws."""
    case = NestedBits()
    q = case.logits.sigmoid()
    each = q * (q / 0.3).log() + (1 - q) * ((1 - q) / 0.7).log()
    assert each.mean() > 0.2
    expected = each.sum() if isinstance(kl, pv.FreeBits) else (each.sum() - 3.0 * G * N).abs()
    losses = []
    for loss in (pv.ELBO(kl=kl), pv.ELBO(0.0)):
        torch.manual_seed(0)
        losses.append(loss.loss(case.model, case.guide, Y))
    assert losses[0] - losses[1] == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("num_particles", [1, 3])
def test_plates_whose_dims_pyro_chooses(num_particles):
    """The plate of draws stands left of them: the value is that of one draw, within 5 standard errors."""
    pyro.clear_param_store()
    x = torch.randn(N, G, generator=torch.Generator().manual_seed(1))

    def model(x):
        scale = pyro.sample("scale", dist.LogNormal(0.0, 0.3))
        with pyro.plate("group", G):
            theta = pyro.sample("theta", dist.Normal(0.0, 1.0))
            with pyro.plate("data", N):
                pyro.sample("x", dist.Normal(theta, scale), obs=x)

    guide = AutoNormal(model)
    torch.manual_seed(0)
    values = [
        torch.tensor([loss.loss(model, guide, x) for _ in range(100)])
        for loss in (pv.ELBO(num_particles=num_particles), pyro.infer.Trace_ELBO())
    ]
    assert abs(values[0].mean() - values[1].mean()) < 5 * math.hypot(*(v.std() / 10 for v in values))


@pytest.mark.parametrize("loss", [pv.IWAE(3), pv.Renyi(0.5, 3), pv.DReG(3), pv.DReG(1)], ids=repr)
def test_importance_weights_need_one_data_plate(loss):
    case = Locations()
    with pytest.raises(
        ValueError,
        match=r"(IWAE|Renyi|DReG) has one number for each datum, .* site 'theta' stands in "
        r"\{'group': -2\}.*pyrovae.ELBO takes any plates",
    ):
        loss.loss(case.model, case.guide, Y)


@pytest.mark.parametrize("make", [pv.IWAE, lambda k: pv.Renyi(0.5, k), pv.DReG])
@pytest.mark.parametrize("num_draws", [1, 4])
def test_importance_weights_of_a_model_without_plates_are_the_elbo(make, num_draws):
    """All sites are shared and drawn once: the number of one draw of ELBO at the same seed."""
    loc = double(0.3)

    def model(x):
        w = pyro.sample("w", dist.Normal(torch.zeros(()).double(), 1.0))
        pyro.sample("x", dist.Normal(w[..., None].expand(*w.shape, 10), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.sample("w", dist.Normal(loc[0], 1.0))

    def numbers(loss):
        torch.manual_seed(0)
        loc.grad = None
        return loss.loss_and_grads(model, guide, FLAT), loc.grad.item()

    assert numbers(make(num_draws))[1] == pytest.approx(numbers(make(1))[1])
    assert numbers(make(1)) == pytest.approx(numbers(pv.ELBO(num_particles=1)))


def test_a_dimension_without_a_plate_is_named():
    def model(x):
        with pyro.plate("data", 10, dim=-1):
            pyro.sample("x", dist.Normal(torch.zeros(3, 10), 1.0), obs=x)

    with pytest.raises(ValueError, match=r"site 'x' has batch shape \(3, 10\).*do not cover the dims \[-2\].*to_event"):
        pv.ELBO().loss(model, lambda x: None, torch.zeros(3, 10))


def test_measurements_need_one_data_plate():
    case = Locations()
    with pytest.raises(ValueError, match=r"a measurement has one number for each datum, .* site 'theta'"):
        pv.metrics.elbo((case.model, case.guide), Y, 5)
