"""Refined guides: no bound falls, the end is a stationary point, and each update is the best one of its coordinate."""

from __future__ import annotations

import copy
import re

import pyro
import pytest
import torch
from torch import Tensor

import pyrovae as pv
from pyrovae.distributions import SpikeSlab
from pyrovae.guides import Refined

D, OUT, N = 7, 5, 40


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make(likelihood: str = "normal:scale=per-pixel", steps: int = 5, seed: int = 0, **options: bool) -> pv.VAE:
    torch.manual_seed(seed)
    vae = pv.build_vae(
        (OUT,),
        D,
        prior="spike-slab:learned=active+loc+scale",
        likelihood=likelihood,
        guide="spike-slab",
        network="dictionary",
        hidden=(8,),
    )
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.7 * torch.randn_like(parameter))
    return pv.VAE(vae.prior, vae.likelihood, Refined(vae.posterior, vae.prior, vae.likelihood, steps, **options))


def data(seed: int = 1) -> Tensor:
    return 2 * torch.randn(N, OUT, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bounds(vae: pv.VAE, q: SpikeSlab, x: Tensor) -> Tensor:
    """The ELBO of each datum, of the terms that ELBO itself takes."""
    p = vae.prior.distribution().base_dist
    kl = torch.distributions.kl_divergence(q, p).sum(-1)
    return vae.likelihood(q.mean).expected_log_prob(q.to_event(1), x) - kl


@pytest.mark.parametrize("likelihood", ["normal", "normal:scale=0.05", "normal:scale=per-pixel"])
@pytest.mark.parametrize("seed", range(5))
def test_the_bound_of_no_datum_falls_and_most_rise(likelihood, seed):
    vae, x = make(likelihood, seed=seed), data(seed)
    start = vae.posterior.guide.distribution(x)
    before = bounds(vae, start.base_dist, x)
    for steps in (1, 2, 5, 30):
        after = bounds(vae, vae.posterior.refined(start, x, steps), x)
        assert bool((after >= before - 1e-9 * before.abs()).all())
    assert bool((after > before).double().mean() > 0.9)


def test_many_sweeps_end_at_a_stationary_point():
    vae, x = make("normal"), data()
    q = vae.posterior.refined(vae.posterior.guide.distribution(x), x, 3000)
    loc, scale, logits = (t.detach().requires_grad_() for t in (q.slab.loc, q.slab.scale, q.logits))
    total = bounds(vae, SpikeSlab(logits, pyro.distributions.Normal(loc, scale)), x).sum()
    open_ = q.probs > 1e-6  # a slab behind a shut gate has no gradient
    for gradient in torch.autograd.grad(total, (loc, scale, logits)):
        assert gradient[open_].abs().max() < 1e-6


def test_an_update_is_the_best_one_of_its_coordinate():
    """One coordinate: the closed form beats 20,000 random alternatives of location, scale and gate."""
    vae, x = make("normal"), data()[:1]
    q = vae.posterior.refined(vae.posterior.guide.distribution(x), x, 3000)
    best = bounds(vae, q, x)
    generator = torch.Generator().manual_seed(0)
    for j in range(D):
        loc, scale, logits = (t.expand(20_000, D).clone() for t in (q.slab.loc, q.slab.scale, q.logits))
        for t, spread in ((loc, 1.0), (logits, 2.0)):
            t[:, j] += spread * torch.randn(20_000, generator=generator)
        scale[:, j] *= torch.exp(torch.randn(20_000, generator=generator))
        others = bounds(vae, SpikeSlab(logits, pyro.distributions.Normal(loc, scale)), x.expand(20_000, OUT))
        assert others.max() <= best + 1e-9


def test_gradients_go_through_the_sweeps():
    vae, x = make(), data()
    loss = pv.ELBO(reconstruction="exact").differentiable_loss(vae.model, vae.guide, x)
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in vae.parameters())
    head = vae.posterior.guide.head.weight
    assert head.grad.abs().sum() > 0
    step = 1e-6
    with torch.no_grad():
        direction = torch.randn(head.shape, generator=torch.Generator().manual_seed(0))
        head += step * direction
        up = pv.ELBO().loss(vae.model, vae.guide, x)
        head -= 2 * step * direction
        down = pv.ELBO().loss(vae.model, vae.guide, x)
    assert (up - down) / (2 * step) == pytest.approx((head.grad * direction).sum().item(), rel=1e-4)


def test_sweeps_may_be_those_of_eval_mode_alone():
    vae, x = make(train=False), data()
    assert torch.equal(
        vae.posterior.distribution(x).base_dist.logits, vae.posterior.guide.distribution(x).base_dist.logits
    )
    vae.eval()
    q = vae.posterior.distribution(x).base_dist
    assert not torch.equal(q.logits, vae.posterior.guide.distribution(x).base_dist.logits)


def test_the_model_stays_one_of_the_vae_alone():
    vae = make()
    assert not [name for name in vae.state_dict() if name.startswith("posterior.") and "likelihood" in name]
    assert len(list(vae.parameters())) == len({id(p) for p in vae.parameters()})
    other = copy.deepcopy(vae)
    assert other.posterior.model_parts[0] is other.prior
    assert other.posterior.model_parts[1] is other.likelihood


def test_a_compiled_step_trains_it(recorded):
    torch.set_default_dtype(torch.float32)
    losses = []
    for compile in (False, True):
        pyro.clear_param_store()
        vae, x = make(), data().float()
        svi = pv.SVI(vae.model, vae.guide, pv.optim.adam(1e-2), pv.ELBO(), compile=compile)
        losses.append([svi.step(x) for _ in range(8)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps must be a positive whole number, got 0"),
        ({"guide": pv.guides.Normal}, "guide must be a spike-and-slab guide with Normal or truncated Normal slabs"),
        ({"slab": "laplace"}, "guide must be a spike-and-slab guide with Normal or truncated Normal slabs"),
        (
            {"prior": lambda: pv.priors.Normal(D)},
            "prior must be a spike-and-slab whose slabs are Normal, truncated Normal, half-Normal or exponential, got "
            "Normal",
        ),
        ({"prior": lambda: pv.priors.SpikeSlab(D, slab="exponential")}, "guide must have slabs"),
        (
            {"network": lambda: pv.nn.MLP(D, [8], OUT)},
            "likelihood must be Normal with a linear decoder (Dictionary), got Normal with MLP",
        ),
    ],
)
def test_what_has_no_update_is_refused(arguments, message):
    kind = arguments.get("guide", pv.guides.SpikeSlab)
    slab = {"slab": arguments["slab"]} if "slab" in arguments else {}
    guide = kind(pv.nn.MLP(OUT, [8]), D, **slab)
    likelihood = pv.likelihoods.Normal(arguments.get("network", lambda: pv.nn.Dictionary(D, (OUT,)))())
    prior = arguments.get("prior", lambda: pv.priors.SpikeSlab(D))()
    with pytest.raises(ValueError, match=re.escape(message)):
        Refined(guide, prior, likelihood, arguments.get("steps", 5))


def test_it_is_built_saved_and_loaded_by_its_number_of_sweeps(tmp_path):
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    vae = pv.build_vae((OUT,), D, prior="spike-slab", likelihood="normal", network="dictionary", hidden=(8,), refine=3)
    assert isinstance(vae.posterior, Refined)
    assert vae.posterior.steps == 3
    pv.save(vae, tmp_path)
    x = data().float()
    assert torch.equal(pv.load(tmp_path).encode(x), vae.encode(x))


@pytest.mark.parametrize(
    "options", [{"prior": "normal"}, {"network": "mlp"}, {"missing": True}, {"prior": "horseshoe"}]
)
def test_a_model_without_the_update_says_so(options):
    given = {"prior": "spike-slab", "likelihood": "normal", "network": "dictionary", "hidden": (8,), "refine": 3}
    with pytest.raises(
        ValueError,
        match="refine is for prior 'spike-slab', likelihood 'normal', network 'dictionary' and no missing values",
    ):
        pv.build_vae((OUT,), D, **{**given, **options})


def test_it_belongs_to_the_parts_that_it_was_made_for():
    vae, other = make(), make(seed=1)
    with pytest.raises(ValueError, match="guide Refined was made for another prior or likelihood"):
        pv.VAE(vae.prior, vae.likelihood, other.posterior)
    with pytest.raises(ValueError, match="guide Refined was made for another prior or likelihood"):
        pv.VAE(vae.prior, vae.likelihood, copy.deepcopy(vae.posterior))


def test_no_rows_have_no_codes():
    assert make().encode(torch.empty(0, OUT)).shape == (0, D)


@pytest.mark.parametrize("parts", [(None, None), (pv.priors.SpikeSlab(2), None)])
def test_parts_that_are_none_are_refused(parts):
    with pytest.raises(ValueError, match=r"^(prior|likelihood) must be"):
        Refined(pv.guides.SpikeSlab(pv.nn.MLP(OUT, [8]), 2), *parts)
