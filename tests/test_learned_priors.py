"""The learned priors: each density against one worked out by hand, draws, gradients, and what training does to them.

Stochastic tests fix their seed; their false-alarm rate, had the seed been drawn, stands beside each.
"""

import copy
import json

import numpy as np
import pyro
import pytest
import scipy.stats as st
import torch
import zuko
from pyro.distributions import transforms as T
from scipy.integrate import cumulative_trapezoid
from scipy.special import log_softmax, logsumexp, softmax

import pyrovae as pv
from pyrovae import cli, guides, likelihoods, priors
from pyrovae.nn import MLP


def by_hand(prior, z):
    """log p(z) of a Mixture: components first, each over all coordinates, and then their sum."""
    logits, loc = prior.logits.detach().numpy(), prior.loc.detach().numpy()
    scale = np.logaddexp(0, prior.scale.raw.detach().numpy())
    each = np.stack([st.norm(m, s).logpdf(z).sum(-1) for m, s in zip(loc, scale, strict=True)], -1)
    return logsumexp(each + log_softmax(logits), axis=-1)


def mixture(dim, num_components=3):
    torch.manual_seed(0)
    prior = priors.Mixture(dim, num_components).double()
    with torch.no_grad():
        prior.logits.normal_()
        prior.scale.raw.normal_()
    return prior


def check_mass(d):
    """One, by the trapezoid rule over a plane that leaves out little; mean and covariance by the same rule."""
    line = torch.linspace(-14, 14, 701, dtype=torch.float64)
    z = torch.cartesian_prod(line, line)
    with torch.no_grad():
        mass = torch.cat([d.log_prob(rows).exp() for rows in z.split(20_000)]) * (line[1] - line[0]) ** 2
    assert mass.sum().item() == pytest.approx(1.0, abs=1e-4)
    mean = mass @ z
    return mean, torch.einsum("n,ni,nj->ij", mass, z - mean, z - mean)


def check_moments(draws, mean, covariance):
    """Within 6 standard errors for each number: a false alarm once in 10^7."""
    products = (draws - mean)[:, :, None] * (draws - mean)[:, None, :]
    for values, expected in ((draws, mean), (products, covariance)):
        assert ((values.mean(0) - expected).abs() <= 6 * values.std(0) / len(draws) ** 0.5).all()


def check_gradients(prior, z):
    """A finite gradient, nowhere all zero, for each parameter."""
    prior.distribution().log_prob(z).sum().backward()
    for name, parameter in prior.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def check_training(prior_of, named, **options):
    """30 epochs on the digits under Trace_ELBO move every learned parameter and better the held-out bound by 10 nats.

    The bound's standard error over the 180 digits is about 0.3 nats.
    """
    torch.manual_seed(0)
    data = pv.data.digits()
    guide = guides.Normal(MLP(64, [32]), 4)
    vae = pv.VAE(prior_of(guide, data), likelihoods.Bernoulli(MLP(4, [32], 64)), guide)
    untrained = pv.metrics.elbo(vae, data.test)
    assert not untrained.kl_is_exact
    before = copy.deepcopy(vae.state_dict())
    pv.fit(vae, data, epochs=30, batch_size=128, seed=0, progress=False, optim=pyro.optim.Adam({"lr": 3e-3}), **options)
    assert (pv.metrics.elbo(vae, data.test).elbo - untrained.elbo).mean() > 10
    moved = {name for name, value in vae.prior.named_parameters() if not torch.equal(value, before[f"prior.{name}"])}
    assert moved == {name for name, _ in vae.prior.named_parameters()} >= named
    return vae, before


def test_mixture_is_over_components_and_not_per_coordinate():
    prior = mixture(4)
    z = torch.randn(50, 4).double() * 3
    np.testing.assert_allclose(prior.distribution().log_prob(z).detach().numpy(), by_hand(prior, z), rtol=1e-10)
    # two clusters in opposite corners: the others are empty, where one per coordinate has half its mass
    prior = priors.Mixture(2, 2).double()
    with torch.no_grad():
        prior.loc.copy_(torch.tensor([[-5.0, -5.0], [5.0, 5.0]]))
    d = prior.distribution()
    corner, empty = d.log_prob(torch.tensor([[5.0, 5.0], [5.0, -5.0]]).double())
    assert corner.item() == pytest.approx(np.log(0.5) - np.log(2 * np.pi), abs=1e-6)
    assert empty.item() == pytest.approx(-50 - np.log(2 * np.pi), abs=1e-6)
    torch.manual_seed(0)
    draws = d.sample((2000,))
    assert (draws[:, 0] * draws[:, 1] > 0).all(), "P(a Normal at 5 below 0) is 3e-7"
    assert 800 < (draws[:, 0] > 0).sum() < 1200, "9 standard deviations"


def test_mixture_has_mass_one_and_its_draws_follow_it():
    prior = mixture(2)
    check_mass(prior.distribution())
    weights = torch.tensor(softmax(prior.logits.detach().numpy()))
    loc, scale = prior.loc.detach(), prior.scale().detach()
    mean = weights @ loc
    covariance = torch.diag(weights @ scale**2) + torch.einsum("k,ki,kj->ij", weights, loc - mean, loc - mean)
    check_moments(prior.distribution().sample((100_000,)), mean, covariance)


def test_mixture_starts_spread_by_the_seed():
    prior, again = mixture(200, 50), mixture(200, 50)
    assert torch.equal(prior.loc, again.loc)
    assert abs(prior.loc.mean()) < 0.05, "5 standard errors of 10,000 draws"
    assert abs(prior.loc.std() - 1) < 0.035
    assert (priors.Mixture(3).scale() - 1).abs().max() < 1e-6
    check_gradients(mixture(3), torch.randn(20, 3).double())


def test_mixture_trains():
    check_training(lambda guide, data: priors.Mixture(4), {"logits", "loc", "scale.raw"})


def vamp(guide_class, dim=2, num_components=3):
    torch.manual_seed(0)
    guide = guide_class(MLP(5, [7]), dim).double()
    prior = priors.Vamp(guide, num_components, inputs=torch.rand(20, 5), bounds=(0.0, 1.0))
    with torch.no_grad():
        prior.logits.normal_()
        guide.head.weight.mul_(5)  # components apart
    return prior


GUIDES = [guides.Normal, guides.Laplace, guides.StudentT, guides.GeneralizedNormal]
GUIDES += [guides.MultivariateNormal, guides.LowRankMultivariateNormal]


@pytest.mark.parametrize("guide_class", GUIDES, ids=lambda cls: cls.__name__)
def test_vamp_is_the_mixture_of_the_guides_posteriors(guide_class):
    prior = vamp(guide_class)
    d = prior.distribution()
    assert (d.batch_shape, d.event_shape) == ((), (2,))
    z = torch.randn(50, 2).double() * 3
    each = [prior.guide.distribution(u[None]).log_prob(z).detach().numpy() for u in prior.inputs()]
    expected = logsumexp(np.stack(each, -1) + log_softmax(prior.logits.detach().numpy()), axis=-1)
    np.testing.assert_allclose(d.log_prob(z).detach().numpy(), expected, rtol=1e-10)
    if guide_class is guides.Normal:  # the mixture for each coordinate is another law
        each = [prior.guide.distribution(u[None]).base_dist.log_prob(z).detach().numpy() for u in prior.inputs()]
        each = np.stack(each, -1)
        wrong = logsumexp(each + log_softmax(prior.logits.detach().numpy()), axis=-1).sum(-1)
        assert np.abs(wrong - expected).max() > 0.01
    with pyro.plate("data", 4, dim=-1):
        z = prior()
    assert z.shape == (4, 2)
    assert len(z.unique()) == 8
    torch.testing.assert_close(d.expand((3, 4)).log_prob(z), d.log_prob(z).expand(3, 4))
    check_gradients(prior, z)


def test_vamp_has_mass_one_and_its_draws_follow_it():
    prior = vamp(guides.MultivariateNormal)
    check_mass(prior.distribution())
    weights = torch.tensor(softmax(prior.logits.detach().numpy()))
    q = prior.guide.distribution(prior.inputs().detach())
    loc = q.loc.detach()
    mean = weights @ loc
    spread = torch.einsum("k,ki,kj->ij", weights, loc - mean, loc - mean)
    covariance = torch.einsum("k,kij->ij", weights, q.covariance_matrix.detach()) + spread
    check_moments(prior.distribution().sample((100_000,)), mean, covariance)


def test_vamp_starts_at_rows_of_the_data():
    torch.manual_seed(0)
    guide = guides.Normal(MLP(5, [7]), 2)
    inputs = torch.randn(9, 5)
    prior = priors.Vamp(guide, 9, inputs=inputs)
    assert sorted(prior.inputs().tolist()) == sorted(inputs.tolist()), "each row once"
    binary = torch.bernoulli(torch.full((9, 5), 0.5))
    started = priors.Vamp(guide, 9, inputs=binary, bounds=(0.0, 1.0)).inputs()
    expected = sorted((0.05 + 0.9 * binary).tolist())
    torch.testing.assert_close(torch.tensor(sorted(started.tolist())), torch.tensor(expected), rtol=0, atol=1e-6)
    shifted = priors.Vamp(guide, 9, inputs=4 * binary - 1, bounds=(-1.0, 3.0)).inputs()
    assert shifted.min().item() == pytest.approx(-0.8)
    assert shifted.max().item() == pytest.approx(2.8)
    images = priors.Vamp(guides.Normal(pv.nn.ConvEncoder((1, 8, 8), hidden=6), 2), 3, inputs=torch.rand(9, 1, 8, 8))
    assert images.inputs().shape == (3, 1, 8, 8)
    assert images.distribution().event_shape == (2,)


def test_vamp_trains():
    def prior(guide, data):
        return priors.Vamp(guide, 20, inputs=data.train, bounds=(0.0, 1.0))

    vae, before = check_training(prior, {"logits", "inputs.raw", "guide.head.weight"})
    moved = (vae.prior.inputs.raw - before["prior.inputs.raw"]).abs().flatten(1).amax(1)
    assert (moved > 1e-3).all(), "each pseudo-input moves"
    u = vae.prior.inputs()
    assert u.min() > 0
    assert u.max() < 1


def test_vamp_shares_the_guide_with_the_vae_it_is_of(tmp_path):
    def make(seed):
        torch.manual_seed(seed)
        guide = guides.Laplace(MLP(6, [5]), 2)
        inputs = torch.bernoulli(torch.full((20, 6), 0.3))
        prior = priors.Vamp(guide, 4, inputs=inputs, bounds=(0.0, 1.0))
        return pv.VAE(prior, likelihoods.Bernoulli(MLP(2, [5], 6)), guide), inputs

    (vae, x), (other, _) = make(0), make(1)
    frozen = copy.deepcopy(other.state_dict())
    assert vae.prior.guide is vae.posterior
    vae.model(x)
    store = pyro.get_param_store()
    names = [name for name in store if store[name].unconstrained() is vae.posterior.head.weight]
    assert len(names) == 1, "registered once"
    pv.fit(vae, x, epochs=2, progress=False)
    assert all(torch.equal(value, frozen[name]) for name, value in other.state_dict().items()), "side by side"
    pv.fit(other, x, epochs=2, progress=False)
    pv.save(vae, tmp_path)
    loaded = pv.load(tmp_path, make(2)[0])
    assert loaded.prior.guide is loaded.posterior
    z = torch.randn(7, 2)
    assert torch.equal(loaded.prior.distribution().log_prob(z), vae.prior.distribution().log_prob(z))
    assert torch.equal(loaded.encode(x), vae.encode(x))
    saved = (tmp_path / "model.safetensors").stat().st_size
    assert saved < 4 * sum(p.numel() for p in vae.parameters()) + 3000, "saved once"


def test_one_step_trains_the_shared_guide_once():
    """Plain gradient descent by SVI moves each parameter by the learning rate times its gradient, no more."""
    torch.manual_seed(0)
    x = torch.bernoulli(torch.full((20, 6), 0.3))
    vae = pv.build_vae((6,), 2, prior="vamp", hidden=(5,), num_components=4, inputs=x).double()
    x = x.double()
    before = {name: value.detach().clone() for name, value in vae.named_parameters()}
    loss = pyro.infer.Trace_ELBO()
    with torch.random.fork_rng():
        loss.differentiable_loss(vae.model, vae.guide, x).backward()
    expected = {name: before[name] - 1e-3 * value.grad for name, value in vae.named_parameters()}
    vae.zero_grad()
    pyro.infer.SVI(vae.model, vae.guide, pyro.optim.SGD({"lr": 1e-3}), loss).step(x)
    for name, value in vae.named_parameters():
        torch.testing.assert_close(value.detach(), expected[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("prior", ["mixture --num-components 6", "vamp --num-components 6", "vamp", "flow"])
def test_the_command_line_takes_them(prior, tmp_path, capsys):
    run = tmp_path / "run"
    fit = f"fit digits --prior {prior} --epochs 1 --hidden 8 --latent-dim 2 --num-samples 5"
    numbers = []
    for command in (f"{fit} --out {run}", f"evaluate {run} --num-samples 5"):
        with pytest.raises(SystemExit) as stopped:
            cli.main(command.split())
        assert stopped.value.code in (0, None)
        numbers.append(json.loads((run / "metrics.json").read_text()))
    assert "KL of guide from prior, sampled" in capsys.readouterr().out
    assert numbers[0] == numbers[1]
    logits = getattr(pv.load(run).prior, "logits", None)
    assert logits is None or len(logits) == (6 if "6" in prior else 50)


@pytest.mark.parametrize("name", ["mixture", "vamp", "flow"])
def test_a_saved_run_is_loaded_without_data(name, tmp_path):
    torch.manual_seed(0)
    x = torch.bernoulli(torch.full((20, 6), 0.3))
    vae = pv.build_vae((6,), 2, prior=name, hidden=(5,), inputs=x)
    pv.fit(vae, x, epochs=2, progress=False)
    pv.save(vae, tmp_path)
    loaded = pv.load(tmp_path)
    assert torch.equal(loaded.encode(x), vae.encode(x))
    z = torch.randn(7, 2)
    assert torch.equal(loaded.prior.distribution().log_prob(z), vae.prior.distribution().log_prob(z))
    assert loaded.config == vae.config


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


def bad_vamp(guide_class=guides.Normal, num_components=3, **options):
    torch.manual_seed(0)
    guide = guide_class(MLP(5, [7]), 2)
    return priors.Vamp(guide, num_components, **{"inputs": torch.rand(9, 5), **options})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: priors.Mixture(0), "dim must be a positive whole number, got 0"),
        (lambda: priors.Mixture(2, 0), "num_components must be a positive whole number, got 0"),
        (lambda: bad_vamp(num_components=0), "num_components must be a positive whole number, got 0"),
        (
            lambda: bad_vamp(num_components=10),
            r"inputs must be at least num_components = 10 rows of data, got \(9, 5\)",
        ),
        (lambda: bad_vamp(inputs=[1.0]), "inputs must be at least num_components = 3 rows of data, got list"),
        (lambda: bad_vamp(inputs=torch.rand(9, 4)), r"inputs of shape \(4,\) do not fit the guide: .*takes inputs"),
        (lambda: bad_vamp(inputs=torch.rand(9, 2, 5)), r"inputs of shape \(2, 5\) do not fit the guide: one row"),
        (lambda: bad_vamp(inputs=torch.full((9, 5), torch.nan)), "inputs must be finite"),
        (lambda: bad_vamp(bounds=(0.0, 0.5)), "inputs must be between the bounds 0 and 0.5"),
        (lambda: bad_vamp(bounds=(1.0, 0.0)), "bounds must be .lower, upper. with lower < upper"),
        (lambda: priors.Flow(0), "dim must be a positive whole number"),
        (lambda: priors.Flow(3, [T.affine_coupling(5)]), r"transforms: AffineCoupling does not take codes of shape"),
        (lambda: priors.Flow(3, T.spline(3)), "transforms must be a list of transforms of torch or Pyro, got Spline"),
        (lambda: priors.Flow(3, [torch.nn.Linear(3, 3)]), "transforms must be a list of transforms"),
        (
            lambda: priors.Flow(3, [T.StickBreakingTransform()]),
            r"transforms must give codes of shape \(3,\), got \(4,\)",
        ),
        (lambda: priors.ZukoFlow(zuko.flows.GMM(3)), "flow must give a NormalizingFlow, got Mixture"),
        (lambda: priors.ZukoFlow(torch.nn.Linear(3, 3)), "flow must give a distribution without a context"),
        (lambda: bad_vamp(guides.Delta), "guide Delta is a point"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
