"""What Pyro trains wrongly without an error is refused by ``pv.check``, or is made right.

Each test names its number in docs/guards.md; ``without`` leaves the check out and shows what Pyro then does.
"""

import copy
import gc
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    SVI,
    EnergyDistance,
    JitTraceMeanField_ELBO,
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    TraceTailAdaptive_ELBO,
    TraceTMC_ELBO,
)
from torch import nn
from torch.distributions import constraints, kl_divergence

import pyrovae as pv
from pyrovae import guards, guides, likelihoods, priors

X = torch.bernoulli(torch.full((12, 6), 0.4), generator=torch.Generator().manual_seed(0))


def vae(prior=None, guide=None):
    torch.manual_seed(0)
    return pv.VAE(
        priors.Normal(2) if prior is None else prior,
        likelihoods.Bernoulli(pv.nn.MLP(2, [5], 6)),
        guides.Normal(pv.nn.MLP(6, [5]), 2) if guide is None else guide,
    )


def step(model, guide, loss, lr=1e-2, x=X):
    pv.check(model, guide, loss, x)
    return SVI(model, guide, pyro.optim.Adam({"lr": lr}), loss).step(x)


@pytest.mark.parametrize("loss", [Trace_ELBO(), TraceMeanField_ELBO(), RenyiELBO(), TraceGraph_ELBO()])
def test_pyros_objectives_train_it_unchanged(loss):
    model = vae()
    before = copy.deepcopy(model.state_dict())
    svi = SVI(model.model, model.guide, pyro.optim.Adam({"lr": 1e-2}), loss)
    losses = [svi.step(X) for _ in range(150)]
    assert sum(losses[-20:]) < sum(losses[:20]) - 20 * len(X) * 0.2
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name, _ in model.named_parameters()}


# S1: TraceMeanField_ELBO takes the scale and mask of the guide's site only; Trace_ELBO takes each on its own side


@pytest.mark.parametrize("handler", [lambda f: poutine.scale(f, 0.1), lambda f: poutine.mask(f, torch.tensor(False))])
@pytest.mark.parametrize("loss", [Trace_ELBO(), TraceMeanField_ELBO()])
def test_s1_scale_or_mask_on_one_side(handler, loss):
    model = vae()
    with pytest.raises(ValueError, match=r"site 'z' has scale .* and mask .* in the model"):
        step(handler(model.model), model.guide, loss)
    with pytest.raises(ValueError, match=r"site 'z' has scale .* and mask .* in the model"):
        step(model.model, handler(model.guide), loss)
    assert math.isfinite(step(handler(model.model), handler(model.guide), loss))


def test_s1_what_pyro_does_without():
    model = vae()
    losses = []
    for m in (model.model, poutine.scale(model.model, 0.1)):
        torch.manual_seed(0)
        losses.append(TraceMeanField_ELBO(num_particles=2000, vectorize_particles=True).loss(m, model.guide, X))
    kl = pv.metrics.elbo(model, X).kl.sum().item()
    reconstruction = losses[0] - kl
    assert losses[1] == pytest.approx(0.1 * reconstruction + kl, rel=1e-2)  # the KL keeps its whole weight


# S2, S3: partial score functions


class PartialScore(dist.Normal):
    def score_parts(self, x):
        return dist.score_parts.ScoreParts(self.log_prob(x), 0.5 * self.log_prob(x), self.log_prob(x))

    def expand(self, batch_shape, _instance=None):
        return PartialScore(self.loc.expand(batch_shape), self.scale.expand(batch_shape))


class Family(guides.Guide):
    """A guide of whatever family; its head gives two numbers per coordinate."""

    support = None

    def __init__(self, make):
        super().__init__(pv.nn.MLP(6, [5]), 2, 4)
        self.make = make

    def distribution(self, x):
        return self.make(*self.head(self.network(x)).chunk(2, -1))


def test_s2_to_event_drops_score_parts():
    model = vae(guide=Family(lambda a, b: PartialScore(a, b.exp()).to_event(1)))
    with pytest.raises(ValueError, match=r"to_event\(\) drops the score_parts of PartialScore"):
        step(model.model, model.guide, Trace_ELBO())


class KeepsScoreParts(dist.MultivariateNormal):
    def score_parts(self, x):
        return dist.score_parts.ScoreParts(self.log_prob(x), 0.5 * self.log_prob(x), self.log_prob(x))


def test_s3_trace_graph_ignores_score_parts():
    model = vae(guide=Family(lambda a, b: KeepsScoreParts(a, scale_tril=torch.diag_embed(b.exp()))))
    with pytest.raises(ValueError, match=r"score_parts of KeepsScoreParts.*: use pyrovae.ELBO"):
        step(model.model, model.guide, TraceGraph_ELBO())
    step(model.model, model.guide, Trace_ELBO())


# S4: an enumerated straight-through category; S5: objectives that need a path, and a guide that has none


class OneHotPrior(priors.Prior):
    def __init__(self):
        super().__init__()
        self.register_buffer("logits", torch.zeros(2))

    def distribution(self):
        return dist.OneHotCategorical(logits=self.logits)


class Enumerated(Family):
    def forward(self, x):
        return pyro.sample("z", self.distribution(x), infer={"enumerate": "parallel"})


def test_s4_enumerated_straight_through():
    guide = Enumerated(lambda a, b: dist.OneHotCategoricalStraightThrough(logits=a))
    model = vae(OneHotPrior(), guide)
    with pytest.raises(ValueError, match="loses the weights of an enumerated OneHotCategoricalStraightThrough"):
        step(model.model, model.guide, TraceEnum_ELBO(max_plate_nesting=1))
    exact = vae(OneHotPrior(), Enumerated(lambda a, b: dist.OneHotCategorical(logits=a)))
    assert math.isfinite(step(exact.model, exact.guide, TraceEnum_ELBO(max_plate_nesting=1)))


NEED_A_PATH = [
    RenyiELBO(num_particles=2),
    TraceMeanField_ELBO(),
    TraceTailAdaptive_ELBO(num_particles=2, vectorize_particles=True),
    EnergyDistance(),
    TraceTMC_ELBO(max_plate_nesting=1, strict_enumeration_warning=False),
]
DISCRETE = {
    "torch's": (OneHotPrior, lambda: Family(lambda a, b: dist.OneHotCategorical(logits=a))),
    "bernoulli": (lambda: priors.Bernoulli(2), lambda: guides.Bernoulli(pv.nn.MLP(6, [5]), 2)),
    "poisson": (lambda: priors.Poisson(2), lambda: guides.Poisson(pv.nn.MLP(6, [5]), 2)),
    "categorical": (lambda: priors.Categorical(2), lambda: guides.Categorical(pv.nn.MLP(6, [5]), 2)),
}


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("loss", NEED_A_PATH, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("law", DISCRETE)
def test_s5_objectives_that_need_a_path_and_a_discrete_guide(law, loss, validate):
    prior, guide = DISCRETE[law]
    model = vae(prior(), guide())
    with (
        pyro.validation_enabled(validate),
        pytest.raises(ValueError, match=rf"{type(loss).__name__}.*not reparametrised"),
    ):
        step(model.model, model.guide, loss)
    assert math.isfinite(step(model.model, model.guide, Trace_ELBO()))


def test_s5_what_pyro_does_without():
    model = vae(OneHotPrior(), Family(lambda a, b: dist.OneHotCategorical(logits=a)))
    RenyiELBO(num_particles=2).loss_and_grads(model.model, model.guide, X)
    gradients = [p.grad for p in model.posterior.parameters()]
    assert all(g is None or not g.any() for g in gradients)


def test_s5_tensor_monte_carlo_gives_a_site_that_is_not_enumerated_no_gradient():
    exact = vae(OneHotPrior(), Enumerated(lambda a, b: dist.OneHotCategorical(logits=a)))
    assert math.isfinite(step(exact.model, exact.guide, TraceTMC_ELBO(max_plate_nesting=1)))
    prior, guide = DISCRETE["categorical"]
    model = vae(prior(), guide())
    NEED_A_PATH[-1].loss_and_grads(model.model, model.guide, X)
    assert not any(p.grad is not None and p.grad.any() for p in model.posterior.parameters())


def test_s5_mean_field_without_validation_has_the_gradient_of_the_kl_alone():
    prior, guide = DISCRETE["bernoulli"]
    model = vae(prior(), guide())
    with pyro.validation_enabled(False):
        TraceMeanField_ELBO().loss_and_grads(model.model, model.guide, X)
    got = [p.grad.clone() for p in model.posterior.parameters()]
    kl = kl_divergence(model.posterior.distribution(X), model.prior.distribution().expand((len(X),))).sum()
    for gradient, expected in zip(got, torch.autograd.grad(kl, model.posterior.parameters()), strict=True):
        torch.testing.assert_close(gradient, expected)


# S6: test_kl.py. S7: infinite draws


@pytest.mark.parametrize("family", [dist.Logistic, dist.SoftLaplace])
def test_s7_families_that_can_draw_infinity(family):
    model = vae(guide=Family(lambda a, b: family(a, b.exp()).to_event(1)))
    with pytest.raises(ValueError, match=r"-inf about once in"):
        step(model.model, model.guide, Trace_ELBO())


# S8: Pyro's global store keeps the first tensor under a name


def trains(model, steps=3):
    before = {name: value.clone() for name, value in model.named_parameters()}
    svi = SVI(model.model, model.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    for _ in range(steps):
        svi.step(X)
    return {name for name, value in model.named_parameters() if not torch.equal(value, before[name])} == set(before)


def test_s8_a_second_model_a_copy_a_new_layer_and_assigned_weights_all_train():
    first, second = vae(), vae()
    assert trains(first)
    assert trains(second)
    assert trains(copy.deepcopy(first))
    first.likelihood.network.layers[2] = nn.Linear(5, 6)
    assert trains(first)
    first.load_state_dict({k: v.clone() for k, v in second.state_dict().items()}, assign=True)
    assert trains(first)
    assert trains(second)


def test_s8_without_the_guard_the_second_model_stands_still(monkeypatch):
    monkeypatch.setattr(guards, "register", lambda module: pyro.module("one name for all", module))
    with pyro.get_param_store().scope():
        assert trains(vae())
        assert not trains(vae())
        third = vae()
        with pytest.raises(ValueError, match=r"tensors of shapes .* are no parameters of Pyro"):  # S17 finds it
            step(third.model, third.guide, Trace_ELBO())


def test_s8_a_named_pyro_module_trains_and_a_clash_raises():
    class Scale(pyro.nn.PyroModule):
        def __init__(self, name):
            super().__init__(name)
            self.scale = pyro.nn.PyroParam(torch.ones(2), constraint=constraints.positive)

        def forward(self):
            return pyro.sample("z", dist.Normal(torch.zeros(2), self.scale).to_event(1))

    with pyro.get_param_store().scope():
        assert trains(vae(Scale("one")))
        assert trains(vae(Scale("another")))
        clash = vae(Scale("one"))
        with pytest.raises(ValueError, match=r"one\.scale.*belongs to another model"):
            step(clash.model, clash.guide, Trace_ELBO())


def test_s8_a_model_that_is_gone_leaves_the_store():
    model = vae()
    step(model.model, model.guide, Trace_ELBO())
    store = pyro.get_param_store()
    own = {name for name, value in store.items() if any(value is p for p in model.parameters())}
    assert len(own) == 8
    del model
    gc.collect()
    assert own.isdisjoint(store.keys())


def test_a_model_that_is_collected_while_the_store_is_read_is_left_out(monkeypatch):
    class Collecting(dict):
        def get(self, name):  # any allocation may have the garbage collector run
            self.pop("gone", None)
            return super().get(name)

    params = Collecting(kept=torch.zeros(1), gone=torch.zeros(1))
    monkeypatch.setattr(pyro.get_param_store(), "_params", params)
    assert list(guards.stored()) == ["kept"]


# S9, S12


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # Pyro's Jit objectives stand on it
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")  # its category in other versions of torch
def test_s9_jit_mean_field():
    with pytest.raises(ValueError, match="JitTraceMeanField_ELBO traces anew at every step"):
        pv.fit(vae(), X, epochs=1, loss=JitTraceMeanField_ELBO(), progress=False)
    model = vae()
    with pytest.raises(ValueError, match="JitTraceMeanField_ELBO traces anew at every step"):
        step(model.model, model.guide, JitTraceMeanField_ELBO())


def test_s12_clip_norm():
    optim = pyro.optim.Adam({"lr": 1e-3}, {"clip_norm": 1.0})
    with pytest.raises(ValueError, match=r"clip_norm clips each tensor by itself"):
        pv.fit(vae(), X, epochs=1, optim=optim, progress=False)


# S10: EnergyDistance(max_plate_nesting=1) puts its particles on the data's dimension


def test_s10_energy_distance_does_not_share_the_data_dimension():
    torch.manual_seed(0)
    model = pv.VAE(priors.Normal(2), likelihoods.Normal(pv.nn.MLP(2, [5], 6)), guides.Normal(pv.nn.MLP(6, [5]), 2))
    with pytest.raises(ValueError, match="collide at dim=-1"):
        step(model.model, model.guide, EnergyDistance(num_particles=12, max_plate_nesting=1))
    assert math.isfinite(step(model.model, model.guide, EnergyDistance(num_particles=12, max_plate_nesting=2)))


# S13: an ELBO module of two methods owns no parameter


def test_s13_the_parameters_are_those_of_the_vae():
    model = vae()
    loss = Trace_ELBO()(model.model, model.guide)
    with pytest.raises(ValueError, match="empty parameter list"):
        torch.optim.Adam(loss.parameters())
    optim = torch.optim.Adam(model.parameters(), lr=1e-2)
    before = copy.deepcopy(model.state_dict())
    loss(X).backward()
    optim.step()
    assert all(not torch.equal(value, before[name]) for name, value in model.named_parameters())


# S14: plates of other sizes; S15: sites that are in one function only


def test_s14_a_guide_on_another_plate():
    model = vae()

    def guide(x):
        with pyro.plate("data", 120, subsample=torch.arange(12), dim=-1):
            return model.posterior(x)

    with pytest.raises(ValueError, match=r"plates of the same size around both"):
        step(model.model, guide, Trace_ELBO())


class Misnamed(guides.Normal):
    def forward(self, x):
        return pyro.sample("code", self.distribution(x))


class Extra(guides.Normal):
    def forward(self, x):
        pyro.sample("z_gate", dist.Normal(torch.zeros(len(x)), 1.0), infer=self.infer)
        return super().forward(x)


def test_s15_missing_and_invented_sites():
    model = vae(guide=Misnamed(pv.nn.MLP(6, [5]), 2))
    with pytest.raises(ValueError, match=r"the guide samples the sites \['code'\], the model \['z'\].*the guide too"):
        step(model.model, model.guide, Trace_ELBO())
    extra = Extra(pv.nn.MLP(6, [5]), 2)
    model = vae(guide=extra)
    extra.infer = {}
    with pytest.raises(ValueError, match=r"\['z', 'z_gate'\], the model \['z'\]"):
        step(model.model, model.guide, Trace_ELBO())
    extra.infer = {"is_auxiliary": True}
    assert math.isfinite(step(model.model, model.guide, Trace_ELBO()))


# L19: support


class GammaPrior(priors.Prior):
    def __init__(self):
        super().__init__()
        self.register_buffer("rate", torch.ones(2))

    def distribution(self):
        return dist.Gamma(self.rate, self.rate).to_event(1)


def test_other_support_is_refused_when_the_vae_is_made():
    with pytest.raises(ValueError, match=r"guide Normal has support Real\(\) but prior GammaPrior has support Greater"):
        vae(GammaPrior())
    guide = guides.Normal(pv.nn.MLP(6, [5]), 2)
    guide.support = constraints.positive
    with pytest.raises(ValueError, match=r"guides that fit: .*Laplace.*Normal"):
        vae(guide=guide)


def test_an_undeclared_support_is_refused_at_the_first_step():
    model = vae(GammaPrior(), Family(lambda a, b: dist.Normal(a, b.exp()).to_event(1)))
    with pytest.raises(ValueError, match=r"site 'z' has support .* in the model but Real\(\) in the guide"):
        step(model.model, model.guide, Trace_ELBO())
    fits = vae(GammaPrior(), Family(lambda a, b: dist.LogNormal(a, b.exp()).to_event(1)))
    assert math.isfinite(step(fits.model, fits.guide, Trace_ELBO()))


def test_same_support():
    assert guards.same_support(dist.Gamma.support, dist.LogNormal.support)
    assert guards.same_support(constraints.independent(constraints.real, 1), constraints.real)
    assert guards.same_support(dist.Beta.support, constraints.interval(0.0, 1.0))
    assert not guards.same_support(constraints.interval(0.0, 2.0), constraints.unit_interval)
    assert not guards.same_support(constraints.real, constraints.nonnegative_integer)


def test_data_of_another_shape_raises_in_place_of_broadcasting():
    model = vae()
    message = r"x has shape \(1,\) per datum, the likelihood \(6,\)"
    with pytest.raises(ValueError, match=message):
        pv.check(model.model, lambda x: model.guide(X[:3]), None, torch.ones(3, 1))


def test_other_handlers_still_work():
    """Prior and posterior predictive, conditioning, wake-sleep."""
    model = vae()
    draws = pyro.infer.Predictive(model.model, num_samples=3)(None, 4)
    assert draws["x"].shape == (3, 4, 6)
    draws = pyro.infer.Predictive(model.model, guide=model.guide, num_samples=3)(X)
    assert draws["z"].shape == (3, 12, 2)
    conditioned = poutine.condition(model.model, {"z": torch.zeros(12, 2)})
    assert torch.equal(poutine.trace(conditioned).get_trace(X).nodes["z"]["value"], torch.zeros(12, 2))
    wake, sleep = step(model.model, model.guide, ReweightedWakeSleep(num_particles=2, vectorize_particles=False))
    assert math.isfinite(wake)
    assert math.isfinite(sleep)


def test_mixed_dtypes_are_named():
    data = torch.bernoulli(torch.full((5, 64), 0.5))
    vae = pv.build_vae((64,), 4, prior="spike-slab", hidden=(8,))
    vae.prior.double()
    for call in (lambda: step(vae.model, vae.guide, pv.ELBO(), x=data), lambda: vae.encode(data)):
        with pytest.raises(
            ValueError, match=r"mixed dtypes.*prior\S+ is torch\.float64.*likelihood\S+ is torch\.float32"
        ):
            call()
    vae.float()
    for call in (lambda: vae.encode(data.double()), lambda: pv.metrics.elbo(vae, data.double())):
        with pytest.raises(ValueError, match=r"x is torch\.float64 on cpu, the VAE torch\.float32 on cpu"):
            call()
    with pytest.raises(ValueError, match=r"the network takes floating-point inputs, got torch\.int64"):
        vae.encode(data.long())
    vae.to("meta")
    with pytest.raises(ValueError, match=r"x is torch\.float32 on cpu, the VAE torch\.float32 on meta"):
        vae.encode(data)


def test_a_code_of_another_width_than_the_priors_is_named():
    parts = [pv.likelihoods.Bernoulli(pv.nn.MLP(4, [8], 64)), pv.guides.Normal(pv.nn.MLP(64, [8]), 4)]
    with pytest.raises(ValueError, match=r"prior Normal: .* event_shape \(5,\), guide Normal has \(4,\), the network"):
        pv.VAE(pv.priors.Normal(5), *parts)

    class InSites(pv.priors.Normal):  # only its sites can tell
        def forward(self):
            return pyro.sample("z", self.distribution())

    vae = pv.VAE(InSites(5), *parts)
    data = torch.bernoulli(torch.full((6, 64), 0.5))
    with pytest.raises(ValueError, match=r"'z' has event_shape \(5,\) in the model but \(4,\) in the guide"):
        step(vae.model, vae.guide, pv.ELBO(), x=data)
