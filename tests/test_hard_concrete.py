"""Hard-concrete gates: gradients of the gate alone and of the hierarchy, and who may train it."""

import numpy as np
import pytest
import torch
from cases import double
from cases.clamped import HardConcrete as Reference
from gradients import check_gradient, exact_reconstruction, finite_differences, one_datum
from pyro.infer import RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from scipy.special import expit, logit
from torch.distributions import kl_divergence

import pyrovae as pv
from pyrovae import guides, priors
from pyrovae.distributions import HardConcrete
from pyrovae.distributions.hard_concrete import GatedNormal


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("temperature", [0.1, 2 / 3, 2.0])
@pytest.mark.parametrize("logits", [-4.0, 0.3, 2.5])
@pytest.mark.parametrize("path", [True, False])
def test_gradient_of_an_expectation(path, logits, temperature):
    """E cos(2h) in both parameters: wholly pathwise, and by the score of the part and the path within it.

    400,000 draws, 36 numbers in all within 5 standard errors: a false alarm once in 48,000 seeds.
    """
    torch.manual_seed(0)
    values = [torch.full((400_000,), v, requires_grad=True) for v in (logits, temperature)]
    d = HardConcrete(*values)
    h = d.rsample_pathwise() if path else d.rsample()
    f = torch.cos(2 * h)
    if not path:
        f = f + (f - f.mean()).detach() * d.score_parts(h).score_function
    gradients = torch.autograd.grad(f.sum(), values)
    for k, gradient in enumerate(gradients):

        def expectation(step, k=k):
            point = [v + step * (i == k) for i, v in enumerate((logits, temperature))]
            return Reference(*point).expectation(lambda h: np.cos(2 * h))

        exact = (expectation(1e-4) - expectation(-1e-4)) / 2e-4
        assert (gradient.mean() - exact).abs() <= 5 * gradient.std() / 400_000**0.5 + 1e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_gates_are_finite(dtype):
    """Values, draws, KL and their gradients at logits of ±40 and temperatures of 0.05 to 2."""
    torch.manual_seed(1)
    logits = torch.tensor([-40.0, -15.0, 0.0, 15.0, 40.0], dtype=dtype)[:, None].expand(5, 3).clone().requires_grad_()
    temperature = torch.tensor([0.05, 2 / 3, 2.0], dtype=dtype).expand(5, 3).clone().requires_grad_()
    q, p = HardConcrete(logits, temperature), HardConcrete(logits.flip(0), temperature.flip(1))
    h = q.rsample((5_000,))
    parts = q.score_parts(h)
    total = h.sum() + q.rsample_pathwise((5_000,)).sum() + parts.log_prob.sum() + parts.score_function.sum()
    kl = kl_divergence(q, p)
    (total + kl.sum() + q.mean.sum() + q.entropy().sum()).backward()
    assert torch.isfinite(kl).all()
    assert torch.isfinite(logits.grad).all()
    assert torch.isfinite(temperature.grad).all()
    assert ((h >= 0) & (h <= 1)).all()
    assert kl_divergence(q, q).abs().max() < 20 * torch.finfo(dtype).eps


def test_activity_is_the_formula_of_the_paper():
    """P(h ≠ 0) = sigmoid(log alpha - tau log(-gamma / zeta)), Louizos et al. (2018), eq. 12."""
    d = HardConcrete(double([-3.0, 0.2, 5.0]), double(0.4))
    np.testing.assert_allclose(d.active, expit(np.array([-3.0, 0.2, 5.0]) - 0.4 * np.log(0.1 / 1.1)), rtol=1e-12)
    np.testing.assert_allclose(d.log_prob(double(0.0)).exp(), 1 - d.active, rtol=1e-12)


def test_a_gated_normal_is_zero_where_its_gate_is():
    gate = double([0.0, 0.3, 1.0]).requires_grad_()
    d = GatedNormal(gate, double(0.5), double(2.0), double(0.6))
    z = d.rsample()
    assert (z == 0).tolist() == [True, False, False]
    assert d.log_prob(double([0.0, 0.2, 0.2])).tolist() == pytest.approx(
        [0.0, *torch.distributions.Normal(double([0.15, 0.5]), double([0.6, 2.0])).log_prob(double(0.2)).tolist()]
    )
    assert d.log_prob(double(0.1))[0] == -torch.inf
    d.log_prob(double([0.0, 0.2, 0.2])).sum().backward()
    assert torch.isfinite(gate.grad).all()


TEMPERATURE = 2 / 3
PRIOR = {"active": 0.3, "scale": 1.4, "temperature": TEMPERATURE}
# the mean and raw scale of w and the logits of the gate, of two coordinates
STARTS = {
    "shut": [[1.0, -0.7], [0.0, 0.4], [-2.5, -2.0]],
    "open": [[2.0, 1.0], [-0.5, 0.3], [2.5, 1.5]],
    "mixed": [[-1.0, 0.8], [-1.0, 0.0], [2.0, -2.0]],
}
UNBIASED = {
    "pathwise": pv.ELBO(),
    "Trace_ELBO": Trace_ELBO(),
    "leave-one-out": pv.ELBO(estimator=pv.LeaveOneOut(2)),
}


def exact_bound(head):
    """The gate's moments and KL by scipy's quadrature; w is Normal beside it."""
    means, variances, kl = [], [], 0.0
    for loc, raw, logits in head.reshape(3, 2).T:
        scale = np.logaddexp(0.0, raw) + 1e-5
        q = Reference(logits, TEMPERATURE)
        p = Reference(logit(PRIOR["active"]) - TEMPERATURE * np.log(11), TEMPERATURE)
        gate, square = q.expectation(lambda h: h), q.expectation(lambda h: h**2)
        means.append(gate * loc)
        variances.append(square * (loc**2 + scale**2) - means[-1] ** 2)
        r = scale / PRIOR["scale"]
        normal = 0.5 * (r**2 + (loc / PRIOR["scale"]) ** 2 - 1) - np.log(r)
        kl += q.expectation(lambda h, q=q, p=p: q.logpdf(h) - p.logpdf(h)) + (1 - q.atoms()[0.0]) * normal
    return exact_reconstruction(np.array(means), np.array(variances)) - kl


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", UNBIASED)
def test_gradient_is_that_of_the_exact_bound(name, start):
    torch.manual_seed(2)
    vae = one_datum(
        priors.HardConcrete(2, **PRIOR),
        lambda network, dim: guides.HardConcrete(network, dim, TEMPERATURE),
        STARTS[start],
    )
    exact = finite_differences(exact_bound, STARTS[start])
    # the plain score function has no baseline, and varies most
    resolution = 0.4 if name == "Trace_ELBO" else 0.02
    check_gradient(vae, UNBIASED[name], [vae.posterior.head.bias], exact, resolution)
    with torch.no_grad():
        bound = pv.metrics.elbo(vae, torch.tensor([[1.2, -0.9, 0.4]]), 100_000)
    assert bound.kl_is_exact
    # E log q - log p at the draws is what the two exact KLs are: the bound within 5 of its standard errors of 0.02
    assert bound.elbo.item() == pytest.approx(exact_bound(np.array(STARTS[start])), abs=0.1)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (TraceGraph_ELBO(), "TraceGraph_ELBO ignores the score_parts of HardConcrete"),
        (TraceMeanField_ELBO(), "TraceMeanField_ELBO ignores the score_parts of HardConcrete"),
        (TraceEnum_ELBO(max_plate_nesting=1), "TraceEnum_ELBO ignores the score_parts of HardConcrete"),
        (RenyiELBO(), "RenyiELBO ignores the score_parts of HardConcrete"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_objectives_that_would_be_biased_are_refused(loss, message):
    vae = one_datum(priors.HardConcrete(2), guides.HardConcrete, STARTS["open"])
    with pytest.raises(ValueError, match=message):
        pv.check(vae.model, vae.guide, loss, torch.zeros(4, 3))


def test_codes_hold_exact_zeros():
    vae = one_datum(priors.HardConcrete(2), guides.HardConcrete, STARTS["mixed"])
    assert (vae.encode(torch.zeros(3, 3)) == 0).tolist() == [[False, True]] * 3
    assert 0.8 < (vae.sample_prior(1000) == 0).double().mean() < 0.97  # P(h = 0) = 0.9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: priors.HardConcrete(3, active=1.0), "active must be between 0 and 1"),
        (lambda: priors.HardConcrete(3, scale=0.0), "scale must be positive"),
        (lambda: priors.HardConcrete(3, temperature=-1.0), "temperature must be positive"),
        (lambda: priors.HardConcrete(3, learned=["temperature"]), "learned must be a collection of names"),
        (lambda: guides.HardConcrete(pv.nn.MLP(3, [4]), 2, temperature=0.0), "temperature must be positive"),
        (lambda: guides.ThresholdedLaplace(pv.nn.MLP(3, [4]), 2, threshold=0.0), "threshold must be positive"),
        (lambda: priors.ThresholdedLaplace(3, threshold=-1.0), "threshold must be positive"),
        (lambda: priors.ThresholdedNormal(3, learned=["df"]), "learned must be a collection of names"),
        (lambda: priors.RectifiedNormal(3, scale=0.0), "scale must be positive"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
