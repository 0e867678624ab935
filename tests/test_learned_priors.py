"""The learned priors: each density against one worked out by hand, draws, gradients, and what training does to them.

Stochastic tests fix their seed; their false-alarm rate, had the seed been drawn, stands beside each.
"""

import copy
import json

import numpy as np
import pyro
import pytest
import torch
import zuko
from checks import by_hand, check_gradients, check_mass, check_moments, check_training
from pyro.distributions import transforms as T
from scipy.special import log_softmax, logsumexp, softmax

import pyrovae as pv
from pyrovae import cli, guides, likelihoods, priors
from pyrovae.nn import MLP


def mixture(dim, num_components=3):
    torch.manual_seed(0)
    prior = priors.Mixture(dim, num_components).double()
    with torch.no_grad():
        prior.logits.normal_()
        prior.scale.raw.normal_()
    return prior


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
    assert numbers[0].items() <= numbers[1].items(), "evaluate has more of them"
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


def test_vamp_needs_a_guide_of_one_density():
    with pytest.raises(ValueError, match=r"guide RegularizedHorseshoe has no distribution\(x\)"):
        priors.Vamp(guides.RegularizedHorseshoe(pv.nn.MLP(6, [4]), 2), 3, inputs=torch.rand(5, 6))
