"""Recurrent networks against a loop by hand, autoregressive likelihoods against the enumeration of all sequences."""

import itertools

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats as st
import torch
from svi_runs import losses, weights
from torch import nn

import pyrovae as pv
from pyrovae.compilation import Program, Timings
from pyrovae.likelihoods import Autoregressive, Categorical
from pyrovae.nn import GRUDecoder, GRUEncoder

LENGTH, CLASSES, DIM = 4, 3, 2
ALL = torch.tensor(list(itertools.product(range(CLASSES), repeat=LENGTH)))  # 81 sequences


def encoder(**options):
    torch.manual_seed(0)
    return GRUEncoder(LENGTH, CLASSES, hidden=5, embedding=3, **options).double()


def decoder(**options):
    torch.manual_seed(1)
    network = GRUDecoder(DIM, LENGTH, CLASSES, hidden=6, embedding=3, **options).double()
    nn.init.normal_(network.last.weight)  # so that the sequences differ in probability
    return network


def codes(*batch):
    return torch.randn(*batch, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def symbols(*batch):
    return torch.randint(CLASSES, (*batch, LENGTH), generator=torch.Generator().manual_seed(3))


# --- the networks -----------------------------------------------------------------------------------------------------


def cell(gru, x, h, suffix=""):
    """Cho et al. (2014), in the form of cuDNN, which torch documents."""
    weight_x, weight_h, bias_x, bias_h = (
        getattr(gru, f"{name}_l0{suffix}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    rx, ux, nx = (weight_x @ x + bias_x).chunk(3)
    rh, uh, nh = (weight_h @ h + bias_h).chunk(3)
    reset, update = torch.sigmoid(rx + rh), torch.sigmoid(ux + uh)
    return (1 - update) * torch.tanh(nx + reset * nh) + update * h


def test_the_encoder_is_a_loop_from_each_end():
    network, x = encoder(), symbols(6)
    for row, got in zip(x, network(x), strict=True):
        forward = backward = torch.zeros(5, dtype=torch.float64)
        for t in range(LENGTH):
            forward = cell(network.gru, network.embedding.weight[row[t]], forward)
            backward = cell(network.gru, network.embedding.weight[row[LENGTH - 1 - t]], backward, "_reverse")
        torch.testing.assert_close(got, torch.cat([forward, backward]))


def logits_by_hand(network, z, row):
    """The logits of each symbol, of a GRU that was told z and the symbols before."""
    h = torch.tanh(network.first.weight @ z + network.first.bias)
    logits, before = [], CLASSES  # which stands for no symbol
    for t in range(LENGTH):
        h = cell(network.gru, torch.cat([network.embedding.weight[before], z]), h)
        logits.append(network.last.weight @ h + network.last.bias)
        before = CLASSES + 1 if row is None else row[t]
    return torch.stack(logits)


def test_the_decoder_is_a_loop_with_or_without_the_symbols_before():
    network, z, x = decoder(), codes(6), symbols(6)
    expected = torch.stack([logits_by_hand(network, *pair) for pair in zip(z, x, strict=True)])
    torch.testing.assert_close(network(z, x), expected.flatten(1))
    expected = torch.stack([logits_by_hand(network, each, None) for each in z])
    torch.testing.assert_close(network(z), expected.flatten(1))


def test_generation_sees_the_logits_of_what_it_has_written():
    network, z, x = decoder(), codes(6), symbols(6)
    seen, left = [], list(x.T)

    def choose(logits):
        seen.append(logits)
        return left.pop(0)

    assert torch.equal(network.generate(z, choose), x)
    torch.testing.assert_close(torch.stack(seen, 1).flatten(1), network(z, x))


def test_batch_dimensions_are_one_and_any_dtype_is_read():
    enc, dec, z, x = encoder(), decoder(), codes(3, 5), symbols(3, 5)
    expected = enc(x.flatten(0, 1)).unflatten(0, (3, 5))
    for dtype in (torch.uint8, torch.int32, torch.float32, torch.float64):
        assert torch.equal(enc(x.to(dtype)), expected)
        torch.testing.assert_close(dec(z, x.to(dtype)), dec(z.flatten(0, 1), x.flatten(0, 1)).unflatten(0, (3, 5)))
    torch.testing.assert_close(enc(x[0, 0]), expected[0, 0])
    assert dec.generate(z, lambda logits: logits.argmax(-1)).shape == (3, 5, LENGTH)
    assert (enc.out_features, dec.out_features) == (10, LENGTH * CLASSES)


def test_word_dropout_hides_symbols_in_training_alone():
    network, z, x = decoder(word_dropout=1.0), codes(6), symbols(6)
    torch.testing.assert_close(network(z, x), network(z))
    torch.testing.assert_close(network.eval()(z, x), decoder()(z, x))
    network = decoder(word_dropout=0.3)
    torch.manual_seed(4)
    hidden = []
    network.embedding.register_forward_hook(lambda module, inputs, out: hidden.append(inputs[0] == CLASSES + 1))
    network(codes(30_000), symbols(30_000))
    assert not hidden[0][:, 0].any()
    # within five standard errors: a false alarm once in 10^6
    assert abs(hidden[0][:, 1:].double().mean() - 0.3) < 5 * (0.21 / 90_000) ** 0.5


def test_dropout_is_of_training_alone():
    for network, inputs in ((encoder(dropout=0.4), [symbols(6)]), (decoder(dropout=0.4), [codes(6), symbols(6)])):
        assert not torch.equal(network(*inputs), network(*inputs))
        network.eval()
        assert torch.equal(network(*inputs), network(*inputs))


# --- the likelihood ---------------------------------------------------------------------------------------------------


def test_log_prob_is_the_sum_over_symbols_and_all_sequences_have_mass_one():
    network, z = decoder(), codes(5)
    p = Autoregressive(network, CLASSES)(z)
    assert (p.batch_shape, p.event_shape) == ((5,), (LENGTH,))
    log_prob = p.log_prob(ALL[:, None])
    assert log_prob.shape == (81, 5)
    torch.testing.assert_close(log_prob.exp().sum(0), torch.ones(5, dtype=torch.float64))
    for i, row in enumerate(ALL):
        by_hand = logits_by_hand(network, z[2], row).log_softmax(-1)
        torch.testing.assert_close(log_prob[i, 2], by_hand[torch.arange(LENGTH), row].sum())
    assert p.support.check(ALL).all()
    assert not p.support.check(ALL + 0.5).any()


def test_given_the_symbols_before_they_are_not_independent():
    """The joint is no product of its marginals; under a Categorical of the same network it is."""
    network, z = decoder(), codes(1)
    for likelihood, dependent in ((Autoregressive(network, CLASSES), True), (Categorical(network, CLASSES), False)):
        probs = likelihood(z).log_prob(ALL).exp().reshape([CLASSES] * LENGTH)
        assert probs.sum().item() == pytest.approx(1.0)
        marginals = [probs.sum([d for d in range(LENGTH) if d != t]) for t in range(LENGTH)]
        product = torch.einsum("a,b,c,d->abcd", *marginals)
        assert torch.allclose(probs, product, atol=1e-6) != dependent


def test_draws_follow_the_law():
    """Chi-squared over the 81 sequences, those of fewer than 5 expected draws as one: a false alarm once in 10^6."""
    torch.manual_seed(5)
    p = Autoregressive(decoder(), CLASSES)(codes(1))
    x = p.expand((40_000,)).sample()
    assert x.shape == (40_000, LENGTH)
    index = (x * CLASSES ** torch.arange(LENGTH - 1, -1, -1)).sum(1)
    observed = torch.bincount(index, minlength=81).numpy()
    expected = 40_000 * p.expand((81,)).log_prob(ALL).exp().detach().numpy()
    rare = expected < 5
    observed, expected = (np.append(counts[~rare], counts[rare].sum()) for counts in (observed, expected))
    met = expected > 0
    assert observed[~met].sum() == 0
    assert st.chisquare(observed[met], expected[met]).pvalue > 1e-6


def test_expand_plates_and_particles():
    torch.manual_seed(6)
    likelihood, z, x = Autoregressive(decoder(), CLASSES), codes(3, 5), symbols(5)
    p = likelihood(z)
    each = torch.stack([likelihood(row).log_prob(x) for row in z])
    torch.testing.assert_close(p.log_prob(x), each)
    one = likelihood(z[0, 0])
    wide = one.expand((5,)).expand((3, 5))
    assert (wide.batch_shape, wide.event_shape) == ((3, 5), (LENGTH,))
    torch.testing.assert_close(wide.log_prob(x)[1], one.log_prob(x))
    assert len(wide.sample().flatten(0, 1).unique(dim=0)) > 1
    assert p.sample((7,)).shape == (7, 3, 5, LENGTH)
    with pyro.plate("data", 6, dim=-1):
        assert pyro.sample("x", one).shape == (6, LENGTH)
    event = p.to_event(1)
    torch.testing.assert_close(event.log_prob(x), each.sum(1))


def test_gradients_are_finite_differences():
    network, x = decoder(), symbols(3)
    likelihood = Autoregressive(network, CLASSES)
    parameters = [p.detach().clone().requires_grad_() for p in network.parameters()]
    names = [f"network.{name}" for name, _ in network.named_parameters()]

    def log_prob(z, *values):
        given = dict(zip(names, values, strict=True))
        return torch.func.functional_call(Scored(likelihood), {f"of.{k}": v for k, v in given.items()}, (z, x))

    assert torch.autograd.gradcheck(log_prob, (codes(3).requires_grad_(), *parameters))


class Scored(nn.Module):
    def __init__(self, likelihood):
        super().__init__()
        self.of = likelihood

    def forward(self, z, x):
        return self.of(z).log_prob(x)


def test_the_likeliest_symbols_are_taken_one_by_one():
    likelihood, z = Autoregressive(decoder(), CLASSES), codes(6)
    probs = likelihood(z[:, None]).log_prob(ALL).exp().reshape(-1, *[CLASSES] * LENGTH)
    for row, got in zip(probs, likelihood.mean(z), strict=True):
        for t in range(LENGTH):
            assert got[t] == row.reshape(CLASSES, -1).sum(1).argmax()
            row = row[int(got[t])]
    assert likelihood.mean(z).dtype == z.dtype


def vae(seed=0, likelihood="autoregressive", **options):
    torch.manual_seed(seed)
    return pv.build_vae(
        (LENGTH,), DIM, likelihood=likelihood, network="gru", num_classes=CLASSES, hidden=(6,), **options
    )


def test_the_bounds_of_a_vae_lie_below_log_p_of_every_sequence_and_meet_it():
    """log p(x) by quadrature over the code, of all 81; ten estimates of 2,000 draws within five standard errors."""
    module = vae().double()
    pv.fit(
        module, ALL, epochs=20, optim=pyro.optim.Adam({"lr": 1e-2}), seed=0, progress=False
    )  # a guide worth its draws
    nodes, w = np.polynomial.hermite_e.hermegauss(60)
    z = torch.tensor(list(itertools.product(nodes, nodes)))
    weight = torch.tensor(np.outer(w, w).ravel() / (2 * np.pi))
    with torch.no_grad():
        exact = (module.likelihood(z[:, None]).log_prob(ALL).exp() * weight[:, None]).sum(0).log()
    assert exact.exp().sum().item() == pytest.approx(1.0)
    x = ALL[:8]
    torch.manual_seed(7)
    estimates = torch.stack([pv.metrics.log_likelihood(module, x, 2000) for _ in range(10)])
    assert ((estimates.mean(0) - exact[:8]).abs() <= 5 * estimates.std(0) / 10**0.5 + 1e-3).all()
    terms = pv.metrics.elbo(module, x, 2000)
    assert terms.kl_is_exact
    assert (terms.elbo < exact[:8]).all()
    annealed = pv.metrics.annealed_importance_sampling(module, x[:2], num_temperatures=8, num_chains=4)
    assert torch.isfinite(annealed).all()


@pytest.mark.parametrize("likelihood", ["autoregressive", "categorical"])
def test_a_compiled_step_has_the_losses_of_pyros(likelihood, recorded):
    def run(cls, **options):
        module = vae(likelihood=likelihood, dropout=0.2)
        svi = cls(module.model, module.guide, pyro.optim.SGD({"lr": 1e-2}), pv.ELBO(), **options)
        return losses(svi, [symbols(9)] * 6), weights(module), svi

    (expected, theirs, _), (got, ours, svi) = run(pyro.infer.SVI), run(pv.SVI, compile=True)
    assert got == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert svi.compilations == 1


@pytest.mark.parametrize(("network", "compiled"), [("gru", 0), ("mlp", 1)])
def test_a_recurrent_layer_is_compiled_on_request_alone(network, compiled, recorded, monkeypatch):
    """Where it would pay for other networks."""
    monkeypatch.setattr(Timings, "pays", lambda *args: True)
    torch.manual_seed(0)
    options = {"likelihood": "categorical", "network": network, "num_classes": CLASSES, "hidden": (6,)}
    module, x = pv.build_vae((LENGTH,), DIM, **options), symbols(9).float()
    svi = pv.SVI(module.model, module.guide, pyro.optim.Adam({"lr": 1e-3}), pv.ELBO())
    losses(svi, [x] * 6)
    assert svi.compilations == compiled
    programs, make = [], Program.__init__
    monkeypatch.setattr(Program, "__init__", lambda self, *args: (programs.append(self), make(self, *args))[1])
    pv.metrics.log_likelihood(module, x, 2000)
    assert bool(programs) == compiled


@pytest.mark.parametrize("loss", [pv.ELBO(num_particles=2), pv.IWAE(num_particles=3), pyro.infer.Trace_ELBO()])
def test_the_objectives_take_it(loss):
    module = vae()
    assert np.isfinite(pv.SVI(module.model, module.guide, pyro.optim.Adam({"lr": 1e-3}), loss).step(symbols(7)))


def test_a_text_of_two_words_is_learned(tmp_path):
    """Half of it is one word and half another: a bit for each, and the code says which."""
    words = torch.tensor([[0, 1, 2, 2], [2, 0, 0, 1]])
    x = words[torch.arange(200) % 2]
    module = vae()
    optim = pyro.optim.Adam({"lr": 1e-2})
    history = pv.fit(
        module, x, epochs=40, batch_size=20, optim=optim, loss=pv.ELBO(kl=pv.FreeBits(0.3)), seed=0, progress=False
    )
    assert history["train_loss"][-1] < 2.0 < 4.0 < history["train_loss"][0]
    torch.manual_seed(8)
    drawn = module.sample(100)
    assert drawn.shape == (100, LENGTH)
    assert (drawn[:, None] == words).all(-1).any(-1).double().mean() > 0.9
    pv.save(module, tmp_path)
    loaded = pv.load(tmp_path)
    assert torch.equal(loaded.reconstruct(x), module.reconstruct(x))
    assert torch.equal(loaded.encode(x.float()), module.encode(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GRUEncoder(0, 3), "length must be a positive whole number, got 0"),
        (lambda: GRUDecoder(2, 4, 3, word_dropout=1.5), "word_dropout must be between 0 and 1, got 1.5"),
        (lambda: GRUDecoder(2, 4, 3, dropout=1.0), "dropout must be at least 0 and below 1"),
        (lambda: encoder()(symbols(2)[:, :3]), r"the network takes inputs of shape \(4,\), got \(2, 3\)"),
        (
            lambda: encoder()(torch.zeros(2, LENGTH, requires_grad=True)),
            "x asks for a gradient, which symbols have none",
        ),
        (lambda: Autoregressive(pv.nn.MLP(2, [3], 12), 3), r"have a generate\(z, choose\), MLP does not"),
        (lambda: Autoregressive(decoder(), 5), "num_classes = 5 does not divide the network's out_features = 12"),
        (lambda: Autoregressive(decoder(), 1), "num_classes must be at least 2, got 1"),
        (lambda: Autoregressive(decoder(), 3)(codes(2)).log_prob(symbols(2) + 3), "within the support"),
        (lambda: pv.fit(vae(), symbols(9) + 1, progress=False), "the value 3 at index .* does not fit under Autoreg"),
        (
            lambda: pv.build_vae((4,), 2, likelihood="autoregressive", num_classes=3),
            'likelihood "autoregressive" needs network "gru", which writes symbols by turns, got \'mlp\'',
        ),
        (lambda: pv.build_vae((4,), 2, network="gru"), r'network "gru" needs sequences \(length,\) under'),
        (lambda: vae(norm="batch"), "network \"gru\" has neither norm nor residual, got 'batch' and 0"),
        (lambda: vae(prior="vamp", inputs=symbols(9)), "prior 'vamp' runs the encoder, whose symbols have no gradient"),
        (
            lambda: pv.build_vae((4,), 2, likelihood="autoregressive", network="gru"),
            "num_classes must be given with the autoregressive likelihood",
        ),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_it_stands_in_any_pyro_model():
    """A language model without a code: the likelihood at a fixed z, as a site of two plain functions."""
    likelihood = Autoregressive(decoder().float(), CLASSES)

    def model(x):
        pyro.module("language model", likelihood)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("x", likelihood(torch.zeros(len(x), DIM)), obs=x)

    def guide(x):
        pass

    pyro.clear_param_store()
    history = pv.fit((model, guide), symbols(64), epochs=3, batch_size=16, seed=0, progress=False)
    assert history["train_loss"][-1] < history["train_loss"][0]
    terms = pv.metrics.elbo((model, guide), symbols(64))
    assert (terms.kl == 0).all()
    expected = likelihood(torch.zeros(64, DIM)).log_prob(symbols(64)).detach()
    torch.testing.assert_close(terms.elbo, expected)
    pyro.clear_param_store()
    assert isinstance(likelihood(torch.zeros(1, DIM)), dist.TorchDistribution)
