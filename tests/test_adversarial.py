"""GAN and adversarial autoencoder: updates against a loop by hand, ``fit``, ``save``, what they refuse and learn."""

import copy
import math
import pickle

import pyro
import pyro.distributions as dist
import pytest
import scipy.stats as st
import torch
from pyro import poutine
from scipy.integrate import quad
from torch import nn

import pyrovae as pv
from pyrovae import guides, likelihoods, priors
from pyrovae.adversarial import (
    GAN,
    LOSSES,
    AdversarialAutoencoder,
    NonSaturating,
    Sampler,
    Shrunk,
    Updates,
    Wasserstein,
)
from pyrovae.nn import MLP
from pyrovae.plots import pictures

X = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def make_gan(seed=0):
    torch.manual_seed(seed)
    return GAN(priors.Normal(3), MLP(3, [8], 6), MLP(6, [8], 1)).double()


def make_autoencoder(prior=None, guide=None, seed=0, **options):
    torch.manual_seed(seed)
    prior = priors.Normal(2) if prior is None else prior
    guide = guides.Normal(MLP(6, [8]), 2) if guide is None else guide(MLP(6, [8]), 2)
    decoder = likelihoods.Normal(MLP(2, [8], 6), scale=0.5)
    return AdversarialAutoencoder(prior, decoder, guide, MLP(2, [8], 1), **options).double()


def circle(num):
    return nn.functional.normalize(torch.randn(num, 2))


def fit(game, data=X, epochs=3, **options):
    return pv.fit(game, data, epochs=epochs, batch_size=10, progress=False, **options)


def equal(a, b):
    return all(torch.equal(value, b[name]) for name, value in a.items())


def by_hand(game, loss, num_steps, rate):
    """The two updates of a GAN, written out."""
    critic = torch.optim.Adam(game.critic.parameters(), lr=2 * rate)
    generator = torch.optim.Adam(game.generator.parameters(), lr=rate)
    numbers = []
    for t in range(1, num_steps + 1):
        fake = game.generator(torch.randn(len(X), 3, dtype=torch.float64))
        d_real, d_fake = game.critic(X).flatten(), game.critic(fake.detach()).flatten()
        numbers.append(loss.divergence(d_real, d_fake).item() * len(X))
        critic.zero_grad()
        (loss.critic(d_real, d_fake) + loss.penalty(lambda x: game.critic(x).flatten(), X, fake.detach())).backward()
        critic.step()
        if t % loss.critic_steps == 0:
            generator.zero_grad()
            loss.generator(game.critic(fake).flatten()).backward()
            generator.step()
    return numbers


@pytest.mark.parametrize("loss", [*(make() for make in LOSSES.values()), NonSaturating(2.0, critic_steps=2)])
def test_updates_of_a_gan_are_those_by_hand(loss):
    gan, plain = make_gan(), make_gan()
    updates = gan.trainer((pyro.optim.Adam({"lr": 0.01}), pyro.optim.Adam({"lr": 0.02})), loss)
    torch.manual_seed(1)
    numbers = [updates.step(X) for _ in range(12)]
    torch.manual_seed(1)
    assert numbers == pytest.approx(by_hand(plain, loss, 12, 0.01), rel=1e-9)
    torch.testing.assert_close(gan.state_dict(), plain.state_dict(), rtol=1e-9, atol=1e-12)
    assert not equal(gan.generator.state_dict(), make_gan().generator.state_dict())
    assert all(parameter.grad is None for parameter in gan.parameters())


def test_an_optimizer_may_tell_the_players_apart_by_name():
    gan, paired = make_gan(), make_gan()
    by_name = pyro.optim.Adam(lambda name: {"lr": 0.02 if "critic" in name else 0.01})
    torch.manual_seed(1)
    one = [updates.step(X) for updates in [gan.trainer(by_name)] for _ in range(5)]
    torch.manual_seed(1)
    pair = paired.trainer((pyro.optim.Adam({"lr": 0.01}), pyro.optim.Adam({"lr": 0.02})))
    assert one == [pair.step(X) for _ in range(5)]


def test_updates_of_an_autoencoder_are_those_by_hand():
    loss, rate, weight = NonSaturating(), 0.01, 3.0
    ours, plain = (make_autoencoder(weight=weight) for _ in range(2))
    updates = ours.trainer(pyro.optim.Adam({"lr": rate}), loss)
    torch.manual_seed(1)
    numbers = [updates.step(X) for _ in range(6)]
    critic = torch.optim.Adam(plain.critic.parameters(), lr=rate)
    rest = torch.optim.Adam([*plain.likelihood.parameters(), *plain.posterior.parameters()], lr=rate)
    torch.manual_seed(1)
    for number in numbers:
        q = plain.posterior.distribution(X)
        z = q.rsample()
        cost = -plain.likelihood(z).log_prob(X).mean()
        real = torch.randn(len(X), 2, dtype=torch.float64)
        scores = plain.critic(real).flatten(), plain.critic(z.detach()).flatten()
        assert number == pytest.approx(len(X) * (cost + weight * loss.divergence(*scores)).item(), rel=1e-9)
        critic.zero_grad()
        loss.critic(*scores).backward()
        critic.step()
        rest.zero_grad()
        (cost + weight * loss.generator(plain.critic(z).flatten())).backward()
        rest.step()
    torch.testing.assert_close(ours.state_dict(), plain.state_dict(), rtol=1e-9, atol=1e-12)


def test_model_of_a_gan_is_a_pyro_function():
    gan = make_gan()
    trace = poutine.trace(gan.model).get_trace(num_samples=5)
    assert trace.nodes["z"]["value"].shape == (5, 3)
    assert trace.nodes["x"]["value"].shape == (5, 6)
    z = torch.zeros(5, 3, dtype=torch.float64)
    x = poutine.condition(gan.model, {"z": z})(num_samples=5)
    torch.testing.assert_close(x, gan.generator(z))
    torch.testing.assert_close(x, gan.decode(z))
    assert gan.sample(2000).shape == (2000, 6)
    assert gan.sample_prior(7).shape == (7, 3)


def test_draws_leave_the_modes_of_modules():
    gan = GAN(priors.Normal(3), nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6)), MLP(6, [8], 1))
    fit(gan, X.float(), epochs=1)
    before = copy.deepcopy(gan.state_dict())
    gan.train()
    assert torch.isfinite(gan.sample(1)).all()  # one row has no variance
    assert equal(gan.state_dict(), before)
    assert gan.generator[1].training


@pytest.mark.parametrize("make", [make_gan, make_autoencoder])
def test_fit_has_a_history_a_seed_and_the_last_weights(make):
    one, two = make(), make()
    weights = []
    torch.manual_seed(5)
    state = torch.get_rng_state()
    history = fit(
        one, val=X[:10], seed=3, callbacks=[lambda game, *rest: weights.append(copy.deepcopy(game.state_dict()))]
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert history["epoch"] == [1, 2, 3]
    assert all(map(math.isfinite, history["train_loss"] + history["val_loss"]))
    assert history == {**fit(two, val=X[:10], seed=3), "seconds": history["seconds"]}
    assert equal(one.state_dict(), two.state_dict())
    assert equal(one.state_dict(), weights[-1])
    assert not equal(one.state_dict(), make().state_dict())


PLAYERS = ("generator", "critic")


@pytest.mark.parametrize("resting", [("generator",), ("critic",), PLAYERS])
def test_fit_follows_the_schedule_of_each_players_learning_rate(resting):
    """One that is 0 from the second epoch on leaves its player, and no other, where the first epoch did."""
    weights = []

    def keep(gan, epoch, history):
        weights.append({name: copy.deepcopy(gan.get_submodule(name).state_dict()) for name in PLAYERS})

    falling, optims = pv.optim.cosine(0.01, epochs=1), []
    for name in PLAYERS:
        optims.append(pv.optim.adam(lr=falling if name in resting else 0.01))
    fit(make_gan(), optim=optims[0] if resting == PLAYERS else tuple(optims), callbacks=[keep], seed=0)
    for name in PLAYERS:
        assert equal(weights[0][name], weights[-1][name]) == (name in resting)
        assert not equal(weights[0][name], make_gan().get_submodule(name).state_dict())


@pytest.mark.parametrize("make", [make_gan, make_autoencoder])
def test_saved_and_loaded_it_is_the_same(make, tmp_path):
    game = make()
    fit(game)
    pv.save(game, tmp_path)
    with pytest.raises(ValueError, match="holds a model of parts made by hand: build it"):
        pv.load(tmp_path)
    again = pv.load(tmp_path, vae=make(seed=1))
    assert equal(again.state_dict(), game.state_dict())
    assert type(again) is type(game)


@pytest.mark.parametrize("make", [make_gan, make_autoencoder])
def test_trained_it_is_pickled(make):
    game = make()
    fit(game, epochs=1)
    again = pickle.loads(pickle.dumps(game))
    assert equal(again.state_dict(), game.state_dict())
    for each in (again, game):  # and trained further, each by itself
        fit(each, epochs=1, seed=0)
    assert equal(again.state_dict(), game.state_dict())


def test_prior_samples_of_a_gan_are_its_draws(monkeypatch):
    gan, drawn = make_gan(), []
    monkeypatch.setattr(pictures, "image_grid", lambda x, *_, **__: drawn.append(x) or pictures.new_figure(1, 1))
    torch.manual_seed(1)
    pv.plots.prior_samples(gan, num=8)
    torch.manual_seed(1)
    assert torch.equal(drawn[0], gan.sample(8))
    monkeypatch.undo()
    assert pv.plots.prior_samples(gan, num=8, image_shape=(1, 2, 3)).axes


@pytest.mark.parametrize(
    "call",
    [
        lambda gan: pv.metrics.elbo(gan, X),
        lambda gan: pv.metrics.log_likelihood(gan, X, 4),
        lambda gan: pv.metrics.summary(gan, X),
        lambda gan: pv.metrics.sbc(gan, 20),
        lambda gan: pv.metrics.codes(gan, X),
        lambda gan: pv.metrics.spike_occupancy(gan, X),
        lambda gan: pv.metrics.traversals(gan, X),
        lambda gan: pv.metrics.interpolations(gan, X, X),
        lambda gan: pv.metrics.mean_squared_error(gan, X),
        lambda gan: pv.plots.reconstructions(gan, X),
        lambda gan: pv.SVI(gan.model, gan.guide, pv.optim.adam(), pv.ELBO()),
    ],
)
def test_what_needs_a_guide_or_a_density_says_that_a_gan_has_none(call):
    gan = make_gan()
    with pytest.raises(AttributeError, match=r"^a GAN has no '[a-z]+': it has draws, and neither a guide nor"):
        call(gan)
    with pytest.raises(
        pv.train.CallbackError, match=r"HealthCheck raised AttributeError in on_epoch_end, .*: a GAN has"
    ):
        fit(gan, epochs=1, callbacks=[pv.metrics.HealthCheck(X)])
    assert not hasattr(gan, "guide")
    with pytest.raises(AttributeError, match="'GAN' object has no attribute 'nothing'"):
        _ = gan.nothing


def test_measuring_takes_no_step():
    gan = make_gan()
    updates = gan.trainer()
    before = copy.deepcopy(gan.state_dict())
    torch.manual_seed(0)
    number = updates.evaluate(X)
    assert equal(gan.state_dict(), before)
    torch.manual_seed(0)
    assert updates.step(X) == number


def test_a_nan_raises_and_the_weights_are_those_of_the_epochs_start():
    gan = make_gan()
    with torch.no_grad():
        gan.generator.layers[0].weight[0, 0] = math.nan
    before = copy.deepcopy(gan.critic.state_dict())
    with pytest.raises(FloatingPointError, match=r"epoch 1: .*generator\.layers\.0\.weight"):
        fit(gan)
    assert equal(gan.critic.state_dict(), before)
    autoencoder = make_autoencoder()
    with torch.no_grad():
        autoencoder.posterior.head.weight[0, 0] = math.nan
    with pytest.raises(FloatingPointError, match=r"posterior\.head\.weight"):
        fit(autoencoder)


def test_clip_norm_bounds_each_players_gradient():
    """Under plain gradient descent of rate 1 no player moves further than the norm."""
    gan = make_gan()
    before = copy.deepcopy(gan)
    gan.trainer(pyro.optim.SGD({"lr": 1.0}), clip_norm=1e-3).step(X)
    for player in ("critic", "generator"):
        moved = [
            (new - old).flatten()
            for new, old in zip(getattr(gan, player).parameters(), getattr(before, player).parameters(), strict=True)
        ]
        assert torch.cat(moved).norm().item() == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize(
    "name", ["normal", "spike-slab", "rectified-normal", "gamma", "bernoulli", "regularized-horseshoe"]
)
def test_an_autoencoder_of_each_kind_of_code_takes_a_step(name):
    """Gates and bits are drawn hard, codes of two sites are matched side by side."""
    torch.manual_seed(0)
    prior = {
        "normal": priors.Normal,
        "spike-slab": priors.SpikeSlab,
        "rectified-normal": priors.RectifiedNormal,
        "gamma": priors.Gamma,
        "bernoulli": priors.Bernoulli,
        "regularized-horseshoe": priors.RegularizedHorseshoe,
    }[name](3)
    guide = pv.build.GUIDES[name](MLP(6, [8]), 3)
    width = 6 if name == "regularized-horseshoe" else 3
    likelihood = likelihoods.Normal(MLP(3, [8], 6), scale=0.5)
    game = AdversarialAutoencoder(prior, likelihood, guide, MLP(width, [8], 1))
    before = copy.deepcopy(game.state_dict())
    real, fake, cost = game.draws(X.float())
    assert real.shape == fake.shape == (40, width)
    assert cost.shape == ()
    if name == "spike-slab":
        assert (fake == 0).any()
    fit(game, X.float(), epochs=1)
    moved = {key for key, value in game.state_dict().items() if not torch.equal(value, before[key])}
    assert {key for key, _ in game.named_parameters()} <= moved


def test_a_sampler_is_a_prior_that_has_draws_alone():
    prior = Sampler(circle, 2)
    torch.manual_seed(0)
    law = prior.distribution()
    z = law.expand((500,)).sample((2,))
    assert z.shape == (2, 500, 2)
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(2, 500))
    assert len(z.reshape(-1, 2).unique(dim=0)) == 1000, "each row is drawn anew"
    with pytest.raises(NotImplementedError, match="no density"):
        law.log_prob(z)
    assert Sampler(circle, 2).double().distribution().sample().dtype == torch.float64
    with pytest.raises(ValueError, match=r"draw must return codes of shape \(4, 3\)"):
        Sampler(circle, 3).distribution().sample((4,))


def test_what_asks_a_sampler_for_its_density_raises():
    torch.manual_seed(0)
    vae = pv.VAE(Sampler(circle, 2), likelihoods.Normal(MLP(2, [8], 6)), guides.Normal(MLP(6, [8]), 2))
    assert vae.sample(3).shape == (3, 6)
    with pytest.raises(NotImplementedError, match="AdversarialAutoencoder"):
        pv.fit(vae, X.float(), epochs=1, progress=False)
    autoencoder = make_autoencoder(Sampler(circle, 2))
    with pytest.raises(NotImplementedError, match="AdversarialAutoencoder"):
        pv.metrics.elbo(autoencoder, X)


def test_shrunk_draws_are_zero_as_often_as_the_normal_law_says_and_have_a_path():
    """50,000 draws, 5 standard errors; the gradient of E z^2 against finite differences of quadrature."""
    torch.manual_seed(0)
    loc, scale, threshold = 0.4, 0.8, 0.5
    guide = Shrunk(MLP(1, [2]), 1, threshold).double()
    with torch.no_grad():
        guide.head.weight.zero_()
        guide.head.bias.copy_(torch.tensor([loc, math.log(math.expm1(scale - 1e-5))]))
    z = guide.distribution(torch.zeros(50_000, 1).double()).rsample()
    exact = st.norm.cdf((threshold - loc) / scale) - st.norm.cdf((-threshold - loc) / scale)
    assert abs((z == 0).double().mean().item() - exact) <= 5 * (exact * (1 - exact) / 50_000) ** 0.5
    assert guide.encode(torch.zeros(1, 1).double()).item() == 0.0  # 0.4 is within the threshold

    def energy(loc):
        def integrand(s):
            return max(abs(s) - threshold, 0) ** 2 * st.norm.pdf(s, loc, scale)

        return quad(integrand, -8, 8, points=[-threshold, threshold])[0]

    slope = (energy(loc + 1e-4) - energy(loc - 1e-4)) / 2e-4
    each = 2 * z.detach()  # d z^2 / d loc = 2 z where z moves
    (z.square().mean()).backward()
    assert abs(guide.head.bias.grad[0].item() - slope) <= 5 * each.std().item() / 50_000**0.5
    with pytest.raises(NotImplementedError, match="no density"):
        guide.distribution(torch.zeros(2, 1).double()).log_prob(z[:2])


def test_a_sampler_serves_a_gan():
    gan = GAN(Sampler(circle, 2), MLP(2, [8], 6), MLP(6, [8], 1))
    fit(gan, X.float(), epochs=1)
    torch.testing.assert_close(gan.sample_prior(9).norm(dim=1), torch.ones(9))


def test_a_gan_finds_both_modes_in_their_shares():
    """Data of 30 % at -2 and 70 % at 2, each of scale 0.3, after 900 updates.

    Over seeds the share was 0.69 to 0.73 and the median 1.82 to 2.00; with one mode they would be 0 or 1, untrained 0.
    """
    torch.manual_seed(0)
    signs = 2 * torch.bernoulli(torch.full((3000, 1), 0.7)) - 1
    x = 2 * signs + 0.3 * torch.randn(3000, 1)
    gan = GAN(priors.Normal(2), MLP(2, [32, 32], 1), MLP(1, [32, 32], 1))
    optim = pyro.optim.Adam({"lr": 2e-3, "betas": (0.0, 0.99)})
    pv.fit(
        gan, x, epochs=30, batch_size=100, optim=optim, loss=NonSaturating(slope_penalty=0.3), seed=0, progress=False
    )
    coverage = pv.metrics.class_coverage(lambda x: (x[:, 0] > 0).long(), gan.sample(10_000), num_classes=2)
    assert coverage.share[1].item() == pytest.approx(0.7, abs=0.1)
    assert gan.sample(10_000).abs().median().item() == pytest.approx(2.0, abs=0.4)


def test_an_autoencoder_matches_codes_to_a_circle_that_is_only_drawn():
    """Data of a noisy circle in 6 dimensions: untrained codes fail the test and trained ones pass.

    Codes of the very law of the prior would fail it once in a hundred seeds, and this one is fixed.
    """
    torch.manual_seed(0)
    angle = 2 * math.pi * torch.rand(2000)
    x = torch.stack([angle.cos(), angle.sin()], 1) @ torch.randn(2, 6) + 0.05 * torch.randn(2000, 6)
    game = AdversarialAutoencoder(
        Sampler(circle, 2),
        likelihoods.Normal(MLP(2, [32], 6), scale=0.5),
        guides.Delta(MLP(6, [32]), 2),
        MLP(2, [64, 64], 1),
        weight=10.0,
    )

    def p_value():
        return pv.metrics.mmd_test(game.encode(x[:300]), game.sample_prior(300)).p_value

    assert p_value() < 0.01
    fit_options = {"optim": pyro.optim.Adam({"lr": 1e-3, "betas": (0.5, 0.99)}), "seed": 0, "progress": False}
    pv.fit(game, x, epochs=20, batch_size=100, **fit_options)
    assert p_value() > 0.01
    assert (game.reconstruct(x) - x).square().mean() < 0.25 * x.var(0).mean()


def refuses(call, error, match):
    with pytest.raises(error, match=match):
        call()


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: GAN(priors.Laplace(3, learned=["scale"]), MLP(3, [8], 6), MLP(6, [8], 1)), "learned"),
        (lambda: GAN(priors.BetaSpikeSlab(3), MLP(3, [8], 6), MLP(6, [8], 1)), "all data share"),
        (lambda: GAN(priors.Normal, MLP(3, [8], 6), MLP(6, [8], 1)), "prior"),
        (lambda: GAN(priors.Normal(3), "mlp", MLP(6, [8], 1)), "generator"),
        (lambda: GAN(priors.Normal(3), MLP(3, [8], 6), nn.Flatten()), "critic"),
        (lambda: fit(GAN(priors.Normal(3), MLP(3, [8], 6), MLP(6, [8], 2)).double()), "critic must return one number"),
        (lambda: make_autoencoder(weight=0.0), "weight"),
        (lambda: make_autoencoder(priors.Gamma(2)), "support"),
        (lambda: fit(make_autoencoder(priors.Poisson(2), guides.Poisson)), "no gradient passes"),
        (lambda: make_gan().trainer(loss="hinge"), "loss must be one of minimax"),
        (lambda: make_gan().trainer(loss=pv.ELBO()), "loss must be one of minimax"),
        (lambda: make_gan().trainer(clip_norm=0.0), "clip_norm"),
        (lambda: fit(make_gan(), compile=True), "compile"),
        (lambda: fit(make_gan(), precision=torch.bfloat16), "precision"),
        (lambda: fit(make_gan(), val=X, patience=2), "patience"),
        (lambda: fit(make_gan(), optim=pv.optim.adam(lr=pv.optim.plateau(0.1))), "plateau"),
        (lambda: fit(make_gan(), optim=(pv.optim.adam(), pv.optim.adam(lr=pv.optim.cosine(0.1, 9)))), "learning rate"),
        (lambda: fit(make_gan(), optim=(pv.optim.adam(), pv.optim.gd(1e-3))), "gd takes the whole set at each step"),
        (lambda: fit(make_gan(), optim=(pv.optim.gd(1e-3), pv.optim.adam())), "gd takes the whole set at each step"),
        (lambda: fit(make_gan(), optim=(pv.optim.adam(), pyro.optim.SGD({"lr": 0.0}))), "optim: the learning rate"),
        (lambda: Sampler(circle, 0), "dim"),
        (lambda: Shrunk(MLP(6, [8]), 2, threshold=0.0), "threshold"),
        (lambda: Sampler(torch.zeros(3, 2), 2), "draw"),
    ],
)
def test_what_is_wrong_is_named(call, named):
    refuses(call, ValueError, named)


def test_optimizers_of_another_kind_are_refused():
    torch_adam = torch.optim.Adam([nn.Parameter(torch.zeros(1))])
    refuses(lambda: make_gan().trainer(torch_adam), TypeError, "optim must be a pyro.optim")
    refuses(lambda: Updates(make_gan(), (pyro.optim.Adam({"lr": 1.0}),)), TypeError, "optim must be a pyro.optim")
    pair = (pyro.optim.Adam({"lr": 1.0}), pyro.optim.Adam({"lr": 1.0}))
    refuses(lambda: fit(pv.build_vae((6,), 2).double(), optim=pair), TypeError, "optim must be a pyro.optim")


def test_wasserstein_steps_the_generator_once_in_five_batches():
    gan = make_gan()
    updates = gan.trainer(loss=Wasserstein())
    before = copy.deepcopy(gan.generator.state_dict())
    for _ in range(4):
        updates.step(X)
        assert equal(gan.generator.state_dict(), before)
    updates.step(X)
    assert not equal(gan.generator.state_dict(), before)


def test_a_prior_of_ones_own_with_several_sites_serves():
    class Scaled(priors.Prior):
        def forward(self):
            scale = pyro.sample("z_scale", dist.Gamma(2.0 * torch.ones(3), 1.0).to_event(1))
            return pyro.sample("z", dist.Normal(torch.zeros_like(scale), scale).to_event(1))

    gan = GAN(Scaled(), MLP(3, [8], 6), MLP(6, [8], 1))
    fit(gan, X.float(), epochs=1)
    assert gan.sample(4).shape == (4, 6)
